package container

import (
	"time"

	"github.com/managemyclaw/hardshell/harden"
)

// Tune sets what only tests set: where containers are listed, and how fast.
func (r *Recreator) Tune(list func(...string) *harden.Source[Container], poll, patience time.Duration) {
	r.list, r.poll, r.patience = list, poll, patience
}

// InMemory makes r change the owners of files in m.
func (r *Recreator) InMemory(m *Owners) {
	r.ownership = func(EngineInfo) ownership { return m }
}

// Owners are the owners of files in memory, by tree and name.
type Owners struct {
	Files map[string]map[string]Owner
	Fail  func() error // called before each change; nil is no error
}

func (m *Owners) find(_ *Container, at Mount) (tree, error) { return tree{Path: at.Source}, nil }

func (m *Owners) scan(t tree, to Owner) ([]owned, error) {
	var all []owned
	for name, o := range m.Files[t.Path] {
		if o != to {
			all = append(all, owned{Name: []byte(name), Owner: o})
		}
	}
	return all, nil
}

func (m *Owners) set(t tree, all []owned) error {
	for _, o := range all {
		if m.Fail != nil {
			if err := m.Fail(); err != nil {
				return err
			}
		}
		m.Files[t.Path][string(o.Name)] = o.Owner
	}
	return nil
}
