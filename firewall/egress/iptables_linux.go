package egress

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/managemyclaw/hardshell/firewall"
)

// An xchain is a chain of ours in a table of iptables, and where it is called
// from.
type xchain struct{ table, parent, chain string }

func (m *marks) xchains() []xchain {
	return []xchain{
		{"raw", "PREROUTING", m.in},
		{"raw", "OUTPUT", m.out},
		{"mangle", "FORWARD", m.forward},
		{"raw", "OUTPUT", m.group},
		{"mangle", "INPUT", m.group},
	}
}

// lockWait is how many seconds a program waits for others that change rules.
const lockWait = "2"

// flavours are beginnings of names of programs. Rules of either hold, whichever
// others use.
var flavours = []string{"tables", "tables-legacy"}

// xrules are rules by table and chain.
type xrules map[[2]string][]string

// ready says what is missing for the lock to be kept by iptables.
func ready(ctx context.Context) error {
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"-save", "-restore"} {
			if _, err := exec.LookPath(program + suffix); err != nil {
				return fmt.Errorf("iptables cannot keep the lock: %w", err)
			}
		}
	}
	return ctx.Err()
}

func (p *plan) hostByIPTables(ctx context.Context) error {
	m := p.host.marks
	in, out, forward := [2]string{"raw", m.in}, [2]string{"raw", m.out}, [2]string{"mangle", m.forward}
	rules := xrules{in: nil, out: nil, forward: nil}
	for _, name := range p.names {
		rules[in] = append(rules[in], "-i "+name+" -j DROP")
		rules[out] = append(rules[out], "-o "+name+" -j DROP")
		rules[forward] = append(rules[forward], "-o "+name+" -j DROP")
	}
	err := p.host.restore(ctx, rules)
	if len(p.group) == 0 {
		return err
	}
	// By itself: not every kernel has the match.
	rules = xrules{}
	for _, g := range p.group {
		for _, table := range []string{"raw", "mangle"} {
			key := [2]string{table, m.group}
			rules[key] = append(rules[key], fmt.Sprintf("-m cgroup --path %q -j DROP", g.path))
		}
	}
	if groups := p.host.restore(ctx, rules); groups != nil {
		err = errors.Join(err, fmt.Errorf("control groups: %w", groups))
	}
	return err
}

func (r *room) insideByIPTables(ctx context.Context) error {
	return r.restore(ctx, xrules{{"raw", r.marks.in}: {"-j DROP"}, {"raw", r.marks.out}: {"-j DROP"}})
}

// restore adds rules to chains of ours, each family in one go, both at once.
func (r *room) restore(ctx context.Context, rules xrules) error {
	var wg sync.WaitGroup
	var errs [2]error
	for i, family := range []string{"ip", "ip6"} {
		wg.Go(func() {
			for _, flavour := range flavours {
				err := r.restoreFamily(ctx, family+flavour, rules)
				if err == nil {
					errs[i] = nil
					return
				}
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

func (r *room) restoreFamily(ctx context.Context, program string, rules xrules) error {
	text, err := r.run(ctx, nil, program+"-save")
	if err != nil {
		return err
	}
	script := r.marks.xscript(parseXSave(text), rules)
	_, err = r.run(ctx, []byte(script), program+"-restore", "--noflush", "-w", lockWait)
	return err
}

// xscript makes what iptables-restore reads. What is in a chain of ours already
// stays, since to declare a chain is to flush it, and what leads there comes
// first.
func (m *marks) xscript(have, add xrules) string {
	var b strings.Builder
	for _, table := range []string{"raw", "mangle"} {
		var lines strings.Builder
		for _, x := range m.xchains() {
			more, ok := add[[2]string{x.table, x.chain}]
			if x.table != table || !ok {
				continue
			}
			fmt.Fprintf(&lines, ":%s - [0:0]\n", x.chain)
			all := slices.Clone(have[[2]string{table, x.chain}])
			for _, rule := range more {
				if !slices.Contains(all, rule) {
					all = append(all, rule)
				}
			}
			for _, rule := range all {
				fmt.Fprintf(&lines, "-A %s %s\n", x.chain, rule)
			}
			jump := "-j " + x.chain
			for _, rule := range have[[2]string{table, x.parent}] {
				if rule == jump {
					fmt.Fprintf(&lines, "-D %s %s\n", x.parent, jump)
				}
			}
			fmt.Fprintf(&lines, "-I %s 1 %s\n", x.parent, jump)
		}
		if lines.Len() > 0 {
			fmt.Fprintf(&b, "*%s\n%sCOMMIT\n", table, lines.String())
		}
	}
	return b.String()
}

// parseXSave reads what iptables-save prints: the rules of each chain.
func parseXSave(text []byte) xrules {
	out := xrules{}
	table := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":"):
			chain, _, _ := strings.Cut(line[1:], " ")
			out[[2]string{table, chain}] = nil
		case strings.HasPrefix(line, "-A "):
			chain, rule, _ := strings.Cut(line[3:], " ")
			key := [2]string{table, chain}
			out[key] = append(out[key], rule)
		}
	}
	return out
}

// releaseIPTables takes chains of ours away, if there are any.
func (r *room) releaseIPTables(ctx context.Context) error {
	return r.eachFlavour(ctx, func(program string, have xrules) error {
		var b strings.Builder
		for _, table := range []string{"raw", "mangle"} {
			var lines strings.Builder
			for _, x := range r.marks.xchains() {
				if _, ok := have[[2]string{table, x.chain}]; !ok || x.table != table {
					continue
				}
				for _, rule := range have[[2]string{table, x.parent}] {
					if rule == "-j "+x.chain {
						fmt.Fprintf(&lines, "-D %s %s\n", x.parent, rule)
					}
				}
				fmt.Fprintf(&lines, "-F %s\n-X %s\n", x.chain, x.chain)
			}
			if lines.Len() > 0 {
				fmt.Fprintf(&b, "*%s\n%sCOMMIT\n", table, lines.String())
			}
		}
		if b.Len() == 0 {
			return nil
		}
		_, err := r.run(ctx, []byte(b.String()), program+"-restore", "--noflush", "-w", lockWait)
		return err
	})
}

func engagedByIPTables(ctx context.Context, host *room) (yes bool, err error) {
	err = host.eachFlavour(ctx, func(_ string, have xrules) error {
		for _, x := range host.marks.xchains() {
			yes = yes || len(have[[2]string{x.table, x.chain}]) > 0
		}
		return nil
	})
	return yes, err
}

// eachFlavour calls fn with what each of the installed programs shows. The
// older flavour is not asked where it has no tables: to ask is to make them.
func (r *room) eachFlavour(ctx context.Context, fn func(program string, have xrules) error) error {
	var errs []error
	for _, family := range []string{"ip", "ip6"} {
		for _, flavour := range flavours {
			program := family + flavour
			if _, err := exec.LookPath(program + "-save"); err != nil {
				continue
			}
			out, err := r.run(ctx, nil, "sh", "-c", `v=$("$1" -V 2>/dev/null) || exit 0
				case $v in *nf_tables*) ;; *) [ -s "/proc/self/net/$2_tables_names" ] || exit 0 ;; esac
				exec "$1-save"`, "sh", program, family)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			errs = append(errs, fn(program, parseXSave(out)))
		}
	}
	return errors.Join(errs...)
}

// run runs a program in the namespace.
func (r *room) run(ctx context.Context, stdin []byte, name string, args ...string) (out []byte, err error) {
	err = r.within(func() error {
		out, err = firewall.Programs{Timeout: DefaultTimeout}.Run(ctx, stdin, name, args...)
		return err
	})
	return out, err
}

// within calls fn on a thread in the namespace.
func (r *room) within(fn func() error) error { return within(r.ns, fn) }

// within calls fn on a thread in a network namespace, which ends afterwards: no
// other goroutine ever runs on it.
func within(ns *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The first thread cannot end. Hold it while another one works.
			defer runtime.UnlockOSThread()
			done <- within(ns, fn)
			return
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace %s: %w", ns.Name(), err)
			return
		}
		done <- fn()
	}()
	return <-done
}
