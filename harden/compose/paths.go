package compose

import (
	"errors"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/internal/hostpath"
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
func within(p, dir string) bool { return hostpath.Below(p, dir) }

// Parts of other systems than Linux, on which a compose file may be used too.
var (
	foreignTrees  = []string{"/library", "/system", "/windows", "/program files", "/program files (x86)", "/programdata"}
	foreignShared = []string{"/users", "/volumes"}
	foreignInHome = []string{"library", "appdata"}
)

// splitHome splits a path at the home directory that it is in. rest is "."
// for the home directory itself.
func splitHome(p string) (rest string, ok bool) {
	if r, ok := strings.CutPrefix(p, "/users/"); ok {
		p = "/home/" + r
	}
	return hostpath.SplitHome(p)
}

// sensitive says why a path of the host must not be mounted, or nothing.
func sensitive(p string, readOnly bool) string {
	p = canonical(p)
	kind, about := hostpath.Classify(p, readOnly)
	if kind == hostpath.Ordinary {
		kind, about = foreign(p)
	}
	switch kind {
	case hostpath.System:
		return "a part of the system"
	case hostpath.Holds:
		return "a directory that contains " + about
	case hostpath.Shared:
		return "shared by all of the machine"
	case hostpath.Home:
		return "a home directory"
	case hostpath.Private:
		return "private to a user"
	}
	return ""
}

func foreign(p string) (hostpath.Kind, string) {
	for _, t := range foreignTrees {
		if within(p, t) {
			return hostpath.System, t
		}
	}
	if slices.Contains(foreignShared, p) {
		return hostpath.Shared, p
	}
	rest, ok := splitHome(p)
	switch {
	case !ok:
	case rest == ".":
		return hostpath.Home, p
	default:
		if what, ok := hostpath.InHome(rest); ok {
			return hostpath.Private, what
		}
		for _, private := range foreignInHome {
			if within(rest, private) {
				return hostpath.Private, private
			}
		}
	}
	return hostpath.Ordinary, ""
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
