//go:build unix

package access_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
)

// stranger is the user whom the agent's processes run as in these tests: not
// the one who runs the tests.
const stranger = 61234

func asStranger(c *container.Container) {
	for i := range c.Kernel.Processes {
		c.Kernel.Processes[i].UIDs = [4]uint32{stranger, stranger, stranger, stranger}
	}
}

// mounting lists a container that has a directory of the machine.
func mounting(dir string) *harden.Source[container.Container] {
	return containers(asStranger, func(c *container.Container) { c.Kernel.Trees[0].Mounts[3].HostPaths = []string{dir} })
}

// others is the configuration with an agent that runs as a user of its own.
func (d *diary) others() access.Config {
	c := d.config()
	c.Containers = containers(asStranger)
	return c
}

func (d *diary) private(t *testing.T) harden.Result {
	t.Helper()
	return evaluate(t, d.others(), &host.Local().View, trailPrivate)
}

// Whoever else gets at a trail, its key or its checkpoint, is named.
func TestPrivateTrail(t *testing.T) {
	d := newDiary(t, 30, 30)
	segment := d.segments(t)[1]
	for name, test := range map[string]struct {
		file string
		mode os.FileMode
		want string
	}{
		"the log's directory can be read": {d.trail.Dir, 0o755, ".mode"},
		"a segment can be written":        {segment, 0o602, ".mode"},
		"the key can be read":             {d.trail.Secret, 0o640, ".mode"},
		"the checkpoint can be written":   {d.trail.Pin, 0o622, ".mode"},
		"the public key can be written":   {d.trail.KeyFile, 0o666, ".mode"},
		"the directory above":             {d.root, 0o777, ".directory"},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := os.Stat(test.file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(test.file, test.mode); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(test.file, info.Mode())
			finding(t, d.private(t), trailPrivate+test.want)
			if test.want != ".mode" {
				return
			}
			f := harden.Fixer{Trail: trail.Discard}
			fixes, err := f.Fix(t.Context(), host.Local(), nil, check(t, d.others(), trailPrivate))
			if err != nil || len(fixes) != 1 || !fixes[0].Changed {
				t.Errorf("%+v, %v", fixes, err)
			}
			pass(t, d.private(t), harden.LevelInspected)
		})
	}
	pass(t, d.private(t), harden.LevelInspected)
	if err := os.Link(segment, d.root+"/second-name"); err != nil {
		t.Fatal(err)
	}
	finding(t, d.private(t), trailPrivate+".links")
	os.Remove(d.root + "/second-name")
	if err := os.Symlink(segment, d.trail.Dir+"/elsewhere"); err != nil {
		t.Fatal(err)
	}
	finding(t, d.private(t), trailPrivate+".kind")
	os.Remove(d.trail.Dir + "/elsewhere")

	c := d.others()
	c.Containers = mounting(d.root)
	if r := evaluate(t, c, &host.Local().View, trailPrivate); r.Status != harden.StatusFail || !strings.Contains(fmt.Sprint(r.Findings), ".mounted") {
		t.Errorf("%v %+v", r.Status, r.Findings)
	}
	c.Trails[0].Owner = stranger
	if r := evaluate(t, c, &host.Local().View, trailPrivate); r.Status != harden.StatusFail || !strings.Contains(fmt.Sprint(r.Findings), ".user") {
		t.Errorf("%v %+v", r.Status, r.Findings)
	}
	c.Containers = nil
	c.Trails[0].Owner = d.trail.Owner
	if r := evaluate(t, c, &host.Local().View, trailPrivate); r.Status != harden.StatusUnknown {
		t.Errorf("nothing is known of the agents: %v", r.Status)
	}
}
