package containertest

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/harden/container"
)

// An Engine is a container engine in memory. It implements
// [container.Control]. The zero Engine has no containers.
type Engine struct {
	// EngineInfo is what Info returns. An empty Name is "fake", an empty ID
	// "fake-engine".
	EngineInfo container.EngineInfo

	// EngineNetworks is what Networks returns.
	EngineNetworks []container.EngineNetwork

	// Run, if set, is called when a container starts, and may change what the
	// engine says of it from then on: State and Health above all.
	Run func(*container.Settings)

	mu         sync.Mutex
	containers map[string]*fake
	volumes    map[string]map[string]string
	next       int
}

type fake struct {
	container.Settings

	layer map[string]string // files of the writable layer
}

var _ container.Control = (*Engine)(nil)

// Add adds a container, with files in its writable layer or, below the
// destination of a volume, in that. What is missing of an id or a state is
// filled in.
func (e *Engine) Add(s container.Settings, files map[string]string) (id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := &fake{Settings: s, layer: make(map[string]string)}
	e.insert(f)
	for name, content := range files {
		e.file(f, name)[name] = content
	}
	return f.ID
}

func (e *Engine) insert(f *fake) {
	e.next++
	if f.ID == "" {
		f.ID = fmt.Sprintf("%064x", e.next)
	}
	if f.State == "" {
		f.State = "running"
	}
	if f.State == "running" && f.PID == 0 {
		f.PID = 1000 + e.next
	}
	if f.RestartPolicy == "" {
		f.RestartPolicy = "no"
	}
	if e.containers == nil {
		e.containers = make(map[string]*fake)
	}
	e.containers[f.ID] = f
}

// file returns the files among which a container has a path.
func (e *Engine) file(f *fake, name string) map[string]string {
	var best *container.Mount
	for i, m := range f.Mounts {
		if m.Type == "volume" && (name == m.Destination || strings.HasPrefix(name, m.Destination+"/")) &&
			(best == nil || len(m.Destination) > len(best.Destination)) {
			best = &f.Mounts[i]
		}
	}
	if best == nil {
		return f.layer
	}
	if e.volumes == nil {
		e.volumes = make(map[string]map[string]string)
	}
	if e.volumes[best.Name] == nil {
		e.volumes[best.Name] = make(map[string]string)
	}
	return e.volumes[best.Name]
}

// File returns a file of a container.
func (e *Engine) File(name, file string) (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f, err := e.find(name)
	if err != nil {
		return "", false
	}
	content, ok := e.file(f, file)[file]
	return content, ok
}

// Names returns the names of all containers, in order.
func (e *Engine) Names() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []string
	for _, f := range e.containers {
		all = append(all, f.Name)
	}
	slices.Sort(all)
	return all
}

// Volumes returns the names of all volumes that were ever written to, in
// order.
func (e *Engine) Volumes() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.volumes))
}

// Vanish removes a container as somebody else would.
func (e *Engine) Vanish(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f, err := e.find(name); err == nil {
		delete(e.containers, f.ID)
	}
}

// Restart is what a restart of the engine does: all containers stop, and those
// with a restart policy start again.
func (e *Engine) Restart() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.containers {
		ran := f.State == "running"
		e.end(f)
		if f.RestartPolicy == "always" || ran && f.RestartPolicy != "no" {
			e.start(f)
		}
	}
}

func (e *Engine) find(id string) (*fake, error) {
	for _, f := range e.containers {
		if f.ID == id || f.Name == id {
			return f, nil
		}
	}
	return nil, fmt.Errorf("fake: %q: %w", id, container.ErrNoContainer)
}

func (e *Engine) start(f *fake) {
	if f.State == "running" {
		return
	}
	e.next++
	f.State, f.PID = "running", 1000+e.next
	if f.HealthCheck != nil {
		f.Health = "healthy"
	}
	if e.Run != nil {
		e.Run(&f.Settings)
	}
}

func (e *Engine) end(f *fake) {
	if f.State == "running" {
		f.State, f.PID, f.Health = "exited", 0, ""
	}
}

// do calls f unless ctx has ended.
func (e *Engine) do(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("fake: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return f()
}

func (e *Engine) with(ctx context.Context, id string, f func(*fake) error) error {
	return e.do(ctx, func() error {
		c, err := e.find(id)
		if err != nil {
			return err
		}
		return f(c)
	})
}

// Info implements [container.Engine].
func (e *Engine) Info(ctx context.Context) (info container.EngineInfo, err error) {
	err = e.do(ctx, func() error {
		info = e.EngineInfo
		if info.Name == "" {
			info.Name = "fake"
		}
		if info.ID == "" {
			info.ID = "fake-engine"
		}
		if info.SeccompProfile == "" {
			info.SeccompProfile = "default"
		}
		return nil
	})
	return info, err
}

// Networks describes the networks of the engine.
func (e *Engine) Networks(ctx context.Context) (all []container.EngineNetwork, err error) {
	err = e.do(ctx, func() error {
		all = slices.Clone(e.EngineNetworks)
		return nil
	})
	return all, err
}

// Containers implements [container.Engine].
func (e *Engine) Containers(ctx context.Context, names ...string) (all []container.Settings, err error) {
	err = e.do(ctx, func() error {
		if len(names) == 0 {
			for _, f := range e.containers {
				if f.Running() {
					all = append(all, copied(f))
				}
			}
		}
		for _, n := range names {
			f, err := e.find(n)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(all, func(s container.Settings) bool { return s.ID == f.ID }) {
				all = append(all, copied(f))
			}
		}
		slices.SortFunc(all, func(a, b container.Settings) int { return strings.Compare(a.Name, b.Name) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

func copied(f *fake) container.Settings {
	s := f.Settings
	s.Mounts, s.Ports = slices.Clone(s.Mounts), slices.Clone(s.Ports)
	return s
}

func (e *Engine) taken(name, id string) error {
	for _, f := range e.containers {
		if f.Name == name && f.ID != id {
			return fmt.Errorf("fake: %q: %w", name, container.ErrNameTaken)
		}
	}
	return nil
}

// Clone implements [container.Control].
func (e *Engine) Clone(ctx context.Context, id, name string, h container.Hardening) (newID string, err error) {
	err = e.with(ctx, id, func(old *fake) error {
		if err := e.taken(name, ""); err != nil {
			return err
		}
		f := &fake{Settings: Harden(copied(old), h), layer: make(map[string]string)}
		f.ID, f.Name, f.State, f.PID, f.Health, f.RestartPolicy, f.AutoRemove = "", name, "created", 0, "", "no", false
		for _, v := range h.Volumes {
			f.Mounts = append(f.Mounts, container.Mount{Type: "volume", Name: v.Name, Driver: "local", Source: "/volumes/" + v.Name, Destination: v.Path, ReadWrite: true})
			e.file(f, v.Path)
		}
		e.insert(f)
		newID = f.ID
		return nil
	})
	return newID, err
}

// Start implements [container.Control].
func (e *Engine) Start(ctx context.Context, id string) error {
	return e.with(ctx, id, func(f *fake) error {
		e.start(f)
		return nil
	})
}

// Stop implements [container.Control].
func (e *Engine) Stop(ctx context.Context, id string, _ time.Duration) error {
	return e.with(ctx, id, func(f *fake) error {
		e.end(f)
		return nil
	})
}

// Rename implements [container.Control].
func (e *Engine) Rename(ctx context.Context, id, name string) error {
	return e.with(ctx, id, func(f *fake) error {
		if err := e.taken(name, f.ID); err != nil {
			return err
		}
		f.Name = name
		return nil
	})
}

// Remove implements [container.Control].
func (e *Engine) Remove(ctx context.Context, id string) error {
	return e.do(ctx, func() error {
		f, err := e.find(id)
		if err != nil {
			return nil //nolint:nilerr // as Control says
		}
		if f.Running() {
			return fmt.Errorf("fake: remove %q: it runs", f.Name)
		}
		delete(e.containers, f.ID)
		return nil
	})
}

// RemoveVolume implements [container.Control].
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	return e.do(ctx, func() error {
		for _, f := range e.containers {
			if slices.ContainsFunc(f.Mounts, func(m container.Mount) bool { return m.Name == name }) {
				return fmt.Errorf("fake: remove volume %q: container %q uses it", name, f.Name)
			}
		}
		delete(e.volumes, name)
		return nil
	})
}

// SetRestartPolicy implements [container.Control].
func (e *Engine) SetRestartPolicy(ctx context.Context, id, policy string) error {
	return e.with(ctx, id, func(f *fake) error {
		f.RestartPolicy = policy
		return nil
	})
}

// Copy implements [container.Control].
func (e *Engine) Copy(ctx context.Context, from, to, dir string, skip []string, _ *container.Owner) error {
	return e.with(ctx, from, func(src *fake) error {
		dst, err := e.find(to)
		if err != nil {
			return err
		}
		if src.Running() || dst.Running() {
			return fmt.Errorf("fake: copy %s: a container runs", dir)
		}
		for name, content := range src.layer {
			if name != dir && !strings.HasPrefix(name, dir+"/") ||
				slices.ContainsFunc(skip, func(s string) bool { return strings.HasPrefix(name, path.Clean(s)+"/") }) {
				continue
			}
			e.file(dst, name)[name] = content
		}
		return nil
	})
}

// Changed implements [container.Control].
func (e *Engine) Changed(ctx context.Context, id string) (all []string, err error) {
	err = e.with(ctx, id, func(f *fake) error {
		all = slices.Sorted(maps.Keys(f.layer))
		return nil
	})
	return all, err
}
