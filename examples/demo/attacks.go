//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
)

// An attack tries something. It reports what came of it, and whether it
// succeeded; the error is for a trial that could not be made.
type attack struct {
	promise string // that a hardened agent keeps
	try     func(context.Context, *demo) (seen string, succeeded bool, err error)
}

// inside is an attack by the agent itself.
func inside(verb string, args ...string) func(context.Context, *demo) (string, bool, error) {
	return func(ctx context.Context, d *demo) (string, bool, error) {
		a, err := d.lab.Do(ctx, agent, verb, args...)
		return outcome(a), a.OK, err
	}
}

func outcome(a lab.Answer) string {
	switch {
	case a.OK:
		return "it could"
	case a.Errno != "":
		return explain(a.Errno)
	}
	return a.Error
}

// explain says what an error of the kernel's means.
func explain(errno string) string {
	meaning := map[string]string{
		"EROFS":  "read-only file system",
		"ENOENT": "no such file",
		"EPERM":  "not permitted",
		"EACCES": "permission denied",
	}[errno]
	if meaning == "" {
		return errno
	}
	return errno + ": " + meaning
}

var attacks = []attack{
	{"nobody on the internet reaches the agent", func(ctx context.Context, d *demo) (string, bool, error) {
		address := d.lab.Host.Addr4.String() + ":18789"
		a, err := lab.Ask(ctx, d.lab.Internet.Client(2*time.Second), address, "whoami")
		if err != nil {
			return "no connection", false, nil //nolint:nilerr // that is the outcome
		}
		return outcome(a), a.OK, nil
	}},
	{"no neighbour reaches it by a route", func(ctx context.Context, d *demo) (string, bool, error) {
		// As anybody on the same cable can, who names the host as the way there.
		inside, err := d.lab.Docker(ctx, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", agent)
		if err != nil {
			return "", false, err
		}
		inside = strings.TrimSpace(inside)
		if out, err := d.lab.Neighbour.Command(ctx, "ip", "route", "replace", inside, "via", d.lab.Host.Addr4.String()).CombinedOutput(); err != nil {
			return "", false, fmt.Errorf("ip route: %w: %s", err, out)
		}
		a, err := lab.Ask(ctx, d.lab.Neighbour.Client(2*time.Second), inside+":18789", "whoami")
		if err != nil {
			return "no connection", false, nil //nolint:nilerr // that is the outcome
		}
		return outcome(a), a.OK, nil
	}},
	{"nobody reaches what the owner forgot", func(ctx context.Context, d *demo) (string, bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		c, err := d.lab.Internet.Dial(ctx, "tcp", d.lab.Host.Addr4.String()+":5432")
		if err != nil {
			return "no connection", false, nil //nolint:nilerr // that is the outcome
		}
		return "connected", true, c.Close()
	}},
	{"it cannot modify its own code", inside("append", "/app/skills", "and forward every mail\n")},
	{"it cannot replace its own program", inside("write", "/usr-local-agent", "#!")},
	{"it cannot read the host's files", inside("read", "/host/etc/shadow")},
	{"it cannot change the host's files", func(ctx context.Context, d *demo) (string, bool, error) {
		a, err := d.lab.Do(ctx, agent, "write", "/host/etc/cron.d/agent", "* * * * * root true\n")
		if a.OK { // the lab's host has an /etc of its own
			_, err = d.lab.Do(ctx, agent, "remove", "/host/etc/cron.d/agent")
		}
		return outcome(a), a.OK, err
	}},
	{"it cannot stop or start containers", func(ctx context.Context, d *demo) (string, bool, error) {
		const socket = "/var/run/docker.sock"
		a, err := d.lab.Do(ctx, agent, "unix", socket, "/containers/bystander/stop?t=0", "POST")
		if err != nil || !a.OK {
			return outcome(a), false, err
		}
		state, err := d.lab.Docker(ctx, "inspect", "-f", "{{.State.Status}}", "bystander")
		if err != nil {
			return "", false, err
		}
		if strings.TrimSpace(state) == "running" {
			return "the engine did not obey", false, nil
		}
		// for the next attack
		_, err = d.lab.Do(ctx, agent, "unix", socket, "/containers/bystander/start", "POST")
		return "it stopped the bystander", true, err
	}},
	{"it cannot become root", inside("setuid", "0")},
	{"it cannot forge packets", inside("rawsocket")},
}

// attack makes every attack and compares the outcome with what it should be.
func (d *demo) attack(ctx context.Context, succeeds bool) error {
	var wrong []string
	for _, a := range attacks {
		seen, succeeded, err := a.try(ctx, d)
		if err != nil {
			return fmt.Errorf("%s: %w", a.promise, err)
		}
		verdict := "✓ held"
		if succeeded {
			verdict = "✗ BROKEN"
		}
		d.say("%-8s  %-41s %s\n", verdict, a.promise, seen)
		if succeeded != succeeds {
			wrong = append(wrong, a.promise)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("not as it should be: %s", strings.Join(wrong, "; "))
	}
	return nil
}
