package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/composio"
)

// An Upstream has tools and executes them. [*composio.Client] is one that uses
// the API; a [*Session] is one that uses MCP. Its methods may be called
// concurrently.
type Upstream interface {
	// Tool describes a tool at a version; an empty version is the latest. It
	// returns an error that matches [composio.ErrNotFound] for what it does
	// not have.
	Tool(ctx context.Context, slug, version string) (composio.Tool, error)

	// Execute executes a call, once, whatever happens. An error that matches
	// [*composio.APIError] with a status below 500 means that it was not
	// executed; after any other error it may have been.
	Execute(ctx context.Context, call composio.Call) (composio.Result, error)
}

// A book is a policy that has been held against what Composio says of its
// tools, and is ready to be used. It does not change.
type book struct {
	policy *Policy
	digest string
	agents map[string]*agent
	tokens []ownedToken
}

type ownedToken struct {
	hash  TokenHash
	agent *agent
}

type agent struct {
	Agent
	name     string
	upstream Upstream
	tools    map[string]*tool // by slug
	slugs    []string         // sorted
	mcp      *mcpDoor
}

// A tool is a Grant that has been verified.
type tool struct {
	Grant
	composio.Tool
	class     composio.Class // the worst that anybody says
	account   string
	schema    json.RawMessage     // of the arguments: a JSON object
	arguments map[string]*matcher // nil: the schema does not say
}

// verify holds p against what upstream says. All that is wrong is in the error.
func (g *Gateway) verify(ctx context.Context, p *Policy) (*book, error) {
	if p == nil {
		return nil, errors.New("gateway: there is no policy")
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	b := &book{policy: p, digest: p.Digest(), agents: make(map[string]*agent)}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(p.Agents)) {
		a := &agent{Agent: p.Agents[name], name: name, tools: make(map[string]*tool), upstream: g.cfg.Upstream}
		if u, ok := g.cfg.PerAgent[name]; ok {
			a.upstream = u
		}
		if a.upstream == nil {
			return nil, fmt.Errorf("gateway: policy: agents.%s: there is no upstream for it: set Config.Upstream or PerAgent", name)
		}
		a.slugs = slices.Sorted(maps.Keys(a.Tools))
		verified := make([]*tool, len(a.slugs))
		failed := make([]error, len(a.slugs))
		var group errgroup.Group
		group.SetLimit(8)
		for i, slug := range a.slugs {
			group.Go(func() error {
				verified[i], failed[i] = a.verify(ctx, slug)
				return nil
			})
		}
		_ = group.Wait()
		for i, slug := range a.slugs {
			a.tools[slug] = verified[i]
			if failed[i] != nil {
				problems = append(problems, fmt.Errorf("gateway: policy: agents.%s.tools.%s: %w", name, slug, failed[i]))
			}
		}
		for _, t := range a.Tokens {
			b.tokens = append(b.tokens, ownedToken{t, a})
		}
		b.agents[name] = a
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	for _, a := range b.agents {
		a.mcp = g.newMCPDoor(a)
	}
	return b, nil
}

// verify holds one grant against what upstream says of the tool, at the version
// that is pinned and at the latest: its tags are what is known best.
func (a *agent) verify(ctx context.Context, slug string) (*tool, error) {
	grant := a.Tools[slug]
	t := &tool{Grant: grant, class: max(grant.Class, composio.ClassRead)}
	known, err := a.upstream.Tool(ctx, slug, grant.Version)
	switch {
	case errors.Is(err, composio.ErrNotFound) && grant.Unverified:
		t.Tool = composio.Tool{Slug: slug, Name: slug, Toolkit: a.toolkitOf(slug), Version: grant.Version}
	case errors.Is(err, composio.ErrNotFound):
		return nil, fmt.Errorf("the catalogue knows no such tool at version %s: correct the slug or the version, or mark the grant as unverified: %w", grant.Version, err)
	case err != nil:
		return nil, fmt.Errorf("what it does cannot be looked up: %w", err)
	default:
		if known.Slug != slug || known.Version != grant.Version {
			return nil, errors.New("the catalogue describes another tool or version")
		}
		t.Tool = known
		class := known.Class()
		if grant.Version == SessionVersion {
			t.Toolkit = a.toolkitOf(slug) // MCP does not say
		} else {
			latest, err := a.upstream.Tool(ctx, slug, "")
			if err != nil {
				return nil, fmt.Errorf("what it does at its latest version cannot be looked up: %w", err)
			}
			class = worst(class, latest.Class())
		}
		if class == composio.ClassUnknown {
			return nil, errors.New("the catalogue does not say whether it reads, creates, updates or destroys: what is not classified cannot be granted")
		}
		if class > t.class {
			return nil, fmt.Errorf("it is of class %v, and the policy grants %v: grant it by name, with class %v, or take it off", class, t.class, class)
		}
	}
	t.account = a.Accounts[t.Toolkit]
	if t.account == "" && !t.NoAuth {
		return nil, fmt.Errorf("no account of toolkit %s is named: Composio would take the one that was connected last: name it in accounts", quote(t.Toolkit))
	}
	if t.NoAuth {
		t.account = ""
	}
	return t, t.compile()
}

// toolkitOf returns the toolkit, of those that have an account, whose name slug
// begins with.
func (a *agent) toolkitOf(slug string) string {
	longest := ""
	for toolkit := range a.Accounts {
		if strings.HasPrefix(slug, slugOf(toolkit)+"_") && len(toolkit) > len(longest) {
			longest = toolkit
		}
	}
	return longest
}

func slugOf(toolkit string) string {
	return strings.ToUpper(strings.ReplaceAll(toolkit, "-", "_"))
}

// worst returns the more dangerous class; one that is unknown makes both so.
func worst(a, b composio.Class) composio.Class {
	if a == composio.ClassUnknown || b == composio.ClassUnknown {
		return composio.ClassUnknown
	}
	return max(a, b)
}

// compile makes the rules for the arguments: those of the grant, or else the
// names in the tool's schema.
func (t *tool) compile() error {
	t.schema = json.RawMessage(`{"type":"object"}`)
	var properties map[string]any
	if raw := t.Input.Bytes(); len(raw) > 0 && !t.Grant.Unverified {
		v, err := parseJSON(raw)
		schema, ok := v.(map[string]any)
		if err != nil || !ok {
			return errors.New("its schema at Composio is not a JSON object")
		}
		if _, ok := schema["type"]; !ok {
			schema["type"] = "object"
		}
		if schema["type"] != "object" {
			return errors.New("its schema at Composio is not that of an object")
		}
		properties, _ = schema["properties"].(map[string]any)
		if t.schema, err = json.Marshal(schema); err != nil {
			return err
		}
	}
	rules := t.Grant.Arguments
	if rules == nil {
		rules = make(map[string]Rule)
		for name := range properties {
			rules[name] = Rule{}
		}
	}
	var err error
	t.arguments, err = compileRules(rules, "arguments.", 0)
	return err
}
