package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden/access/internal/json5"
)

// OpenClaw is what OpenClaw's configuration says of credentials and of
// Composio. It holds no credential.
type OpenClaw struct {
	Files       []string // that were read, those that are included too
	Servers     []Server // of Composio's tools
	Credentials []Credential
	Leaks       []Leak // in the files' text, comments included
	Unread      []Unread
}

// A Server is an entry of the configuration that leads to Composio's tools: the
// entry of Composio's own plugin, or one of the MCP servers.
type Server struct {
	File string
	Line int
	Path string // such as "mcp.servers.composio"
	Host string // of its URL; empty if the entry has none
	// Gateway says that its URL is the gateway's.
	Gateway bool
}

// A Credential is a setting that takes a credential, and has one.
type Credential struct {
	File string
	Line int
	Path string // such as "mcp.servers.composio.headers.x-consumer-api-key"

	// Source says where the credential is.
	Source CredentialSource
	// From names the variable or the reference's kind; it is empty for a
	// literal.
	From string
	// Composio says that it belongs to a [Server].
	Composio bool
}

// A CredentialSource says where a credential of a setting is.
type CredentialSource int

// Sources.
const (
	FromLiteral     CredentialSource = iota + 1 // in the file
	FromEnvironment                             // in a variable that a process has
	FromNowhere                                 // in a variable that no process has
	FromReference                               // where a SecretRef says
	FromGateway                                 // it is the agent's token, in the file or a variable
)

// maxIncludes bounds how many files a configuration may include.
const maxIncludes = 32

// stateDirs returns where OpenClaw keeps its configuration in the container.
func (s *survey) stateDirs(root string) []string {
	dirs := slices.Clone(s.cfg.StateDirs)
	for _, env := range s.environ {
		for _, d := range []string{env.values["OPENCLAW_STATE_DIR"], env.values["OPENCLAW_HOME"]} {
			if path.IsAbs(d) {
				dirs = append(dirs, d, path.Join(d, ".openclaw"))
			}
		}
		if h := env.values["HOME"]; path.IsAbs(h) {
			dirs = append(dirs, path.Join(h, ".openclaw"))
			if p := env.values["OPENCLAW_PROFILE"]; p != "" && !strings.Contains(p, "/") {
				dirs = append(dirs, path.Join(h, ".openclaw-"+p))
			}
		}
	}
	return s.resolved(root, dirs)
}

// settings reads OpenClaw's configuration.
func (s *survey) settings(ctx context.Context) {
	root := strings.TrimSuffix(s.agent.Container.Kernel.Trees[0].Source, "/mountinfo") + "/root"
	type file struct {
		name     string
		included bool
	}
	var queue []file
	for _, d := range s.stateDirs(root) {
		queue = append(queue, file{name: path.Join(d, "openclaw.json")})
	}
	for _, env := range s.environ {
		if p := env.values["OPENCLAW_CONFIG_PATH"]; path.IsAbs(p) {
			queue = append(queue, file{name: path.Clean(p)})
		}
	}
	o := new(OpenClaw)
	s.agent.Settings = o
	for i := 0; i < len(queue); i++ {
		f := queue[i]
		if slices.ContainsFunc(queue[:i], func(other file) bool { return other.name == f.name }) {
			continue
		}
		if i >= maxIncludes {
			o.Unread = append(o.Unread, s.gap(InFile, f.name, fmt.Errorf("more than %d files belong to the configuration", maxIncludes)))
			break
		}
		more, err := s.configuration(ctx, root, f.name)
		if err != nil && (f.included || !gone(err)) {
			o.Unread = append(o.Unread, s.gap(InFile, f.name, err))
		}
		for _, name := range more {
			queue = append(queue, file{name, true})
		}
	}
	if len(o.Files) == 0 && len(o.Unread) == 0 {
		s.agent.Settings = nil
	}
}

// configuration reads one file and returns those that it includes.
func (s *survey) configuration(ctx context.Context, root, name string) (included []string, err error) {
	found, _, err := inRoot(s.view, root, name)
	if err != nil {
		return nil, err
	}
	data, err := s.read(ctx, path.Join(root, found))
	if err != nil {
		return nil, err
	}
	o := s.agent.Settings
	shown := s.shown(found)
	if slices.Contains(o.Files, shown) {
		return nil, nil
	}
	o.Files = append(o.Files, shown)
	matches, err := s.scan.scan(ctx, slices.Clone(data))
	if err != nil {
		return nil, err
	}
	for _, m := range matches {
		o.Leaks = append(o.Leaks, Leak{Kind: InFile, Rule: m.Rule, Place: shown, Line: lineAt(data, m.Start), At: int64(m.Start), Mark: s.scan.mark(data[m.Start:m.End])})
	}
	doc, err := json5.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("it is not JSON5: %w", err)
	}
	r := configReader{survey: s, ctx: ctx, file: shown, dir: path.Dir(found)}
	r.value(doc, nil, false)
	return r.included, r.err
}

// A configReader goes through one file.
type configReader struct {
	*survey
	ctx      context.Context
	file     string
	dir      string
	included []string
	err      error
}

func (r *configReader) value(v json5.Value, at []string, ofComposio bool) {
	if isServer(at) && r.leadsToComposio(v, at) {
		ofComposio = true
		r.server(v, at)
	}
	switch v.Kind {
	case json5.Object:
		if source, ok := v.Get("source"); ok && isSecretRef(v) && takesCredential(at) {
			r.reference(v, source.Text, at, ofComposio)
			return
		}
		for _, m := range v.Members {
			if m.Name == "$include" {
				r.include(m.Value)
				continue
			}
			r.value(m.Value, append(slices.Clip(at), m.Name), ofComposio)
		}
	case json5.Array:
		for _, item := range v.Items {
			r.value(item, append(slices.Clip(at), "[]"), ofComposio)
		}
	case json5.String, json5.Number:
		r.text(v, at, ofComposio)
	}
}

func (r *configReader) include(v json5.Value) {
	for _, f := range append(slices.Clone(v.Items), v) {
		if f.Kind != json5.String {
			continue
		}
		name := f.Text
		if !path.IsAbs(name) {
			name = path.Join(r.dir, name)
		}
		r.included = append(r.included, name)
	}
}

// isServer reports whether a path is that of an entry which may lead to tools.
func isServer(at []string) bool {
	return len(at) == 3 && (at[0] == "mcp" && at[1] == "servers" || at[0] == "plugins" && at[1] == "entries")
}

func (r *configReader) leadsToComposio(v json5.Value, at []string) bool {
	if v.Kind != json5.Object {
		return false
	}
	if strings.Contains(strings.ToLower(at[2]), "composio") {
		return true
	}
	found := false
	eachText(v, func(name, text string) {
		lower := strings.ToLower(text)
		found = found || strings.Contains(lower, "composio") || strings.EqualFold(name, "x-consumer-api-key")
		for _, h := range hostsIn(r.expand(text)) {
			found = found || r.isGateway(h)
		}
	})
	return found
}

func eachText(v json5.Value, f func(name, text string)) {
	for _, m := range v.Members {
		if m.Value.Kind == json5.String {
			f(m.Name, m.Value.Text)
		}
		eachText(m.Value, f)
	}
	for _, i := range v.Items {
		if i.Kind == json5.String {
			f("", i.Text)
		}
		eachText(i, f)
	}
}

// server notes an entry that leads to Composio's tools.
func (r *configReader) server(v json5.Value, at []string) {
	entry := Server{File: r.file, Line: v.Line, Path: r.shown(strings.Join(at, "."))}
	located := false
	eachText(v, func(_, text string) {
		for _, h := range hostsIn(r.expand(text)) {
			located = true
			e := entry
			e.Host, e.Gateway = r.shown(h), r.isGateway(h)
			r.agent.Settings.Servers = append(r.agent.Settings.Servers, e)
			r.agent.Ways = append(r.agent.Ways, Way{Place: fmt.Sprintf("%s:%d %s", r.file, v.Line, e.Path), Host: e.Host, Gateway: e.Gateway})
		}
	})
	if !located {
		// Composio's plugin knows where to go by itself.
		r.agent.Settings.Servers = append(r.agent.Settings.Servers, entry)
		if enabled, ok := v.Get("enabled"); !ok || enabled.Text != "false" {
			r.agent.Ways = append(r.agent.Ways, Way{Place: fmt.Sprintf("%s:%d %s", r.file, v.Line, entry.Path), Host: "Composio's own"})
		}
	}
}

func isSecretRef(v json5.Value) bool {
	source, _ := v.Get("source")
	return slices.Contains([]string{"env", "file", "exec", "store"}, source.Text)
}

func (r *configReader) reference(v json5.Value, source string, at []string, ofComposio bool) {
	c := Credential{File: r.file, Line: v.Line, Path: r.shown(strings.Join(at, ".")), Source: FromReference, From: source, Composio: ofComposio}
	if source == "env" {
		id, _ := v.Get("id")
		c.From = r.shown(id.Text)
		c.Source = r.inEnvironment([]string{id.Text})
	}
	r.agent.Settings.Credentials = append(r.agent.Settings.Credentials, c)
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(?::?-[^}]*)?\}`)

// text notes a setting that has a credential, or one that looks like one.
func (r *configReader) text(v json5.Value, at []string, ofComposio bool) {
	if v.Text == "" {
		return
	}
	c := Credential{File: r.file, Line: v.Line, Path: r.shown(strings.Join(at, ".")), Composio: ofComposio}
	var names []string
	for _, m := range variable.FindAllStringSubmatch(v.Text, -1) {
		names = append(names, m[1])
	}
	literal := strings.TrimSpace(variable.ReplaceAllString(v.Text, ""))
	switch {
	case takesCredential(at) && len(names) > 0:
		c.Source, c.From = r.inEnvironment(names), r.shown(strings.Join(names, ", "))
	case takesCredential(at) && r.isToken(v.Text):
		c.Source = FromGateway
	case takesCredential(at) && !isPlaceholder([]byte(v.Text)):
		c.Source = FromLiteral
	default:
		// No name gives it away; what it looks like may, once the escapes
		// are undone, or the variables put in their place.
		text := []byte(literal)
		if ofComposio {
			text = []byte(r.expand(v.Text))
		}
		matches, err := r.scan.scan(r.ctx, text)
		if err != nil {
			r.err = errors.Join(r.err, err)
		}
		if len(matches) == 0 {
			return
		}
		c.Source = FromLiteral
		if ofComposio && len(names) > 0 {
			c.Source, c.From = FromEnvironment, r.shown(strings.Join(names, ", "))
		}
	}
	r.agent.Settings.Credentials = append(r.agent.Settings.Credentials, c)
}

// expand puts the values of variables in their place.
func (r *configReader) expand(text string) string {
	return variable.ReplaceAllStringFunc(text, func(ref string) string {
		name := variable.FindStringSubmatch(ref)[1]
		for _, env := range r.environ {
			if v, ok := env.values[name]; ok {
				return v
			}
		}
		return ref
	})
}

// inEnvironment says what the variables of a credential hold.
func (r *configReader) inEnvironment(names []string) CredentialSource {
	source := FromNowhere
	for _, env := range r.environ {
		for _, name := range names {
			switch v := env.values[name]; {
			case v == "":
			case r.isToken(v):
				if source == FromNowhere {
					source = FromGateway
				}
			default:
				source = FromEnvironment
			}
		}
	}
	return source
}

// isToken reports whether a value is the token that the agent is meant to have.
func (s *survey) isToken(v string) bool {
	if scheme, rest, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "bearer") {
		v = strings.TrimSpace(rest)
	}
	return s.scan.tokens[sha256.Sum256([]byte(v))]
}

// takesCredential reports whether a setting is one that takes a credential, by
// its name.
func takesCredential(at []string) bool {
	for len(at) > 0 && at[len(at)-1] == "[]" {
		at = at[:len(at)-1]
	}
	if len(at) == 0 {
		return false
	}
	name := strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(at[len(at)-1]))
	for _, end := range []string{
		"token", "secret", "password", "passwd", "passphrase", "apikey", "consumerkey", "accesskey", "secretkey", "privatekey",
		"signingkey", "encryptionkey", "authorization", "credential", "credentials", "cookie", "bearer",
	} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

var anyURL = regexp.MustCompile(`(?i)\b(?:https?|wss?)://[^\s"'<>\\]+`)

// hostsIn returns the hosts, with ports, of the URLs in a text.
func hostsIn(text string) []string {
	var all []string
	for _, m := range anyURL.FindAllString(text, -1) {
		if u, err := url.Parse(m); err == nil && u.Host != "" && !slices.Contains(all, u.Host) {
			all = append(all, hostPort(u))
		}
	}
	return all
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if s := strings.ToLower(u.Scheme); s == "https" || s == "wss" {
			port = "443"
		}
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// isGateway reports whether a host and port are the gateway's.
func (s *survey) isGateway(host string) bool {
	if u, err := url.Parse(s.cfg.Gateway.URL); err == nil && u.Host != "" && hostPort(u) == host {
		return true
	}
	return slices.ContainsFunc(s.cfg.Gateway.Aliases, func(a string) bool { return strings.EqualFold(a, host) })
}
