package trail_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

const secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345"

// A secret that is given to the log in any field is in no file of it.
func TestNoSecretIsWritten(t *testing.T) {
	own := "the gateway's own token 4711"
	w := create(t, trail.Config{Redactor: &trail.Redactor{Values: []string{own}, Names: []string{"pin-code"}}})
	for _, s := range []string{secret, "Bearer abcdefgh12345678", own, "a=" + secret + ";", "-----BEGIN OPENSSH PRIVATE KEY-----\nabcdef\n-----END OPENSSH PRIVATE KEY-----"} {
		e := trail.Event{
			Kind: "k", Actor: s, Agent: s, Subject: "x " + s, Tool: s, Message: "it said " + s + " twice " + s,
			ID: s, RequestID: s, SessionID: s, RunID: s, ToolCallID: s, AccountID: s, LogID: s,
			Attrs: map[string]string{"note": s, "password": "hunter2"},
		}
		e.Arguments.View, _ = json.Marshal(map[string]any{"text": "see " + s, "password": "hunter2", "list": []any{map[string]any{"pinCode": "hunter2", "n": 1.50}}})
		if err := w.log.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	w.close(t)
	for name, f := range w.files(t) {
		for _, s := range []string{secret, "abcdefgh12345678", own, "hunter2", "abcdef\\n"} {
			if bytes.Contains(f.Data, []byte(s)) {
				t.Errorf("%s holds %q", name, s)
			}
		}
	}
	events, err := allEvents(t, w)
	if err != nil || !strings.Contains(string(events[0].Arguments.View), "1.5") || events[0].Message != "it said ghp_[redacted] twice ghp_[redacted]" {
		t.Errorf("%+v, %v", events[0], err)
	}
}

func TestRedactor(t *testing.T) {
	var r trail.Redactor
	for in, want := range map[string]string{
		"nothing to see":                        "nothing to see",
		"sk-short":                              "sk-short",
		"task-0123456789abcdef0123":             "task-0123456789abcdef0123",
		"key sk-0123456789abcdef0123, ok":       "key sk-" + trail.Redacted + ", ok",
		"Authorization: Bearer abc.def-ghi_jkl": "Authorization: Bearer " + trail.Redacted,
		"AKIAIOSFODNN7EXAMPLE":                  "AKIA" + trail.Redacted,
	} {
		if got := r.Text(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	a, err := r.Arguments([]byte(`{"b": 1, "a": "x", "api_key": "one"}`))
	if err != nil || string(a.View) != `{"a":"x","api_key":"[redacted]","b":1}` {
		t.Errorf("%s, %v", a.View, err)
	}
	same, _ := r.Arguments([]byte(`{"api_key":"two","a":"\u0078","b":1}`))
	other, _ := r.Arguments([]byte(`{"api_key":"two","a":"y","b":1}`))
	if a.Digest != same.Digest || a.Digest == other.Digest || !strings.HasPrefix(a.Digest, "sha256:") {
		t.Errorf("digests %s, %s, %s", a.Digest, same.Digest, other.Digest)
	}
	long, err := r.Arguments(fmt.Appendf(nil, `{"body":%q}`, strings.Repeat("ü", 1000)))
	if err != nil || len(long.View) > 700 || !json.Valid(long.View) || !strings.Contains(string(long.View), "bytes more") {
		t.Errorf("%s, %v", long.View, err)
	}
	longer, _ := r.Arguments(fmt.Appendf(nil, `{"body":%q}`, strings.Repeat("ü", 1000)+"."))
	if long.Digest == longer.Digest {
		t.Error("the digest is of what was cut")
	}
	for _, bad := range []string{`{`, `{} {}`, `x`} {
		if _, err := r.Arguments([]byte(bad)); !errors.Is(err, trail.ErrInvalidEvent) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if a, err := r.Arguments(nil); err != nil || !a.IsZero() {
		t.Error(a, err)
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	seen := make(map[string]bool)
	for n := range 200 { // base64 has letters of its own
		k, err := trail.GenerateKey("trail.example.com/test")
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, fmt.Sprint(n))
		if err := k.WriteFile(name); err != nil {
			t.Fatal(err)
		}
		again, err := trail.ReadKey(name)
		if err != nil || again.Public() != k.Public() || again.Origin() != "trail.example.com/test" {
			t.Fatalf("%v, %v", again, err)
		}
		public, err := trail.ParsePublicKey(k.Public().String())
		if err != nil || public != k.Public() || public.IsWitness() || public.IsZero() {
			t.Fatalf("%v, %v", public, err)
		}
		seen[public.String()] = true
		data, _ := os.ReadFile(name)
		private := strings.TrimSpace(string(data))
		text, _ := json.Marshal(k)
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k)
		for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s %q %x %d", k, k, k, k, k, k, k), string(text), log.String(), k.String()} {
			if strings.Contains(s, private) || strings.Contains(s, private[len(private)-40:]) {
				t.Fatalf("%s prints the key", s)
			}
		}
	}
	if len(seen) != 200 {
		t.Error("two keys are the same")
	}
	k, _ := trail.GenerateKey("a")
	name := filepath.Join(dir, "k")
	if err := k.WriteFile(name); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(name); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := k.WriteFile(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.ReadKey(name); !errors.Is(err, trail.ErrKey) || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("a key that others can read: %v", err)
	}
	if _, err := trail.ReadKey(dir); !errors.Is(err, trail.ErrKey) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := trail.ReadKey(name + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := new(trail.Key).WriteFile(name + "y"); !errors.Is(err, trail.ErrKey) {
		t.Errorf("an empty key: %v", err)
	}
	for _, bad := range []string{"", "two words", "a+b"} {
		if _, err := trail.GenerateKey(bad); err == nil {
			t.Errorf("the name %q", bad)
		}
	}
	text := k.Public().String()
	for _, bad := range []string{"", "x", text[:len(text)-4], strings.Replace(text, "a+", "b+", 1), "a+00000000+AAAA"} {
		if _, err := trail.ParsePublicKey(bad); !errors.Is(err, trail.ErrKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestEventsAreStable(t *testing.T) {
	e := event(1)
	e.Attrs = map[string]string{"b": "2", "a": "1"}
	got, err := json.Marshal(trail.Record{Seq: 5, Event: e})
	const want = `{"seq":5,"v":1,"kind":"tool.call","time":"2026-03-01T12:00:01Z","actor":"agent/inbox","agent":"inbox","tool":"GMAIL_SEND_EMAIL","arguments":{"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000001","view":{"to":"ann@example.com","subject":"hello"}},"decision":"allow","outcome":"ok","id":"1","request_id":"req_00000001","tool_call_id":"call_A1b2C3d4","log_id":"log_x1y2z3","attrs":{"a":"1","b":"2"}}`
	if err != nil || string(got) != want {
		t.Errorf("%s\n%v", got, err)
	}
	var r trail.Record
	later := strings.Replace(want, `"kind"`, `"of_a_later_version":{"x":[1]},"kind"`, 1)
	if err := json.Unmarshal([]byte(later), &r); err != nil || r.Seq != 5 || r.Event.Tool != e.Tool {
		t.Errorf("with a member of a later version: %+v, %v", r, err)
	}
	for _, bad := range []string{strings.Replace(want, `"v":1`, `"v":2`, 1), strings.Replace(want, `"v":1,`, ``, 1), strings.Replace(want, `"seq":5,`, ``, 1), strings.Replace(want, `"seq":5,`, `"seq":-5,`, 1), `[]`, `{`} {
		if err := r.UnmarshalJSON([]byte(bad)); !errors.Is(err, trail.ErrInvalidEvent) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestExports(t *testing.T) {
	w := create(t, trail.Config{})
	w.record(t, 0, 1)
	denied := event(1)
	denied.Decision, denied.Outcome, denied.Message, denied.Subject, denied.SessionID = trail.DecisionDeny, "", "not <allowed>", "mailbox/ann", "s1"
	failed := trail.Event{Kind: trail.KindRemedyApply, Time: event(2).Time, Outcome: trail.OutcomeError, ID: "ssh.root_login"}
	for _, e := range []trail.Event{denied, failed} {
		if err := w.log.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	r := w.reader(t)
	var lines, ocsf bytes.Buffer
	if err := errors.Join(trail.WriteJSONLines(&lines, r.Records(t.Context(), trail.Query{})), trail.WriteOCSF(&ocsf, w.key.Origin(), r.Records(t.Context(), trail.Query{}))); err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for line := range strings.Lines(lines.String()) {
		var rec trail.Record
		if err := json.Unmarshal([]byte(line), &rec); err != nil || rec.Seq != n {
			t.Error(line, err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%s", lines.String())
	}
	var list []map[string]any
	for line := range strings.Lines(ocsf.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		// What the class requires: OCSF 1.6, API Activity.
		for _, name := range []string{"activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id", "src_endpoint", "time", "type_uid"} {
			if _, ok := m[name]; !ok {
				t.Errorf("%s is missing in %s", name, line)
			}
		}
		if m["type_uid"].(float64) != m["class_uid"].(float64)*100+m["activity_id"].(float64) {
			t.Error(line)
		}
		list = append(list, m)
	}
	for i, want := range []struct {
		status, action any
		operation      string
	}{{1.0, 1.0, "GMAIL_SEND_EMAIL"}, {2.0, 2.0, "GMAIL_SEND_EMAIL"}, {2.0, nil, "remedy.apply"}} {
		m := list[i]
		if m["status_id"] != want.status || m["action_id"] != want.action || m["api"].(map[string]any)["operation"] != want.operation {
			t.Errorf("%v", m)
		}
		if uid := m["metadata"].(map[string]any)["uid"]; uid != fmt.Sprintf("trail.example.com/test#%d", i) {
			t.Errorf("uid %v", uid)
		}
	}
	full := &writer{room: 10}
	if err := trail.WriteJSONLines(full, r.Records(t.Context(), trail.Query{})); !errors.Is(err, errFull) {
		t.Errorf("a full disk: %v", err)
	}
}

// The handler keeps the rules of slog.
func TestHandler(t *testing.T) {
	var b bytes.Buffer
	h := trail.NewHandler(&trail.Lines{W: &b}, slog.LevelDebug)
	results := func() []map[string]any {
		var list []map[string]any
		for line := range strings.Lines(b.String()) {
			var e trail.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			m := map[string]any{slog.MessageKey: e.Message, slog.LevelKey: e.Attrs["level"]}
			if !e.Time.IsZero() {
				m[slog.TimeKey] = e.Time
			}
			for name, v := range e.Attrs {
				at := m
				words := strings.Split(name, ".")
				for _, w := range words[:len(words)-1] {
					if at[w] == nil {
						at[w] = make(map[string]any)
					}
					at = at[w].(map[string]any)
				}
				at[words[len(words)-1]] = v
			}
			list = append(list, m)
		}
		return list
	}
	if err := slogtest.TestHandler(h, results); err != nil {
		t.Error(err)
	}
}

func TestHandlerFillsInTheEvent(t *testing.T) {
	w := create(t, trail.Config{})
	l := slog.New(trail.NewHandler(w.log, nil)).With("agent", "inbox", "request_id", "r1").WithGroup("g").With("a", 1)
	l.Debug("not recorded")
	l.Warn("token "+secret, "tool", "in a group", "level", "in a group", "password", "hunter2")
	slog.New(trail.NewHandler(w.log, nil)).Error("x", "tool", "T", "level", "mine", "t", time.Unix(0, 0).UTC())
	events, err := allEvents(t, w)
	if err != nil || len(events) != 2 {
		t.Fatal(events, err)
	}
	e := events[0]
	if e.Kind != trail.KindMessage || e.Agent != "inbox" || e.RequestID != "r1" || e.Tool != "" || strings.Contains(e.Message, secret) ||
		e.Attrs["level"] != "WARN" || e.Attrs["g.a"] != "1" || e.Attrs["g.tool"] != "in a group" || e.Attrs["g.password"] != trail.Redacted {
		t.Errorf("%+v", e)
	}
	if e := events[1]; e.Tool != "T" || e.Attrs["level"] != "ERROR" {
		t.Errorf("%+v", e)
	}
}
