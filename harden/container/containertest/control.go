package containertest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container"
)

// TestControl tests whether an engine behaves as [container.Control] says.
//
// run starts a container that goes on running, with the restart policy
// "always", a volume without a name at /data, and a directory /state; and
// writes files in it. read reads a file of a running container. The names of
// the containers begin with "control-"; TestControl removes
// them, unless it fails.
func TestControl(t *testing.T, c container.Control, run func(t *testing.T, name string, files map[string]string), read func(t *testing.T, name, file string) string) {
	ctx := t.Context()
	const grace = time.Second
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	get := func(name string) container.Settings {
		t.Helper()
		all, err := c.Containers(ctx, name)
		must(err)
		if len(all) != 1 {
			t.Fatalf("%d containers are called %s", len(all), name)
		}
		return all[0]
	}
	run(t, "control-old", map[string]string{"/data/file": "volume", "/state/file": "layer", "/state/skipped/file": "skipped"})
	old := get("control-old")

	// What is not there.
	missing := map[string]error{
		"Start":            c.Start(ctx, "control-none"),
		"Stop":             c.Stop(ctx, "control-none", grace),
		"Rename":           c.Rename(ctx, "control-none", "control-x"),
		"SetRestartPolicy": c.SetRestartPolicy(ctx, "control-none", "no"),
		"Copy":             c.Copy(ctx, "control-none", old.ID, "/state", nil, nil),
	}
	_, missing["Clone"] = c.Clone(ctx, "control-none", "control-x", container.Hardening{})
	_, missing["Changed"] = c.Changed(ctx, "control-none")
	_, missing["Containers"] = c.Containers(ctx, old.ID, "control-none")
	for method, err := range missing {
		if !errors.Is(err, container.ErrNoContainer) {
			t.Errorf("%s of a container that does not exist: %v", method, err)
		}
	}
	must(c.Remove(ctx, "control-none"))
	must(c.RemoveVolume(ctx, "control-none"))

	// A clone.
	if _, err := c.Clone(ctx, old.ID, "control-old", container.Hardening{}); !errors.Is(err, container.ErrNameTaken) {
		t.Errorf("Clone under a name that is taken: %v", err)
	}
	h := container.Hardening{ReadonlyRootfs: true, Volumes: []container.NewVolume{{Path: "/state", Name: "control-volume"}}}
	id, err := c.Clone(ctx, old.ID, "control-new", h)
	must(err)
	clone := get("control-new")
	switch volume := func(s container.Settings) string {
		for _, m := range s.Mounts {
			if m.Destination == "/data" {
				return m.Name
			}
		}
		return ""
	}; {
	case clone.ID != id || clone.Running() || clone.RestartPolicy != "no" && clone.RestartPolicy != "":
		t.Errorf("the clone is %s, %s, restarted %q", clone.ID, clone.State, clone.RestartPolicy)
	case !clone.ReadonlyRootfs || clone.Image != old.Image:
		t.Errorf("the clone of %s is of %s, read-only %t", old.Image, clone.Image, clone.ReadonlyRootfs)
	case volume(clone) == "" || volume(clone) != volume(old):
		t.Errorf("the clone has volume %q instead of %q", volume(clone), volume(old))
	}
	if err := c.Rename(ctx, id, "control-old"); !errors.Is(err, container.ErrNameTaken) {
		t.Errorf("Rename to a name that is taken: %v", err)
	}
	if changed, err := c.Changed(ctx, old.ID); err != nil || !slices.Contains(changed, "/state/file") || slices.Contains(changed, "/state") {
		t.Errorf("Changed: %q %v", changed, err)
	}

	// Its turn.
	must(c.SetRestartPolicy(ctx, old.ID, "no"))
	must(c.Stop(ctx, old.ID, grace))
	must(c.Stop(ctx, old.ID, grace)) // again is no error
	if s := get(old.ID); s.Running() || s.RestartPolicy != "no" && s.RestartPolicy != "" {
		t.Errorf("stopped, it is %s with restart policy %q", s.State, s.RestartPolicy)
	}
	must(c.Rename(ctx, old.ID, "control-aside"))
	must(c.Rename(ctx, id, "control-old"))
	must(c.Copy(ctx, old.ID, id, "/state", []string{"/state/skipped"}, nil))
	must(c.Start(ctx, id))
	must(c.Start(ctx, id)) // again is no error
	must(c.SetRestartPolicy(ctx, id, "on-failure:3"))
	if s := get("control-old"); s.ID != id || !s.Running() || s.RestartPolicy != "on-failure:3" {
		t.Errorf("started, %s is %s with restart policy %q", s.ID, s.State, s.RestartPolicy)
	}
	for file, want := range map[string]string{"/data/file": "volume", "/state/file": "layer"} {
		if got := read(t, "control-old", file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if err := c.Remove(ctx, id); err == nil {
		t.Error("Remove removes a container that runs")
	}
	if err := c.RemoveVolume(ctx, "control-volume"); err == nil {
		t.Error("RemoveVolume removes a volume that is used")
	}
	running, err := c.Containers(ctx)
	must(err)
	if !slices.ContainsFunc(running, func(s container.Settings) bool { return s.ID == id }) ||
		slices.ContainsFunc(running, func(s container.Settings) bool { return s.ID == old.ID }) {
		t.Error("without names, Containers must list those that run")
	}

	must(c.Stop(ctx, id, grace))
	must(c.Remove(ctx, id))
	must(c.Remove(ctx, id)) // again is no error
	must(c.RemoveVolume(ctx, "control-volume"))
	must(c.Remove(ctx, old.ID))
	if _, err := c.Containers(ctx, "control-aside"); !errors.Is(err, container.ErrNoContainer) {
		t.Errorf("removed: %v", err)
	}
}
