package trail_test

import (
	"fmt"
	"io/fs"
	"path"
	"testing"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// An onlyForward is a file system that does the least that io/fs asks for: its
// files can be read from the beginning to the end and no other way.
type onlyForward struct{ fsys fs.FS }

type forwardFile struct{ fs.File }

func (o onlyForward) Open(name string) (fs.File, error) {
	f, err := o.fsys.Open(name)
	if _, ok := f.(fs.ReadDirFile); ok || err != nil {
		return f, err
	}
	return forwardFile{f}, nil
}

// A log is verified, read and proved alike wherever it is: in a directory, in
// memory, below the root of a machine, and where files cannot be read at random.
func TestAnyFileSystem(t *testing.T) {
	w := create(t, trail.Config{SegmentBytes: 3000})
	w.record(t, 0, 31)
	cut := w.log.Checkpoint()
	w.record(t, 31, 40)
	if _, err := w.log.Retire(t.Context(), trail.Retention{Bytes: 14_000}); err != nil {
		t.Fatal(err)
	}
	w.close(t)
	files := w.files(t)
	machine := make(fstest.MapFS)
	for name, f := range files {
		machine[path.Join("var/lib/hardshell/trail", name)] = f
	}
	below, err := fs.Sub(machine, "var/lib/hardshell/trail")
	if err != nil {
		t.Fatal(err)
	}
	var want string
	for _, c := range []struct {
		name string
		fsys fs.FS
	}{
		{"a directory", w.fs()},
		{"in memory", files},
		{"below the root of a machine", below},
		{"files that are read forward only", onlyForward{files}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := w.verifier()
			v.Pinned = []trail.Checkpoint{cut}
			whole, err := v.Verify(t.Context(), c.fsys)
			if err != nil || whole.Retired == 0 || whole.Segments < 2 {
				t.Fatalf("%+v, %v", whole, err)
			}
			part, err := v.VerifyRange(t.Context(), c.fsys, 38, 39)
			if err != nil {
				t.Fatal(err)
			}
			r, err := trail.OpenReader(t.Context(), c.fsys, w.key.Public())
			if err != nil {
				t.Fatal(err)
			}
			tail, err := r.Tail(t.Context(), trail.Query{Kind: trail.KindToolCall}, 12)
			if err != nil || len(tail) != 12 || tail[11].Seq != 39 {
				t.Fatal(tail, err)
			}
			proof, err := r.Prove(t.Context(), 33)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := proof.Check(w.key.Public()); err != nil {
				t.Error(err)
			}
			extends, err := r.Consistency(t.Context(), cut.Size)
			if err != nil {
				t.Fatal(err)
			}
			if err := trail.CheckConsistency(cut, r.Checkpoint(), extends); err != nil {
				t.Error(err)
			}
			got := fmt.Sprintf("%+v\n%+v\n%+v\n%+v\n%v", whole, part, tail, proof, extends)
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("it differs from a directory:\n%s\n%s", got, want)
			}
		})
	}
}
