package compose

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/managemyclaw/hardshell/harden/host"
)

// Limits that a service gets which has none and whose needs name none.
const (
	DefaultMemory = 2 << 30 // bytes
	DefaultPids   = 512
)

const tmpfsDefaults = "size=64m,noexec,nosuid,nodev"

// Needs are what a service must keep in order to work. The zero Needs are
// those of a service that writes to /tmp and to its volumes only.
type Needs struct {
	// User is an account of the image that is not root, as "uid:gid". Empty
	// means that it is not known: the user is then left to a person.
	User string

	// Writable are directories in the container whose contents must last.
	// Volumes on them are kept, whatever they are, short of a socket.
	Writable []string

	// Tmpfs are directories in the container that must be writable and need
	// not last. Nil means /tmp.
	Tmpfs []string

	// Env are variables to set where the file does not.
	Env map[string]string

	// Args are arguments of the command to change where they are given, such
	// as "--bind": "lan".
	Args map[string]string

	// Ports are ports of the container that are used from this machine. They
	// are published on loopback if the service loses the host's network.
	Ports []uint16

	// Capabilities are not removed from cap_add.
	Capabilities []string

	// Memory, in bytes, and Pids are the least limits that it can do with.
	Memory int64
	Pids   int64
}

// OpenClawNeeds returns what the official image of OpenClaw needs in order to
// work with a read-only root.
func OpenClawNeeds() Needs {
	const state = "/home/node/.openclaw"
	return Needs{
		User:     "1000:1000",
		Writable: []string{state},
		Env:      map[string]string{"XDG_CACHE_HOME": state + "/cache"},
		Args:     map[string]string{"--bind": "lan"}, // loopback in a container is reached by nobody
		Ports:    []uint16{18789},
		Memory:   1536 << 20,
	}
}

// A Hardening says how to harden a compose file.
type Hardening struct {
	// Services are those to harden. Nil means all of the file.
	Services []string

	// Needs are those of each of them.
	Needs Needs

	// Env is the environment for interpolation, with what .env says.
	Env map[string]string

	// Dir is the project directory, to which paths are relative. Empty means
	// a directory of its own somewhere.
	Dir string

	// FS, which may be nil, is the file tree in which env files and symbolic
	// links are looked up; see [Options.FS].
	FS fs.FS

	// ImageUsers and BindTo are as in [Options].
	ImageUsers map[string]string
	BindTo     []netip.Prefix
}

// A Result is a hardened compose file.
type Result struct {
	Doc     []byte // equal to the original if there was nothing to do
	Changes []Change
	Notes   []string // what a reader of the changes should know
	Manual  []string // what a person must do; with none, every check passes
}

// A Change is one that was made. It shows no value of a variable.
type Change struct {
	Service string
	Key     string
	Summary string // a verb phrase
}

func (c Change) String() string { return c.Service + ": " + c.Summary }

// Harden returns doc, a compose file, changed so that its services pass
// [Checks]. Bytes that need no change stay as they are, comments are kept, and
// a file that is hard already comes back as it is.
//
// Each change is made on its own and kept only if the file still loads and is
// better for it. What remains is in Result.Manual: among others what is
// inherited from another file, and what only somebody who knows the service
// can decide.
//
// The error wraps [ErrInvalid] if doc is no compose file, or the error of ctx.
func Harden(ctx context.Context, doc []byte, h Hardening) (Result, error) {
	w := &worker{ctx: ctx, h: h, doc: doc}
	if w.h.Dir == "" {
		w.h.Dir = "/srv/-/-/-/-/-/-/project"
	}
	if w.h.Needs.Tmpfs == nil {
		w.h.Needs.Tmpfs = []string{"/tmp"}
	}
	all, err := w.now()
	if err != nil {
		return Result{}, err
	}
	names, err := w.order(all)
	if err != nil {
		return Result{}, err
	}
	// Some changes make others possible, so go on until there are none. There
	// is an end to it: each satisfies an objection or a need and raises none.
	fixed := w.res.Manual
	for {
		before := w.doc
		w.res.Manual = slices.Clone(fixed)
		for _, name := range names {
			if err := w.harden(name); err != nil {
				return Result{}, err
			}
		}
		if bytes.Equal(w.doc, before) {
			break
		}
	}
	w.leftovers(names)
	w.res.Doc = w.doc
	return w.res, nil
}

type worker struct {
	ctx  context.Context
	h    Hardening
	doc  []byte
	res  Result
	name string // of the service at hand

	current map[string]Service // what doc declares; nil if not known yet
}

// now returns what the document declares as it is by now.
func (w *worker) now() (map[string]Service, error) {
	if w.current == nil {
		all, err := w.load(w.doc)
		if err != nil {
			return nil, err
		}
		w.current = all
	}
	return w.current, nil
}

func (w *worker) input(doc []byte) *input {
	env := maps.Clone(w.h.Env)
	if env == nil {
		env = make(map[string]string)
	}
	return &input{
		files: []file{{path.Join(w.h.Dir, "compose.yaml"), doc}},
		dir:   w.h.Dir, env: env, alone: true,
	}
}

func (w *worker) load(doc []byte) (map[string]Service, error) {
	in := w.input(doc)
	p, err := in.load(w.ctx)
	if err != nil {
		return nil, err
	}
	f := facts{
		in: in, tree: &host.View{FS: w.h.FS}, project: p,
		options: Options{ImageUsers: w.h.ImageUsers, BindTo: w.h.BindTo},
	}
	all := make(map[string]Service)
	for _, s := range f.services() {
		all[s.Name] = s
	}
	return all, nil
}

// order returns the services to harden, each behind those that it extends.
func (w *worker) order(all map[string]Service) ([]string, error) {
	d, err := newDocument(w.doc)
	if errors.Is(err, errShape) {
		w.manual("the file: it has several documents: make one of them")
		return slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(n string) bool { return !w.selected(n) }), nil
	}
	if err != nil {
		return nil, err
	}
	services := target(child(d.root.Content[0], "services"))
	var names []string
	var visit func(string)
	visit = func(name string) {
		if slices.Contains(names, name) || len(names) > len(all) {
			return
		}
		if s := target(child(services, name)); s != nil {
			base := target(child(s, "extends"))
			if fileOfExtends(s) == "" && base != nil {
				if base.Kind == yaml.MappingNode {
					base = target(child(base, "service"))
				}
				if base != nil && base.Value != name && w.selected(base.Value) && all[base.Value].Name != "" {
					visit(base.Value)
				}
			}
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if services != nil && services.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(services.Content); i += 2 {
			if name := services.Content[i].Value; w.selected(name) && all[name].Name != "" {
				visit(name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) { // jobs, and what is merged into services
		if w.selected(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range w.h.Services {
		if all[name].Name == "" {
			return nil, fmt.Errorf("compose: harden: there is no service %q: %w", name, fs.ErrNotExist)
		}
	}
	if child(d.root.Content[0], "include") != nil {
		w.manual("the file: it includes others: harden them too")
	}
	for _, name := range names {
		if f := fileOfExtends(child(services, name)); f != "" {
			w.manual("%s: it extends a service of %s, which was not looked at: harden that file too", name, f)
		}
	}
	return names, nil
}

func (w *worker) selected(name string) bool {
	return w.h.Services == nil || slices.Contains(w.h.Services, name)
}

func (w *worker) manual(format string, args ...any) {
	if m := fmt.Sprintf(format, args...); !slices.Contains(w.res.Manual, m) {
		w.res.Manual = append(w.res.Manual, m)
	}
}

func (w *worker) note(format string, args ...any) {
	if n := w.name + ": " + fmt.Sprintf(format, args...); !slices.Contains(w.res.Notes, n) {
		w.res.Notes = append(w.res.Notes, n)
	}
}

// leftovers says of each thing that the checks still object to that a person
// must see to it.
func (w *worker) leftovers(names []string) {
	all, err := w.now()
	if err != nil {
		return // cannot be: every change was loaded
	}
	for _, name := range names {
		for _, r := range rules {
			rep := r.run(all[name])
			for _, f := range slices.Concat(rep.findings, rep.unknown) {
				text := name + ": " + f.Message
				if f.Remedy != "" {
					text += ": " + f.Remedy
				}
				w.manual("%s", text)
			}
		}
	}
}

// objections returns how many objections of each kind there are to a service.
func objections(s Service) (count map[string]int, total int) {
	count = make(map[string]int)
	for _, r := range rules {
		rep := r.run(s)
		for _, f := range slices.Concat(rep.findings, rep.unknown) {
			count[f.ID]++
			total++
		}
	}
	return count, total
}

func better(before, after Service) bool { return total(after) < total(before) }

func noWorse(before, after Service) bool { return total(after) <= total(before) }

func total(s Service) int { _, n := objections(s); return n }

// An edit makes splices of the document for the mapping of a service.
type edit func(s *splices, m *yaml.Node) error

// try makes the first of several edits that leads to a file that loads and in
// which good holds for the service. It reports whether there was one.
func (w *worker) try(key, summary string, good func(before, after Service) bool, edits ...edit) bool {
	before, err := w.now()
	if err != nil {
		return false
	}
	for _, e := range edits {
		doc, err := w.edited(e)
		if err != nil || string(doc) == string(w.doc) {
			continue
		}
		after, err := w.load(doc)
		if err != nil || !good(before[w.name], after[w.name]) || w.harms(before, after) {
			continue
		}
		w.noteShared(before, after)
		w.doc, w.current = doc, after
		w.res.Changes = append(w.res.Changes, Change{Service: w.name, Key: key, Summary: summary})
		return true
	}
	return false
}

// harms reports whether an edit of the service at hand loses a service or is
// the worse for another, which may share an anchor with it.
func (w *worker) harms(before, after map[string]Service) bool {
	for name := range before {
		if _, ok := after[name]; !ok || name != w.name && !noWorse(before[name], after[name]) {
			return true
		}
	}
	return len(after) != len(before)
}

// noteShared says which services that were not to be changed are, because they
// share what was.
func (w *worker) noteShared(before, after map[string]Service) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		b, a := before[name], after[name]
		b.argument, a.argument = nil, nil
		if !w.selected(name) && !reflect.DeepEqual(a, b) {
			w.note("%s changes with it, which takes settings from it", name)
		}
	}
}

func (w *worker) edited(e edit) ([]byte, error) {
	d, err := newDocument(w.doc)
	if err != nil {
		return nil, err
	}
	services := child(d.root.Content[0], "services")
	if services == nil || services.Kind != yaml.MappingNode {
		return nil, errShape
	}
	k, m := entry(services, w.name)
	if k == nil {
		return nil, errShape
	}
	s := &splices{document: d}
	if m.Kind == yaml.AliasNode {
		// All of the service is somebody else's: give it a body of its own.
		at, err := s.offset(m)
		if err != nil {
			return nil, err
		}
		if isFlow(services) {
			s.add(at, at+1+len(m.Value), "{<<: *"+m.Value+" }")
		} else {
			keyAt, err := s.offset(k)
			if err != nil {
				return nil, err
			}
			colon, err := s.colon(k)
			if err != nil {
				return nil, err
			}
			comment, err := s.trailing(at + 1 + len(m.Value))
			if err != nil {
				return nil, err
			}
			if comment != "" {
				comment = " " + comment
			}
			s.add(colon, s.lineEnd(at), comment+s.newline()+s.indent(keyAt)+"  <<: *"+m.Value)
		}
		doc, err := s.apply()
		if err != nil {
			return nil, err
		}
		inner := *w
		inner.doc = doc
		return inner.edited(e)
	}
	if m.Kind != yaml.MappingNode {
		return nil, errShape
	}
	if err := e(s, m); err != nil {
		return nil, err
	}
	return s.apply()
}

// fix tries edits until one lessens the objections of a kind and raises no
// others.
func (w *worker) fix(kind, key, summary string, edits ...edit) bool {
	return w.try(key, summary, func(before, after Service) bool {
		b, _ := objections(before)
		a, _ := objections(after)
		return a[kind] < b[kind] && better(before, after)
	}, edits...)
}

// setKey gives a key of a mapping a value, written on one line.
func setKey(key, text string) edit {
	return func(s *splices, m *yaml.Node) error {
		if k, v := entry(m, key); k != nil {
			return s.replace(k, v, isFlow(m), text)
		}
		return s.insert(m, key, text, nil)
	}
}

// dropKey removes a key from a mapping.
func dropKey(key string) edit {
	return func(s *splices, m *yaml.Node) error { return s.remove(m, key) }
}

// off returns the edits that rid a service of a key: away with it, or, where
// the service inherits it, a value that means nothing.
func off(key, neutral string) []edit { return []edit{dropKey(key), setKey(key, neutral)} }

// at applies an edit to a mapping inside of the service.
func at(e edit, keys ...string) edit {
	return func(s *splices, m *yaml.Node) error {
		for _, k := range keys {
			if m = child(m, k); m == nil || m.Kind != yaml.MappingNode {
				return errShape
			}
		}
		return e(s, m)
	}
}

// list edits a list of a service. item returns what is to stand in the place
// of an item, "" for what stands there, and false for it to go; own says that
// the item is written in the service itself and may be edited where it is.
// What a service gets by a merge key or an alias is written into it.
func list(key string, item func(s *splices, n *yaml.Node, own bool) (string, bool, error), add ...string) edit {
	return func(s *splices, m *yaml.Node) error {
		var failed error
		k, v := entry(m, key)
		if k != nil && v.Kind == yaml.SequenceNode {
			return cmp.Or(s.editList(k, v, isFlow(m), func(n *yaml.Node) (string, bool) {
				text, keep, err := item(s, n, n.Kind != yaml.AliasNode)
				failed = cmp.Or(failed, err)
				return text, keep
			}, add), failed)
		}
		from := v
		if k == nil {
			from = merged(m, key)
		}
		var texts []string
		changed := len(add) > 0
		if from = target(from); from != nil {
			items := []*yaml.Node{from}
			if from.Kind == yaml.SequenceNode {
				items = from.Content
			} else if isAbsent(from) || from.Value == "" {
				items = nil
			}
			for _, n := range items {
				text, keep, err := item(s, n, false)
				if err != nil {
					return err
				}
				changed = changed || !keep || text != ""
				if keep && text == "" {
					if text, err = render(n); err != nil {
						return err
					}
				}
				if keep {
					texts = append(texts, text)
				}
			}
		}
		if !changed {
			return nil
		}
		texts = append(texts, add...)
		flow := "[" + strings.Join(texts, ", ") + "]"
		if k != nil {
			return s.replace(k, v, isFlow(m), flow)
		}
		if from != nil {
			return s.insert(m, key, flow, nil)
		}
		lines := make([]string, len(texts))
		for i, t := range texts {
			lines[i] = "- " + t
		}
		return s.insert(m, key, flow, lines)
	}
}

func keepAll(*splices, *yaml.Node, bool) (string, bool, error) { return "", true, nil }

// keepIf returns an item function that keeps the scalars whose value, once
// interpolated, is wanted.
func (w *worker) keepIf(want func(string) bool) func(*splices, *yaml.Node, bool) (string, bool, error) {
	return func(_ *splices, n *yaml.Node, _ bool) (string, bool, error) {
		v, err := w.value(n)
		return "", err == nil && want(v), err
	}
}

// value returns the value of a scalar, interpolated.
func (w *worker) value(n *yaml.Node) (string, error) {
	n = target(n)
	if n.Kind != yaml.ScalarNode {
		return "", errShape
	}
	env := w.h.Env
	v, err := substitute(n.Value, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
	if err != nil {
		return "", errShape
	}
	return v, nil
}

// harden makes the changes for one service.
func (w *worker) harden(name string) error {
	w.name = name
	all, err := w.now()
	if err != nil {
		return err
	}
	s := all[name]
	count, _ := objections(s)
	for _, f := range fixers {
		if slices.ContainsFunc(f.kinds, func(k string) bool { return count[k] > 0 }) {
			f.fix(w, s)
		}
	}
	w.keepWorking()
	return w.ctx.Err()
}

// fixers see to objections. Each leaves alone what it cannot change.
var fixers = []struct {
	kinds []string
	fix   func(*worker, Service)
}{
	{[]string{"compose.non_root.user"}, func(w *worker, _ Service) {
		if u := w.h.Needs.User; u != "" {
			w.fix("compose.non_root.user", "user", "run as "+u, setKey("user", strconv.Quote(u)))
		}
	}},
	{[]string{"compose.non_root.groups"}, func(w *worker, _ Service) {
		e := list("group_add", w.keepIf(func(g string) bool { k := group(g); return k != isRoot && k != isEngine }))
		w.fix("compose.non_root.groups", "group_add", "leave the groups of root and of the engine", e)
	}},
	{[]string{"compose.capabilities.privileged"}, func(w *worker, _ Service) {
		w.fix("compose.capabilities.privileged", "privileged", "take its privileges", off("privileged", "false")...)
	}},
	{[]string{"compose.capabilities.drop"}, func(w *worker, _ Service) {
		none := func(*splices, *yaml.Node, bool) (string, bool, error) { return "", false, nil }
		w.fix("compose.capabilities.drop", "cap_drop", "drop all capabilities", list("cap_drop", none, "ALL"))
	}},
	{[]string{"compose.capabilities.add"}, func(w *worker, s Service) {
		needed := func(c string) bool {
			c = strings.TrimPrefix(strings.ToUpper(c), "CAP_")
			return slices.ContainsFunc(w.h.Needs.Capabilities, func(n string) bool {
				return c == strings.TrimPrefix(strings.ToUpper(n), "CAP_")
			})
		}
		var edits []edit
		if slices.ContainsFunc(s.CapAdd, needed) {
			w.note("it keeps the capabilities that it needs, and so does not pass point 3")
		} else {
			edits = off("cap_add", "[]")
		}
		w.fix("compose.capabilities.add", "cap_add", "add no capabilities", append(edits, list("cap_add", w.keepIf(needed)))...)
	}},
	{[]string{
		"compose.no_new_privileges.off", "compose.no_new_privileges.unset", "compose.read_only.systempaths",
		"compose.isolation.seccomp", "compose.isolation.apparmor", "compose.isolation.label", "compose.isolation.cgroups",
	}, fixSecurityOpt},
	{[]string{"compose.isolation.devices"}, func(w *worker, _ Service) {
		const kind, summary = "compose.isolation.devices", "take its devices"
		w.fix(kind, "devices", summary, off("devices", "[]")...)
		w.fix(kind, "device_cgroup_rules", summary, off("device_cgroup_rules", "[]")...)
		w.fix(kind, "gpus", summary, off("gpus", "[]")...)
		for _, in := range []string{"reservations", "limits"} {
			w.fix(kind, "deploy.resources."+in+".devices", summary,
				at(dropKey("devices"), "deploy", "resources", in), at(setKey("devices", "[]"), "deploy", "resources", in))
		}
	}},
	{[]string{
		"compose.isolation.pid", "compose.isolation.ipc", "compose.isolation.uts", "compose.isolation.userns_mode",
		"compose.isolation.cgroup", "compose.isolation.cgroup_parent", "compose.isolation.network_mode",
	}, func(w *worker, s Service) {
		for _, key := range []string{"pid", "ipc", "uts", "userns_mode", "cgroup", "cgroup_parent"} {
			neutral := `""`
			if key == "cgroup" || key == "ipc" {
				neutral = "private"
			}
			w.fix("compose.isolation."+key, key, "leave "+key+" of the host", off(key, neutral)...)
		}
		w.leaveHostNetwork(s)
	}},
	{[]string{"compose.isolation.sysctls"}, func(w *worker, _ Service) {
		w.fix("compose.isolation.sysctls", "sysctls", "set no parameters of the kernel", func(s *splices, m *yaml.Node) error {
			k, v := entry(m, "sysctls")
			if k == nil {
				return errShape
			}
			all := true
			for i := 0; i+1 < len(v.Content); i += 2 {
				all = all && !strings.HasPrefix(v.Content[i].Value, "net.")
			}
			if all || v.Kind != yaml.MappingNode || isFlow(v) {
				return s.remove(m, "sysctls")
			}
			for i := 0; i+1 < len(v.Content); i += 2 {
				if name := v.Content[i].Value; !strings.HasPrefix(name, "net.") {
					if err := s.remove(v, name); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}},
	{[]string{"compose.mounts.host_path", "compose.mounts.propagation", "compose.engine_socket.mount"}, fixMounts},
	{[]string{"compose.engine_socket.use_api_socket"}, func(w *worker, _ Service) {
		w.fix("compose.engine_socket.use_api_socket", "use_api_socket", "take the socket of the engine", off("use_api_socket", "false")...)
	}},
	{[]string{"compose.engine_socket.volumes_from"}, func(w *worker, s Service) {
		if w.fix("compose.engine_socket.volumes_from", "volumes_from", "mount nothing of other services", off("volumes_from", "[]")...) {
			w.note("it had the volumes of %s: list those that it needs", strings.Join(s.VolumesFrom, ", "))
		}
	}},
	{[]string{"compose.engine_socket.environment"}, func(w *worker, s Service) {
		for _, name := range s.EngineEnv {
			w.fix("compose.engine_socket.environment", "environment", "unset "+name, unsetEnv(name))
		}
	}},
	{[]string{"compose.read_only.root"}, func(w *worker, _ Service) {
		w.fix("compose.read_only.root", "read_only", "make its root read-only", setKey("read_only", "true"))
	}},
	{[]string{"compose.read_only.tmpfs_size", "compose.read_only.tmpfs_options"}, fixTmpfs},
	{[]string{"compose.ports.published"}, fixPorts},
	{[]string{"compose.limits.memory", "compose.limits.pids", "compose.limits.oom"}, func(w *worker, s Service) {
		n := w.h.Needs
		if s.Memory <= 0 {
			w.limit("compose.limits.memory", "mem_limit", "memory", bytesText(max(n.Memory, DefaultMemory)))
		}
		if s.Pids <= 0 {
			w.limit("compose.limits.pids", "pids_limit", "pids", strconv.FormatInt(cmp.Or(n.Pids, DefaultPids), 10))
		}
		w.fix("compose.limits.oom", "oom_kill_disable", "obey the limit for memory", off("oom_kill_disable", "false")...)
	}},
}

func bytesText(n int64) string {
	switch {
	case n%(1<<30) == 0:
		return strconv.FormatInt(n>>30, 10) + "g"
	case n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "m"
	}
	return strconv.FormatInt(n, 10)
}

// setLimit sets a limit, where the service has it and under deploy if there
// are limits: the two must agree.
func setLimit(key, nested, text string) edit {
	return func(s *splices, m *yaml.Node) error {
		limits := child(target(child(target(child(m, "deploy")), "resources")), "limits")
		if limits != nil {
			if err := at(setKey(nested, text), "deploy", "resources", "limits")(s, m); err != nil {
				return err
			}
		}
		if k, _ := entry(m, key); k == nil && limits != nil {
			return nil
		}
		return setKey(key, text)(s, m)
	}
}

func (w *worker) limit(kind, key, nested, text string) {
	w.fix(kind, key, "limit it to "+text+" "+map[string]string{"memory": "of memory", "pids": "processes"}[nested], setLimit(key, nested, text))
}

func fixSecurityOpt(w *worker, s Service) {
	bad := func(o string) bool {
		switch k, v := splitOpt(o); k {
		case "no-new-privileges", "systempaths", "writable-cgroups":
			return true
		case "seccomp", "apparmor":
			return v == "unconfined"
		case "label":
			return v == "disable" || strings.Contains(v, "spc_t") || strings.Contains(v, "unconfined")
		}
		return false
	}
	count, _ := objections(s)
	nnp := count["compose.no_new_privileges.off"]+count["compose.no_new_privileges.unset"] > 0
	want := func(o string) bool {
		k, _ := splitOpt(o)
		return !bad(o) || k == "no-new-privileges" && !nnp
	}
	var add []string
	var edits []edit
	if nnp {
		add = []string{"no-new-privileges:true"}
	} else if !slices.ContainsFunc(s.SecurityOpt, want) {
		edits = off("security_opt", "[]")
	}
	edits = append(edits, list("security_opt", w.keepIf(want), add...))
	w.try("security_opt", "allow no new privileges and keep its profiles", better, edits...)
}

// leaveHostNetwork takes a service off the host's network and publishes, on
// loopback, what must be reached.
func (w *worker) leaveHostNetwork(s Service) {
	if s.Network != "host" || !w.fix("compose.isolation.network_mode", "network_mode", "leave the network of the host", off("network_mode", "bridge")...) {
		return
	}
	w.note("it reaches services of the host as host.docker.internal, no longer as localhost")
	for _, p := range w.h.Needs.Ports {
		if slices.ContainsFunc(s.Ports, func(q Port) bool { return q.Target == uint32(p) }) {
			continue
		}
		w.try("ports", fmt.Sprintf("publish port %d on loopback", p), func(before, after Service) bool {
			return noWorse(before, after) && len(after.Ports) > len(before.Ports)
		}, list("ports", keepAll, fmt.Sprintf(`"127.0.0.1:%d:%d"`, p, p)))
	}
}

// only loads one item of a list as if it were all of a service.
func (w *worker) only(s *splices, key string, item *yaml.Node) (Service, error) {
	budget := maxNodes
	plain, ok := deref(item, &budget)
	if !ok {
		return Service{}, errShape
	}
	str := func(v string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v} }
	mapping := func(pairs ...*yaml.Node) *yaml.Node {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: pairs}
	}
	root := mapping(str("services"), mapping(str("it"), mapping(
		str("image"), str("it"),
		str(key), &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: []*yaml.Node{plain}},
	)))
	if volumes := child(s.root.Content[0], "volumes"); volumes != nil {
		v, ok := deref(volumes, &budget)
		if !ok {
			return Service{}, errShape
		}
		root.Content = append(root.Content, str("volumes"), v)
	}
	doc, err := yaml.Marshal(root)
	if err != nil {
		return Service{}, errShape
	}
	all, err := w.load(doc)
	return all["it"], err
}

// deref copies a node with its aliases expanded.
func deref(n *yaml.Node, budget *int) (*yaml.Node, bool) {
	if *budget--; *budget < 0 {
		return nil, false
	}
	if n.Kind == yaml.AliasNode {
		return deref(n.Alias, budget)
	}
	c := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Value: n.Value, Style: n.Style &^ yaml.TaggedStyle}
	for _, child := range n.Content {
		d, ok := deref(child, budget)
		if !ok {
			return nil, false
		}
		c.Content = append(c.Content, d)
	}
	return c, true
}

func fixMounts(w *worker, _ Service) {
	var dropped []string
	item := func(s *splices, n *yaml.Node, own bool) (string, bool, error) {
		it, err := w.only(s, "volumes", n)
		if err != nil {
			return "", false, err
		}
		for _, m := range it.Mounts {
			socket := slices.ContainsFunc(m.Paths, func(p string) bool { return socketReach(p) != "" }) ||
				engineSocket.MatchString(canonical(m.Target))
			host := slices.ContainsFunc(m.Paths, func(p string) bool { return sensitive(p, m.ReadOnly) != "" })
			needed := slices.ContainsFunc(w.h.Needs.Writable, func(p string) bool { return within(path.Clean(p), m.Target) })
			if needed && !slices.ContainsFunc(m.Paths, func(p string) bool { return anySocket.MatchString(canonical(p)) }) {
				if socket || host {
					w.note("%s on %s has state that it needs, and is kept: move the state to a directory of its own", m.describe(), m.Target)
				}
				socket, host = false, false
			}
			if socket || host {
				dropped = append(dropped, m.describe()+" on "+m.Target)
				return "", false, nil
			}
			if m.Propagation == "shared" || m.Propagation == "rshared" {
				text, err := private(s, n, own)
				return text, err == nil, err
			}
		}
		return "", true, nil
	}
	if w.try("volumes", "mount nothing of the machine", better, func(s *splices, m *yaml.Node) error {
		dropped = nil
		return list("volumes", item)(s, m)
	}) {
		for _, d := range dropped {
			w.note("it no longer has the %s", d)
		}
	}
}

// private returns an item of volumes without its shared propagation.
func private(s *splices, n *yaml.Node, own bool) (string, error) {
	if n.Kind == yaml.ScalarNode {
		head, opts, ok := cutLast(n.Value)
		if !ok {
			return "", errShape
		}
		var kept []string
		for o := range strings.SplitSeq(opts, ",") {
			if o != "shared" && o != "rshared" {
				kept = append(kept, o)
			}
		}
		if len(kept) > 0 {
			head += ":" + strings.Join(kept, ",")
		}
		return strconv.Quote(head), nil
	}
	bind := child(n, "bind")
	if !own || bind == nil || bind.Kind != yaml.MappingNode {
		return "", errShape
	}
	return "", setKey("propagation", "rprivate")(s, bind)
}

func cutLast(v string) (head, tail string, ok bool) {
	i := strings.LastIndex(v, ":")
	if i < 0 || strings.Contains(v[i:], "}") {
		return "", "", false
	}
	return v[:i], v[i+1:], true
}

func fixTmpfs(w *worker, _ Service) {
	w.try("tmpfs", "bound its tmpfs", better, list("tmpfs", func(_ *splices, n *yaml.Node, _ bool) (string, bool, error) {
		v, err := w.value(n)
		if err != nil {
			return "", false, err
		}
		target, opts, _ := strings.Cut(v, ":")
		if t := tmpfsOptions(opts); t.Bounded && !t.Exec && !t.Suid && !t.Dev {
			return "", true, nil
		}
		kept := []string{}
		bounded := false
		for o := range strings.SplitSeq(opts, ",") {
			switch k, size, _ := strings.Cut(strings.TrimSpace(o), "="); k {
			case "", "exec", "suid", "dev", "noexec", "nosuid", "nodev":
			case "size":
				if bounded = boundedSize(size); bounded {
					kept = append(kept, o)
				}
			default:
				kept = append(kept, o)
			}
		}
		if !bounded {
			kept = append(kept, "size=64m")
		}
		kept = append(kept, "noexec", "nosuid", "nodev")
		return strconv.Quote(target + ":" + strings.Join(kept, ",")), true, nil
	}))
	w.try("volumes", "bound its tmpfs", better, list("volumes", func(s *splices, n *yaml.Node, own bool) (string, bool, error) {
		it, err := w.only(s, "volumes", n)
		if err != nil {
			return "", false, err
		}
		if len(it.Mounts) != 1 || it.Mounts[0].Type != "tmpfs" || it.Mounts[0].Tmpfs.Bounded {
			return "", true, nil
		}
		if !own || n.Kind != yaml.MappingNode {
			return fmt.Sprintf("{type: tmpfs, target: %s, tmpfs: {size: 64m}}", strconv.Quote(it.Mounts[0].Target)), true, nil
		}
		if t := child(n, "tmpfs"); t != nil && t.Kind == yaml.MappingNode {
			return "", true, setKey("size", "64m")(s, t)
		}
		return "", true, setKey("tmpfs", "{size: 64m}")(s, n)
	}))
}

func fixPorts(w *worker, _ Service) {
	e := list("ports", func(s *splices, n *yaml.Node, own bool) (string, bool, error) {
		it, err := w.only(s, "ports", n)
		if err != nil {
			return "", false, err
		}
		rule := rules[slices.IndexFunc(rules, func(r rule) bool { return r.info.ID == "compose.ports" })]
		it.Name = w.name
		if len(rule.run(it).findings) == 0 {
			return "", true, nil
		}
		switch {
		case own && n.Kind == yaml.MappingNode:
			return "", true, setKey("host_ip", "127.0.0.1")(s, n)
		case n.Kind == yaml.ScalarNode && splitPort(n.Value) != nil:
			parts := splitPort(n.Value)
			switch len(parts) {
			case 1:
				parts = []string{"127.0.0.1", "", parts[0]}
			case 2:
				parts = []string{"127.0.0.1", parts[0], parts[1]}
			default:
				parts[0] = "127.0.0.1"
			}
			return strconv.Quote(strings.Join(parts, ":")), true, nil
		case len(it.Ports) == 1:
			p := it.Ports[0]
			p.HostIP = "127.0.0.1"
			return strconv.Quote(p.String()), true, nil
		}
		return "", false, errShape
	})
	if w.fix("compose.ports.published", "ports", "publish its ports on loopback only", e) {
		w.note("from other machines it is reached through a tunnel or the tailnet only")
	}
}

// splitPort splits a port in short syntax at its colons, as written. It
// returns nil if a variable may hold more than one part.
func splitPort(v string) []string {
	var parts []string
	depth, from := 0, 0
	for i := range len(v) {
		switch v[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ':':
			if depth == 0 {
				parts = append(parts, v[from:i])
				from = i + 1
			}
		}
	}
	if parts = append(parts, v[from:]); len(parts) == 1 && strings.Contains(v, "$") || len(parts) > 3 {
		return nil
	}
	return parts
}

// unsetEnv removes a variable that a service sets itself.
func unsetEnv(name string) edit {
	return func(s *splices, m *yaml.Node) error {
		k, v := entry(m, "environment")
		if k == nil {
			return errShape
		}
		if v.Kind == yaml.MappingNode {
			if len(v.Content) == 2 {
				return s.remove(m, "environment")
			}
			return s.remove(v, name)
		}
		if v.Kind != yaml.SequenceNode {
			return errShape
		}
		return s.editList(k, v, isFlow(m), func(n *yaml.Node) (string, bool) {
			n = target(n)
			set, _, _ := strings.Cut(n.Value, "=")
			return "", set != name
		}, nil)
	}
}

// addEnv sets a variable in the style in which others are set.
func addEnv(name, value string) edit {
	return func(s *splices, m *yaml.Node) error {
		k, v := entry(m, "environment")
		// A dollar would be interpolated.
		value := strings.ReplaceAll(value, "$", "$$")
		pair := strconv.Quote(name + "=" + value)
		switch {
		case k == nil && merged(m, "environment") == nil:
			return s.insert(m, "environment", "{"+name+": "+quote(value)+"}", []string{name + ": " + quotePath(value)})
		case k != nil && v.Kind == yaml.SequenceNode && len(v.Content) > 0:
			return s.editList(k, v, isFlow(m), func(*yaml.Node) (string, bool) { return "", true }, []string{pair})
		case k != nil && v.Kind == yaml.MappingNode && len(v.Content) > 0:
			return s.insert(v, name, quotePath(value), nil)
		case k != nil && v.Kind != yaml.AliasNode:
			return s.replace(k, v, isFlow(m), "{"+name+": "+quote(value)+"}")
		}
		// Inherited whole: write it out.
		from := target(v)
		if from == nil {
			from = target(merged(m, "environment"))
		}
		text, err := render(from)
		if err != nil || len(text) < 2 {
			return errShape
		}
		inner, closing := text[1:len(text)-1], text[len(text)-1:]
		if inner != "" {
			inner += ", "
		}
		if from.Kind == yaml.SequenceNode {
			inner += pair
		} else {
			inner += name + ": " + quote(value)
		}
		text = text[:1] + inner + closing
		if k != nil {
			return s.replace(k, v, isFlow(m), text)
		}
		return s.insert(m, "environment", text, nil)
	}
}

// quotePath writes a path plain where that is plainly the same.
func quotePath(v string) string {
	if rest, ok := strings.CutPrefix(v, "/"); ok && isWord("a"+rest) {
		return v
	}
	return quote(v)
}

// keepWorking sees to what a service needs and would lack with a read-only
// root, or with the limits that it has.
func (w *worker) keepWorking() {
	all, err := w.now()
	if err != nil {
		return
	}
	s, n := all[w.name], w.h.Needs
	meets := func(ok func(Service) bool) func(before, after Service) bool {
		return func(before, after Service) bool { return noWorse(before, after) && ok(after) }
	}
	if s.Provider != "" {
		return
	}
	if s.ReadOnly {
		for _, p := range n.Tmpfs {
			p = path.Clean(p)
			if !s.writable(p) {
				w.try("tmpfs", "give it a tmpfs on "+p, meets(func(s Service) bool { return s.writable(p) }),
					list("tmpfs", keepAll, strconv.Quote(p+":"+tmpfsDefaults)))
			}
		}
		for _, p := range n.Writable {
			if !s.lasting(path.Clean(p)) {
				w.manual("%s: what it keeps in %s must last: mount a volume there, writable", w.name, p)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(n.Env)) {
			if !s.env[name] && !slices.Contains(engineVariables, strings.ToUpper(name)) {
				if !w.try("environment", "set "+name, meets(func(s Service) bool { return s.env[name] }), addEnv(name, n.Env[name])) {
					w.manual("%s: set the variable %s, which it needs", w.name, name)
				}
			}
		}
	}
	if s.Memory > 0 && s.Memory < n.Memory {
		text := bytesText(n.Memory)
		if w.try("mem_limit", "raise its memory to "+text, meets(func(s Service) bool { return s.Memory == n.Memory }), setLimit("mem_limit", "memory", text)) {
			w.note("its limit for memory was less than it needs")
		} else {
			w.manual("%s: its limit for memory is less than the %s that it needs", w.name, text)
		}
	}
	if s.Pids > 0 && s.Pids < n.Pids {
		text := strconv.FormatInt(n.Pids, 10)
		if !w.try("pids_limit", "raise its processes to "+text, meets(func(s Service) bool { return s.Pids == n.Pids }), setLimit("pids_limit", "pids", text)) {
			w.manual("%s: its limit for processes is less than the %s that it needs", w.name, text)
		}
	}
	for _, flag := range slices.Sorted(maps.Keys(n.Args)) {
		if have, ok := s.argument(flag); ok && have != n.Args[flag] && !strings.HasPrefix(s.Network, "service:") {
			if !w.try("command", "give the argument "+flag+" "+n.Args[flag], meets(func(s Service) bool {
				v, _ := s.argument(flag)
				return v == n.Args[flag]
			}), setArgument(flag, n.Args[flag])) {
				w.manual("%s: give the argument %s the value %s, which it needs", w.name, flag, n.Args[flag])
			}
		}
	}
}

// cover returns the mount that has a path of the container.
func (s Service) cover(p string) (m Mount, ok bool) {
	for _, c := range s.Mounts {
		if within(p, c.Target) && len(c.Target) >= len(m.Target) {
			m, ok = c, true
		}
	}
	return m, ok
}

func (s Service) writable(p string) bool {
	m, ok := s.cover(p)
	return ok && !m.ReadOnly
}

func (s Service) lasting(p string) bool {
	m, ok := s.cover(p)
	return ok && !m.ReadOnly && m.Type != "tmpfs"
}

func argument(command []string, flag string) (string, bool) {
	for i, a := range command {
		if v, ok := strings.CutPrefix(a, flag+"="); ok {
			return v, true
		}
		if a == flag && i+1 < len(command) {
			return command[i+1], true
		}
	}
	return "", false
}

// setArgument changes an argument of a command that is written as a list.
func setArgument(flag, value string) edit {
	return func(s *splices, m *yaml.Node) error {
		k, v := entry(m, "command")
		if k == nil || v.Kind != yaml.SequenceNode {
			return errShape
		}
		next := false
		return s.editList(k, v, isFlow(m), func(n *yaml.Node) (string, bool) {
			n = target(n)
			was := next
			next = n.Value == flag
			switch {
			case was:
				return strconv.Quote(value), true
			case strings.HasPrefix(n.Value, flag+"="):
				return strconv.Quote(flag + "=" + value), true
			}
			return "", true
		}, nil)
	}
}
