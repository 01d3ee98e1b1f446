package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// Units describes the systemd units that keep a policy on a machine: one
// that restores it when the machine starts, one that watches it, and one that
// undoes what was left half done.
//
// Fields may be added in later versions.
type Units struct {
	// Restore and Watch are what the units run, the program with its
	// absolute path first. They run as root. Restore must end with a
	// status other than 0 if it has not applied the policy; see [Restore]. Watch runs
	// until it is stopped; see [Watcher].
	Restore, Watch []string

	// Recover is what undoes a change that nobody had confirmed when the
	// machine went down; see package guard. Empty means that there is nothing
	// of the kind.
	Recover []string

	// Policy is the absolute path of the file that Restore reads, in a
	// directory in which Watch may write.
	Policy string

	// Engine is the engine's unit; empty means docker.service.
	Engine string
}

// RestoreUnit returns the text of the unit that restores the policy, for
// /etc/systemd/system; it takes effect with "systemctl enable".
//
// It is ordered before the engine and before the network is configured, so that no
// packet meets a container without a policy, and after the services that load
// other rules, since some of them begin by flushing all there are. The engine
// requires it: if the policy cannot be restored, the engine does not start, since
// whatever it publishes would be open. To start it nevertheless, disable the unit.
func (u Units) RestoreUnit() (string, error) {
	command, err := execLine(u.Restore)
	if err != nil {
		return "", fmt.Errorf("firewall: restore unit: %w", err)
	}
	policy, err := unitPath(u.Policy)
	if err != nil {
		return "", fmt.Errorf("firewall: restore unit: policy: %w", err)
	}
	engine, err := u.engine()
	if err != nil {
		return "", fmt.Errorf("firewall: restore unit: %w", err)
	}
	return `[Unit]
Description=Restore what may be reached of containers (hardshell)
DefaultDependencies=no
RequiresMountsFor=` + policy + `
After=local-fs.target systemd-modules-load.service
After=nftables.service ufw.service firewalld.service netfilter-persistent.service iptables.service ip6tables.service
Wants=network-pre.target
Before=network-pre.target ` + engine + ` shutdown.target
Conflicts=shutdown.target
ReloadPropagatedFrom=nftables.service ufw.service

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=60
ExecStart=` + command + `
ExecReload=` + command + `

[Install]
RequiredBy=` + engine + `
`, nil
}

// RecoverUnit returns the text of the unit that undoes what nobody confirmed,
// before anything reads the files of a firewall.
func (u Units) RecoverUnit() (string, error) {
	command, err := execLine(u.Recover)
	if err != nil {
		return "", fmt.Errorf("firewall: recover unit: %w", err)
	}
	policy, err := unitPath(u.Policy)
	if err != nil {
		return "", fmt.Errorf("firewall: recover unit: policy: %w", err)
	}
	return `[Unit]
Description=Undo changes of the firewall that nobody confirmed (hardshell)
DefaultDependencies=no
RequiresMountsFor=` + policy + `
After=local-fs.target
Before=nftables.service ufw.service firewalld.service netfilter-persistent.service iptables.service ip6tables.service
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=60
ExecStart=` + command + `

[Install]
WantedBy=sysinit.target
`, nil
}

// WatchUnit returns the text of the unit that watches the policy. It may change
// packet filters and talk to the engine, and little else.
func (u Units) WatchUnit() (string, error) {
	command, err := execLine(u.Watch)
	if err != nil {
		return "", fmt.Errorf("firewall: watch unit: %w", err)
	}
	policy, err := unitPath(u.Policy)
	if err != nil {
		return "", fmt.Errorf("firewall: watch unit: policy: %w", err)
	}
	engine, err := u.engine()
	if err != nil {
		return "", fmt.Errorf("firewall: watch unit: %w", err)
	}
	return `[Unit]
Description=Watch what may be reached of containers (hardshell)
After=` + engine + `
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=` + command + `
Restart=always
RestartSec=2
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/run ` + path.Dir(policy) + `
ProtectKernelTunables=yes
PrivateTmp=yes
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
`, nil
}

func (u Units) engine() (string, error) {
	name := cmp.Or(u.Engine, "docker.service")
	for i := range len(name) {
		if c := name[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("@-_.:", c) >= 0) {
			return "", fmt.Errorf("engine: %q is not the name of a unit", name)
		}
	}
	if !strings.HasSuffix(name, ".service") || name == ".service" {
		return "", fmt.Errorf("engine: %q is not the name of a service, such as docker.service", name)
	}
	return name, nil
}

// execLine quotes a command as systemd.service(5) wants it.
func execLine(argv []string) (string, error) {
	if len(argv) == 0 {
		return "", errors.New("no command")
	}
	program, err := unitPath(argv[0])
	if err != nil {
		return "", fmt.Errorf("command: %w", err)
	}
	words := []string{program}
	for _, arg := range argv[1:] {
		if hasControl(arg) {
			return "", fmt.Errorf("command: argument %q has control characters", arg)
		}
		words = append(words, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(arg)+`"`)
	}
	return strings.Join(words, " "), nil
}

// unitPath permits what systemd takes literally everywhere.
func unitPath(name string) (string, error) {
	if !filepath.IsAbs(name) && !strings.HasPrefix(name, "/") {
		return "", fmt.Errorf("%q is not an absolute path", name)
	}
	for i := range len(name) {
		if c := name[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("/-_.+@,:~", c) >= 0) {
			return "", fmt.Errorf("%q has characters that systemd would interpret", name)
		}
	}
	return name, nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
