package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

// Schema names the version of the policy's file format that this package
// reads.
const Schema = "hardshell.policy/v1"

// A Policy says what each agent may do. What it does not name is denied; the
// zero Policy is refused. It must not be changed while a [Gateway] uses it.
type Policy struct {
	Agents map[string]Agent // by name, such as "inbox"
}

// An Agent is what one agent may do.
type Agent struct {
	// Tokens are the hashes of the tokens that the agent may use: one, or two
	// while the old one is being replaced.
	Tokens []TokenHash

	// UserID is the user at Composio that the agent acts for.
	UserID string

	// Accounts maps toolkits, such as "gmail", to the id of the connected
	// account to use. Every toolkit that needs an account must be there:
	// Composio would take the account that was connected last.
	Accounts map[string]string

	// Tools maps slugs to how they may be used.
	Tools map[string]Grant

	// Rates bounds the calls of each class. A class that is not there is not
	// bounded.
	Rates map[composio.Class]Limit

	// Breaker bounds the calls of destructive tools. The call beyond it trips
	// the breaker: the agent is denied everything until [Gateway.Reset]. It
	// must be set if a destructive tool is granted.
	Breaker Limit

	// MultiExecute offers COMPOSIO_MULTI_EXECUTE_TOOL. The gateway takes it
	// apart itself: each call in it is judged, all are allowed or none.
	MultiExecute bool
}

// A Grant is how one tool may be used.
type Grant struct {
	// Version is the version that is executed, such as "20260902_00". For
	// tools of a [Session] it is [SessionVersion].
	Version string

	// Class is the most dangerous thing that the tool is known to do. If
	// Composio's tags say that it does worse, the policy is refused: writes
	// are to be granted by name. Zero means [composio.ClassRead].
	Class composio.Class

	// Unverified grants a tool that Composio does not know at this version.
	// Its Class must be destructive and Arguments must be set.
	Unverified bool

	// Arguments are rules for the arguments, by name; others are denied. Nil
	// allows those that the tool's schema at Composio names.
	Arguments map[string]Rule
}

// A Limit allows Calls calls in any span of time as long as Per.
type Limit struct {
	Calls int
	Per   time.Duration
}

func (l Limit) String() string { return fmt.Sprintf("%d calls in %v", l.Calls, l.Per) }

// Bounds of what a policy may say. They are there to catch mistakes, such as
// milliseconds taken for seconds.
const (
	maxPolicyBytes = 4 << 20
	maxTokens      = 2
	maxCalls       = 100_000
	minPer         = 100 * time.Millisecond
	maxPer         = 24 * time.Hour
)

var (
	agentPattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	slugPattern    = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)
	versionPattern = regexp.MustCompile(`^[0-9]{8}_[0-9]{2}$`)
	toolkitPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,99}$`)
	accountPattern = regexp.MustCompile(`^ca_[A-Za-z0-9_-]{1,100}$`)
)

// metaPrefix begins the names of the tools of Composio's own that execute
// other tools, run code, or manage connections.
const (
	metaPrefix   = "COMPOSIO_"
	multiExecute = "COMPOSIO_MULTI_EXECUTE_TOOL"
)

const maxSlug = 128

func validSlug(s string) bool { return len(s) <= maxSlug && slugPattern.MatchString(s) }

// ReadPolicy reads a policy from a file.
func ReadPolicy(name string) (*Policy, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("gateway: policy: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPolicyBytes+1))
	if err != nil {
		return nil, fmt.Errorf("gateway: policy: %w", err)
	}
	p, err := ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, name)
	}
	return p, nil
}

// ParsePolicy reads a policy in JSON and validates it. The error names the
// first thing that is wrong, and where.
func ParsePolicy(data []byte) (*Policy, error) {
	if len(data) > maxPolicyBytes {
		return nil, fmt.Errorf("gateway: policy: it is larger than %d bytes", maxPolicyBytes)
	}
	v, err := parseJSON(data)
	if err != nil {
		return nil, fmt.Errorf("gateway: policy: %w", err)
	}
	r := newReader(v, "")
	if s := r.text("schema"); s != Schema && *r.err == nil {
		return nil, fmt.Errorf("gateway: policy: schema: it is %s, and this program reads %q", quote(s), Schema)
	}
	p := &Policy{Agents: make(map[string]Agent)}
	if agents, ok := r.within("agents"); ok {
		for _, name := range agents.names() {
			a, _ := agents.within(name)
			p.Agents[name] = readAgent(a)
		}
	}
	r.done("schema and agents")
	if *r.err != nil {
		return nil, fmt.Errorf("gateway: policy: %w", *r.err)
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}

func readAgent(r reader) Agent {
	a := Agent{UserID: r.text("user_id"), MultiExecute: r.flag("multi_execute")}
	for i, t := range r.texts("tokens") {
		var h TokenHash
		if err := h.UnmarshalText([]byte(t)); err != nil {
			r.fail(fmt.Sprintf("%s[%d]", r.at("tokens"), i), "%s", strings.TrimPrefix(err.Error(), "gateway: "))
		}
		a.Tokens = append(a.Tokens, h)
	}
	if accounts, ok := r.within("accounts"); ok {
		a.Accounts = make(map[string]string)
		for _, toolkit := range accounts.names() {
			a.Accounts[toolkit] = accounts.text(toolkit)
		}
	}
	if tools, ok := r.within("tools"); ok {
		a.Tools = make(map[string]Grant)
		for _, slug := range tools.names() {
			g, _ := tools.within(slug)
			a.Tools[slug] = readGrant(g)
		}
	}
	if rates, ok := r.within("rates"); ok {
		a.Rates = make(map[composio.Class]Limit)
		for _, name := range rates.names() {
			class, ok := classByName(name)
			if !ok {
				rates.fail(rates.at(name), "there is no such class; there are read, create, update and destructive")
			}
			l, _ := rates.within(name)
			a.Rates[class] = readLimit(l)
		}
	}
	if l, ok := r.within("breaker"); ok {
		a.Breaker = readLimit(l)
	}
	r.done("tokens, user_id, accounts, tools, rates, breaker and multi_execute")
	return a
}

func readGrant(r reader) Grant {
	g := Grant{Version: r.text("version"), Unverified: r.flag("unverified")}
	if name := r.text("class"); name != "" {
		class, ok := classByName(name)
		if !ok {
			r.fail(r.at("class"), "there is no such class; there are read, create, update and destructive")
		}
		g.Class = class
	}
	if rules, ok := r.within("arguments"); ok {
		g.Arguments = make(map[string]Rule)
		for _, name := range rules.names() {
			in, _ := rules.within(name)
			g.Arguments[name] = readRule(in, 0)
		}
	}
	r.done("version, class, unverified and arguments")
	return g
}

func readLimit(r reader) Limit {
	n, ok := r.whole("calls", 1, maxCalls)
	if !ok {
		r.fail(r.at("calls"), "it is missing")
	}
	per, err := time.ParseDuration(r.text("per"))
	if err != nil {
		r.fail(r.at("per"), `it must be a span of time such as "1m"`)
	}
	r.done("calls and per")
	return Limit{int(n), per}
}

func classByName(name string) (composio.Class, bool) {
	for c := composio.ClassRead; c <= composio.ClassDestructive; c++ {
		if c.String() == name {
			return c, true
		}
	}
	return 0, false
}

// Validate returns an error that says what is wrong with p, nil if nothing is.
// [ParsePolicy] and [New] call it.
func (p *Policy) Validate() error {
	if len(p.Agents) == 0 {
		return errors.New("gateway: policy: agents: there is none: who may do nothing needs no gateway")
	}
	owner := make(map[TokenHash]string)
	for _, name := range slices.Sorted(maps.Keys(p.Agents)) {
		if !agentPattern.MatchString(name) {
			return fmt.Errorf("gateway: policy: agents: %s is not the name of an agent: use lower-case letters, digits, dots, dashes and underscores", quote(name))
		}
		a := p.Agents[name]
		if err := a.validate(); err != nil {
			return fmt.Errorf("gateway: policy: agents.%s.%w", name, err)
		}
		for _, t := range a.Tokens {
			if other, ok := owner[t]; ok {
				return fmt.Errorf("gateway: policy: agents.%s.tokens: %s has the same token: make one for each with NewToken", name, other)
			}
			owner[t] = name
		}
	}
	return nil
}

func (a *Agent) validate() error {
	switch {
	case len(a.Tokens) == 0:
		return errors.New("tokens: there is none: make one with NewToken, and write its hash here")
	case len(a.Tokens) > maxTokens:
		return fmt.Errorf("tokens: there are %d, and at most %d may be valid at a time: take the oldest off", len(a.Tokens), maxTokens)
	case a.UserID == "":
		return errors.New("user_id: it is missing: say which user at Composio the agent acts for")
	case len(a.UserID) > 200 || strings.ContainsFunc(a.UserID, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ',' }):
		return errors.New("user_id: it is longer than 200 bytes or has a space, a comma or a control character")
	case len(a.Tools) == 0:
		return errors.New("tools: the list is empty, which would allow nothing, and which others take to allow everything: name the tools")
	}
	for toolkit, id := range a.Accounts {
		if !toolkitPattern.MatchString(toolkit) {
			return fmt.Errorf("accounts: %s is not the name of a toolkit, such as gmail", quote(toolkit))
		}
		if !accountPattern.MatchString(id) {
			return fmt.Errorf("accounts.%s: %s is not the id of a connected account, such as ca_abc123", toolkit, quote(id))
		}
	}
	var destructive string
	for _, slug := range slices.Sorted(maps.Keys(a.Tools)) {
		g := a.Tools[slug]
		if err := g.validate(slug); err != nil {
			return fmt.Errorf("tools.%w", err)
		}
		if g.Class == composio.ClassDestructive {
			destructive = slug
		}
	}
	for class, l := range a.Rates {
		if class < composio.ClassRead || class > composio.ClassDestructive {
			return errors.New("rates: there is no such class")
		}
		if err := l.validate(); err != nil {
			return fmt.Errorf("rates.%v.%w", class, err)
		}
	}
	switch {
	case a.Breaker != (Limit{}):
		if err := a.Breaker.validate(); err != nil {
			return fmt.Errorf("breaker.%w", err)
		}
	case destructive != "":
		return fmt.Errorf("breaker: it is missing, and the agent may call %s, which is destructive: say how many such calls in what time are still no accident", destructive)
	}
	return nil
}

func (g *Grant) validate(slug string) error {
	switch {
	case !validSlug(slug):
		return fmt.Errorf("%s: it is not the slug of a tool, such as GMAIL_FETCH_EMAILS", quote(slug))
	case slug == multiExecute:
		return fmt.Errorf("%s: it is not granted as a tool: set multi_execute of the agent", slug)
	case strings.HasPrefix(slug, metaPrefix):
		return fmt.Errorf("%s: tools that find, connect or run others cannot be granted: what they do could not be judged", slug)
	case g.Version == "":
		return fmt.Errorf("%s.version: it is missing: pin one, such as 20260902_00", slug)
	case g.Version == "00000000_00" || g.Version != SessionVersion && !versionPattern.MatchString(g.Version):
		return fmt.Errorf("%s.version: %s is not a version that stays what it is: pin one, such as 20260902_00", slug, quote(g.Version))
	case g.Class < 0 || g.Class > composio.ClassDestructive:
		return fmt.Errorf("%s.class: there is no such class", slug)
	case g.Unverified && g.Class != composio.ClassDestructive:
		return fmt.Errorf("%s.class: nobody vouches for a tool that is unverified: name it destructive", slug)
	case g.Unverified && g.Arguments == nil:
		return fmt.Errorf("%s.arguments: they are missing: a tool that is unverified has no schema that could say which there are", slug)
	}
	for _, name := range slices.Sorted(maps.Keys(g.Arguments)) {
		rule := g.Arguments[name]
		if err := rule.validate(name, 0); err != nil {
			return fmt.Errorf("%s.arguments.%w", slug, err)
		}
	}
	return nil
}

func (l Limit) validate() error {
	switch {
	case l.Calls < 1 || l.Calls > maxCalls:
		return fmt.Errorf("calls: it must be from 1 to %d", maxCalls)
	case l.Per < minPer || l.Per > maxPer:
		return fmt.Errorf("per: it must be from %v to %v", minPer, maxPer)
	}
	return nil
}

// MarshalJSON writes p as [ParsePolicy] reads it.
func (p *Policy) MarshalJSON() ([]byte, error) {
	type limit struct {
		Calls int    `json:"calls"`
		Per   string `json:"per"`
	}
	type grant struct {
		Version    string          `json:"version"`
		Class      composio.Class  `json:"class"`
		Unverified bool            `json:"unverified,omitempty"`
		Arguments  map[string]Rule `json:"arguments,omitzero"`
	}
	type agent struct {
		Tokens       []TokenHash              `json:"tokens"`
		UserID       string                   `json:"user_id"`
		Accounts     map[string]string        `json:"accounts,omitempty"`
		Tools        map[string]grant         `json:"tools"`
		Rates        map[composio.Class]limit `json:"rates,omitempty"`
		Breaker      *limit                   `json:"breaker,omitempty"`
		MultiExecute bool                     `json:"multi_execute,omitempty"`
	}
	out := struct {
		Schema string           `json:"schema"`
		Agents map[string]agent `json:"agents"`
	}{Schema, make(map[string]agent)}
	for name, a := range p.Agents {
		w := agent{Tokens: a.Tokens, UserID: a.UserID, Accounts: a.Accounts, Tools: make(map[string]grant), MultiExecute: a.MultiExecute}
		for slug, g := range a.Tools {
			w.Tools[slug] = grant{g.Version, max(g.Class, composio.ClassRead), g.Unverified, g.Arguments}
		}
		for class, l := range a.Rates {
			if w.Rates == nil {
				w.Rates = make(map[composio.Class]limit)
			}
			w.Rates[class] = limit{l.Calls, l.Per.String()}
		}
		if a.Breaker != (Limit{}) {
			w.Breaker = &limit{a.Breaker.Calls, a.Breaker.Per.String()}
		}
		out.Agents[name] = w
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(out)
	return b.Bytes(), err
}

// Digest identifies what p says: "sha256:" and the hash of its JSON.
func (p *Policy) Digest() string {
	data, err := p.MarshalJSON()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
