package access

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// granted returns the tools that some agent may use.
func (p *Policy) granted() map[string]bool {
	all := make(map[string]bool)
	for _, a := range p.Agents {
		for slug := range a.Tools {
			all[slug] = true
		}
	}
	return all
}

// A PolicyReview is a policy beside what Composio says of its tools.
type PolicyReview struct {
	Policy Policy
	Err    error // why the policy could not be read

	// Classes are the most dangerous things that the tools do, by slug and
	// version as [Grant] has it, such as "GMAIL_SEND_EMAIL@20260902_00".
	Classes    map[string]composio.Class
	ClassesErr error
}

// NewPolicySource returns the one policy of c.
func NewPolicySource(c Config) *harden.Source[PolicyReview] {
	return &harden.Source[PolicyReview]{
		Name:    "policies",
		Subject: func(r PolicyReview) string { return "policy/" + r.Policy.Source },
		List: func(ctx context.Context, _ *host.View) ([]PolicyReview, error) {
			r := PolicyReview{Classes: make(map[string]composio.Class)}
			if r.Policy, r.Err = c.policy(ctx); r.Err != nil {
				return nil, r.Err
			}
			if c.Composio == nil {
				r.ClassesErr = errNoComposio
				return []PolicyReview{r}, nil
			}
			for _, a := range r.Policy.Agents {
				for slug, g := range a.Tools {
					key := slug + "@" + g.Version
					if _, ok := r.Classes[key]; ok {
						continue
					}
					version := g.Version
					if !pinned.MatchString(version) {
						version = ""
					}
					t, err := c.Composio.Tool(ctx, slug, version)
					if err != nil {
						r.ClassesErr = errors.Join(r.ClassesErr, fmt.Errorf("what %s does could not be asked: %w", slug, err))
						continue
					}
					r.Classes[key] = t.Class()
				}
			}
			return []PolicyReview{r}, ctx.Err()
		},
	}
}

var (
	slugForm = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)
	pinned   = regexp.MustCompile(`^[0-9]{8}_[0-9]{2}$`)
)

// judgePolicy judges a policy by itself, and by what its tools do.
func judgePolicy(_ context.Context, r PolicyReview) (harden.Verdict, error) {
	const id = "access.tool_policy"
	if r.Err != nil {
		return harden.Verdict{}, r.Err
	}
	var v violations
	fail := func(kind, subject, message, remedy string) {
		v = append(v, harden.Finding{
			ID: id + "." + kind, Message: message, Remedy: remedy,
			Evidence: []harden.Evidence{at(harden.LevelDeclared, r.Policy.Source, subject, "tools by name")},
		})
	}
	if len(r.Policy.Agents) == 0 {
		fail("empty", "no agent", "the policy names no agent", "name the agents and their tools")
	}
	tools, writes := 0, 0
	for _, name := range slices.Sorted(maps.Keys(r.Policy.Agents)) {
		a := r.Policy.Agents[name]
		if len(a.Tools) == 0 {
			fail("empty", name, fmt.Sprintf("agent %s has no list of tools, which others take to allow all of them", printableText(name)), "name its tools")
		}
		for _, slug := range slices.Sorted(maps.Keys(a.Tools)) {
			g := a.Tools[slug]
			shown := printableText(slug)
			subject := printableText(name) + " " + shown
			tools++
			if g.Class > composio.ClassRead {
				writes++
			}
			class, known := r.Classes[slug+"@"+g.Version]
			switch {
			case !slugForm.MatchString(slug):
				fail("spelling", subject, fmt.Sprintf("%s is not spelt as a tool is: wildcards and other letters name more, or nothing", shown), "name tools as GMAIL_FETCH_EMAILS")
			case strings.HasPrefix(slug, "COMPOSIO_"):
				fail("meta", subject, fmt.Sprintf("%s runs other tools, or code, that no list names", shown), "take it off the list")
			case !pinned.MatchString(g.Version):
				fail("version", subject, fmt.Sprintf("%s has no version of its own: what it does may change", shown), "pin one, such as 20260902_00")
			case known && class > max(g.Class, composio.ClassRead):
				fail("class", subject, fmt.Sprintf("%s is granted as %s, and Composio calls it %s", shown, max(g.Class, composio.ClassRead), class), "grant writes by name: say what the tool does")
			case known && class == composio.ClassUnknown && g.Class != composio.ClassDestructive:
				fail("class", subject, fmt.Sprintf("nobody says what %s does, and it is not granted as destructive", shown), "grant it as destructive, or take it off the list")
			}
		}
	}
	return v.verdict(r.ClassesErr, at(harden.LevelDeclared, r.Policy.Source,
		fmt.Sprintf("%d agents have %d tools by name, %d of which write; the rest is denied", len(r.Policy.Agents), tools, writes), "tools by name"))
}
