// Package access judges what an agent can get at: points 10 to 14 of the
// framework. The agent holds no credential (10), credentials rest masked or
// unreadable (11), what it does is recorded where it cannot be changed unseen
// (12), it can be stopped (13), and only the tools that a policy names can be
// used (14).
//
// [Checks] are the checks that a [Config] describes. What they look at are
// facts that hold no credential: [Agent] for a container, [Vault] for a
// project at Composio, [Offer] for what a gateway offers, [TrailReview] and
// [Completeness] for a log of package trail, [SwitchReview] for a switch of
// package killswitch. Judges are pure functions of those.
//
// A [Detector] says where a text holds credentials. The one of this package
// ([Keys]) knows those of Composio, of this module's gateway and of OpenClaw,
// and what the trouble is when one is missed: with it alone point 10 can fail
// and not pass. Package gitleaks, below this one, has a general one.
//
// # What cannot be seen
//
// The memory of a process; a credential that is encrypted or compressed, or cut
// into pieces of which none is known ([Config.Known] finds pieces of the
// credentials that it is told of); a file that is not in the places that are
// looked at, see [Agent]. What could have been seen and was not read makes the
// result unknown.
package access
