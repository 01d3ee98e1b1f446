package softstop

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"unicode"
)

const (
	pageSize   = 100
	maxWork    = 10_000 // objects that are looked at
	maxName    = 200
	objGateway = "gateway"
)

// A work is something that the gateway says is under way.
type work struct {
	session string // the key of a session with a run, or
	agent   string // whose it is, where the key does not say so
	task    string // the id of a task
	status  string
}

// A workList is what is under way, by object.
type workList map[string]work

func (l workList) statuses() map[string]string {
	m := make(map[string]string, len(l))
	for name, w := range l {
		m[name] = w.status
	}
	return m
}

// list asks for all that is under way. What it returns beside an error was
// seen.
func (c *conn) list(ctx context.Context) (workList, error) {
	all := make(workList)
	err := errors.Join(c.sessions(ctx, all), c.tasks(ctx, all))
	return all, err
}

func (c *conn) sessions(ctx context.Context, into workList) error {
	for offset := 0; ; {
		var page struct {
			Sessions []struct {
				Key   string `json:"key"`
				Agent string `json:"agentId"`
			} `json:"sessions"`
			Count   *int `json:"count"`
			HasMore bool `json:"hasMore"`
		}
		params := map[string]any{"activeOnly": true, "includeGlobal": true, "includeUnknown": true, "limit": pageSize, "offset": offset}
		if err := c.call(ctx, "sessions.list", params, &page); err != nil {
			return err
		}
		if page.Count == nil || page.Sessions == nil {
			return errors.New("the gateway's answer to sessions.list is not a list")
		}
		for _, s := range page.Sessions {
			w := work{session: s.Key, status: "running or queued"}
			name := "session/" + c.hide(s.Key)
			if s.Key == "global" || s.Key == "unknown" { // each agent has one
				w.agent = s.Agent
				name += "@" + c.hide(s.Agent)
			}
			into[name] = w
		}
		offset += len(page.Sessions)
		switch {
		case !page.HasMore:
			return nil
		case len(page.Sessions) == 0 || offset >= maxWork:
			return errors.New("the gateway's list of sessions does not end")
		}
	}
}

func (c *conn) tasks(ctx context.Context, into workList) error {
	for cursor, seen := "", 0; ; {
		var page struct {
			Tasks []struct {
				ID     string `json:"id"`
				Kind   string `json:"kind"`
				Status string `json:"status"`
			} `json:"tasks"`
			Next string `json:"nextCursor"`
		}
		params := map[string]any{"status": []string{"queued", "running"}, "limit": pageSize}
		if cursor != "" {
			params["cursor"] = cursor
		}
		if err := c.call(ctx, "tasks.list", params, &page); err != nil {
			return err
		}
		if page.Tasks == nil {
			return errors.New("the gateway's answer to tasks.list is not a list")
		}
		for _, t := range page.Tasks {
			w := work{task: t.ID, status: strings.TrimSpace(c.hide(t.Status) + " " + c.hide(t.Kind))}
			into["task/"+c.hide(t.ID)] = w
		}
		seen += len(page.Tasks)
		if cursor = page.Next; cursor == "" {
			return nil
		}
		if len(page.Tasks) == 0 || seen >= maxWork {
			return errors.New("the gateway's list of tasks does not end")
		}
	}
}

// end aborts or cancels one piece of work. That there was none any more is as
// good.
func (c *conn) end(ctx context.Context, w work) error {
	if w.task != "" {
		var r struct{}
		return c.call(ctx, "tasks.cancel", map[string]any{"taskId": w.task, "reason": "kill switch"}, &r)
	}
	params := map[string]any{"key": w.session, "clearQueued": true}
	if w.agent != "" {
		params["agentId"] = w.agent
	}
	var r struct{}
	return c.call(ctx, "sessions.abort", params, &r)
}

// hide makes what a gateway calls something fit for a receipt: short, in one
// line, and without the token.
func (e *endpoint) hide(name string) string {
	name = strings.ReplaceAll(name, e.token.Reveal(), "[redacted]")
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, name)
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return name
}

// A lease is what the gateway answers to one who wants it to admit nothing.
type lease struct {
	Status   string    `json:"status"` // "ready", "draining" or "busy"
	ID       string    `json:"suspensionId"`
	Active   int       `json:"activeCount"`
	Blockers []blocker `json:"blockers"`
}

type blocker struct {
	Kind  string `json:"kind"`
	Count int    `json:"count"`
}

// requestID is the same for all who hold the lease for this package, so that
// any of them renews it, in whatever process.
const requestID = "hardshell.killswitch"

// prepare has the gateway admit nothing more, if nothing is under way. What is
// under way is not waited for (drain): a gateway that waits lets nobody abort.
// Terminals that a person has open do not count.
func (c *conn) prepare(ctx context.Context) (lease, error) {
	var l lease
	err := c.call(ctx, "gateway.suspend.prepare", map[string]any{"requestId": requestID, "terminalPolicy": "terminate"}, &l)
	return l, err
}

// resume ends a lease.
func (c *conn) resume(ctx context.Context, id string) error {
	var r struct{}
	return c.call(ctx, "gateway.suspend.resume", map[string]any{"suspensionId": id}, &r)
}

func (l lease) busy() string {
	kinds := make(map[string]int)
	for _, b := range l.Blockers {
		kinds[word(b.Kind)] += b.Count
	}
	var parts []string
	for _, k := range sortedKeys(kinds) {
		parts = append(parts, strconv.Itoa(kinds[k])+" "+k)
	}
	if len(parts) == 0 {
		return "busy"
	}
	return "busy: " + strings.Join(parts, ", ")
}

// An openError says what a step has left open.
type openError struct {
	err  error
	open map[string]string
}

func (e *openError) Error() string           { return e.err.Error() }
func (e *openError) Unwrap() error           { return e.err }
func (e *openError) Open() map[string]string { return maps.Clone(e.open) }
