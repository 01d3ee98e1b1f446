package egress

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (l *Lock) hostRoom() (*room, error) {
	marks, err := l.marks()
	if err != nil {
		return nil, err
	}
	r, err := openRoom(l.NetNS, marks)
	if err != nil {
		return nil, fmt.Errorf("network namespace of the host: %w", err)
	}
	return r, nil
}

// ask asks the Source, and looks at what it lists.
func (l *Lock) ask(ctx context.Context) (*plan, error) {
	if l.Source == nil {
		return nil, errNoSource
	}
	workloads, err := l.Source(ctx)
	if err != nil {
		return nil, fmt.Errorf("workloads: %w", err)
	}
	listed := make(map[string]Workload, len(workloads))
	for _, w := range workloads {
		listed[w.Name] = w
	}
	return l.plan(ctx, workloads, listed)
}

// askQuick asks Quick, if it answers.
func (l *Lock) askQuick(ctx context.Context) (*plan, error) {
	if l.Quick == nil {
		return l.ask(ctx)
	}
	workloads, err := l.Quick(ctx)
	if err != nil {
		return l.ask(ctx)
	}
	l.mu.Lock()
	var listed map[string]Workload
	if l.prepared != nil {
		listed = l.prepared.listed
	}
	l.mu.Unlock()
	workloads = slices.Clone(workloads)
	for i := range workloads {
		w := &workloads[i]
		old := listed[w.Name]
		w.Bridges = slices.Concat(w.Bridges, old.Bridges)
		beyond := maps.Clone(old.Beyond)
		if beyond == nil {
			beyond = map[string]string{}
		}
		maps.Copy(beyond, w.Beyond)
		w.Beyond = beyond
	}
	return l.plan(ctx, workloads, listed)
}

// plan looks at workloads. Namespaces that an earlier plan holds open are taken
// over.
func (l *Lock) plan(ctx context.Context, workloads []Workload, listed map[string]Workload) (p *plan, err error) {
	marks, err := l.marks()
	if err != nil {
		return nil, err
	}
	p = &plan{open: map[string]string{}, listed: listed}
	known := map[nsID]*room{}
	l.mu.Lock()
	if l.prepared != nil {
		known[l.prepared.host.id] = l.prepared.host
		for _, r := range l.prepared.rooms {
			known[r.id] = r.room
		}
	}
	l.mu.Unlock()
	enter := func(path string) (*room, error) {
		r, err := openRoom(path, marks)
		if err != nil {
			return nil, err
		}
		if old := known[r.id]; old != nil {
			r.ns.Close()
			r = old
		} else {
			known[r.id] = r
		}
		_ = r.dial() // or later, where it matters
		return r, nil
	}
	if p.host, err = enter(l.NetNS); err != nil {
		return nil, fmt.Errorf("network namespace of the host: %w", marks.explain(err))
	}
	host, err := p.host.links(ctx)
	if err != nil {
		return nil, err
	}
	p.wiring = host
	s := &survey{plan: p, enter: enter}
	for _, w := range workloads {
		if w.Name == "" {
			w.Name = "a workload without a name"
		}
		if err := s.look(ctx, w); err != nil {
			note(p.open, w.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
			p.causes = append(p.causes, err)
		}
		for what, why := range w.Beyond {
			note(p.open, w.Name+": "+what, why)
		}
	}
	s.finish()
	return p, nil
}

// A survey makes a plan.
type survey struct {
	*plan
	enter func(path string) (*room, error)
}

// look adds a workload to the plan, and returns what of it cannot be cut.
func (s *survey) look(ctx context.Context, w Workload) error {
	var reasons []error
	for _, name := range w.Bridges {
		reasons = append(reasons, s.bridge(name))
	}
	path := w.NetNS
	if path == "" && w.PID > 0 {
		path = "/proc/" + strconv.Itoa(w.PID) + "/ns/net"
	}
	shared, direct := w.HostNetwork, false
	if path != "" {
		r, err := s.enter(path)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
			// It has ended, and nothing of it is left that could send.
		case err != nil:
			reasons = append(reasons, fmt.Errorf("its network namespace: %w", s.host.marks.explain(err)))
		case r == s.host:
			shared = true
		case ofMachineItself(r.id):
			reasons = append(reasons, fmt.Errorf("%s is the network namespace of this process or of the machine: if it is the host's, NetNS must say so", path))
			path = "" // nothing is done there
		case w.HostNetwork:
			reasons = append(reasons, fmt.Errorf("it is said to be in the host's network namespace, and %s is another one", path))
			fallthrough
		default:
			shared = false
			in, err := s.room(ctx, r, w.Name)
			direct = in.direct
			reasons = append(reasons, err)
		}
	}
	switch {
	case shared:
		g, err := findCgroup(w)
		if errors.Is(err, fs.ErrNotExist) && path != "" {
			break // it has ended meanwhile
		}
		if err != nil {
			reasons = append(reasons, fmt.Errorf("it is in the host's network namespace, and its control group cannot be told from others: %w", err))
			break
		}
		s.group = append(s.group, g)
	case path == "" && len(w.Bridges) == 0 && len(reasons) == 0:
		reasons = append(reasons, errors.New("nothing is known of it that could be cut off: no process, network namespace or bridge"))
	}
	s.subjects = append(s.subjects, subject{Workload: w, shared: shared, direct: direct})
	return errors.Join(reasons...)
}

// ofMachineItself reports whether a namespace is one that must not be closed,
// though it is not the one that the Lock takes for the host's.
func ofMachineItself(id nsID) bool {
	for _, path := range []string{"/proc/thread-self/ns/net", "/proc/1/ns/net"} {
		f, err := os.Open(path)
		if err != nil {
			continue // then no workload can have been found there
		}
		other, err := identify(f)
		f.Close()
		if err == nil && other == id {
			return true
		}
	}
	return false
}

// room adds a namespace, and what its interfaces are joined to on the host.
func (s *survey) room(ctx context.Context, r *room, name string) (*inside, error) {
	for _, other := range s.rooms {
		if other.room == r {
			other.names = append(other.names, name)
			return other, nil
		}
	}
	in := &inside{room: r, names: []string{name}}
	s.rooms = append(s.rooms, in)
	links, err := r.links(ctx)
	if err != nil {
		return in, err
	}
	var errs []error
	for _, l := range links {
		if l.loop {
			continue
		}
		in.devices = append(in.devices, l)
		outside, ok := s.wiring.other(l)
		if !ok {
			in.direct = true
			continue
		}
		bridge, ok := s.wiring.byIndex(outside.master)
		if !ok {
			s.names = append(s.names, outside.name)
			continue
		}
		s.ports = append(s.ports, outside.name)
		errs = append(errs, s.bridge(bridge.name))
	}
	return in, errors.Join(errs...)
}

// bridge adds a bridge and its ports.
func (s *survey) bridge(name string) error {
	if len(name) >= unix.IFNAMSIZ || name == "" {
		return fmt.Errorf("bridge %q: no interface can be called so", name)
	}
	l, ok := s.wiring.byName(name)
	if !ok {
		s.names = append(s.names, name) // for when there is
		return nil
	}
	if l.kind != "bridge" {
		return fmt.Errorf("bridge %s is a %q, and may carry the host's own packets", name, l.kind)
	}
	if up, ok := s.wiring.uplink(l); ok {
		return fmt.Errorf("bridge %s carries the host's own packets, by %s: it is cut at the ports of the workload alone, and a restart opens it", name, up.name)
	}
	s.names = append(s.names, name)
	for _, port := range s.wiring.ports(l) {
		s.ports = append(s.ports, port.name)
	}
	return nil
}

func (s *survey) finish() {
	for _, names := range []*[]string{&s.names, &s.ports} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
}
