package halt_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/halt"
)

// What answers behind a mount is found, however deep in a directory and whatever
// it is called; what does not is not.
func TestMountedSockets(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	listen := func(name string) (string, net.Listener) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return name, ln
	}
	engine, _ := listen("run/a/b/engine.sock")
	spaced, _ := listen("run/with a space")
	letters := filepath.Join(run, "letters")
	box, err := net.ListenPacket("unixgram", letters)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	listen("running/x")
	dead, ln := listen("run/dead")
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	if err := os.Symlink(run, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		mounts []container.Mount
		want   []string
	}{
		"none":               {nil, nil},
		"the socket":         {[]container.Mount{{Source: engine}}, []string{engine}},
		"one nobody answers": {[]container.Mount{{Source: dead}}, []string{dead}},
		"its directory":      {[]container.Mount{{Source: filepath.Dir(engine)}}, []string{engine}},
		"one above":          {[]container.Mount{{Source: run}}, []string{engine, letters, spaced}},
		"by a link":          {[]container.Mount{{Source: filepath.Join(dir, "link")}}, []string{engine, letters, spaced}},
		"twice":              {[]container.Mount{{Source: run + "/"}, {Source: engine}}, []string{engine, letters, spaced}},
		"another":            {[]container.Mount{{Source: filepath.Join(dir, "ru")}, {Source: ""}, {Source: "/nowhere"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := halt.MountedSockets(c.mounts); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	for i := range 100 {
		listen(fmt.Sprintf("many/%d", i))
	}
	docker, _ := listen("many/x/docker.sock")
	if got := halt.MountedSockets([]container.Mount{{Source: engine}, {Source: filepath.Join(dir, "many")}}); len(got) != 65 || !slices.Contains(got, engine) || !slices.Contains(got, docker) {
		t.Errorf("of many there are %q", got)
	}
}
