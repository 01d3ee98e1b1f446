package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// kill is the command of that name: it stops the agent, and says what became of
// it. It is not interrupted by what interrupts the program.
func (p *program) kill(ctx context.Context, args []string) (int, error) {
	var (
		reason string
		soft   time.Duration
	)
	err := p.parse("kill", args, func(fs *flag.FlagSet) {
		p.switchFlags(fs)
		fs.DurationVar(&soft, "soft", 0, "how long to let OpenClaw end by itself what it does before it is stopped, so that it does\nnot take it up again when it is started next; it goes on meanwhile")
		fs.StringVar(&reason, "reason", "", "`TEXT` for the receipt and the trail")
	})
	if err != nil {
		return exitUsage, err
	}
	if p.format != "text" && p.format != "json" {
		return exitUsage, usageError("a receipt is text or json, not " + p.format)
	}
	if reason == "" {
		reason = "an operator asked for it"
	}
	s, err := p.openSwitch()
	if err != nil {
		return exitUsage, err
	}
	defer s.close()
	if soft > 0 {
		p.softly(ctx, soft)
	}
	receipt, err := s.Fire(killswitch.WithRequester(ctx, p.operator()), reason)
	if lost := p.writeReceipt(receipt); lost != nil {
		return exitFail, errors.Join(err, lost)
	}
	return receiptCode(receipt, err), quiet(err)
}

// softly has OpenClaw end what it does. What it does not end is stopped.
func (p *program) softly(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	soft, err := p.softStop()
	if soft != nil {
		defer soft.Close()
		err = soft.Do(ctx)
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "%s\n", printable(err.Error()))
	}
}

// openSwitch returns the switch that the flags describe.
func (p *program) openSwitch() (*killSwitch, error) {
	agent, err := p.agentName()
	if err != nil {
		return nil, err
	}
	if len(p.containers) == 0 {
		return nil, usageError("say which container is the agent's, with --container")
	}
	return p.killSwitch(agent, slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}

// quiet keeps back what the receipt shows.
func quiet(err error) error {
	if errors.Is(err, killswitch.ErrUnconfirmed) && !errors.Is(err, killswitch.ErrNotDurable) && !errors.Is(err, killswitch.ErrTrail) {
		return nil
	}
	return err
}

// receiptCode is the exit status of a kill: something that is seen to go on is
// a failure, and something that nobody could see is unknown.
func receiptCode(r *killswitch.Receipt, err error) int {
	for _, t := range r.Targets {
		if t.State == killswitch.Failed || len(t.Open) > 0 {
			return exitFail
		}
	}
	if err != nil || !r.Off() {
		return exitUnknown
	}
	return exitPass
}

// writeReceipt prints a receipt.
func (p *program) writeReceipt(r *killswitch.Receipt) error {
	if p.format == "json" {
		return p.writeJSON(r)
	}
	var b strings.Builder
	width, _ := terminalWidth(p.stdout)
	fmt.Fprintf(&b, "Agent %s, epoch %d, fired %s: %s\n\n", r.Agent, r.Epoch, r.Fired.UTC().Format(time.RFC3339), printable(r.Reason))
	for _, t := range r.Targets {
		writeTarget(&b, width, t)
	}
	fence := "✓ fence        nothing of ours starts it again, not after a reboot either"
	if !r.Fence.Durable {
		fence = "✗ fence        NOT DURABLE: it is forgotten when this process ends: " + printable(r.Fence.Error)
	}
	fmt.Fprintln(&b, fence)
	switch {
	case r.Trail.Recorded:
		fmt.Fprintln(&b, "✓ trail        recorded")
	default:
		fmt.Fprintf(&b, "✗ trail        not recorded: %s\n", printable(r.Trail.Error))
	}
	switch {
	case r.Clear():
		fmt.Fprintf(&b, "\n▸ Off. Everything was confirmed within %v.\n", round(lastConfirmed(r)))
	case r.Off():
		fmt.Fprintln(&b, "\n▸ Off, but see what stays open.")
	default:
		fmt.Fprintln(&b, "\n▸ NOT CONFIRMED OFF. Run kill again, or pull the plug: see what is above.")
	}
	_, err := io.WriteString(p.stdout, b.String())
	return err
}

func (p *program) writeJSON(v any) error {
	enc := json.NewEncoder(p.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func writeTarget(b *strings.Builder, width int, t killswitch.TargetResult) {
	switch t.State {
	case killswitch.Confirmed:
		fmt.Fprintf(b, "✓ %-12s confirmed off after %v\n", t.Name, round(t.ConfirmedAfter))
	case killswitch.Failed:
		fmt.Fprintf(b, "✗ %-12s NOT OFF\n", t.Name)
	default:
		fmt.Fprintf(b, "? %-12s not confirmed: nobody could tell\n", t.Name)
	}
	if t.State != killswitch.Confirmed {
		for _, o := range t.Objects {
			if o.State != killswitch.Confirmed {
				wrap(b, width, "    • ", fmt.Sprintf("%s: %v: %s", o.Name, o.State, o.Status))
			}
		}
		for _, a := range t.Tried {
			if a.Error != "" {
				wrap(b, width, "    • ", a.Actuator+": "+a.Error)
			}
		}
		for _, l := range t.Observers {
			if l.Error != "" {
				wrap(b, width, "    • ", l.Observer+": "+l.Error)
			}
		}
	}
	for _, o := range t.Open {
		wrap(b, width, "    open: ", o.What+": "+o.Why)
	}
}

func lastConfirmed(r *killswitch.Receipt) time.Duration {
	var last time.Duration
	for _, t := range r.Targets {
		last = max(last, t.ConfirmedAfter)
	}
	return last
}

func round(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}

// status is the command of that name. It passes if the agent is not stopped, and
// could be.
func (p *program) status(ctx context.Context, args []string) (int, error) {
	if err := p.parse("status", args, p.switchFlags); err != nil {
		return exitUsage, err
	}
	s, err := p.openSwitch()
	if err != nil {
		return exitUsage, err
	}
	defer s.close()
	st := s.Status(ctx)
	if p.format == "json" {
		if err := p.writeJSON(st); err != nil {
			return exitFail, err
		}
	}
	var b strings.Builder
	code := exitPass
	fail := func(format string, args ...any) {
		code = exitFail
		fmt.Fprintf(&b, "✗ %s\n", printable(fmt.Sprintf(format, args...)))
	}
	switch {
	case st.FenceError != "":
		fail("stopped, or nobody can tell: %s", st.FenceError)
	case st.Fence.Engaged():
		fail("stopped: epoch %d, %s: %s", st.Fence.Epoch, st.Fence.Time.UTC().Format(time.RFC3339), st.Fence.Reason)
	default:
		fmt.Fprintf(&b, "✓ not stopped (epoch %d)\n", st.Fence.Epoch)
	}
	for _, t := range st.Targets {
		for _, o := range t.Objects {
			if o.State != killswitch.Confirmed {
				fmt.Fprintf(&b, "  %-12s %s: %s\n", t.Name, printable(o.Name), printable(o.Status))
			}
		}
	}
	if st.Armed == nil {
		fail("not armed: managemyclaw standby keeps it armed")
	} else {
		wrong := st.Armed.Check(st.Time, armedAge)
		for _, w := range wrong {
			fail("armed %s: %s", st.Armed.Time.UTC().Format(time.RFC3339), w)
		}
		if len(wrong) == 0 {
			fmt.Fprintf(&b, "✓ armed, as of %s\n", st.Armed.Time.UTC().Format(time.RFC3339))
		}
	}
	if !st.ResetSecret {
		fail("no second secret is set: once stopped, it stays stopped: managemyclaw standby makes one")
	}
	for _, d := range st.Drills {
		if !d.Passed {
			fail("drill %s of %s: %s", d.Variant, d.Time.UTC().Format(time.RFC3339), strings.Join(d.Why, "; "))
			continue
		}
		fmt.Fprintf(&b, "✓ drill %s passed on %s\n", d.Variant, d.Time.UTC().Format(time.RFC3339))
	}
	if len(st.Drills) == 0 {
		fail("never drilled: managemyclaw drill")
	}
	for _, problem := range st.Problems {
		fail("%s", problem)
	}
	if p.format == "json" {
		return code, nil
	}
	_, err = io.WriteString(p.stdout, b.String())
	return code, err
}

// reset is the command of that name.
func (p *program) reset(ctx context.Context, args []string) (int, error) {
	var (
		epoch uint64
		file  string
	)
	err := p.parse("reset", args, func(fs *flag.FlagSet) {
		p.switchFlags(fs)
		fs.Uint64Var(&epoch, "epoch", 0, "`NUMBER` of the kill, as in its receipt")
		fs.StringVar(&file, "secret-file", "-", "`FILE` with the second secret; - reads it from the input")
	})
	if err != nil {
		return exitUsage, err
	}
	if epoch == 0 {
		return exitUsage, usageError("say which kill is meant, with --epoch, as managemyclaw status shows it")
	}
	secret, err := p.secret(file)
	if err != nil {
		return exitUsage, err
	}
	s, err := p.openSwitch()
	if err != nil {
		return exitUsage, err
	}
	defer s.close()
	if err := s.Reset(killswitch.WithRequester(ctx, p.operator()), epoch, secret); err != nil {
		return exitFail, err
	}
	fmt.Fprintf(p.stdout, "Agent %s may run again. Nothing was started.\n", s.Agent())
	known, cancel := context.WithTimeout(ctx, sourceTime)
	defer cancel()
	_ = s.tracker.Arm(known) // to see what it has now
	former, err := s.keep.Former()
	if err != nil {
		fmt.Fprintf(p.stderr, "%s\n", printable(err.Error()))
	}
	for _, object := range slices.Sorted(maps.Keys(former)) {
		fmt.Fprintf(p.stdout, "  %s: %s\n", printable(object), printable(former[object]))
	}
	return exitPass, nil
}

// secret reads a second secret.
func (p *program) secret(name string) (string, error) {
	if name != "-" {
		s, _, err := readSecret(name)
		if err != nil {
			return "", usageError("--secret-file: " + err.Error())
		}
		return s.Reveal(), nil
	}
	fmt.Fprintln(p.stderr, "The second secret:")
	line, err := bufio.NewReader(io.LimitReader(p.stdin, 4<<10)).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return "", usageError(fmt.Sprintf("no second secret was given (%v)", err))
	}
	return line, nil
}

// fenced is the command fence: what starts the agent asks it first.
func (p *program) fenced(ctx context.Context, args []string) (int, error) {
	if err := p.parse("fence", args, p.switchFlags); err != nil {
		return exitUsage, err
	}
	agent, err := p.agentName()
	if err != nil {
		return exitUsage, err
	}
	fence, err := p.fence()
	if err != nil {
		return exitFail, err
	}
	if err := fence.Fenced(ctx, agent); err != nil {
		return exitFail, err
	}
	return exitPass, nil
}
