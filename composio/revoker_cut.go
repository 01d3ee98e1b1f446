package composio

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
)

// cut ends what could begin something new. Each part is on its own: what fails
// is noted and holds up nothing.
func (x *run) cut(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { x.cutTriggers(ctx) })
	parts.Go(func() {
		for _, id := range x.Sessions {
			parts.Go(func() {
				x.end(ctx, "session", id, x.clients[first].DeleteSession, func(ctx context.Context, id string) error {
					_, err := x.clients[first].Session(ctx, id)
					return absent(err)
				})
			})
		}
	})
	if x.UserIDs == nil {
		parts.Go(func() {
			for _, s := range list(x, "MCP server", x.clients[first].MCPServers(ctx)) {
				parts.Go(func() {
					x.end(ctx, "MCP server", s.ID, x.clients[first].DeleteMCPServer, func(ctx context.Context, id string) error {
						_, err := x.clients[first].MCPServer(ctx, id)
						return absent(err)
					})
				})
			}
		})
		parts.Go(func() {
			for _, a := range list(x, "auth config", x.clients[first].AuthConfigs(ctx)) {
				if a.Disabled {
					continue
				}
				parts.Go(func() {
					x.end(ctx, "auth config", a.ID, func(ctx context.Context, id string) error {
						return x.clients[first].SetAuthConfigEnabled(ctx, id, false)
					}, func(ctx context.Context, id string) error {
						a, err := x.clients[first].AuthConfig(ctx, id)
						if err == nil && !a.Disabled {
							err = errors.New("it is still enabled")
						}
						return err
					})
				})
			}
		})
	}
	parts.Wait()
	slices.SortFunc(x.cuts, func(a, b Cut) int { return strings.Compare(a.Kind+"\x00"+a.ID, b.Kind+"\x00"+b.ID) })
}

// cutTriggers disables triggers. A trigger cannot be asked for, so that the
// listing of those that are active has to confirm it.
func (x *run) cutTriggers(ctx context.Context) {
	f := TriggerFilter{UserIDs: x.UserIDs}
	triggers := list(x, "trigger", x.clients[first].Triggers(ctx, f))
	if len(triggers) == 0 {
		return
	}
	refused := make([]error, len(triggers))
	var disabling sync.WaitGroup
	for i, t := range triggers {
		disabling.Go(func() { refused[i] = x.clients[first].SetTriggerEnabled(ctx, t.ID, false) })
	}
	disabling.Wait()
	active := make(map[string]bool)
	var unseen error
	for t, err := range x.clients[first].Triggers(ctx, f) {
		if err != nil {
			unseen = fmt.Errorf("whether it is disabled cannot be seen: %w", err)
			break
		}
		active[t.ID] = !t.Disabled
	}
	for i, t := range triggers {
		err := unseen
		if active[t.ID] {
			if err = refused[i]; err == nil {
				err = errors.New("it is still active")
			}
		}
		x.cutDone("trigger", t.ID, err)
	}
}

// list returns all of a listing; if it breaks off, what came until then.
func list[T any](x *run, kind string, seq iter.Seq2[T, error]) []T {
	var all []T
	for t, err := range seq {
		if err != nil {
			x.cutDone(kind+"s", "", err)
			break
		}
		all = append(all, t)
	}
	return all
}

// end does something to an object and then confirms it, whatever the answer.
func (x *run) end(ctx context.Context, kind, id string, do, confirm func(context.Context, string) error) {
	err := do(ctx, id)
	if sure := confirm(ctx, id); sure == nil {
		err = nil
	} else if err == nil {
		err = sure
	}
	x.cutDone(kind, id, err)
}

func (x *run) cutDone(kind, id string, err error) {
	c := Cut{Kind: kind, ID: id, Done: err == nil}
	if err != nil {
		c.Reason = err.Error()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cuts = append(x.cuts, c)
}

// absent is nil if err says that there is no such object.
func absent(err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err == nil:
		return errors.New("it is still there")
	}
	return err
}

// keys replaces and revokes keys, and tries each to see whether it still works.
// It comes last, for the other steps need one.
func (x *run) keys(ctx context.Context) {
	if ctx.Err() != nil && (x.ProjectID != "" || len(x.Keys) > 0) {
		x.cutDone("keys", "", context.Cause(ctx))
		return
	}
	if x.ProjectID != "" {
		key, err := x.clients[first].RegenerateKey(ctx, x.ProjectID)
		x.newKey = key
		if old := x.clients[first].key.key; strings.HasPrefix(old.Reveal(), "ak_") {
			err = x.dead(ctx, old, err)
		}
		x.cutDone("key", "of project "+x.ProjectID, err)
	}
	for i, chunk := 0, x.Keys; len(chunk) > 0; {
		n := min(100, len(chunk))
		err := x.clients[first].RevokeKeys(ctx, chunk[:n]...)
		for _, k := range chunk[:n] {
			i++
			x.cutDone("key", fmt.Sprintf("%d of %d", i, len(x.Keys)), x.dead(ctx, k, err))
		}
		chunk = chunk[n:]
	}
}

// dead is nil if the API no longer takes the key, and otherwise says why that
// is not so: because of before, if that is not nil.
func (x *run) dead(ctx context.Context, key Secret, before error) error {
	works, err := x.clients[first].KeyWorks(ctx, key)
	switch {
	case err == nil && !works:
		return nil
	case before != nil:
		return before
	case err != nil:
		return fmt.Errorf("whether it still works cannot be seen: %w", err)
	}
	return errors.New("the API still takes it")
}
