package container

import (
	"path"

	"github.com/managemyclaw/hardshell/internal/hostpath"
)

// sensitive says why a path of the host may not be mounted, or "".
func sensitive(name string, readOnly bool) string {
	switch kind, about := hostpath.Classify(name, readOnly); kind {
	case hostpath.System:
		return "it is in " + about
	case hostpath.Holds:
		return "it holds " + about
	case hostpath.Shared:
		return "it holds what others keep"
	case hostpath.Home:
		return "it is a user's home"
	case hostpath.Private:
		return "it holds or is in a user's " + about
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
