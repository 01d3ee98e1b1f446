package access

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// DefaultWindow is what the zero value of [Config.Window] means.
const DefaultWindow = 24 * time.Hour

// Executions is what is asked of Composio's log of executed tools. A
// [composio.Client] is one.
type Executions interface {
	Executions(ctx context.Context, f composio.LogFilter) iter.Seq2[composio.Execution, error]
}

// A Completeness is what came of comparing a trail with Composio's log.
type Completeness struct {
	Trail        Trail
	Since, Until time.Time
	Report       *reconcile.Report
	Err          error // why there is none
}

// Subject names the trail in reports.
func (x *Completeness) Subject() string { return (&TrailReview{Trail: x.Trail}).Subject() }

// NewCompletenessSource returns the trails of c in which a gateway records,
// beside what Composio has executed.
func NewCompletenessSource(c Config) *harden.Source[Completeness] {
	return &harden.Source[Completeness]{
		Name:    "trails of a gateway",
		Subject: func(x Completeness) string { return x.Subject() },
		List: func(ctx context.Context, v *host.View) ([]Completeness, error) {
			if len(c.Trails) == 0 {
				return nil, errNoTrail
			}
			var all []Completeness
			for _, t := range c.Trails {
				if t.Gateway {
					x := Completeness{Trail: t}
					x.compare(ctx, &c, v)
					all = append(all, x)
				}
			}
			return all, ctx.Err()
		},
	}
}

// compare compares what the trail has with what Composio has.
func (x *Completeness) compare(ctx context.Context, c *Config, v *host.View) {
	if c.Executions == nil {
		x.Err = errNoComposio
		return
	}
	window := c.Window
	if window <= 0 {
		window = DefaultWindow
	}
	x.Until = time.Now() // before anything is read
	x.Since = x.Until.Add(-window)
	reader, begun, err := x.Trail.reader(ctx, v)
	if err != nil {
		x.Err = err
		return
	}
	if begun.After(x.Since) { // of the time before it has nothing to say
		x.Since = begun
	}
	if !x.Since.Before(x.Until) {
		x.Err = fmt.Errorf("the first record says that it is of %s, which is yet to come: set the clock, and find out who changed it", stamp(x.Since))
		return
	}
	r := reconcile.Reconciler{Since: x.Since, Until: x.Until, AsOf: x.Until}
	since, until := r.Range()
	x.Report, x.Err = r.Run(ctx, reconcile.Sources{
		Records:    reader.Records(ctx, trail.Query{Since: since, Until: until}),
		Executions: reconcile.Composio(c.Executions.Executions(ctx, composio.LogFilter{From: since, To: until})),
	})
}

// reader opens the log for reading, and returns the time of its first record,
// which is zero if there is none.
func (t *Trail) reader(ctx context.Context, v *host.View) (r *trail.Reader, begun time.Time, err error) {
	log, err := t.logOf(v)
	if err != nil {
		return nil, begun, err
	}
	key, err := t.keyOf(v)
	if err != nil {
		return nil, begun, err
	}
	if r, err = trail.OpenReader(ctx, log, key); err != nil {
		return nil, begun, err
	}
	for rec, err := range r.Records(ctx, trail.Query{}) {
		return r, rec.Event.Time, err
	}
	return r, begun, nil
}

// judgeComplete judges whether every action has its record, and every record
// its action.
func judgeComplete(_ context.Context, x Completeness) (harden.Verdict, error) {
	const id = "access.trail_complete"
	if x.Report == nil || x.Err != nil {
		return harden.Verdict{}, cause(x.Err)
	}
	r := x.Report
	var v violations
	for i, f := range r.Findings {
		const most = 20
		if i == most {
			v = append(v, harden.Finding{ID: id, Message: fmt.Sprintf("and %d more", total(r.Counts)-most)})
			break
		}
		finding := harden.Finding{
			ID: id + "." + string(f.Kind), Message: printableText(f.String()), Remedy: completeRemedy(f.Kind),
			Evidence: []harden.Evidence{at(harden.LevelInspected, x.Trail.Dir, strings.TrimSpace(fmt.Sprintf("%s %s", f.Kind, printableText(f.LogID))), "a record of every execution")},
		}
		if f.Kind == reconcile.Unrecorded {
			finding.Severity = harden.SeverityCritical
		}
		v = append(v, finding)
	}
	var errs []error
	if !r.Complete {
		errs = append(errs, errors.New("what there is to compare could not be read in full"))
	}
	errs = append(errs, r.Gaps...)
	recent, open := 0, 0
	for _, f := range r.Open {
		switch f.Kind {
		case reconcile.NotFound, reconcile.Unfinished:
			recent++ // under way, or about to appear in Composio's log
			if f.Time.Before(x.Until.Add(-reconcile.DefaultSettle)) {
				open++
			}
		default:
			open++
		}
	}
	if open += r.Undecided - len(r.Open); open > 0 {
		errs = append(errs, fmt.Errorf("of %d actions it cannot be told yet whether they are recorded: audit again in a few minutes", open))
	}
	observed := fmt.Sprintf("from %s on, %d executions at Composio and %d calls on record, %d of which agree", stamp(x.Since), r.Executions, r.Calls, r.Joined)
	if recent > 0 {
		observed += fmt.Sprintf("; %d are too recent to be told", recent)
	}
	return v.verdict(errors.Join(errs...), at(harden.LevelInspected, x.Trail.Dir, observed, "a record of every execution"))
}

func total(counts map[reconcile.Kind]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

func completeRemedy(k reconcile.Kind) string {
	switch k {
	case reconcile.Unrecorded:
		return "somebody has a key of Composio's and goes round the gateway: find out who, and exchange the key"
	case reconcile.NotFound:
		return "ask at Composio what became of it: its log lacks what the gateway had done"
	case reconcile.Unfinished:
		return "see at Composio whether it was executed: the gateway ended before it could record that"
	}
	return "look both records up, and find out which of them is wrong"
}
