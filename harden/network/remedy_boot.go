package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// Where systemd is the machine's first process it has this directory
// (sd_booted(3)), and takes units from that one (systemd.unit(5)).
const (
	systemdRuns = "/run/systemd/system"
	unitDir     = "/etc/systemd/system"
)

// bootActions returns what it takes for a policy to outlive a restart of the
// machine, and what a person has to know of it.
func bootActions(v *host.View, u *firewall.Units, p firewall.Policy) ([]harden.Action, []string, error) {
	if u == nil {
		return nil, []string{"the rules are gone after a restart of the machine: apply them anew before the engine starts"}, nil
	}
	policy, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, nil, err
	}
	files := []struct{ name, summary, text string }{{u.Policy, "save the policy, for when the machine starts", string(policy) + "\n"}}
	note := []string(nil)
	var units []string
	switch _, err := v.Stat(systemdRuns); {
	case errors.Is(err, fs.ErrNotExist):
		note = []string{fmt.Sprintf("systemd does not run this machine: have it run, before the engine starts, %s", strings.Join(u.Restore, " "))}
	case err != nil:
		return nil, nil, err
	default:
		for _, unit := range []struct {
			name, summary string
			text          func() (string, error)
			command       []string
		}{
			{"hardshell-recover.service", "undo, when the machine starts, what nobody confirmed", u.RecoverUnit, u.Recover},
			{"hardshell-restore.service", "restore the policy before the engine starts", u.RestoreUnit, u.Restore},
			{"hardshell-watch.service", "watch that the policy is kept", u.WatchUnit, u.Watch},
		} {
			if len(unit.command) == 0 {
				continue
			}
			text, err := unit.text()
			if err != nil {
				return nil, nil, err
			}
			units = append(units, unit.name)
			files = append(files, struct{ name, summary, text string }{unitDir + "/" + unit.name, unit.summary, text})
		}
	}
	var actions []harden.Action
	for _, f := range files {
		before, err := v.ReadFile(f.name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		if err == nil && string(before) == f.text {
			continue
		}
		if err != nil {
			before = nil
		}
		perm := fs.FileMode(0o600)
		if strings.HasSuffix(f.name, ".service") {
			perm = 0o644
		}
		actions = append(actions, harden.EditFile{Path: f.name, Summary: f.summary, Before: before, After: []byte(f.text), Perm: perm})
	}
	if len(units) > 0 {
		actions = append(actions, enableUnits(units))
	}
	return actions, note, nil
}

// enableUnits is the action that has systemd start units with the machine, and
// the one that watches at once.
type enableUnits []string

// Change implements [harden.Action].
func (u enableUnits) Change() harden.Change {
	return harden.Change{
		Subject: "systemd", Summary: "start with the machine what keeps the policy",
		After: "enabled: " + strings.Join(u, " "),
	}
}

// Apply implements [harden.Action].
func (u enableUnits) Apply(ctx context.Context, h *host.Host) error {
	err := systemctl(ctx, h, "daemon-reload")
	if err == nil {
		err = systemctl(ctx, h, append([]string{"enable"}, u...)...)
	}
	if err == nil {
		err = systemctl(ctx, h, "restart", u[len(u)-1])
	}
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), harden.DefaultRevertTimeout)
	defer cancel()
	return errors.Join(err, u.Revert(ctx, h))
}

// Revert implements [harden.Action].
func (u enableUnits) Revert(ctx context.Context, h *host.Host) error {
	err := systemctl(ctx, h, append([]string{"disable", "--now"}, u...)...)
	if err != nil {
		err = fmt.Errorf("%w: %w", harden.ErrUnfinished, err)
	}
	return err
}

func systemctl(ctx context.Context, h *host.Host, args ...string) error {
	if _, err := h.Change(ctx, host.Command{Name: "systemctl", Args: args}); err != nil {
		return fmt.Errorf("network: systemctl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
