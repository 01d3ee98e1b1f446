package access

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// An Offer is what a gateway offers one agent, and what it refused. It holds no
// token.
type Offer struct {
	Agent string
	URL   string

	REST    []string // slugs
	RESTErr error
	MCP     []string
	MCPErr  error

	Refusals []Refusal

	Grants    Grants
	PolicyErr error
}

// A Refusal is what came of asking a gateway for what it must not do.
type Refusal struct {
	What    string // such as "a tool that is not granted, over MCP"
	Refused bool
	Answer  string // such as "HTTP 403"
	Err     error  // why it could not be tried
}

const multiExecute = "COMPOSIO_MULTI_EXECUTE_TOOL"

// forbidden are tools of Composio's own that no policy grants, and that do no
// harm if they are executed all the same.
var forbidden = []string{"COMPOSIO_SEARCH_TOOLS", "COMPOSIO_GET_TOOL_SCHEMAS"}

var errNoGateway = errors.New("access: Config.Gateway has no URL: nothing can be asked as the agent would")

// NewOfferSource returns what the gateway of c offers to each of its probes.
func NewOfferSource(c Config) *harden.Source[Offer] {
	return &harden.Source[Offer]{
		Name:    "agents of the gateway",
		Subject: func(o Offer) string { return "agent/" + o.Agent },
		List: func(ctx context.Context, _ *host.View) ([]Offer, error) {
			if c.Gateway.URL == "" {
				return nil, errNoGateway
			}
			var all []Offer
			for _, p := range c.Gateway.Probes {
				policy, err := c.policy(ctx)
				o := Offer{Agent: p.Agent, PolicyErr: err}
				grants, ok := policy.Agents[p.Agent]
				if err == nil && !ok {
					o.PolicyErr = fmt.Errorf("the policy has no agent %s: correct Config.Gateway.Probes", printableText(p.Agent))
				}
				o.Grants = grants
				o.ask(ctx, &c.Gateway, p.Token)
				all = append(all, o)
			}
			return all, ctx.Err()
		},
	}
}

// ask asks at both doors.
func (o *Offer) ask(ctx context.Context, g *Gateway, token composio.Secret) {
	d, err := newDoor(g, token)
	if err != nil {
		o.RESTErr, o.MCPErr = err, err
		return
	}
	o.URL = d.base
	o.REST, o.RESTErr = d.listREST(ctx)
	m, err := d.openMCP(ctx)
	if err == nil {
		o.MCP, err = m.list(ctx)
	}
	o.MCPErr = err
	denied := ""
	for _, slug := range forbidden {
		if _, ok := o.Grants.Tools[slug]; !ok {
			denied = slug
			break
		}
	}
	note := func(what string, status int, err error) {
		r := Refusal{What: what, Err: err, Answer: fmt.Sprintf("HTTP %d", status)}
		// Others of the 4xx may be Composio's, of a request that got through.
		r.Refused = status == 401 || status == 403 || status == 405
		o.Refusals = append(o.Refusals, r)
	}
	post := func(what, slug, body string) {
		status, err := d.post(ctx, "/api/v3.1/tools/execute/"+slug, body)
		note(what, status, err)
	}
	if denied != "" {
		post("a tool that is not granted", denied, `{"arguments":{}}`)
		post("a tool that is not granted, wrapped in another", multiExecute, `{"arguments":{"tools":[{"tool_slug":"`+denied+`","arguments":{}}]}}`)
		if m != nil {
			o.Refusals = append(o.Refusals, m.refuses(ctx, "a tool that is not granted, over MCP", denied))
		}
	}
	for slug, g := range o.Grants.Tools {
		// Harmless, should it be let through: the agent may do as much.
		if g.Class <= composio.ClassRead && slugForm.MatchString(slug) {
			post("a tool that is granted, in lower-case letters", strings.ToLower(slug), `{"arguments":{}}`)
			break
		}
	}
	post("a request to any address, with the account's credential", "proxy", `{}`)
	status, err := d.without(ctx, "")
	note("a request without a token", status, err)
	status, err = d.without(ctx, tokenPrefix+strings.Repeat("A", 43))
	note("a request with a token that nobody has", status, err)
}

// judgeOffer judges what a gateway offers.
func judgeOffer(_ context.Context, o Offer) (harden.Verdict, error) {
	const id = "access.tools_offered"
	var v violations
	errs := []error{o.PolicyErr}
	want := slices.Collect(maps.Keys(o.Grants.Tools))
	if o.Grants.Multi {
		want = append(want, multiExecute)
	}
	for _, door := range []struct {
		name  string
		tools []string
		err   error
	}{{"REST", o.REST, o.RESTErr}, {"MCP", o.MCP, o.MCPErr}} {
		if door.err != nil {
			errs = append(errs, fmt.Errorf("what the gateway offers over %s could not be asked: %w", door.name, door.err))
			continue
		}
		if o.PolicyErr != nil {
			continue
		}
		differ := func(kind, message string, severity harden.Severity, tools []string) {
			if len(tools) == 0 {
				return
			}
			v = append(v, harden.Finding{
				ID: id + "." + kind, Severity: severity, Message: message + door.name + ": " + some(tools),
				Remedy:   "have the gateway read its policy anew",
				Evidence: []harden.Evidence{at(harden.LevelProbed, o.URL+" over "+door.name, some(tools), "the policy's tools, and no others")},
			})
		}
		differ("beyond", "the gateway offers what the policy does not grant, over ", harden.SeverityCritical, missing(door.tools, want))
		differ("short", "the gateway does not offer what the policy grants, over ", harden.SeverityMedium, missing(want, door.tools))
	}
	refused := 0
	for _, r := range o.Refusals {
		switch {
		case r.Err != nil:
			errs = append(errs, fmt.Errorf("%s could not be tried: %w", r.What, r.Err))
		case !r.Refused:
			v = append(v, harden.Finding{
				ID: id + ".let_through", Severity: harden.SeverityCritical, Message: "the gateway does not refuse " + r.What,
				Remedy:   "put package composio/gateway between the agent and Composio",
				Evidence: []harden.Evidence{at(harden.LevelProbed, o.URL, r.Answer, "HTTP 401 or 403")},
			})
		default:
			refused++
		}
	}
	if refused == 0 && len(v) == 0 {
		errs = append(errs, errors.New("nothing that it must refuse was tried"))
	}
	return v.verdict(errors.Join(errs...), at(harden.LevelProbed, o.URL,
		fmt.Sprintf("offers exactly the %d tools of the policy over REST and MCP, and refused %d attempts at more", len(want), refused), "the policy's tools, and no others"))
}

// missing returns what of a is not in b.
func missing(a, b []string) []string {
	var all []string
	for _, s := range a {
		if !slices.Contains(b, s) && !slices.Contains(all, printableText(s)) {
			all = append(all, printableText(s))
		}
	}
	return sorted(all)
}
