package compose

import (
	"errors"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

var windowsPath = regexp.MustCompile(`^([A-Za-z]:([\\/]|$)|\\\\|//[./?]/)`)

func isWindows(p string) bool { return windowsPath.MatchString(p) }

// canonical spells a path of the host so that it can be compared: clean, in
// lower case, without a drive letter and without the names that lead to the
// same places.
func canonical(p string) string {
	p = strings.ToLower(p)
	if isWindows(p) {
		p = strings.ReplaceAll(p, `\`, "/")
		if len(p) > 1 && p[1] == ':' {
			p = p[2:]
		}
	}
	p = path.Clean("/" + p)
	for again := true; again; {
		again = false
		for _, alias := range []string{"/host_mnt", "/private", "/proc/1/root", "/proc/self/root", "/mnt/host"} {
			if rest, ok := strings.CutPrefix(p, alias+"/"); ok {
				p, again = "/"+rest, true
			}
		}
	}
	if p == "/var/run" || strings.HasPrefix(p, "/var/run/") {
		p = p[len("/var"):]
	}
	return p
}

// within reports whether p is dir or below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// Trees that belong to the machine: nothing at, below or above them is
// mounted into a container of an agent.
var systemTrees = []string{
	"/bin", "/boot", "/dev", "/efi", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/snap", "/sys", "/usr",
	"/var/cache/apt", "/var/lib/apt", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/dpkg",
	"/var/lib/kubelet", "/var/lib/rancher", "/var/lib/snapd", "/var/lib/systemd", "/var/lib/tailscale", "/var/log", "/var/spool",
	"/library", "/system", "/windows", "/program files", "/program files (x86)", "/programdata",
}

// Harmless parts of them, read only.
var harmless = []string{
	"/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo", "/etc/ssl/certs", "/usr/share/ca-certificates",
}

// What is private in a home directory.
var privateInHome = []string{
	".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".npmrc", ".pypirc", ".git-credentials", ".gitconfig",
	".bashrc", ".bash_profile", ".bash_login", ".bash_history", ".profile", ".zshrc", ".zprofile", ".zshenv", ".zsh_history",
	".password-store", ".mozilla", ".thunderbird", ".pki", ".local", ".cache", ".colima", ".lima", ".rd", ".orbstack",
	".config/autostart", ".config/systemd", ".config/gcloud", ".config/gh", ".config/google-chrome", ".config/chromium", ".config/containers",
	"library", "appdata", "bin",
}

// splitHome splits a path at the home directory that it is in. rest is "."
// for the home directory itself.
func splitHome(p string) (rest string, ok bool) {
	if p == "/root" {
		return ".", true
	}
	if r, ok := strings.CutPrefix(p, "/root/"); ok {
		return r, true
	}
	for _, homes := range []string{"/home/", "/users/", "/var/home/"} {
		if r, ok := strings.CutPrefix(p, homes); ok {
			if _, rest, ok := strings.Cut(r, "/"); ok {
				return rest, true
			}
			return ".", true
		}
	}
	return "", false
}

// sensitive says why a path of the host must not be mounted, or nothing.
func sensitive(p string, readOnly bool) string {
	p = canonical(p)
	if readOnly && slices.ContainsFunc(harmless, func(h string) bool { return within(p, h) }) {
		return ""
	}
	for _, t := range systemTrees {
		if within(p, t) {
			return "a part of the system"
		}
		if within(t, p) {
			return "a directory that contains " + t
		}
	}
	if slices.Contains([]string{"/home", "/users", "/var/home", "/tmp", "/mnt", "/media", "/volumes"}, p) {
		return "shared by all of the machine"
	}
	if rest, ok := splitHome(p); ok {
		if rest == "." {
			return "a home directory"
		}
		for _, private := range privateInHome {
			if within(rest, private) || within(private, rest) {
				return "private to a user"
			}
		}
	}
	return ""
}

// Directories in which container engines have their sockets.
var socketDirs = []string{
	"/run/docker", "/run/containerd", "/run/podman", "/run/crio", "/run/buildkit", "/run/user",
	"/run/k3s", "/run/cri-dockerd", "/run/host-services", "/run/snap.docker", "/var/lib/docker", "/var/lib/containerd",
}

var (
	engineSocket = regexp.MustCompile(`(docker|containerd|podman|crio|cri-o|buildkit|nerdctl)[^/]*\.(sock|socket)(\.[a-z]+)?$|/docker_engine[^/]*$|/containerd-containerd$`)
	agentSocket  = regexp.MustCompile(`/ssh-[^/]+(/|$)|ssh-auth\.sock$|/agent\.[0-9]+$`)
	anySocket    = regexp.MustCompile(`\.(sock|socket)$`)
)

// socketReach says which socket a path of the host leads to, or nothing.
func socketReach(p string) string {
	p = canonical(p)
	switch {
	case engineSocket.MatchString(p):
		return "a socket of a container engine"
	case agentSocket.MatchString(p):
		return "a socket of an SSH agent"
	case anySocket.MatchString(p):
		return "a socket of the host"
	case strings.HasPrefix(p, "/pipe/") || strings.HasPrefix(p, "/./pipe/"):
		return "a named pipe of the host"
	case within("/run", p), within("/var/run", p):
		return "a directory that contains the sockets of container engines"
	}
	for _, d := range socketDirs {
		if within(p, d) {
			return "a directory that contains sockets of a container engine"
		}
	}
	if within(p, "/proc") {
		return "the root of other processes, and with it the sockets of container engines"
	}
	if rest, ok := splitHome(p); ok {
		if rest == "." {
			return "a home directory, where rootless engines have their sockets"
		}
		for _, d := range []string{".docker", ".colima", ".lima", ".orbstack", ".rd", ".local/share/containers"} {
			if within(rest, d) || within(d, rest) {
				return "a directory where container engines have their sockets"
			}
		}
	}
	if p == "/home" || p == "/users" {
		return "home directories, where rootless engines have their sockets"
	}
	return ""
}
