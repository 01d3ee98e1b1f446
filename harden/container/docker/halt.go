package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	api "github.com/docker/docker/api/types/container"

	"github.com/managemyclaw/hardshell/harden/container"
)

// Labels that Docker Compose gives to its containers.
const (
	composeProject = "com.docker.compose.project"
	composeService = "com.docker.compose.service"
)

// Remote reports whether the engine is, by its address, on another machine. It
// asks nobody.
func (e *Engine) Remote() bool { return e.unix == "" }

// List lists all containers of the engine, in any state. It is one request.
func (e *Engine) List(ctx context.Context) ([]container.Listed, error) {
	listed, err := e.list(ctx, true)
	if err != nil {
		return nil, err
	}
	all := make([]container.Listed, 0, len(listed))
	for _, c := range listed {
		l := container.Listed{
			ID: c.ID, Image: c.Image, State: c.State,
			Project: c.Labels[composeProject], Service: c.Labels[composeService],
		}
		for _, n := range c.Names {
			if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") { // not a link
				l.Name = n
			}
		}
		all = append(all, l)
	}
	return all, nil
}

// Pause freezes the processes of a container. One that is paused, or does not
// run, is left as it is.
func (e *Engine) Pause(ctx context.Context, id string) error {
	return e.unless(ctx, id, func(r *api.InspectResponse) bool { return !r.State.Running || r.State.Paused }, act(ctx, e, fmt.Sprintf("pause container %q", id), func(ctx context.Context) error {
		return e.cli.ContainerPause(ctx, id)
	}))
}

// Kill sends SIGKILL to the first process of a container, which ends them all
// unless it shares its process namespace. One that does not run is left as it
// is. The engine does not apply the restart policy to what it killed itself,
// until it is restarted.
func (e *Engine) Kill(ctx context.Context, id string) error {
	return e.unless(ctx, id, func(r *api.InspectResponse) bool { return !r.State.Running }, act(ctx, e, fmt.Sprintf("kill container %q", id), func(ctx context.Context) error {
		return e.cli.ContainerKill(ctx, id, "SIGKILL")
	}))
}

// StopNow stops a container without waiting for it to end by itself. One that
// does not run is left as it is, and one that would be restarted is not.
func (e *Engine) StopNow(ctx context.Context, id string) error {
	now := 0
	return act(ctx, e, fmt.Sprintf("stop container %q at once", id), func(ctx context.Context) error {
		return e.cli.ContainerStop(ctx, id, api.StopOptions{Timeout: &now})
	})
}

// Disconnect takes a container off a network. One that is not on it is left as
// it is.
func (e *Engine) Disconnect(ctx context.Context, id, network string) error {
	return e.unless(ctx, id, func(r *api.InspectResponse) bool {
		if r.NetworkSettings == nil {
			return false
		}
		_, on := r.NetworkSettings.Networks[network]
		return !on
	}, act(ctx, e, fmt.Sprintf("disconnect container %q from network %q", id, network), func(ctx context.Context) error {
		return e.cli.NetworkDisconnect(ctx, network, id, true)
	}))
}

// Connect puts a container on a network, under no other names than its own. One
// that is on it is left as it is.
func (e *Engine) Connect(ctx context.Context, id, network string) error {
	return e.unless(ctx, id, func(r *api.InspectResponse) bool {
		if r.NetworkSettings == nil {
			return false
		}
		_, on := r.NetworkSettings.Networks[network]
		return on
	}, act(ctx, e, fmt.Sprintf("connect container %q to network %q", id, network), func(ctx context.Context) error {
		return e.cli.NetworkConnect(ctx, network, id, nil)
	}))
}

// unless returns err, unless the container is already as it should be: engines
// answer that with errors that only a text tells apart.
func (e *Engine) unless(ctx context.Context, id string, already func(*api.InspectResponse) bool, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, container.ErrNoContainer) || errors.Is(err, container.ErrEngine) {
		return err
	}
	if r, inspectErr := e.inspect(ctx, id); inspectErr == nil && already(&r) {
		return nil
	}
	return err
}
