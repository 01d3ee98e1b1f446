package hardentest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

const conf = "/etc/agent.conf"

// machine has an agent that listens somewhere, and a guard that is on or off.
func machine(listen string, guard bool) func() *hosttest.Machine {
	return func() *hosttest.Machine {
		var on atomic.Bool
		on.Store(guard)
		m := new(hosttest.Machine).
			FileMode(conf, "token="+Canary+"\nlisten="+listen+"\n", 0o640).
			Watch("guard", func() string { return fmt.Sprint(on.Load()) })
		set := func(to bool) hosttest.Reply {
			return hosttest.Reply{Do: func(context.Context, host.Command) (host.Output, error) {
				on.Store(to)
				return host.Output{}, nil
			}}
		}
		status := func(context.Context, host.Command) (host.Output, error) {
			return host.Output{Stdout: fmt.Append(nil, on.Load())}, nil
		}
		return m.
			Command(hosttest.Reply{Do: status}, "guard", "status").
			Command(set(true), "guard", "set", "true").
			Command(set(false), "guard", "set", "false")
	}
}

// A fake is a check put together from functions. The model keeps the contract.
type fake struct {
	info func() harden.Info
	run  func(context.Context, *host.View) (harden.Verdict, error)
	plan func(context.Context, *host.View) (harden.Plan, error)
}

func (f fake) Info() harden.Info { return f.info() }
func (f fake) Run(ctx context.Context, v *host.View) (harden.Verdict, error) {
	return f.run(ctx, v)
}
func (f fake) Plan(ctx context.Context, v *host.View) (harden.Plan, error) { return f.plan(ctx, v) }

func modelInfo() harden.Info {
	return harden.Info{ID: "agent.guarded", Title: "The agent is guarded", Requires: harden.LevelInspected, Needs: host.ReadFiles}
}

func guardStatus(ctx context.Context, v *host.View) (string, error) {
	out, err := v.Run(ctx, host.Command{Name: "guard", Args: []string{"status"}})
	return string(out.Stdout), err
}

func listens(data []byte) string {
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "listen="); ok {
			return strings.TrimSpace(value)
		}
	}
	return "any"
}

func modelRun(ctx context.Context, v *host.View) (harden.Verdict, error) {
	data, err := v.ReadFile(conf)
	if err != nil {
		return harden.Verdict{}, err
	}
	status, err := guardStatus(ctx, v)
	if err != nil {
		return harden.Verdict{}, err
	}
	var findings []harden.Finding
	if l := listens(data); l != "loopback" {
		findings = append(findings, harden.Finding{Subject: conf, Message: "the agent listens on more than loopback"})
	}
	if status != "true" {
		findings = append(findings, harden.Finding{Subject: "guard", Message: "the guard is off"})
	}
	if len(findings) > 0 {
		return harden.Fail(findings[0], findings[1:]...), nil
	}
	return harden.Pass(harden.Evidence{Source: "guard status", Observed: status, Level: harden.LevelInspected}), nil
}

func modelPlan(ctx context.Context, v *host.View) (harden.Plan, error) {
	var p harden.Plan
	data, err := v.ReadFile(conf)
	if err != nil {
		return p, err
	}
	if listens(data) != "loopback" {
		p.Actions = append(p.Actions, edit(data))
	}
	status, err := guardStatus(ctx, v)
	if err == nil && status != "true" {
		p.Actions = append(p.Actions, setGuard{})
	}
	return p, err
}

func edit(data []byte) harden.EditFile {
	after := append([]byte("listen=loopback\n"), data...)
	return harden.EditFile{Path: conf, Before: data, After: after, Secret: true}
}

type setGuard struct{}

func (setGuard) Change() harden.Change {
	return harden.Change{Subject: "guard", Before: "off", After: "on"}
}

func (setGuard) Apply(ctx context.Context, h *host.Host) error { return turn(ctx, h, "false", "true") }

func (setGuard) Revert(ctx context.Context, h *host.Host) error { return turn(ctx, h, "true", "false") }

func turn(ctx context.Context, h *host.Host, from, to string) error {
	status, err := guardStatus(ctx, &h.View)
	if err != nil {
		return err
	}
	if status != from {
		return harden.ErrStale
	}
	_, err = h.Change(ctx, host.Command{Name: "guard", Args: []string{"set", to}})
	return err
}

func model() (*fake, Subject) {
	f := &fake{info: modelInfo, run: modelRun, plan: modelPlan}
	return f, Subject{
		Check:    f,
		Good:     machine("loopback", true),
		Bad:      machine("any", false),
		Reads:    []string{conf},
		Commands: []string{"guard"},
	}
}

func TestModelKeepsEveryRule(t *testing.T) {
	_, s := model()
	require.NoError(t, Test(s))
	Run(t, s)
}

// A check without a remedy, one whose remedy is manual, and one hidden in a
// wrapper are tested too.
func TestRemedies(t *testing.T) {
	f, s := model()
	f.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
		p, err := modelPlan(ctx, v)
		if err != nil || len(p.Actions) == 0 {
			return harden.Plan{}, err
		}
		return harden.Plan{Manual: []string{"ask somebody"}}, nil
	}
	require.NoError(t, Test(s))

	s.Check = harden.New(modelInfo(), modelRun)
	Run(t, s)
	for _, r := range checkRules[slices.IndexFunc(checkRules, func(r rule[Subject]) bool { return r.name == "idle" }):] {
		assert.Equal(t, noRemedy, r.apply(s), r.name)
	}

	f, s = model()
	f.plan = func(context.Context, *host.View) (harden.Plan, error) { return harden.Plan{}, nil }
	s.Check = wrapper{f}
	assert.Equal(t, []string{"plan"}, broken(Test(s)))
}

type wrapper struct{ harden.Check }

func (w wrapper) Unwrap() harden.Check { return w.Check }

// broken returns the names of the rules that err says were broken.
func broken(err error) []string {
	var names []string
	if e, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range e.Unwrap() {
			names = append(names, err.(*RuleError).Rule)
		}
	}
	return names
}

// onError replaces the verdict of the model where it meets an error.
func onError(is error, v harden.Verdict, err error) func(*fake, *Subject) {
	return func(f *fake, _ *Subject) {
		f.run = func(ctx context.Context, view *host.View) (harden.Verdict, error) {
			got, gotErr := modelRun(ctx, view)
			if errors.Is(gotErr, is) {
				return v, err
			}
			return got, gotErr
		}
	}
}

// act replaces the first action of the model's plan.
func act(change func(harden.EditFile) harden.Action) func(*fake, *Subject) {
	return func(f *fake, _ *Subject) {
		f.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
			p, err := modelPlan(ctx, v)
			if len(p.Actions) > 0 {
				if e, ok := p.Actions[0].(harden.EditFile); ok {
					p.Actions[0] = change(e)
				}
			}
			return p, err
		}
	}
}

// An action is put together from functions; what is nil is as in EditFile.
type action struct {
	harden.EditFile

	change        func() harden.Change
	apply, revert func(*host.Host) error
}

func (a action) Change() harden.Change {
	if a.change != nil {
		return a.change()
	}
	return a.EditFile.Change()
}

func (a action) Apply(ctx context.Context, h *host.Host) error {
	if a.apply != nil {
		return a.apply(h)
	}
	return a.EditFile.Apply(ctx, h)
}

func (a action) Revert(ctx context.Context, h *host.Host) error {
	if a.revert != nil {
		return a.revert(h)
	}
	return a.EditFile.Revert(ctx, h)
}

var failed = harden.Fail(harden.Finding{Subject: conf, Message: "it is wrong"})

// mutants are checks that break the contract, each in one way. All rules that
// object are listed.
var mutants = []struct {
	name   string
	breaks []string
	mutate func(*fake, *Subject)
}{
	{"an id that is none", []string{"info"}, func(f *fake, _ *Subject) {
		f.info = func() harden.Info { i := modelInfo(); i.ID = "Agent Guarded"; return i }
	}},
	{"a title with a counter", []string{"info"}, func(f *fake, _ *Subject) {
		var n atomic.Int64
		f.info = func() harden.Info { i := modelInfo(); i.Title += fmt.Sprint(n.Add(1)); return i }
	}},
	{"evidence from nowhere", []string{"good"}, func(f *fake, _ *Subject) {
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			got, err := modelRun(ctx, v)
			if got.Status() == harden.StatusPass {
				got = harden.Pass(harden.Evidence{Observed: "fine", Level: harden.LevelInspected})
			}
			return got, err
		}
	}},
	{"a setting taken for its effect", []string{"good", "privilege", "concurrent", "fix"}, func(f *fake, _ *Subject) {
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			got, err := modelRun(ctx, v)
			if got.Status() == harden.StatusPass {
				got = harden.Pass(harden.Evidence{Source: conf, Observed: "loopback"})
			}
			return got, err
		}
	}},
	{"a finding about nothing", []string{"bad"}, func(f *fake, _ *Subject) {
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			got, err := modelRun(ctx, v)
			if got.Status() == harden.StatusFail {
				got = harden.Fail(harden.Finding{Message: "something is wrong"})
			}
			return got, err
		}
	}},
	{"a blindfold taken for absence", []string{"blind"}, onError(host.ErrNoAccess, harden.NotApplicable("no agent"), nil)},
	{"a refusal taken for a violation", []string{"denied"}, onError(fs.ErrPermission, failed, nil)},
	{"a refusal taken for absence", []string{"denied"}, onError(fs.ErrPermission, harden.NotApplicable("no agent"), nil)},
	{"a refusal whose cause is lost", []string{"denied"}, onError(fs.ErrPermission, harden.Verdict{}, errors.New("failed"))},
	{"a missing tool taken for absence", []string{"tool"}, onError(exec.ErrNotFound, harden.NotApplicable("no guard"), nil)},
	{"a missing tool taken for a violation", []string{"tool"}, onError(exec.ErrNotFound, failed, nil)},
	{"a parser that trusts its input", []string{"garbled"}, func(f *fake, _ *Subject) {
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			if data, err := v.ReadFile(conf); err == nil {
				_ = strings.Split(string(data), "=")[1]
			}
			return modelRun(ctx, v)
		}
	}},
	{"a planner that trusts its input", []string{"garbled"}, func(f *fake, _ *Subject) {
		f.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
			if data, err := v.ReadFile(conf); err == nil {
				_ = strings.Split(string(data), "=")[1]
			}
			return modelPlan(ctx, v)
		}
	}},
	{"a privilege that it does not declare", []string{"privilege"}, func(f *fake, _ *Subject) {
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			if missing := v.Granted.Missing(host.AdminNetwork); missing != 0 {
				return harden.Verdict{}, &harden.PrivilegeError{Missing: missing}
			}
			return modelRun(ctx, v)
		}
	}},
	{"a deaf check", []string{"canceled"}, func(f *fake, _ *Subject) {
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			time.Sleep(grace + time.Second)
			return modelRun(ctx, v)
		}
	}},
	{"a deaf planner", []string{"canceled"}, func(f *fake, _ *Subject) {
		f.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
			time.Sleep(grace + time.Second)
			return modelPlan(ctx, v)
		}
	}},
	{"silence taken for good news", []string{"canceled"}, onError(context.Canceled, harden.Pass(harden.Evidence{Source: "guard", Observed: "quiet", Level: harden.LevelInspected}), nil)},
	{"one at a time", []string{"concurrent"}, func(f *fake, _ *Subject) {
		var inside atomic.Int64
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			defer inside.Add(-1)
			if inside.Add(1) > 1 {
				return harden.Verdict{}, errors.New("busy")
			}
			time.Sleep(time.Millisecond)
			return modelRun(ctx, v)
		}
	}},
	{"evidence with a counter", []string{"repeat"}, func(f *fake, _ *Subject) {
		var n atomic.Int64
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			got, err := modelRun(ctx, v)
			if got.Status() == harden.StatusPass {
				got = harden.Pass(harden.Evidence{Source: "guard", Observed: fmt.Sprint(n.Add(1)), Level: harden.LevelInspected})
			}
			return got, err
		}
	}},
	{"a run that repairs", []string{"pure"}, func(f *fake, s *Subject) {
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			got, err := modelRun(ctx, v)
			if err == nil && got.Status() == harden.StatusFail {
				_, err = v.Run(ctx, host.Command{Name: "touch"})
			}
			return got, err
		}
		touchable(s)
	}},
	{"a plan that has begun", []string{"pure"}, func(f *fake, s *Subject) {
		f.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
			if _, err := v.Run(ctx, host.Command{Name: "touch"}); err != nil {
				return harden.Plan{}, err
			}
			return modelPlan(ctx, v)
		}
		touchable(s)
	}},
	{"a finding that quotes the file", []string{"secret"}, func(f *fake, _ *Subject) {
		f.run = func(ctx context.Context, v *host.View) (harden.Verdict, error) {
			got, err := modelRun(ctx, v)
			if data, _ := v.ReadFile(conf); got.Status() == harden.StatusFail {
				got = harden.Fail(harden.Finding{Subject: conf, Message: "wrong: " + string(data)})
			}
			return got, err
		}
	}},
	{"a change that quotes the file", []string{"secret"}, act(func(e harden.EditFile) harden.Action {
		e.Secret = false
		return e
	})},
	{"an error that quotes the file", []string{"secret"}, act(func(e harden.EditFile) harden.Action {
		return action{EditFile: e, apply: func(h *host.Host) error {
			err := e.Apply(context.Background(), h)
			if err != nil {
				err = fmt.Errorf("%w: %s", err, e.Before)
			}
			return err
		}}
	})},
	{"no canary", []string{"secret"}, func(_ *fake, s *Subject) {
		for _, m := range []*func() *hosttest.Machine{&s.Good, &s.Bad} {
			was := *m
			*m = func() *hosttest.Machine {
				m := was()
				text, _ := m.Read(conf)
				return m.FileMode(conf, strings.ReplaceAll(text, Canary, "x"), 0o640)
			}
		}
	}},
	{"always something to do", []string{"idle"}, func(f *fake, _ *Subject) {
		f.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
			p, err := modelPlan(ctx, v)
			p.Manual = []string{"think it over"}
			return p, err
		}
	}},
	{"never anything to do", []string{"plan"}, func(f *fake, _ *Subject) {
		f.plan = func(context.Context, *host.View) (harden.Plan, error) { return harden.Plan{}, nil }
	}},
	{"a plan of another mind each time", []string{"plan"}, func(f *fake, _ *Subject) {
		var n atomic.Int64
		f.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
			p, err := modelPlan(ctx, v)
			p.Notes = []string{fmt.Sprint("attempt ", n.Add(1))}
			return p, err
		}
	}},
	{"a change without a subject", []string{"describe"}, act(func(e harden.EditFile) harden.Action {
		return action{EditFile: e, change: func() harden.Change { return harden.Change{Before: "any", After: "loopback"} }}
	})},
	{"a change without a difference", []string{"describe"}, act(func(e harden.EditFile) harden.Action {
		return action{EditFile: e, change: func() harden.Change { return harden.Change{Subject: conf} }}
	})},
	{"half a remedy", []string{"fix"}, func(f *fake, _ *Subject) {
		f.plan = func(ctx context.Context, v *host.View) (harden.Plan, error) {
			p, err := modelPlan(ctx, v)
			return harden.Plan{Actions: p.Actions[:min(1, len(p.Actions))]}, err
		}
	}},
	{"a write without a look", []string{"stale"}, act(func(e harden.EditFile) harden.Action {
		return action{EditFile: e, apply: func(h *host.Host) error { return h.WriteFile(conf, e.After, 0) }}
	})},
	{"a revert without a look", []string{"stale"}, act(func(e harden.EditFile) harden.Action {
		return action{EditFile: e, revert: func(h *host.Host) error {
			data, err := h.ReadFile(conf)
			_, rest, _ := strings.Cut(string(data), "\n")
			return errors.Join(err, h.WriteFile(conf, []byte(rest), 0))
		}}
	})},
	{"two writes, one undone", []string{"atomic"}, act(func(e harden.EditFile) harden.Action {
		backup := harden.EditFile{Path: conf + ".bak", After: e.Before}
		return action{
			EditFile: e,
			apply: func(h *host.Host) error {
				if err := backup.Apply(context.Background(), h); err != nil {
					return harden.ErrStale
				}
				return e.Apply(context.Background(), h)
			},
			revert: func(h *host.Host) error {
				if err := e.Revert(context.Background(), h); err != nil {
					return err
				}
				return backup.Revert(context.Background(), h)
			},
		}
	})},
	{"a failure that is kept quiet", []string{"atomic"}, act(func(e harden.EditFile) harden.Action {
		return action{EditFile: e, apply: func(h *host.Host) error {
			err := e.Apply(context.Background(), h)
			if errors.Is(err, errInjected) {
				err = e.Apply(context.Background(), h)
			}
			return err
		}}
	})},
	{"a revert that is nearly right", []string{"revert"}, func(f *fake, s *Subject) {
		s.Bad = machine("any", true) // one change only: nothing that fails later reverts it
		act(func(e harden.EditFile) harden.Action {
			return action{EditFile: e, revert: func(h *host.Host) error {
				before := e
				before.Before = append(slices.Clone(e.Before), '\n')
				return before.Revert(context.Background(), h)
			}}
		})(f, s)
	}},
}

// touchable adds a program that changes the machine although it is not marked
// as one that does.
func touchable(s *Subject) {
	for _, machine := range []*func() *hosttest.Machine{&s.Good, &s.Bad} {
		was := *machine
		*machine = func() *hosttest.Machine {
			m := was()
			return m.Command(hosttest.Reply{Do: func(context.Context, host.Command) (host.Output, error) {
				m.File("/touched", "")
				return host.Output{}, nil
			}}, "touch")
		}
	}
}

func TestRulesBite(t *testing.T) {
	bitten := make(map[string]bool)
	for _, mutant := range mutants {
		for _, rule := range mutant.breaks {
			if len(mutant.breaks) == 1 {
				bitten[rule] = true
			}
		}
		t.Run(mutant.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := model()
				mutant.mutate(f, &s)
				err := Test(s)
				assert.Equal(t, mutant.breaks, broken(err), "%v", err)
			})
		})
	}
	for _, r := range checkRules {
		assert.True(t, bitten[r.name], "no mutant is caught by the rule %q alone", r.name)
		assert.NotEmpty(t, r.why)
	}
}

// A panic is an objection, not the end of the tests.
func TestPanicsAreReported(t *testing.T) {
	f, s := model()
	f.plan = func(context.Context, *host.View) (harden.Plan, error) { panic("oh") }
	err := Test(s)
	assert.Contains(t, broken(err), "plan")
	require.ErrorContains(t, err, "panic: oh")

	f.run = func(context.Context, *host.View) (harden.Verdict, error) { panic("oh") }
	assert.Subset(t, broken(Test(s)), []string{"good", "bad", "blind"})
	require.Error(t, Test(Subject{}))
}

func TestRuleErrorSaysWhy(t *testing.T) {
	err := &RuleError{Rule: "good", Why: "it must pass", Err: errInjected}
	require.ErrorIs(t, err, errInjected)
	assert.EqualError(t, err, "good: injected failure\n\t(it must pass)")
}
