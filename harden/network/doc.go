// Package network judges who can reach a machine's agent over the network:
// points 6 to 9 of the framework.
//
// [Checks] returns the checks that a [Config] describes; [Local] is the Config
// of the machine that the process runs on. All of them are functions of one
// [Machine]: its sockets, the rules in its kernel, its containers and what
// tailscaled says, looked at once per audit.
//
// What decides is the fate of packets. A check does not look for a rule, or
// for a word in a program's output: it asks package firewall what the kernel
// would do with a new connection from outside, over each interface that leads
// there, of both families, from public, private and neighbouring addresses and
// from those that the rules themselves name. A rule that nobody jumps to, that
// comes too late, that another flavour of iptables holds or that matches the
// wrong port therefore closes nothing here, and a firewall of another make that
// does close is as good. What is not understood is unknown.
//
// Where the caller has a [Vantage], a place on the outside, the checks also
// try: a connection that succeeds is a finding whatever the rules say, and one
// that does not makes of inspected evidence probed evidence.
//
// What this machine cannot see, such as a firewall of the cloud's, a router
// that translates addresses, or the access rules of the tailnet, is neither
// counted for it nor against it.
package network
