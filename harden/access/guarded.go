package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// A Guard is what stands between the agent and a [GuardedFile].
type Guard struct {
	File GuardedFile
	Err  error // why it could not be seen

	// Entries are the file, and then the directories that it is in.
	Entries []Entry

	// Mounts are where containers of the agent have it, as
	// "container/openclaw at /secrets".
	Mounts []string
	// UIDs are the numbers of the users that the agent's processes run as, on
	// this machine.
	UIDs      []uint32
	AgentsErr error // why it is not known what the agent has
}

// An Entry is a file or a directory.
type Entry struct {
	Path  string
	Mode  fs.FileMode
	Owner uint32
	Links uint64 // names that a file has
}

// NewGuardSource returns the files that c guards.
func NewGuardSource(c Config) *harden.Source[Guard] {
	return &harden.Source[Guard]{
		Name:    "guarded files",
		Subject: func(g Guard) string { return "file" + g.File.Path },
		List: func(ctx context.Context, v *host.View) ([]Guard, error) {
			var agents []container.Container
			err := errNoContainers
			if c.Containers != nil {
				agents, err = c.Containers.All(ctx, v)
			}
			all := make([]Guard, len(c.Guarded))
			for i, f := range c.Guarded {
				all[i] = Guard{File: f, AgentsErr: err}
				all[i].look(v)
				for j := range agents {
					all[i].reach(&agents[j])
				}
			}
			return all, nil
		},
	}
}

func (g *Guard) look(v *host.View) {
	name := g.File.Path
	if !path.IsAbs(name) || path.Clean(name) != name {
		g.Err = fmt.Errorf("access: Config.Guarded: %q is not an absolute path in its shortest form", name)
		return
	}
	for {
		info, err := v.Lstat(name)
		if err != nil {
			g.Err = err
			return
		}
		e := Entry{Path: name, Mode: info.Mode()}
		var ok bool
		if e.Owner, e.Links, ok = ownership(info); !ok {
			g.Err = fmt.Errorf("whose %s is cannot be seen here: %w", name, errors.ErrUnsupported)
			return
		}
		g.Entries = append(g.Entries, e)
		if name == "/" {
			return
		}
		name = path.Dir(name)
	}
}

// reach notes what a container has to do with the file.
func (g *Guard) reach(c *container.Container) {
	if c.Kernel == nil {
		g.AgentsErr = errors.Join(g.AgentsErr, fmt.Errorf("%s: %w", c.Subject(), cause(c.KernelErr)))
		return
	}
	for _, t := range c.Kernel.Trees {
		for _, m := range t.Mounts {
			for _, h := range m.HostPaths {
				at := c.Subject() + " at " + m.Path
				if procfs.Below(g.File.Path, h) && !slices.Contains(g.Mounts, at) {
					g.Mounts = append(g.Mounts, at)
				}
			}
		}
	}
	for _, p := range c.Kernel.Processes {
		for _, id := range p.UIDs {
			if !slices.Contains(g.UIDs, id) {
				g.UIDs = append(g.UIDs, id)
			}
		}
	}
}

func cause(err error) error {
	if err == nil {
		return errors.New("nothing was seen of it")
	}
	return err
}

// judgeGuard judges whether the agent, or anyone else, gets at a file.
func judgeGuard(_ context.Context, g Guard) (harden.Verdict, error) {
	const id = "access.key_files"
	if g.Err != nil {
		return harden.Verdict{}, g.Err
	}
	if len(g.Entries) == 0 {
		return harden.Verdict{}, errors.New("it was not looked at")
	}
	var v violations
	fail := func(kind, message, remedy string, e Entry) {
		v = append(v, harden.Finding{
			ID: id + "." + kind, Message: message, Remedy: remedy,
			Evidence: []harden.Evidence{at(harden.LevelInspected, e.Path, fmt.Sprintf("%v, owner %d", e.Mode, e.Owner), "a plain file that one user can read")},
		})
	}
	trusted := func(uid uint32) bool { return uid == 0 || uid == g.File.Owner }
	file := g.Entries[0]
	forbidden := fs.FileMode(0o077)
	if g.File.Readable {
		forbidden = 0o022
	}
	switch {
	case !file.Mode.IsRegular():
		fail("kind", "it is not a plain file", "put the file itself there", file)
	case file.Mode.Perm()&forbidden != 0:
		fail("mode", fmt.Sprintf("others than its owner may get at it: its mode is %04o", file.Mode.Perm()), fmt.Sprintf("chmod %04o %s", file.Mode.Perm()&^forbidden, file.Path), file)
	}
	if file.Mode.IsRegular() && file.Links > 1 {
		fail("links", fmt.Sprintf("it has %d names, and may be reached by the others", file.Links), "make it anew, under one name", file)
	}
	for i, e := range g.Entries {
		sticky := e.Mode&fs.ModeSticky != 0
		switch {
		case !trusted(e.Owner):
			fail("owner", fmt.Sprintf("%s belongs to user %d", e.Path, e.Owner), fmt.Sprintf("chown %d %s", g.File.Owner, e.Path), e)
		case i > 0 && e.Mode.Perm()&0o022 != 0 && !sticky:
			fail("directory", fmt.Sprintf("others may replace what is in %s", e.Path), "chmod go-w "+e.Path, e)
		case i > 0 && e.Mode&fs.ModeSymlink != 0:
			fail("directory", e.Path+" is a symbolic link", "name the file by the path that it has", e)
		}
	}
	for _, m := range g.Mounts {
		fail("mounted", "the agent has it: "+m, "mount no directory that holds it", file)
	}
	for _, uid := range g.UIDs {
		if trusted(uid) && !g.File.Readable {
			fail("user", fmt.Sprintf("a process of the agent's runs as user %d, who may read it", uid), "run the agent as a user of its own", file)
		}
	}
	return v.verdict(g.AgentsErr, at(harden.LevelInspected, file.Path,
		fmt.Sprintf("%v, owner %d, in directories that nobody else can change; in no mount of the agent's", file.Mode, file.Owner), "a plain file that one user can read"))
}
