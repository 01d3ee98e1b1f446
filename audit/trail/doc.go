// Package trail is where hardshell records what it and the agent do.
//
// An [Event] is one thing that happened; a [Recorder] keeps events. [Lines]
// writes them as JSON Lines, which whoever can write to the file can change
// unseen.
package trail
