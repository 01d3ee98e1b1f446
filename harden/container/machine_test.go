package container

import (
	"errors"
	"io/fs"
	"maps"
	"testing"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/harden/host"
)

// denied is a file system in which one file may not be read.
type denied struct {
	fs.FS

	name string
}

func (d denied) Open(name string) (fs.File, error) {
	if name == d.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return d.FS.Open(name)
}

// What of the machine cannot be read is an error: a module that confines, a
// size that is the bound of others, or a rule, must not seem absent.
func TestWhatCannotBeReadIsNotAbsent(t *testing.T) {
	const (
		apparmor = "sys/module/apparmor/parameters/enabled"
		selinux  = "sys/fs/selinux/enforce"
		meminfo  = "proc/meminfo"
	)
	all := fstest.MapFS{meminfo: {Data: []byte("MemFree: 1 kB\nMemTotal:       24683908 kB\n")}}
	v := &host.View{FS: all}
	if name, err := lsm(v); name != "" || err != nil {
		t.Errorf("no module: %q, %v", name, err)
	}
	if n, err := memTotal(v); n != 24683908<<10 || err != nil {
		t.Errorf("memory: %d, %v", n, err)
	}
	for file, want := range map[string]string{apparmor: "apparmor", selinux: "selinux"} {
		with := maps.Clone(all)
		with[file] = &fstest.MapFile{Data: []byte("Y\n")}
		if name, err := lsm(&host.View{FS: with}); name != want || err != nil {
			t.Errorf("%s: %q, %v", want, name, err)
		}
		if name, err := lsm(&host.View{FS: denied{with, file}}); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s that may not be read: %q, %v", want, name, err)
		}
	}
	for _, bad := range []fs.FS{denied{all, meminfo}, fstest.MapFS{}, fstest.MapFS{meminfo: {Data: []byte("MemFree: 1 kB\n")}}, fstest.MapFS{meminfo: {Data: []byte("MemTotal: x kB\n")}}} {
		if n, err := memTotal(&host.View{FS: bad}); err == nil {
			t.Errorf("memory of %v: %d", bad, n)
		}
	}
}
