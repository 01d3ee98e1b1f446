package egress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sync/errgroup"
)

// A plan is what is to be cut, found out beforehand. It is not changed once it
// is made.
type plan struct {
	host   *room
	wiring wiring   // of the host
	names  []string // interfaces of the host, whose packets are dropped
	ports  []string // of bridges
	rooms  []*inside
	group  []cgroup // of workloads in the host's namespace
	open   map[string]string

	subjects []subject
	causes   []error // of what is open

	listed map[string]Workload // by the Source, when it was last asked
}

// inside is a network namespace that workloads have to themselves.
type inside struct {
	*room
	names   []string // of the workloads
	devices []link   // but loopback
	direct  bool     // some go past the host's interfaces
}

// A subject is a workload, and where it is.
type subject struct {
	Workload
	shared bool  // in the host's network namespace
	direct bool  // on interfaces that go past those of the host
	frames error // why its packet sockets are not closed
}

// Arm prepares what Do will need: the tables of the host, with nothing in them
// yet, and a socket in each network namespace. It may be called again at any time,
// and does not undo what Do has done. Its error says what Do would leave open,
// and what it could not prepare.
func (l *Lock) Arm(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	p, err := l.ask(ctx)
	if err != nil {
		return openError(nil, nil, err)
	}
	l.keep(p)
	errs := []error{}
	if l.IPTables {
		errs = append(errs, ready(ctx))
	} else if err := p.host.flush(ctx, func(b *batch) { b.host(p, false) }, hostFamilies...); err != nil {
		errs = append(errs, fmt.Errorf("nftables: %w", err))
		if err := ready(ctx); err != nil {
			errs = append(errs, err)
		} else {
			errs = append(errs, errors.New("iptables will keep the lock"))
		}
	}
	return openError(p.open, p.causes, errs...)
}

// Do cuts off what Arm has prepared, then asks Quick or the Source, and cuts off
// what is new. What it cannot cut off it names by an [OpenError]; all else is cut
// off nevertheless, also when the Source cannot be asked.
func (l *Lock) Do(ctx context.Context) error {
	return l.do(ctx, l.askQuick)
}

func (l *Lock) do(ctx context.Context, ask func(context.Context) (*plan, error)) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	l.mu.Lock()
	first := l.prepared
	l.mu.Unlock()
	var done cut
	var failed error
	if first != nil {
		done, failed = l.cut(ctx, first, cut{})
	}
	p, err := ask(ctx)
	if err != nil {
		if first == nil {
			return openError(nil, nil, err)
		}
		for name, why := range first.open {
			note(done.open, name, why)
		}
		return openError(done.open, first.causes, failed, fmt.Errorf("what was prepared is cut off, and what there is now is not known: %w", err))
	}
	l.keep(p)
	// What is new, and once more what failed, which may not fail now.
	done, failed = l.cut(ctx, p, done)
	for _, more := range []map[string]string{p.open, limits(p, done.frames), p.queues(ctx)} {
		for name, why := range more {
			note(done.open, name, why)
		}
	}
	return openError(done.open, p.causes, failed)
}

// Refresh is Arm, and Do where the lock is engaged, whichever process engaged
// it; it asks the Source in any case. Call it when a workload has been started or
// connected to a network.
func (l *Lock) Refresh(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	host, err := l.hostRoom()
	if err != nil {
		return openError(nil, nil, err)
	}
	defer host.close()
	engaged, err := engaged(ctx, host)
	if err != nil || engaged {
		// Where that cannot be seen, the safe side is the locked one.
		done := l.do(ctx, l.ask)
		if err == nil {
			return done
		}
		e, ok := errors.AsType[*OpenError](done)
		if !ok {
			e = &OpenError{}
		}
		return openError(e.open, e.causes, append(e.errs, err)...)
	}
	return l.Arm(ctx)
}

// Release takes everything away that Do has made, in the host's network
// namespace and those of the workloads that there are. It is idempotent, and
// leaves others' rules alone.
func (l *Lock) Release(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	l.mu.Lock()
	old := l.prepared
	l.mu.Unlock()
	p, err := l.ask(ctx)
	errs := []error{err}
	if err != nil {
		if p = old; p == nil {
			host, err := l.hostRoom()
			if err != nil {
				return openError(nil, nil, append(errs, err)...)
			}
			defer host.close()
			p = &plan{host: host}
		}
	}
	rooms := map[nsID]*room{p.host.id: p.host}
	for _, r := range p.rooms {
		rooms[r.id] = r.room
	}
	if old != nil {
		for _, r := range old.rooms {
			if rooms[r.id] == nil {
				rooms[r.id] = r.room
			}
		}
	}
	var g together
	for _, r := range rooms {
		g.run(ctx, func() error {
			if err := r.release(ctx); err != nil {
				return fmt.Errorf("release %s: %w", r, err)
			}
			return nil
		})
	}
	errs = append(errs, g.wait(ctx))
	if err == nil {
		l.keep(p)
	}
	return openError(nil, nil, errs...)
}

// Close gives up what Arm holds; handles are closed when they are collected. The
// lock itself stays as it is.
func (l *Lock) Close() error {
	l.keep(nil)
	return nil
}

// keep has p be what Do cuts first. What it no longer needs may be in use by a
// call that goes on, and is closed when nothing refers to it.
func (l *Lock) keep(p *plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prepared = p
}

// A cut is what came of carrying out a plan.
type cut struct {
	open   map[string]string // what failed, by workload
	frames map[string]error  // why packet sockets of a workload are not closed

	host  *plan            // of which what is on the host is done, by nftables
	rooms map[*room][]link // that are closed by nftables, and all of these interfaces with them
}

// cut carries out a plan, all of it at once, but for what is done already.
func (l *Lock) cut(ctx context.Context, p *plan, done cut) (cut, error) {
	// What goes on after the context has ended goes on by itself.
	var mu sync.Mutex
	c := cut{open: map[string]string{}, frames: map[string]error{}, rooms: map[*room][]link{}}
	var g together
	if done.host != nil && p.hostWithin(done.host) {
		c.host = done.host
	} else {
		g.run(ctx, func() error {
			fell, err := l.either(ctx, p.host, func(b *batch) { b.host(p, true) }, hostFamilies, func() error { return p.hostByIPTables(ctx) })
			if err != nil {
				return fmt.Errorf("rules of the host: %w", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !fell {
				c.host = p
				return nil
			}
			for _, s := range p.subjects {
				if s.shared {
					note(c.open, s.Name, "what others send to it arrives, unless they are connected: iptables does not tell whose it is")
				}
			}
			return nil
		})
	}
	for _, r := range p.rooms {
		if closed, ok := done.rooms[r.room]; ok && subset(r.devices, closed) {
			mu.Lock()
			c.rooms[r.room] = closed
			mu.Unlock()
			continue
		}
		g.run(ctx, func() error {
			frames, err := l.closeRoom(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				for _, name := range r.names {
					note(c.open, name, fmt.Sprintf("rules in its network namespace: %v", err))
				}
				return fmt.Errorf("rules in %s: %w", r, err)
			}
			if frames == nil {
				c.rooms[r.room] = r.devices
				return nil
			}
			for _, name := range r.names {
				c.frames[name] = frames
			}
			return nil
		})
	}
	err := g.wait(ctx)
	mu.Lock()
	defer mu.Unlock()
	return cut{maps.Clone(c.open), maps.Clone(c.frames), c.host, maps.Clone(c.rooms)}, err
}

// hostWithin reports whether nothing is to be done on the host that another plan
// has not done.
func (p *plan) hostWithin(other *plan) bool {
	return p.host == other.host && subset(p.names, other.names) && subset(p.ports, other.ports) && subset(p.group, other.group)
}

func subset[T comparable](some, all []T) bool {
	return !slices.ContainsFunc(some, func(v T) bool { return !slices.Contains(all, v) })
}

// closeRoom closes a namespace, and says what keeps it from closing what packet
// sockets use.
func (l *Lock) closeRoom(ctx context.Context, r *inside) (frames, err error) {
	if !l.IPTables {
		all := func(b *batch) {
			b.inside()
			for _, d := range r.devices {
				b.device(d)
			}
		}
		if r.transact(ctx, all) == nil {
			return nil, nil
		}
	}
	// One by one: an interface may have gone, or the kernel not know all of it.
	fell, err := l.either(ctx, r.room, (*batch).inside, []nftables.TableFamily{nftables.TableFamilyINet}, func() error { return r.insideByIPTables(ctx) })
	switch {
	case err != nil:
		return nil, err
	case fell:
		return errors.New("iptables does not see them"), nil
	}
	return r.closeDevices(ctx), nil
}

// either has nftables do it, or else iptables.
func (l *Lock) either(ctx context.Context, r *room, byNFT func(*batch), families []nftables.TableFamily, byIPTables func() error) (fell bool, err error) {
	var refused error
	if !l.IPTables {
		if refused = r.flush(ctx, byNFT, families...); refused == nil {
			return false, nil
		}
		refused = fmt.Errorf("nftables: %w", refused)
	}
	if err := byIPTables(); err != nil {
		return true, errors.Join(refused, err)
	}
	return true, nil
}

// together runs functions at once, and does not wait for them longer than for
// the context: a call into the kernel may not return.
type together struct {
	group errgroup.Group
	errs  []error
	mu    sync.Mutex
}

func (g *together) run(ctx context.Context, fn func() error) {
	g.group.Go(func() error {
		err := context.Cause(ctx)
		if err == nil {
			err = fn()
		}
		if err != nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.errs = append(g.errs, err)
		}
		return nil
	})
}

func (g *together) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		_ = g.group.Wait()
		close(done)
	}()
	var late error
	select {
	case <-done:
	case <-ctx.Done():
		select {
		case <-done:
		default:
			late = fmt.Errorf("not everything was done in time: %w", context.Cause(ctx))
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(append(g.errs[:len(g.errs):len(g.errs)], late)...)
}
