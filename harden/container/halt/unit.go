package halt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A Unit is a service of systemd.
type Unit struct {
	Name string // such as "openclaw-gateway.service"
	User string // whose it is; empty for the system's
}

// Object is what receipts call it.
func (u Unit) Object() string {
	if u.User != "" {
		return "unit/" + u.User + "/" + u.Name
	}
	return "unit/" + u.Name
}

// manager returns the options that say whose service manager is meant.
func (u Unit) manager() []string {
	if u.User == "" {
		return nil
	}
	return []string{"--user", "--machine=" + u.User + "@.host"}
}

type run = func(context.Context, host.Command) (host.Output, error)

func (u Unit) systemctl(ctx context.Context, run run, timeout time.Duration, args ...string) error {
	_, err := u.ask(ctx, run, timeout, args...)
	return err
}

func (u Unit) ask(ctx context.Context, run run, timeout time.Duration, args ...string) (host.Output, error) {
	if !unitName.MatchString(u.Name) {
		return host.Output{}, fmt.Errorf("halt: %q is not the name of a unit", u.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, err := run(ctx, host.Command{Name: "systemctl", Args: slices.Concat(u.manager(), args, []string{"--", u.Name})})
	if err != nil {
		return out, fmt.Errorf("halt: systemctl %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]*\.service$`)

// unitState is what systemd says of a unit, by property.
type unitState map[string]string

// state asks for it. See systemctl(1), show.
func (u Unit) state(ctx context.Context, run run, timeout time.Duration) (unitState, error) {
	out, err := u.ask(ctx, run, timeout, "show", "--property=LoadState,ActiveState,UnitFileState,DropInPaths")
	if err != nil {
		return nil, err
	}
	return parseUnitState(out.Stdout)
}

func parseUnitState(data []byte) (unitState, error) {
	s := make(unitState)
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			s[k] = v
		}
	}
	if s["LoadState"] == "" || s["ActiveState"] == "" {
		return nil, errors.New("halt: systemctl show does not say what state the unit is in")
	}
	return s, nil
}

func (s unitState) absent() bool {
	return s["LoadState"] == "not-found" && s.inactive()
}

func (s unitState) inactive() bool {
	return s["ActiveState"] == "inactive" || s["ActiveState"] == "failed"
}

// down reports whether it does not run, and nothing starts it.
func (s unitState) down() bool { return s.inactive() && (s.barred() || s["LoadState"] == "masked") }

// unitDirs are where units are installed; see systemd.unit(5).
var unitDirs = []string{"etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

// userUnitDirs are where those of users are, below their home.
const userUnitDir = ".config/systemd/user"

// FindUnits returns the services of the machine that start the agent: those
// that OpenClaw installs for itself, and those whose commands run a container
// engine with one of the agent's names. What it found is good also beside an
// error, which says what it could not read.
func FindUnits(v *host.View, a Agent) ([]Unit, error) {
	var all []Unit
	var errs []error
	in := func(dir, user string) {
		entries, err := v.ReadDir(dir)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("halt: units: %w", err))
			}
			return
		}
		for _, e := range entries {
			if e.IsDir() || !unitName.MatchString(e.Name()) {
				continue
			}
			u := Unit{Name: e.Name(), User: user}
			if slices.Contains(all, u) {
				continue
			}
			starts := openClawUnit.MatchString(e.Name())
			if !starts {
				data, err := v.ReadFile(path.Join(dir, e.Name()))
				switch {
				case errors.Is(err, fs.ErrNotExist): // a mask, or a link that leads nowhere
				case err != nil:
					errs = append(errs, fmt.Errorf("halt: units: %w", err))
				default:
					starts = startsAgent(string(data), a)
				}
			}
			if starts {
				all = append(all, u)
			}
		}
	}
	for _, dir := range unitDirs {
		in("/"+dir, "")
	}
	in("/root/"+userUnitDir, "root")
	homes, err := v.ReadDir("/home")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("halt: units: %w", err))
	}
	for _, h := range homes {
		in(path.Join("/home", h.Name(), userUnitDir), h.Name())
	}
	return all, errors.Join(errs...)
}

// openClawUnit is the service that OpenClaw installs, one for each profile.
var openClawUnit = regexp.MustCompile(`^openclaw-gateway(-[A-Za-z0-9:_.@-]+)?\.service$`)

// startsAgent reports whether a unit file has a command that runs a container
// engine with a word that is a name, an id or a project of the agent.
func startsAgent(unit string, a Agent) bool {
	unit = strings.ReplaceAll(unit, "\\\n", " ")
	for line := range strings.Lines(unit) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || !slices.Contains([]string{"ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload"}, strings.TrimSpace(key)) {
			continue
		}
		words := strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t'\"=;", r) })
		engine := slices.ContainsFunc(words, func(w string) bool {
			return slices.Contains([]string{"docker", "docker-compose", "podman", "nerdctl"}, path.Base(strings.TrimLeft(w, "-@:+!")))
		})
		if engine && slices.ContainsFunc(words, func(w string) bool {
			return slices.Contains(a.Names, w) || slices.Contains(a.Projects, w)
		}) {
			return true
		}
	}
	return false
}
