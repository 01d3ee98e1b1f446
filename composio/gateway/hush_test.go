package gateway

import (
	"testing"
	"time"
)

// Who asks again and again is on record so many times a minute, each by itself,
// with how often it was left out.
func TestHushed(t *testing.T) {
	var l ledger
	now := time.Now()
	count := func(name string, tries int) (recorded, unnoted int) {
		for range tries {
			if n, ok := l.hushed(name, knocks, now); ok {
				recorded++
				unnoted += n
			}
		}
		return recorded, unnoted
	}
	for _, name := range []string{"inbox", "other", ""} {
		if recorded, unnoted := count(name, 25); recorded != knocks.Calls || unnoted != 0 {
			t.Errorf("%q: %d recorded, %d left out", name, recorded, unnoted)
		}
	}
	now = now.Add(knocks.Per)
	if recorded, unnoted := count("inbox", 3); recorded != 3 || unnoted != 25-knocks.Calls {
		t.Errorf("a minute later: %d recorded, %d left out", recorded, unnoted)
	}
}
