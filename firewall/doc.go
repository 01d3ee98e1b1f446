// Package firewall says what the packet filters of a machine do with a packet,
// and what they should do with it.
//
// A [Ruleset] is what iptables and nftables have in the kernel, in one model,
// whichever of them put it there. [Ruleset.Evaluate] follows a [Packet] through
// it in the kernel's order and returns a [Decision]: its fate, and the rules
// that decided it. What it does not understand it does not guess.
//
// A [Policy] says which ports of the machine, and of the containers on it, may
// be reached from outside, and from where. A [Backend] puts it into the kernel:
// packages nft and iptables, below this one, have one each. Package ufw reads
// and changes a UFW, and package guard undoes a change of any of them that cuts
// off whoever makes it.
//
// This package compiles nothing beside the standard library.
package firewall
