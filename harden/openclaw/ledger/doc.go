// Package ledger reads what OpenClaw itself has recorded of the tools that its
// agents called.
//
// OpenClaw keeps two records, both in SQLite: the transcript of each session,
// in a database of each agent, with the arguments of every call; and an activity
// log, in the database of its state, which says of every call when it began and
// how it ended. Neither can be relied on to be whole: whoever owns the agent's
// machine can change both. They are worth comparing with a trail, and worth
// copying into one while they are young. [Open] copies the databases, and
// [Ledger.ToolCalls] joins the two; [Ingest] puts the calls into a trail, and
// package audit/reconcile compares them with what others know.
//
// OpenClaw is not disturbed: its files are only read, no lock is taken, and no
// file is made beside them. The copies are as private as the originals, which
// hold OAuth tokens: they are removed from their directory as soon as they are
// open, where the system allows that. Arguments pass through a [trail.Redactor]
// before they leave this package.
//
// The databases may have been made by an attacker. They are opened with SQLite's
// defences on, no view and no trigger of theirs is run, and what is read is
// bounded. This is nevertheless SQLite, in Go: let it run where a crash does no
// harm.
//
// Facts about OpenClaw are those of version 2026.9.6: schema 18 of its state,
// schema 23 of an agent. Other versions can be read as long as the tables have
// the columns that are needed; those that are missing are named.
package ledger
