package access

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

var errNarrow = errors.New("only this module's own detector looked, which knows no other service's credentials: set Config.Detector, to package gitleaks for one")

// judgeCredentials judges what an agent holds.
func judgeCredentials(_ context.Context, a Agent) (harden.Verdict, error) {
	if a.Err != nil {
		return harden.Verdict{}, a.Err
	}
	v := leaks("access.agent_credentials", a.Leaks, func(l *Leak) string {
		switch l.Kind {
		case InEnvironment, InArguments:
			return "make the container anew without it, and revoke it: it has been where the agent could read it"
		case InOpenFile:
			return "end the process that holds it open, and revoke it"
		}
		return "remove it, and revoke it: it has been where the agent could read it"
	})
	errs := []error{unreadError(a.Unread)}
	if !a.General {
		errs = append(errs, errNarrow)
	}
	if a.Processes == 0 {
		errs = append(errs, errors.New("no process was looked at"))
	}
	seen := fmt.Sprintf("no credential in environment and arguments of %d processes, and in %d files (%d bytes in all)", a.Processes, a.Files, a.Bytes)
	if len(a.Skipped) > 0 {
		seen += "; not looked at, as configured: " + some(a.Skipped)
	}
	return v.verdict(errors.Join(errs...), at(harden.LevelInspected, "/proc", seen, "no credential"))
}

// ofEnvironment returns what of the environment was not read.
func ofEnvironment(all []Unread) []Unread {
	var some []Unread
	for _, u := range all {
		if u.Kind == InEnvironment {
			some = append(some, u)
		}
	}
	return some
}

// judgeSettings judges OpenClaw's configuration.
func judgeSettings(_ context.Context, a Agent) (harden.Verdict, error) {
	const id = "access.openclaw_config"
	if a.Err != nil {
		return harden.Verdict{}, a.Err
	}
	o := a.Settings
	if o == nil {
		return harden.Verdict{}, errors.New("OpenClaw's configuration was not found: set Config.StateDirs to where its openclaw.json is in the container")
	}
	v := leaks(id, o.Leaks, func(*Leak) string { return "remove it, comments too, and revoke it" })
	errs := []error{unreadError(o.Unread), unreadError(ofEnvironment(a.Unread))}
	var fine []string
	for _, c := range o.Credentials {
		where := fmt.Sprintf("%s:%d", c.File, c.Line)
		f := harden.Finding{
			ID: id + ".setting", Remedy: "have the agent reach Composio through the gateway, with a token of the gateway's",
			Evidence: []harden.Evidence{at(harden.LevelInspected, where, c.Path, "no credential")},
		}
		if c.Composio {
			f.ID, f.Severity = id+".composio", harden.SeverityCritical
		}
		switch {
		case c.Source == FromGateway:
			fine = append(fine, c.Path+" is the agent's own token of the gateway")
		case c.Source == FromLiteral:
			f.Message = fmt.Sprintf("%s holds a credential (%s)", c.Path, where)
			if !c.Composio {
				f.Remedy = `put it into a variable or a secret store of OpenClaw's, and "${NAME}" here`
			}
			v = append(v, f)
		case !c.Composio:
			fine = append(fine, fmt.Sprintf("%s is not in the file", c.Path))
		case c.Source == FromEnvironment:
			f.Message = fmt.Sprintf("%s takes a credential of Composio's from the variable %s, which a process of the agent's has (%s)", c.Path, c.From, where)
			v = append(v, f)
		case c.Source == FromReference:
			f.Message = fmt.Sprintf("%s takes a credential of Composio's from a reference (%s): what OpenClaw can fetch, the agent has (%s)", c.Path, c.From, where)
			v = append(v, f)
		default:
			errs = append(errs, fmt.Errorf("%s takes a credential of Composio's from %s, which no process has now: take the setting out", c.Path, c.From))
		}
	}
	pass := []harden.Evidence{at(harden.LevelInspected, strings.Join(o.Files, ", "), fmt.Sprintf("%d entries lead to Composio's tools; no credential of Composio's, and none in clear", len(o.Servers)), "no credential")}
	if len(fine) > 0 {
		pass[0].Observed += "; " + some(fine)
	}
	return v.verdict(errors.Join(errs...), pass...)
}

// judgeGatewayOnly judges the ways to Composio, and what came of trying them.
func judgeGatewayOnly(_ context.Context, a Agent) (harden.Verdict, error) {
	const id = "access.gateway_only"
	if a.Err != nil {
		return harden.Verdict{}, a.Err
	}
	var v violations
	var errs []error
	through := 0
	for _, w := range a.Ways {
		if w.Gateway {
			through++
			continue
		}
		v = append(v, harden.Finding{
			ID: id + ".configured", Message: fmt.Sprintf("the agent is told of a way to Composio that is not the gateway: %s (%s)", w.Host, w.Place),
			Remedy:   "give it the gateway's address instead",
			Evidence: []harden.Evidence{at(harden.LevelDeclared, w.Place, w.Host, "the gateway's address")},
		})
	}
	errs = append(errs, unreadError(ofEnvironment(a.Unread)))
	if a.Settings != nil {
		errs = append(errs, unreadError(a.Settings.Unread))
	}
	tried := make(map[string]bool) // destinations of which an attempt proves something
	names := make(map[string]error)
	for _, t := range a.Attempts {
		way := t.To
		if t.Via != "" {
			way = "the proxy " + t.Via
		}
		source := fmt.Sprintf("connection from the network of process %d to %s", t.PID, way)
		if names[t.Name] == nil {
			names[t.Name] = errUntried
		}
		switch {
		case t.Reached:
			v = append(v, harden.Finding{
				ID: id + ".open", Severity: harden.SeverityCritical, Message: fmt.Sprintf("%s can be reached from the agent's network, by %s", t.Name, way),
				Remedy:   "let the agent's network reach the gateway alone; see package firewall",
				Evidence: []harden.Evidence{at(harden.LevelProbed, source, "connected", "refused or silent")},
			})
		case !closed(t.Err):
			errs = append(errs, fmt.Errorf("%s at %s: %w", t.Name, way, t.Err))
		case t.Control && t.Via == "":
			tried[t.Name] = true
		case t.Via == "":
			names[t.Name] = errors.New("this machine reaches none of its addresses either, which proves nothing")
		}
	}
	var closedTo []string
	for _, t := range a.Attempts {
		switch err := names[t.Name]; {
		case err == nil:
		case tried[t.Name]:
			closedTo = append(closedTo, t.Name)
		default:
			errs = append(errs, fmt.Errorf("%s: %w", t.Name, err))
		}
		delete(names, t.Name)
	}
	if len(a.Attempts) == 0 {
		errs = append(errs, errors.New("no direct way was tried: set Config.Inside, to package netns for this machine"))
	}
	return v.verdict(errors.Join(errs...),
		at(harden.LevelProbed, "connections from the network of the agent", some(closedTo)+" cannot be reached, and can from this machine", "refused or silent"),
		at(harden.LevelInspected, "environment and OpenClaw's configuration", fmt.Sprintf("%d addresses of Composio's tools, all the gateway's", through), ""))
}

// judgeStores judges OpenClaw's databases.
func judgeStores(_ context.Context, a Agent) (harden.Verdict, error) {
	if a.Err != nil {
		return harden.Verdict{}, a.Err
	}
	var stored []Leak
	for _, l := range a.Leaks {
		if l.Kind == InStore {
			stored = append(stored, l)
		}
	}
	v := leaks("access.tokens_at_rest", stored, func(*Leak) string {
		return "log OpenClaw out of the server (openclaw mcp logout), connect the account at Composio, revoke the token, and remove the database: rows that were deleted stay in it"
	})
	seen := fmt.Sprintf("no token in clear in the files of OpenClaw's databases, among %d files that were read", a.Files)
	err := unreadError(a.Unread)
	if a.Files == 0 {
		err = errors.Join(err, errors.New("no file was looked at"))
	}
	return v.verdict(err, at(harden.LevelInspected, "files of "+a.Subject(), seen, "no token"))
}
