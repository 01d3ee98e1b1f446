package gateway_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

const goodPolicy = `{
  "schema": "hardshell.policy/v1",
  "agents": {
    "inbox": {
      "tokens": ["sha256:1111111111111111111111111111111111111111111111111111111111111111"],
      "user_id": "ann",
      "accounts": {"gmail": "ca_mail"},
      "tools": {
        "GMAIL_FETCH_EMAILS": {
          "version": "20260902_00",
          "arguments": {"query": {"max_length": 200}, "max_results": {"type": "integer", "min": 1, "max": 50}}
        },
        "GMAIL_DELETE_MESSAGE": {"version": "20260902_00", "class": "destructive"}
      },
      "rates": {"read": {"calls": 60, "per": "1m"}},
      "breaker": {"calls": 5, "per": "1m"}
    }
  }
}`

// A policy that is right is read, and what is read is written again the same.
func TestParsePolicy(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(name, []byte(goodPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := gateway.ReadPolicy(name)
	if err != nil {
		t.Fatal(err)
	}
	g := p.Agents["inbox"].Tools["GMAIL_FETCH_EMAILS"]
	if g.Version != "20260902_00" || g.Arguments["query"].MaxLength != 200 || *g.Arguments["max_results"].Max != 50 {
		t.Errorf("read %+v", g)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := gateway.ParsePolicy(data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if again.Digest() != p.Digest() {
		t.Errorf("written and read again it is\n%s", data)
	}
	if _, err := gateway.ReadPolicy(name + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// What is wrong with a policy is refused, and the error says where it is and
// what to do.
func TestPolicyRefused(t *testing.T) {
	t.Parallel()
	const token = `"sha256:1111111111111111111111111111111111111111111111111111111111111111"`
	for name, c := range map[string]struct{ old, new, want string }{
		"another schema":                   {`policy/v1`, `policy/v2`, "schema"},
		"no schema":                        {`"schema": "hardshell.policy/v1",`, ``, "schema"},
		"no agents":                        {goodPolicy, `{"schema":"hardshell.policy/v1","agents":{}}`, "agents: there is none"},
		"an unknown member":                {`"user_id"`, `"allow_all": true, "user_id"`, "agents.inbox.allow_all: nothing is known"},
		"a member in other case":           {`"tools": {`, `"Tools": {}, "tools": {`, "agents.inbox.Tools"},
		"a member twice":                   {`"user_id": "ann"`, `"user_id": "ann", "user_id": "ben"`, "twice"},
		"no tokens":                        {token, ``, "tokens: there is none"},
		"three tokens":                     {token, token + "," + strings.ReplaceAll(token, "1", "2") + "," + strings.ReplaceAll(token, "1", "3"), "at most 2"},
		"a token in clear":                 {token, `"hsg_secret_secret_secret_secret_secret"`, "tokens[0]: it is not the hash"},
		"the hash of nothing":              {token, `"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`, "hash of no token"},
		"the same token twice":             {`"inbox": {`, `"other": {"tokens": [` + token + `], "user_id": "x", "tools": {"A_B": {"version": "20260902_00"}}}, "inbox": {`, "has the same token"},
		"no user":                          {`"user_id": "ann",`, ``, "user_id: it is missing"},
		"a user with a comma":              {`"ann"`, `"ann,ben"`, "user_id"},
		"an empty list of tools":           {goodPolicy, `{"schema":"hardshell.policy/v1","agents":{"a":{"tokens":[` + token + `],"user_id":"x","tools":{}}}}`, "tools: the list is empty"},
		"no tools at all":                  {goodPolicy, `{"schema":"hardshell.policy/v1","agents":{"a":{"tokens":[` + token + `],"user_id":"x"}}}`, "tools: the list is empty"},
		"a tool in lower case":             {`"GMAIL_FETCH_EMAILS"`, `"gmail_fetch_emails"`, "not the slug of a tool"},
		"all tools":                        {`"GMAIL_FETCH_EMAILS"`, `"*"`, "not the slug of a tool"},
		"the workbench":                    {`"GMAIL_FETCH_EMAILS"`, `"COMPOSIO_REMOTE_WORKBENCH"`, "cannot be granted"},
		"multi-execute as a tool":          {`"GMAIL_FETCH_EMAILS"`, `"COMPOSIO_MULTI_EXECUTE_TOOL"`, "set multi_execute"},
		"no version":                       {`"version": "20260902_00",`, ``, "version: it is missing"},
		"the latest version":               {`"version": "20260902_00",`, `"version": "latest",`, "pin one"},
		"the base version":                 {`"version": "20260902_00",`, `"version": "00000000_00",`, "pin one"},
		"an unknown class":                 {`"class": "destructive"`, `"class": "harmless"`, "no such class"},
		"an unverified tool that reads":    {`"class": "destructive"`, `"unverified": true`, "name it destructive"},
		"an unverified tool without rules": {`"class": "destructive"`, `"class": "destructive", "unverified": true`, "arguments: they are missing"},
		"no breaker": {`,
      "breaker": {"calls": 5, "per": "1m"}`, ``, "breaker: it is missing"},
		"a breaker of nothing":       {`{"calls": 5, "per": "1m"}`, `{"calls": 0, "per": "1m"}`, "breaker.calls"},
		"a breaker of no time":       {`{"calls": 5, "per": "1m"}`, `{"calls": 5, "per": "1ms"}`, "per: it must be"},
		"a breaker of years":         {`{"calls": 5, "per": "1m"}`, `{"calls": 5, "per": "9000h"}`, "per: it must be"},
		"a rate of an unknown class": {`"read": {`, `"reed": {`, "no such class"},
		"an account that is none":    {`"ca_mail"`, `"default"`, "not the id of a connected account"},
		"a toolkit that is none":     {`"gmail": "ca_mail"`, `"G mail": "ca_mail"`, "not the name of a toolkit"},
		"a rule about two types":     {`{"max_length": 200}`, `{"max_length": 200, "max": 3}`, "values of two types"},
		"a rule of an unknown type":  {`{"max_length": 200}`, `{"type": "text"}`, "there is no type"},
		"a rule that contradicts":    {`"type": "integer"`, `"type": "string"`, "is about type string"},
		"a pattern that is none":     {`{"max_length": 200}`, `{"pattern": "a)|(b"}`, "pattern"},
		"an empty enumeration":       {`{"max_length": 200}`, `{"enum": []}`, "no value could match"},
		"bounds that cross":          {`"min": 1, "max": 50`, `"min": 51, "max": 50`, "min is greater"},
		"a bound that is a text":     {`"max": 50`, `"max": "50"`, "must be a number"},
		"an unknown bound":           {`"max": 50`, `"maximum": 50`, "maximum: nothing is known"},
		"something after it":         {goodPolicy, goodPolicy + `{}`, "not exactly one JSON value"},
		"a list":                     {goodPolicy, `[]`, "must be an object"},
		"nothing":                    {goodPolicy, ``, "empty"},
		"a strange name of an agent": {`"inbox": {`, `"In Box": {`, "not the name of an agent"},
	} {
		text := strings.Replace(goodPolicy, c.old, c.new, 1)
		if text == goodPolicy {
			t.Errorf("%s: the case changes nothing", name)
		}
		_, err := gateway.ParsePolicy([]byte(text))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "gateway: policy: ") {
			t.Errorf("%s: the error is %v, want one about %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hsg_secret") {
			t.Errorf("%s: the error quotes the token: %v", name, err)
		}
	}
}

// A policy is held against what Composio says of its tools: at the version
// that is pinned, and at the latest.
func TestPolicyAgainstCatalogue(t *testing.T) {
	t.Parallel()
	with := func(slug string, g gateway.Grant) func(*gateway.Config) {
		return func(c *gateway.Config) { c.Policy.Agents["inbox"].Tools[slug] = g }
	}
	for name, c := range map[string]struct {
		change func(*gateway.Config)
		want   string // in the error; none if empty
	}{
		"a tool that is not known":           {with("GMAIL_NO_SUCH", gateway.Grant{Version: version}), "knows no such tool"},
		"a version that is not known":        {with("GMAIL_FETCH_EMAILS", gateway.Grant{Version: "20200101_00"}), "knows no such tool"},
		"a tool that is not known, marked":   {with("GMAIL_NO_SUCH", gateway.Grant{Version: version, Class: composio.ClassDestructive, Unverified: true, Arguments: map[string]gateway.Rule{}}), ""},
		"a tool without a tag":               {with("GMAIL_UNTAGGED_THING", gateway.Grant{Version: version}), "does not say whether"},
		"a tool without a tag, marked":       {with("GMAIL_UNTAGGED_THING", gateway.Grant{Version: version, Class: composio.ClassDestructive, Unverified: true, Arguments: map[string]gateway.Rule{}}), "does not say whether"},
		"a write that is not named":          {with("GMAIL_CREATE_EMAIL_DRAFT", gateway.Grant{Version: version}), "of class create, and the policy grants read"},
		"an update that is named a creation": {with("GMAIL_ADD_LABEL_TO_EMAIL", gateway.Grant{Version: version, Class: composio.ClassCreate}), "of class update"},
		"a destruction that says it reads":   {with("GMAIL_GET_PROFILE_OR_WIPE_IT", gateway.Grant{Version: version}), "of class destructive"},
		"a tool without an account":          {with("GOOGLECALENDAR_EVENTS_LIST", gateway.Grant{Version: version}), "no account of toolkit"},
		"a tool that needs no account":       {with("HACKERNEWS_GET_LATEST_POSTS", gateway.Grant{Version: version}), ""},
		"no upstream":                        {func(c *gateway.Config) { c.Upstream = nil }, "no upstream"},
		"no fence":                           {func(c *gateway.Config) { c.Fence = nil }, "NoFence"},
		"no trail":                           {func(c *gateway.Config) { c.Trail = nil }, "trail.Discard"},
		"no policy":                          {func(c *gateway.Config) { c.Policy = nil }, "no policy"},
		"a bound that is negative":           {func(c *gateway.Config) { c.MaxCalls = -1 }, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, inbox := gateway.NewToken()
			_, calendar := gateway.NewToken()
			cfg := gateway.Config{Policy: newPolicy(inbox, calendar), Upstream: newComposio(composioConfig).Client(), Fence: gateway.NoFence, Trail: new(memory)}
			c.change(&cfg)
			_, err := gateway.New(t.Context(), cfg)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
		})
	}
}

// Tags of the latest version count as well: they are what is known best.
func TestClassOfTheLatestVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := tagged{w.composio.Client(), map[string][]string{"": {"destructiveHint"}}}
	_, inbox := gateway.NewToken()
	_, calendar := gateway.NewToken()
	cfg := gateway.Config{Policy: newPolicy(inbox, calendar), Upstream: u, Fence: gateway.NoFence, Trail: new(memory)}
	if _, err := gateway.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "of class destructive") {
		t.Errorf("the error is %v", err)
	}
	u.tags[""] = []string{"openWorldHint"}
	if _, err := gateway.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "does not say whether") {
		t.Errorf("the error is %v", err)
	}
}

// A reload is all or nothing, and is recorded either way.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.gateway.Policy()
	bad := newPolicy(gateway.HashToken(w.token), gateway.HashToken(w.other))
	bad.Agents["inbox"].Tools["GMAIL_NO_SUCH"] = gateway.Grant{Version: version}
	delete(bad.Agents["inbox"].Tools, "GMAIL_FETCH_EMAILS")
	if err := w.gateway.Reload(t.Context(), bad); err == nil {
		t.Error("a policy with a tool that does not exist was taken on")
	}
	if w.gateway.Policy() != old {
		t.Error("the old policy does not hold any more")
	}
	if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); refused(rec) {
		t.Errorf("after a reload that failed: %d %s", rec.Code, rec.Body)
	}
	// Composio out of reach: the old one holds too.
	w.trail.failing(func(trail.Event) error { return errors.New("disk full") })
	good := newPolicy(gateway.HashToken(w.token), gateway.HashToken(w.other))
	delete(good.Agents["inbox"].Tools, "GMAIL_FETCH_EMAILS")
	if err := w.gateway.Reload(t.Context(), good); err == nil || w.gateway.Policy() != old {
		t.Error("a policy was taken on without a record")
	}
	w.trail.failing(nil)
	if err := w.gateway.Reload(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); !refused(rec) {
		t.Error("the new policy does not hold")
	}
	if rec := w.mcp(object{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}); strings.Contains(rec.Body.String(), "GMAIL_FETCH_EMAILS") {
		t.Errorf("MCP lists what is no longer granted: %s", rec.Body)
	}
	var outcomes []trail.Outcome
	for _, e := range w.trail.where(func(e trail.Event) bool { return e.Kind == gateway.KindPolicy }) {
		outcomes = append(outcomes, e.Outcome)
	}
	if want := []trail.Outcome{trail.OutcomeOK, trail.OutcomeError, trail.OutcomeOK}; !reflect.DeepEqual(outcomes, want) {
		t.Errorf("recorded %v, want %v", outcomes, want)
	}
}

// A reload that comes between the decision on a call and its execution counts.
func TestReloadInBetween(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*gateway.Policy){
		"the tool is taken off":  func(p *gateway.Policy) { delete(p.Agents["inbox"].Tools, "GMAIL_FETCH_EMAILS") },
		"the agent is taken off": func(p *gateway.Policy) { delete(p.Agents, "inbox") },
		"the token is taken off": func(p *gateway.Policy) {
			a := p.Agents["inbox"]
			_, h := gateway.NewToken()
			a.Tokens = []gateway.TokenHash{h}
			p.Agents["inbox"] = a
		},
		"the account is another": func(p *gateway.Policy) { p.Agents["inbox"].Accounts["gmail"] = "ca_newer" },
		"the argument is not named": func(p *gateway.Policy) {
			p.Agents["inbox"].Tools["GMAIL_FETCH_EMAILS"] = gateway.Grant{Version: version, Arguments: map[string]gateway.Rule{}}
		},
		"the class is another": func(p *gateway.Policy) {
			g := p.Agents["inbox"].Tools["GMAIL_FETCH_EMAILS"]
			g.Class = composio.ClassDestructive
			p.Agents["inbox"].Tools["GMAIL_FETCH_EMAILS"] = g
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := newPolicy(gateway.HashToken(w.token), gateway.HashToken(w.other))
			change(p)
			reloaded := false
			w.trail.failing(func(e trail.Event) error {
				if e.Outcome == trail.OutcomeBegin && !reloaded {
					reloaded = true
					go func() { w.trail.failing(nil) }()
					w.trail.mu.Unlock()
					defer w.trail.mu.Lock()
					return w.gateway.Reload(t.Context(), p)
				}
				return nil
			})
			if rec := w.execute("GMAIL_FETCH_EMAILS", object{"query": "x"}); !refused(rec) || len(w.executed()) > 0 {
				t.Errorf("executed %v: %d %s", w.executed(), rec.Code, rec.Body)
			}
			if !reloaded {
				t.Error("there was no reload in between")
			}
		})
	}
}

// Two tokens are valid while one replaces the other.
func TestRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fresh, hash := gateway.NewToken()
	works := func(token composio.Secret) bool {
		r := w.request("POST", fetchPath, fetch(nil))
		r.Header.Set("X-Api-Key", token.Reveal())
		return !refused(w.send(r))
	}
	tokens := func(hashes ...gateway.TokenHash) {
		p := newPolicy(gateway.HashToken(w.token), gateway.HashToken(w.other))
		a := p.Agents["inbox"]
		a.Tokens = hashes
		p.Agents["inbox"] = a
		if err := w.gateway.Reload(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if !works(w.token) || works(fresh) {
		t.Error("before: want the old alone")
	}
	tokens(gateway.HashToken(w.token), hash)
	if !works(w.token) || !works(fresh) {
		t.Error("meanwhile: want both")
	}
	tokens(hash)
	if works(w.token) || !works(fresh) {
		t.Error("after: want the new alone")
	}
}
