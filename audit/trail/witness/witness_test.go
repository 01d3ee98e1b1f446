package witness_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/audit/trail/witness"
)

type world struct {
	dir    string
	key    *trail.Key
	log    *trail.Log
	server *witness.Server
	http   *httptest.Server
	client *witness.Client
}

func start(t *testing.T) *world {
	t.Helper()
	key, err := trail.GenerateKey("trail.example.com/agent-1")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: filepath.Join(t.TempDir(), "log"), key: key}
	if w.log, err = trail.Create(w.dir, key, trail.Config{SegmentBytes: 2000}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.log.Close() })
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.server = &witness.Server{Name: "witness.example.com/w1", Key: private, Logs: []trail.PublicKey{key.Public()}, Dir: t.TempDir()}
	public, err := w.server.Public()
	if err != nil || !public.IsWitness() {
		t.Fatal(public, err)
	}
	w.http = httptest.NewServer(w.server)
	t.Cleanup(w.http.Close)
	w.client = &witness.Client{URL: w.http.URL + "/", Key: public, Log: key.Public()}
	return w
}

func (w *world) record(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		if err := w.log.Record(t.Context(), trail.Event{Kind: trail.KindToolCall, ID: fmt.Sprint(i), Tool: "GMAIL_SEND_EMAIL", Outcome: trail.OutcomeOK}); err != nil {
			t.Fatal(err)
		}
	}
}

// Every state of a log is cosigned, also by a witness that the client knows
// nothing of, and what is kept beside the log verifies.
func TestCosign(t *testing.T) {
	w := start(t)
	before := time.Now().Add(-2 * time.Second)
	for range 10 {
		w.record(t, 3)
		c, err := w.log.Witness(t.Context(), w.client)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(w.dir, "cosigned"))
		if err != nil || string(data) != c.Note() {
			t.Fatal(err)
		}
		got, err := trail.ParseCheckpoint(string(data), w.key.Public(), w.client.Key)
		if err != nil || len(got.Cosignatures) != 1 || got.Cosignatures[0].Name != "witness.example.com/w1" ||
			got.Cosignatures[0].Time.Before(before) || got.Cosignatures[0].Time.After(time.Now()) || got.Size != w.log.Checkpoint().Size {
			t.Fatalf("%+v, %v", got, err)
		}
		if _, err := w.log.Witness(t.Context(), w.client); err != nil {
			t.Fatal("the same again:", err)
		}
		w.client = &witness.Client{URL: w.client.URL, Key: w.client.Key, Log: w.client.Log} // which has forgotten
	}
}

// A witness tells a log that goes on from one that went back or was rewritten.
func TestForks(t *testing.T) {
	w := start(t)
	w.record(t, 6)
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	w.record(t, 6)
	if _, err := w.log.Witness(t.Context(), w.client); err != nil {
		t.Fatal(err)
	}
	for _, forget := range []bool{false, true} {
		for _, more := range []int{0, 3, 6, 30} {
			t.Run(fmt.Sprint(forget, more), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "fork")
				if err := os.CopyFS(dir, os.DirFS(old)); err != nil {
					t.Fatal(err)
				}
				l, err := trail.Open(dir, w.key, trail.Config{})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				for i := range more {
					if err := l.Record(t.Context(), trail.Event{Kind: "other", ID: fmt.Sprint(i)}); err != nil {
						t.Fatal(err)
					}
				}
				client := w.client
				if forget {
					client = &witness.Client{URL: w.client.URL, Key: w.client.Key, Log: w.client.Log}
				}
				if _, err := l.Witness(t.Context(), client); !errors.Is(err, trail.ErrForked) {
					t.Errorf("the error is %v", err)
				}
			})
		}
	}
	if _, err := w.log.Witness(t.Context(), w.client); err != nil {
		t.Error("the true log afterwards:", err)
	}
}

// A witness that was started again has not forgotten, and many requests at
// once leave it at the largest.
func TestServerRemembers(t *testing.T) {
	w := start(t)
	var wg sync.WaitGroup
	for range 5 {
		w.record(t, 2)
		wg.Go(func() {
			client := &witness.Client{URL: w.client.URL, Key: w.client.Key, Log: w.client.Log}
			_, err := w.log.Witness(context.Background(), client)
			_ = err // another may have been in between
		})
	}
	wg.Wait()
	if _, err := w.log.Witness(t.Context(), w.client); err != nil {
		t.Fatal(err)
	}
	w.http.Config.Handler = &witness.Server{Name: w.server.Name, Key: w.server.Key, Logs: w.server.Logs, Dir: w.server.Dir}
	files, _ := filepath.Glob(filepath.Join(w.server.Dir, "*.checkpoint"))
	if len(files) != 1 {
		t.Fatal(files)
	}
	if err := os.WriteFile(files[0], []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.record(t, 1)
	if _, err := w.log.Witness(t.Context(), w.client); err == nil || errors.Is(err, trail.ErrForked) {
		t.Errorf("a witness that cannot read what it has seen: %v", err)
	}
}

// The server answers as C2SP tlog-witness says.
func TestServerAnswers(t *testing.T) {
	w := start(t)
	w.record(t, 5)
	note := w.log.Checkpoint().Note()
	other, _ := trail.GenerateKey("trail.example.com/other")
	forged, _ := trail.GenerateKey("trail.example.com/agent-1")
	make1 := func(k *trail.Key) string {
		l, err := trail.Create(filepath.Join(t.TempDir(), "x"), k, trail.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Checkpoint().Note()
	}
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, c := range []struct {
		name, body string
		want       int
	}{
		{"an unknown log", "old 0\n\n" + make1(other), 404},
		{"a log with another key", "old 0\n\n" + make1(forged), 403},
		{"a checkpoint that was changed", "old 0\n\n" + strings.Replace(note, "\n5\n", "\n6\n", 1), 403},
		{"an old size that is larger", "old 9\n\n" + note, 400},
		{"an old size that it has not seen", "old 3\n\n" + note, 409},
		{"a proof of nothing", "old 0\n" + hash + "\n\n" + note, 422},
		{"no old size", "\n" + note, 400},
		{"an old size with a zero", "old 00\n\n" + note, 400},
		{"a proof that is no hash", "old 0\nx\n\n" + note, 400},
		{"a proof that is too long", "old 0\n" + strings.Repeat(hash+"\n", 64) + "\n" + note, 400},
		{"nothing", "", 400},
		{"too much", strings.Repeat("x", 1<<18), 413},
		{"what it should be", "old 0\n\n" + note, 200},
		{"the same from the start", "old 0\n\n" + note, 409},
		{"the same again", "old 5\n\n" + note, 200},
		{"a proof that does not hold", "old 5\n" + hash + "\n\n" + note, 422},
	} {
		resp, err := http.Post(w.http.URL+"/add-checkpoint", "", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: status %d, want %d: %s", c.name, resp.StatusCode, c.want, answer)
		}
		if c.want == 409 && (resp.Header.Get("Content-Type") != "text/x.tlog.size" || !strings.HasSuffix(string(answer), "\n")) {
			t.Errorf("%s: %v %q", c.name, resp.Header, answer)
		}
	}
	for path, want := range map[string]int{"/": 404, "/add-checkpoint": 405} {
		resp, err := http.Get(w.http.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: status %d, want %d", path, resp.StatusCode, want)
		}
	}
}

// A client believes no answer without a cosignature by the witness's key.
func TestClientBelievesNobody(t *testing.T) {
	w := start(t)
	w.record(t, 2)
	_, private, _ := ed25519.GenerateKey(nil)
	impostor := &witness.Server{Name: w.server.Name, Key: private, Logs: w.server.Logs, Dir: t.TempDir()}
	answer := func(status int, contentType, text string) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", contentType)
			rw.WriteHeader(status)
			_, _ = io.WriteString(rw, text)
		})
	}
	for name, h := range map[string]http.Handler{
		"another key":           impostor,
		"nothing":               answer(200, "", ""),
		"no signature":          answer(200, "", "ok\n"),
		"a line that is torn":   answer(200, "", "— witness.example.com/w1 AAAA"),
		"a size that is none":   answer(409, "text/x.tlog.size", "many\n"),
		"a size that goes back": answer(409, "text/x.tlog.size", "-4\n"),
		"always another size":   answer(409, "text/x.tlog.size", "1\n"),
		"an error":              answer(500, "", "secret of the witness"),
	} {
		w.http.Config.Handler = h
		client := &witness.Client{URL: w.http.URL, Key: w.client.Key, Log: w.client.Log}
		_, err := w.log.Witness(t.Context(), client)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(w.dir, "cosigned")); err == nil {
			t.Errorf("%s: it was kept", name)
		}
	}
	w.http.Close()
	if _, err := w.log.Witness(t.Context(), w.client); err == nil || errors.Is(err, trail.ErrForked) {
		t.Errorf("nobody there: %v", err)
	}
}

// A cosignature is of one checkpoint and one time.
func TestCosignatureOfAnother(t *testing.T) {
	w := start(t)
	w.record(t, 2)
	c, err := w.log.Witness(t.Context(), w.client)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.LastIndex(c.Note(), "— ")
	line := c.Note()[i:]
	w.record(t, 1)
	moved, err := w.log.Checkpoint().WithCosignatures([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.ParseCheckpoint(moved.Note(), w.key.Public(), w.client.Key); !errors.Is(err, trail.ErrCheckpoint) {
		t.Errorf("a cosignature of another checkpoint: %v", err)
	}
	name, b64, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "— ")), " ")
	raw, _ := base64.StdEncoding.DecodeString(b64)
	raw[11]++ // the time
	later := c.Note()[:i] + "— " + name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
	if _, err := trail.ParseCheckpoint(later, w.key.Public(), w.client.Key); !errors.Is(err, trail.ErrCheckpoint) {
		t.Errorf("another time: %v", err)
	}
	if got, err := trail.ParseCheckpoint(later, w.key.Public()); err != nil || len(got.Cosignatures) != 0 {
		t.Errorf("a witness that is not asked for: %v, %v", got, err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add("old 0\n\nx\n1\nAAAA\n\n— x AAAA\n")
	f.Add("old 5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nx")
	key, err := trail.GenerateKey("x")
	if err != nil {
		f.Fatal(err)
	}
	_, private, _ := ed25519.GenerateKey(nil)
	s := &witness.Server{Name: "w", Key: private, Logs: []trail.PublicKey{key.Public()}, Dir: f.TempDir()}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRecorder()
		s.ServeHTTP(r, httptest.NewRequest(http.MethodPost, "/add-checkpoint", strings.NewReader(body)))
		if r.Code == http.StatusOK {
			t.Errorf("it cosigned what nobody signed: %q", body)
		}
	})
}
