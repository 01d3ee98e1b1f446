package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

// doors are the two ways to call a tool.
var doors = map[string]func(w *world, slug string, arguments object) *httptest.ResponseRecorder{
	"rest": (*world).execute,
	"mcp": func(w *world, slug string, arguments object) *httptest.ResponseRecorder {
		return w.mcpCall(slug, arguments)
	},
	"nested": func(w *world, slug string, arguments object) *httptest.ResponseRecorder {
		return w.mcpCall("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry(slug, arguments)))
	},
}

// No record, no action: whichever record it is that fails.
func TestRecorderFails(t *testing.T) {
	t.Parallel()
	for door, call := range doors {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.trail.failing(func(trail.Event) error { return errors.New("disk full") })
			for range 3 {
				if rec := call(w, "GMAIL_FETCH_EMAILS", object{}); !refused(rec) || !strings.Contains(rec.Body.String(), "unrecorded") {
					t.Errorf("%d %s", rec.Code, rec.Body)
				}
			}
			if e := w.executed(); len(e) > 0 {
				t.Errorf("executed %v", e)
			}
			w.trail.failing(nil)
			if rec := call(w, "GMAIL_FETCH_EMAILS", object{}); refused(rec) {
				t.Errorf("once the trail works again: %d %s", rec.Code, rec.Body)
			}
			// What was refused shows as not carried out.
			lost := w.trail.where(func(e trail.Event) bool { return strings.HasPrefix(e.Message, "it was not carried out") })
			if len(lost) != 3 {
				t.Errorf("%d records say that a call was not carried out, want 3", len(lost))
			}
		})
	}
}

// A trail that hangs or crashes is one that fails.
func TestRecorderHangsOrCrashes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var hang atomic.Bool
		w := newWorld(t, func(c *gateway.Config) {
			inner := c.Trail
			c.Trail = recorderFunc(func(ctx context.Context, e trail.Event) error {
				if hang.Load() {
					<-release // deaf to ctx
				}
				return inner.Record(ctx, e)
			})
		})
		hang.Store(true)
		start := time.Now()
		if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); !refused(rec) {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		if took := time.Since(start); took < gateway.DefaultRecordTimeout || took > 3*gateway.DefaultRecordTimeout {
			t.Errorf("it took %v", took)
		}
		if e := w.executed(); len(e) > 0 {
			t.Errorf("executed %v", e)
		}
		hang.Store(false)
		close(release)
		synctest.Wait()
		w.trail.failing(func(trail.Event) error { panic("broken") })
		if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); !refused(rec) || len(w.executed()) > 0 {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		w.trail.failing(nil)
	})
}

type recorderFunc func(context.Context, trail.Event) error

func (f recorderFunc) Record(ctx context.Context, e trail.Event) error { return f(ctx, e) }

// The outcome of an execution that cannot be recorded: the agent gets its
// result, and nobody does anything more until the record is made good.
func TestOutcomeCannotBeRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.trail.failing(func(e trail.Event) error {
		if e.Outcome == trail.OutcomeBegin {
			return nil
		}
		return errors.New("disk full")
	})
	if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); refused(rec) {
		t.Errorf("the result was withheld: %d %s", rec.Code, rec.Body)
	}
	if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); !refused(rec) {
		t.Errorf("the next call went through: %d %s", rec.Code, rec.Body)
	}
	r := w.request("POST", "/api/v3.1/tools/execute/GOOGLECALENDAR_EVENTS_LIST", object{"version": version})
	r.Header.Set("X-Api-Key", w.other.Reveal())
	if rec := w.send(r); !refused(rec) {
		t.Errorf("the next call of another agent went through: %d %s", rec.Code, rec.Body)
	}
	if got := w.executed(); !slices.Equal(got, []string{"GMAIL_FETCH_EMAILS"}) {
		t.Errorf("executed %v", got)
	}
	if n := len(w.trail.where(func(e trail.Event) bool { return e.Outcome == trail.OutcomeBegin })); n != 1 {
		t.Errorf("%d intents are recorded, want 1: what is owed comes first", n)
	}
	w.trail.failing(nil)
	if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); refused(rec) {
		t.Errorf("once the trail works again: %d %s", rec.Code, rec.Body)
	}
	outcomes := w.trail.where(func(e trail.Event) bool { return e.Outcome == trail.OutcomeOK && e.Kind == trail.KindToolCall })
	if len(outcomes) != 2 || outcomes[0].LogID != w.composio.Executions()[0].LogID {
		t.Errorf("the outcomes recorded are %+v", outcomes)
	}
}

// Nor does the rest of the same request go on.
func TestOutcomeOfNestedCannotBeRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.trail.failing(func(e trail.Event) error {
		if e.Outcome == trail.OutcomeBegin {
			return nil
		}
		return errors.New("disk full")
	})
	w.mcpCall("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_FETCH_EMAILS", object{}), entry("GMAIL_FETCH_EMAILS", object{})))
	if n := len(w.executed()); n != 1 {
		t.Errorf("%d were executed, want 1", n)
	}
}

// What comes back from Composio after the fence is not handed out.
func TestFencedWhileExecuting(t *testing.T) {
	t.Parallel()
	for door, call := range doors {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			var w *world
			w = newWorld(t, func(c *gateway.Config) {
				u := c.Upstream
				c.Upstream = catalogue{u, func(ctx context.Context, call composio.Call) (composio.Result, error) {
					defer w.fence.engage("inbox")
					return u.Execute(ctx, call)
				}}
			})
			if rec := call(w, "GMAIL_FETCH_EMAILS", object{"query": "canary"}); !refused(rec) || strings.Contains(rec.Body.String(), "canary") {
				t.Errorf("%d %s", rec.Code, rec.Body)
			}
			w.settle()
			if n := len(w.trail.where(func(e trail.Event) bool { return e.LogID != "" })); n != 1 {
				t.Errorf("%d outcomes are recorded", n)
			}
		})
	}
}

// Calls that come together count each.
func TestBreakerCountsNested(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	three := nested(entry("GMAIL_DELETE_MESSAGE", object{"id": "1"}), entry("GMAIL_DELETE_MESSAGE", object{"id": "2"}), entry("GMAIL_DELETE_MESSAGE", object{"id": "3"}))
	for i, want := range []int{3, 3} { // three and three are more than five
		w.mcpCall("COMPOSIO_MULTI_EXECUTE_TOOL", three)
		if n := len(w.executed()); n != want {
			t.Errorf("after request %d %d were executed, want %d", i+1, n, want)
		}
	}
}

// A nested call that is denied lets none of the others through.
func TestNestedAllOrNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.mcpCall("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_FETCH_EMAILS", object{}), entry("GMAIL_SEND_EMAIL", object{"to": "x"}), entry("GMAIL_FETCH_EMAILS", object{})))
	if !refused(rec) || len(w.executed()) != 0 {
		t.Errorf("executed %v: %s", w.executed(), rec.Body)
	}
	var reasons []string
	for _, e := range w.trail.denials() {
		reasons = append(reasons, e.Tool+" "+e.Attrs["reason"])
	}
	if want := []string{"GMAIL_FETCH_EMAILS together", "GMAIL_SEND_EMAIL tool", "GMAIL_FETCH_EMAILS together"}; !slices.Equal(reasons, want) {
		t.Errorf("recorded %q, want %q", reasons, want)
	}
	rec = w.mcpCall("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_FETCH_EMAILS", object{"query": "a"}), entry("GMAIL_CREATE_EMAIL_DRAFT", object{"to": "b@example.com"})))
	if refused(rec) || !slices.Equal(w.executed(), []string{"GMAIL_FETCH_EMAILS", "GMAIL_CREATE_EMAIL_DRAFT"}) {
		t.Errorf("executed %v: %s", w.executed(), rec.Body)
	}
	// Six deletions in one call are one more than the breaker lets through.
	var six []any
	for i := range 6 {
		six = append(six, entry("GMAIL_DELETE_MESSAGE", object{"id": fmt.Sprint(i)}))
	}
	before := len(w.executed())
	if rec := w.mcpCall("COMPOSIO_MULTI_EXECUTE_TOOL", nested(six...)); !refused(rec) || len(w.executed()) != before {
		t.Errorf("executed %v: %s", w.executed(), rec.Body)
	}
	if trip := <-w.trips; trip.Agent != "inbox" || trip.Tool != "GMAIL_DELETE_MESSAGE" {
		t.Errorf("tripped %+v", trip)
	}
}

// A fenced agent gets nothing: neither a call, nor a list, nor a handshake; and
// a fence that cannot be read is engaged.
func TestFenced(t *testing.T) {
	t.Parallel()
	requests := map[string]func(*world) *http.Request{
		"execute":    post(fetchPath, fetch(nil)),
		"list":       get("/api/v3.1/tools"),
		"get":        get("/api/v3.1/tools/GMAIL_FETCH_EMAILS"),
		"enum":       get("/api/v3.1/tools/enum"),
		"mcp call":   call("GMAIL_FETCH_EMAILS", object{}),
		"mcp list":   message(object{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
		"mcp ping":   message(object{"jsonrpc": "2.0", "id": 1, "method": "ping"}),
		"initialize": message(object{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": object{"protocolVersion": "2025-06-18", "capabilities": object{}, "clientInfo": object{"name": "x", "version": "1"}}}),
	}
	fences := map[string]gateway.Fence{
		"engaged":    fenceFunc(func(context.Context, string) error { return errors.New("engaged") }),
		"unreadable": fenceFunc(func(context.Context, string) error { return context.DeadlineExceeded }),
		"crashing":   fenceFunc(func(context.Context, string) error { panic("broken") }),
		"hanging":    fenceFunc(func(ctx context.Context, _ string) error { <-ctx.Done(); time.Sleep(time.Second); return nil }),
	}
	for fence, f := range fences {
		for name, r := range requests {
			t.Run(fence+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *gateway.Config) { c.Fence = f; c.FenceTimeout = 20 * time.Millisecond })
				rec := w.send(r(w))
				if rec.Code != http.StatusForbidden || !strings.Contains(rec.Body.String(), "fenced") {
					t.Errorf("%d %s", rec.Code, rec.Body)
				}
				if d := w.trail.denials(); len(d) != 1 || d[0].Attrs["reason"] != "fenced" {
					t.Errorf("recorded %+v", d)
				}
				if len(w.executed()) > 0 {
					t.Error("executed")
				}
			})
		}
	}
}

type fenceFunc func(context.Context, string) error

func (f fenceFunc) Fenced(ctx context.Context, agent string) error { return f(ctx, agent) }

// The fence is asked again right before a call is sent on: one that is engaged
// while the intent is being recorded stops it.
func TestFencedWhileRecording(t *testing.T) {
	t.Parallel()
	for door, call := range doors {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.trail.failing(func(e trail.Event) error {
				if e.Outcome == trail.OutcomeBegin {
					w.fence.engage("inbox")
				}
				return nil
			})
			if rec := call(w, "GMAIL_FETCH_EMAILS", object{}); !refused(rec) || len(w.executed()) > 0 {
				t.Errorf("executed %v: %d %s", w.executed(), rec.Code, rec.Body)
			}
			w.settle()
			last := w.trail.all()[len(w.trail.all())-1]
			if last.Outcome != trail.OutcomeError || !strings.Contains(last.Message, "not carried out") {
				t.Errorf("the last record is %+v", last)
			}
		})
	}
}

// settle waits until what the gateway does on its own has been done.
func (w *world) settle() {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		begun, ended := 0, 0
		for _, e := range w.trail.all() {
			switch {
			case e.Outcome == trail.OutcomeBegin:
				begun++
			case e.Kind == trail.KindToolCall && e.Decision == trail.DecisionAllow:
				ended++
			}
		}
		if begun == ended {
			return
		}
		time.Sleep(time.Millisecond)
	}
	w.t.Error("an execution has no outcome")
}

// Within 10 ms of the fence an agent gets nothing on either door: calls under
// way are answered with a denial, and so are all later ones.
func TestFenceTakesEffect(t *testing.T) {
	for door, call := range doors {
		t.Run(door, func(t *testing.T) {
			const limit = 10 * time.Millisecond
			var all []time.Duration
			for range 20 {
				w := newWorldWith(t, composiotest.Config{Fault: func(r *http.Request) composiotest.Fault {
					if r.Method == http.MethodPost {
						return composiotest.Fault{Delay: 300 * time.Millisecond}
					}
					return composiotest.Fault{}
				}})
				answered := make(chan *httptest.ResponseRecorder, 1)
				go func() { answered <- call(w, "GMAIL_FETCH_EMAILS", object{}) }()
				for len(w.trail.where(func(e trail.Event) bool { return e.Outcome == trail.OutcomeBegin })) == 0 {
					time.Sleep(100 * time.Microsecond)
				}
				w.fence.engage("inbox")
				start := time.Now()
				rec := <-answered
				all = append(all, time.Since(start))
				if !refused(rec) {
					t.Errorf("the call under way was answered: %d %s", rec.Code, rec.Body)
				}
				if rec := call(w, "GMAIL_FETCH_EMAILS", object{}); !refused(rec) {
					t.Errorf("a later call was answered: %d %s", rec.Code, rec.Body)
				}
				// How it went at Composio is recorded all the same.
				w.settle()
			}
			slices.Sort(all)
			median := all[len(all)/2]
			t.Logf("a call under way was cut off %v after the fence, %v at worst", median, all[len(all)-1])
			if median > limit { // the worst is the machine's
				t.Errorf("it took %v, want %v at most", median, limit)
			}
		})
	}
}

// A catalogue is an upstream with another way to execute; what it says of
// tools is quick.
type catalogue struct {
	gateway.Upstream
	execute func(context.Context, composio.Call) (composio.Result, error)
}

func (c catalogue) Execute(ctx context.Context, call composio.Call) (composio.Result, error) {
	return c.execute(ctx, call)
}

// The inbox wipe: an agent in a loop deletes 200 mails, through one door, the
// other, or all at once. At most as many as the breaker allows are deleted, and
// it trips once.
func TestInboxWipe(t *testing.T) {
	t.Parallel()
	const mails, most = 200, 5
	delete1 := func(w *world, door string, i int) {
		doors[door](w, "GMAIL_DELETE_MESSAGE", object{"id": fmt.Sprint(i)})
	}
	for name, loop := range map[string]func(*world){
		"rest": func(w *world) {
			for i := range mails {
				delete1(w, "rest", i)
			}
		},
		"mcp": func(w *world) {
			for i := range mails {
				delete1(w, "mcp", i)
			}
		},
		"nested": func(w *world) {
			for i := range mails {
				delete1(w, "nested", i)
			}
		},
		"all doors at once": func(w *world) {
			var all sync.WaitGroup
			for i := range mails {
				for door := range doors {
					all.Go(func() { delete1(w, door, i) })
				}
			}
			all.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *gateway.Config) { c.MaxCalls = 1000 })
			loop(w)
			deleted := w.executed()
			// Calls at the same time: those that were let through and had not
			// been sent on when it tripped are stopped too.
			if n := len(deleted); n > most || n < most && name != "all doors at once" {
				t.Errorf("%d mails were deleted, want %d", n, most)
			}
			trip := <-w.trips
			if trip.Agent != "inbox" || trip.Limit.Calls != most || trip.Tool != "GMAIL_DELETE_MESSAGE" {
				t.Errorf("tripped %+v", trip)
			}
			// From now on it is denied everything, harmless or not.
			if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); !refused(rec) || !strings.Contains(rec.Body.String(), "tripped") {
				t.Errorf("after the trip: %d %s", rec.Code, rec.Body)
			}
			if rec := w.rest("GET", "/api/v3.1/tools", nil); rec.Code != http.StatusForbidden {
				t.Errorf("a list after the trip: %d %s", rec.Code, rec.Body)
			}
			if err := w.gateway.Halted(t.Context(), "inbox"); err == nil {
				t.Error("the gateway says that the agent is not halted")
			}
			// Another agent goes on.
			r := w.request("POST", "/api/v3.1/tools/execute/GOOGLECALENDAR_EVENTS_LIST", object{"version": version})
			r.Header.Set("X-Api-Key", w.other.Reveal())
			if rec := w.send(r); refused(rec) {
				t.Errorf("another agent: %d %s", rec.Code, rec.Body)
			}
			if err := w.gateway.Reset(t.Context(), "inbox"); err != nil {
				t.Fatal(err)
			}
			if rec := w.execute("GMAIL_DELETE_MESSAGE", object{"id": "1"}); refused(rec) {
				t.Errorf("after the reset: %d %s", rec.Code, rec.Body)
			}
			if len(w.trips) != 0 {
				t.Errorf("it tripped %d times more", len(w.trips))
			}
			if n := len(w.trail.where(func(e trail.Event) bool { return e.Kind == gateway.KindTrip })); n != 1 {
				t.Errorf("%d trips are recorded, want 1", n)
			}
		})
	}
}

// The breaker counts calls in any span of its length, and a loop that a rate
// holds back still trips it.
func TestBreakerAndRates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *gateway.Config) {
			a := c.Policy.Agents["inbox"]
			a.Rates = map[composio.Class]gateway.Limit{
				composio.ClassRead:        {Calls: 3, Per: time.Second},
				composio.ClassDestructive: {Calls: 2, Per: time.Second},
			}
			c.Policy.Agents["inbox"] = a
		})
		fetchOne := func() bool { return !refused(w.execute("GMAIL_FETCH_EMAILS", object{})) }
		deleteOne := func() *httptest.ResponseRecorder { return w.execute("GMAIL_DELETE_MESSAGE", object{"id": "1"}) }
		for i := range 5 {
			if got, want := fetchOne(), i < 3; got != want {
				t.Errorf("reading for time %d: %v, want %v", i+1, got, want)
			}
		}
		time.Sleep(time.Second)
		if !fetchOne() {
			t.Error("reading a second later is denied")
		}
		// Two deletions in a span of 31 s: never more than 5 in a minute.
		for range 4 {
			for range 2 {
				if rec := deleteOne(); refused(rec) {
					t.Errorf("a deletion: %d %s", rec.Code, rec.Body)
				}
			}
			time.Sleep(31 * time.Second)
		}
		time.Sleep(time.Minute)
		var last *httptest.ResponseRecorder
		codes := []int{}
		for range 6 {
			last = deleteOne()
			codes = append(codes, last.Code)
		}
		if want := []int{200, 200, 429, 429, 429, 403}; !slices.Equal(codes, want) {
			t.Errorf("a burst of deletions is answered with %v, want %v", codes, want)
		}
		if !strings.Contains(last.Body.String(), "tripped") {
			t.Errorf("the last answer is %s", last.Body)
		}
		synctest.Wait()
		if len(w.trips) != 1 {
			t.Errorf("it tripped %d times", len(w.trips))
		}
	})
}

// Deny stops an agent at once, also what is under way, and Reset lets it go on.
func TestDeny(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(c *gateway.Config) {
		u := c.Upstream
		c.Upstream = catalogue{u, func(ctx context.Context, call composio.Call) (composio.Result, error) {
			close(began)
			<-release // deaf to ctx
			return u.Execute(ctx, call)
		}}
	})
	answered := make(chan *httptest.ResponseRecorder, 1)
	go func() { answered <- w.execute("GMAIL_FETCH_EMAILS", object{}) }()
	<-began
	if err := w.gateway.Deny(t.Context(), "inbox", "ann said so"); err != nil {
		t.Error(err)
	}
	if rec := <-answered; !refused(rec) || !strings.Contains(rec.Body.String(), "stopped") {
		t.Errorf("the call under way: %d %s", rec.Code, rec.Body)
	}
	if rec := w.mcpCall("GMAIL_FETCH_EMAILS", object{}); !refused(rec) {
		t.Errorf("a later call: %d %s", rec.Code, rec.Body)
	}
	close(release)
	w.settle()
	if err := w.gateway.Reset(t.Context(), "inbox"); err != nil {
		t.Fatal(err)
	}
	if rec := w.rest("GET", "/api/v3.1/tools", nil); refused(rec) {
		t.Errorf("after the reset: %d %s", rec.Code, rec.Body)
	}
	if err := w.gateway.Reset(t.Context(), "nobody"); err == nil {
		t.Error("an agent that does not exist was reset")
	}
	// What cannot be recorded stops all the same, and does not let go.
	w.trail.failing(func(trail.Event) error { return errors.New("disk full") })
	if err := w.gateway.Deny(t.Context(), "inbox", ""); err == nil {
		t.Error("that it was not recorded is not said")
	}
	if err := w.gateway.Reset(t.Context(), "inbox"); err == nil {
		t.Error("reset without a record")
	}
	w.trail.failing(nil)
	if rec := w.rest("GET", "/api/v3.1/tools", nil); !refused(rec) {
		t.Error("the agent goes on")
	}
}

// Composio fails: the agent is told, the tool is executed at most once, and
// what cannot be known is recorded as such.
func TestUpstreamFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault   composiotest.Fault
		code    int
		outcome trail.Outcome
		times   int
	}{
		"it answers with 500":               {composiotest.Fault{Status: 500}, http.StatusFailedDependency, trail.OutcomeUnknown, 0},
		"it answers with 503":               {composiotest.Fault{Status: 503}, http.StatusFailedDependency, trail.OutcomeUnknown, 0},
		"it takes no more":                  {composiotest.Fault{Status: 429}, http.StatusTooManyRequests, trail.OutcomeError, 0},
		"it does not know the key":          {composiotest.Fault{Status: 401}, http.StatusFailedDependency, trail.OutcomeError, 0},
		"it refuses":                        {composiotest.Fault{Status: 400}, http.StatusBadRequest, trail.OutcomeError, 0},
		"it does it and the answer is lost": {composiotest.Fault{Lose: true}, http.StatusFailedDependency, trail.OutcomeUnknown, 1},
		"the answer breaks off":             {composiotest.Fault{Truncate: true}, http.StatusFailedDependency, trail.OutcomeUnknown, 1},
		"the answer is not one":             {composiotest.Fault{Garbage: true}, http.StatusFailedDependency, trail.OutcomeUnknown, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldWith(t, composiotest.Config{Fault: func(r *http.Request) composiotest.Fault {
				if r.Method == http.MethodPost {
					return c.fault
				}
				return composiotest.Fault{}
			}})
			rec := w.execute("GMAIL_FETCH_EMAILS", object{})
			if rec.Code != c.code {
				t.Errorf("%d %s, want %d", rec.Code, rec.Body, c.code)
			}
			if !refused(w.mcpCall("GMAIL_FETCH_EMAILS", object{})) {
				t.Error("MCP says that all is well")
			}
			if n := len(w.executed()); n != 2*c.times {
				t.Errorf("executed %d times, want %d", n, 2*c.times)
			}
			var posts int
			for _, r := range w.composio.Requests() {
				if r.Method == http.MethodPost {
					posts++
				}
			}
			if posts != 2 {
				t.Errorf("%d requests for two calls", posts)
			}
			ends := w.trail.where(func(e trail.Event) bool { return e.Outcome == c.outcome })
			if len(ends) != 2 {
				t.Errorf("recorded %+v", w.trail.all())
			}
		})
	}
}

// An upstream that never answers is given up, and one that crashes is an error.
func TestUpstreamHangsOrCrashes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := newWorld(t, func(c *gateway.Config) {
			u := c.Upstream
			c.Fence = gateway.NoFence
			c.Upstream = catalogue{u, func(_ context.Context, call composio.Call) (composio.Result, error) {
				if bytes.Contains(call.Arguments.Bytes(), []byte("crash")) {
					panic("broken")
				}
				<-release
				return composio.Result{}, errors.New("too late")
			}}
		})
		start := time.Now()
		if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); rec.Code != http.StatusFailedDependency {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		if took := time.Since(start); took < gateway.DefaultCallTimeout || took > gateway.DefaultCallTimeout+time.Second {
			t.Errorf("it took %v", took)
		}
		if rec := w.execute("GMAIL_FETCH_EMAILS", object{"query": "crash"}); rec.Code != http.StatusFailedDependency {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		close(release)
		synctest.Wait()
	})
}

// An agent that goes away does not leave an execution without an outcome.
func TestAgentGoesAway(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, composiotest.Config{Latency: 20 * time.Millisecond})
	r := w.request("POST", fetchPath, fetch(nil))
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	w.send(r.WithContext(ctx))
	w.settle()
	if n := len(w.executed()); n != 1 {
		t.Errorf("executed %d times", n)
	}
}

// Close lets what is under way come to its end, and nothing new begin.
func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, composiotest.Config{Latency: time.Second})
		go w.execute("GMAIL_FETCH_EMAILS", object{})
		time.Sleep(500 * time.Millisecond)
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := w.gateway.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close says %v", err)
		}
		if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); rec.Code != http.StatusServiceUnavailable {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		if err := w.gateway.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(w.trail.where(func(e trail.Event) bool { return e.Outcome == trail.OutcomeOK && e.Kind == trail.KindToolCall })); n != 1 {
			t.Errorf("%d outcomes recorded, want 1", n)
		}
	})
}

// More calls at a time than an agent may have are denied.
func TestBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, composiotest.Config{Latency: time.Second}, func(c *gateway.Config) { c.MaxCalls = 2 })
		codes := make(chan int, 5)
		for range 5 {
			go func() { codes <- w.execute("GMAIL_FETCH_EMAILS", object{}).Code }()
		}
		var got []int
		for range 5 {
			got = append(got, <-codes)
		}
		slices.Sort(got)
		if want := []int{200, 200, 429, 429, 429}; !slices.Equal(got, want) {
			t.Errorf("answered with %v, want %v", got, want)
		}
	})
}

// Whoever has no token cannot fill the trail.
func TestStrangersAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		knock := func() {
			r := w.request("GET", "/api/v3.1/tools", nil)
			r.Header.Del("X-Api-Key")
			w.send(r)
		}
		for range 5000 {
			knock()
		}
		if n := len(w.trail.denials()); n != 600 {
			t.Errorf("%d denials recorded, want 600", n)
		}
		time.Sleep(time.Minute)
		knock()
		all := w.trail.denials()
		if last := all[len(all)-1]; last.Attrs["not_recorded_before"] != "4400" {
			t.Errorf("the next record is %+v", last)
		}
	})
}

// An answer has what the API's answers have.
func TestErrorsAreLikeTheAPIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.execute("GMAIL_SEND_EMAIL", object{})
	var body struct {
		Error struct {
			Message, Slug string
			Code, Status  int
			RequestID     string `json:"request_id"`
		}
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	e := body.Error
	if rec.Code != 403 || e.Status != 403 || e.Slug != "Gateway_tool" || e.RequestID == "" || !strings.Contains(e.Message, "GMAIL_SEND_EMAIL") || rec.Header().Get("X-Should-Retry") != "false" {
		t.Errorf("%d %+v %v", rec.Code, e, rec.Header())
	}
	if d := w.trail.denials(); len(d) != 1 || d[0].RequestID != e.RequestID {
		t.Errorf("recorded %+v", d)
	}
}

// A body that does not arrive does not hold the agent's place for ever.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *gateway.Config) { c.BodyTimeout = 50 * time.Millisecond }).listen()
	pr, pw := io.Pipe()
	defer pw.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+fetchPath, pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Api-Key", w.token.Reveal())
	go func() { _, _ = pw.Write([]byte(`{"version":`)) }()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || len(w.trail.denials()) != 1 {
		t.Errorf("%s, %d denials recorded", resp.Status, len(w.trail.denials()))
	}
}

// The span of a breaker is as long as it says.
func TestBreakerSpan(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]bool{59 * time.Second: false, 61 * time.Second: true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			start := time.Now()
			for range 5 {
				w.execute("GMAIL_DELETE_MESSAGE", object{"id": "1"})
				time.Sleep(10 * time.Second)
			}
			time.Sleep(time.Until(start.Add(wait)))
			if got := !refused(w.execute("GMAIL_DELETE_MESSAGE", object{"id": "1"})); got != want {
				t.Errorf("the sixth deletion, %v after the first: %v, want %v", wait, got, want)
			}
			synctest.Wait()
		})
	}
}
