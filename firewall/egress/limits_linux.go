package egress

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	caps, err := s.capabilities()
	has := func(capability int) bool { return caps&(1<<capability) != 0 }
	if s.shared && has(unix.CAP_NET_RAW) {
		why = append(why, "it may send frames by packet sockets on the host's interfaces, which no rule sees (CAP_NET_RAW)")
	}
	if s.shared && has(unix.CAP_NET_ADMIN) {
		why = append(why, "it may take the rules away (CAP_NET_ADMIN)")
	}
	if !s.shared && has(unix.CAP_NET_ADMIN) {
		why = append(why, "it may take away the rules in its network namespace (CAP_NET_ADMIN)")
	}
	if s.frames != nil && has(unix.CAP_NET_RAW) {
		why = append(why, fmt.Sprintf("it may send frames by packet sockets to its neighbours (CAP_NET_RAW): %v", s.frames))
	}
	if s.direct && has(unix.CAP_NET_RAW) {
		why = append(why, "it may hear by packet sockets what others on the cable send (CAP_NET_RAW)")
	}
	if has(unix.CAP_SYS_ADMIN) {
		why = append(why, "it may enter other namespaces (CAP_SYS_ADMIN)")
	}
	return why, err
}

// capabilities are those that any process of the workload has or can get.
// Those of another user namespace count for its own network namespace alone.
func (s subject) capabilities() (all uint64, err error) {
	pids, err := s.processes()
	if err != nil {
		return 0, err
	}
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		data, err := os.ReadFile("/proc/" + pid + "/status")
		if ended(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		status, err := procfs.ParseStatus(data)
		if err != nil {
			return 0, err
		}
		if s.shared {
			users, err := os.Readlink("/proc/" + pid + "/ns/user")
			if ended(err) || err == nil && users != own {
				continue
			}
		}
		all |= status.CapEff | status.CapPrm | status.CapAmb
		if !status.NoNewPrivs {
			all |= status.CapBnd // by a program that gives them
		}
	}
	return all, nil
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
