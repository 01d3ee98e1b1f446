package trail_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// exampleDir returns a directory for an example, and what removes it.
func exampleDir() (string, func()) {
	dir, err := os.MkdirTemp("", "trail")
	if err != nil {
		panic(err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }
}

// A log is made once, with a key of its own, and opened from then on. A record
// is durable when the call returns.
func Example() {
	ctx := context.Background()
	dir, done := exampleDir()
	defer done()

	// Once: the key, where the agent cannot read it, and the log.
	keyFile := filepath.Join(dir, "trail.key")
	key, err := trail.GenerateKey("trail.example.com/agent-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := key.WriteFile(keyFile); err != nil {
		fmt.Println(err)
		return
	}
	log, err := trail.Create(filepath.Join(dir, "trail"), key, trail.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}

	var redact trail.Redactor
	args, err := redact.Arguments([]byte(`{"to":"ann@example.com","api_key":"s3cret"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	err = log.Record(ctx, trail.Event{
		Kind: trail.KindToolCall, Actor: "agent/inbox", Agent: "inbox",
		Tool: "GMAIL_SEND_EMAIL", Arguments: args, Decision: trail.DecisionDeny, Message: "not on the list",
	})
	fmt.Println("recorded:", err)
	if err := log.Close(); err != nil {
		fmt.Println(err)
		return
	}

	// From anywhere, with the public key: is it what was written?
	v := trail.Verifier{Key: key.Public()}
	files := os.DirFS(filepath.Join(dir, "trail"))
	sum, err := v.Verify(ctx, files)
	fmt.Println("verified:", sum.Records, err)

	r, err := trail.OpenReader(ctx, files, key.Public())
	if err != nil {
		fmt.Println(err)
		return
	}
	for rec, err := range r.Records(ctx, trail.Query{Decision: trail.DecisionDeny}) {
		fmt.Println(rec.Seq, rec.Event.Agent, rec.Event.Tool, string(rec.Event.Arguments.View), rec.Event.Message, err)
	}
	// Output:
	// recorded: <nil>
	// verified: 1 <nil>
	// 0 inbox GMAIL_SEND_EMAIL {"api_key":"[redacted]","to":"ann@example.com"} not on the list <nil>
}

// exampleLog returns a log of three records.
func exampleLog(dir string) (*trail.Log, *trail.Key) {
	key, err := trail.GenerateKey("trail.example.com/agent-1")
	if err != nil {
		panic(err)
	}
	log, err := trail.Create(filepath.Join(dir, "trail"), key, trail.Config{})
	if err != nil {
		panic(err)
	}
	for i, tool := range []string{"GMAIL_FETCH_EMAILS", "GMAIL_SEND_EMAIL", "SLACK_POST"} {
		if err := log.Record(context.Background(), trail.Event{
			Kind: trail.KindToolCall, Time: time.Date(2026, 3, 1, 12, i, 0, 0, time.UTC), Actor: "agent/inbox", Agent: "inbox",
			Tool: tool, Decision: trail.DecisionAllow, Outcome: trail.OutcomeOK, RequestID: fmt.Sprint("r", i),
		}); err != nil {
			panic(err)
		}
	}
	return log, key
}

// A log is not made anew where one should be: somebody may have taken it away.
func ExampleOpen() {
	dir, done := exampleDir()
	defer done()
	log, key := exampleLog(dir)

	_, err := trail.Open(filepath.Join(dir, "trail"), key, trail.Config{})
	fmt.Println("a second writer:", errors.Is(err, trail.ErrLocked))
	_ = log.Close()

	log, err = trail.Open(filepath.Join(dir, "trail"), key, trail.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("records:", log.Checkpoint().Size, "cut off:", log.Recovered().Bytes)
	_ = log.Close()

	_, err = trail.Open(filepath.Join(dir, "elsewhere"), key, trail.Config{})
	fmt.Println("no log:", errors.Is(err, fs.ErrNotExist))
	// Output:
	// a second writer: true
	// records: 3 cut off: 0
	// no log: true
}

// A checkpoint that is kept elsewhere tells the log from an old copy of it, and
// from another that was made with the same key.
func ExampleLog_Witness() {
	ctx := context.Background()
	dir, done := exampleDir()
	defer done()
	log, key := exampleLog(dir)

	pin := &trail.PinFile{Path: filepath.Join(dir, "on-another-machine"), Key: key.Public()}
	if _, err := log.Witness(ctx, pin); err != nil {
		fmt.Println(err)
		return
	}
	_ = log.Close()

	// Somebody who has the key writes another history.
	if err := os.RemoveAll(filepath.Join(dir, "trail")); err != nil {
		fmt.Println(err)
		return
	}
	other, err := trail.Create(filepath.Join(dir, "trail"), key, trail.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		if err := other.Record(ctx, trail.Event{Kind: trail.KindToolCall, Tool: "NOTHING_HAPPENED"}); err != nil {
			fmt.Println(err)
		}
	}
	_ = other.Close()

	pinned, err := pin.Read()
	if err != nil {
		fmt.Println(err)
		return
	}
	v := trail.Verifier{Key: key.Public()}
	_, err = v.Verify(ctx, os.DirFS(filepath.Join(dir, "trail")))
	fmt.Println("by itself:", err)
	v.Pinned = []trail.Checkpoint{pinned}
	_, err = v.Verify(ctx, os.DirFS(filepath.Join(dir, "trail")))
	if damage, ok := errors.AsType[*trail.DamageError](err); ok {
		fmt.Println("against the pin:", damage.Kind)
	}
	// Output:
	// by itself: <nil>
	// against the pin: rewritten
}

// The first record that is wrong is named, and in what way.
func ExampleVerifier_Verify() {
	ctx := context.Background()
	dir, done := exampleDir()
	defer done()
	log, key := exampleLog(dir)
	_ = log.Close()

	name := filepath.Join(dir, "trail", "00000000000000000000.seg")
	data, err := os.ReadFile(name)
	if err != nil {
		fmt.Println(err)
		return
	}
	data = []byte(strings.Replace(string(data), "GMAIL_SEND_EMAIL", "GMAIL_READ_EMAIL", 1))
	if err := os.WriteFile(name, data, 0o600); err != nil {
		fmt.Println(err)
		return
	}
	v := trail.Verifier{Key: key.Public()}
	_, err = v.Verify(ctx, os.DirFS(filepath.Join(dir, "trail")))
	if damage, ok := errors.AsType[*trail.DamageError](err); ok {
		fmt.Println(damage.Kind, damage.First)
	}
	// Output:
	// edited 1
}

// A proof is for somebody who has the public key and not the log.
func ExampleReader_Prove() {
	ctx := context.Background()
	dir, done := exampleDir()
	defer done()
	log, key := exampleLog(dir)
	defer log.Close()

	r, err := trail.OpenReader(ctx, os.DirFS(filepath.Join(dir, "trail")), key.Public())
	if err != nil {
		fmt.Println(err)
		return
	}
	proof, err := r.Prove(ctx, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	rec, err := proof.Check(key.Public())
	fmt.Println(rec.Event.Tool, err)

	proof.Record = []byte(strings.Replace(string(proof.Record), "SEND", "READ", 1))
	_, err = proof.Check(key.Public())
	fmt.Println(errors.Is(err, trail.ErrProof))
	// Output:
	// GMAIL_SEND_EMAIL <nil>
	// true
}

func ExampleWriteJSONLines() {
	ctx := context.Background()
	dir, done := exampleDir()
	defer done()
	log, key := exampleLog(dir)
	defer log.Close()
	r, err := trail.OpenReader(ctx, os.DirFS(filepath.Join(dir, "trail")), key.Public())
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := trail.WriteJSONLines(os.Stdout, r.Records(ctx, trail.Query{Tool: "SLACK_POST"})); err != nil {
		fmt.Println(err)
	}
	// Output:
	// {"seq":2,"v":1,"kind":"tool.call","time":"2026-03-01T12:02:00Z","actor":"agent/inbox","agent":"inbox","tool":"SLACK_POST","decision":"allow","outcome":"ok","request_id":"r2"}
}

func ExampleWriteOCSF() {
	ctx := context.Background()
	dir, done := exampleDir()
	defer done()
	log, key := exampleLog(dir)
	defer log.Close()
	r, err := trail.OpenReader(ctx, os.DirFS(filepath.Join(dir, "trail")), key.Public())
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := trail.WriteOCSF(os.Stdout, key.Origin(), r.Records(ctx, trail.Query{Tool: "SLACK_POST"})); err != nil {
		fmt.Println(err)
	}
	// Output:
	// {"class_uid":6003,"class_name":"API Activity","category_uid":6,"category_name":"Application Activity","activity_id":99,"activity_name":"tool.call","type_uid":600399,"time":1772366520000,"severity_id":1,"severity":"Informational","status_id":1,"status":"Success","action_id":1,"action":"Allowed","metadata":{"version":"1.6.0","uid":"trail.example.com/agent-1#2","sequence":2,"correlation_uid":"r2","event_code":"tool.call","log_name":"trail.example.com/agent-1","profiles":["security_control"],"product":{"name":"hardshell","vendor_name":"ManageMyClaw"}},"actor":{"app_name":"inbox","user":{"name":"agent/inbox"}},"api":{"operation":"SLACK_POST","request":{"uid":"r2"}},"src_endpoint":{"name":"inbox"},"unmapped":{"outcome":"ok"}}
}

// A program's own log can go into the trail.
func ExampleNewHandler() {
	l := slog.New(trail.NewHandler(&trail.Lines{W: withoutTime{os.Stdout}}, slog.LevelWarn))
	l.Info("not recorded")
	l.Warn("a burst of deletions", "agent", "inbox", "count", 40)
	// Output:
	// {"v":1,"kind":"log.message","time":"…","agent":"inbox","message":"a burst of deletions","attrs":{"count":"40","level":"WARN"}}
}

// withoutTime replaces the time in lines.
type withoutTime struct{ f *os.File }

func (w withoutTime) Write(p []byte) (int, error) {
	before, rest, _ := strings.Cut(string(p), `"time":"`)
	_, after, _ := strings.Cut(rest, `"`)
	_, err := w.f.WriteString(before + `"time":"…"` + after)
	return len(p), err
}

func ExampleRedactor_Text() {
	r := trail.Redactor{Values: []string{"correct horse"}}
	fmt.Println(r.Text("the password is correct horse, the header Authorization: Bearer abcdef0123456789"))
	// Output:
	// the password is [redacted], the header Authorization: Bearer [redacted]
}

// A key is replaced: the log ends, and another, signed by the new key, continues
// it. Those who know only the old key can follow, and those who know only the new
// one find any change in the old log, also by a thief of its key.
func ExampleLog_HandOver() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "trail")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	old, err1 := trail.GenerateKey("trail.example.com/agent-1/2026")
	next, err2 := trail.GenerateKey("trail.example.com/agent-1/2027")
	log, err3 := trail.Create(filepath.Join(dir, "2026"), old, trail.Config{})
	if err := errors.Join(err1, err2, err3); err != nil {
		fmt.Println(err)
		return
	}
	if err := log.Record(ctx, trail.Event{Kind: trail.KindDrill, Outcome: trail.OutcomeOK}); err != nil {
		fmt.Println(err)
		return
	}
	if err := next.WriteFile(filepath.Join(dir, "2027.key")); err != nil {
		fmt.Println(err)
		return
	}
	log, err = log.HandOver(ctx, filepath.Join(dir, "2027"), next, trail.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer log.Close()

	// Anywhere, with the old key.
	v := trail.Verifier{Key: old.Public(), Live: true}
	logs, err := v.VerifyChain(ctx, os.DirFS(filepath.Join(dir, "2026")), os.DirFS(filepath.Join(dir, "2027")))
	for _, sum := range logs {
		fmt.Println(sum.Key.Name(), sum.Records)
	}
	fmt.Println(err)
	// Output:
	// trail.example.com/agent-1/2026 2
	// trail.example.com/agent-1/2027 1
	// <nil>
}
