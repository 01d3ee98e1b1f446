package egress

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A place is where a workload is.
type place struct {
	ns     *os.File // nil if it is gone, or the host's
	shared bool
	group  cgroup
	gone   bool
}

// find looks for the namespace of a workload, also by the processes in it.
func (p *Prober) find(w Workload, host nsID) (pl place, err error) {
	path := w.NetNS
	if path == "" && w.PID > 0 {
		path = "/proc/" + strconv.Itoa(w.PID) + "/ns/net"
	}
	var id nsID
	if path != "" {
		pl.ns, err = os.Open(path)
		if err == nil {
			if id, err = identify(pl.ns); err != nil {
				return pl, err
			}
		} else if !ended(err) {
			return pl, err
		}
	}
	p.mu.Lock()
	if pl.ns != nil && id != host {
		p.seen[w.Name] = id
	} else if pl.ns == nil {
		id = p.seen[w.Name]
	}
	p.mu.Unlock()
	if pl.ns == nil && id != (nsID{}) {
		if pl.ns, err = findByProcess(id); err != nil {
			return pl, err
		}
	}
	switch {
	case id == host || pl.ns == nil && w.HostNetwork:
		if pl.ns != nil {
			pl.ns.Close()
		}
		pl.ns, pl.shared = nil, true
		pl.group, err = findCgroup(w)
		if ended(err) || err != nil && w.PID <= 0 && w.Cgroup == "" {
			return place{gone: true}, nil
		}
		return pl, err
	case pl.ns == nil:
		pl.gone = true
	}
	return pl, nil
}

// findByProcess looks into the process table for who is in a namespace.
func findByProcess(id nsID) (*os.File, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if ended(err) {
			continue
		}
		if errors.Is(err, fs.ErrPermission) && ofMachine(path) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if other, err := identify(f); err == nil && other == id {
			return f, nil
		}
		f.Close()
	}
	return nil, nil
}

// ofMachine reports whether a process is in no control group below the root,
// as no workload is: the first process may be beyond what root may look at.
func ofMachine(path string) bool {
	group, err := cgroupOf(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return err == nil && (group == "/" || group == "/init.scope")
}

// goneTick is how often workloads are looked for that may end while packets are waited
// for.
const goneTick = 10 * time.Millisecond

// await gives what was sent its time, and reports whether there is nobody left
// who could send: then nothing is to be waited for.
func (p *Prober) await(ctx context.Context, workloads []Workload, tries []*attempt, host nsID) (gone bool) {
	window := p.Window
	if window <= 0 {
		window = DefaultWindow
	}
	over := time.NewTimer(window)
	defer over.Stop()
	tick := time.NewTicker(goneTick)
	defer tick.Stop()
	for {
		if p.allGone(workloads, tries, host) {
			return true
		}
		select {
		case <-over.C:
			return false
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// allGone reports whether every workload has been looked for, and nothing is left
// of any. What cannot be looked at is not gone.
func (p *Prober) allGone(workloads []Workload, tries []*attempt, host nsID) bool {
	for i, w := range workloads {
		switch a := tries[i]; {
		case a == nil:
			return false
		case a.gone:
			continue
		}
		gone, err := p.gone(w, host)
		if err != nil || !gone {
			return false
		}
	}
	return true
}

// gone reports whether nothing is left of a workload that could send.
func (p *Prober) gone(w Workload, host nsID) (bool, error) {
	pl, err := p.find(w, host)
	if err != nil {
		return false, err
	}
	if pl.ns != nil {
		pl.ns.Close()
	}
	if pl.gone || !pl.shared {
		return pl.gone, nil
	}
	s := subject{Workload: w, shared: true}
	pids, err := s.processes()
	if err != nil {
		return false, err
	}
	alive, err := anyAlive(pids)
	return !alive, err
}
