package hardentest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden"
)

type process struct {
	Name   string
	Env    []string
	UIDs   []int
	Listed bool // whether UIDs could be read
}

func judgeProcess(_ context.Context, p process) (harden.Verdict, error) {
	if !p.Listed {
		return harden.Verdict{}, errors.New("its ids could not be read")
	}
	if slices.Contains(p.UIDs, 0) {
		return harden.Fail(harden.Finding{Message: "runs as root"}), nil
	}
	return harden.Pass(harden.Evidence{Source: "/proc", Observed: fmt.Sprint(p.UIDs), Level: harden.LevelInspected}), nil
}

func modelJudge() JudgeSubject[process] {
	env := []string{"TOKEN=" + Canary, "A=b"}
	return JudgeSubject[process]{
		Info:    harden.Info{ID: "process.non_root", Title: "No process is root's", Requires: harden.LevelInspected},
		Judge:   judgeProcess,
		Good:    []process{{"web", env, []int{10, 9}, true}, {"db", nil, []int{11}, true}},
		Bad:     []process{{"cron", env, []int{9, 0}, true}},
		Unknown: []process{{"ghost", env, nil, false}},
	}
}

func TestModelJudgeKeepsEveryRule(t *testing.T) {
	require.NoError(t, TestJudge(modelJudge()))
	RunJudge(t, modelJudge())

	s := JudgeSubject[int]{
		Info: harden.Info{ID: "port.odd", Title: "Ports are odd"},
		Judge: func(_ context.Context, port int) (harden.Verdict, error) {
			if port%2 == 0 {
				return harden.Fail(harden.Finding{Message: "even"}), nil
			}
			return harden.Pass(harden.Evidence{Source: "number", Observed: fmt.Sprint(port)}), nil
		},
		Good:     []int{1, 3},
		Bad:      []int{2},
		NoSecret: "a port is a number",
	}
	RunJudge(t, s)
	s.Good, s.Bad = nil, nil
	assert.Equal(t, []string{"good", "bad"}, broken(TestJudge(s)))
}

// change alters the verdicts of the model.
func change(f func(process, harden.Verdict, error) (harden.Verdict, error)) func(*JudgeSubject[process]) {
	return func(s *JudgeSubject[process]) {
		s.Judge = func(ctx context.Context, p process) (harden.Verdict, error) {
			v, err := judgeProcess(ctx, p)
			return f(p, v, err)
		}
	}
}

var judgeMutants = []struct {
	name   string
	breaks string
	mutate func(*JudgeSubject[process])
}{
	{"no title", "info", func(s *JudgeSubject[process]) { s.Info.Title = "" }},
	{"evidence from nowhere", "good", change(func(_ process, v harden.Verdict, err error) (harden.Verdict, error) {
		if v.Status() == harden.StatusPass {
			v = harden.Pass(harden.Evidence{Observed: "fine", Level: harden.LevelInspected})
		}
		return v, err
	})},
	{"a setting taken for its effect", "level", change(func(_ process, v harden.Verdict, err error) (harden.Verdict, error) {
		if v.Status() == harden.StatusPass {
			v = harden.Pass(harden.Evidence{Source: "config", Observed: "fine"})
		}
		return v, err
	})},
	{"a finding that says nothing", "bad", change(func(_ process, v harden.Verdict, err error) (harden.Verdict, error) {
		if v.Status() == harden.StatusFail {
			v = harden.Fail(harden.Finding{})
		}
		return v, err
	})},
	{"missing facts taken for a violation", "unknown", change(func(_ process, v harden.Verdict, err error) (harden.Verdict, error) {
		if err != nil {
			return harden.Fail(harden.Finding{Message: "not listed"}), nil
		}
		return v, err
	})},
	{"missing facts taken for absence", "unknown", change(func(_ process, v harden.Verdict, err error) (harden.Verdict, error) {
		if err != nil {
			return harden.NotApplicable("not listed"), nil
		}
		return v, err
	})},
	{"no facts taken for good news", "zero", change(func(p process, v harden.Verdict, err error) (harden.Verdict, error) {
		if p.Name == "" {
			return harden.Pass(harden.Evidence{Source: "s", Observed: "o", Level: harden.LevelProbed}), nil
		}
		return v, err
	})},
	{"no facts, no legs", "zero", change(func(p process, v harden.Verdict, err error) (harden.Verdict, error) {
		_ = p.Name[0]
		return v, err
	})},
	{"a deaf judge", "canceled", change(func(_ process, v harden.Verdict, err error) (harden.Verdict, error) {
		time.Sleep(grace + time.Second)
		return v, err
	})},
	{"one at a time", "concurrent", func(s *JudgeSubject[process]) {
		var inside atomic.Int64
		change(func(_ process, v harden.Verdict, err error) (harden.Verdict, error) {
			defer inside.Add(-1)
			if inside.Add(1) > 1 {
				return harden.Verdict{}, errors.New("busy")
			}
			time.Sleep(time.Millisecond)
			return v, err
		})(s)
	}},
	{"evidence with a counter", "repeat", func(s *JudgeSubject[process]) {
		var n atomic.Int64
		change(func(_ process, v harden.Verdict, err error) (harden.Verdict, error) {
			if v.Status() == harden.StatusPass {
				v = harden.Pass(harden.Evidence{Source: "s", Observed: fmt.Sprint(n.Add(1)), Level: harden.LevelInspected})
			}
			return v, err
		})(s)
	}},
	{"a finding that quotes the environment", "secret", change(func(p process, v harden.Verdict, err error) (harden.Verdict, error) {
		if v.Status() == harden.StatusFail {
			v = harden.Fail(harden.Finding{Message: fmt.Sprint("root has ", p.Env)})
		}
		return v, err
	})},
	{"no canary", "secret", func(s *JudgeSubject[process]) {
		for _, list := range [][]process{s.Good, s.Bad, s.Unknown} {
			for i := range list {
				list[i].Env = nil
			}
		}
	}},
}

func TestJudgeRulesBite(t *testing.T) {
	bitten := map[string]bool{"pure": true} // see TestJudgeMustNotChangeTheFacts
	for _, mutant := range judgeMutants {
		bitten[mutant.breaks] = true
		t.Run(mutant.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := modelJudge()
				mutant.mutate(&s)
				err := TestJudge(s)
				assert.Equal(t, []string{mutant.breaks}, broken(err), "%v", err)
			})
		})
	}
	for _, r := range judgeRules[process]() {
		assert.True(t, bitten[r.name], "no mutant for the rule %q", r.name)
		assert.NotEmpty(t, r.why)
	}
}

// The mutant races by its nature, so its rule is asked alone.
func TestJudgeMustNotChangeTheFacts(t *testing.T) {
	s := modelJudge()
	change(func(p process, v harden.Verdict, err error) (harden.Verdict, error) {
		slices.Sort(p.UIDs)
		return v, err
	})(&s)
	for _, r := range judgeRules[process]() {
		if r.name == "pure" {
			require.ErrorContains(t, r.apply(s), "the facts were")
		}
	}
}
