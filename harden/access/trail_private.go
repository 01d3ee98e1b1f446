package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A TrailGuard is what stands between the agent and a [Trail].
type TrailGuard struct {
	Trail Trail
	Err   error // why it could not be seen

	// Log is the log's directory, and the files in it.
	Log []Entry
	// Above are the directories that it is in.
	Above []Entry
	// Secret, Pin and Key are the files beside it; see [Guard].
	Secret, Pin, Key *Guard

	Mounts    []string // see [Guard]
	UIDs      []uint32
	AgentsErr error
}

// NewTrailGuardSource returns what stands before the trails of c.
func NewTrailGuardSource(c Config) *harden.Source[TrailGuard] {
	return &harden.Source[TrailGuard]{
		Name:    "trails",
		Subject: func(g TrailGuard) string { return (&TrailReview{Trail: g.Trail}).Subject() },
		List: func(ctx context.Context, v *host.View) ([]TrailGuard, error) {
			if len(c.Trails) == 0 {
				return nil, errNoTrail
			}
			var agents []container.Container
			err := errNoContainers
			if c.Containers != nil {
				agents, err = c.Containers.All(ctx, v)
			}
			all := make([]TrailGuard, len(c.Trails))
			for i, t := range c.Trails {
				all[i].look(v, t, agents, err)
			}
			return all, nil
		},
	}
}

func (t *TrailGuard) look(v *host.View, of Trail, agents []container.Container, agentsErr error) {
	t.Trail = of
	guard := func(name string, readable bool) *Guard {
		if name == "" {
			return nil
		}
		g := &Guard{File: GuardedFile{Path: name, Owner: of.Owner, Readable: readable}, AgentsErr: agentsErr}
		g.look(v)
		for i := range agents {
			g.reach(&agents[i])
		}
		return g
	}
	if _, err := of.logOf(v); err != nil {
		t.Err = err
		return
	}
	dir := guard(of.Dir, false)
	t.Mounts, t.UIDs, t.AgentsErr, t.Err = dir.Mounts, dir.UIDs, dir.AgentsErr, dir.Err
	if t.Err != nil {
		return
	}
	t.Log, t.Above = dir.Entries[:1], dir.Entries[1:]
	files, err := v.ReadDir(of.Dir)
	if err != nil {
		t.Err = err
		return
	}
	for _, f := range files {
		name := path.Join(of.Dir, f.Name())
		info, err := v.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // retired, or a draft
		}
		if err != nil {
			t.Err = err
			return
		}
		e := Entry{Path: name, Mode: info.Mode()}
		var ok bool
		if e.Owner, e.Links, ok = ownership(info); !ok {
			t.Err = fmt.Errorf("whose %s is cannot be seen here: %w", name, errors.ErrUnsupported)
			return
		}
		t.Log = append(t.Log, e)
	}
	t.Secret, t.Pin, t.Key = guard(of.Secret, false), guard(of.Pin, true), guard(of.KeyFile, true)
}

// judgeTrailGuard judges whether the agent, or anyone else, gets at a trail.
func judgeTrailGuard(ctx context.Context, t TrailGuard) (harden.Verdict, error) {
	const id = "access.trail_private"
	if t.Err != nil {
		return harden.Verdict{}, t.Err
	}
	if len(t.Log) == 0 {
		return harden.Verdict{}, errors.New("it was not looked at")
	}
	var v violations
	fail := func(kind, message, remedy string, e Entry) {
		v = append(v, harden.Finding{
			ID: id + "." + kind, Message: message, Remedy: remedy,
			Evidence: []harden.Evidence{at(harden.LevelInspected, e.Path, fmt.Sprintf("%v, owner %d", e.Mode, e.Owner), "its owner's alone")},
		})
	}
	trusted := func(uid uint32) bool { return uid == 0 || uid == t.Trail.Owner }
	for i, e := range t.Log {
		switch {
		case i == 0 && !e.Mode.IsDir() || i > 0 && !e.Mode.IsRegular():
			fail("kind", e.Path+" is not what a log is made of", "put the log itself there", e)
		case e.Mode.Perm()&0o077 != 0:
			fail("mode", fmt.Sprintf("others than its owner get at %s: its mode is %04o", e.Path, e.Mode.Perm()), fmt.Sprintf("chmod %04o %s", e.Mode.Perm()&^0o077, e.Path), e)
		}
		if i > 0 && e.Mode.IsRegular() && e.Links > 1 {
			fail("links", fmt.Sprintf("%s has %d names, and may be written to by the others", e.Path, e.Links), "remove the others", e)
		}
		if !trusted(e.Owner) {
			fail("owner", fmt.Sprintf("%s belongs to user %d", e.Path, e.Owner), fmt.Sprintf("chown %d %s", t.Trail.Owner, e.Path), e)
		}
	}
	for _, e := range t.Above {
		switch {
		case !trusted(e.Owner):
			fail("owner", fmt.Sprintf("%s belongs to user %d", e.Path, e.Owner), fmt.Sprintf("chown %d %s", t.Trail.Owner, e.Path), e)
		case e.Mode.Perm()&0o022 != 0 && e.Mode&fs.ModeSticky == 0:
			fail("directory", "others may replace what is in "+e.Path, "chmod go-w "+e.Path, e)
		case e.Mode&fs.ModeSymlink != 0:
			fail("directory", e.Path+" is a symbolic link", "name the log by the path that it has", e)
		}
	}
	for _, m := range t.Mounts {
		fail("mounted", "the agent has it: "+m, "mount no directory that holds it", t.Log[0])
	}
	for _, uid := range t.UIDs {
		if trusted(uid) {
			fail("user", fmt.Sprintf("a process of the agent's runs as user %d, who may write to it", uid), "run the agent as a user of its own", t.Log[0])
		}
	}
	errs := []error{t.AgentsErr}
	for _, g := range []*Guard{t.Secret, t.Pin, t.Key} {
		if g == nil || errors.Is(g.Err, fs.ErrNotExist) {
			continue // the other checks say what that means
		}
		verdict, err := judgeGuard(ctx, *g)
		errs = append(errs, err)
		for _, f := range verdict.Findings() {
			f.ID = id + strings.TrimPrefix(f.ID, "access.key_files")
			if !strings.Contains(f.Message, g.File.Path) {
				f.Message = g.File.Path + ": " + f.Message
			}
			v = append(v, f)
		}
	}
	return v.verdict(errors.Join(errs...), at(harden.LevelInspected, t.Trail.Dir,
		fmt.Sprintf("%d files that are their owner's alone, in directories that nobody else can change; in no mount of the agent's", len(t.Log)-1), "its owner's alone"))
}
