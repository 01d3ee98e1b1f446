package customcheck

import (
	"testing"

	"github.com/managemyclaw/hardshell/harden/hardentest"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

const dropIn = "/etc/ssh/sshd_config.d/50-cloud.conf"

func machine(config, included string) func() *hosttest.Machine {
	return func() *hosttest.Machine {
		return new(hosttest.Machine).
			FileMode(mainFile, config, 0o600).
			File(dropIn, "# "+hardentest.Canary+"\n"+included)
	}
}

const include = "Include sshd_config.d/*.conf\n"

func TestRootLoginKeepsTheContract(t *testing.T) {
	hardentest.Run(t, hardentest.Subject{
		Check: RootLogin{},
		Good:  machine(include+"PermitRootLogin no\n", "PasswordAuthentication no\n"),
		Bad:   machine(include+"PermitRootLogin yes\n", "PasswordAuthentication no\n"),
		Reads: []string{mainFile, dropIn, "/etc/ssh/sshd_config.d"},
	})
}

func TestPrivateKeysKeepsTheContract(t *testing.T) {
	with := func(mode string) func() *hosttest.Machine {
		return func() *hosttest.Machine {
			m := new(hosttest.Machine).FileMode("/home/ann/.ssh/id_rsa", hardentest.Canary, 0o600)
			if mode == "bad" {
				m.FileMode("/home/bob/.ssh/id_rsa", hardentest.Canary, 0o640)
			}
			return m
		}
	}
	hardentest.Run(t, hardentest.Subject{
		Check: PrivateKeys(),
		Good:  with("good"),
		Bad:   with("bad"),
		Reads: []string{"/home", "/home/ann/.ssh"},
	})
}

func TestJudgePrivateKeyKeepsTheContract(t *testing.T) {
	hardentest.RunJudge(t, hardentest.JudgeSubject[PrivateKey]{
		Info:     PrivateKeyInfo(),
		Judge:    JudgePrivateKey,
		Good:     []PrivateKey{{"/home/ann/.ssh/id_rsa", 0o600, true}, {"/home/ann/.ssh/id_ed25519", 0o400, true}},
		Bad:      []PrivateKey{{"/home/bob/.ssh/id_rsa", 0o640, true}, {"/home/bob/.ssh/id_dsa", 0o604, true}},
		Unknown:  []PrivateKey{{Path: "/home/eve/.ssh/id_rsa"}},
		NoSecret: "a path and a mode",
	})
}
