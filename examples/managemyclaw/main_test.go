package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mainVar in the environment makes the test binary the program itself.
const mainVar = "HARDSHELL_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVar) != "" {
		main()
	}
	os.Exit(m.Run())
}

// An outcome is what a user sees of a run.
type outcome struct {
	code           int
	stdout, stderr string
}

// runProgram runs the program in this process, within a time that is generous.
func runProgram(t *testing.T, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, func(string) string { return "" }, &stdout, &stderr)
	if ctx.Err() != nil {
		t.Errorf("%q did not end in time", args)
	}
	return outcome{code, stdout.String(), stderr.String()}
}

// notPass is the exit status of an audit in which the containers are not to
// blame: 3, or 1 where the firewall of the machine that runs the test is.
const notPass = -1

// want asserts what a user is told. No text may hold an escape sequence.
func (o outcome) want(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	right := o.code == code || code == notPass && (o.code == exitFail || o.code == exitUnknown)
	if !right || !strings.Contains(unwrapped(o.stdout), stdout) || !strings.Contains(unwrapped(o.stderr), stderr) {
		t.Errorf("exit status %d, want %d; %q in stdout and %q in stderr wanted:\n--- stdout\n%s\n--- stderr\n%s",
			o.code, code, stdout, stderr, o.stdout, o.stderr)
	}
	for _, bad := range []string{"\x1b", "panic", "goroutine"} {
		if strings.Contains(o.stdout+o.stderr, bad) {
			t.Errorf("the output holds %q:\n%s%s", bad, o.stdout, o.stderr)
		}
	}
}

// unwrapped undoes the breaking of lines.
func unwrapped(s string) string { return strings.Join(strings.Fields(s), " ") }

// Whoever uses the program wrongly is told what is wrong, on stderr alone, with
// status 2, and nothing is done.
func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	malformed := file("malformed.json", `[{"id":`)
	misspelt := file("misspelt.json", `[{"id":"a.b","owner":"o","reason":"r","expires":"2099-01-01","scopes":"*"}]`)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no command":             {nil, "usage: managemyclaw COMMAND"},
		"unknown command":        {[]string{"audit"}, `unknown command "audit"`},
		"unknown flag":           {[]string{"security-audit", "--fix"}, "not defined: -fix (see managemyclaw security-audit -h)"},
		"a flag of the other":    {[]string{"security-audit", "--plan"}, "not defined: -plan"},
		"unknown format":         {[]string{"security-audit", "--format", "yaml"}, "use text, json, sarif or junit"},
		"a plan as SARIF":        {[]string{"harden", "--plan", "--format", "sarif"}, "a plan is text or json, not sarif"},
		"an argument":            {[]string{"harden", "openclaw"}, `unexpected argument "openclaw"`},
		"negative timeout":       {[]string{"security-audit", "--timeout", "-1s"}, "must be positive"},
		"timeout without unit":   {[]string{"security-audit", "--timeout", "10"}, "parse error"},
		"writable root":          {[]string{"security-audit", "--writable", "/"}, "below the root"},
		"relative writable path": {[]string{"security-audit", "--writable", "data"}, "absolute"},
		"host without scheme":    {[]string{"security-audit", "--docker-host", "/run/docker.sock"}, "unix:///path"},
		"host by ssh":            {[]string{"security-audit", "--docker-host", "ssh://box"}, "run this on that machine"},
		"empty name":             {[]string{"harden", "--container", ""}, "a name is missing"},
		"empty name among names": {[]string{"harden", "--container", "a,,b"}, "a name is missing"},
		"no waivers file":        {[]string{"security-audit", "--waivers", filepath.Join(dir, "none")}, "none: no such file"},
		"waivers a directory":    {[]string{"security-audit", "--waivers", dir}, "is a directory"},
		"malformed waivers":      {[]string{"security-audit", "--waivers", malformed}, "malformed.json: audit: waivers: not a JSON array"},
		"misspelt waivers":       {[]string{"harden", "--waivers", misspelt}, `"scopes"`},
	} {
		t.Run(name, func(t *testing.T) {
			o := runProgram(t, test.args...)
			o.want(t, exitUsage, "", test.want)
			if o.stdout != "" {
				t.Errorf("stdout: %s", o.stdout)
			}
			if len(test.args) > 1 && strings.Count(o.stderr, "\n") != 1 {
				t.Errorf("more than a line:\n%s", o.stderr)
			}
		})
	}
}

// Help that was asked for is no error.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"--help"}, {"help"}} {
		runProgram(t, args...).want(t, exitPass, "security-audit judge the machine", "")
	}
	runProgram(t, "security-audit", "-h").want(t, exitPass, "-docker-host URL", "")
	runProgram(t, "harden", "--help").want(t, exitPass, "-plan show what would be done", "")
}

// The same container named twice is one; flags add up.
func TestContainers(t *testing.T) {
	p := &program{getenv: func(string) string { return "" }}
	if err := p.parse("harden", []string{"--container", "b, a", "--container", "c", "--container", "a"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.containers, " "); got != "b a c" {
		t.Errorf("containers %q", got)
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[2Jb\u202ec\td\n"); got != "a\ufffd[2Jb\ufffdc\ufffdd\n" {
		t.Errorf("%q", got)
	}
}
