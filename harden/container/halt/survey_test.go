package halt

import (
	"testing"

	"github.com/managemyclaw/hardshell/internal/procfs"
)

// What a shim runs for itself is not the container's, also while it ends, when it
// shows less and less; what it has adopted of the container's is.
func TestMinded(t *testing.T) {
	const shim = 100
	in := func(v1, v2 string) (string, []procfs.CgroupEntry) {
		return "1:freezer:" + v1 + "\n0::" + v2 + "\n", []procfs.CgroupEntry{{Hierarchy: 1, Controllers: []string{"freezer"}, Path: v1}, {Path: v2}}
	}
	for name, tt := range map[string]struct {
		v1, v2, mnt, pidns string
		exiting, want      bool
	}{
		"runc":                              {"/docker", "/docker", "m1", "p1", false, false},
		"runc, ending":                      {"/", "/docker", "m1", "p1", true, false},
		"runc, whose namespaces are gone":   {"/", "/docker", "", "", true, false},
		"shows too little, and goes on":     {"/docker", "/docker", "", "", false, true},
		"elsewhere in version 1, goes on":   {"/", "/docker", "m1", "p1", false, true},
		"the container's":                   {"/docker/c", "/docker/c", "m2", "p2", false, true},
		"the container's, moved":            {"/docker", "/docker", "m2", "p2", false, true},
		"the container's, shares processes": {"/docker", "/docker", "m2", "p1", false, true},
		"the container's, ending":           {"/", "/docker/c", "m2", "p2", true, true},
		"ending, namespaces gone":           {"/", "/docker/c", "", "", true, true},
		"ending, moved":                     {"/", "/docker", "m2", "p1", true, true},
		"ending, in its process namespace":  {"/", "/docker", "m1", "p2", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			minder := &process{pid: shim, mnt: "m1", pidns: "p1"}
			minder.cgroup, minder.entries = in("/docker", "/docker")
			p := &process{pid: 101, ppid: shim, mnt: tt.mnt, pidns: tt.pidns, exiting: tt.exiting}
			p.cgroup, p.entries = in(tt.v1, tt.v2)
			if got := minded([]*process{minder}, []*process{minder, p})[p.pid]; got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
