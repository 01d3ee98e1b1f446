// Package egress cuts workloads, such as containers that run an agent, off the
// network: all of it, at once, whatever other rules there are.
//
// A [Lock] does it; [Lock.Arm] does what is slow beforehand, so that [Lock.Do]
// takes a few hundred microseconds. A [Prober] finds out whether it holds, and
// shares nothing with the Lock: it sends packets as the workload would, and
// looks whether any of them comes out.
//
// # What is cut
//
// In the network namespace of the host, table inet hardshell_kill, or
// hardshell_kill_LABEL, drops what comes from a bridge of a workload and what
// goes to it, before connection tracking and before anything of Docker, UFW or
// iptables sees it. So established connections end too, and what an engine
// publishes is no longer served. It knows bridges by name, and so outlasts a
// restart of the workload and of the engine. The bridge table of that name drops
// what the ports of these bridges send to each other; neighbours keep theirs
// when the workload is restarted, and not when the engine is. Both cut the whole
// network of the workload: whoever else is on its bridges is cut off with it,
// since a neighbour could pass on what it says.
//
// In the network namespace of each workload, tables of the same name drop
// everything that is sent or received there, what packet sockets send included.
// They close what the host's rules cannot see: queries that an embedded
// resolver answers from the host's namespace, and interfaces that go past the
// host's (macvlan, ipvlan). They end with the namespace; call [Lock.Do] again
// when a workload has been started or connected to a network. It adds what is
// new, and changes nothing else.
//
// A workload in the network namespace of the host has its control group to tell
// its sockets from others', and nothing else of the host is dropped.
//
// # What is not cut
//
// What reaches out by other means than packets of its own: a socket of the
// engine, a file that another workload reads or, in the host's network namespace,
// sockets with abstract addresses. What the kernel had sent already, and what
// waits in a queue of the host's, as on a slow line. What
// a process with privileges over the rules takes back: in a network namespace
// CAP_NET_ADMIN does, in the host's CAP_NET_RAW suffices, since nothing that
// filters packet sockets there knows control groups. What comes by a cable that
// the host's interfaces are passed by on (macvlan), a packet socket hears before
// it is dropped. Sockets that a workload in
// the host's namespace was handed by somebody else, as a service manager does:
// they belong to the control group in which they were made. [Lock.Do] names
// what it can see of these by an [OpenError]. Freeze or kill the workload too.
package egress
