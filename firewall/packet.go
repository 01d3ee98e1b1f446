package firewall

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Protocol is the number of a transport protocol (IANA, Assigned Internet
// Protocol Numbers). As text it is its name, or the number in decimal.
type Protocol uint8

// Protocols.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

var protocolNames = map[Protocol]string{ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPv6: "icmpv6", SCTP: "sctp"}

// String returns the name, such as "tcp".
func (p Protocol) String() string {
	if name, ok := protocolNames[p]; ok {
		return name
	}
	return strconv.Itoa(int(p))
}

// MarshalText encodes p as String does.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reverses MarshalText.
func (p *Protocol) UnmarshalText(text []byte) error {
	name := strings.ToLower(string(text))
	for n, s := range protocolNames {
		if s == name {
			*p = n
			return nil
		}
	}
	n, err := strconv.ParseUint(name, 10, 8)
	if err != nil {
		return fmt.Errorf("firewall: unknown protocol %q", text)
	}
	*p = Protocol(n)
	return nil
}

// A ConnState is what connection tracking says of a packet.
type ConnState int

// States of a connection, as of nf_conntrack. The zero ConnState is that of a
// packet which would open a connection.
const (
	StateNew ConnState = iota
	StateEstablished
	StateRelated
	StateInvalid
	StateUntracked
)

func (s ConnState) String() string {
	switch s {
	case StateNew:
		return "new"
	case StateEstablished:
		return "established"
	case StateRelated:
		return "related"
	case StateInvalid:
		return "invalid"
	case StateUntracked:
		return "untracked"
	}
	return "ConnState(" + strconv.Itoa(int(s)) + ")"
}

// A Packet is one packet as it is when it reaches the machine, or when a process
// on it sends it: before any rule has seen it. Fields may be added in later
// versions.
type Packet struct {
	// In is the interface that it comes in by, such as "eth0" or "lo". Empty
	// means that a process on this machine sends it.
	In string

	Src, Dst netip.Addr // of one family
	Protocol Protocol

	// Ports of TCP, UDP and SCTP; zero for other protocols.
	SrcPort, DstPort uint16

	// ICMPType and ICMPCode are those of ICMP and ICMPv6. A zero type is an
	// echo request in a packet that opens a connection, and is not known
	// otherwise.
	ICMPType, ICMPCode uint8

	// State is that of its connection.
	State ConnState

	// Reply says that it goes from the side that answered to the side that
	// asked.
	Reply bool

	// NAT is, for a packet of a connection that is not new, where the
	// kernel has been sending its packets instead of to Dst. The zero AddrPort
	// means that Dst is not translated. It is not for a new connection: there
	// the rules decide.
	NAT netip.AddrPort

	// Mark is the packet's mark before any rule has set it.
	Mark uint32
}

// String returns the packet on one line, such as
// "eth0: tcp 192.0.2.2:40000 → 192.0.2.1:8080 new".
func (p Packet) String() string {
	var b strings.Builder
	if p.In != "" {
		b.WriteString(p.In + ": ")
	}
	end := func(a netip.Addr, port uint16) string {
		if port == 0 {
			return a.String()
		}
		return netip.AddrPortFrom(a, port).String()
	}
	fmt.Fprintf(&b, "%v %s → %s %v", p.Protocol, end(p.Src, p.SrcPort), end(p.Dst, p.DstPort), p.State)
	return b.String()
}

// A Fate is what becomes of a packet.
type Fate int

// Fates. The zero Fate is unknown.
const (
	FateUnknown Fate = iota // the rules hold something that is not understood, and it matters
	FateAccept              // it arrives, at a process of this machine or on its way out of it
	FateDrop                // it vanishes; or it may be refused, where that is all that is not known
	FateReject              // it is refused, and the sender told
)

func (f Fate) String() string {
	switch f {
	case FateUnknown:
		return "unknown"
	case FateAccept:
		return "accept"
	case FateDrop:
		return "drop"
	case FateReject:
		return "reject"
	}
	return "Fate(" + strconv.Itoa(int(f)) + ")"
}

// Closed reports whether the packet certainly does not arrive.
func (f Fate) Closed() bool { return f == FateDrop || f == FateReject }
