package trail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// The frontier is the tree of tlog: the same roots, and the same hashes stored
// in the same order.
func TestFrontier(t *testing.T) {
	var f frontier
	var all []Hash
	reader := tlog.HashReaderFunc(func(numbers []int64) ([]Hash, error) {
		list := make([]Hash, len(numbers))
		for i, n := range numbers {
			list[i] = all[n]
		}
		return list, nil
	})
	for n := range int64(600) {
		want, err := tlog.TreeHash(n, reader)
		if err != nil || f.root() != want {
			t.Fatalf("%d records: root %v, want %v: %v", n, f.root(), want, err)
		}
		data := fmt.Appendf(nil, "record %d", n)
		_, h := appendFrame(nil, tagRecord, data)
		if h != tlog.RecordHash(data) {
			t.Fatal("the hash of a frame is not the hash of its record")
		}
		stored, err := tlog.StoredHashes(n, data, reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.add(h, nil); fmt.Sprint(got) != fmt.Sprint(stored) {
			t.Fatalf("record %d stores %v, want %v", n, got, stored)
		}
		all = append(all, stored...)
		start, err := parseStart(segmentStart(t, &f))
		if err != nil || !start.equal(&f) {
			t.Fatalf("%d records: the start of a segment: %v", n, err)
		}
	}
}

// segmentStart returns the payload of the first frame of a segment.
func segmentStart(t *testing.T, f *frontier) []byte {
	t.Helper()
	fr := frames{r: bytes.NewReader(appendStart(nil, f, Checkpoint{note: "x"}))}
	one, err := fr.next()
	if err != nil || !one.sum || one.tag != tagSegment {
		t.Fatal(one, err)
	}
	return bytes.Clone(one.payload)
}

// The index says the time that the event has, however it is written.
func TestTimeIn(t *testing.T) {
	var times clock
	at := Event{Time: time.Date(1969, 12, 31, 23, 58, 30, 0, time.UTC)}.Time
	for i := range 3000 {
		e := Event{Kind: "k", Message: `,"time":"2020-01-01T00:00:00Z"`}
		e.Time = e.Time.Add(0).AddDate(rand.IntN(9000), rand.IntN(12), rand.IntN(28)).Add(1)
		if i%3 > 0 { // close to the last
			at = at.Add(time.Duration(rand.IntN(30e9)))
			e.Time = at
		}
		if i%7 == 0 {
			e.Time = e.Time.In(time.FixedZone("", rand.IntN(10)*1800))
		}
		data, err := json.Marshal(Record{7, e})
		if err != nil {
			t.Fatal(err)
		}
		if got := times.in(data); got != timeOf(&e) {
			t.Fatalf("%s: %d by the clock, want %d", data, got, timeOf(&e))
		}
		if got := timeIn(data); got != timeOf(&e) {
			t.Fatalf("%s: %d, want %d", data, got, timeOf(&e))
		}
	}
	for _, bad := range []string{"", "{}", `,"time":"`, `,"time":"yesterday"`} {
		if timeIn([]byte(bad)) != 0 {
			t.Error(bad)
		}
	}
}

// A file is read the same however its reads are cut, and errors of reading are
// not damage.
func TestFramesByHalves(t *testing.T) {
	var data []byte
	for n := range 300 {
		data, _ = appendFrame(data, tagRecord, bytes.Repeat([]byte{byte(n)}, n*n))
	}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(data), "halves": iotest.HalfReader(bytes.NewReader(data)), "the end with the data": iotest.DataErrReader(bytes.NewReader(data)),
	} {
		f := frames{r: r}
		for n := range 300 {
			fr, err := f.next()
			if err != nil || !fr.sum || len(fr.payload) != n*n {
				t.Fatalf("%s: frame %d: %v", name, n, err)
			}
		}
		if _, err := f.next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := newWalker(iotest.ErrReader(io.ErrNoProgress), "x", 0)
	if err := w.run(context.Background()); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("the error is %v", err)
	}
	if _, bad := errors.AsType[*DamageError](newWalker(io.MultiReader(bytes.NewReader(data[:100]), iotest.ErrReader(io.ErrNoProgress)), "x", 0).run(context.Background())); !bad {
		t.Error("a file without a beginning is damaged")
	}
}

// FuzzSegment: whatever a segment holds, reading it ends, and what is said to
// be covered is a whole number of records that read the same again.
func FuzzSegment(f *testing.F) {
	key, err := GenerateKey("fuzz")
	if err != nil {
		f.Fatal(err)
	}
	var tree frontier
	c, err := key.checkpoint(&tree, Checkpoint{})
	if err != nil {
		f.Fatal(err)
	}
	data := appendStart(nil, &tree, c)
	f.Add(data)
	for n := range 4 {
		data = AppendRecord(data, fmt.Appendf(nil, `{"seq":%d,"v":1,"kind":"k","time":"2026-03-01T12:00:00Z"}`, n))
		if data, err = AppendCheckpoint(data, key); err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-40])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := Verifier{Key: key.Public(), chunk: 1 + len(data)/3}
		p := part{segment: true}
		m := fstest.MapFS{p.segmentName(): &fstest.MapFile{Data: data}}
		want, err := v.walk(t.Context(), m, p, false)
		if got, ok := v.scan(t.Context(), m, p, nil); ok != (err == nil) || ok && fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("in the fast way: %+v, %t\nin order: %+v, %v", got, ok, want, err)
		}
		for _, roots := range []bool{true, false} {
			w, x := indexing(bytes.NewReader(data), part{})
			w.roots = roots
			err := w.run(t.Context())
			if err != nil {
				if _, ok := errors.AsType[*DamageError](err); !ok {
					t.Fatalf("the error is %v", err)
				}
			}
			if w.sealed > int64(len(data)) || w.off > int64(len(data)) {
				t.Fatalf("it read %d and covers %d, of %d bytes", w.off, w.sealed, len(data))
			}
			if err != nil || !roots {
				continue
			}
			if w.sealed != int64(len(data)) || w.last.Root != w.tree.root() || int64(len(x.offsets)) != w.tree.n {
				t.Fatal("what is whole is not covered")
			}
			x.size = w.sealed
			enc := x.encode()
			y, err := readIndex(bytes.NewReader(enc), int64(len(enc)))
			if err != nil || y.count != w.tree.n || !sumFits(enc) {
				t.Fatalf("its index: %v", err)
			}
		}
	})
}

// FuzzIndex: what is not an index is an error, and what is says how long it is.
func FuzzIndex(f *testing.F) {
	x := newIndex(0)
	var tree frontier
	for n := range int64(5) {
		x.add(n*100, n, tree.add(Hash{byte(n)}, nil))
	}
	f.Add(x.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		y, err := readIndex(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if y.length() != int64(len(data)) {
			t.Fatal(y.length(), len(data))
		}
		if y.count > 0 {
			if _, err := y.offset(y.first + y.count - 1); err != nil {
				t.Fatal(err)
			}
			if _, err := y.hash(tlog.StoredHashCount(y.first+y.count) - 1); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzCheckpoint: nothing is accepted that the key did not sign.
func FuzzCheckpoint(f *testing.F) {
	key, err := GenerateKey("fuzz")
	if err != nil {
		f.Fatal(err)
	}
	witness, err := ParsePublicKey("witness.example.com/w1+" + witnessText())
	if err != nil {
		f.Fatal(err)
	}
	var tree frontier
	c, err := key.checkpoint(&tree, Checkpoint{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.note)
	f.Add(c.note + "— witness.example.com/w1 AAAA\n")
	f.Add("fuzz\n1\n" + Hash{}.String() + "\n\n— fuzz AAAAAAAA\n")
	signed, _, _ := strings.Cut(c.note, "\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseCheckpoint([]byte(text)); err == nil && (d.note != text || d.Size < 0) {
			t.Fatal(d)
		}
		d, err := ParseCheckpoint(text, key.Public(), witness)
		if err != nil {
			if !errors.Is(err, ErrCheckpoint) {
				t.Fatal(err)
			}
			return
		}
		if body, _, _ := strings.Cut(text, "\n\n"); body != signed || d.Size != 0 || len(d.Cosignatures) > 0 {
			t.Fatalf("accepted %q", text)
		}
	})
}

// witnessText is the hash and the key of a witness whose key nobody has.
func witnessText() string {
	k, err := NewWitnessKey("witness.example.com/w1", bytes.Repeat([]byte{7}, 32))
	if err != nil {
		return err.Error()
	}
	_, text, _ := strings.Cut(k.String(), "+")
	return text
}

// FuzzRecord: what is read is written the same, and no field is lost on the way.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"seq":5,"v":1,"kind":"tool.call","time":"2026-03-01T12:00:01Z","arguments":{"digest":"d","view":{"a":[1,"\u00fc"]}},"attrs":{"a":"1"}}`))
	f.Add([]byte(`{"seq":0,"v":1,"kind":"k","time":"0000-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Record
		if err := r.UnmarshalJSON(data); err != nil {
			if !errors.Is(err, ErrInvalidEvent) {
				t.Fatal(err)
			}
			return
		}
		if r.Event.Validate() != nil {
			return
		}
		one, err := json.Marshal(r)
		if err != nil {
			return // a time zone that JSON does not have
		}
		if seq, ok := seqOf(one); !ok || seq != r.Seq {
			t.Fatalf("%s: number %d", one, seq)
		}
		var s Record
		if err := s.UnmarshalJSON(one); err != nil {
			t.Fatal(err)
		}
		two, err := json.Marshal(s)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("%s became %s: %v", one, two, err)
		}
		if clean := new(Redactor).Event(r.Event); clean.Validate() != nil {
			t.Fatalf("redaction made %s invalid", one)
		}
	})
}

// FuzzRedactor: what it removes it removes wherever it stands, and what it
// leaves it does not change again.
func FuzzRedactor(f *testing.F) {
	f.Add("a ", " b")
	f.Add("Bearer sk-", "AKIA")
	const secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
	var r Redactor
	f.Fuzz(func(t *testing.T, before, after string) {
		got := r.Text(before + " " + secret + " " + after)
		if strings.Contains(got, "0123456789abcdefghijABCDEFGHIJ012345") && !strings.Contains(before+after, "0123456789abcdefghijABCDEFGHIJ012345") {
			t.Fatalf("%q", got)
		}
		raw, err := json.Marshal(map[string]any{before: before + " " + secret, "password": after, "list": []string{secret}})
		if err != nil {
			return
		}
		a, err := r.Arguments(raw)
		if err != nil || !json.Valid(a.View) {
			t.Fatalf("%s: %v", raw, err)
		}
		if strings.Contains(string(a.View), "0123456789abcdefghijABCDEFGHIJ") && !strings.Contains(before, "0123456789abcdefghijABCDEFGHIJ") {
			t.Fatalf("%s", a.View)
		}
	})
}
