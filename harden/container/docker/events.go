package docker

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// again is how long to wait before the engine is asked for its events again.
const again = time.Second

// Changes returns a channel that receives a value soon after a container has
// started or ended, and after a network has come, gone, or been joined. Values
// do not queue: one that nobody has taken stands for all that came since. It
// also receives one whenever the engine's events could be listened to (again),
// since some may have been missed. The channel is closed when ctx ends.
func (e *Engine) Changes(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	go func() {
		defer close(changed)
		for ctx.Err() == nil {
			e.listen(ctx, tell)
			select {
			case <-ctx.Done():
			case <-time.After(again):
			}
		}
	}()
	return changed
}

// listen calls tell for each event until the engine ends the stream.
func (e *Engine) listen(ctx context.Context, tell func()) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if e.agree(ctx) != nil {
		return
	}
	which := filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)), filters.Arg("type", string(events.NetworkEventType)),
		filters.Arg("event", string(events.ActionStart)), filters.Arg("event", string(events.ActionDie)),
		filters.Arg("event", string(events.ActionCreate)), filters.Arg("event", string(events.ActionDestroy)),
		filters.Arg("event", string(events.ActionConnect)), filters.Arg("event", string(events.ActionDisconnect)),
	)
	messages, errs := e.cli.Events(ctx, events.ListOptions{Filters: which})
	tell()
	for {
		select {
		case <-messages:
			tell()
		case <-errs: //nolint:errcheck // also when ctx ends; whatever it is, the engine is asked again
			return
		}
	}
}
