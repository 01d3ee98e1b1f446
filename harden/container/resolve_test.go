package container

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/harden/host"
)

// Links are followed as a process in the container would, never out of its
// root into ours.
func TestResolve(t *testing.T) {
	link := func(target string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
	}
	v := &host.View{FS: fstest.MapFS{
		"proc/7/root/run/docker.sock":  {Mode: fs.ModeSocket | 0o660},
		"proc/7/root/var/run":          link("/run"),
		"proc/7/root/var/up":           link("../run"),
		"proc/7/root/var/out":          link("../../../../../run"),
		"proc/7/root/data/a":           link("/var/run/docker.sock"),
		"proc/7/root/data/loop":        link("/data/pool"),
		"proc/7/root/data/pool":        link("loop"),
		"proc/7/root/data/dangling":    link("/nowhere"),
		"run/docker.sock":              {Mode: fs.ModeSocket | 0o660},
		"nowhere":                      {},
		"run/ours-only.sock":           {Mode: fs.ModeSocket | 0o660},
		"proc/7/root/data/ours-linked": link("/run/ours-only.sock"),
	}}
	for name, want := range map[string]string{
		"/run/docker.sock":         "/run/docker.sock",
		"/var/run/docker.sock":     "/run/docker.sock",
		"/var/up/docker.sock":      "/run/docker.sock",
		"/var/out/docker.sock":     "/run/docker.sock",
		"/data/a":                  "/run/docker.sock",
		"/data/../run/docker.sock": "/run/docker.sock",
		"/":                        "/",
	} {
		got, info, err := resolve(v, "/proc/7/root", name)
		if err != nil || got != want || name != "/" && info.Mode()&fs.ModeSocket == 0 {
			t.Errorf("%s: %s %v, want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"/data/dangling", "/data/ours-linked", "/nowhere"} {
		if got, _, err := resolve(v, "/proc/7/root", name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %s %v", name, got, err)
		}
	}
	if got, _, err := resolve(v, "/proc/7/root", "/data/loop"); err == nil {
		t.Errorf("a loop leads to %s", got)
	}
}
