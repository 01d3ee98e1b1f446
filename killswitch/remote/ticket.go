package remote

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"sync"
	"time"
)

// A minter makes tickets: texts that show, by themselves, that this server gave
// them to somebody not long ago. It keeps nothing of them, so that nobody can
// fill its memory. Their age is measured by the monotonic clock, which nobody
// can set, and they end with the process.
type minter struct {
	key   [32]byte
	start time.Time
}

// What tickets are for.
const (
	ticketChallenge = 'c' // to be signed in a command
	ticketAsk       = 'a' // of a page that shows the state
	ticketFire      = 'f' // of a page that asks whether to fire
)

const (
	ticketBody = 1 + 8 + 16
	ticketSize = ticketBody + 16
)

func newMinter() *minter {
	m := &minter{start: time.Now()}
	_, _ = rand.Read(m.key[:]) // never fails
	return m
}

// mint makes a ticket of a kind for a subject.
func (m *minter) mint(kind byte, subject string) string {
	b := make([]byte, ticketBody, ticketSize)
	b[0] = kind
	binary.BigEndian.PutUint64(b[1:], uint64(time.Since(m.start)))
	_, _ = rand.Read(b[9:])
	return base64.RawURLEncoding.EncodeToString(append(b, m.mac(b, subject)...))
}

func (m *minter) mac(body []byte, subject string) []byte {
	h := hmac.New(sha256.New, m.key[:])
	h.Write(body)
	h.Write([]byte(subject))
	return h.Sum(nil)[:ticketSize-ticketBody]
}

// check returns the age of a ticket, and whether m made it, of that kind and
// for that subject.
func (m *minter) check(kind byte, subject, text string) (age time.Duration, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != ticketSize || !hmac.Equal(m.mac(b[:ticketBody], subject), b[ticketBody:]) || b[0] != kind {
		return 0, false
	}
	return time.Since(m.start) - time.Duration(binary.BigEndian.Uint64(b[1:])), true
}

// once remembers which tickets were used, for as long as they are good. It is
// kept in memory: tickets end with the process.
type once struct {
	keep  time.Duration
	most  int
	fresh bool // whether one counts as fresh when there are too many

	mu   sync.Mutex
	used map[string]time.Time
}

// use reports whether a ticket was not used before.
func (o *once) use(ticket string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.used == nil {
		o.used = make(map[string]time.Time)
	}
	if _, ok := o.used[ticket]; ok {
		return false
	}
	if len(o.used) >= o.most {
		for t, at := range o.used {
			if time.Since(at) > o.keep {
				delete(o.used, t)
			}
		}
		if len(o.used) >= o.most {
			return o.fresh
		}
	}
	o.used[ticket] = time.Now()
	return true
}
