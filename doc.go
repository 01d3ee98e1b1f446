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
//   - To stop an agent: package killswitch, whose targets are those of
//     firewall/egress, harden/container/halt, composio and composio/gateway;
//     examples/managemyclaw puts them together.
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
//	harden/container/halt           freezes, kills and keeps down the agent's containers
//	harden/container/docker         the engine adapter; the only importer of Docker's client
//	harden/container/containertest  an engine in memory
//	harden/compose       check and harden a compose file, comments kept
//	harden/network       points 6 to 9: who can reach the machine
//	harden/network/tailscale        what tailscaled says of itself
//	harden/network/networktest      conformance kit for vantages
//	harden/access        points 10 to 14: what the agent holds and is offered, trail, kill switch
//	harden/access/gitleaks          the full detector of credentials
//	harden/access/netns  connects from a container's network
//	harden/access/policyfile        the gateway's policy, as package access judges it
//	harden/openclaw      the 14-point profile of an OpenClaw deployment
//	harden/openclaw/softstop        has OpenClaw end what it is doing
//	harden/openclaw/ledger          what OpenClaw itself has recorded
//	firewall             packet filter rules, the fate of a packet, a policy of exposure
//	firewall/nft         keeps the policy by nftables
//	firewall/iptables    keeps it by iptables, in DOCKER-USER and mangle
//	firewall/firewalltest           conformance kit for backends
//	firewall/ufw         what UFW is meant to do, and does
//	firewall/egress      cuts workloads off the network, and finds out whether they are
//	firewall/guard       undoes a change that locks its author out
//	composio             Composio's API, and revoking every account
//	composio/composiotest           a Composio in memory
//	composio/gateway     the policy enforcement point between agents and Composio
//	composio/gateway/halted         finds out whether a gateway refuses an agent
//	killswitch           stops an agent, confirms it, and keeps it down
//	killswitch/killswitchtest       conformance kit for actuators and observers
//	killswitch/remote    fires a switch by signed command, or from a page on a phone
//	audit                run many checks, score the 14 points, waivers
//	audit/report         text, JSON, SARIF, JUnit
//	audit/reconcile      compares the trail with Composio's log and OpenClaw's records
//	audit/trail          where every change and action is recorded
//	audit/trail/trailtest           conformance kit for recorders
//	audit/trail/witness  keeps checkpoints of trails elsewhere
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
