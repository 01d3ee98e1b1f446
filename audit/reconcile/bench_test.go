package reconcile_test

import (
	"fmt"
	"iter"
	"runtime"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
)

// A million records of half a million calls in a week, and Composio's rows, the
// last first, as it gives them.
func BenchmarkMillion(b *testing.B) {
	const calls = 500_000
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Second) }
	var records iter.Seq2[trail.Record, error] = func(yield func(trail.Record, error) bool) {
		for i := range calls {
			e := trail.Event{
				Kind: trail.KindToolCall, ID: fmt.Sprintf("gw_%032d.0", i), Time: at(i), Agent: "inbox", Tool: "GMAIL_FETCH_EMAILS", AccountID: "ca_mail",
				Decision: trail.DecisionAllow, Outcome: trail.OutcomeBegin,
			}
			if !yield(trail.Record{Seq: int64(2 * i), Event: e}, nil) {
				return
			}
			e.Outcome, e.LogID = trail.OutcomeOK, fmt.Sprintf("log_%012d", i)
			if !yield(trail.Record{Seq: int64(2*i + 1), Event: e}, nil) {
				return
			}
		}
	}
	var rows iter.Seq2[reconcile.Execution, error] = func(yield func(reconcile.Execution, error) bool) {
		for i := calls - 1; i >= 0; i-- {
			if i%100_000 != 0 && !yield(reconcile.Execution{ID: fmt.Sprintf("log_%012d", i), Time: at(i), Tool: "GMAIL_FETCH_EMAILS", AccountID: "ca_mail", Status: reconcile.StatusOK}, nil) {
				return
			}
		}
	}
	var before, after runtime.MemStats
	r := reconcile.Reconciler{Since: start, Until: at(calls), AsOf: at(2 * calls)}
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		measured := func(yield func(reconcile.Execution, error) bool) {
			for e, err := range rows {
				if !yield(e, err) {
					return
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
		}
		rep, err := r.Run(b.Context(), reconcile.Sources{Records: records, Executions: measured})
		if err != nil || rep.Calls != calls || rep.Counts[reconcile.NotFound] != 5 || len(rep.Findings) != 5 {
			b.Fatalf("%+v, %v", rep, err)
		}
	}
	b.ReportMetric(2*calls*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/calls, "B-kept/call")
}
