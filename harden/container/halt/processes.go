package halt

import (
	"context"
	"fmt"
	"strings"
)

// Processes is an observer that looks for processes of the agent's containers
// in all of /proc: by their cgroup, by the mount and process namespaces, by the
// container's own files among their mounts, and by descent from the shim of the
// container. So it sees what was detached, exec'd, or moved to another cgroup.
// Zombies have ended; a process that waits in the kernel has not, nor has one
// whose first thread alone has.
//
// It asks no engine. That a container was made anew, with another id, it sees
// in what the engine has written down below DataRoot, which also a hung engine
// has. It does not see the containers of another engine, nor a process that has
// left cgroup, namespaces and parents behind, which takes being root on the
// machine.
//
// It looks at all processes until it knows the containers, and whenever one has
// no more the first process that it was known with; else only at those that can
// be theirs, by the same signs.
//
// A name that no container has had since the Processes was made is an error,
// for it may be misspelt.
type Processes struct {
	// Agent says which containers are meant. Required.
	Agent Agent

	// DataRoot is where the engine keeps its containers. Empty means
	// DefaultDataRoot.
	DataRoot string

	lookout lookout
}

// Name returns "container.processes".
func (p *Processes) Name() string { return "container.processes" }

// Arm looks once, so that containers are known by their ids, and what is theirs
// by its namespaces, should they be removed later.
func (p *Processes) Arm(ctx context.Context) error {
	_, err := p.Remaining(ctx)
	return err
}

// Objects returns the agent's containers that have been seen.
func (p *Processes) Objects() []string { return p.lookout.roll.objects() }

// Close lets go of what is held to recognize processes. A Processes that was
// closed can be used again.
func (p *Processes) Close() error {
	p.lookout.close()
	return nil
}

// Remaining returns the containers that have processes.
func (p *Processes) Remaining(ctx context.Context) (map[string]string, error) {
	type seen struct {
		members map[who][]*process
		err     error
	}
	s, err := within(ctx, func() (seen, error) {
		members, err := p.lookout.members(ctx, p.Agent, p.DataRoot, nil)
		return seen{members, err}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("halt: the process table did not answer in time: %w", err)
	}
	var l ledger
	for w, procs := range s.members {
		l.add(w.object(), alivePhrase(w, procs))
	}
	return l.open, s.err
}

func alivePhrase(w who, procs []*process) string {
	const most = 5
	var parts []string
	for _, p := range procs[:min(most, len(procs))] {
		parts = append(parts, p.String())
	}
	if more := len(procs) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("alive in %s: %s", short(w.id), strings.Join(parts, ", "))
}
