package container

import (
	"slices"
	"testing"

	"github.com/managemyclaw/hardshell/internal/procfs"
)

// What an engine runs in a container is not the container's until it has become
// what it is started for: see who is.
func TestMembers(t *testing.T) {
	const id = "4be41a6f9b0ae4be41a6f9b0ae4be41a6f9b0ae4be41a6f9b0ae4be41a6f9b0a"
	const machine, own = 1, 2
	group := func(path string) []procfs.CgroupEntry { return []procfs.CgroupEntry{{Path: path}} }
	inside, engine := group("/docker/"+id), group("/system.slice/docker.service")
	for name, tt := range map[string]struct {
		procs []proc
		want  []int
	}{
		"its own, wherever they are": {[]proc{
			{pid: 10, ppid: 9, name: "node", cgroups: inside, pidns: own},
			{pid: 11, ppid: 10, name: "sh", cgroups: inside, pidns: own},
			{pid: 12, ppid: 9, name: "moved", cgroups: group("/"), pidns: own},
			{pid: 13, ppid: 11, name: "below", cgroups: group("/"), pidns: 3},
			{pid: 14, ppid: 1, name: "other", cgroups: group("/"), pidns: machine},
		}, []int{10, 11, 12, 13}},
		"one on its way in": {[]proc{
			{pid: 10, ppid: 9, name: "node", cgroups: inside, pidns: own},
			{pid: 20, ppid: 9, name: "runc", cgroups: engine, pidns: machine},
			{pid: 21, ppid: 20, name: "runc:[2:INIT]", cgroups: inside, pidns: own},
		}, []int{10}},
		"one that has arrived, while runc waits": {[]proc{
			{pid: 10, ppid: 9, name: "node", cgroups: inside, pidns: own},
			{pid: 20, ppid: 9, name: "runc", cgroups: engine, pidns: machine},
			{pid: 21, ppid: 20, name: "sh", cgroups: inside, pidns: own},
		}, []int{10, 21}},
		"one that calls itself so": {[]proc{
			{pid: 10, ppid: 9, name: "node", cgroups: inside, pidns: own},
			{pid: 21, ppid: 10, name: "runc:[2:INIT]", cgroups: inside, pidns: own},
		}, []int{10, 21}},
		"one whose parent calls himself so too": {[]proc{
			{pid: 10, ppid: 9, name: "node", cgroups: inside, pidns: own},
			{pid: 20, ppid: 10, name: "runc", cgroups: inside, pidns: own},
			{pid: 21, ppid: 20, name: "runc:[2:INIT]", cgroups: inside, pidns: own},
		}, []int{10, 20, 21}},
		"one whose parent is in another container": {[]proc{
			{pid: 10, ppid: 9, name: "node", cgroups: inside, pidns: own},
			{pid: 20, ppid: 8, name: "runc", cgroups: group("/docker/other"), pidns: 3},
			{pid: 21, ppid: 20, name: "runc:[2:INIT]", cgroups: inside, pidns: own},
		}, []int{10, 21}},
		"one that was left to the shim": {[]proc{
			{pid: 9, ppid: 1, name: "containerd-shim", cgroups: engine, pidns: machine},
			{pid: 10, ppid: 9, name: "node", cgroups: inside, pidns: own},
			{pid: 21, ppid: 9, name: "runc:[2:INIT]", cgroups: inside, pidns: own},
		}, []int{10, 21}},
		"one whose parent has gone": {[]proc{
			{pid: 10, ppid: 9, name: "node", cgroups: inside, pidns: own},
			{pid: 21, ppid: 20, name: "runc:[2:INIT]", cgroups: inside, pidns: own},
		}, []int{10, 21}},
		"the first, which has not arrived": {[]proc{
			{pid: 20, ppid: 9, name: "runc", cgroups: engine, pidns: machine},
			{pid: 10, ppid: 20, name: "runc:[2:INIT]", cgroups: inside, pidns: own},
		}, []int{10}},
		"in the machine's process namespace": {[]proc{
			{pid: 10, ppid: 9, name: "node", cgroups: inside, pidns: machine},
			{pid: 20, ppid: 10, name: "runc", cgroups: inside, pidns: machine},
			{pid: 21, ppid: 20, name: "runc:[2:INIT]", cgroups: inside, pidns: machine},
		}, []int{10, 20, 21}},
	} {
		t.Run(name, func(t *testing.T) {
			table := &procTable{procs: make(map[int]*proc), children: make(map[int][]int)}
			for _, p := range tt.procs {
				table.procs[p.pid] = &p
				table.children[p.ppid] = append(table.children[p.ppid], p.pid)
			}
			if got := table.members(id, 10, []uint64{machine}); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
