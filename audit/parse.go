package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxWaiversSize is how many bytes [ParseWaivers] reads at most.
const MaxWaiversSize = 1 << 20

// ParseWaivers reads a JSON array of waivers:
//
//	[
//	  {
//	    "id": "container.read_only",
//	    "scope": "container/build-*",
//	    "owner": "ops@example.com",
//	    "reason": "compiles into its root until the volume is there",
//	    "expires": "2030-06-30"
//	  }
//	]
//
// A date without a time means the end of that day in UTC; otherwise expires is
// in the form of RFC 3339. All fields but scope are required.
//
// It is strict, since a waiver that is not understood might waive too much: a
// field that is unknown, repeated or spelt in capitals is an error, and so are
// invalid UTF-8, data after the array and more than [MaxWaiversSize] bytes. The
// error names each entry and field, and says what to do.
func ParseWaivers(r io.Reader) ([]Waiver, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxWaiversSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("audit: read waivers: %w", err)
	case len(data) > MaxWaiversSize:
		return nil, fmt.Errorf("audit: waivers: more than %d bytes: split the file", MaxWaiversSize)
	case !utf8.Valid(data):
		return nil, errors.New("audit: waivers: not UTF-8: save the file in that encoding")
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("audit: waivers: not a JSON array: %w", err)
	}
	if entries == nil { // null
		return nil, errors.New("audit: waivers: null: write [] for none")
	}
	var errs []error
	waivers := make([]Waiver, len(entries))
	seen := make(map[waiverKey]int, len(entries))
	for i, entry := range entries {
		w, err := parseWaiver(entry)
		if err != nil {
			errs = append(errs, fmt.Errorf("audit: waiver %d%s: %w", i+1, quoteID(w.ID), err))
			continue
		}
		if err := checkWaiver(seen, i, w); err != nil {
			errs = append(errs, fmt.Errorf("audit: %w", err))
		}
		waivers[i] = w
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return waivers, nil
}

func quoteID(id string) string {
	if id == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", id)
}

// parseWaiver decodes one entry. It walks over the tokens itself, because
// encoding/json takes a field in any case and any number of times. The
// entry is known to be valid JSON.
func parseWaiver(entry json.RawMessage) (Waiver, error) {
	var (
		w       Waiver
		expires string
		fields  = map[string]*string{"id": &w.ID, "scope": &w.Scope, "owner": &w.Owner, "reason": &w.Reason, "expires": &expires}
		seen    = make(map[string]bool, len(fields))
	)
	dec := json.NewDecoder(bytes.NewReader(entry))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return w, errors.New("not an object: write {\"id\": …, \"owner\": …, \"reason\": …, \"expires\": …}")
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return w, err
		}
		name, _ := t.(string)
		dst, known := fields[name]
		switch {
		case !known:
			return w, fmt.Errorf("field %q is unknown: the fields are id, scope, owner, reason and expires", name)
		case seen[name]:
			return w, fmt.Errorf("field %q is there twice: keep one", name)
		}
		seen[name] = true
		var value *string
		if err := dec.Decode(&value); err != nil || value == nil {
			return w, fmt.Errorf("field %q is not a string: put it in quotes", name)
		}
		*dst = *value
	}
	if expires == "" {
		return w, nil // Validate says so
	}
	var err error
	w.Expires, err = parseExpiry(expires)
	return w, err
}

func parseExpiry(s string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || strings.Contains(s, ",") { // package time also takes a comma
		return time.Time{}, fmt.Errorf("field \"expires\" is %q: write a date such as \"2030-12-31\" or a time such as \"2030-12-31T18:00:00Z\"", s)
	}
	return t.UTC(), nil
}
