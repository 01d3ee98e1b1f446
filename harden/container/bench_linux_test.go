package container_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// BenchmarkAudit measures a whole audit of 1, 10 and 100 containers, from the
// engine's socket and /proc to the report, and beside it what the docker
// program takes merely to inspect them: in a call for each, as scripts do, and
// in one for all. See BENCHMARKS.md.
func BenchmarkAudit(b *testing.B) {
	l := labtest.Start(b, lab.Config{})
	engine, err := docker.Open(l.DockerHost())
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	var names []string
	for _, n := range []int{1, 10, 100} {
		names = grow(b, l, names, n)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			per := func(b *testing.B) {
				b.Helper()
				b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N)/float64(n), "ms/container")
			}
			b.Run("audit", func(b *testing.B) {
				b.ReportAllocs()
				view := &host.Local().View
				for b.Loop() {
					// A new source and a new share of it each time: nothing is remembered.
					checks := container.Checks(container.NewSource(engine), container.Profile{Writable: []string{"/state"}})
					report, err := new(audit.Auditor).Run(b.Context(), view, checks...)
					if err != nil {
						b.Fatal(err)
					}
					if w := report.Worst(); w == harden.StatusFail {
						b.Fatal("the containers of the benchmark are not hardened")
					}
					for _, r := range report.Results { // a fast audit that saw nothing is none
						if r.Status == harden.StatusUnknown && r.Info.ID != "container.loopback_leak" {
							b.Fatalf("%s: %s", r.Info.ID, r.Detail)
						}
					}
				}
				per(b)
			})
			inspect := func(b *testing.B, names ...string) {
				b.Helper()
				args := append([]string{"-H", l.DockerHost(), "inspect"}, names...)
				if out, err := exec.CommandContext(b.Context(), "docker", args...).CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
			}
			b.Run("docker-inspect-cli", func(b *testing.B) {
				for b.Loop() {
					for _, name := range names {
						inspect(b, name)
					}
				}
				per(b)
			})
			b.Run("docker-inspect-cli-one-call", func(b *testing.B) {
				for b.Loop() {
					inspect(b, names...)
				}
				per(b)
			})
		})
	}
}

// grow runs hardened containers until there are n.
func grow(b *testing.B, l *lab.Lab, names []string, n int) []string {
	b.Helper()
	var g errgroup.Group
	g.SetLimit(4)
	for i := len(names); i < n; i++ {
		name := fmt.Sprintf("agent%03d", i)
		names = append(names, name)
		args := []string{"run", "-d", "--name", name}
		for _, more := range hardened {
			args = append(args, more...)
		}
		args = append(args, lab.UserImage)
		g.Go(func() error {
			_, err := l.Docker(b.Context(), args...)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return slices.Clip(names)
}
