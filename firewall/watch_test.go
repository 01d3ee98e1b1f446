package firewall_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
)

// kept is a kernel of one line.
type kept struct {
	mu       sync.Mutex // for edit, and the methods
	policy   *firewall.Policy
	drift    []string // in addition
	failing  error    // of all methods
	stubborn bool     // Apply has no effect
	applied  int
	looked   int
}

func (k *kept) Name() string { return "memory" }

func (k *kept) Apply(_ context.Context, p firewall.Policy) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.applied++
	if k.failing != nil {
		return k.failing
	}
	if !k.stubborn {
		k.policy, k.drift = &p, nil
	}
	return nil
}

func (k *kept) Remove(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.policy = nil
	return k.failing
}

// edit changes k while a watcher may use it.
func (k *kept) edit(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

func (k *kept) Drift(_ context.Context, p firewall.Policy) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looked++
	if k.failing != nil {
		return nil, k.failing
	}
	lines := slices.Clone(k.drift)
	if k.policy == nil {
		lines = append(lines, "nothing is applied")
	}
	return lines, nil
}

func (k *kept) looks() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.looked
}

func (k *kept) applications() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.applied
}

func (k *kept) keeps() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.policy != nil
}

// watch runs a watcher in a bubble until the test ends.
func watch(t *testing.T, w *firewall.Watcher) (reports func() []firewall.Drift) {
	t.Helper()
	var mu sync.Mutex
	var all []firewall.Drift
	w.Report = func(d firewall.Drift) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, d)
	}
	if w.Source == nil {
		w.Source = func(context.Context) (firewall.Policy, error) { return firewall.Policy{}, nil }
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	synctest.Wait()
	return func() []firewall.Drift {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func TestWatcherRepairsAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kept{}
		reports := watch(t, &firewall.Watcher{Backend: k, Repair: true, Interval: time.Minute})
		if len(reports()) != 1 || !reports()[0].Repaired || reports()[0].Err != nil || len(reports()[0].Lines) != 1 || !k.keeps() {
			t.Fatalf("at once: %+v", reports())
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(reports()) != 1 || k.applications() != 1 {
			t.Errorf("without drift: %d reports, %d applied", len(reports()), k.applications())
		}
		k.edit(func() { k.drift = []string{"a rule is gone"} })
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(reports()) != 2 || !reports()[1].Repaired || !slices.Equal(reports()[1].Lines, []string{"a rule is gone"}) {
			t.Errorf("after drift: %+v", reports())
		}
	})
}

func TestWatcherThatShallNotRepairDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kept{}
		reports := watch(t, &firewall.Watcher{Backend: k, Interval: time.Minute})
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if len(reports()) != 2 || reports()[0].Repaired || k.applications() != 0 {
			t.Fatalf("%+v, applied %d times", reports(), k.applications())
		}
		k.edit(func() { k.policy = &firewall.Policy{} }) // somebody else has repaired it
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if len(reports()) != 3 || len(reports()[2].Lines) != 0 {
			t.Errorf("want one report that all is well again: %+v", reports())
		}
	})
}

// A repair that has no effect, whatever Apply says, is none.
func TestWatcherDoesNotBelieveApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := watch(t, &firewall.Watcher{Backend: &kept{stubborn: true}, Repair: true})
		if d := reports()[0]; d.Repaired || d.Err == nil || !strings.Contains(d.Err.Error(), "nothing is applied") {
			t.Errorf("%+v", d)
		}
	})
}

func TestWatcherIsTriggered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trigger := make(chan struct{})
		k := &kept{policy: &firewall.Policy{}}
		watch(t, &firewall.Watcher{Backend: k, Trigger: trigger, Interval: time.Hour})
		for range 50 { // as when a whole project starts
			trigger <- struct{}{}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if k.looks() != 2 {
			t.Errorf("50 triggers at once caused %d looks, want 1", k.looks()-1)
		}
		trigger <- struct{}{}
		time.Sleep(time.Second)
		synctest.Wait()
		if k.looks() != 3 {
			t.Errorf("a later trigger caused %d looks, want 1", k.looks()-2)
		}
		close(trigger)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if k.looks() != 3 {
			t.Errorf("a closed trigger caused %d looks", k.looks()-3)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if k.looks() != 4 {
			t.Errorf("with a closed trigger, an interval caused %d looks, want 1", k.looks()-3)
		}
	})
}

// Errors are reported, slow it down, and do not end it; triggers do not make a
// busy loop of it.
func TestWatcherBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trigger := make(chan struct{}, 1)
		k := &kept{policy: &firewall.Policy{}, failing: errors.New("no kernel today")}
		reports := watch(t, &firewall.Watcher{Backend: k, Trigger: trigger, Interval: 10 * time.Second})
		time.Sleep(time.Hour)
		synctest.Wait()
		// After 20, 40, 80, 160 seconds, and every 5 minutes from then on.
		if n := len(reports()); n < 15 || n > 17 {
			t.Errorf("%d looks in an hour of errors", n)
		}
		before := k.looks()
		for range 600 {
			select {
			case trigger <- struct{}{}:
			default:
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := k.looks() - before; n < 3 || n > 7 {
			t.Errorf("%d looks in a minute of triggers and errors, want one each 10 seconds", n)
		}
		k.edit(func() { k.failing = nil })
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		last := reports()[len(reports())-1]
		if last.Err != nil || len(last.Lines) > 0 {
			t.Errorf("recovery was not reported: %+v", last)
		}
		before = k.looks()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := k.looks() - before; n < 5 {
			t.Errorf("%d looks in the minute after recovery, want 6", n)
		}
	})
}

func TestWatcherKeepsAWrongPolicyFromTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kept{}
		reports := watch(t, &firewall.Watcher{Backend: k, Repair: true, Source: func(context.Context) (firewall.Policy, error) {
			return firewall.Policy{Networks: []firewall.Network{{Interface: "not an interface"}}}, nil
		}})
		if k.applications()+k.looks() != 0 || reports()[0].Err == nil {
			t.Errorf("%+v, applied %d times", reports(), k.applications())
		}
	})
}

func TestWatcherWithoutWhatItNeeds(t *testing.T) {
	if err := new(firewall.Watcher).Run(t.Context()); err == nil {
		t.Error("no error")
	}
}
