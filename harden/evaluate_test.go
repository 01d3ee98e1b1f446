package harden_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

var errLook = errors.New("cannot look")

type runFunc = func(context.Context, *host.View) (harden.Verdict, error)

func check(run runFunc) harden.Check { return harden.New(info("test.check"), run) }

func info(id string) harden.Info { return harden.Info{ID: id, Title: "A test passes"} }

// returns is a check that returns v and err.
func returns(v harden.Verdict, err error) harden.Check {
	return check(func(context.Context, *host.View) (harden.Verdict, error) { return v, err })
}

func pass(l harden.Level) harden.Verdict {
	return harden.Pass(harden.Evidence{Source: "source", Observed: "observed", Level: l})
}

var fail = harden.Fail(harden.Finding{Subject: "subject", Message: "message"})

// A nilError panics when it is asked what it is.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

type panicInfo struct{ harden.Check }

func (panicInfo) Info() harden.Info { panic("no info") }

func TestEvaluate(t *testing.T) {
	requires := func(l harden.Level, v harden.Verdict) harden.Check {
		i := info("test.level")
		i.Requires = l
		return harden.New(i, func(context.Context, *host.View) (harden.Verdict, error) { return v, nil })
	}
	for _, tt := range []struct {
		name   string
		check  harden.Check
		status harden.Status
		reason harden.Reason
		detail string
	}{
		{"a pass", returns(pass(0), nil), harden.StatusPass, "", ""},
		{"a failure", returns(fail, nil), harden.StatusFail, "", ""},
		{"not applicable", returns(harden.NotApplicable("no sshd"), nil), harden.StatusNotApplicable, "", "no sshd"},

		{"no verdict", returns(harden.Verdict{}, nil), harden.StatusUnknown, harden.ReasonUndecided, "the check returned no verdict"},
		{"an error", returns(harden.Verdict{}, errLook), harden.StatusUnknown, harden.ReasonError, "cannot look"},
		{"an error beside a pass", returns(pass(harden.LevelProbed), errLook), harden.StatusUnknown, harden.ReasonError, "cannot look"},
		{"an error beside not applicable", returns(harden.NotApplicable("none"), errLook), harden.StatusUnknown, harden.ReasonError, "cannot look"},
		{"an error beside a failure", returns(fail, errLook), harden.StatusFail, "", "cannot look"},

		{"permission denied", returns(harden.Verdict{}, &fs.PathError{Op: "open", Path: "/f", Err: fs.ErrPermission}), harden.StatusUnknown, harden.ReasonPrivilege, "open /f: permission denied"},
		{"a tool that is missing", returns(harden.Verdict{}, fmt.Errorf("ufw: %w", exec.ErrNotFound)), harden.StatusUnknown, harden.ReasonTool, ""},
		{"not implemented", returns(harden.Verdict{}, harden.ErrNotImplemented), harden.StatusUnknown, harden.ReasonNotImplemented, ""},
		{"no subject", returns(harden.Verdict{}, harden.ErrNoSubject), harden.StatusUnknown, harden.ReasonNoSubject, ""},
		{"unsupported", returns(harden.Verdict{}, errors.ErrUnsupported), harden.StatusUnknown, harden.ReasonUnsupported, ""},
		{"its own deadline", returns(harden.Verdict{}, context.DeadlineExceeded), harden.StatusUnknown, harden.ReasonTimeout, ""},

		{"evidence of the level required", requires(harden.LevelInspected, pass(harden.LevelInspected)), harden.StatusPass, "", ""},
		{"evidence above it", requires(harden.LevelInspected, pass(harden.LevelProbed)), harden.StatusPass, "", ""},
		{"evidence below it", requires(harden.LevelInspected, pass(harden.LevelDeclared)), harden.StatusUnknown, harden.ReasonEvidence, "the evidence is only declared, and the check requires inspected"},
		{"a failure needs no level", requires(harden.LevelProbed, fail), harden.StatusFail, "", ""},

		{"a panic", check(func(context.Context, *host.View) (harden.Verdict, error) { panic("oh") }), harden.StatusUnknown, harden.ReasonPanic, "panic: oh"},
		{"a panic in Info", panicInfo{}, harden.StatusUnknown, harden.ReasonPanic, "panic: no info"},
		{"a panic in the error", returns(harden.Verdict{}, (*nilError)(nil)), harden.StatusUnknown, harden.ReasonPanic, ""},
		{"a panic in the error beside a failure", returns(fail, (*nilError)(nil)), harden.StatusFail, "", ""},
		{"a goroutine that exits", check(func(context.Context, *host.View) (harden.Verdict, error) { runtime.Goexit(); return pass(0), nil }), harden.StatusUnknown, harden.ReasonUndecided, ""},
		{"no function", check(nil), harden.StatusUnknown, harden.ReasonPanic, ""},
		{"no check", nil, harden.StatusUnknown, harden.ReasonError, "harden: nil check"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := harden.Evaluate(t.Context(), new(hosttest.Machine).View(), tt.check, 0)
			assert.Equal(t, tt.status, res.Status)
			assert.Equal(t, tt.reason, res.Reason)
			if tt.detail != "" {
				assert.Equal(t, tt.detail, res.Detail)
			}
			if res.Status != harden.StatusPass {
				assert.Zero(t, res.Level)
			}
			assert.False(t, res.Started.IsZero())
		})
	}
}

func TestEvaluateFindings(t *testing.T) {
	i := info("test.findings")
	i.Severity = harden.SeverityMedium
	findings := []harden.Finding{
		{Subject: "a", Severity: harden.SeverityLow},
		{Subject: "b"},
		{Subject: "c", Severity: harden.SeverityCritical},
		{Subject: "d"},
	}
	v := harden.Fail(findings[0], findings[1:]...)
	c := harden.New(i, func(context.Context, *host.View) (harden.Verdict, error) { return v, nil })
	for range 2 { // the verdict itself is not changed
		res := harden.Evaluate(t.Context(), nil, c, 0)
		assert.Equal(t, []harden.Finding{
			{Subject: "c", Severity: harden.SeverityCritical},
			{Subject: "b", Severity: harden.SeverityMedium},
			{Subject: "d", Severity: harden.SeverityMedium},
			{Subject: "a", Severity: harden.SeverityLow},
		}, res.Findings)
		assert.Equal(t, findings, v.Findings())
	}
}

func TestEvaluatePrivilege(t *testing.T) {
	i := info("test.privilege")
	i.Needs = host.ReadFiles | host.AdminNetwork
	ran := false
	c := harden.New(i, func(context.Context, *host.View) (harden.Verdict, error) {
		ran = true
		return pass(0), nil
	})
	res := harden.Evaluate(t.Context(), (&hosttest.Machine{Lacks: host.AdminNetwork}).View(), c, 0)
	assert.Equal(t, harden.StatusUnknown, res.Status)
	assert.Equal(t, harden.ReasonPrivilege, res.Reason)
	assert.Equal(t, "missing privilege: admin-network (run as root)", res.Detail)
	assert.False(t, ran)
	require.ErrorIs(t, &harden.PrivilegeError{}, fs.ErrPermission)

	assert.Equal(t, harden.StatusPass, harden.Evaluate(t.Context(), new(hosttest.Machine).View(), c, 0).Status)
}

// A nil View is a zero one: no access, and not the local machine.
func TestEvaluateNilView(t *testing.T) {
	res := harden.Evaluate(t.Context(), nil, check(func(_ context.Context, v *host.View) (harden.Verdict, error) {
		_, err := v.ReadFile("/etc/passwd")
		require.ErrorIs(t, err, host.ErrNoAccess)
		return harden.Verdict{}, err
	}), 0)
	assert.Equal(t, harden.StatusUnknown, res.Status)
}

func TestEvaluateTime(t *testing.T) {
	waits := check(func(ctx context.Context, _ *host.View) (harden.Verdict, error) {
		<-ctx.Done()
		return harden.Verdict{}, fmt.Errorf("waiting: %w", ctx.Err())
	})
	release := make(chan struct{})
	deaf := check(func(context.Context, *host.View) (harden.Verdict, error) {
		<-release
		return pass(harden.LevelProbed), nil
	})
	late := check(func(ctx context.Context, _ *host.View) (harden.Verdict, error) {
		time.Sleep(9 * time.Second)
		return pass(0), nil
	})
	for _, tt := range []struct {
		name    string
		check   harden.Check
		timeout time.Duration
		cancel  time.Duration // zero means never
		elapsed time.Duration
		status  harden.Status
		reason  harden.Reason
	}{
		{"in time", late, 10 * time.Second, 0, 9 * time.Second, harden.StatusPass, ""},
		{"too long", waits, time.Second, 0, time.Second, harden.StatusUnknown, harden.ReasonTimeout},
		{"too long by default", waits, 0, 0, harden.DefaultTimeout, harden.StatusUnknown, harden.ReasonTimeout},
		{"a negative timeout is the default", waits, -1, 0, harden.DefaultTimeout, harden.StatusUnknown, harden.ReasonTimeout},
		{"the caller goes away", waits, 0, time.Second, time.Second, harden.StatusUnknown, harden.ReasonCanceled},
		{"deaf, too long", deaf, time.Second, 0, time.Second + 250*time.Millisecond, harden.StatusUnknown, harden.ReasonTimeout},
		{"deaf, and the caller goes away", deaf, 0, time.Second, time.Second + 250*time.Millisecond, harden.StatusUnknown, harden.ReasonCanceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release = make(chan struct{})
				defer close(release)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.cancel > 0 {
					time.AfterFunc(tt.cancel, cancel)
				}
				res := harden.Evaluate(ctx, nil, tt.check, tt.timeout)
				assert.Equal(t, tt.status, res.Status)
				assert.Equal(t, tt.reason, res.Reason)
				assert.GreaterOrEqual(t, res.Elapsed, tt.elapsed)
				assert.Less(t, res.Elapsed, tt.elapsed+time.Second, "a deaf check may get a little grace, not more")
			})
		})
	}
}

// Once the check has returned, nothing of the evaluation is left running: a
// bubble does not end while a goroutine is in it.
func TestEvaluateLeavesNothingRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var inner context.Context
		harden.Evaluate(ctx, nil, check(func(ctx context.Context, _ *host.View) (harden.Verdict, error) {
			inner = ctx
			return pass(0), nil
		}), 0)
		assert.ErrorIs(t, inner.Err(), context.Canceled)
	})
}
