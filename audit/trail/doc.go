// Package trail is where hardshell records what it and the agent do, so that
// nobody can change it afterwards unseen.
//
// An [Event] is one thing that happened; a [Recorder] keeps events; a [Log] is
// the Recorder that stands up to whoever owns the machine later. Make its key
// with [GenerateKey] and the log with [Create]; from then on [Open] it. Others
// need only the public key: a [Verifier] tells whether a log is what was
// written, and names the first record that is not; a [Reader] queries, follows,
// proves and exports it.
//
// A log cannot defend itself against somebody who has its directory and its
// key, nor notice by itself that its end is gone. So give its checkpoints to a
// [Witness] elsewhere, with [Log.Witness], and verify against them.
//
// A key that is old, or known to others, is replaced by [Log.HandOver]: the log
// ends, and another continues it. [Verifier.VerifyChain] follows from the key of
// any of them to all.
//
// Secrets are removed before anything is hashed: see [Redactor]. Package
// trailtest is the conformance kit for other Recorders, package witness pins
// checkpoints over HTTP. [Lines] is a plain log for those who want no more.
package trail
