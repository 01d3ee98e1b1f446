package gateway

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

const apiPrefix = "/api/v3.1/"

// A path that leads to a tool. It is held against the path as it was sent, so
// that nothing spelt otherwise can lead there.
var (
	toolPath    = regexp.MustCompile(`^/api/v3\.1/tools/([A-Z][A-Z0-9_]*)$`)
	executePath = regexp.MustCompile(`^/api/v3\.1/tools/execute/([A-Z][A-Z0-9_]*)$`)
)

// serveREST serves the part of the API that agents may use. The rest is denied,
// whatever it is.
func (g *Gateway) serveREST(w http.ResponseWriter, r *http.Request, rq *request) *denial {
	path := r.URL.EscapedPath()
	if r.Method == http.MethodGet && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) {
		return deny(ReasonRequest, "a request that only asks has no body")
	}
	switch m := executePath.FindStringSubmatch(path); {
	case path == "/api/v3.1/tools" && r.Method == http.MethodGet:
		return g.listTools(w, r, rq)
	case path == "/api/v3.1/tools/enum" && r.Method == http.MethodGet:
		reply(w, http.StatusOK, rq.agent.offered())
		return nil
	case m != nil && r.Method == http.MethodPost:
		return g.executeTool(w, r, rq, m[1])
	case m != nil:
		return &denial{reason: ReasonEndpoint, message: "a tool is executed with POST", status: http.StatusMethodNotAllowed}
	}
	if m := toolPath.FindStringSubmatch(path); m != nil && r.Method == http.MethodGet {
		return g.getTool(w, r, rq, m[1])
	}
	return deny(ReasonEndpoint, "agents may list tools and execute those that they are granted, at %stools: nothing else of the API", apiPrefix)
}

// offered returns the slugs of all that the agent may call.
func (a *agent) offered() []string {
	slugs := slices.Clone(a.slugs)
	if a.MultiExecute {
		slugs = append(slugs, multiExecute)
	}
	return slugs
}

// A toolJSON is a tool as the API describes it.
type toolJSON struct {
	Slug             string          `json:"slug"`
	Name             string          `json:"name"`
	Description      string          `json:"description"`
	HumanDescription string          `json:"human_description"`
	Toolkit          toolkitJSON     `json:"toolkit"`
	Input            json.RawMessage `json:"input_parameters"`
	Output           json.RawMessage `json:"output_parameters"`
	NoAuth           bool            `json:"no_auth"`
	Version          string          `json:"version"`
	Versions         []string        `json:"available_versions"`
	Scopes           []string        `json:"scopes"`
	ScopeNeeds       any             `json:"scope_requirements"`
	Tags             []string        `json:"tags"`
	IsDeprecated     bool            `json:"is_deprecated"`
	Deprecated       deprecatedJSON  `json:"deprecated"`
}

type toolkitJSON struct {
	Slug string `json:"slug,omitempty"`
	Name string `json:"name,omitempty"`
	Logo string `json:"logo"`
}

type deprecatedJSON struct {
	DisplayName  string      `json:"displayName"`
	Version      string      `json:"version"`
	Versions     []string    `json:"available_versions"`
	IsDeprecated bool        `json:"is_deprecated"`
	Toolkit      toolkitJSON `json:"toolkit"`
}

// describe returns the description of what the agent may call, nil for the
// rest.
func (a *agent) describe(slug string) *toolJSON {
	var t composio.Tool
	schema := multiSchema
	if granted := a.tools[slug]; granted != nil {
		t, schema = granted.Tool, granted.schema
		t.Version = granted.Grant.Version
	} else if slug == multiExecute && a.MultiExecute {
		t = composio.Tool{Slug: slug, Name: "Execute several tools", Description: multiDescription, Toolkit: "composio", Version: multiVersion, Tags: []string{}, NoAuth: true}
	} else {
		return nil
	}
	versions := []string{t.Version}
	return &toolJSON{
		Slug: t.Slug, Name: t.Name, Description: t.Description, HumanDescription: t.Description,
		Toolkit: toolkitJSON{Slug: t.Toolkit, Name: t.Toolkit}, Input: schema, Output: json.RawMessage(`{}`),
		NoAuth: t.NoAuth, Version: t.Version, Versions: versions, Scopes: append([]string{}, t.Scopes...), Tags: append([]string{}, t.Tags...),
		IsDeprecated: t.Deprecated,
		Deprecated:   deprecatedJSON{DisplayName: t.Name, Version: t.Version, Versions: versions, IsDeprecated: t.Deprecated},
	}
}

// What may be asked of a list. Those marked false are taken and do nothing:
// they choose among tools of which the agent sees few anyway, all at the
// version that is pinned.
var listParameters = map[string]bool{
	"toolkit_slug": true, "tool_slugs": true, "tags": true, "query": true, "search": true, "limit": true, "cursor": true,
	"important": false, "scopes": false, "include_deprecated": false, "toolkit_versions": false,
}

const maxPage = 1000

func (g *Gateway) listTools(w http.ResponseWriter, r *http.Request, rq *request) *denial {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return deny(ReasonRequest, "the query cannot be read")
	}
	for name := range q {
		plain, _, _ := strings.Cut(name, "[")
		if _, ok := listParameters[plain]; !ok {
			return deny(ReasonRequest, "nothing is known by the name of query parameter %s", quote(name))
		}
	}
	list := func(name string) []string {
		var all []string
		for _, v := range q[name] {
			all = append(all, strings.FieldsFunc(v, func(r rune) bool { return r == ',' })...)
		}
		return all
	}
	slugs, toolkits, tags := list("tool_slugs"), list("toolkit_slug"), list("tags")
	words := strings.ToLower(cmp.Or(q.Get("query"), q.Get("search")))
	found := []*toolJSON{}
	for _, slug := range rq.agent.offered() {
		t := rq.agent.describe(slug)
		switch {
		case slugs != nil && !slices.Contains(slugs, t.Slug):
		case slugs == nil && toolkits != nil && !slices.ContainsFunc(toolkits, func(s string) bool { return strings.EqualFold(s, t.Toolkit.Slug) }):
		case slugs == nil && slices.ContainsFunc(tags, func(s string) bool { return !slices.Contains(t.Tags, s) }):
		case slugs == nil && !strings.Contains(strings.ToLower(t.Slug+" "+t.Name+" "+t.Description), words):
		default:
			found = append(found, t)
		}
	}
	limit, err := strconv.Atoi(cmp.Or(q.Get("limit"), strconv.Itoa(maxPage)))
	if err != nil || limit < 1 {
		return deny(ReasonRequest, "the limit is not a number")
	}
	limit = min(limit, maxPage)
	from, err := strconv.Atoi(cmp.Or(q.Get("cursor"), "0"))
	if err != nil || from < 0 || from > len(found) {
		return deny(ReasonRequest, "the cursor is not one of this gateway's")
	}
	to := min(from+limit, len(found))
	page := struct {
		Items       []*toolJSON `json:"items"`
		NextCursor  *string     `json:"next_cursor"`
		TotalPages  int         `json:"total_pages"`
		CurrentPage int         `json:"current_page"`
		TotalItems  int         `json:"total_items"`
	}{Items: found[from:to], TotalPages: (len(found) + limit - 1) / limit, CurrentPage: from/limit + 1, TotalItems: len(found)}
	if to < len(found) {
		next := strconv.Itoa(to)
		page.NextCursor = &next
	}
	reply(w, http.StatusOK, page)
	return nil
}

func (g *Gateway) getTool(w http.ResponseWriter, r *http.Request, rq *request, slug string) *denial {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return deny(ReasonRequest, "the query cannot be read")
	}
	t := rq.agent.describe(slug)
	if t == nil {
		return deny(ReasonTool, "the agent may not use tool %s", quote(slug))
	}
	for name, values := range q {
		plain, _, _ := strings.Cut(name, "[")
		switch plain {
		case "toolkit_versions": // what is pinned holds
		case "version":
			if len(values) != 1 || values[0] != t.Version && values[0] != "" {
				return deny(ReasonVersion, "the agent may use %s at version %s alone", slug, t.Version)
			}
		default:
			return deny(ReasonRequest, "nothing is known by the name of query parameter %s", quote(name))
		}
	}
	reply(w, http.StatusOK, t)
	return nil
}

// What the API takes with an execution and no agent may send, and why.
var forbiddenMembers = map[string]string{
	"text":                   "a model at Composio would make up the arguments after they were judged: send arguments",
	"custom_auth_params":     "an agent brings no credentials of its own",
	"custom_connection_data": "an agent brings no credentials of its own",
	"entity_id":              "it would choose another user",
	"allow_tracing":          "an agent does not decide what is traced",
}

// decodeExecute reads the body of an execution.
func decodeExecute(slug string, body []byte) (ask, *denial) {
	v, err := parseJSON(body)
	if err != nil {
		return ask{}, deny(ReasonRequest, "the body is not what it must be: %v", err)
	}
	if _, ok := v.(map[string]any); !ok {
		return ask{}, deny(ReasonRequest, "the body is not an object")
	}
	r := newReader(v, "")
	q := ask{slug: slug, versioned: true}
	for name, why := range forbiddenMembers {
		if _, ok := r.take(name); ok {
			return q, deny(ReasonRequest, "%s is not allowed: %s", name, why)
		}
	}
	q.userID, q.accountID, q.version = r.text("user_id"), r.text("connected_account_id"), r.text("version")
	if v, ok := r.take("arguments"); ok {
		q.arguments = r.object(v, "arguments")
	}
	r.done("user_id, connected_account_id, version and arguments")
	if *r.err != nil {
		return q, deny(ReasonRequest, "%v", *r.err)
	}
	return q, nil
}

func (g *Gateway) executeTool(w http.ResponseWriter, r *http.Request, rq *request, slug string) *denial {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return deny(ReasonRequest, "an execution has no query")
	}
	if len(r.Header.Values("X-Llm-Gateway-Headers")) > 0 {
		return deny(ReasonRequest, "headers for models at Composio are not passed on")
	}
	body, d := g.readBody(w, r)
	if d != nil {
		return d
	}
	q, d := decodeExecute(slug, body)
	if d != nil {
		return g.refuse(r.Context(), rq, []ask{{slug: slug}}, nil, d).recorded()
	}
	result, d := g.perform(r.Context(), rq, q)
	if d != nil {
		return d.recorded()
	}
	if result.err == nil {
		reply(w, http.StatusOK, newAnswer(result))
	} else {
		g.replyDenial(w, rq, failure(result.err))
	}
	return nil
}

// failure is what the agent is told of a call that was let through and of which
// there is no result. The status is one that clients do not repeat a request
// for: it may have been executed.
func failure(err error) *denial {
	if d, ok := errors.AsType[*denial](err); ok {
		return d
	}
	const unknown = "whether the tool was executed is not known: do not repeat it, look first"
	d := &denial{reason: ReasonUpstream, message: unknown, status: http.StatusFailedDependency}
	api, ok := errors.AsType[*composio.APIError](err)
	switch {
	case ok && api.Status == http.StatusTooManyRequests:
		d.message, d.status, d.after = "Composio takes no more calls at the moment", api.Status, max(api.RetryAfter, time.Second)
	case ok && (api.Status == http.StatusUnauthorized || api.Status == http.StatusForbidden):
		// The gateway's credential, not the agent's.
		d.message = "Composio does not let the gateway do this: " + api.Slug
	case ok && api.Status == http.StatusConflict:
		d.message = "Composio refused the call: " + api.Slug
	case ok && api.Status >= 400 && api.Status < 500:
		d.message, d.status = "Composio refused the call: "+api.Slug, api.Status
	}
	return d
}
