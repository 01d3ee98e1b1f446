package ledger

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
)

// A Copy says what [Ingest] did.
type Copy struct {
	Calls    int // that were read
	Recorded int // of them, events that were recorded
	Known    int // of them, those that were in the trail already
}

// Ingest records calls in to, unless records has them already: each once when it
// has ended, and before that once as begun. Calls of a session that goes on are
// so recorded while nobody has had the time to remove them.
//
// records are those of the trail, of kind [reconcile.KindOpenClaw] and of the
// time of the calls: those of [trail.Reader.Records]. To gather them all before
// anything is recorded, and for one process at a time, is what keeps a call from
// being recorded twice. r takes out secrets where an agent has put one into the
// name of a tool; nil means the zero one.
//
// It goes on to the end of what calls yields, and returns the error that it ends
// with. If an event cannot be recorded, it stops.
func Ingest(ctx context.Context, to trail.Recorder, r *trail.Redactor, records iter.Seq2[trail.Record, error], calls iter.Seq2[ToolCall, error]) (Copy, error) {
	var done Copy
	ended := make(map[string]bool)
	for rec, err := range records {
		if err != nil {
			return done, fmt.Errorf("ledger: which calls are in the trail cannot be read: %w", err)
		}
		if rec.Event.Kind == reconcile.KindOpenClaw {
			ended[rec.Event.ID] = ended[rec.Event.ID] || rec.Event.Outcome != trail.OutcomeBegin
		}
	}
	for c, err := range calls {
		if err != nil {
			return done, err
		}
		done.Calls++
		e := c.Event(r)
		over, known := ended[e.ID]
		if over || known && e.Outcome == trail.OutcomeBegin {
			done.Known++
			continue
		}
		if e.Time.IsZero() || e.Time.Year() < 1970 || e.Time.Year() > 9999 {
			e.Time = time.Unix(0, 0).UTC() // a Log would take now for it
		}
		if err := to.Record(ctx, e); err != nil {
			return done, fmt.Errorf("ledger: record call %s: %w", c.ID, err)
		}
		ended[e.ID] = e.Outcome != trail.OutcomeBegin
		done.Recorded++
	}
	return done, nil
}
