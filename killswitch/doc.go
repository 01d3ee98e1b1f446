// Package killswitch stops an agent, makes sure that it has stopped, and keeps
// it down until somebody with a second secret releases it.
//
// A [Switch] is made of targets, such as the agent's way to the network, its
// processes, and its accounts. Each has a ladder of actuators, which act, and
// observers, which alone decide whether it is off. [Switch.Fire] engages the
// [Fence], which keeps everything of ours from starting the agent, stops all
// targets at the same time, and returns a signed [Receipt]. [Switch.Resume]
// completes a kill that was cut off, [Switch.Hold] keeps the agent down, and
// [Switch.Reset] lets it run again.
//
// What is slow is done beforehand, by [Switch.Arm] and [Switch.Keep], and all
// of it is rehearsed by [Switch.Drill].
//
// Whatever fails, a kill goes on: with the disk full, the trail down, and
// actuators that hang. What is not confirmed is said not to be.
//
// Package killswitchtest checks the actuators and observers of others.
package killswitch
