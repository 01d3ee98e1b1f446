package harden_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

// A check of one's own is a function of what a machine looks like.
func ExampleNew() {
	noCore := harden.New(harden.Info{
		ID:       "kernel.core_pattern",
		Title:    "Core dumps are off",
		Severity: harden.SeverityMedium,
		Requires: harden.LevelInspected,
	}, func(_ context.Context, v *host.View) (harden.Verdict, error) {
		const name = "/proc/sys/kernel/core_pattern"
		data, err := v.ReadFile(name)
		if err != nil {
			return harden.Verdict{}, err // unknown, and the error says why
		}
		pattern := strings.TrimSpace(string(data))
		if pattern != "" {
			return harden.Fail(harden.Finding{Subject: name, Message: "the kernel writes core dumps"}), nil
		}
		return harden.Pass(harden.Evidence{Source: name, Observed: `""`, Level: harden.LevelInspected}), nil
	})

	m := new(hosttest.Machine).File("/proc/sys/kernel/core_pattern", "core\n")
	res := harden.Evaluate(context.Background(), m.View(), noCore, 0)
	fmt.Println(res.Status, res.Findings[0].Severity, res.Findings[0].Message)
	// Output: fail medium the kernel writes core dumps
}

// What could not be looked at is unknown, with the reason: it neither passes
// nor fails.
func ExampleEvaluate() {
	m := new(hosttest.Machine).File("/switch", "on")
	c := edits("example.switch", "/switch")
	show := func(v *host.View) {
		res := harden.Evaluate(context.Background(), v, c, 0)
		fmt.Println(strings.TrimSpace(fmt.Sprint(res.Status, " ", res.Reason)))
	}
	show(m.View())
	show(m.File("/switch", "off").View())
	show(m.Deny("/switch").View())
	// Output:
	// pass
	// fail
	// unknown privilege
}

// A check of many things is a pure function of one, bound to a source.
func ExampleEach() {
	type user struct {
		Name string
		UID  int
	}
	users := &harden.Source[user]{
		Name: "users",
		List: func(_ context.Context, v *host.View) (all []user, err error) {
			data, err := v.ReadFile("/etc/passwd")
			for line := range strings.Lines(string(data)) {
				var u user
				if _, err := fmt.Sscanf(strings.ReplaceAll(line, ":", " "), "%s x %d", &u.Name, &u.UID); err != nil {
					return nil, fmt.Errorf("/etc/passwd: %w", err)
				}
				all = append(all, u)
			}
			return all, err
		},
		Subject: func(u user) string { return "user/" + u.Name },
	}
	oneRoot := harden.Each(harden.Info{ID: "users.one_root", Title: "Only root has uid 0"}, users,
		func(_ context.Context, u user) (harden.Verdict, error) {
			if u.UID == 0 && u.Name != "root" {
				return harden.Fail(harden.Finding{Message: "has uid 0"}), nil
			}
			return harden.Pass(harden.Evidence{Source: "/etc/passwd", Observed: fmt.Sprintf("%s=%d", u.Name, u.UID)}), nil
		})

	m := new(hosttest.Machine).File("/etc/passwd", "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n")
	res := harden.Evaluate(context.Background(), m.View(), oneRoot, 0)
	for _, f := range res.Findings {
		fmt.Println(f.Subject, f.Message)
	}
	// Output: user/toor has uid 0
}

// A plan is shown, applied, verified, and undone unless the check then passes.
func ExampleFixer() {
	ctx := context.Background()
	m := new(hosttest.Machine).File("/switch", "off")
	f := harden.Fixer{Trail: trail.Discard} // in earnest, a trail that is kept

	approve := func(res harden.Result, p harden.Plan) bool {
		for _, a := range p.Actions {
			c := a.Change()
			fmt.Printf("%s: %s: %q to %q\n", res.Info.ID, c.Subject, c.Before, c.After)
		}
		return true
	}
	fixes, err := f.Fix(ctx, m.Host(), approve, edits("example.switch", "/switch"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	for _, fix := range fixes {
		fmt.Println(fix.Before.Status, "then", fix.After.Status)
	}
	// Output:
	// example.switch: /switch: "off" to "on"
	// fail then pass
}

// An action applies to the state for which it was planned, and to no other.
func ExampleEditFile() {
	ctx := context.Background()
	m := new(hosttest.Machine).File("/etc/motd", "hello\n")
	edit := harden.EditFile{
		Path:    "/etc/motd",
		Summary: "say less",
		Before:  []byte("hello\n"),
		After:   []byte(""),
	}
	fmt.Println(edit.Apply(ctx, m.Host()))
	fmt.Println(edit.Apply(ctx, m.Host()))
	fmt.Println(edit.Revert(ctx, m.Host()))
	// Output:
	// <nil>
	// /etc/motd: harden: the machine has changed since the plan was made
	// <nil>
}
