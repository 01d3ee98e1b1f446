package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// records verifies the program's trail in a state directory, from the checkpoint
// that is pinned there, and returns what is in it.
func records(t *testing.T, state string) []trail.Record {
	t.Helper()
	b := (&program{stateDir: state}).book(programTrail)
	key, err := b.publicKey()
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := b.pinned(key)
	if err != nil || len(pinned) != 1 {
		t.Fatalf("%d checkpoints are pinned, %v", len(pinned), err)
	}
	log := os.DirFS(b.dir)
	if sum, err := (&trail.Verifier{Key: key, Pinned: pinned}).Verify(t.Context(), log); err != nil || sum.Checkpoint.Size != pinned[0].Size {
		t.Fatalf("the trail: %+v, of which %d are pinned: %v", sum, pinned[0].Size, err)
	}
	r, err := trail.OpenReader(t.Context(), log, key)
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.Tail(t.Context(), trail.Query{}, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A trail is made when something is first recorded, with a key that is its
// owner's alone.
func TestTrailIsMade(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	p := &program{stateDir: state, stderr: t.Output()}
	d := p.trail()
	if d.book.exists() {
		t.Fatal("there is one")
	}
	for range 2 {
		if err := d.Record(t.Context(), trail.Event{Kind: trail.KindReset, Actor: p.book(programTrail).name}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(records(t, state)); n != 2 {
		t.Errorf("%d records", n)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "trail": 0o700, "trail.key": 0o600, "trail.pub": 0o644, "trail.pin": 0o600} {
		info, err := os.Stat(filepath.Join(state, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(state, "*.*.*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
