package container

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
)

// judgeIDs judges point 1: the ids of every thread, and the user that the next
// process started in the container would have.
func judgeIDs(_ context.Context, c Container) (harden.Verdict, error) {
	const (
		id     = "container.non_root"
		remedy = "run the container as a user other than root, with a group other than root's: --user UID:GID"
	)
	var v violations
	remapped := c.Engine.UsernsRemap && c.UsernsMode != "host"
	root := declaredRoot(c.User)
	unseen := c.unseen()
	if unseen == nil && c.Kernel.UID == 0 {
		root = true
	}
	if root && !remapped {
		v.add(id+".configured", 0, remedy, "its configured user is root: whatever is started in it begins as root",
			declared("inspect Config.User", fmt.Sprintf("%q", c.User), "a user whose id is not 0"))
	}
	for _, g := range c.GroupAdd {
		if g == "0" || g == "root" || g == "docker" {
			v.add(id+".group_add", 0, "remove the added group", fmt.Sprintf("the group %s is added to its processes", g),
				declared("inspect HostConfig.GroupAdd", g, "no such group"))
		}
	}
	if unseen != nil {
		return v.verdict(unseen)
	}
	k := c.Kernel
	if o := k.every("no id is 0", func(p *Process) (string, bool) {
		return fmt.Sprintf("Uid %v", p.UIDs), !slices.Contains(p.UIDs[:], 0)
	}); o.count > 0 {
		v.add(id+".uid", 0, remedy, count(o.count, "thread runs", "threads run")+" with a user id of root", o.shown...)
	}
	if o := k.every("no id is 0", func(p *Process) (string, bool) {
		return fmt.Sprintf("Gid %v Groups %v", p.GIDs, p.Groups), !slices.Contains(p.GIDs[:], 0) && !slices.Contains(p.Groups, 0)
	}); o.count > 0 {
		v.add(id+".gid", harden.SeverityMedium, remedy, count(o.count, "thread runs", "threads run")+" with a group id of root", o.shown...)
	}
	if o := k.every("no group that may use the engine", func(p *Process) (string, bool) {
		for _, g := range c.Host.DockerGroups {
			if slices.Contains(p.Groups, g) || slices.Contains(p.GIDs[:], g) {
				return fmt.Sprintf("Groups %v include %d, which owns the engine's socket", p.Groups, g), false
			}
		}
		return "", true
	}); o.count > 0 {
		v.add(id+".engine_group", 0, "remove the group", count(o.count, "thread is", "threads are")+" in a group that may use the container engine", o.shown...)
	}
	return v.verdict(nil, k.all("no user, group or supplementary group id is 0"),
		declared("inspect Config.User", fmt.Sprintf("%q (uid %d, gid %d)", c.User, k.UID, k.GID), ""))
}

// declaredRoot reports whether a user as given is root without a look into the
// image: Docker parses numbers leniently, so that "00" and "+0" are 0.
func declaredRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	if name == "" || name == "root" {
		return true
	}
	n, err := strconv.ParseInt(name, 10, 64)
	return err == nil && n == 0
}
