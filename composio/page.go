package composio

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a listing. No project has as many pages; a server that never ends
// must not keep a caller for ever.
const (
	maxPages  = 20_000
	idlePages = 3 // pages in a row without anything new
)

// A page is one answer of a listing. The API counts in numbers that are not
// said to be whole, and leaves fields out.
type page[W any] struct {
	Items      []W      `json:"items"`
	NextCursor *string  `json:"next_cursor"`
	TotalItems *float64 `json:"total_items"`
	TotalPages *float64 `json:"total_pages"`
}

// How a listing says that there is more.
type paging int

const (
	counted    paging = iota // a cursor, and the number of all items
	uncursored               // page numbers, and the number of pages
	uncounted                // a cursor alone: what is lost cannot be seen
)

// A listing walks the pages of something. W is a row on the wire, T what it
// becomes.
type listing[W, T any] struct {
	what   string // "connected accounts"
	paging paging
	fetch  func(ctx context.Context, cursor string) (page[W], error)
	row    func(W) T
	id     func(T) string
	check  func(T) error // nil, or whether the filter lets the row through
}

// all yields each row once, and an error at the end unless the rows were all
// there are. What is yielded before an error is true.
func (l listing[W, T]) all(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		w := walk[W, T]{listing: l, seen: make(map[string]bool), total: -1, yield: yield}
		if err := w.run(ctx); err != nil && !w.stopped {
			yield(none, err)
		}
	}
}

type walk[W, T any] struct {
	listing[W, T]
	seen    map[string]bool
	total   int // as the last page said; -1 if none did
	pages   int
	stopped bool // the consumer wants no more
	yield   func(T, error) bool
}

func (w *walk[W, T]) incomplete(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrIncompleteListing, w.what, fmt.Sprintf(format, args...))
}

// page fetches a page and yields what is new on it.
func (w *walk[W, T]) page(ctx context.Context, cursor string) (p page[W], fresh int, err error) {
	if w.pages++; w.pages > maxPages {
		return p, 0, w.incomplete("it does not end after %d pages", maxPages)
	}
	if p, err = w.fetch(ctx, cursor); err != nil {
		return p, 0, err
	}
	if p.Items == nil {
		return p, 0, fmt.Errorf("%w: %w", w.incomplete("there are no rows, not even none"), ErrAnswer)
	}
	if p.TotalItems != nil && *p.TotalItems >= 0 && *p.TotalItems < 1<<31 {
		w.total = int(*p.TotalItems)
	}
	for _, raw := range p.Items {
		t := w.row(raw)
		id := w.id(t)
		if id == "" {
			return p, fresh, w.incomplete("a row has no id")
		}
		if w.seen[id] {
			continue
		}
		if w.check != nil {
			if err := w.check(t); err != nil {
				return p, fresh, err
			}
		}
		w.seen[id] = true
		fresh++
		if !w.yield(t, nil) {
			w.stopped = true
			return p, fresh, nil
		}
	}
	return p, fresh, nil
}

func (w *walk[W, T]) run(ctx context.Context) error {
	if w.paging == uncursored {
		return w.numbered(ctx)
	}
	cursors := map[string]bool{"": true}
	cursor, idle := "", 0
	for {
		p, fresh, err := w.page(ctx, cursor)
		if err != nil || w.stopped {
			return err
		}
		if p.NextCursor == nil || *p.NextCursor == "" {
			break
		}
		if cursor = *p.NextCursor; cursors[cursor] {
			return w.incomplete("the cursor goes in a circle after %d rows", len(w.seen))
		}
		cursors[cursor] = true
		if idle++; fresh > 0 {
			idle = 0
		}
		if idle >= idlePages {
			return w.incomplete("%d pages in a row have nothing new after %d rows", idle, len(w.seen))
		}
	}
	if w.paging == uncounted {
		return nil
	}
	if w.total < 0 {
		return w.incomplete("the answer does not say how many there are")
	}
	// A page size above the server's has been seen to give one page, no
	// cursor, and a total that says otherwise. Page numbers work there.
	for n, idle := 1, 0; len(w.seen) < w.total && idle < idlePages; n++ {
		_, fresh, err := w.page(ctx, strconv.Itoa(n))
		if err != nil || w.stopped {
			return err
		}
		if idle++; fresh > 0 {
			idle = 0
		}
	}
	if len(w.seen) < w.total {
		return w.incomplete("%d rows of %d", len(w.seen), w.total)
	}
	return nil
}

// numbered walks pages that have numbers and no cursor.
func (w *walk[W, T]) numbered(ctx context.Context) error {
	for n := 1; ; n++ {
		p, fresh, err := w.page(ctx, strconv.Itoa(n))
		if err != nil || w.stopped {
			return err
		}
		if p.TotalPages == nil {
			return w.incomplete("the answer does not say how many pages there are")
		}
		if float64(n) >= *p.TotalPages {
			return nil
		}
		if fresh == 0 {
			return w.incomplete("page %d of %v has nothing new", n, *p.TotalPages)
		}
	}
}

// fail is a listing that could not even be begun.
func fail[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}

// A filter collects the query of a listing. The API takes the values of one
// parameter as one list with commas, ignores what it does not know, and takes
// an empty value for none at all.
type filter struct {
	query url.Values
	err   error
}

func newFilter(limit int) *filter {
	return &filter{query: url.Values{"limit": {strconv.Itoa(limit)}}}
}

func (f *filter) in(name string, values []string) *filter {
	switch {
	case f.err != nil || values == nil:
		return f
	case len(values) == 0:
		f.err = fmt.Errorf("composio: filter %s: an empty list asks for nothing, and the API would take it for everything: use nil to ask for all", name)
		return f
	}
	for _, v := range values {
		if v == "" || strings.ContainsRune(v, ',') || strings.TrimSpace(v) != v {
			f.err = fmt.Errorf("composio: filter %s: the API cannot be asked for the value %q: it must neither be empty nor have commas or outer spaces", name, v)
			return f
		}
	}
	f.query.Set(name, strings.Join(values, ","))
	return f
}

// with returns the query for the page at cursor.
func (f *filter) with(param, cursor string) url.Values {
	q := make(url.Values, len(f.query)+1)
	maps.Copy(q, f.query)
	if cursor != "" {
		q.Set(param, cursor)
	}
	return q
}

// among reports, as an error, a value that was not asked for.
func among(what, id, field, got string, want []string) error {
	if want == nil || slices.Contains(want, got) {
		return nil
	}
	return fmt.Errorf("%w: %s %q has %s %q", ErrForeignRow, what, id, field, got)
}

// anyCase is among for names whose case the API does not keep.
func anyCase(what, id, field, got string, want []string) error {
	if want == nil || slices.ContainsFunc(want, func(w string) bool { return strings.EqualFold(w, got) }) {
		return nil
	}
	return fmt.Errorf("%w: %s %q has %s %q", ErrForeignRow, what, id, field, got)
}

// checkID refuses what would not stay in its segment of a path.
func checkID(what, id string) error {
	if id == "" {
		return fmt.Errorf("composio: the id of the %s is empty", what)
	}
	if len(id) > 200 {
		return fmt.Errorf("composio: the id of the %s is longer than 200 bytes", what)
	}
	for _, r := range id {
		if !isWord(r) && r != '.' && r != ':' {
			return fmt.Errorf("composio: %q is not the id of a %s: it has a character that no id has", id, what)
		}
	}
	if strings.Trim(id, ".") == "" {
		return fmt.Errorf("composio: %q is not the id of a %s", id, what)
	}
	return nil
}

// moment reads a time of the API's; the zero time is one that it did not say.
func moment(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}
