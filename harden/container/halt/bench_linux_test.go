package halt_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/harden/container/halt"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// rounds is how often each way is timed: 200 for figures to publish.
func rounds(b *testing.B) int {
	if n, err := strconv.Atoi(os.Getenv("HARDSHELL_HALT_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return max(b.N, 3)
}

// BenchmarkHalt times, in one run and on one container after another, how long
// it takes until a container's counter stands still for good, and until an
// observer has confirmed it: by the kernel, and by the engine's own ways. The
// counter is in memory that is shared with the benchmark.
func BenchmarkHalt(b *testing.B) {
	t := start(b, named)
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		b.Fatal(err)
	}
	counter := watchCounter(b, dir+"/n")
	pause := &halt.Rung{Tracker: t.tracker, Step: halt.StepPause}
	kill := &halt.Rung{Tracker: t.tracker, Step: halt.StepKill}
	stop := &halt.Rung{Tracker: t.tracker, Step: halt.StepStop}
	for _, way := range []struct {
		name string
		do   func(context.Context) error
		seen observer
	}{
		{"freeze", t.freeze.Do, t.frozen},
		{"docker-pause", pause.Do, t.frozen},
		{"kill", t.kill.Do, t.procs},
		{"docker-kill", kill.Do, t.procs},
		{"docker-stop-0", stop.Do, t.procs},
	} {
		b.Run(way.name, func(b *testing.B) {
			var did, still, confirmed []time.Duration
			for range rounds(b) {
				t.run("agent", "-v", dir+":/shared", lab.AgentImage, "do", "count", "/shared/n")
				counter.moves(b)
				t.arm()
				began := time.Now()
				watched := counter.stands(began)
				if err := way.do(b.Context()); err != nil {
					b.Fatal(err)
				}
				did = append(did, time.Since(began))
				for {
					left, err := way.seen.Remaining(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					if len(left) == 0 {
						break
					}
				}
				confirmed = append(confirmed, time.Since(began))
				still = append(still, <-watched)
				for _, pid := range t.truth(t.current()) {
					end(pid)
				}
				if _, err := t.Docker(b.Context(), "rm", "-f", "agent"); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(0, "ns/op")
			for what, all := range map[string][]time.Duration{"did": did, "still": still, "confirmed": confirmed} {
				slices.Sort(all)
				b.ReportMetric(ms(all[len(all)/2]), what+"-p50-ms")
				b.ReportMetric(ms(all[min(len(all)-1, len(all)*99/100)]), what+"-p99-ms")
			}
		})
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
