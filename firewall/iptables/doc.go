// Package iptables has the kernel keep a [firewall.Policy] by iptables and
// ip6tables, for machines without nftables and for those whose operators look
// for their rules in DOCKER-USER. Package nft does more with less: prefer it,
// and use this one beside it or in its place.
//
// The rules are in chains of their own, HARDSHELL-…, which other chains jump to
// before anything else. They end in RETURN and not in ACCEPT, so that the rules
// of Docker, which keep networks apart, still apply. Chains are filled by
// iptables-restore, each table at once; nothing but these chains and the jumps
// to them is ever declared, flushed or deleted. It uses the flavour of
// iptables, legacy or nf_tables, that Docker's chains are in.
//
// # Where the rules can be
//
// DOCKER-USER ([DockerUser]) is where Docker tells people to put theirs. It
// sees what the machine sends on, after the destination has been translated:
// neither what a proxy process of the engine serves, nor, before Docker 28, what
// neighbours send to a port that is published on loopback only. Engines before 23 have
// none for IPv6, and Docker 29 has none at all with its nftables backend; see
// [ErrNoDockerUser].
//
// The mangle table ([Mangle]) needs no engine. Its chain PREROUTING sees the port
// that the sender named, whoever serves it, and its chain FORWARD, before DOCKER-USER
// does, what nobody has listed yet. These are the rules of package nft.
package iptables
