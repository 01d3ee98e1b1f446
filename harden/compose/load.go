package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"github.com/managemyclaw/hardshell/harden/host"
)

// Limits on what is read. A compose file beyond them is refused.
const (
	maxFile  = 4 << 20 // bytes
	maxNodes = 50_000  // YAML nodes, with every alias expanded
)

// ErrInvalid reports a file that is not a compose file that this package
// reads.
var ErrInvalid = errors.New("compose: not a valid compose file")

// Options say what to load. The zero Options names no file and gives access to
// none.
type Options struct {
	// Files are the absolute paths of the compose file and of the files that
	// override it, in order.
	Files []string

	// FS is the file tree rooted at "/", as in [host.View]. If it can read
	// symbolic links, the sources of mounts are resolved through it.
	FS fs.FS

	// Local says that FS is the file tree of this computer. Files that a
	// compose file pulls in by include or by extends from another file are
	// read from this computer; without Local they are refused with an error
	// wrapping [errors.ErrUnsupported].
	Local bool

	// WorkingDir is the project directory. Empty means that of the first
	// file.
	WorkingDir string

	// Env is the environment for interpolation. The environment of the
	// process is never read.
	Env map[string]string

	// EnvFiles are read for variables that Env does not have. Nil means .env
	// in WorkingDir if there is one.
	EnvFiles []string

	// Profiles selects services as "docker compose --profile" does. Nil
	// means every service, whatever its profiles: what may be started is
	// judged.
	Profiles []string

	// ImageUsers says as what user an image runs, by the reference used in
	// the file, such as "ghcr.io/openclaw/openclaw:latest": "1000:1000". A
	// service that sets no user, and whose image is not listed, is unknown.
	ImageUsers map[string]string

	// BindTo are addresses, beside loopback, on which ports may be
	// published, such as that of the tailnet.
	BindTo []netip.Prefix
}

// A Project is a loaded compose project. It is safe for concurrent use.
type Project struct {
	services []Service
}

// Services returns what the project declares about each service, in order of
// their names. Jobs and the init containers of services are among them. The
// result is shared and must not be changed.
func (p *Project) Services() []Service { return p.services }

// Load loads a project. Errors wrap [ErrInvalid], an error of package io/fs,
// [errors.ErrUnsupported] or the error of ctx, and quote nothing from the
// files but the names of their keys.
func Load(ctx context.Context, o Options) (*Project, error) { return load(ctx, o, nil) }

// load loads a project in which the first file, if data is not nil, has other
// contents.
func load(ctx context.Context, o Options, data []byte) (*Project, error) {
	if len(o.Files) == 0 {
		return nil, fmt.Errorf("compose: no file to load: %w", fs.ErrInvalid)
	}
	tree := &host.View{FS: o.FS}
	in := input{dir: o.dir(), profiles: o.Profiles, local: o.Local}
	var err error
	if in.env, err = o.environment(tree); err != nil {
		return nil, err
	}
	for i, name := range o.Files {
		contents := data
		if i > 0 || data == nil {
			var err error
			if contents, err = tree.ReadFile(name); err != nil {
				return nil, fmt.Errorf("compose: %w", err)
			}
		}
		in.files = append(in.files, file{name, contents})
	}
	project, err := in.load(ctx)
	if err != nil {
		return nil, err
	}
	f := facts{in: &in, tree: tree, options: o, project: project}
	return &Project{services: f.services()}, nil
}

func (o Options) dir() string {
	if o.WorkingDir == "" && len(o.Files) > 0 {
		return path.Dir(o.Files[0])
	}
	return o.WorkingDir
}

// environment returns Env with what the env files add to it.
func (o Options) environment(tree *host.View) (map[string]string, error) {
	files, optional := o.EnvFiles, false
	if files == nil {
		files, optional = []string{path.Join(o.dir(), ".env")}, true
	}
	env := make(map[string]string)
	lookup := func(k string) (string, bool) {
		if v, ok := o.Env[k]; ok {
			return v, true
		}
		v, ok := env[k]
		return v, ok
	}
	for _, name := range files {
		data, err := tree.ReadFile(name)
		if optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("compose: %w", err)
		}
		vars, err := dotenv.ParseWithLookup(bytes.NewReader(data), lookup)
		if err != nil { // its text quotes the file
			return nil, fmt.Errorf("%w: %s is not an env file", ErrInvalid, name)
		}
		maps.Copy(env, vars)
	}
	maps.Copy(env, o.Env)
	return env, nil
}

type file struct {
	name string
	data []byte
}

// input is what compose-go is given to load.
type input struct {
	files    []file
	dir      string
	env      map[string]string
	profiles []string
	local    bool

	// alone loads the one file without what it pulls in from others.
	alone bool
}

func (in *input) load(ctx context.Context) (p *types.Project, err error) {
	defer func() {
		if r := recover(); r != nil { // the value may quote the file
			p, err = nil, fmt.Errorf("%w: %s: the loader panicked", ErrInvalid, in.files[0].name)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("compose: load: %w", err)
	}
	details := types.ConfigDetails{WorkingDir: in.dir, Environment: maps.Clone(in.env)}
	includes := false
	for _, f := range in.files {
		docs, err := parse(f)
		if err != nil {
			return nil, err
		}
		data, root := f.data, docs[0]
		includes = includes || child(root.Content[0], "include") != nil
		if in.alone {
			if data, err = detach(data, root); err != nil {
				return nil, err
			}
		}
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{
			Filename: f.name, Content: quietVersion(data, root),
		})
	}
	profiles := in.profiles
	if profiles == nil {
		profiles = []string{"*"}
	}
	p, err = loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName(projectName(in.dir), false)
		o.Profiles = profiles
		o.ResolvePaths = false // by the facts: the loader's way reads the environment
		o.SkipResolveEnvironment = true
		o.SkipResolveLabels = true
		o.MaxNodeVisits = maxNodes
		o.SkipInclude = in.alone
		o.SkipConsistencyCheck = in.alone && includes // what it refers to is elsewhere
		o.Interpolate.Substitute = substitute
		if !in.local {
			o.ResourceLoaders = []loader.ResourceLoader{refuse{}}
		}
	})
	if err != nil {
		return nil, in.explain(ctx, err)
	}
	return p, nil
}

// substitute interpolates without the loader's habit of logging.
func substitute(s string, m template.Mapping) (string, error) {
	return template.SubstituteWithOptions(s, m, template.WithoutLogging)
}

func projectName(dir string) string {
	if name := loader.NormalizeProjectName(path.Base(dir)); name != "" {
		return name
	}
	return "project"
}

var errOtherFile = fmt.Errorf("it pulls in another file, which can only be read on this computer: %w", errors.ErrUnsupported)

// refuse keeps the loader from opening files.
type refuse struct{}

func (refuse) Accept(string) bool                           { return true }
func (refuse) Load(context.Context, string) (string, error) { return "", errOtherFile }
func (refuse) Dir(p string) string                          { return path.Dir(p) }

// parse returns the documents of a file. Shapes that the loader has no use for
// and anything beyond the limits are refused here, before the loader spends
// time on them.
func parse(f file) ([]*yaml.Node, error) {
	bad := func(why string) ([]*yaml.Node, error) {
		return nil, fmt.Errorf("%w: %s: %s", ErrInvalid, f.name, why)
	}
	if len(f.data) > maxFile {
		return bad(fmt.Sprintf("larger than %d bytes", maxFile))
	}
	if !utf8.Valid(f.data) {
		return bad("not UTF-8")
	}
	var docs []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(f.data)); ; {
		root := new(yaml.Node)
		err := dec.Decode(root)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bad("not YAML" + lineOf(err))
		}
		if len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
			return bad("not a mapping")
		}
		if weigh(root, make(map[*yaml.Node]int)) > maxNodes {
			return bad(fmt.Sprintf("more than %d values once its aliases are expanded", maxNodes))
		}
		docs = append(docs, root)
	}
	if len(docs) == 0 {
		return bad("empty")
	}
	return docs, nil
}

// weigh counts the nodes under n with aliases expanded, in time proportional
// to the nodes that are written down. A node inside itself weighs too much.
func weigh(n *yaml.Node, known map[*yaml.Node]int) int {
	if w, ok := known[n]; ok {
		return w
	}
	known[n] = maxNodes + 1 // while it is open
	w := 1
	if n.Kind == yaml.AliasNode {
		w += weigh(n.Alias, known)
	}
	for _, c := range n.Content {
		w = min(w+weigh(c, known), maxNodes+1)
	}
	known[n] = w
	return w
}

// quietVersion renames the obsolete key "version", about which the loader
// prints a warning, to one that it ignores. Positions on other lines stay.
func quietVersion(data []byte, root *yaml.Node) []byte {
	d := &document{src: data, root: root}
	m := root.Content[0]
	for i := 0; i+1 < len(m.Content); i += 2 {
		k := m.Content[i]
		if k.Value != "version" || k.Style != 0 {
			continue
		}
		at, err := d.offset(k)
		if err != nil || !bytes.HasPrefix(data[at:], []byte("version")) {
			continue
		}
		return slices.Concat(data[:at], []byte("x-"), data[at:])
	}
	return data
}

// detach takes out of a document what it inherits from other files.
func detach(data []byte, root *yaml.Node) ([]byte, error) {
	changed := false
	services := child(root.Content[0], "services")
	if services == nil || services.Kind != yaml.MappingNode {
		return data, nil
	}
	for i := 1; i < len(services.Content); i += 2 {
		s := services.Content[i]
		if fileOfExtends(s) == "" {
			continue
		}
		s = target(s)
		for k := 0; k+1 < len(s.Content); k += 2 {
			if s.Content[k].Value == "extends" {
				s.Content = slices.Delete(s.Content, k, k+2)
				changed = true
				break
			}
		}
	}
	if !changed {
		return data, nil
	}
	out, err := yaml.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot be written again", ErrInvalid)
	}
	// The nodes no longer fit their positions.
	var fresh yaml.Node
	if err := yaml.Unmarshal(out, &fresh); err != nil {
		return nil, fmt.Errorf("%w: cannot be written again", ErrInvalid)
	}
	*root = fresh
	return out, nil
}

// fileOfExtends returns the file from which a service extends another.
func fileOfExtends(service *yaml.Node) string {
	if e := child(target(service), "extends"); e != nil {
		if f := target(child(target(e), "file")); f != nil {
			return f.Value
		}
	}
	return ""
}

var (
	linePattern = regexp.MustCompile(`\bline (\d{1,9})\b`)
	pathPattern = regexp.MustCompile(`\b(services|volumes|networks|secrets|configs|jobs|include)(\.[A-Za-z0-9_-]+)*`)
)

func lineOf(err error) string {
	if m := linePattern.FindStringSubmatch(err.Error()); m != nil {
		return " (line " + m[1] + ")"
	}
	return ""
}

// explain turns an error of the loader, whose text may quote any value of the
// file or of the environment, into one that quotes none.
func (in *input) explain(ctx context.Context, err error) error {
	name := in.files[0].name
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("compose: load %s: %w", name, cause)
	}
	for _, cause := range []error{errOtherFile, fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(err, cause) {
			return fmt.Errorf("%w: %s: %w", ErrInvalid, name, cause)
		}
	}
	where := lineOf(err)
	if p := in.knownKeys(pathPattern.FindString(err.Error())); p != "" {
		where += " at " + p
	}
	if where == "" {
		where = " (see docker compose config)"
	}
	return fmt.Errorf("%w: %s:%s", ErrInvalid, name, where)
}

// knownKeys returns as much of a dotted path as consists of keys of the files:
// the rest may be part of a value.
func (in *input) knownKeys(dotted string) string {
	best := 0
	parts := strings.Split(dotted, ".")
	for _, f := range in.files {
		docs, err := parse(f)
		if err != nil {
			continue
		}
		for _, d := range docs {
			n, depth := d.Content[0], 0
			for _, p := range parts {
				if n = child(target(n), p); n == nil {
					break
				}
				depth++
			}
			best = max(best, depth)
		}
	}
	return strings.Join(parts[:best], ".")
}

// child returns the value of a key that a mapping has itself.
func child(m *yaml.Node, key string) *yaml.Node {
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key && m.Content[i].Kind == yaml.ScalarNode {
			return m.Content[i+1]
		}
	}
	return nil
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}
