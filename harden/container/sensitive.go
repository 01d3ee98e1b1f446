package container

import (
	"path"
	"slices"
	"strings"
)

// Sensitive directories of a host. What is in a tree may not be mounted, nor
// what holds it; of a node only the directory itself and what holds it.
var (
	sensitiveTrees = []string{
		"/etc", "/boot", "/proc", "/sys", "/dev", "/lib/modules", "/usr/lib/modules", "/usr/lib/systemd",
		"/lib/systemd", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet",
		"/var/lib/systemd", "/var/lib/tailscale", "/var/spool/cron", "/run", "/var/run", "/var/log",
		"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin",
	}
	sensitiveNodes = []string{"/", "/home", "/usr", "/var", "/var/lib", "/lib", "/usr/local", "/usr/lib", "/opt", "/srv", "/mnt", "/tmp", "/var/tmp"}

	// homeSecrets are sensitive in anybody's home.
	homeSecrets = []string{
		".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".git-credentials", ".npmrc", ".pypirc",
		".bashrc", ".bash_profile", ".profile", ".zshrc", ".bash_history", ".config/gcloud", ".config/systemd",
		".config/autostart", ".local/share/keyrings", ".password-store", ".mozilla", ".config/google-chrome",
	}

	// harmless may be mounted read-only: every image has files like them.
	harmless = []string{
		"/etc/localtime", "/etc/timezone", "/etc/ssl/certs", "/etc/ca-certificates", "/usr/share/zoneinfo",
		"/usr/share/ca-certificates", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted",
	}
)

// sensitive says why a path of the host may not be mounted, or "".
func sensitive(name string, readOnly bool) string {
	name = path.Clean("/" + name)
	if readOnly && slices.ContainsFunc(harmless, func(h string) bool { return below(name, h) }) {
		return ""
	}
	for _, s := range sensitiveTrees {
		if below(name, s) {
			return "it is in " + s
		}
		if below(s, name) {
			return "it holds " + s
		}
	}
	if slices.Contains(sensitiveNodes, name) {
		return "it holds what others keep"
	}
	home := name == "/root"
	in, inHome := strings.CutPrefix(name, "/root/")
	if rest, ok := strings.CutPrefix(name, "/home/"); ok {
		_, in, inHome = strings.Cut(rest, "/")
		home = !inHome
	}
	switch {
	case home:
		return "it is a user's home"
	case inHome:
		for _, s := range homeSecrets {
			if below("/"+in, "/"+s) || below("/"+s, "/"+in) {
				return "it holds or is in a user's " + s
			}
		}
	}
	return ""
}

// sensitive says why a path of the host may not be mounted, or "".
func (c *Container) sensitive(name string, readOnly bool) string {
	if root := c.Engine.DataRoot; root != "" && (below(path.Clean(name), root) || below(root, path.Clean(name))) {
		return "it is in, or holds, the engine's " + root
	}
	return sensitive(name, readOnly)
}
