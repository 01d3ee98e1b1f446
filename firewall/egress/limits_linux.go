package egress

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/managemyclaw/hardshell/internal/procfs"
)

// limits says which workloads can undo or go round the rules, by what their
// processes may do; frames has those whose packet sockets are not closed.
func limits(p *plan, frames map[string]error) map[string]string {
	open := map[string]string{}
	for _, s := range p.subjects {
		if s.shared {
			if why := p.host.abstract(); why != "" {
				note(open, s.Name, why)
			}
		}
		if s.PID <= 0 && s.Cgroup == "" {
			continue
		}
		s.frames = frames[s.Name]
		why, err := s.limits()
		if err != nil {
			why = append(why, fmt.Sprintf("what it may do is not known: %v", err))
		}
		for _, w := range why {
			note(open, s.Name, w)
		}
	}
	return open
}

func (s subject) limits() (why []string, err error) {
	powers, err := s.powers()
	say := func(when bool, capability int, what string) {
		if by, can := powers[capability]; when && can {
			why = append(why, fmt.Sprintf("it may %s (%s, process %s)", what, names[capability], by))
		}
	}
	say(s.shared, unix.CAP_NET_RAW, "send frames by packet sockets on the host's interfaces, which no rule sees")
	say(s.shared, unix.CAP_NET_ADMIN, "take the rules away")
	say(!s.shared, unix.CAP_NET_ADMIN, "take away the rules in its network namespace")
	if s.frames != nil {
		say(true, unix.CAP_NET_RAW, fmt.Sprintf("send frames by packet sockets to its neighbours, for %v", s.frames))
	}
	say(s.direct, unix.CAP_NET_RAW, "hear by packet sockets what others on the cable send")
	say(true, unix.CAP_SYS_ADMIN, "enter other namespaces")
	return why, err
}

// names are the capabilities that matter here.
var names = map[int]string{unix.CAP_NET_RAW: "CAP_NET_RAW", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN"}

// powers are the capabilities that any process of the workload has or can get,
// with one that does. Those of another user namespace count for its own network
// namespace alone.
func (s subject) powers() (by map[int]string, err error) {
	by = make(map[int]string)
	pids, err := s.processes()
	if err != nil {
		return by, err
	}
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return by, err
	}
	for _, pid := range pids {
		status, err := statusOf(pid)
		if ended(err) {
			continue
		}
		if err != nil {
			return by, err
		}
		if s.shared {
			users, err := os.Readlink("/proc/" + pid + "/ns/user")
			if ended(err) || err == nil && users != own {
				continue
			}
		}
		// What the first process of all is to become is the workload itself.
		if status.PID != s.PID && entering(status, pids) {
			continue
		}
		caps := status.CapEff | status.CapPrm | status.CapAmb
		if !status.NoNewPrivs {
			caps |= status.CapBnd // by a program that gives them
		}
		for capability := range names {
			if _, known := by[capability]; !known && caps&(1<<capability) != 0 {
				by[capability] = fmt.Sprintf("%s %q", pid, status.Name)
			}
		}
	}
	return by, nil
}

// entering reports whether a process is runc's own, on its way into the container
// to become what it is started for, such as a health check: until then it has all
// capabilities, and runs nothing of the container's. By its name alone, which
// anybody may give himself, it is not known; but nobody in a container is the
// child of a runc outside.
func entering(p procfs.Status, members []string) bool {
	if !strings.HasPrefix(p.Name, "runc:[") || slices.Contains(members, strconv.Itoa(p.PPID)) {
		return false
	}
	pid := strconv.Itoa(p.PPID)
	parent, err := statusOf(pid)
	if err != nil || parent.Name != "runc" {
		return false
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	theirs, err := os.Readlink("/proc/" + pid + "/ns/pid")
	return err == nil && theirs == own
}

func statusOf(pid string) (procfs.Status, error) {
	data, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return procfs.Status{}, err
	}
	return procfs.ParseStatus(data)
}

func ended(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// processes are all that are in the control group of the workload, and its PID.
func (s subject) processes() (pids []string, err error) {
	path := s.Cgroup
	if s.PID > 0 {
		pids = append(pids, strconv.Itoa(s.PID))
		if path == "" {
			if path, err = cgroupOf(pids[0]); err != nil {
				if ended(err) {
					return nil, nil
				}
				return nil, err
			}
		}
	}
	path = filepath.Clean("/" + path)
	if path == "/" {
		return pids, nil // which is everybody's
	}
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(filepath.Join(root, path), func(dir string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			if ended(err) {
				return nil
			}
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil && !ended(err) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		pids = append(pids, strings.Fields(string(data))...)
		return nil
	})
	return pids, err
}
