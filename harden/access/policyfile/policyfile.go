// Package policyfile reads the policy of a gateway for package access. It is a
// package of its own, because package gateway comes with modules that package
// access does not need.
package policyfile

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"

	"github.com/managemyclaw/hardshell/composio/gateway"
	"github.com/managemyclaw/hardshell/harden/access"
)

// Read returns a function for access.Config.Policy that reads the file anew
// each time that it is called.
func Read(name string) func(context.Context) (access.Policy, error) {
	return func(context.Context) (access.Policy, error) {
		p, err := gateway.ReadPolicy(name)
		if err != nil {
			return access.Policy{}, err
		}
		return Policy(p, name), nil
	}
}

// Policy returns what p lets agents do. Source is what reports call it.
func Policy(p *gateway.Policy, source string) access.Policy {
	out := access.Policy{Source: source, Agents: make(map[string]access.Grants)}
	for name, a := range p.Agents {
		g := access.Grants{Tools: make(map[string]access.Grant), Multi: a.MultiExecute}
		for slug, t := range a.Tools {
			g.Tools[slug] = access.Grant{Version: t.Version, Class: t.Class}
		}
		out.Agents[name] = g
	}
	return out
}

// Tokens returns the hashes of the tokens that the agents of the given names
// have, or all agents if there are none, for access.Config.Tokens.
func Tokens(p *gateway.Policy, agents ...string) [][sha256.Size]byte {
	if len(agents) == 0 {
		agents = slices.Sorted(maps.Keys(p.Agents))
	}
	var all [][sha256.Size]byte
	for _, name := range agents {
		for _, t := range p.Agents[name].Tokens {
			all = append(all, t)
		}
	}
	return all
}
