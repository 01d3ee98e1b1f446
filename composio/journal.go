package composio

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// An entry is a line of a journal.
type entry struct {
	Version int            `json:"v"`
	Account AccountOutcome `json:"account"`
}

const journalVersion = 1

// note writes a line. The journal is no reason to stop, so that a failure is
// one more problem of the report.
func (x *run) note(o AccountOutcome) {
	if x.Journal == nil {
		return
	}
	line, err := json.Marshal(entry{journalVersion, o})
	if err == nil {
		x.Revoker.mu.Lock()
		_, err = x.Journal.Write(append(line, '\n'))
		x.Revoker.mu.Unlock()
	}
	if err != nil {
		x.problem("the journal cannot be written: %v", err)
	}
}

// sync makes the journal durable, if it is one that can be made so.
func (x *run) sync() {
	if s, ok := x.Journal.(interface{ Sync() error }); ok {
		if err := s.Sync(); err != nil {
			x.problem("the journal cannot be synced: %v", err)
		}
	}
}

// Resume reads what [Revoker.Journal] was written before, so that the next
// revocation reports accounts with their outcome that are gone by then. A last
// line that is not whole is what a crash leaves, and is passed over; anything
// else that is no journal is an error, after which the Revoker can still be
// used. The API is asked again about everything that was not confirmed.
func (r *Revoker) Resume(journal io.Reader) error {
	in := bufio.NewReader(journal)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil // whole lines end with a line break
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("composio: resume: line %d of the journal is too long", n)
		case err != nil:
			return fmt.Errorf("composio: resume: read the journal: %w", err)
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("composio: resume: line %d of the journal: %s", n, jsonProblem(err))
		}
		if e.Version != journalVersion {
			return fmt.Errorf("composio: resume: line %d of the journal is of version %d, and this is %d", n, e.Version, journalVersion)
		}
		if err := checkID("connected account", e.Account.ID); err != nil {
			return fmt.Errorf("composio: resume: line %d of the journal: %w", n, err)
		}
		r.mu.Lock()
		o := r.learn(Account{ID: e.Account.ID})
		*o = e.Account
		r.mu.Unlock()
	}
}
