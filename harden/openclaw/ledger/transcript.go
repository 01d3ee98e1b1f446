package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/managemyclaw/hardshell/audit/reconcile"
)

// maxInflated bounds an archived transcript.
const maxInflated = 1 << 30

// maxGaps is how many rows that cannot be read are named.
const maxGaps = 20

// ErrArchived reports transcripts that OpenClaw has moved into files of their
// own, which this package does not read.
var ErrArchived = errors.New("ledger: transcripts are archived in files")

// transcripts makes sure that d has the tables of transcripts.
func (d *database) transcripts(ctx context.Context) error {
	ok, err := d.table(ctx, transcriptTable, "session_id", "seq", "event_json", "created_at")
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %s: there is no table %s", ErrSchema, d.name, transcriptTable)
	}
	columns, err := d.columns(ctx, transcriptTable)
	if err != nil {
		return err
	}
	d.zstd = slices.Contains(columns, "event_zstd")
	if d.removed, err = d.table(ctx, removedTable, "session_id", "encoding", "archive_blob"); err != nil {
		return err
	}
	if d.cold, err = d.table(ctx, coldTable, "session_id", "storage", "archive_blob"); err != nil {
		return err
	}
	return d.confine(transcriptTable, removedTable, coldTable)
}

const (
	transcriptTable = "transcript_events"
	removedTable    = "session_transcript_archives"      // of sessions that were deleted or reset
	coldTable       = "session_transcript_cold_archives" // of those that are old
)

// A reading is one pass over all transcripts.
type reading struct {
	*Ledger
	since, until time.Time
	activity     map[place][]*activity
	seen         map[string]bool // ids
	gaps         []error
	more         int // gaps that are not named
	yield        func(ToolCall, error) bool
	stopped      bool
}

// ToolCalls yields the calls that began at since or later and before until; a
// zero time is no bound. The calls of a session come in order. If anything
// could not be read, an error comes last, which names up to 20 rows or files:
// what was yielded before is true, and not all there is.
func (l *Ledger) ToolCalls(ctx context.Context, since, until time.Time) iter.Seq2[ToolCall, error] {
	return func(yield func(ToolCall, error) bool) {
		r := &reading{Ledger: l, since: since, until: until, seen: make(map[string]bool), gaps: slices.Clone(l.gaps), yield: yield}
		var err error
		if r.activity, err = l.activities(ctx); err != nil {
			yield(ToolCall{}, err)
			return
		}
		for _, a := range l.agents {
			for _, read := range []func(context.Context, agent) error{r.removed, r.cold, r.live} {
				if err := read(ctx, a); err != nil {
					r.gap(err)
				}
				if r.stopped {
					return
				}
			}
		}
		r.rest()
		if r.stopped || len(r.gaps) == 0 {
			return
		}
		if r.more > 0 {
			r.gaps = append(r.gaps, fmt.Errorf("and %d more", r.more))
		}
		yield(ToolCall{}, errors.Join(r.gaps...))
	}
}

func (r *reading) gap(err error) {
	if len(r.gaps) >= maxGaps {
		r.more++
		return
	}
	r.gaps = append(r.gaps, err)
}

// A session is one transcript as it is read.
type session struct {
	*reading
	agent, id string
	calls     []ToolCall
	waiting   map[string][]int // by the id that the model gave: those without a result
	count     map[place]int
}

func (r *reading) session(agent, id string) *session {
	return &session{reading: r, agent: agent, id: id, waiting: make(map[string][]int), count: make(map[place]int)}
}

// take takes an event, which was written at the time given.
func (s *session) take(data []byte, written time.Time) error {
	e, err := parseEvent(data)
	if err != nil {
		return err
	}
	if e.time.IsZero() {
		e.time = written
	}
	for _, a := range e.calls {
		if err := s.call(&e, a); err != nil {
			return err
		}
	}
	if e.result == nil {
		return nil
	}
	waiting := s.waiting[e.result.callID]
	if len(waiting) == 0 {
		// OpenClaw does not keep every call that it keeps the result of, such
		// as that of a tool that it does not have.
		if err := s.call(&e, asked{ID: e.result.callID, Name: e.result.tool}); err != nil {
			return err
		}
		waiting = s.waiting[e.result.callID]
	}
	c := &s.calls[waiting[0]]
	if s.waiting[e.result.callID] = waiting[1:]; len(waiting) == 1 {
		delete(s.waiting, e.result.callID)
	}
	if !c.InActivity || c.Status == "" || e.result.status == StatusBlocked {
		c.Status = e.result.status
	}
	if c.Ended.IsZero() {
		c.Ended = e.time
	}
	return nil
}

func (s *session) call(e *event, a asked) error {
	at := placeOf(s.id, e.run, callHash(a.ID))
	n := s.count[at]
	s.count[at]++
	c := ToolCall{
		ID: identity(s.agent, at, n), Time: e.time, Agent: shorten(s.agent), SessionID: shorten(s.id), RunID: shorten(e.run), CallID: shorten(a.ID),
		Tool: shorten(a.Name), InTranscript: true, Masked: masked(a.Arguments),
	}
	var err error
	if c.Arguments, err = s.redactor.Arguments(a.Arguments); err != nil {
		return errors.New("the arguments of a call in it are not JSON")
	}
	if len(c.Arguments.View) > maxView {
		c.Arguments.View = nil
	}
	c.nested = s.nested(a)
	if list := s.activity[at]; n < len(list) {
		act := list[n]
		c.InActivity, c.Time, c.Ended, c.Status = true, act.begun, act.ended, act.status
	}
	s.waiting[a.ID] = append(s.waiting[a.ID], len(s.calls))
	s.calls = append(s.calls, c)
	return nil
}

// placeOf returns where a call was made. A run has an id of its own, so that a
// call that was copied into the transcript of another session is the same.
func placeOf(session, run, hash string) place {
	if run != "" {
		session = ""
	}
	return place{session, run, hash}
}

// nested returns the calls that COMPOSIO_MULTI_EXECUTE_TOOL contains.
func (s *session) nested(a asked) []reconcile.Nested {
	const most = 50 // as many as Composio takes
	if !strings.HasSuffix(a.Name, "COMPOSIO_MULTI_EXECUTE_TOOL") {
		return nil
	}
	var in struct {
		Tools []struct {
			Slug      string          `json:"tool_slug"`
			Arguments json.RawMessage `json:"arguments"`
		} `json:"tools"`
	}
	if json.Unmarshal(a.Arguments, &in) != nil {
		return nil
	}
	var all []reconcile.Nested
	for _, t := range in.Tools[:min(len(in.Tools), most)] {
		n := reconcile.Nested{Tool: shorten(t.Slug)}
		if args, err := s.redactor.Arguments(t.Arguments); err == nil && !masked(t.Arguments) {
			n.Digest = args.Digest
		}
		all = append(all, n)
	}
	return all
}

// flush yields what is of the time asked for and was not yielded before.
func (s *session) flush() {
	for _, c := range s.calls {
		s.emit(c)
	}
	s.calls = nil
}

func (r *reading) emit(c ToolCall) {
	if r.stopped || r.seen[c.ID] || c.Time.Before(r.since) || !r.until.IsZero() && !c.Time.Before(r.until) {
		return
	}
	r.seen[c.ID] = true
	r.stopped = !r.yield(c, nil)
}

// live reads the transcripts of an agent that are there as they were written.
func (r *reading) live(ctx context.Context, a agent) error {
	compressed := "NULL"
	if a.db.zstd {
		compressed = "CASE WHEN length(event_zstd) <= ?2 THEN event_zstd END"
	}
	since := int64(0)
	if !r.since.IsZero() {
		since = r.since.UnixMilli()
	}
	rows, err := a.db.conn.QueryContext(ctx, `SELECT session_id, seq, created_at, coalesce(length(event_json), 0),
		CASE WHEN length(event_json) <= ?2 THEN event_json END, `+compressed+` FROM transcript_events
		WHERE session_id IN (SELECT session_id FROM transcript_events WHERE created_at >= ?1) ORDER BY session_id, seq`, since, maxEvent)
	if err != nil {
		return a.db.wrap(err)
	}
	defer closeRead(rows)
	s := r.session(a.id, "")
	var id string
	var seq int64
	for rows.Next() {
		var created, length int64
		var text, packed []byte
		if err := rows.Scan(&id, &seq, &created, &length, &text, &packed); err != nil {
			return fmt.Errorf("%w, at event %d of session %q", a.db.wrap(err), seq, id)
		}
		if id != s.id {
			s.flush()
			s = r.session(a.id, id)
		}
		if r.stopped {
			return nil
		}
		var err error
		switch {
		case text == nil && packed == nil:
			err = fmt.Errorf("it is too large, or there is nothing in it (%d characters)", length)
		case text == nil:
			text, err = inflate(packed)
		}
		if err == nil {
			err = s.take(text, time.UnixMilli(created).UTC())
		}
		if err != nil {
			r.gap(fmt.Errorf("%w: %s: event %d of session %q: %w", ErrFormat, a.db.name, seq, shorten(id), err))
		}
	}
	s.flush()
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%w, after event %d of session %q", a.db.wrap(err), seq, shorten(id))
	}
	return nil
}

// removed reads the transcripts of sessions that were deleted or reset.
func (r *reading) removed(ctx context.Context, a agent) error {
	if !a.db.removed {
		return nil
	}
	return r.archives(ctx, a, "SELECT session_id, encoding, archive_blob FROM session_transcript_archives ORDER BY session_id")
}

// cold reads the transcripts that were archived because they are old.
func (r *reading) cold(ctx context.Context, a agent) error {
	if !a.db.cold {
		return nil
	}
	return r.archives(ctx, a, "SELECT session_id, CASE WHEN storage = 'sqlite' THEN 'zstd' ELSE storage END, archive_blob FROM session_transcript_cold_archives ORDER BY session_id")
}

func (r *reading) archives(ctx context.Context, a agent, query string) error {
	rows, err := a.db.conn.QueryContext(ctx, query)
	if err != nil {
		return a.db.wrap(err)
	}
	defer closeRead(rows)
	elsewhere := 0
	for rows.Next() && !r.stopped {
		var id, encoding string
		var blob []byte
		if err := rows.Scan(&id, &encoding, &blob); err != nil {
			return a.db.wrap(err)
		}
		s := r.session(a.id, id)
		switch encoding {
		case "identity":
			err = s.lines(ctx, bytes.NewReader(blob))
		case "zstd":
			err = s.packedLines(ctx, blob)
		case "file":
			elsewhere++
			err = nil
		default:
			err = fmt.Errorf("encoding %q is not known", shorten(encoding))
		}
		s.flush()
		if err != nil {
			r.gap(fmt.Errorf("%w: %s: archive of session %q: %w", ErrFormat, a.db.name, shorten(id), err))
		}
	}
	if elsewhere > 0 {
		r.gap(fmt.Errorf("%w: %s: %d sessions", ErrArchived, a.db.name, elsewhere))
	}
	if err := rows.Err(); err != nil {
		return a.db.wrap(err)
	}
	return nil
}

func (s *session) packedLines(ctx context.Context, blob []byte) error {
	d, err := zstd.NewReader(bytes.NewReader(blob), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxEvent))
	if err != nil {
		return err
	}
	defer d.Close()
	limited := &io.LimitedReader{R: d, N: maxInflated}
	err = s.lines(ctx, limited)
	if err == nil && limited.N == 0 {
		return fmt.Errorf("it has more than %d bytes", maxInflated)
	}
	return err
}

// lines takes an archive, which has an event a line: as it is, or in a record
// that says so.
func (s *session) lines(ctx context.Context, r io.Reader) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), 2*maxEvent)
	for n := 1; in.Scan(); n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		line := bytes.TrimSpace(in.Bytes())
		if len(line) == 0 {
			continue
		}
		var record struct {
			Kind string `json:"kind"`
			Row  struct {
				Event   string `json:"event_json"`
				Created int64  `json:"created_at"`
			} `json:"row"`
		}
		written := time.Time{}
		if json.Unmarshal(line, &record) == nil && record.Kind != "" {
			if record.Kind != "event" {
				continue
			}
			line, written = []byte(record.Row.Event), time.UnixMilli(record.Row.Created).UTC()
		}
		if err := s.take(line, written); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("it cannot be decompressed: %w", err)
	}
	return nil
}

// rest yields what the activity log has and no transcript.
func (r *reading) rest() {
	type left struct {
		at place
		n  int
		*activity
	}
	var all []left
	for at, list := range r.activity {
		for n, act := range list {
			if !r.seen[identity(act.agent, at, n)] {
				all = append(all, left{at, n, act})
			}
		}
	}
	slices.SortFunc(all, func(a, b left) int {
		if c := a.begun.Compare(b.begun); c != 0 {
			return c
		}
		return strings.Compare(identity(a.agent, a.at, a.n), identity(b.agent, b.at, b.n))
	})
	for _, a := range all {
		r.emit(ToolCall{
			ID: identity(a.agent, a.at, a.n), Time: a.begun, Ended: a.ended, Agent: shorten(a.agent), SessionID: shorten(a.session), RunID: shorten(a.at.run),
			Tool: shorten(a.tool), Status: a.status, InActivity: true,
		})
	}
}

// Reconcile yields what ToolCalls yields, as package reconcile compares it.
func (l *Ledger) Reconcile(ctx context.Context, since, until time.Time) iter.Seq2[reconcile.ToolCall, error] {
	return func(yield func(reconcile.ToolCall, error) bool) {
		for c, err := range l.ToolCalls(ctx, since, until) {
			if err != nil {
				yield(reconcile.ToolCall{}, err)
				return
			}
			if !yield(c.Reconcile(), nil) {
				return
			}
		}
	}
}
