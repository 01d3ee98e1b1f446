// Package procfs parses the files of /proc that describe processes, their
// mounts and their sockets. See proc(5).
//
// Parsers take what a hostile process may have shaped, such as its own name or
// a path with spaces, and return an error rather than guess.
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Status is /proc/PID/status of one thread.
type Status struct {
	Name       string
	State      string // such as "S"; "Z" is a process that has ended
	TGID, PID  int
	PPID       int
	UIDs, GIDs [4]uint32 // real, effective, saved, file system
	Groups     []uint32
	NSpid      []int // the pid in each nested namespace, this one's first
	Threads    int

	CapInh, CapPrm, CapEff, CapBnd, CapAmb uint64

	NoNewPrivs bool
	Seccomp    int
}

// statusFields are those that ParseStatus must find: a file without one of
// them is cut short, and nothing may be concluded from it.
var statusFields = []string{
	"Name", "State", "Tgid", "Pid", "PPid", "Uid", "Gid", "Groups", "Threads",
	"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
}

// ParseStatus parses /proc/PID/status. The kernel escapes the name, so that a
// process cannot forge a line.
func ParseStatus(data []byte) (Status, error) {
	var s Status
	seen := make(map[string]bool, len(statusFields))
	for line := range bytes.Lines(data) {
		key, value, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), ":")
		if !ok {
			return Status{}, fmt.Errorf("status: malformed line %q", line)
		}
		if seen[key] {
			return Status{}, fmt.Errorf("status: %s appears twice", key)
		}
		seen[key] = true
		if err := s.set(key, strings.TrimSpace(value)); err != nil {
			return Status{}, fmt.Errorf("status: %s: %w", key, err)
		}
	}
	for _, key := range statusFields {
		if !seen[key] {
			return Status{}, fmt.Errorf("status: no %s", key)
		}
	}
	return s, nil
}

func (s *Status) set(key, value string) (err error) {
	switch key {
	case "Name":
		s.Name = value
	case "State":
		s.State, _, _ = strings.Cut(value, " ")
	case "Tgid":
		s.TGID, err = strconv.Atoi(value)
	case "Pid":
		s.PID, err = strconv.Atoi(value)
	case "PPid":
		s.PPID, err = strconv.Atoi(value)
	case "Threads":
		s.Threads, err = strconv.Atoi(value)
	case "Seccomp":
		s.Seccomp, err = strconv.Atoi(value)
	case "NoNewPrivs":
		s.NoNewPrivs, err = strconv.ParseBool(value)
	case "Uid":
		err = ids(&s.UIDs, value)
	case "Gid":
		err = ids(&s.GIDs, value)
	case "Groups":
		for f := range strings.FieldsSeq(value) {
			g, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return err
			}
			s.Groups = append(s.Groups, uint32(g))
		}
	case "NSpid":
		for f := range strings.FieldsSeq(value) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return err
			}
			s.NSpid = append(s.NSpid, pid)
		}
	case "CapInh":
		s.CapInh, err = strconv.ParseUint(value, 16, 64)
	case "CapPrm":
		s.CapPrm, err = strconv.ParseUint(value, 16, 64)
	case "CapEff":
		s.CapEff, err = strconv.ParseUint(value, 16, 64)
	case "CapBnd":
		s.CapBnd, err = strconv.ParseUint(value, 16, 64)
	case "CapAmb":
		s.CapAmb, err = strconv.ParseUint(value, 16, 64)
	}
	return err
}

func ids(dst *[4]uint32, value string) error {
	f := strings.Fields(value)
	if len(f) != len(dst) {
		return errors.New("want four ids")
	}
	for i, s := range f {
		id, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return err
		}
		dst[i] = uint32(id)
	}
	return nil
}

// CgroupEntry is one line of /proc/PID/cgroup.
type CgroupEntry struct {
	Hierarchy   int      // zero is cgroup v2
	Controllers []string // empty for cgroup v2
	Path        string   // below the root of the hierarchy
}

// ParseCgroup parses /proc/PID/cgroup; see cgroups(7).
func ParseCgroup(data []byte) ([]CgroupEntry, error) {
	var all []CgroupEntry
	for line := range bytes.Lines(data) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			return nil, fmt.Errorf("cgroup: malformed line %q", line)
		}
		n, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("cgroup: malformed line %q", line)
		}
		e := CgroupEntry{Hierarchy: n, Path: f[2]}
		if f[1] != "" {
			e.Controllers = strings.Split(f[1], ",")
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return nil, errors.New("cgroup: empty")
	}
	return all, nil
}
