//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
)

const canary = "canary"

// switched are the flags that tell the program what there is to stop.
func (d *demo) switched() []string {
	return append(d.office.probing(), "--agent", agent)
}

// rehearse stops a canary, and arms the switch.
func (d *demo) rehearse(ctx context.Context) error {
	for _, args := range [][]string{
		{"network", "create", canary},
		{"run", "-d", "--name", canary, "--network", canary, "--restart", "always", lab.UserImage},
	} {
		d.say("$ docker %s\n", strings.ReplaceAll(strings.Join(args, " "), " --restart", " \\\n    --restart"))
		if _, err := d.lab.Docker(ctx, args...); err != nil {
			return err
		}
	}
	stand := append(d.switched(), "--canary", canary, "--canary-agent", canary, "--canary-token-file", filepath.Join(d.office.dir, "canary.token"))
	if err := d.managemyclaw(ctx, "drill", 0, append(stand, "--canary-user", canary)...); err != nil {
		return err
	}
	for _, again := range [][]string{{"update", "--restart", "no", canary}, {"start", canary}} {
		d.say("\n$ docker %s\n", strings.Join(again, " "))
		if _, err := d.lab.Docker(ctx, again...); err != nil {
			return err
		}
	}
	if err := d.managemyclaw(ctx, "drill", 0, append(stand, "--variant", "docker-hung")...); err != nil {
		return err
	}
	d.say("\n$ managemyclaw standby --container %s%s &\n", agent, shown(d.switched()))
	s, err := d.serve(ctx, "armed in", "standby", append([]string{"--container", agent}, d.switched()...)...)
	if err != nil {
		return err
	}
	d.say("%s\n", s.text())
	d.standby = s
	return d.managemyclaw(ctx, "security-audit", 1, d.switched()...)
}

// runAway has the agent send what it knows to the internet, and delete mail.
func (d *demo) runAway(ctx context.Context) error {
	sink, err := d.lab.Internet.Sink(ctx, "tcp", "198.51.100.10:443")
	if err != nil {
		return err
	}
	d.sink = sink
	ask := func(verb string, args ...string) error {
		a, err := lab.Ask(ctx, d.lab.Host.Client(5*time.Second), "127.0.0.1:18789", verb, args...)
		if err == nil && !a.OK {
			err = fmt.Errorf("%s: %v", verb, a)
		}
		return err
	}
	if err := ask("stream-start", "198.51.100.10:443"); err != nil {
		return err
	}
	if err := ask("wipe-start", "http://"+gatewayAddress, d.office.token.Reveal(), deleteMail, body); err != nil {
		return err
	}
	for range 3 {
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		d.say("  %6d bytes are at somebody's on the internet, %3d messages are deleted\n", sink.Bytes(), d.office.deleted())
	}
	if sink.Bytes() == 0 || d.office.deleted() == 0 {
		return fmt.Errorf("it does not run away: %d bytes, %d messages", sink.Bytes(), d.office.deleted())
	}
	return nil
}

// click fires the switch, and looks whether it did what it says.
func (d *demo) click(ctx context.Context) error {
	fired := time.Now()
	if err := d.managemyclaw(ctx, "kill", 0, append(d.switched(), "--reason", "it deletes my mail")...); err != nil {
		return err
	}
	d.say("\nNot taken on trust:\n\n")
	bytes, mails := d.sink.Bytes(), d.office.deleted()
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if b, m := d.sink.Bytes(), d.office.deleted(); b != bytes || m != mails {
		return fmt.Errorf("it goes on: %d bytes and %d messages more", b-bytes, m-mails)
	}
	d.say("✓ the last byte arrived %v after the command was started\n", d.sink.Last().Sub(fired).Round(time.Millisecond))
	d.say("✓ no message more was deleted than %d\n", mails)
	for _, a := range d.office.composio.Accounts() {
		if len(a.Live) > 0 {
			return fmt.Errorf("account %s: the provider still takes %v", a.ID, a.Live)
		}
		d.say("✓ account %-11s its tokens are revoked\n", a.ID)
	}
	if status, err := d.lab.Docker(ctx, "inspect", "-f", "{{.State.Running}}", agent); err != nil || status != "false" {
		return fmt.Errorf("the container runs: %s, %w", status, err)
	}
	d.say("✓ its container does not run\n\n$ docker start %s\n", agent)
	return d.revive(ctx)
}

// revive starts the container, as somebody does who has not heard.
func (d *demo) revive(ctx context.Context) error {
	began := time.Now()
	_, startErr := d.lab.Docker(ctx, "start", agent)
	for {
		status, err := d.lab.Docker(ctx, "inspect", "-f", "{{.State.Running}}", agent)
		if err != nil {
			return err
		}
		if status == "false" {
			break
		}
		if time.Since(began) > 30*time.Second {
			return fmt.Errorf("it was revived, and stays")
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	switch {
	case startErr == nil:
		d.say("✓ it was down again after %.1f s: standby holds it\n", time.Since(began).Seconds())
	case strings.Contains(d.standby.text(), "started though it is stopped"):
		d.say("✓ it did not come up at all: standby holds it\n")
	default:
		return startErr
	}
	cmd := d.onHost(ctx, d.session, "reset", "--container", agent, "--agent", agent, "--epoch", "1")
	cmd.Stdin = strings.NewReader("let me in\n")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return fmt.Errorf("a reset with a wrong secret is not refused: %s", out)
	}
	d.say("✓ a reset without the second secret is refused\n")
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
