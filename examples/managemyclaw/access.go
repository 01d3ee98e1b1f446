package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/gateway"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/access/gitleaks"
	"github.com/managemyclaw/hardshell/harden/access/netns"
	"github.com/managemyclaw/hardshell/harden/access/policyfile"
	"github.com/managemyclaw/hardshell/harden/host"
)

// composioFlags adds the flags that say where the policy and Composio are.
func (p *program) composioFlags(fs *flag.FlagSet) {
	fs.StringVar(&p.policy, "policy", "", "`FILE` with the gateway's policy")
	fs.StringVar(&p.composioKey, "composio-key-file", "", "`FILE` with Composio's key, which the gateway holds and no agent may have")
	fs.StringVar(&p.composioURL, "composio-url", "", "`URL` of Composio, if not the public service")
}

// accessFlags adds the flags of what the agent may have and use.
func (p *program) accessFlags(fs *flag.FlagSet) {
	p.composioFlags(fs)
	fs.StringVar(&p.agent, "agent", "", "`NAME` of the agent, as in the policy; without it, the policy's only one, or the\nname of the container")
	fs.StringVar(&p.gatewayURL, "gateway-url", "", "`URL` at which the agent reaches its tools, such as http://172.17.0.1:8787; ways round it\nare then tried from the agent's network")
	fs.StringVar(&p.probeToken, "probe-token-file", "", "`FILE` with a token of the gateway's, to ask it what it offers: best a second one of\nthe agent's, see managemyclaw gateway token")
}

// accessConfig describes what to look at of what the agent may have and use.
// Its error is a usageError.
func (p *program) accessConfig() (*access.Config, error) {
	c := &access.Config{Gateway: access.Gateway{URL: strings.TrimSuffix(p.gatewayURL, "/")}}
	detector, err := gitleaks.New()
	if err != nil {
		return nil, err
	}
	c.Detector = detector
	guard := func(name string, readable bool) error {
		name, err := filepath.Abs(name)
		c.Guarded = append(c.Guarded, access.GuardedFile{Path: filepath.ToSlash(name), Owner: uint32(max(0, os.Geteuid())), Readable: readable})
		return err
	}
	if p.gatewayURL != "" {
		c.Inside = netns.Dialer{}
		if p.composioURL != "" {
			if c.Direct, err = destination(p.composioURL); err != nil {
				return nil, err
			}
		}
	}
	if p.composioKey != "" {
		client, key, _, err := p.composio()
		if err != nil {
			return nil, err
		}
		c.Composio, c.Executions, c.Known = client, client, []composio.Secret{key}
		if err := guard(p.composioKey, false); err != nil {
			return nil, err
		}
	}
	if p.policy != "" {
		c.Policy = policyfile.Read(p.policy)
		if err := guard(p.policy, true); err != nil {
			return nil, err
		}
		if key := p.book(gatewayTrail).key; !absent(key) {
			if err := guard(key, false); err != nil {
				return nil, err
			}
		}
		// A policy that cannot be read is a result of the checks of it.
		if policy, err := gateway.ReadPolicy(p.policy); err == nil {
			c.Tokens = policyfile.Tokens(policy)
		}
	}
	if c.Trails, err = p.trails(); err != nil {
		return nil, err
	}
	if c.Switches, err = p.switches(); err != nil {
		return nil, err
	}
	if p.probeToken != "" {
		probe, err := p.probe()
		if err != nil {
			return nil, err
		}
		c.Gateway.Probes = []access.Probe{probe}
		if err := guard(p.probeToken, false); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// composio returns a client with the key of the flags, the key, and how its file
// may be accessed.
func (p *program) composio() (*composio.Client, composio.Secret, fs.FileMode, error) {
	key, mode, err := readSecret(p.composioKey)
	if err != nil {
		return nil, key, 0, usageError("--composio-key-file: " + err.Error())
	}
	c := composio.Config{APIKey: key, BaseURL: p.composioURL}
	if p.composioVia != nil {
		c.Transport = p.composioVia()
	}
	client, err := composio.New(c)
	if err != nil {
		return nil, key, 0, usageError(err.Error())
	}
	return client, key, mode, nil
}

// probe returns the agent to which the token of the flags belongs.
func (p *program) probe() (access.Probe, error) {
	if p.policy == "" || p.gatewayURL == "" {
		return access.Probe{}, usageError("--probe-token-file: say also whom to ask, with --gateway-url, and what it must offer, with --policy")
	}
	token, _, err := readSecret(p.probeToken)
	if err != nil {
		return access.Probe{}, usageError("--probe-token-file: " + err.Error())
	}
	policy, err := gateway.ReadPolicy(p.policy)
	if err != nil {
		return access.Probe{}, usageError(err.Error())
	}
	hash := gateway.HashToken(token)
	for name, agent := range policy.Agents {
		if slices.Contains(agent.Tokens, hash) {
			return access.Probe{Agent: name, Token: token}, nil
		}
	}
	return access.Probe{}, usageError(fmt.Sprintf("--probe-token-file: the token in %s is no agent's in %s: add its hash to one, %v", p.probeToken, p.policy, hash))
}

// destination returns where a URL leads to.
func destination(text string) ([]access.Destination, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, usageError("--composio-url must be of the form https://host") // not quoted: it may hold a credential
	}
	d := access.Destination{Name: u.Hostname(), Port: 443}
	if u.Scheme == "http" {
		d.Port = 80
	}
	if u.Port() != "" {
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || port == 0 {
			return nil, usageError("--composio-url has a port that is none")
		}
		d.Port = uint16(port)
	}
	return []access.Destination{d}, nil
}

// readSecret reads a file with one secret in it, and says how it may be
// accessed. What the file holds is in no error.
func readSecret(name string) (composio.Secret, fs.FileMode, error) {
	f, err := os.Open(name)
	if err != nil {
		return composio.Secret{}, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return composio.Secret{}, 0, err
	}
	const most = 4 << 10
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return composio.Secret{}, 0, err
	}
	text := strings.TrimSpace(string(data))
	if text == "" || len(data) > most || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return composio.Secret{}, 0, fmt.Errorf("%s does not hold one secret, and nothing else", name)
	}
	return composio.NewSecret(text), info.Mode(), nil
}

// trails returns what to look at of the trails: of the gateway's in any case, of
// the program's own once it has recorded something.
func (p *program) trails() ([]access.Trail, error) {
	var all []access.Trail
	for _, name := range []string{gatewayTrail, programTrail} {
		b := p.book(name)
		t := access.Trail{Name: name, Owner: uint32(max(0, os.Geteuid()))}
		for to, from := range map[*string]string{&t.Dir: b.dir, &t.KeyFile: b.public, &t.Pin: b.pin, &t.Secret: b.key} {
			full, err := filepath.Abs(from)
			if err != nil {
				return nil, err
			}
			*to = filepath.ToSlash(full)
		}
		if name == gatewayTrail {
			t.Gateway, t.MaxAge = true, 3*aliveInterval
		} else if !b.exists() {
			continue
		}
		all = append(all, t)
	}
	return all, nil
}

// private reports whether a file of this mode is its owner's alone. Windows
// does not say.
func private(mode fs.FileMode) bool { return mode&0o077 == 0 || runtime.GOOS == "windows" }

// withFlags has the checks that need flags which were not given say so, unless
// they fail without them.
func (p *program) withFlags(checks []harden.Check) []harden.Check {
	key, policy, door, probe := need{"--composio-key-file", p.composioKey}, need{"--policy", p.policy}, need{"--gateway-url", p.gatewayURL}, need{"--probe-token-file", p.probeToken}
	needs := map[string][]need{
		"access.gateway_only":        {door},
		"access.masked_secrets":      {key},
		"access.mcp_key":             {key},
		"access.key_files":           {key, policy},
		"access.tool_policy":         {policy, key},
		"access.tools_offered":       {door, policy, probe},
		"access.composio_allowlists": {key, policy},
		"access.trail_complete":      {key},
	}
	for i, c := range checks {
		var missing []string
		for _, n := range needs[c.Info().ID] {
			if n.value == "" {
				missing = append(missing, n.flag)
			}
		}
		if missing != nil {
			checks[i] = needy{c, strings.Join(missing, ", ")}
		}
	}
	return checks
}

type need struct{ flag, value string }

// A needy check lacks flags.
type needy struct {
	harden.Check

	flags string
}

// Run implements [harden.Check].
func (n needy) Run(ctx context.Context, v *host.View) (harden.Verdict, error) {
	if verdict, err := n.Check.Run(ctx, v); verdict.Status() == harden.StatusFail {
		return verdict, err
	}
	return harden.Verdict{}, fmt.Errorf("it needs to be told more: give %s (see -h)", n.flags)
}

// Unwrap returns the check itself.
func (n needy) Unwrap() harden.Check { return n.Check }
