package audit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

type runFunc = func(context.Context, *host.View) (harden.Verdict, error)

func check(id string, p harden.Point, run runFunc) harden.Check {
	return harden.New(harden.Info{ID: id, Point: p, Title: "title of " + id, Severity: harden.SeverityHigh}, run)
}

func passing(l harden.Level) runFunc {
	return func(context.Context, *host.View) (harden.Verdict, error) {
		return harden.Pass(harden.Evidence{Source: "s", Observed: "o", Level: l}), nil
	}
}

func failing(findings ...harden.Finding) runFunc {
	return func(context.Context, *host.View) (harden.Verdict, error) {
		return harden.Fail(findings[0], findings[1:]...), nil
	}
}

func erring(err error) runFunc {
	return func(context.Context, *host.View) (harden.Verdict, error) { return harden.Verdict{}, err }
}

// sleeping obeys its context.
func sleeping(d time.Duration) runFunc {
	return func(ctx context.Context, v *host.View) (harden.Verdict, error) {
		select {
		case <-time.After(d):
			return passing(harden.LevelProbed)(ctx, v)
		case <-ctx.Done():
			return harden.Verdict{}, fmt.Errorf("sleep: %w", ctx.Err())
		}
	}
}

func on(subject string) harden.Finding {
	return harden.Finding{Subject: subject, Message: "is not as it should be"}
}
