package killswitch_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

// A record of the fence that is read is exactly what would be written.
func FuzzFence(f *testing.F) {
	f.Add(released(f, "inbox"))
	f.Add(engaged(f, "inbox"))
	f.Add("stopped by hand\n")
	f.Add("hardshell.fence/v1 00 {}\n")
	f.Fuzz(func(t *testing.T, data string) {
		s, err := killswitch.ParseFenceState([]byte(data))
		if err != nil {
			if s.Released {
				t.Error("damaged, and released")
			}
			return
		}
		if again := record(t, s); again != data {
			t.Errorf("read %q, would write %q", data, again)
		}
	})
}

func FuzzKey(f *testing.F) {
	dir := f.TempDir()
	check(f, testKey().WriteFile(dir+"/key"))
	f.Add(string(must(os.ReadFile(dir + "/key"))))
	f.Add(testKey().Public().String())
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := killswitch.ParseKey(text); err == nil {
			check(t, os.RemoveAll(t.TempDir()+"/none"))
			name := t.TempDir() + "/key"
			check(t, k.WriteFile(name))
			if got := string(must(os.ReadFile(name))); got != text && got != text+"\n" {
				t.Error("another key was read")
			}
		} else if !errors.Is(err, killswitch.ErrKey) {
			t.Error(err)
		}
		if p, err := killswitch.ParsePublicKey(text); err == nil && p.String() != strings.TrimSuffix(text, "\n") {
			t.Errorf("read %q as %q", text, p)
		}
	})
}

// documents are one of each kind that is signed.
func documents(t testing.TB) map[string][]byte {
	t.Helper()
	cfg := config(t, target("agent", killswitchtest.NewThing("a")))
	s := newSwitch(t, cfg)
	_, targets := canary()
	d, err := s.Drill(context.Background(), killswitch.Rehearsal{Variant: "normal", Targets: targets})
	check(t, err)
	a, err := s.Arm(context.Background())
	check(t, err)
	r, err := s.Fire(context.Background(), `<it> & "that"`)
	check(t, err)
	return map[string][]byte{"receipt": must(json.Marshal(r)), "drill": must(json.Marshal(d)), "armed": must(json.Marshal(a))}
}

// A document that is verified says what was signed: no change of it is, but of
// its white space.
func FuzzSigned(f *testing.F) {
	docs := documents(f)
	for _, doc := range docs {
		f.Add(string(doc))
		f.Add(strings.Replace(string(doc), `"agent":"inbox"`, `"agent":"other"`, 1))
		f.Add(strings.Replace(string(doc), `{`, "{\n\t", 1))
		f.Add(string(doc[:len(doc)-1]) + `,"signature":"x"}`)
		f.Add(strings.Replace(string(doc), `}`, `},"signature":"AAAA"`, 1))
	}
	compact := func(s string) string {
		var b strings.Builder
		inside, escaped := false, false
		for _, c := range []byte(s) {
			switch {
			case escaped:
				escaped = false
			case inside && c == '\\':
				escaped = true
			case c == '"':
				inside = !inside
			case !inside && strings.IndexByte(" \t\r\n", c) >= 0:
				continue
			}
			b.WriteByte(c)
		}
		return b.String()
	}
	key := testKey().Public()
	f.Fuzz(func(t *testing.T, data string) {
		for kind, verify := range map[string]func() error{
			"receipt": func() error { _, err := killswitch.VerifyReceipt([]byte(data), key); return err },
			"drill":   func() error { _, err := killswitch.VerifyDrill([]byte(data), key); return err },
			"armed":   func() error { _, err := killswitch.VerifyArmed([]byte(data), key); return err },
		} {
			if err := verify(); err == nil && compact(data) != string(docs[kind]) {
				t.Errorf("a %s was verified that was not signed: %q", kind, data)
			}
		}
		if r, err := killswitch.ParseReceipt([]byte(data)); err == nil {
			_ = r.String()
		}
	})
}

// What is kept of the second secret is believed only if it is slow to try.
func FuzzReset(f *testing.F) {
	f.Add(string(secretHash()))
	f.Add(`{"schema":"hardshell.attempts/v1","wrong":3,"last":"2026-03-01T12:00:00Z"}`)
	f.Fuzz(func(t *testing.T, data string) {
		if r, err := killswitch.ParseSecret([]byte(data), "inbox"); err == nil && (r.Rounds < 600_000 || len(r.Salt) < 16 || len(r.Hash) != 32) {
			t.Errorf("%+v", r)
		}
		if a, err := killswitch.ParseAttempts([]byte(data)); err == nil && (a.Wrong < 0 || a.Last.IsZero()) {
			t.Errorf("%+v", a)
		}
	})
}

// A signature for one kind of document is none for another, and one by another
// key is none.
func TestSignatures(t *testing.T) {
	docs := documents(t)
	key, other := testKey().Public(), must(killswitch.GenerateKey()).Public()
	verify := map[string]func([]byte, killswitch.PublicKey) error{
		"receipt": func(b []byte, k killswitch.PublicKey) error { _, err := killswitch.VerifyReceipt(b, k); return err },
		"drill":   func(b []byte, k killswitch.PublicKey) error { _, err := killswitch.VerifyDrill(b, k); return err },
		"armed":   func(b []byte, k killswitch.PublicKey) error { _, err := killswitch.VerifyArmed(b, k); return err },
	}
	for kind, doc := range docs {
		// What is signed, in the words of nobody but crypto/ed25519.
		raw := must(base64.StdEncoding.DecodeString(key.String()[strings.LastIndex(key.String(), ":")+1:]))
		body, sig, _ := strings.Cut(string(doc), `,"signature":"`)
		schema := map[string]string{"receipt": killswitch.ReceiptSchema, "drill": killswitch.DrillSchema, "armed": killswitch.ArmedSchema}[kind]
		if !ed25519.Verify(raw, []byte(schema+"\x00"+body+"}"), must(base64.StdEncoding.DecodeString(strings.TrimSuffix(sig, `"}`)))) {
			t.Errorf("a %s is signed over something else", kind)
		}
		for as, v := range verify {
			if err := v(doc, key); (err == nil) != (as == kind) {
				t.Errorf("a %s as a %s: %v", kind, as, err)
			}
			for _, k := range []killswitch.PublicKey{other, {}} {
				if err := v(doc, k); !errors.Is(err, killswitch.ErrSignature) {
					t.Errorf("a %s by key %q: %v", kind, k, err)
				}
			}
		}
		for n := range doc { // every byte matters
			changed := append([]byte(nil), doc...)
			changed[n] ^= 1
			if err := verify[kind](changed, key); err == nil {
				t.Errorf("a %s with byte %d changed was verified", kind, n)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	name := t.TempDir() + "/key"
	check(t, testKey().WriteFile(name))
	if err := testKey().WriteFile(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("written over another: %v", err)
	}
	k, err := killswitch.ReadKey(name)
	if err != nil || k.Public() != testKey().Public() {
		t.Error(k, err)
	}
	private := strings.TrimSpace(string(must(os.ReadFile(name))))
	private = private[strings.LastIndex(private, ":")+1:]
	for _, shown := range verbs(k) {
		if strings.Contains(shown, private) {
			t.Errorf("a verb prints the key: %s", shown)
		}
	}
	check(t, os.Chmod(name, 0o640))
	if _, err := killswitch.ReadKey(name); !errors.Is(err, killswitch.ErrKey) {
		t.Errorf("others can read it: %v", err)
	}
	if err := new(killswitch.Key).WriteFile(name + "2"); !errors.Is(err, killswitch.ErrKey) {
		t.Errorf("an empty key: %v", err)
	}
}
