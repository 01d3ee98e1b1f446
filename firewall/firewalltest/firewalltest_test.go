package firewalltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
)

// world is what there is of a kernel around a Memory.
type world struct {
	*Memory
	others string
	extra  int // writes beside those of Memory
}

func (w *world) subject(b firewall.Backend) *Subject {
	return &Subject{
		Backend: b,
		Own: func(context.Context) (string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.lines) == 0 {
				return "", nil
			}
			return fmt.Sprint(w.writes+w.extra, w.lines), nil
		},
		Others: func(context.Context) (string, error) { return w.others, nil },
		Damages: func(context.Context) ([]Damage, error) {
			var out []Damage
			for i, line := range w.Lines() {
				out = append(out, Damage{"delete " + line, func(context.Context) error {
					w.Edit(func(lines []string) []string { return slices.Delete(lines, i, i+1) })
					return nil
				}}, Damage{"insert before " + line, func(context.Context) error {
					w.Edit(func(lines []string) []string { return slices.Insert(lines, i, "accept") })
					return nil
				}})
			}
			return out, nil
		},
		Reached: func(context.Context) bool {
			time.Sleep(time.Millisecond)
			return !strings.Contains(strings.Join(w.Lines(), "\n"), "8080")
		},
	}
}

// broken is a backend with some of its methods replaced.
type broken struct {
	*world
	apply  func(context.Context, firewall.Policy) error
	remove func(context.Context) error
	drift  func(context.Context, firewall.Policy) ([]string, error)
}

func (b *broken) Apply(ctx context.Context, p firewall.Policy) error {
	if b.apply != nil {
		return b.apply(ctx, p)
	}
	return b.Memory.Apply(ctx, p)
}

func (b *broken) Remove(ctx context.Context) error {
	if b.remove != nil {
		return b.remove(ctx)
	}
	return b.Memory.Remove(ctx)
}

func (b *broken) Drift(ctx context.Context, p firewall.Policy) ([]string, error) {
	if b.drift != nil {
		return b.drift(ctx, p)
	}
	return b.Memory.Drift(ctx, p)
}

func newWorld() *world { return &world{Memory: &Memory{}, others: "-A INPUT -j DROP"} }

func TestMemoryConforms(t *testing.T) {
	Test(t, func(*testing.T) *Subject {
		w := newWorld()
		return w.subject(w.Memory)
	})
}

// For each rule there is a way to break it that nothing else is needed to find.
func TestBrokenBackendsAreFound(t *testing.T) {
	ways := map[string]func(b *broken, s *Subject){
		"effect": func(_ *broken, s *Subject) { s.Reached = func(context.Context) bool { return true } },
		"drift_before_and_after": func(b *broken, _ *Subject) {
			b.drift = func(context.Context, firewall.Policy) ([]string, error) { return nil, nil }
		},
		"idempotent": func(b *broken, _ *Subject) {
			b.apply = func(ctx context.Context, p firewall.Policy) error {
				b.extra++
				return b.Memory.Apply(ctx, p)
			}
		},
		"same_policy": func(b *broken, _ *Subject) {
			last := ""
			b.apply = func(ctx context.Context, p firewall.Policy) error {
				if now := fmt.Sprint(p); now != last {
					last = now
					b.extra++
				}
				return b.Memory.Apply(ctx, p)
			}
		},
		"others_untouched": func(b *broken, _ *Subject) {
			b.remove = func(ctx context.Context) error {
				b.others = ""
				return b.Memory.Remove(ctx)
			}
		},
		"drift_sees_damage": func(b *broken, _ *Subject) {
			b.drift = func(ctx context.Context, p firewall.Policy) ([]string, error) {
				lines, err := b.Memory.Drift(ctx, p)
				if len(b.Lines()) > 5 && slices.Contains(b.Lines(), "accept") {
					return nil, err // looks only for what is missing
				}
				return lines, err
			}
		},
		"repair": func(b *broken, _ *Subject) {
			b.apply = func(ctx context.Context, p firewall.Policy) error {
				if len(b.Lines()) > 0 { // it is there, is it not
					return ctx.Err()
				}
				return b.Memory.Apply(ctx, p)
			}
		},
		"remove": func(b *broken, _ *Subject) {
			b.remove = func(ctx context.Context) error {
				if len(b.Lines()) == 0 {
					return errors.New("nothing to remove")
				}
				return b.Memory.Remove(ctx)
			}
		},
		"drift_changes_nothing": func(b *broken, _ *Subject) {
			b.drift = func(ctx context.Context, p firewall.Policy) ([]string, error) {
				lines, err := b.Memory.Drift(ctx, p)
				return lines, errors.Join(err, b.Memory.Apply(ctx, p))
			}
		},
		"canceled": func(b *broken, _ *Subject) {
			b.apply = func(ctx context.Context, p firewall.Policy) error {
				return b.Memory.Apply(context.WithoutCancel(ctx), p)
			}
		},
		"invalid": func(b *broken, _ *Subject) {
			b.apply = func(ctx context.Context, p firewall.Policy) error {
				p.Networks = nil // whatever does not please
				return b.Memory.Apply(ctx, p)
			}
		},
		"no_open_moment": func(b *broken, _ *Subject) {
			b.apply = func(ctx context.Context, p firewall.Policy) error {
				if err := b.Memory.Remove(ctx); err != nil {
					return err
				}
				time.Sleep(5 * time.Millisecond)
				return b.Memory.Apply(ctx, p)
			}
		},
	}
	for _, rule := range Rules() {
		t.Run(rule.ID, func(t *testing.T) {
			w := newWorld()
			b := &broken{world: w}
			s := w.subject(b)
			if ways[rule.ID] == nil {
				t.Fatal("no broken backend for this rule")
			}
			ways[rule.ID](b, s)
			err := rule.Check(t.Context(), s)
			if err == nil || !strings.HasPrefix(err.Error(), rule.ID+": ") {
				t.Errorf("not found: %v", err)
			}
			t.Log(err)
		})
	}
}

// A kit that cannot see is not content.
func TestBlindSubjectsFail(t *testing.T) {
	for id, blind := range map[string]func(*Subject){
		"effect":            func(s *Subject) { s.Reached = func(context.Context) bool { return false } },
		"others_untouched":  func(s *Subject) { s.Others = func(context.Context) (string, error) { return "", nil } },
		"drift_sees_damage": func(s *Subject) { s.Damages = func(context.Context) ([]Damage, error) { return nil, nil } },
		"repair":            func(s *Subject) { s.Damages = func(context.Context) ([]Damage, error) { return nil, errors.New("x") } },
		"idempotent":        func(s *Subject) { s.Own = func(context.Context) (string, error) { return "", errors.New("x") } },
	} {
		rules := Rules()
		i := slices.IndexFunc(rules, func(r Rule) bool { return r.ID == id })
		w := newWorld()
		s := w.subject(w.Memory)
		blind(s)
		if err := rules[i].Check(t.Context(), s); err == nil {
			t.Errorf("%s: content without seeing anything", id)
		}
	}
}
