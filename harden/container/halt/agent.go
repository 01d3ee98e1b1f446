package halt

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// An Agent says which containers are the agent's. A container that was its
// once stays its, also under another name; so does what replaces one, under
// its name or as the same service of a compose project.
type Agent struct {
	// Names are names of containers, or ids of at least 12 digits.
	Names []string

	// Projects are projects of Docker Compose, all of whose containers are
	// the agent's.
	Projects []string
}

// none reports an Agent that names nothing. To stop nothing must not look like
// success.
func (a Agent) none() error {
	if len(a.Names)+len(a.Projects) == 0 {
		return errors.New("halt: no container is named: set Agent.Names or Agent.Projects")
	}
	return nil
}

// who is what tells whose a container is.
type who struct{ id, name, project, service string }

// object is what receipts call it.
func (w who) object() string { return "container/" + cmp.Or(w.name, short(w.id)) }

func short(id string) string { return id[:min(12, len(id))] }

// A roll tells the agent's containers from others, and learns. The zero roll
// is empty; it may be used concurrently.
type roll struct {
	mu       sync.Mutex
	known    map[string]who // by id
	services map[[2]string]bool
	names    map[string]bool
	met      map[string]bool // words of the Agent that something has matched
}

// admit returns those of the containers that are the agent's, and remembers
// them.
func (r *roll) admit(a Agent, all []who) []who {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = make(map[string]who)
		r.services, r.names, r.met = make(map[[2]string]bool), make(map[string]bool), make(map[string]bool)
	}
	var mine []who
	for {
		before := len(mine)
		for _, w := range all {
			if w.id == "" || slices.ContainsFunc(mine, func(m who) bool { return m.id == w.id }) || !r.matches(a, w) {
				continue
			}
			mine = append(mine, w)
			r.known[w.id] = w
			if w.name != "" {
				r.names[w.name] = true
			}
			if w.service != "" {
				r.services[[2]string{w.project, w.service}] = true
			}
		}
		if len(mine) == before { // what was learnt from the last may admit an earlier one
			return mine
		}
	}
}

func (r *roll) matches(a Agent, w who) bool {
	is := r.names[w.name] || w.service != "" && r.services[[2]string{w.project, w.service}]
	if _, known := r.known[w.id]; known {
		is = true
	}
	for _, n := range a.Names {
		if n == w.name || len(n) >= 12 && strings.HasPrefix(w.id, n) {
			is, r.met[n] = true, true
		}
	}
	if w.project != "" && slices.Contains(a.Projects, w.project) {
		is, r.met[w.project] = true, true
	}
	return is
}

// all returns everything that was ever admitted, in order of names.
func (r *roll) all() []who {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := make([]who, 0, len(r.known))
	for _, w := range r.known {
		ws = append(ws, w)
	}
	slices.SortFunc(ws, func(a, b who) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.id, b.id)) })
	return ws
}

// objects names everything that was ever admitted.
func (r *roll) objects() []string {
	var names []string
	for _, w := range r.all() {
		names = append(names, w.object())
	}
	return slices.Compact(names)
}

// unmet returns an error for the words of the agent that have matched nothing
// yet: a name that is misspelt would otherwise be the name of something that
// does not run.
func (r *roll) unmet(a Agent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, n := range a.Names {
		if !r.met[n] {
			errs = append(errs, fmt.Errorf("halt: no container named %q has been seen: correct the name, or take it off the list", n))
		}
	}
	for _, p := range a.Projects {
		if !r.met[p] {
			errs = append(errs, fmt.Errorf("halt: no container of compose project %q has been seen: correct the name, or take it off the list", p))
		}
	}
	return errors.Join(errs...)
}
