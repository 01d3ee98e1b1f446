package hardentest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// judgeRules are the contract of a judge of typed facts. "pure" comes before
// any other rule calls the judge: a second call may change nothing more.
func judgeRules[T any]() []rule[JudgeSubject[T]] {
	type S = JudgeSubject[T]
	return []rule[S]{
		{"info", "Info must be valid", func(_ context.Context, s S) error {
			return validInfo(harden.New(s.Info, nil))
		}},
		{"pure", "the judge must not change the facts, which it shares with other checks", func(ctx context.Context, s S) error {
			return s.everywhere(func(x T) error {
				before := dump(x)
				s.evaluate(ctx, x)
				if after := dump(x); before != after {
					return fmt.Errorf("the facts were\n\t%s\nand are\n\t%s", before, after)
				}
				return nil
			})
		}},
		{"good", "the judge must pass every good subject, with evidence", func(ctx context.Context, s S) error {
			if len(s.Good) == 0 {
				return errors.New("fixture: no good subject")
			}
			return s.all("Good", s.Good, func(x T) error {
				v, err := s.Judge(ctx, x)
				if err != nil || v.Status() != harden.StatusPass {
					return fmt.Errorf("got %v, error %v; want pass", v.Status(), err)
				}
				return evidenced(harden.Result{Evidence: v.Evidence()})
			})
		}},
		{"level", "evidence for a pass must be of the level that the check requires", func(ctx context.Context, s S) error {
			return s.all("Good", s.Good, func(x T) error {
				v, _ := s.Judge(ctx, x)
				if v.Status() == harden.StatusPass && v.Level() < s.Info.Requires {
					return &harden.LevelError{Got: v.Level(), Requires: s.Info.Requires}
				}
				return nil
			})
		}},
		{"bad", "the judge must fail every bad subject, and say what is wrong", func(ctx context.Context, s S) error {
			if len(s.Bad) == 0 {
				return errors.New("fixture: no bad subject")
			}
			return s.all("Bad", s.Bad, func(x T) error {
				res := s.evaluate(ctx, x)
				return errors.Join(want(res, harden.StatusFail), explained(res))
			})
		}},
		{"unknown", "facts that are missing must make the result unknown: neither pass nor fail", func(ctx context.Context, s S) error {
			return s.all("Unknown", s.Unknown, func(x T) error {
				return want(s.evaluate(ctx, x), harden.StatusUnknown)
			})
		}},
		{"zero", "no facts at all must neither pass nor panic", func(ctx context.Context, s S) error {
			var none T
			res := s.evaluate(ctx, none)
			if res.Status == harden.StatusPass || res.Reason == harden.ReasonPanic {
				return fmt.Errorf("got %s", words(res))
			}
			return nil
		}},
		{"canceled", "the judge must return soon after its context is done", func(ctx context.Context, s S) error {
			return s.everywhere(func(x T) error {
				return returnsSoon(ctx, func() bool { return false }, func(ctx context.Context) { _, _ = s.Judge(ctx, x) })
			})
		}},
		{"concurrent", "the judge must allow concurrent calls", func(ctx context.Context, s S) error {
			return s.everywhere(func(x T) error {
				alone := s.evaluate(ctx, x)
				return together(func() error { return want(s.evaluate(ctx, x), alone.Status) })
			})
		}},
		{"repeat", "the same facts must get the same verdict every time", func(ctx context.Context, s S) error {
			return s.everywhere(func(x T) error {
				return same(func() harden.Result { return s.evaluate(ctx, x) })
			})
		}},
		{"secret", "no finding, evidence or error may hold a secret", func(ctx context.Context, s S) error {
			planted := false
			err := s.everywhere(func(x T) error {
				planted = planted || strings.Contains(dump(x), Canary)
				if strings.Contains(fmt.Sprintf("%+v", s.evaluate(ctx, x)), Canary) {
					return errors.New("the result repeats the canary")
				}
				return nil
			})
			switch {
			case err != nil || planted:
				return err
			case s.NoSecret != "":
				return skipped("no secret: " + s.NoSecret)
			}
			return errors.New("fixture: plant hardentest.Canary in the subjects, or set NoSecret to say why none could be there")
		}},
	}
}

// evaluate judges x as the only subject of a check.
func (s JudgeSubject[T]) evaluate(ctx context.Context, x T) harden.Result {
	src := &harden.Source[T]{
		Name:    "subjects",
		List:    func(context.Context, *host.View) ([]T, error) { return []T{x}, nil },
		Subject: func(T) string { return "subject" },
	}
	return harden.Evaluate(ctx, &host.View{Granted: host.AllPrivileges}, harden.Each(s.Info, src, s.Judge), timeout)
}

func (s JudgeSubject[T]) all(name string, subjects []T, f func(T) error) error {
	var errs []error
	for i, x := range subjects {
		if err := f(x); err != nil {
			errs = append(errs, fmt.Errorf("%s[%d]: %w", name, i, err))
		}
	}
	return errors.Join(errs...)
}

func (s JudgeSubject[T]) everywhere(f func(T) error) error {
	return errors.Join(s.all("Good", s.Good, f), s.all("Bad", s.Bad, f), s.all("Unknown", s.Unknown, f))
}

// dump shows what is in x, also behind pointers where JSON can.
func dump(x any) string {
	data, _ := json.Marshal(x)
	return fmt.Sprintf("%+v %s", x, data)
}
