package killswitch_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
)

// BenchmarkFire measures what the switch itself takes, on a real disk: from
// Fire until the actuators of a first kill are called, which is after the fence
// is durable, and until the observers have confirmed.
func BenchmarkFire(b *testing.B) {
	var acted, confirmed []time.Duration
	var began time.Time
	for b.Loop() {
		b.StopTimer()
		thing := killswitchtest.NewThing("a")
		tg := target("agent", thing)
		first := true
		tg.Ladder[0].Actuators[0].(*killswitchtest.Actuator).Before = func() {
			if first {
				first = false
				acted = append(acted, time.Since(began))
			}
		}
		cfg := config(b, tg)
		s, err := killswitch.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		began = time.Now()
		b.StartTimer()
		r, err := s.Fire(context.Background(), "test")
		if err != nil {
			b.Fatal(err)
		}
		confirmed = append(confirmed, result(b, r, "agent").ConfirmedAfter)
	}
	for name, all := range map[string][]time.Duration{"acted": acted, "confirmed": confirmed} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), name+"-p99-µs")
	}
}
