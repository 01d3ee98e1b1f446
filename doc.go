// Package hardshell is the map of a module that locks down a machine which runs
// an OpenClaw agent, proves that the lock holds, and stops the agent when it
// must be stopped. It has no code.
//
// # Where to begin
//
//   - To audit an OpenClaw deployment: package harden/openclaw lists the checks,
//     [github.com/managemyclaw/hardshell/audit.Auditor] runs them, and package
//     audit/report writes what came of it.
//   - To put right what fails: [github.com/managemyclaw/hardshell/harden.Fixer].
//   - To write a check of your own: package harden is the contract, and
//     harden/hardentest proves that you keep it. See examples/customcheck.
//
// # The packages
//
//	harden               the contract: checks, verdicts, evidence, plans
//	harden/host          how checks and remedies reach a machine
//	harden/host/hosttest a machine in memory
//	harden/hardentest    conformance kit for checks and remedies
//	harden/container     points 1 to 5 and the container's part of 6
//	harden/container/docker         the engine adapter; the only importer of Docker's client
//	harden/container/containertest  an engine in memory
//	harden/compose       check and harden a compose file, comments kept
//	harden/openclaw      the 14-point profile of an OpenClaw deployment
//	audit                run many checks, score the 14 points, waivers
//	audit/report         text, JSON, SARIF, JUnit
//	audit/trail          where every change is recorded
//	examples             one directory per question; each runs and has a test
//
// # What is promised
//
// A pass rests on evidence from the kernel or from the other side, at the level
// that the check demands. What could not be looked at is unknown, never pass.
// Every change is planned as data, verified by running the check again, and
// undone unless it passes. No secret is printed.
//
// Versions are semantic. Before v1 a minor version may break the API; the
// changelog says so under BREAKING CHANGES, with what to use instead. Interfaces
// that others implement have one or two methods, and structs may get fields:
// use their field names in literals. The two Go releases that the Go project
// supports are supported.
package hardshell
