package halt_test

import (
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
)

// BenchmarkLook times how long an observer looks at a container that is frozen,
// and what that costs, on a machine with few other processes and with many.
func BenchmarkLook(b *testing.B) {
	t := start(b, named)
	t.run("agent", lab.AgentImage)
	t.arm()
	t.do(t.freeze)
	for _, others := range []int{0, 500} {
		var idle []*exec.Cmd
		for range others {
			c := exec.CommandContext(b.Context(), "sleep", "3600")
			if err := c.Start(); err != nil {
				b.Fatal(err)
			}
			idle = append(idle, c)
		}
		for _, o := range []observer{t.frozen, t.procs} {
			b.Run(fmt.Sprintf("%s/others=%d", o.Name(), others), func(b *testing.B) {
				var took []time.Duration
				b.ReportAllocs()
				used := processor(b)
				for b.Loop() {
					began := time.Now()
					if _, err := o.Remaining(b.Context()); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
				}
				used = processor(b) - used
				slices.Sort(took)
				b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
				b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
				b.ReportMetric(ms(used)/float64(len(took)), "cpu-ms/op")
			})
		}
		for _, c := range idle {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
}

// processor returns how long this process has been on a processor.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
