package egress

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
)

// A cutter is one way of stopping a stream.
type cutter struct {
	name, workload string
	fire           func(context.Context) error
	undo           func(context.Context) error
}

// BenchmarkLastByte measures how long after the call the last byte of an
// established stream, of 64 bytes a millisecond, arrives at a machine beyond
// the host. Run it with -benchtime 200x. The call itself is the time per
// operation; what comes before and after is not measured.
func BenchmarkLastByte(b *testing.B) {
	s := newSite(b, lab.Config{})
	// As a caller that knows its containers: the engine is not asked.
	workloads, err := s.source(b.Context())
	s.must(err)
	only := func(name string) Source {
		return func(context.Context) ([]Workload, error) {
			return slices.DeleteFunc(slices.Clone(workloads), func(w Workload) bool { return w.Name != name }), nil
		}
	}
	lock := func(label, workload string, byIPTables bool) cutter {
		l := &Lock{Source: only(workload), NetNS: s.l.Host.NetNS(), IPTables: byIPTables}
		b.Cleanup(func() { l.Close() })
		return cutter{label, workload, func(ctx context.Context) error {
			if err := l.Do(ctx); err != nil && !strings.Contains(err.Error(), "CAP_NET_RAW") {
				return err
			}
			return nil
		}, func(ctx context.Context) error {
			if err := l.Release(ctx); err != nil {
				return err
			}
			return l.Arm(ctx)
		}}
	}
	run := func(words ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			out, err := s.l.Host.Command(ctx, words[0], words[1:]...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%v: %w: %s", words, err, out)
			}
			return nil
		}
	}
	engine := func(words ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.l.Docker(ctx, words...)
			return err
		}
	}
	for _, c := range []cutter{
		lock("lock/bridge", "solo", false),
		lock("lock/two-bridges", "duo", false),
		lock("lock/macvlan", "vlan", false),
		lock("lock/host-network", "hostly", false),
		lock("lock-by-iptables/bridge", "solo", true),
		{"iptables-I-DOCKER-USER", "solo", run("iptables", "-w", "-I", "DOCKER-USER", "-i", "br-n1", "-j", "DROP"), run("iptables", "-w", "-D", "DOCKER-USER", "-i", "br-n1", "-j", "DROP")},
		{"docker-pause", "solo", engine("pause", "solo"), engine("unpause", "solo")},
		{"docker-kill", "solo", engine("kill", "solo"), engine("start", "solo")},
		{"docker-network-disconnect", "solo", engine("network", "disconnect", "-f", "n1", "solo"), engine("network", "connect", "--ip", "172.30.1.10", "n1", "solo")},
	} {
		b.Run(c.name, func(b *testing.B) { s.fires(b, c) })
	}
}

// fires measures one cutter.
func (s *site) fires(b *testing.B, c cutter) {
	i := slices.Index(workloadNames, c.workload)
	sink := s.streams[c.workload]
	ask := func(words ...string) {
		b.Helper()
		address, m := map[string]string{"solo": "172.30.1.10", "duo": "172.30.2.10", "hostly": "127.0.0.1", "vlan": "192.0.2.70"}[c.workload], s.l.Host
		if c.workload == "vlan" {
			m = s.l.Internet
		}
		for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			a, err := lab.Ask(b.Context(), m.Client(time.Second), address+":"+strconv.Itoa(lab.AgentPort), words[0], words[1:]...)
			if err == nil && a.OK {
				return
			}
			if time.Since(start) > openWait {
				b.Fatalf("%s: %v: %v %v", c.workload, words, a, err)
			}
		}
	}
	if err := c.undo(b.Context()); err != nil && strings.HasPrefix(c.name, "lock") {
		if !strings.Contains(err.Error(), "CAP_NET_RAW") {
			b.Fatal(err)
		}
	}
	var late []time.Duration
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		ask("stream-stop")
		ask("stream-start", fmt.Sprintf("%s:%d", lab.FarAddr4, 8100+i))
		for flowing := sink.Bytes() + 64*30; sink.Bytes() < flowing; {
			time.Sleep(time.Millisecond)
		}
		b.StartTimer()
		start := time.Now()
		if err := c.fire(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		for time.Since(sink.Last()) < 60*time.Millisecond {
			if time.Since(start) > 5*time.Second {
				b.Fatalf("%s: it still streams", c.name)
			}
			time.Sleep(2 * time.Millisecond)
		}
		late = append(late, max(0, sink.Last().Sub(start.Round(0))))
		if err := c.undo(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	slices.Sort(late)
	at := func(q float64) float64 { return float64(late[int(q*float64(len(late)-1))].Microseconds()) / 1000 }
	b.ReportMetric(at(0.5), "last-byte-p50-ms")
	b.ReportMetric(at(0.99), "last-byte-p99-ms")
	b.ReportMetric(at(1), "last-byte-max-ms")
}
