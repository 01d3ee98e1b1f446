package composio

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A Tool is something that an account can be used for.
type Tool struct {
	Slug        string
	Name        string
	Description string
	Toolkit     string
	Version     string
	Versions    []string // that can be asked for
	Tags        []string // as the API has them; see [Tool.Class]
	Scopes      []string
	NoAuth      bool
	Deprecated  bool

	// Input is the JSON schema of the arguments.
	Input Data
}

// A Class says what a tool may do, by the worst of its tags.
type Class int

// Classes, the more dangerous the higher. Zero is a tool of which the API says
// nothing that could be relied on.
const (
	ClassUnknown     Class = iota
	ClassRead              // readOnlyHint
	ClassCreate            // createHint
	ClassUpdate            // updateHint
	ClassDestructive       // destructiveHint
)

// String returns the name of the class, such as "destructive".
func (c Class) String() string {
	if c < 0 || int(c) >= len(classes) {
		return "unknown"
	}
	return classes[c]
}

var classes = []string{"unknown", "read", "create", "update", "destructive"}

// MarshalText returns the name of the class.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Class returns the worst class that the tool's tags name. Names of tools are
// no help: those that create are called "check", and those that delete "send".
func (t Tool) Class() Class {
	worst := ClassUnknown
	for _, tag := range t.Tags {
		switch tag {
		case "readOnlyHint":
			worst = max(worst, ClassRead)
		case "createHint":
			worst = max(worst, ClassCreate)
		case "updateHint":
			worst = max(worst, ClassUpdate)
		case "destructiveHint":
			worst = max(worst, ClassDestructive)
		}
	}
	return worst
}

type toolWire struct {
	Slug        string `json:"slug"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Toolkit     struct {
		Slug string `json:"slug"`
	} `json:"toolkit"`
	Version    string   `json:"version"`
	Versions   []string `json:"available_versions"`
	Tags       []string `json:"tags"`
	Scopes     []string `json:"scopes"`
	NoAuth     bool     `json:"no_auth"`
	Deprecated bool     `json:"is_deprecated"`
	Input      Data     `json:"input_parameters"`
}

func (w toolWire) tool() Tool {
	return Tool{
		Slug: w.Slug, Name: w.Name, Description: w.Description, Toolkit: w.Toolkit.Slug, Version: w.Version, Versions: w.Versions,
		Tags: w.Tags, Scopes: w.Scopes, NoAuth: w.NoAuth, Deprecated: w.Deprecated, Input: w.Input,
	}
}

// A ToolFilter selects tools. A nil list does not filter; an empty one that is
// not nil is refused.
type ToolFilter struct {
	Slugs   []string // overrides the rest
	Toolkit string
	Tags    []string // each of them; what the API returns is held against it
}

// Tools lists the tools that f selects, at their latest version: sessions
// enforce the tags of that one.
func (c *Client) Tools(ctx context.Context, f ToolFilter) iter.Seq2[Tool, error] {
	q := newFilter(200).in("tool_slugs", f.Slugs).in("tags", f.Tags)
	if f.Toolkit != "" {
		q.in("toolkit_slug", []string{f.Toolkit})
	}
	if q.err != nil {
		return fail[Tool](q.err)
	}
	q.query.Set("toolkit_versions", "latest")
	return c.tools(ctx, "tools", q, []string{"tools"}, f.check)
}

func (f ToolFilter) check(t Tool) error {
	if f.Slugs != nil {
		return anyCase("tool", t.Slug, "slug", t.Slug, f.Slugs)
	}
	if f.Toolkit != "" && !strings.EqualFold(t.Toolkit, f.Toolkit) {
		return fmt.Errorf("%w: tool %q is of toolkit %q", ErrForeignRow, t.Slug, t.Toolkit)
	}
	for _, tag := range f.Tags {
		if !slices.Contains(t.Tags, tag) {
			return fmt.Errorf("%w: tool %q does not have tag %q", ErrForeignRow, t.Slug, tag)
		}
	}
	return nil
}

func (c *Client) tools(ctx context.Context, what string, q *filter, path []string, check func(Tool) error) iter.Seq2[Tool, error] {
	return listing[toolWire, Tool]{
		what: what,
		fetch: func(ctx context.Context, cursor string) (p page[toolWire], err error) {
			_, err = c.do(ctx, request{op: "list " + what, method: http.MethodGet, path: path, query: q.with("cursor", cursor), repeat: always}, &p)
			return p, err
		},
		row:   toolWire.tool,
		id:    func(t Tool) string { return t.Slug },
		check: check,
	}.all(ctx)
}

// Tool returns a tool at a version, or at the latest if version is empty.
func (c *Client) Tool(ctx context.Context, slug, version string) (Tool, error) {
	if err := checkSlug(slug); err != nil {
		return Tool{}, err
	}
	q := url.Values{}
	if version != "" {
		q.Set("version", version)
	}
	var w toolWire
	r := request{op: "get tool " + slug, method: http.MethodGet, path: []string{"tools", slug}, query: q, repeat: always}
	if _, err := c.do(ctx, r, &w); err != nil {
		return Tool{}, err
	}
	if w.Slug != slug || version != "" && version != "latest" && w.Version != version {
		return Tool{}, fmt.Errorf("composio: %s: %w: it is about another tool or version", r.op, ErrAnswer)
	}
	return w.tool(), nil
}

// A Call is one execution of a tool. What the API offers beside it, such as
// arguments that a model makes up from a text, or credentials of the caller's,
// has no place here: policy could not be decided on it.
type Call struct {
	Tool      string // required: the slug
	Version   string // required: pinned, never "latest"
	UserID    string // required
	AccountID string // empty means the user's account that was connected last
	Arguments Data   // a JSON object; none means an empty one
}

// A Result is what came of a [Call] that the API carried out.
type Result struct {
	Successful bool
	Output     Data
	Failure    Secret // the tool's own text if it was not successful
	LogID      string // joins the call with Composio's execution log
}

// Execute executes a tool. It is sent once, whatever happens: after an error
// that is not an [*APIError] it may have been executed. A tool that fails is no
// error but a Result that is not successful.
func (c *Client) Execute(ctx context.Context, call Call) (Result, error) {
	if err := checkSlug(call.Tool); err != nil {
		return Result{}, err
	}
	switch {
	case call.Version == "" || strings.EqualFold(call.Version, "latest"):
		return Result{}, fmt.Errorf("composio: execute %s: Version is not pinned: what runs could change after it was allowed", call.Tool)
	case call.UserID == "":
		return Result{}, fmt.Errorf("composio: execute %s: UserID is empty", call.Tool)
	}
	args := call.Arguments.bytes()
	if args == nil {
		args = []byte("{}")
	}
	if args[0] != '{' {
		return Result{}, fmt.Errorf("composio: execute %s: Arguments is not a JSON object", call.Tool)
	}
	body := struct {
		UserID    string  `json:"user_id"`
		AccountID string  `json:"connected_account_id,omitempty"`
		Version   string  `json:"version"`
		Arguments rawJSON `json:"arguments"`
	}{call.UserID, call.AccountID, call.Version, args}
	var w struct {
		Successful *bool  `json:"successful"`
		Data       Data   `json:"data"`
		Error      any    `json:"error"`
		LogID      string `json:"log_id"`
	}
	r := request{op: "execute " + call.Tool, method: http.MethodPost, path: []string{"tools", "execute", call.Tool}, body: body}
	if _, err := c.do(ctx, r, &w); err != nil {
		return Result{}, err
	}
	if w.Successful == nil {
		return Result{}, fmt.Errorf("composio: %s: %w: it does not say whether the tool was successful", r.op, ErrAnswer)
	}
	res := Result{Successful: *w.Successful, Output: w.Data, LogID: identifier(w.LogID)}
	if s, ok := w.Error.(string); ok {
		res.Failure = NewSecret(s)
	}
	return res, nil
}

// rawJSON is JSON that is sent as it is.
type rawJSON []byte

func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }
