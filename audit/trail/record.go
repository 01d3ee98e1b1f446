package trail

import (
	"context"
	"encoding/json"
	"fmt"
)

// A Record is an event with its place in a log. It is written as the JSON of
// the event, after a first member "seq".
type Record struct {
	Seq   int64 // the number of the record: the first is 0
	Event Event
}

type numbered struct {
	Seq *int64 `json:"seq"`
	wire
}

// MarshalJSON writes r as a [Log] does.
func (r Record) MarshalJSON() ([]byte, error) {
	return json.Marshal(numbered{&r.Seq, wire{EventVersion, plain(r.Event)}})
}

// UnmarshalJSON reads what [Record.MarshalJSON] writes.
func (r *Record) UnmarshalJSON(data []byte) error {
	var n numbered
	if err := json.Unmarshal(data, &n); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidEvent, err)
	}
	if n.Version != EventVersion {
		return fmt.Errorf("%w: version %d: this program reads version %d", ErrInvalidEvent, n.Version, EventVersion)
	}
	if n.Seq == nil || *n.Seq < 0 {
		return fmt.Errorf("%w: a record without its number", ErrInvalidEvent)
	}
	*r = Record{*n.Seq, Event(n.plain)}
	return nil
}

// noContext is for work that is bounded by the size of one segment.
var noContext = context.Background() //nolint:forbidigo // see above
