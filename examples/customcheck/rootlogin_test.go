package customcheck

import (
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/hardentest"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

// TestRootLogin is about sshd: what its configuration means. That every bad
// one can be put right and restored is left to the kit.
func TestRootLogin(t *testing.T) {
	for _, tt := range []struct {
		name             string
		config, included string
		status           harden.Status
		subjects         string // of the findings
	}{
		{"off", "PermitRootLogin no", "", harden.StatusPass, ""},
		{"on", "PermitRootLogin yes", "", harden.StatusFail, mainFile + ":1"},
		{"by key", "PermitRootLogin prohibit-password", "", harden.StatusFail, mainFile + ":1"},
		{"by key, as it used to be called", "PermitRootLogin without-password", "", harden.StatusFail, mainFile + ":1"},
		{"for commands", "PermitRootLogin forced-commands-only", "", harden.StatusFail, mainFile + ":1"},
		{"not said, which means by key", "Port 22", "", harden.StatusFail, mainFile},
		{"an empty file", "", "", harden.StatusFail, mainFile},
		{"only in a comment", "#PermitRootLogin no", "", harden.StatusFail, mainFile},
		{"other spellings", "\t permitrootLOGIN=\"no\" # really", "", harden.StatusPass, ""},
		{"an equals sign between blanks", "PermitRootLogin = no", "", harden.StatusPass, ""},
		{"a line that ends in a carriage return", "PermitRootLogin no\r\n", "", harden.StatusPass, ""},
		{"the first value wins: off", "PermitRootLogin no\nPermitRootLogin yes", "", harden.StatusPass, ""},
		{"the first value wins: on", "PermitRootLogin yes\nPermitRootLogin no", "", harden.StatusFail, mainFile + ":1"},

		{"an included file comes first: off", include + "PermitRootLogin yes", "PermitRootLogin no", harden.StatusPass, ""},
		{"an included file comes first: on", include + "PermitRootLogin no", "PermitRootLogin yes", harden.StatusFail, dropIn + ":2"},
		{"an included file comes too late", "PermitRootLogin no\n" + include, "PermitRootLogin yes", harden.StatusPass, ""},
		{"a file that is not included", "PermitRootLogin no\nInclude sshd_config.d/*.txt", "PermitRootLogin yes", harden.StatusPass, ""},
		{"two patterns", "Include /nowhere/* \"/etc/ssh/sshd_config.d/50-cloud.conf\"\nPermitRootLogin no", "PermitRootLogin yes", harden.StatusFail, dropIn + ":2"},

		{"a block overrides", "PermitRootLogin no\nMatch Address 10.0.0.0/8\n PermitRootLogin yes", "", harden.StatusFail, mainFile + ":3"},
		{"a block that agrees", "PermitRootLogin no\nMatch Address 10.0.0.0/8\n PermitRootLogin no", "", harden.StatusPass, ""},
		{"off in a block only", "Match Address 10.0.0.0/8\n PermitRootLogin no", "", harden.StatusFail, mainFile},
		{"a block lasts to the end of the file", "Match User bob\nPort 22\n\n#\nPermitRootLogin no", "", harden.StatusFail, mainFile},
		{"blocks and the default", "Match User bob\nPermitRootLogin yes\nMatch User ann\nPermitRootLogin yes", "", harden.StatusFail, mainFile + ":2 " + mainFile + ":4 " + mainFile},
		{"a block in an included file overrides", "PermitRootLogin no\n" + include, "Match all\nPermitRootLogin yes", harden.StatusFail, dropIn + ":3"},
		{"a block ends with its file", include + "PermitRootLogin no", "Match all\nX11Forwarding no", harden.StatusPass, ""},
		{"an include within a block", "PermitRootLogin no\nMatch User bob\n" + include, "PermitRootLogin yes", harden.StatusFail, dropIn + ":2"},

		{"an argument that is none", "PermitRootLogin maybe", "", harden.StatusUnknown, ""},
		{"no argument", "PermitRootLogin", "", harden.StatusUnknown, ""},
		{"two arguments", "PermitRootLogin no yes", "", harden.StatusUnknown, ""},
		{"a quotation mark that is not closed", `PermitRootLogin "no`, "", harden.StatusUnknown, ""},
		{"a pattern that is not followed", "PermitRootLogin no\nInclude /etc/*/x.conf", "", harden.StatusUnknown, ""},
		{"a file that includes itself", "PermitRootLogin no\nInclude sshd_config", "", harden.StatusUnknown, ""},
		{"files that include each other many times", "Include sshd_config sshd_config sshd_config\n" + include + include, include + include + include, harden.StatusUnknown, ""},
		{"wrong whatever an unknown pattern says", "PermitRootLogin yes\nInclude /etc/*/x.conf", "", harden.StatusFail, mainFile + ":1"},
		{"wrong unless an unknown pattern says otherwise", "Include /etc/*/x.conf\nPermitRootLogin yes", "", harden.StatusUnknown, ""},
		{"a block, unless an unknown pattern says otherwise", "PermitRootLogin no\nInclude /etc/*/x.conf\nMatch all\nPermitRootLogin yes", "", harden.StatusUnknown, ""},
		{"a default that an unknown pattern may change", "Include /etc/*/x.conf", "", harden.StatusUnknown, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := machine(tt.config, tt.included)
			m := bad()
			res := harden.Evaluate(t.Context(), m.View(), RootLogin{}, 0)
			var subjects []string
			for _, f := range res.Findings {
				subjects = append(subjects, f.Subject)
			}
			if got := strings.Join(subjects, " "); res.Status != tt.status || got != tt.subjects {
				t.Fatalf("got %v %s %q, want %v %q", res.Status, res.Detail, got, tt.status, tt.subjects)
			}
			if res.Status == harden.StatusFail && res.Detail == "" {
				err := hardentest.Test(hardentest.Subject{
					Check: RootLogin{}, Good: machine("PermitRootLogin no", ""), Bad: bad,
					Reads: []string{mainFile},
				})
				// Editing the file that holds the canary shows it, in the plan.
				if err != nil && !strings.HasPrefix(tt.subjects, dropIn) {
					t.Error(err)
				}
				f := harden.Fixer{Trail: trail.Discard}
				if _, err := f.Fix(t.Context(), m.Host(), nil, RootLogin{}); err != nil {
					t.Error(err)
				}
				if res := harden.Evaluate(t.Context(), m.View(), RootLogin{}, 0); res.Status != harden.StatusPass {
					t.Errorf("after the remedy: %v %v", res.Status, res.Findings)
				}
			}
		})
	}
}

func TestRootLoginWithoutServer(t *testing.T) {
	res := harden.Evaluate(t.Context(), new(hosttest.Machine).View(), RootLogin{}, 0)
	if res.Status != harden.StatusNotApplicable {
		t.Errorf("got %v", res.Status)
	}
}

// The remedy wins whatever the configuration says, or there is no plan.
func FuzzRootLogin(f *testing.F) {
	f.Add("PermitRootLogin yes\n", "")
	f.Add(include+"Match all\nPermitRootLogin yes", "PermitRootLogin prohibit-password\n\n")
	f.Add("\nMatch User x\n\tPermitRootLogin=\"yes\"#\n", "Include /etc/ssh/sshd_config\n")
	f.Fuzz(func(t *testing.T, config, included string) {
		m := machine(config, included)()
		before := m.Snapshot()
		fixer := harden.Fixer{Trail: trail.Discard}
		p, err := RootLogin{}.Plan(t.Context(), m.View())
		if err != nil {
			return
		}
		if res, err := fixer.Apply(t.Context(), m.Host(), RootLogin{}, p); err != nil {
			t.Fatalf("%v: %v", res.Status, err)
		}
		for _, a := range p.Actions {
			if err := a.Revert(t.Context(), m.Host()); err != nil {
				t.Fatal(err)
			}
		}
		if diff := before.Diff(m.Snapshot()); diff != "" {
			t.Fatal(diff)
		}
	})
}
