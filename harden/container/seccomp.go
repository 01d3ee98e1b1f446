package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

// A seccompProfile is what matters of a profile in Docker's format; see
// profiles/seccomp of moby and "Linux seccomp" of the OCI runtime specification.
type seccompProfile struct {
	DefaultAction string `json:"defaultAction"`
	Syscalls      []struct {
		Names    []string          `json:"names"`
		Name     string            `json:"name"` // of old profiles
		Action   string            `json:"action"`
		Args     []json.RawMessage `json:"args"`
		Includes struct {
			Caps []string `json:"caps"`
		} `json:"includes"`
		Excludes struct {
			Caps []string `json:"caps"`
		} `json:"excludes"`
	} `json:"syscalls"`
}

// dangerousCalls are those that Docker's default profile denies to a container
// without capabilities, for what they have been used for.
var dangerousCalls = []string{
	"acct", "add_key", "bpf", "delete_module", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module",
	"ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl", "mount", "mount_setattr", "move_mount", "move_pages",
	"name_to_handle_at", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "quotactl",
	"reboot", "request_key", "setns", "swapoff", "swapon", "umount", "umount2", "unshare", "userfaultfd",
}

func allows(action string) bool {
	return action == "SCMP_ACT_ALLOW" || action == "SCMP_ACT_LOG" || action == "SCMP_ACT_TRACE" || action == "SCMP_ACT_NOTIFY"
}

// denied returns which dangerous calls a profile lets a container without
// capabilities make.
func (p *seccompProfile) permitted() []string {
	var open []string
	for _, call := range dangerousCalls {
		ok := allows(p.DefaultAction)
		for _, rule := range p.Syscalls {
			if rule.Name != call && !slices.Contains(rule.Names, call) {
				continue
			}
			switch {
			case len(rule.Includes.Caps) > 0: // for those with capabilities; point 3 judges them
			case len(rule.Args) > 0 && !allows(rule.Action): // denied for some arguments only
			default:
				// Of several rules libseccomp keeps any that allows.
				ok = allows(rule.Action) || ok && rule.Action == p.DefaultAction
			}
		}
		if ok {
			open = append(open, call)
		}
	}
	return open
}

var errForeignProfile = errors.New("the engine's default seccomp profile is one of the operator's, whose content the engine does not tell")

func judgeSeccomp(_ context.Context, c Container) (harden.Verdict, error) {
	const id = "container.seccomp"
	const remedy = "remove the seccomp option, so that the engine's default profile applies"
	var v violations
	unseen := c.unseen()
	profile := "the engine's default"
	custom := ""
	for _, o := range c.SecurityOpt { // the last one holds
		if key, value := securityOption(o); key == "seccomp" {
			custom = value
		}
	}
	switch {
	case custom == "unconfined" || c.Privileged:
		v.add(id+".unconfined", 0, remedy, "system calls are not filtered",
			declared("inspect HostConfig.SecurityOpt", fmt.Sprintf("seccomp=%s privileged=%t", custom, c.Privileged), "the default profile"))
	case custom == "" || custom == "builtin" || custom == "default":
		if custom == "" && c.Engine.SeccompProfile != "default" && c.Engine.SeccompProfile != "builtin" && unseen == nil {
			if c.Engine.SeccompProfile == "" || c.Engine.SeccompProfile == "unconfined" {
				break // the kernel says whether there is a filter
			}
			unseen = errForeignProfile
		}
	default:
		profile = "a profile of the operator's"
		var p seccompProfile
		if err := json.Unmarshal([]byte(custom), &p); err != nil || p.DefaultAction == "" {
			unseen = errors.Join(unseen, fmt.Errorf("the container's seccomp profile cannot be read: it is not JSON with a defaultAction"))
			break
		}
		if open := p.permitted(); len(open) > 0 {
			v.add(id+".profile", 0, remedy, "its seccomp profile allows "+joinSome(open),
				declared("inspect HostConfig.SecurityOpt", "allowed: "+strings.Join(open, " "), "denied"))
		}
	}
	if c.Kernel == nil || c.unseen() != nil {
		return v.verdict(unseen)
	}
	if o := c.Kernel.every("Seccomp: 2", func(p *Process) (string, bool) { return fmt.Sprintf("Seccomp: %d", p.Seccomp), p.Seccomp > 0 }); o.count > 0 {
		v.add(id+".process", 0, remedy, count(o.count, "thread makes", "threads make")+" system calls that nothing filters", o.shown...)
	}
	return v.verdict(unseen, c.Kernel.all("Seccomp is 2"), declared("inspect HostConfig.SecurityOpt", profile, ""))
}
