package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/network/tailscale"
)

const localAPI = "tailscaled LocalAPI"

// tailnetState returns what tailscaled says, or the verdict where there is
// none: a machine without it is not on a tailnet, which is a fact and not a
// gap. offline is the verdict for that.
func (m *Machine) tailnetState(offline harden.Verdict) (*tailscale.State, harden.Verdict, error) {
	switch {
	case errors.Is(m.TailnetErr, tailscale.ErrNoDaemon):
		return nil, offline, nil
	case m.TailnetErr != nil:
		return nil, harden.Verdict{}, m.TailnetErr
	case m.Tailnet == nil:
		return nil, harden.Verdict{}, ErrNoTailscale
	}
	return m.Tailnet, harden.Verdict{}, nil
}

var noTailnet = harden.NotApplicable("no tailscaled runs, which network.tailscale_up judges")

// judgeTailnetUp judges whether the machine takes part in a tailnet, and for
// how long yet.
func (c *Config) judgeTailnetUp(_ context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.tailscale_up"
	s, v, err := m.tailnetState(harden.Fail(harden.Finding{
		ID: id, Message: "no tailscaled runs: the machine is in no tailnet",
		Remedy: "install Tailscale from tailscale.com/download, then: tailscale up",
	}))
	if s == nil {
		return v, err
	}
	now := time.Now()
	if why, ok := s.Status.Connected(now); !ok {
		return harden.Fail(harden.Finding{
			ID: id, Message: "the machine does not take part in its tailnet: " + why, Remedy: "tailscale up",
			Evidence: []harden.Evidence{inspected(localAPI+" status", fmt.Sprintf("%s, online %t", s.Status.Backend, s.Status.Self.Online), "Running, online, key not expired")},
		}), nil
	}
	expires := "its key does not expire"
	if exp := s.Status.Self.KeyExpiry; exp != nil {
		expires = "its key expires at " + exp.UTC().Format(time.RFC3339)
		near := c.KeyExpiry
		if near == 0 {
			near = DefaultKeyExpiry
		}
		if near > 0 && exp.Sub(now) < near {
			return harden.Fail(harden.Finding{
				ID: id + ".expiry", Severity: harden.SeverityMedium,
				Message:  "the machine will drop out of its tailnet soon: " + expires,
				Remedy:   "tailscale up --force-reauth, over another way in than the tailnet, or disable the expiry of this key in the admin console",
				Evidence: []harden.Evidence{inspected(localAPI+" status", expires, fmt.Sprintf("more than %v left", near))},
			}), nil
		}
	}
	return harden.Pass(inspected(localAPI+" status", "Running, online; "+expires, "")), nil
}

// judgeFunnel judges whether the internet reaches the machine by Funnel,
// whatever port of the machine it ends at: OpenClaw puts a listener of its own
// before the gateway.
func (c *Config) judgeFunnel(_ context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.tailscale_funnel"
	s, v, err := m.tailnetState(noTailnet)
	if s == nil {
		return v, err
	}
	var found violations
	for _, f := range s.Serve.Funnels() {
		where, remedy := "", "tailscale funnel reset"
		if f.Where != "" {
			where, remedy = " ("+f.Where+")", "end the program that holds it, and set gateway.tailscale.mode to off or serve"
		}
		found.add(harden.Finding{
			ID: id, Severity: harden.SeverityCritical, Remedy: remedy,
			Message:  "the whole internet reaches " + f.HostPort + " by Funnel" + where,
			Evidence: []harden.Evidence{inspected(localAPI+" serve-config", "AllowFunnel "+f.HostPort+where, "no Funnel")},
		})
	}
	pass := []harden.Evidence{inspected(localAPI+" serve-config", "no Funnel, in the foreground or otherwise", "")}
	if s.Status.MayFunnel() {
		pass = append(pass, inspected(localAPI+" status", "the tailnet would let this machine have one: remove the attribute funnel from its access rules if nobody needs it", ""))
	}
	return found.verdict(nil, pass...)
}

// judgeOperator judges whether whoever may reconfigure tailscaled, and turn on
// Funnel, is the agent.
func (c *Config) judgeOperator(_ context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.tailscale_operator"
	s, v, err := m.tailnetState(noTailnet)
	if s == nil {
		return v, err
	}
	var found violations
	var unsure []error
	sockets := 0
	for _, a := range m.Agents {
		if a.Kernel == nil {
			continue
		}
		for _, sock := range a.Kernel.Sockets {
			if !isTailscaled(sock.HostPath, sock.Owner) {
				continue
			}
			sockets++
			found.add(harden.Finding{
				ID: id + ".socket", Subject: a.Subject(), Severity: harden.SeverityHigh, Remedy: "remove the mount",
				Message:  "it can ask tailscaled for what it knows of the tailnet, and reconfigure it as root or as the operator",
				Evidence: []harden.Evidence{inspected(fmt.Sprintf("/proc/%d/root%s", a.PID, sock.Path), "the socket of "+named(sock.Owner, "tailscaled"), "no socket of tailscaled's")},
			})
		}
	}
	operator := s.Prefs.OperatorUser
	if operator == "" {
		return found.verdict(nil, inspected(localAPI+" prefs", "no OperatorUser: only root may change it", ""))
	}
	why := ""
	switch {
	case slices.Contains(c.AgentUsers, operator), m.Operator != nil && slices.Contains(c.AgentUsers, strconv.FormatUint(uint64(*m.Operator), 10)):
		why = "which is whom the agent runs as"
	case m.Operator == nil:
		unsure = append(unsure, fmt.Errorf("the operator %q is no user of the machine that could be found", operator))
	default:
		for _, a := range m.Agents {
			if a.Kernel == nil {
				unsure = append(unsure, fmt.Errorf("whether %s runs as the operator is not known: %w", a.Subject(), a.KernelErr))
				continue
			}
			for _, p := range a.Kernel.Processes {
				if slices.Contains(p.UIDs[:], *m.Operator) {
					why = fmt.Sprintf("whose number is that of process %d (%s) of %s", p.PID, p.Name, a.Subject())
				}
			}
		}
		if m.AgentsErr != nil {
			unsure = append(unsure, m.AgentsErr)
		}
	}
	if why != "" {
		found.add(harden.Finding{
			ID: id, Message: fmt.Sprintf("the operator of tailscaled is %s, %s: it may turn on Funnel", operator, why),
			Remedy:   "tailscale set --operator=",
			Evidence: []harden.Evidence{inspected(localAPI+" prefs", "OperatorUser "+operator, "nobody, or not the agent")},
		})
	}
	return found.verdict(joined(unsure), inspected(localAPI+" prefs", "OperatorUser "+operator+", which is not the agent", ""))
}

func isTailscaled(path, owner string) bool {
	return owner == "tailscaled" || strings.HasSuffix(path, "/tailscaled.sock") || strings.HasSuffix(path, "/tailscaled.socket")
}

// judgePrefs judges who in the tailnet gets further than the machine's own
// services would let them.
func (c *Config) judgePrefs(_ context.Context, m Machine) (harden.Verdict, error) {
	const id = "network.tailscale_prefs"
	s, v, err := m.tailnetState(noTailnet)
	if s == nil {
		return v, err
	}
	p := s.Prefs
	var found violations
	for _, bad := range []struct {
		on                        bool
		id, name, message, remedy string
		severity                  harden.Severity
	}{
		{
			p.RemoteConfig, "remote_config", "RemoteConfig", "whoever administers the tailnet may change every preference of this machine, and call its LocalAPI",
			"tailscale set --remote-config=false", harden.SeverityHigh,
		},
		{
			p.RunWebClient, "web_client", "RunWebClient", "tailscaled serves its web interface, on port 5252 of the tailnet",
			"tailscale set --webclient=false", harden.SeverityMedium,
		},
	} {
		if bad.on {
			found.add(harden.Finding{
				ID: id + "." + bad.id, Severity: bad.severity, Message: bad.message, Remedy: bad.remedy,
				Evidence: []harden.Evidence{inspected(localAPI+" prefs", bad.name+" true", "false")},
			})
		}
	}
	notes := []string{"RemoteConfig and RunWebClient are off"}
	if p.RunSSH {
		notes = append(notes, "Tailscale SSH is on: the tailnet's access rules, which this machine cannot see, decide who logs in")
	}
	switch {
	case p.ShieldsUp:
		notes = append(notes, "ShieldsUp keeps every connection from the tailnet out")
	case p.NetfilterMode == 2:
		notes = append(notes, "tailscaled lets in all that its access rules allow, ahead of UFW")
	default:
		notes = append(notes, "tailscaled leaves it to the machine's firewall what the tailnet reaches")
	}
	return found.verdict(nil, inspected(localAPI+" prefs", strings.Join(notes, "; "), ""))
}
