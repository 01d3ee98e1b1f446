// Package hostpath knows which paths of a host may not be mounted into a
// container.
package hostpath

import (
	"path"
	"slices"
	"strings"
)

// A Kind says what a path of a host is.
type Kind int

// Kinds of paths.
const (
	Ordinary Kind = iota // may be mounted
	System               // part of the system
	Holds                // holds a part of the system
	Shared               // where the whole machine keeps things
	Home                 // a user's home
	Private              // what a user keeps to himself, or what holds it
)

// systemTrees belong to the machine: with what is in them, and what holds them.
var systemTrees = []string{
	"/bin", "/boot", "/dev", "/efi", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/snap", "/sys", "/usr",
	"/var/cache/apt", "/var/lib/apt", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/dpkg",
	"/var/lib/kubelet", "/var/lib/rancher", "/var/lib/snapd", "/var/lib/systemd", "/var/lib/tailscale", "/var/log", "/var/run", "/var/spool",
}

// shared are sensitive as a whole; what is in them need not be.
var shared = []string{"/home", "/var/home", "/media", "/mnt", "/opt", "/srv", "/tmp", "/var/tmp"}

// harmless parts of the system may be mounted read-only: every image has files
// like them.
var harmless = []string{
	"/etc/localtime", "/etc/timezone", "/etc/ssl/certs", "/etc/ca-certificates", "/usr/share/zoneinfo",
	"/usr/share/ca-certificates", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted", "/usr/share/fonts",
}

// private is sensitive in anybody's home.
var private = []string{
	".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".npmrc", ".pypirc", ".git-credentials", ".gitconfig",
	".bashrc", ".bash_profile", ".bash_login", ".bash_history", ".profile", ".zshrc", ".zprofile", ".zshenv", ".zsh_history",
	".password-store", ".mozilla", ".thunderbird", ".pki", ".local", ".cache", ".colima", ".lima", ".rd", ".orbstack",
	".config/autostart", ".config/systemd", ".config/gcloud", ".config/gh", ".config/google-chrome", ".config/chromium", ".config/containers",
	"bin",
}

// Classify says what a path of a Linux host is, and which part of the system or
// of a home it is about.
func Classify(name string, readOnly bool) (kind Kind, about string) {
	name = path.Clean("/" + name)
	if readOnly && slices.ContainsFunc(harmless, func(h string) bool { return Below(name, h) }) {
		return Ordinary, ""
	}
	for _, t := range systemTrees {
		if Below(name, t) {
			return System, t
		}
		if Below(t, name) {
			return Holds, t
		}
	}
	if slices.Contains(shared, name) {
		return Shared, name
	}
	rest, ok := SplitHome(name)
	switch {
	case !ok:
	case rest == ".":
		return Home, name
	default:
		if p, ok := InHome(rest); ok {
			return Private, p
		}
	}
	return Ordinary, ""
}

// SplitHome splits a path at the home that it is in; rest is "." for the home
// itself.
func SplitHome(name string) (rest string, ok bool) {
	if name == "/root" {
		return ".", true
	}
	if rest, ok := strings.CutPrefix(name, "/root/"); ok {
		return rest, true
	}
	for _, homes := range []string{"/home/", "/var/home/"} {
		if rest, ok := strings.CutPrefix(name, homes); ok {
			if _, rest, ok := strings.Cut(rest, "/"); ok {
				return rest, true
			}
			return ".", true
		}
	}
	return "", false
}

// InHome reports whether a path below a home is private, or holds what is, and
// what that is.
func InHome(rest string) (what string, ok bool) {
	for _, p := range private {
		if Below(rest, p) || Below(p, rest) {
			return p, true
		}
	}
	return "", false
}

// Below reports whether name is dir or below it. Both are clean.
func Below(name, dir string) bool {
	return dir == "/" || name == dir || strings.HasPrefix(name, dir+"/")
}
