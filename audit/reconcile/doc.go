// Package reconcile finds the actions of an agent that nobody recorded, and the
// records of actions that never were.
//
// A trail shows that nobody changed what is in it; it cannot show what never
// came to it. So a [Reconciler] compares it with what others know: the log that
// Composio keeps of every execution, and the calls of tools that OpenClaw has
// in its own records. What they have and the trail has not went round the
// gateway; what the trail has and they have not did not happen, or was removed
// there.
//
// None of the three is proof by itself. Composio's log can be changed by
// whoever runs Composio, and OpenClaw's by the agent's machine; the trail can be
// verified. Agreement of all three is worth more than any one of them.
//
// What could not be read in full proves nothing to be missing: then
// [Report.Complete] is false and what depends on it is in [Report.Open]. So is
// what is too recent to be told.
package reconcile
