package firewall_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/firewall"
)

func units() firewall.Units {
	return firewall.Units{
		Restore: []string{"/bin/true", "restore", `50% of "$HOME" \ and more`},
		Watch:   []string{"/bin/true", "watch"},
		Recover: []string{"/bin/true", "recover"},
		Policy:  "/var/lib/hardshell/policy.json",
	}
}

func render(t *testing.T, u firewall.Units) (restore, watch string) {
	t.Helper()
	restore, err := u.RestoreUnit()
	if err != nil {
		t.Fatal(err)
	}
	if watch, err = u.WatchUnit(); err != nil {
		t.Fatal(err)
	}
	return restore, watch
}

// systemd understands every line of the units.
func TestUnitsVerify(t *testing.T) {
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze")
	}
	restore, watch := render(t, units())
	undo, err := units().RecoverUnit()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"hardshell-restore.service": restore, "hardshell-watch.service": watch, "hardshell-recover.service": undo} {
		verify := func(text string) string {
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), program, "verify", "--man=no", file).CombinedOutput()
			if err != nil {
				return string(out) + err.Error()
			}
			return string(out)
		}
		if out := verify(text); strings.Contains(out, "hardshell") {
			t.Errorf("%s: %s", name, out)
		}
		// The test can fail.
		if out := verify(strings.Replace(text, "[Service]", "[Service]\nNonsense=yes", 1)); !strings.Contains(out, "Nonsense") {
			t.Errorf("%s: systemd-analyze does not object to nonsense: %s", name, out)
		}
	}
}

// The engine cannot start without the policy, nor before it.
func TestRestoreUnitFailsClosed(t *testing.T) {
	u := units()
	u.Engine = "podman.service"
	restore, watch := render(t, u)
	for _, want := range []string{"\nRequiredBy=podman.service\n", "\nDefaultDependencies=no\n", "\nRemainAfterExit=yes\n"} {
		if !strings.Contains(restore, want) {
			t.Errorf("the unit lacks %q:\n%s", want, restore)
		}
	}
	for line := range strings.Lines(restore) {
		if before, ok := strings.CutPrefix(line, "Before="); ok && !strings.Contains(before, "podman.service") {
			t.Errorf("not before the engine: %s", line)
		}
	}
	if strings.Contains(watch, "RequiredBy") || !strings.Contains(watch, "After=podman.service") {
		t.Errorf("the watcher is no condition of the engine:\n%s", watch)
	}
}

func TestUnitsQuote(t *testing.T) {
	restore, _ := render(t, units())
	if want := `ExecStart=/bin/true "restore" "50%% of \"$$HOME\" \\ and more"` + "\n"; !strings.Contains(restore, want) {
		t.Errorf("want %s in\n%s", want, restore)
	}
}

func TestUnitsRefuse(t *testing.T) {
	for name, change := range map[string]func(*firewall.Units){
		"no command":           func(u *firewall.Units) { u.Restore, u.Watch = nil, nil },
		"a relative program":   func(u *firewall.Units) { u.Restore, u.Watch = []string{"hardshell"}, []string{"hardshell"} },
		"a specifier":          func(u *firewall.Units) { u.Restore, u.Watch = []string{"/bin/%n"}, []string{"/bin/%n"} },
		"a line break":         func(u *firewall.Units) { u.Restore, u.Watch = []string{"/a", "b\nc"}, []string{"/a", "b\nc"} },
		"two units as engine":  func(u *firewall.Units) { u.Engine = "a.service b.service" },
		"a socket as engine":   func(u *firewall.Units) { u.Engine = "docker.socket" },
		"a policy with spaces": func(u *firewall.Units) { u.Policy, u.Watch = "/a b", nil },
	} {
		u := units()
		change(&u)
		_, err1 := u.RestoreUnit()
		_, err2 := u.WatchUnit()
		if err1 == nil || err2 == nil {
			t.Errorf("%s: accepted: %v, %v", name, err1, err2)
		}
	}
}
