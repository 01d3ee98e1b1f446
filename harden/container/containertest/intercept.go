package containertest

import (
	"context"
	"time"

	"github.com/managemyclaw/hardshell/harden/container"
)

// A Call is a call of a method of a [container.Control].
type Call struct {
	Method string // such as "Rename"
	ID     string // of what it is about; empty if it is about all
}

// Changes reports whether a call changes something.
func (c Call) Changes() bool {
	return c.Method != "Info" && c.Method != "Containers" && c.Method != "Changed"
}

// An Interceptor is a [container.Control] in front of another. With it a test
// lets calls fail, hang or kill the process, before or after they take effect.
type Interceptor struct {
	container.Control

	// Before is called instead of a call if it returns an error, which is then
	// the call's. Nil lets all through.
	Before func(context.Context, Call) error

	// After is called after a call that succeeded. An error becomes the
	// call's, although it took effect.
	After func(context.Context, Call) error
}

func intercept[T any](ctx context.Context, i *Interceptor, c Call, do func() (T, error)) (T, error) {
	var zero T
	if i.Before != nil {
		if err := i.Before(ctx, c); err != nil {
			return zero, err
		}
	}
	v, err := do()
	if err == nil && i.After != nil {
		if err := i.After(ctx, c); err != nil {
			return zero, err
		}
	}
	return v, err
}

func interceptError(ctx context.Context, i *Interceptor, c Call, do func() error) error {
	_, err := intercept(ctx, i, c, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// Info implements [container.Engine].
func (i *Interceptor) Info(ctx context.Context) (container.EngineInfo, error) {
	return intercept(ctx, i, Call{Method: "Info"}, func() (container.EngineInfo, error) { return i.Control.Info(ctx) })
}

// Containers implements [container.Engine].
func (i *Interceptor) Containers(ctx context.Context, names ...string) ([]container.Settings, error) {
	c := Call{Method: "Containers"}
	if len(names) > 0 {
		c.ID = names[0]
	}
	return intercept(ctx, i, c, func() ([]container.Settings, error) { return i.Control.Containers(ctx, names...) })
}

// Clone implements [container.Control].
func (i *Interceptor) Clone(ctx context.Context, id, name string, h container.Hardening) (string, error) {
	return intercept(ctx, i, Call{"Clone", id}, func() (string, error) { return i.Control.Clone(ctx, id, name, h) })
}

// Start implements [container.Control].
func (i *Interceptor) Start(ctx context.Context, id string) error {
	return interceptError(ctx, i, Call{"Start", id}, func() error { return i.Control.Start(ctx, id) })
}

// Stop implements [container.Control].
func (i *Interceptor) Stop(ctx context.Context, id string, grace time.Duration) error {
	return interceptError(ctx, i, Call{"Stop", id}, func() error { return i.Control.Stop(ctx, id, grace) })
}

// Rename implements [container.Control].
func (i *Interceptor) Rename(ctx context.Context, id, name string) error {
	return interceptError(ctx, i, Call{"Rename", id}, func() error { return i.Control.Rename(ctx, id, name) })
}

// Remove implements [container.Control].
func (i *Interceptor) Remove(ctx context.Context, id string) error {
	return interceptError(ctx, i, Call{"Remove", id}, func() error { return i.Control.Remove(ctx, id) })
}

// RemoveVolume implements [container.Control].
func (i *Interceptor) RemoveVolume(ctx context.Context, name string) error {
	return interceptError(ctx, i, Call{"RemoveVolume", name}, func() error { return i.Control.RemoveVolume(ctx, name) })
}

// SetRestartPolicy implements [container.Control].
func (i *Interceptor) SetRestartPolicy(ctx context.Context, id, policy string) error {
	return interceptError(ctx, i, Call{"SetRestartPolicy", id}, func() error { return i.Control.SetRestartPolicy(ctx, id, policy) })
}

// Copy implements [container.Control].
func (i *Interceptor) Copy(ctx context.Context, from, to, path string, skip []string, owner *container.Owner) error {
	return interceptError(ctx, i, Call{"Copy", from}, func() error { return i.Control.Copy(ctx, from, to, path, skip, owner) })
}

// Changed implements [container.Control].
func (i *Interceptor) Changed(ctx context.Context, id string) ([]string, error) {
	return intercept(ctx, i, Call{"Changed", id}, func() ([]string, error) { return i.Control.Changed(ctx, id) })
}
