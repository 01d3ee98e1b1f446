// Package nft has the kernel keep a [firewall.Policy] by nftables.
//
// Everything is in a table of its own, inet hardshell, which belongs to nobody
// else: not to Docker, not to UFW, not to iptables. They neither see nor flush
// it, and it sees packets before they do. [Backend] puts the table into the kernel by
// netlink, whole and in one transaction, so there is no moment in
// which half of it holds; [Backend.Script] is the same as text, for "nft -f".
//
// # What the rules do
//
// A chain at the prerouting hook, after connection tracking and before any
// address is translated (priority -160), sees the port that the sender named.
// It drops what would reach a published port, whether the engine translates it
// or a proxy process listens there, what is addressed to a container, and what is
// addressed to a loopback address by a neighbour.
//
// A chain at the forward hook, before those of iptables (priority -10), drops
// what nobody has listed yet: whatever is sent on to a container network, or to
// an interface that is called docker… or br-… as those of future networks are.
//
// Neither chain concerns itself with answers, with what containers begin, with
// the machine's own services, or with what is sent on to others.
//
// # What the rules do not do
//
// A connection that was there before goes on. Containers in the host's network,
// and on macvlan and ipvlan networks, are not behind these hooks: the former
// are services of the machine, the latter machines of their own. What a proxy
// process of the engine serves is closed once the policy lists the port, or at
// once with [Backend.EngineCgroup].
//
// On a network that is made after the policy, containers reach each other and
// the outside, but no port that the machine publishes, until the policy lists
// it.
package nft
