// Package customcheck shows how to write checks of one's own.
//
// [RootLogin] is a check with a remedy. [PrivateKeys] is a check of many
// things of one kind, each judged by a pure function. Their tests are a few
// lines each, for package hardentest has the rest.
package customcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// RootLogin checks that the configuration of sshd refuses logins as root.
type RootLogin struct{}

var _ harden.Remediator = RootLogin{}

// Info implements [harden.Check].
func (RootLogin) Info() harden.Info {
	return harden.Info{
		ID:    "ssh.root_login",
		Title: "SSH root login is off",
		Doc: "An agent that obtains a key of root's can log in from anywhere. Set PermitRootLogin to no. " +
			"This reads the configuration files; options on the command line of sshd override them.",
		Severity: harden.SeverityHigh,
		Requires: harden.LevelDeclared,
	}
}

// Run implements [harden.Check].
func (RootLogin) Run(_ context.Context, v *host.View) (harden.Verdict, error) {
	c, err := readConfig(v)
	if len(c.files) == 0 && errors.Is(err, fs.ErrNotExist) {
		return harden.NotApplicable("no SSH server is configured"), nil
	}
	global, blocks := c.effective()
	var findings []harden.Finding
	var evidence []harden.Evidence
	look := func(subject, value, where string) {
		ev := harden.Evidence{Source: subject, Observed: "PermitRootLogin " + value, Expected: "PermitRootLogin no"}
		evidence = append(evidence, ev)
		if value != "no" {
			findings = append(findings, harden.Finding{
				Subject:  subject,
				Message:  "root may log in over SSH" + where,
				Remedy:   "set PermitRootLogin to no",
				Evidence: []harden.Evidence{ev},
			})
		}
	}
	for _, s := range blocks {
		if !s.sure {
			continue
		}
		look(s.String(), s.value, fmt.Sprintf(" where %q matches", s.match))
	}
	switch {
	case global != nil && global.sure:
		look(global.String(), global.value, "")
	case err == nil:
		look(mainFile, "prohibit-password (the default)", "")
	}
	if len(findings) > 0 {
		return harden.Fail(findings[0], findings[1:]...), err
	}
	if err != nil {
		return harden.Verdict{}, err // a file that cannot be read may say otherwise
	}
	return harden.Pass(evidence[0], evidence[1:]...), nil
}

// Plan implements [harden.Remediator].
func (RootLogin) Plan(_ context.Context, v *host.View) (harden.Plan, error) {
	c, err := readConfig(v)
	if err != nil {
		return harden.Plan{}, err
	}
	global, wrong := c.effective()
	after := maps.Clone(c.files)
	if global == nil {
		// First, for sshd takes the first value that it meets.
		after[mainFile] = append([]byte("PermitRootLogin no\n"), after[mainFile]...)
	} else {
		wrong = append(wrong, *global)
	}
	for _, s := range wrong {
		if s.value != "no" {
			line := s.line
			if global == nil && s.file == mainFile {
				line++
			}
			after[s.file] = setLine(after[s.file], line, "PermitRootLogin no")
		}
	}
	var p harden.Plan
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if !bytes.Equal(after[name], c.files[name]) {
			p.Actions = append(p.Actions, harden.EditFile{
				Path: name, Summary: "refuse logins as root", Before: c.files[name], After: after[name],
			})
		}
	}
	if len(p.Actions) > 0 {
		p.Notes = []string{
			"See that somebody else can log in and become root.",
			"A running sshd takes no notice until it is reloaded.",
		}
	}
	return p, nil
}

// setLine replaces the n-th line, from 1, and keeps its indentation.
func setLine(data []byte, n int, text string) []byte {
	lines := slices.Collect(bytes.Lines(data))
	was := lines[n-1]
	indent := was[:len(was)-len(bytes.TrimLeft(was, " \t"))]
	lines[n-1] = slices.Concat(indent, []byte(text), []byte("\n"))
	return slices.Concat(lines...)
}
