package reconcile_test

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
)

// A mail was sent through the gateway, and another one past it.
func Example() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	call := trail.Event{Kind: trail.KindToolCall, ID: "gw_1.0", Time: noon, Agent: "inbox", Tool: "GMAIL_SEND_EMAIL", Decision: trail.DecisionAllow, Outcome: trail.OutcomeBegin}
	sent := call
	sent.Time, sent.Outcome, sent.LogID = noon.Add(time.Second), trail.OutcomeOK, "log_1"
	records := []trail.Record{{Seq: 0, Event: call}, {Seq: 1, Event: sent}}
	executions := []reconcile.Execution{
		{ID: "log_1", Time: noon, Tool: "GMAIL_SEND_EMAIL", Status: reconcile.StatusOK},
		{ID: "log_2", Time: noon.Add(time.Minute), Tool: "GMAIL_SEND_EMAIL", Status: reconcile.StatusOK},
	}

	r := reconcile.Reconciler{Since: noon.Add(-time.Hour), Until: noon.Add(time.Hour)}
	// Here they are at hand. Otherwise, with since and until from r.Range:
	//
	//	Records:    reader.Records(ctx, trail.Query{Since: since, Until: until})
	//	Executions: reconcile.Composio(client.Executions(ctx, composio.LogFilter{From: since, To: until}))
	report, err := r.Run(context.Background(), reconcile.Sources{Records: each(records), Executions: each(executions)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("complete:", report.Complete)
	for _, f := range report.Findings {
		fmt.Println(f)
	}
	// Output:
	// complete: true
	// composio: unrecorded tool "GMAIL_SEND_EMAIL" log id "log_2" at 2026-03-01T12:01:00Z
}

func each[T any](all []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
	}
}
