package container

import (
	"context"
	"fmt"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

// A judge is a pure function of a container.
type judge func(context.Context, Container) (harden.Verdict, error)

// violations collects findings.
type violations []harden.Finding

func (v *violations) add(id string, severity harden.Severity, remedy, message string, evidence ...harden.Evidence) {
	*v = append(*v, harden.Finding{ID: id, Severity: severity, Remedy: remedy, Message: message, Evidence: evidence})
}

// verdict fails if there are violations, is unknown for err otherwise, and
// passes if neither.
func (v violations) verdict(err error, pass ...harden.Evidence) (harden.Verdict, error) {
	switch {
	case len(v) > 0:
		return harden.Fail(v[0], v[1:]...), err
	case err != nil:
		return harden.Verdict{}, err
	case len(pass) == 0:
		return harden.Verdict{}, nil
	}
	return harden.Pass(pass[0], pass[1:]...), nil
}

// unseen is the error for a container of which the kernel shows nothing.
func (c *Container) unseen() error {
	switch {
	case c.Kernel == nil && c.KernelErr != nil:
		return c.KernelErr
	case c.Kernel == nil || len(c.Kernel.Processes) == 0 || len(c.Kernel.Trees) == 0 || c.Host == nil:
		return ErrVanished
	}
	return nil
}

func declared(source, observed, expected string) harden.Evidence {
	return harden.Evidence{Source: source, Observed: observed, Expected: expected, Level: harden.LevelDeclared}
}

func inspected(source, observed, expected string) harden.Evidence {
	return harden.Evidence{Source: source, Observed: observed, Expected: expected, Level: harden.LevelInspected}
}

// maxShown is how many of many like things evidence shows.
const maxShown = 5

// offenders is evidence of the processes that fail a test.
type offenders struct {
	expected string
	shown    []harden.Evidence
	count    int
}

// every applies a test to all processes; it returns those that fail it, each
// with what was seen of it.
func (k *Kernel) every(expected string, ok func(*Process) (observed string, ok bool)) offenders {
	o := offenders{expected: expected}
	for i := range k.Processes {
		p := &k.Processes[i]
		seen, good := ok(p)
		if good {
			continue
		}
		o.count++
		if len(o.shown) < maxShown {
			o.shown = append(o.shown, inspected(p.source(), p.Name+": "+seen, expected))
		}
	}
	return o
}

// source names the file that shows a thread.
func (p *Process) source() string {
	if p.TID != p.PID {
		return fmt.Sprintf("/proc/%d/task/%d/status", p.PID, p.TID)
	}
	return fmt.Sprintf("/proc/%d/status", p.PID)
}

// all is evidence that every process passes.
func (k *Kernel) all(observed string) harden.Evidence {
	pids := make(map[int]bool)
	for _, p := range k.Processes {
		pids[p.PID] = true
	}
	return inspected(k.Processes[0].source(),
		fmt.Sprintf("%s in all %s", observed, count(len(pids), "process", "processes")+threads(len(k.Processes)-len(pids))), "")
}

func threads(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s more)", count(n, "thread", "threads"))
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// joinSome joins strings, saying how many more there are than it shows.
func joinSome(all []string) string {
	if len(all) > maxShown {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:maxShown], ", "), len(all)-maxShown)
	}
	return strings.Join(all, ", ")
}

// shares reports whether a process is in one of the machine's own namespaces
// of a kind.
func (c *Container) shares(kind string) (*Process, bool) {
	for i := range c.Kernel.Processes {
		p := &c.Kernel.Processes[i]
		for _, ns := range c.Host.Namespaces[kind] {
			if p.Namespaces[kind] == ns && ns != 0 {
				return p, true
			}
		}
	}
	return nil, false
}
