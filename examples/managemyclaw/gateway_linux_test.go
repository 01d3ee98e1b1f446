package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
	"github.com/managemyclaw/hardshell/killswitch"
)

const toolVersion = "20260902_00"

// An office is Composio, a policy, and what a gateway needs.
type office struct {
	composio            *composiotest.Server
	dir, state          string
	policyFile, keyFile string
	token, probe        composio.Secret
	policy              gateway.Policy
}

func newOffice(t *testing.T) *office {
	t.Helper()
	dir := t.TempDir()
	o := &office{
		composio: composiotest.New(composiotest.Config{}), dir: dir, state: filepath.Join(dir, "state"),
		policyFile: filepath.Join(dir, "policy.json"), keyFile: filepath.Join(dir, "composio.key"),
	}
	for slug, tag := range map[string]string{"GMAIL_FETCH_EMAILS": "readOnlyHint", "GMAIL_GET_PROFILE": "readOnlyHint", "GMAIL_DELETE_MESSAGE": "destructiveHint"} {
		o.composio.AddTool(composiotest.Tool{Slug: slug, Version: toolVersion, Tags: []string{tag}, Input: map[string]any{"type": "object", "properties": map[string]any{}}})
	}
	o.composio.AddAccount(composiotest.Account{ID: "ca_mail", UserID: "ann", Toolkit: "gmail"})
	if err := o.composio.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.composio.Close() })
	var hash, probeHash gateway.TokenHash
	o.token, hash = gateway.NewToken()
	o.probe, probeHash = gateway.NewToken()
	o.policy = gateway.Policy{Agents: map[string]gateway.Agent{"inbox": {
		Tokens: []gateway.TokenHash{hash, probeHash}, UserID: "ann", Accounts: map[string]string{"gmail": "ca_mail"},
		Tools: map[string]gateway.Grant{
			"GMAIL_FETCH_EMAILS":   {Version: toolVersion, Class: composio.ClassRead},
			"GMAIL_DELETE_MESSAGE": {Version: toolVersion, Class: composio.ClassDestructive},
		},
		Breaker: gateway.Limit{Calls: 2, Per: time.Hour},
	}}}
	o.write(t)
	o.file(t, o.keyFile, composiotest.ProjectKey+"\n", 0o600)
	return o
}

func (o *office) file(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func (o *office) write(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(&o.policy)
	if err != nil {
		t.Fatal(err)
	}
	o.file(t, o.policyFile, string(text), 0o644)
}

func (o *office) args(command string, more ...string) []string {
	return append([]string{command, "--policy", o.policyFile, "--composio-key-file", o.keyFile, "--composio-url", o.composio.URL, "--state-dir", o.state}, more...)
}

// A service is the command gateway while it runs.
type service struct {
	office *office
	url    string
	out    *said
	stop   func() int // interrupts it and returns its exit status
}

// said is what the program has said so far, on both outputs.
type said struct {
	lines chan struct{} // has room for one
	tee
}

func newSaid() *said {
	s := &said{lines: make(chan struct{}, 1)}
	s.saw = func(string) {
		select {
		case s.lines <- struct{}{}:
		default:
		}
	}
	return s
}

func (s *said) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// await waits until it has said what matches, and returns the groups of that.
func (s *said) await(t *testing.T, pattern string) []string {
	t.Helper()
	re, deadline := regexp.MustCompile(pattern), time.After(30*time.Second)
	for {
		if m := re.FindStringSubmatch(s.text()); m != nil {
			return m
		}
		select {
		case <-s.lines:
		case <-deadline:
			t.Fatalf("it does not say %s:\n%s", pattern, s.text())
		}
	}
}

// start runs the command until the test ends or stop is called.
func (o *office) start(t *testing.T, more ...string) *service {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &service{office: o, out: newSaid()}
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, o.args("gateway", append([]string{"--listen", "127.0.0.1:0"}, more...)...), func(string) string { return "" }, s.out, s.out)
		s.out.Write([]byte("(ended)\n"))
	}()
	code, done := 0, false
	s.stop = func() int {
		cancel()
		if !done {
			code, done = <-ended, true
		}
		return code
	}
	t.Cleanup(func() { s.stop() })
	m := s.out.await(t, `at (http://\S+),|\(ended\)`)
	if m[1] == "" {
		t.Fatalf("it ended:\n%s", s.out.text())
	}
	s.url = m[1]
	return s
}

// reset does what an operator does who has looked, of an agent that has nothing
// but the gateway.
func (o *office) reset(t *testing.T, agent string, epoch uint64) {
	t.Helper()
	const secret = "a second secret"
	if err := killswitch.SetResetSecret(o.state, agent, secret); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	sw, err := killswitch.New(killswitch.Config{Agent: agent, Dir: o.state, Trail: trail.Discard, Targets: []killswitch.Target{{
		Name: "nothing", Ladder: []killswitch.Rung{one(nothing{})}, Observers: []killswitch.Observer{gone{}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := sw.Reset(t.Context(), epoch, secret); err != nil {
		t.Fatal(err)
	}
}

// nothing is what there is to stop of an agent that does not run, and is gone.
type (
	nothing struct{}
	gone    struct{}
)

func (nothing) Name() string                                      { return "nothing" }
func (nothing) Do(context.Context) error                          { return nil }
func (gone) Name() string                                         { return "gone" }
func (gone) Remaining(context.Context) (map[string]string, error) { return nil, nil }

// call calls a tool over REST and returns the status.
func (s *service) call(t *testing.T, tool, token string) int {
	t.Helper()
	body := fmt.Sprintf(`{"user_id":"ann","version":%q,"arguments":{}}`, toolVersion)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/v3.1/tools/execute/"+tool, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("x-api-key", token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

func (s *service) want(t *testing.T, tool string, status int) {
	t.Helper()
	if got := s.call(t, tool, s.office.token.Reveal()); got != status {
		t.Errorf("%s: %d, want %d", tool, got, status)
	}
}

// records verifies the trail and returns what is in it, by reason.
func (o *office) records(t *testing.T, public string) (calls int, reasons map[string]int) {
	t.Helper()
	key, err := trail.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	dir := os.DirFS(filepath.Join(o.state, "gateway-trail"))
	if sum, err := (&trail.Verifier{Key: key}).Verify(t.Context(), dir); err != nil || sum.Records == 0 {
		t.Fatalf("the trail: %+v, %v", sum, err)
	}
	r, err := trail.OpenReader(t.Context(), dir, key)
	if err != nil {
		t.Fatal(err)
	}
	reasons = make(map[string]int)
	for rec, err := range r.Records(t.Context(), trail.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		e := rec.Event
		if e.Kind == trail.KindToolCall && e.Decision == trail.DecisionAllow && e.Outcome == trail.OutcomeOK {
			calls++
		}
		if reason, ok := e.Attrs["reason"]; ok {
			reasons[reason]++
		}
		if text, err := json.Marshal(e); err != nil || strings.Contains(string(text), o.token.Reveal()) || strings.Contains(string(text), composiotest.ProjectKey) {
			t.Errorf("a secret is in the trail, or %v", err)
		}
	}
	return calls, reasons
}

// What the policy allows is done, and nothing else; a breaker that trips stops
// the agent beyond a restart; and all of it is on record.
func TestGateway(t *testing.T) {
	o := newOffice(t)
	s := o.start(t)
	public := s.out.await(t, `public key (\S+)`)[1]
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusOK)
	s.want(t, "GMAIL_GET_PROFILE", http.StatusForbidden)
	if got := s.call(t, "GMAIL_FETCH_EMAILS", composiotest.ProjectKey); got != http.StatusUnauthorized {
		t.Errorf("with another token: %d", got)
	}

	// The policy is read anew on SIGHUP, all of it or nothing.
	o.file(t, o.policyFile, `{"schema":"hardshell.policy/v1","agents":{}}`, 0o644)
	hangUp(t)
	s.out.await(t, "the old one holds: gateway: policy: agents: there is none")
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusOK)
	o.policy.Agents["inbox"].Tools["GMAIL_GET_PROFILE"] = gateway.Grant{Version: toolVersion, Class: composio.ClassRead}
	o.write(t)
	hangUp(t)
	s.out.await(t, "policy taken on: sha256:")
	s.want(t, "GMAIL_GET_PROFILE", http.StatusOK)

	for range 2 {
		s.want(t, "GMAIL_DELETE_MESSAGE", http.StatusOK)
	}
	s.want(t, "GMAIL_DELETE_MESSAGE", http.StatusForbidden)
	s.out.await(t, `agent inbox is stopped: .* managemyclaw reset --agent inbox --epoch 1`)
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusForbidden)
	// Once it is reset, it may go on, in the gateway that runs; and not for long.
	o.reset(t, "inbox", 1)
	s.out.await(t, "agent inbox was reset, and may go on")
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusOK)
	for range 2 {
		s.want(t, "GMAIL_DELETE_MESSAGE", http.StatusOK)
	}
	s.want(t, "GMAIL_DELETE_MESSAGE", http.StatusForbidden)
	s.out.await(t, `agent inbox is stopped: .* managemyclaw reset --agent inbox --epoch 2`)
	if code := s.stop(); code != exitPass {
		t.Errorf("status %d:\n%s", code, s.out.text())
	}
	first := s.out.text()

	s = o.start(t)
	s.out.await(t, "agent inbox is stopped: ")
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusForbidden)
	o.reset(t, "inbox", 2)
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusOK)
	if err := os.RemoveAll(filepath.Join(o.state, "fence")); err != nil {
		t.Fatal(err)
	}
	s.want(t, "GMAIL_FETCH_EMAILS", http.StatusForbidden) // nobody can tell
	if code := s.stop(); code != exitPass {
		t.Errorf("status %d:\n%s", code, s.out.text())
	}

	executed := o.composio.Executions()
	calls, reasons := o.records(t, public)
	if calls != len(executed) || calls != 9 {
		t.Errorf("%d calls on record, %d executed, want 9", calls, len(executed))
	}
	for _, reason := range []gateway.Reason{gateway.ReasonTool, gateway.ReasonUnauthenticated, gateway.ReasonTripped, gateway.ReasonFenced} {
		if reasons[string(reason)] == 0 {
			t.Errorf("no denial for %q on record: %v", reason, reasons)
		}
	}
	for _, secret := range []string{o.token.Reveal(), composiotest.ProjectKey} {
		if strings.Contains(first+s.out.text(), secret) {
			t.Error("a secret is shown")
		}
	}
	key, err := os.Lstat(filepath.Join(o.state, "gateway-trail.key"))
	if err != nil || key.Mode().Perm() != 0o600 {
		t.Errorf("the trail's key: %v, %v", key, err)
	}
}

func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// A trail without its key, or a key without its trail, is not replaced by new
// ones.
func TestGatewayTrailGone(t *testing.T) {
	o := newOffice(t)
	o.start(t).stop()
	refused := func(want string) {
		t.Helper()
		runProgram(t, o.args("gateway", "--listen", "127.0.0.1:0")...).want(t, exitFail, "", want)
	}
	dir, key := filepath.Join(o.state, "gateway-trail"), filepath.Join(o.state, "gateway-trail.key")
	for _, name := range []string{dir, key} {
		if err := os.Rename(name, name+".away"); err != nil {
			t.Fatal(err)
		}
		if name == dir {
			refused("bring it back")
		} else {
			refused("but not the trail's key")
		}
		if err := os.Rename(name+".away", name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	refused("gateway-trail.key")
}

// Whoever sets the gateway up wrongly is told what is wrong.
func TestGatewayUsage(t *testing.T) {
	o := newOffice(t)
	open, two, empty := filepath.Join(o.dir, "open.key"), filepath.Join(o.dir, "two.key"), filepath.Join(o.dir, "empty.key")
	o.file(t, open, composiotest.ProjectKey, 0o644)
	o.file(t, two, composiotest.ProjectKey+"\n"+composiotest.UserKey, 0o600)
	o.file(t, empty, "\n", 0o600)
	probe := filepath.Join(o.dir, "probe.token")
	stranger, _ := gateway.NewToken()
	o.file(t, probe, stranger.Reveal(), 0o600)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no policy":           {[]string{"gateway", "--composio-key-file", o.keyFile}, "with --policy"},
		"no key":              {[]string{"gateway", "--policy", o.policyFile}, "with --composio-key-file"},
		"every address":       {o.args("gateway", "--listen", "0.0.0.0:8787"), "name the one at which agents are"},
		"every IPv6 address":  {o.args("gateway", "--listen", "[::]:8787"), "name the one at which agents are"},
		"every mapped one":    {o.args("gateway", "--listen", "[::ffff:0.0.0.0]:8787"), "name the one at which agents are"},
		"only a port":         {o.args("gateway", "--listen", ":8787"), "is not an address and a port"},
		"a name":              {o.args("gateway", "--listen", "localhost:8787"), "is not an address and a port"},
		"an empty host":       {o.args("gateway", "--host", ""), "a name is missing"},
		"a key that is open":  {o.args("gateway", "--composio-key-file", open), "chmod 600 " + open},
		"two keys":            {o.args("gateway", "--composio-key-file", two), "does not hold one secret"},
		"an empty key":        {o.args("gateway", "--composio-key-file", empty), "does not hold one secret"},
		"no key there":        {o.args("gateway", "--composio-key-file", o.dir+"/none"), "none: no such file"},
		"no policy there":     {o.args("gateway", "--policy", o.dir+"/none"), "none: no such file"},
		"no policy in it":     {o.args("gateway", "--policy", o.keyFile), "gateway: policy: "},
		"Composio in clear":   {o.args("gateway", "--composio-url", "http://composio.example"), "BaseURL"},
		"an argument":         {o.args("gateway", "reset"), `unexpected argument "reset"`},
		"a probe alone":       {[]string{"security-audit", "--probe-token-file", probe}, "--gateway-url"},
		"a stranger's probe":  {o.args("security-audit", "--gateway-url", "http://127.0.0.1:8787", "--probe-token-file", probe), "is no agent's in " + o.policyFile},
		"no probe there":      {o.args("security-audit", "--gateway-url", "http://127.0.0.1:8787", "--probe-token-file", o.dir+"/none"), "none: no such file"},
		"a key to audit with": {o.args("security-audit", "--composio-key-file", empty), "does not hold one secret"},
		"Composio nowhere":    {o.args("security-audit", "--gateway-url", "http://127.0.0.1:8787", "--composio-url", "backend"), "https://host"},
	} {
		t.Run(name, func(t *testing.T) {
			out := runProgram(t, test.args...)
			out.want(t, exitUsage, "", test.want)
			if strings.Count(out.stderr, "\n") != 1 || strings.Contains(out.stderr, composiotest.ProjectKey) || strings.Contains(out.stderr, stranger.Reveal()) {
				t.Errorf("more than a line, or a secret:\n%s", out.stderr)
			}
			if _, err := os.Lstat(o.state); err == nil {
				t.Error("something was made")
			}
		})
	}
}

// A gateway that cannot begin leaves with what is wrong, and with status 1.
func TestGatewayCannotBegin(t *testing.T) {
	o := newOffice(t)
	s := o.start(t)
	runProgram(t, o.args("gateway", "--listen", "127.0.0.1:0")...).want(t, exitFail, "", "in use")
	other := *o
	other.state = filepath.Join(o.dir, "other")
	runProgram(t, other.args("gateway", "--listen", strings.TrimPrefix(s.url, "http://"))...).want(t, exitFail, "", "address already in use")
	o.policy.Agents["inbox"].Tools["GMAIL_NO_SUCH_TOOL"] = gateway.Grant{Version: toolVersion, Class: composio.ClassRead}
	o.write(t)
	other.state = filepath.Join(o.dir, "third")
	runProgram(t, other.args("gateway", "--listen", "127.0.0.1:0")...).want(t, exitFail, "", "GMAIL_NO_SUCH_TOOL")
}

// A new token is one that its hash, as shown, belongs to.
func TestGatewayToken(t *testing.T) {
	out := runProgram(t, "gateway", "token")
	m := regexp.MustCompile(`(hsg_\S+)\n.*(sha256:\S+)`).FindStringSubmatch(out.stdout)
	if out.code != exitPass || m == nil || gateway.HashToken(composio.NewSecret(m[1])).String() != m[2] {
		t.Errorf("status %d: %q %q", out.code, out.stdout, out.stderr)
	}
	if again := runProgram(t, "gateway", "token"); again.stdout == out.stdout {
		t.Error("the same token twice")
	}
}
