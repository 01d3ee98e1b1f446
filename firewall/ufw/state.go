package ufw

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
)

// A State is what UFW is meant to do on a machine, and what it does.
type State struct {
	// Installed says that UFW's files are there. If they are not, there is
	// nothing else to say of it.
	Installed bool

	// Enabled says that UFW starts when the machine does (ENABLED in
	// /etc/ufw/ufw.conf). What is loaded now is in V4 and V6.
	Enabled bool

	// Incoming, Outgoing and Routed say what becomes of packets that no rule
	// decides (/etc/default/ufw).
	Incoming, Outgoing, Routed Action

	// IPv6 says that UFW manages IPv6. If it does not, it drops all that
	// comes in by it except over loopback.
	IPv6 bool

	// ManageBuiltins says that UFW flushes the chains of others whenever it
	// starts.
	ManageBuiltins bool

	LogLevel string // "off", "low", "medium", "high" or "full"

	// Rules are those of user.rules, in order, then those of user6.rules. The
	// first that matches a packet decides.
	Rules []Rule

	// Malformed are the tuples that are not understood. UFW skips those
	// that it does not understand itself.
	Malformed []string

	// Apps are the application profiles, sorted by name.
	Apps []App

	V4, V6 Kernel
}

// Names of UFW's files.
const (
	confFile     = "etc/ufw/ufw.conf"
	defaultsFile = "etc/default/ufw"
	rulesFile    = "etc/ufw/user.rules"
	rules6File   = "etc/ufw/user6.rules"
	appsDir      = "etc/ufw/applications.d"
)

// Read reads the state of UFW from the files of a machine, whose root files is,
// and from the rules in its kernel, which programs that run runs show. It
// changes nothing and does not run UFW, so that it waits for none of its locks.
// Most of it needs root: the error then wraps [fs.ErrPermission]. A UFW that is not
// installed is a State and no error.
func Read(ctx context.Context, files fs.FS, run firewall.Runner) (*State, error) {
	s, err := readFiles(files)
	if err != nil {
		return nil, err
	}
	for _, family := range []struct {
		program string
		v6      bool
		kernel  *Kernel
	}{
		{"iptables-save", false, &s.V4},
		{"ip6tables-save", true, &s.V6},
	} {
		// All tables: asked for one by name, the legacy flavour makes it.
		out, err := runBounded(ctx, files, run, nil, family.program)
		if errors.Is(err, exec.ErrNotFound) && !s.Installed {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ufw: read the rules in the kernel: %w", err)
		}
		t, err := parseSave(out)
		if err != nil {
			return nil, err
		}
		*family.kernel = readKernel(t, s.Rules, family.v6)
	}
	return s, nil
}

// readFiles reads what does not need the kernel.
func readFiles(files fs.FS) (*State, error) {
	s := &State{}
	conf, err := readSettings(files, confFile)
	if errors.Is(err, fs.ErrNotExist) {
		// A package that was removed leaves its configuration; one that was
		// never there has none.
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.Installed = true
	s.Enabled = yes(conf["ENABLED"])
	s.LogLevel = conf["LOGLEVEL"]

	defaults, err := readSettings(files, defaultsFile)
	if err != nil {
		return nil, err
	}
	s.IPv6 = yes(defaults["IPV6"])
	s.ManageBuiltins = yes(defaults["MANAGE_BUILTINS"])
	for _, d := range []struct {
		name string
		to   *Action
	}{
		{"DEFAULT_INPUT_POLICY", &s.Incoming},
		{"DEFAULT_OUTPUT_POLICY", &s.Outgoing},
		{"DEFAULT_FORWARD_POLICY", &s.Routed},
	} {
		switch policy := defaults[d.name]; policy {
		case "ACCEPT":
			*d.to = Allow
		case "DROP":
			*d.to = Deny
		case "REJECT":
			*d.to = Reject
		default:
			return nil, fmt.Errorf("ufw: /%s: %s is %q: set it to ACCEPT, DROP or REJECT", defaultsFile, d.name, policy)
		}
	}
	for _, file := range []struct {
		name string
		v6   bool
	}{{rulesFile, false}, {rules6File, true}} {
		data, err := fs.ReadFile(files, file.name)
		if err != nil {
			return nil, fmt.Errorf("ufw: %w", err)
		}
		rules, malformed := ParseRules(data, file.v6)
		s.Rules = append(s.Rules, rules...)
		s.Malformed = append(s.Malformed, malformed...)
	}
	s.Apps, err = readApps(files)
	return s, err
}

func yes(value string) bool { return strings.EqualFold(value, "yes") }

// readSettings reads a file of lines NAME=value. UFW takes the last of several.
func readSettings(files fs.FS, name string) (map[string]string, error) {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, fmt.Errorf("ufw: %w", err)
	}
	settings := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		settings[key] = strings.Trim(value, `"'`)
	}
	return settings, nil
}

// An App is an application profile: ports under a name.
type App struct {
	Name  string
	Ports []string // such as "80,443/tcp"; without a protocol, TCP and UDP
}

// readApps reads the profiles of the directory. A name that occurs twice is
// UFW's to sort out; the last counts here.
func readApps(files fs.FS) ([]App, error) {
	names, err := fs.Glob(files, appsDir+"/*")
	if err != nil {
		return nil, fmt.Errorf("ufw: %w", err)
	}
	ports := make(map[string][]string)
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			if info, statErr := fs.Stat(files, name); statErr == nil && info.IsDir() {
				continue
			}
			return nil, fmt.Errorf("ufw: %w", err)
		}
		maps.Copy(ports, parseApps(data))
	}
	apps := make([]App, 0, len(ports))
	for name, list := range ports {
		apps = append(apps, App{name, list})
	}
	slices.SortFunc(apps, func(a, b App) int { return strings.Compare(a.Name, b.Name) })
	return apps, nil
}

// parseApps reads a file of profiles, [Name] and below it ports=A/tcp|B.
func parseApps(data []byte) map[string][]string {
	apps := make(map[string][]string)
	app := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			app = strings.TrimSuffix(name, "]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if ok && app != "" && strings.TrimSpace(key) == "ports" {
			apps[app] = strings.Split(strings.TrimSpace(value), "|")
		}
	}
	return apps
}

// Admits returns the rules by which a packet for a port of the machine gets in:
// none if the default decides. It says what the file means, see [State.Problems]
// for whether that is so; and rules ahead of UFW's, as those of
// Tailscale, admit more.
//
// The zero Addr stands for senders in general, and an empty interface for
// interfaces in general: then every rule is returned that admits some.
func (s *State) Admits(port firewall.Port, in string, from netip.Addr) []Rule {
	var all []Rule
	closed := make(map[bool]bool) // by family
	from = from.Unmap()
	for _, r := range s.Rules {
		if r.Direction != In || closed[r.V6] || from.IsValid() && from.Is4() == r.V6 {
			continue
		}
		may, must := r.matches(port, in, from)
		if may && r.Action.Admits() {
			all = append(all, r)
		}
		if must {
			closed[r.V6] = true
		}
	}
	return all
}

// matches reports whether r matches some of the packets and whether it matches
// all of them.
func (r Rule) matches(port firewall.Port, in string, from netip.Addr) (some, all bool) {
	all = true
	switch {
	case r.Protocol == port.Protocol:
	case r.Protocol == 0 && (r.ToPorts == nil && r.FromPorts == nil || port.Protocol == firewall.TCP || port.Protocol == firewall.UDP):
	default:
		return false, false
	}
	if r.ToPorts != nil && !slices.ContainsFunc(r.ToPorts, func(p PortRange) bool { return p.First <= port.Number && port.Number <= p.Last }) {
		return false, false
	}
	if r.FromPorts != nil || r.To.IsValid() {
		all = false // neither the sender's port nor the address it sends to is given
	}
	if r.InInterface != "" {
		switch {
		case in == "":
			all = false
		case !matchInterface(r.InInterface, in):
			return false, false
		}
	}
	if r.From.IsValid() {
		switch {
		case !from.IsValid():
			all = false
		case !r.From.Contains(from):
			return false, false
		}
	}
	return true, all
}

func matchInterface(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "+"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}
