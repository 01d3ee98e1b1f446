// Package halt stops the containers of an agent, keeps them down, and finds out
// whether they are: the part of a kill switch that is about processes.
//
// Start with a [Tracker], which knows the agent's containers and is armed
// beforehand. [Freeze], [Kill], [KeepDown] and [Rung] are actuators that act
// through it; [Processes], [Frozen] and [Restarts] are observers that share
// nothing with them. They satisfy the interfaces of package killswitch, which
// this package does not import.
//
// What acts is the kernel: a write to a cgroup that was opened beforehand. So
// an engine that hangs delays nothing, and one that has died prevents nothing.
// What the engine alone can do is to forget a restart policy; it is asked to
// for a moment, and what it did not do is said.
package halt
