package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// What makes no sense is refused before anything is touched.
func TestDrillUsage(t *testing.T) {
	some := []string{"drill", "--state-dir", t.TempDir(), "--container", "agent", "--docker-host", "unix:///nowhere/engine.sock"}
	for name, args := range map[string][]string{
		"nothing to stop":                    {},
		"a canary, and what is real":         {"--canary", "bird", "--real"},
		"what is real, and broken":           {"--real", "--variant", "docker-hung"},
		"no such variant":                    {"--canary", "bird", "--variant", "x"},
		"one of several that is none":        {"--canary", "bird", "--variant", "docker-hung,x"},
		"one of several twice":               {"--canary", "bird", "--variant", "docker-hung,docker-hung"},
		"nothing broken, and something":      {"--canary", "bird", "--variant", "normal,docker-hung"},
		"none":                               {"--canary", "bird", "--variant", ""},
		"all, and another":                   {"--canary", "bird", "--variant", "all,docker-hung"},
		"no account that cannot be revoked":  {"--canary", "bird", "--variant", "composio-down"},
		"nor at once with something else":    {"--canary", "bird", "--variant", "composio-down,docker-hung"},
		"nor in a row, though it might be":   {"--canary", "bird", "--variant", "all", "--composio-key-file", "key"},
		"the agent's name at the gateway":    {"--canary", "bird", "--canary-agent", "agent"},
		"a form of what is no report":        {"--canary", "bird", "--format", "sarif"},
		"a flag that there is not":           {"--canary", "bird", "--no"},
		"nobody knows which agent is meant":  {"--canary", "bird", "--container", "other"},
		"nobody knows which agent it is for": {"--real", "--container", "other"},
	} {
		if code := run(t.Context(), append(some, args...), func(string) string { return "" }, io.Discard, io.Discard); code != exitUsage {
			t.Errorf("%s: exit %d", name, code)
		}
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"drill", "-h"}, func(string) string { return "" }, &out, io.Discard); code != exitPass {
		t.Errorf("-h: exit %d", code)
	}
	for _, v := range variants {
		if !strings.Contains(out.String(), v.name) || !strings.Contains(out.String(), v.what) {
			t.Errorf("-h does not say what %s is", v.name)
		}
	}
}

// Variants that are in effect at once have one name, whatever order they are
// given in, by which they are found again.
func TestVariantsAtOnce(t *testing.T) {
	v := variantOf("trail-down,docker-hung")
	if v == nil || v.name != "docker-hung.trail-down" || v.accounts {
		t.Fatalf("%+v", v)
	}
	if again := variantOf(v.name); again == nil || again.name != v.name || again.what != v.what || !strings.Contains(v.what, variantOf("trail-down").what) {
		t.Errorf("%+v", again)
	}
}

// While the agent is stopped nothing is rehearsed.
func TestDrillWhileTheAgentIsStopped(t *testing.T) {
	p := &program{stateDir: filepath.Join(t.TempDir(), "state"), stderr: io.Discard, getenv: func(string) string { return "" }}
	fence, err := p.fence()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fence.Engage(t.Context(), "inbox", "a test"); err != nil {
		t.Fatal(err)
	}
	if s, err := p.newRehearsal(t.Context(), "inbox", canary{container: "bird"}, variantOf("normal")); !errors.Is(err, killswitch.ErrEngaged) {
		t.Errorf("%+v, %v", s, err)
	}
}

// What was seen of a drill says what was broken and how, what cannot be
// confirmed, and when what can was.
func TestWriteDrill(t *testing.T) {
	d := &killswitch.Drill{
		Variant: "composio-down", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Passed: true,
		Broken: []string{"composio.revoke", "composio.accounts"}, Lost: []string{"composio"},
		Targets: []killswitch.TargetResult{
			{Name: "egress", State: killswitch.Confirmed, ConfirmedAfter: 81 * time.Millisecond},
			{
				Name: "composio", Tried: []killswitch.Attempt{{Actuator: "composio.revoke", Error: "composio: context deadline exceeded", Returned: time.Second}},
				Observers: []killswitch.LookResult{{Observer: "composio.accounts", Looks: 1, Error: "nobody answers"}},
			},
		},
	}
	var out bytes.Buffer
	p := &program{stdout: &out, format: "text"}
	if code, err := p.shown(d, nil); code != exitPass || err != nil {
		t.Errorf("exit %d, %v", code, err)
	}
	for _, want := range []string{
		"Drill composio-down of a canary, 2026-03-01T12:00:00Z", "egress       confirmed off after 81ms", "? composio",
		"composio.revoke: composio: context deadline exceeded", "composio.revoke (context deadline exceeded), composio.accounts (nobody answers)", "not to be confirmed here: composio", "▸ Passed. That is: what is on this machine is off",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	d.Passed, d.Why, d.Left = false, []string{"target egress: it is failed"}, []string{"a rule"}
	out.Reset()
	if code, err := p.shown(d, killswitch.ErrDrill); code != exitFail || err != nil || !strings.Contains(out.String(), "NOT PASSED") || !strings.Contains(out.String(), "a rule") {
		t.Errorf("exit %d, %v:\n%s", code, err, out.String())
	}
	if code, err := p.shown(d, errors.Join(killswitch.ErrDrill, killswitch.ErrNotDurable)); code != exitFail || !errors.Is(err, killswitch.ErrNotDurable) {
		t.Errorf("what was not kept: exit %d, %v", code, err)
	}
	if code, err := p.shown(nil, context.Canceled); code != exitFail || err == nil {
		t.Errorf("no drill: exit %d, %v", code, err)
	}
}
