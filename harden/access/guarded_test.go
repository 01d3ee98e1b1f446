package access_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/hardentest"
)

func guard(change ...func(*access.Guard)) access.Guard {
	g := access.Guard{
		File: access.GuardedFile{Path: "/etc/hardshell/key"},
		Entries: []access.Entry{
			{Path: "/etc/hardshell/key", Mode: 0o600, Links: 1},
			{Path: "/etc/hardshell", Mode: fs.ModeDir | 0o700},
			{Path: "/etc", Mode: fs.ModeDir | 0o755},
			{Path: "/", Mode: fs.ModeDir | 0o755},
		},
		UIDs: []uint32{1000},
	}
	for _, f := range change {
		f(&g)
	}
	return g
}

func TestGuardedFiles(t *testing.T) {
	bad := map[string]func(*access.Guard){
		"mode":      func(g *access.Guard) { g.Entries[0].Mode = 0o640 },
		"kind":      func(g *access.Guard) { g.Entries[0].Mode = fs.ModeSymlink | 0o777 },
		"links":     func(g *access.Guard) { g.Entries[0].Links = 2 },
		"owner":     func(g *access.Guard) { g.Entries[0].Owner = 1000 },
		"directory": func(g *access.Guard) { g.Entries[2].Mode = fs.ModeDir | 0o777 },
		"mounted":   func(g *access.Guard) { g.Mounts = []string{"container/openclaw at /conf"} },
		"user":      func(g *access.Guard) { g.UIDs = []uint32{0} },
	}
	judge := access.JudgeGuard
	for kind, f := range bad {
		v, err := judge(t.Context(), guard(f))
		if err != nil || !slices.ContainsFunc(v.Findings(), func(f harden.Finding) bool { return f.ID == "access.key_files."+kind }) {
			t.Errorf("%s: %+v, %v", kind, v.Findings(), err)
		}
	}
	good := map[string]access.Guard{
		"as it should be":      guard(),
		"a file of the user's": guard(func(g *access.Guard) { g.File.Owner, g.Entries[0].Owner, g.Entries[1].Owner = 990, 990, 990 }),
		"a policy":             guard(func(g *access.Guard) { g.File.Readable, g.Entries[0].Mode = true, 0o644 }),
		"below /tmp":           guard(func(g *access.Guard) { g.Entries[2].Mode = fs.ModeDir | fs.ModeSticky | 0o777 }),
	}
	subject := hardentest.JudgeSubject[access.Guard]{
		Info:     check(t, access.Config{}, "access.key_files").Info(),
		Judge:    func(ctx context.Context, g access.Guard) (harden.Verdict, error) { return judge(ctx, g) },
		NoSecret: "the facts have modes and owners, and paths that the configuration names",
		Unknown:  []access.Guard{{}, guard(func(g *access.Guard) { g.Err = fs.ErrPermission }), guard(func(g *access.Guard) { g.AgentsErr = errors.New("no engine") })},
	}
	for _, g := range good {
		subject.Good = append(subject.Good, g)
	}
	for _, f := range bad {
		subject.Bad = append(subject.Bad, guard(f))
	}
	hardentest.RunJudge(t, subject)
}
