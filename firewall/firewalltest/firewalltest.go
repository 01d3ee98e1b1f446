// Package firewalltest is a kit that shows whether a [firewall.Backend] keeps
// its contract, and a backend in memory for tests of what uses one.
//
// A test of a backend makes a [Subject] for [Test], which has a kernel of its own: a
// network namespace with rules of others in it.
package firewalltest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
)

// A Subject is a backend, and eyes and hands for what it is about. None of
// them may use the backend.
type Subject struct {
	Backend firewall.Backend

	// Own returns the backend's rules in the kernel, in a form that changes
	// whenever they are written, even if they are written the same. Empty
	// means that there are none.
	Own func(ctx context.Context) (string, error)

	// Others returns all other rules in the kernel. There should be some,
	// wherever the backend has its own too.
	Others func(ctx context.Context) (string, error)

	// Damages returns ways to damage the rules that there are: to take away, to
	// change and to add each of them.
	Damages func(ctx context.Context) ([]Damage, error)

	// Reached tries to reach TCP port 8080 of the machine from outside, which a
	// server listens on. It reports false if there is no answer for a while.
	Reached func(ctx context.Context) bool
}

// A Damage is something that somebody else may do to a backend's rules.
type Damage struct {
	Name string
	Do   func(ctx context.Context) error
}

// A Rule is one that all backends keep.
type Rule struct {
	ID  string
	Why string

	check func(ctx context.Context, s *Subject) error
}

// Check says how the subject breaks the rule; nil means that it does not. The
// subject's backend must have nothing in the kernel, and has nothing there
// afterwards if it keeps the contract.
func (r Rule) Check(ctx context.Context, s *Subject) error {
	err := r.check(ctx, s)
	if err != nil {
		return fmt.Errorf("%s: %w (%s)", r.ID, err, r.Why)
	}
	return nil
}

// Test checks all rules, each on a subject of its own.
func Test(t *testing.T, subject func(t *testing.T) *Subject) {
	t.Helper()
	for _, rule := range Rules() {
		t.Run(rule.ID, func(t *testing.T) {
			if err := rule.Check(t.Context(), subject(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Policy is the one that the kit applies. It closes port 8080.
func Policy() firewall.Policy {
	tcp := func(n uint16) firewall.Port { return firewall.Port{Protocol: firewall.TCP, Number: n} }
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	return firewall.Policy{
		Allow: []firewall.Allow{
			{Port: tcp(8083)},
			{Port: tcp(443), From: prefixes("192.0.2.3/32", "2001:db8::3/128"), In: "eth0"},
		},
		Networks: []firewall.Network{
			{Name: "bridge", Interface: "docker0", Prefixes: prefixes("172.17.0.0/16", "fd00:d0c::/64")},
		},
		Published: []firewall.Port{tcp(8080), {Protocol: firewall.UDP, Number: 5353}},
		Others:    []string{"br-lan"},
	}
}

// another closes port 8080 too, and is different in everything else.
func another() firewall.Policy {
	p := Policy()
	p.Allow = p.Allow[:1]
	p.Networks = append(p.Networks, firewall.Network{Interface: "br-x", Prefixes: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24")}})
	p.Published = append(p.Published, firewall.Port{Protocol: firewall.TCP, Number: 8090})
	p.Others, p.Strict = nil, true
	return p
}

// shuffled says what Policy says in other words.
func shuffled() firewall.Policy {
	p := Policy()
	slices.Reverse(p.Allow)
	slices.Reverse(p.Published)
	p.Allow = append(p.Allow, p.Allow...)
	p.Published = append(p.Published, p.Published[0])
	return p
}

// Rules returns those that Test checks.
func Rules() []Rule {
	return []Rule{
		{"effect", "rules are there for what they do to packets", checkEffect},
		{"drift_before_and_after", "what has not been applied differs, and what has does not", checkDrift},
		{"idempotent", "to apply again is what a watcher does all day, and each write is a risk", checkIdempotent},
		{"same_policy", "the order in which a policy is written down means nothing", checkSame},
		{"others_untouched", "a machine has rules of others, and their owners rely on them", checkOthers},
		{"drift_sees_damage", "a rule that is gone and not missed is worse than none", checkDamage},
		{"repair", "what is damaged can be put right by applying it", checkRepair},
		{"remove", "what was made can be taken away, twice as well as once", checkRemove},
		{"drift_changes_nothing", "to look is not to touch", checkLook},
		{"canceled", "who gives up must know that nothing happens", checkCanceled},
		{"invalid", "an invalid policy must not become half a valid one", checkInvalid},
		{"no_open_moment", "an attacker tries all the time", checkMoment},
	}
}

func (s *Subject) apply(ctx context.Context, p firewall.Policy) error {
	if err := s.Backend.Apply(ctx, p); err != nil {
		return fmt.Errorf("Apply: %w", err)
	}
	return nil
}

// holds says whether Drift finds nothing.
func (s *Subject) holds(ctx context.Context, p firewall.Policy) error {
	lines, err := s.Backend.Drift(ctx, p)
	if err != nil {
		return fmt.Errorf("Drift: %w", err)
	}
	if len(lines) > 0 {
		return fmt.Errorf("Drift: %q", lines)
	}
	return nil
}

// state is all that there is.
func (s *Subject) state(ctx context.Context) (own, others string, err error) {
	own, err1 := s.Own(ctx)
	others, err2 := s.Others(ctx)
	return own, others, errors.Join(err1, err2)
}

// unchanged calls fn and says what it has changed.
func (s *Subject) unchanged(ctx context.Context, what string, fn func() error) error {
	own, others, err := s.state(ctx)
	if err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	own2, others2, err := s.state(ctx)
	if err == nil && (own2 != own || others2 != others) {
		err = fmt.Errorf("%s has changed\n%s\n%s\nto\n%s\n%s", what, own, others, own2, others2)
	}
	return err
}

func checkEffect(ctx context.Context, s *Subject) error {
	if !s.Reached(ctx) {
		return errors.New("the port cannot be reached without a policy: this test would not see an effect")
	}
	if err := s.apply(ctx, Policy()); err != nil {
		return err
	}
	if s.Reached(ctx) {
		return errors.New("the port can be reached in spite of the policy")
	}
	if err := s.Backend.Remove(ctx); err != nil {
		return err
	}
	if !s.Reached(ctx) {
		return errors.New("the port cannot be reached after Remove")
	}
	return nil
}

func checkDrift(ctx context.Context, s *Subject) error {
	lines, err := s.Backend.Drift(ctx, Policy())
	if err != nil || len(lines) == 0 {
		return fmt.Errorf("before Apply, Drift found %q, %w", lines, err)
	}
	if err := s.apply(ctx, Policy()); err != nil {
		return err
	}
	if err := s.holds(ctx, Policy()); err != nil {
		return err
	}
	if lines, err := s.Backend.Drift(ctx, another()); err != nil || len(lines) == 0 {
		return fmt.Errorf("another policy than was applied: Drift found %q, %w", lines, err)
	}
	return errors.Join(s.apply(ctx, another()), s.holds(ctx, another()), s.Backend.Remove(ctx))
}

func checkIdempotent(ctx context.Context, s *Subject) error {
	if err := s.apply(ctx, Policy()); err != nil {
		return err
	}
	return errors.Join(
		s.unchanged(ctx, "the second Apply", func() error { return s.apply(ctx, Policy()) }),
		s.Backend.Remove(ctx))
}

func checkSame(ctx context.Context, s *Subject) error {
	if err := s.apply(ctx, Policy()); err != nil {
		return err
	}
	return errors.Join(
		s.unchanged(ctx, "Apply of the same policy in another order", func() error { return s.apply(ctx, shuffled()) }),
		s.holds(ctx, shuffled()), s.Backend.Remove(ctx))
}

func checkOthers(ctx context.Context, s *Subject) error {
	before, err := s.Others(ctx)
	if err != nil || before == "" {
		return fmt.Errorf("the rules of others are %q, %w", before, err)
	}
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"Apply", func() error { return s.apply(ctx, Policy()) }},
		{"Apply of another policy", func() error { return s.apply(ctx, another()) }},
		{"Remove", func() error { return s.Backend.Remove(ctx) }},
	} {
		if err := step.run(); err != nil {
			return err
		}
		after, err := s.Others(ctx)
		if err != nil {
			return err
		}
		if after != before {
			return fmt.Errorf("%s has changed the rules of others from\n%s\nto\n%s", step.name, before, after)
		}
	}
	return nil
}

// eachDamage applies the policy, and calls fn after each damage to it.
func (s *Subject) eachDamage(ctx context.Context, fn func() error) error {
	if err := s.apply(ctx, Policy()); err != nil {
		return err
	}
	damages, err := s.Damages(ctx)
	if err != nil {
		return err
	}
	if len(damages) == 0 {
		return errors.New("no damage to do: this test would see nothing")
	}
	var errs []error
	for i := range damages {
		// What a damage is about may have another number by now.
		damages, err := s.Damages(ctx)
		if err != nil || i >= len(damages) {
			return errors.Join(append(errs, fmt.Errorf("damage %d: there are %d, %w", i, len(damages), err))...)
		}
		d := damages[i]
		if err := d.Do(ctx); err != nil {
			return errors.Join(append(errs, fmt.Errorf("%s: %w", d.Name, err))...)
		}
		if err := fn(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.Name, err))
		}
		// Whether Apply repairs is the question of another rule.
		if s.apply(ctx, Policy()) == nil && s.holds(ctx, Policy()) == nil {
			continue
		}
		if err := errors.Join(s.Backend.Remove(ctx), s.apply(ctx, Policy())); err != nil {
			return errors.Join(append(errs, fmt.Errorf("after %s: %w", d.Name, err))...)
		}
	}
	return errors.Join(append(errs, s.Backend.Remove(ctx))...)
}

func checkDamage(ctx context.Context, s *Subject) error {
	return s.eachDamage(ctx, func() error {
		lines, err := s.Backend.Drift(ctx, Policy())
		if err == nil && len(lines) == 0 {
			return errors.New("Drift sees nothing")
		}
		return err
	})
}

func checkRepair(ctx context.Context, s *Subject) error {
	before, err := s.Others(ctx)
	if err != nil {
		return err
	}
	return s.eachDamage(ctx, func() error {
		if err := errors.Join(s.apply(ctx, Policy()), s.holds(ctx, Policy())); err != nil {
			return err
		}
		after, err := s.Others(ctx)
		if err == nil && after != before {
			err = fmt.Errorf("the repair has changed the rules of others from\n%s\nto\n%s", before, after)
		}
		return err
	})
}

func checkRemove(ctx context.Context, s *Subject) error {
	if err := s.unchanged(ctx, "Remove of nothing", func() error { return s.Backend.Remove(ctx) }); err != nil {
		return err
	}
	if err := errors.Join(s.apply(ctx, Policy()), s.Backend.Remove(ctx)); err != nil {
		return err
	}
	own, err := s.Own(ctx)
	if err == nil && own != "" {
		err = fmt.Errorf("Remove has left\n%s", own)
	}
	return errors.Join(err, s.Backend.Remove(ctx))
}

func checkLook(ctx context.Context, s *Subject) error {
	look := func() error {
		_, err := s.Backend.Drift(ctx, Policy())
		return err
	}
	if err := s.unchanged(ctx, "Drift without rules", look); err != nil {
		return err
	}
	if err := s.apply(ctx, another()); err != nil {
		return err
	}
	return errors.Join(s.unchanged(ctx, "Drift with other rules", look), s.Backend.Remove(ctx))
}

func checkCanceled(ctx context.Context, s *Subject) error {
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	methods := map[string]func() error{
		"Apply":  func() error { return s.Backend.Apply(canceled, another()) },
		"Remove": func() error { return s.Backend.Remove(canceled) },
		"Drift": func() error {
			_, err := s.Backend.Drift(canceled, Policy())
			return err
		},
	}
	if err := s.apply(ctx, Policy()); err != nil {
		return err
	}
	for name, method := range methods {
		if err := s.unchanged(ctx, name+" with a canceled context", func() error {
			if err := method(); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s with a canceled context returns %w", name, err)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return s.Backend.Remove(ctx)
}

func checkInvalid(ctx context.Context, s *Subject) error {
	invalid := another()
	invalid.Networks[0].Interface = "docker0\" accept"
	if err := s.apply(ctx, Policy()); err != nil {
		return err
	}
	for name, method := range map[string]func() error{
		"Apply": func() error { return s.Backend.Apply(ctx, invalid) },
		"Drift": func() error {
			_, err := s.Backend.Drift(ctx, invalid)
			return err
		},
	} {
		if err := s.unchanged(ctx, name+" of an invalid policy", func() error {
			if method() == nil {
				return fmt.Errorf("%s accepts an invalid policy", name)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return s.Backend.Remove(ctx)
}

// moment is for how long at least checkMoment looks for one.
const moment = time.Second

func checkMoment(ctx context.Context, s *Subject) error {
	if err := s.apply(ctx, Policy()); err != nil {
		return err
	}
	stop := make(chan struct{})
	const attackers = 8
	type tally struct{ tries, reached int }
	done := make(chan tally)
	for range attackers {
		go func() {
			var n tally
			for {
				select {
				case <-stop:
					done <- n
					return
				default:
				}
				n.tries++
				if s.Reached(ctx) {
					n.reached++
				}
			}
		}()
	}
	var err error
	times := 0
	for began := time.Now(); err == nil && (times < 20 || time.Since(began) < moment); times++ {
		err = errors.Join(s.apply(ctx, another()), s.apply(ctx, Policy()))
	}
	close(stop)
	var all tally
	for range attackers {
		n := <-done
		all.tries += n.tries
		all.reached += n.reached
	}
	switch {
	case err != nil:
	case all.tries < attackers:
		err = fmt.Errorf("only %d tries", all.tries)
	case all.reached > 0:
		err = fmt.Errorf("while the policy was replaced %d times, %d of %d tries got in", 2*times, all.reached, all.tries)
	}
	return errors.Join(err, s.Backend.Remove(ctx))
}
