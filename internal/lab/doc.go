// Package lab builds a small world in which to attack and defend a real
// machine: a host that runs a real dockerd, an "internet" and a neighbour on
// the same cable, all in network namespaces of their own.
//
//	     switch (a bridge in a namespace of its own)
//	    /            |               \
//	host          internet          neighbour
//	192.0.2.1     192.0.2.2         192.0.2.3
//	2001:db8::1   2001:db8::2       2001:db8::3
//	dockerd       198.51.100.10
//	              2001:db8:ffff::10
//
// Begin with [Start]; tests use package labtest, which skips with the reason
// where a lab cannot run. Several labs may run at once, in one process or in
// many: they share no names and cannot reach each other.
//
// # What a lab touches
//
// The machine the lab runs on keeps its Docker, its firewall, its interfaces
// and its /etc as they are. The lab's host has copies of /etc and /run, bound
// over the real ones in a mount namespace that only the lab's processes are
// in; see [Lab.HostPath]. Processes are in the ordinary PID namespace, so that
// /proc/PID/root of a container can be read from outside.
//
// The kernel is the machine's. Using a lab may make it load modules, and on one
// with AppArmor the engine loads the profile docker-default if no other engine
// has; both stay.
//
// # What a lab leaves
//
// Nothing. Everything the lab makes is either held by a file descriptor of the
// owner and its processes (namespaces, with all links, rules and mounts in
// them), or is in the one cgroup or the one directory that bear the lab's
// name. [Lab.Close] kills the cgroup, hung processes included, and removes
// both. If the owner is killed, the next [Start] in any process does it; see
// [Sweep].
package lab
