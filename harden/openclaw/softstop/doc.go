// Package softstop ends what an OpenClaw gateway is doing by its own protocol:
// it aborts every run, cancels every task, and has the gateway admit nothing
// more. Begin with [New].
//
// It is the gentlest step of a kill switch, and the only one that OpenClaw
// remembers: a gateway that is killed in the middle of a turn takes the turn up
// again when it is started, and one whose runs have been aborted does not. So a
// [Stopper] belongs before the steps that kill, and nobody should wait for it:
// it asks the program that it is to stop, which may not answer, or lie. What a
// run has left behind without the gateway knowing, such as a detached process,
// goes on; that is for a step to end which asks nobody.
//
// # What is left behind
//
// Nothing on disk. Admission is closed by a lease that the gateway holds in
// memory, and that ends with its process or two minutes after it was last
// renewed, by another [Stopper.Do]. The configuration is not touched: OpenClaw
// would write it anew and lose its comments.
//
// # The connection
//
// The gateway speaks JSON over a WebSocket, version 4 of its protocol, as of
// OpenClaw 2026.9.6. It gives the rights that this takes to a client with its
// token only if that client connects over loopback. In a container its loopback
// is another than the host's: connect from within, as the Dialer of package
// harden/access/netns does ([Config.Dial]).
package softstop
