package firewall

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Backends returns a [Backend] that has all of backends keep a policy, so that one
// holds where another is circumvented or flushed.
//
// Apply goes through them in their order. When one fails, those before it get
// back the policy of the last Apply that succeeded here. If there was none they
// keep the new one, since nobody knows what they kept before, and nothing might
// be less; the error says so. Remove goes through all of them in the opposite
// order whatever fails.
func Backends(backends ...Backend) Backend {
	return &joined{backends: backends}
}

type joined struct {
	backends []Backend
	last     *Policy // of the last Apply that succeeded
}

func (j *joined) Name() string {
	var names []string
	for _, b := range j.backends {
		names = append(names, b.Name())
	}
	return strings.Join(names, "+")
}

func (j *joined) Apply(ctx context.Context, p Policy) error {
	if len(j.backends) == 0 {
		return errors.New("firewall: apply: no backend")
	}
	if err := p.Validate(); err != nil {
		return err
	}
	for i, b := range j.backends {
		err := b.Apply(ctx, p)
		if err == nil {
			continue
		}
		errs := []error{fmt.Errorf("firewall: apply: %s: %w", b.Name(), err)}
		// What undoes must not end with the caller that gave up.
		ctx := context.WithoutCancel(ctx)
		for _, done := range j.backends[:i] {
			if j.last == nil {
				errs = append(errs, fmt.Errorf("firewall: apply: %s keeps the new policy", done.Name()))
			} else if err := done.Apply(ctx, *j.last); err != nil {
				errs = append(errs, fmt.Errorf("firewall: apply: %s may keep the new policy, undoing it failed: %w", done.Name(), err))
			}
		}
		return errors.Join(errs...)
	}
	canonical := p.Canonical()
	j.last = &canonical
	return nil
}

func (j *joined) Remove(ctx context.Context) error {
	var errs []error
	for i := range j.backends {
		b := j.backends[len(j.backends)-1-i]
		if err := b.Remove(ctx); err != nil {
			errs = append(errs, fmt.Errorf("firewall: remove: %s: %w", b.Name(), err))
		}
	}
	if len(errs) == 0 {
		j.last = nil
	}
	return errors.Join(errs...)
}

func (j *joined) Drift(ctx context.Context, p Policy) ([]string, error) {
	var lines []string
	var errs []error
	if len(j.backends) == 0 {
		return nil, errors.New("firewall: drift: no backend")
	}
	for _, b := range j.backends {
		drift, err := b.Drift(ctx, p)
		if err != nil {
			errs = append(errs, fmt.Errorf("firewall: drift: %s: %w", b.Name(), err))
		}
		for _, line := range drift {
			lines = append(lines, b.Name()+": "+line)
		}
	}
	return lines, errors.Join(errs...)
}
