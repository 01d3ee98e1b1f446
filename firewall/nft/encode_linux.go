package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

const statusTranslated = 1 << 5 // IPS_DST_NAT of <linux/netfilter/nf_conntrack_common.h>

// hooks are numbers of enum nf_inet_hooks.
var hooks = map[string]uint32{
	"prerouting": unix.NF_INET_PRE_ROUTING,
	"input":      unix.NF_INET_LOCAL_IN,
	"forward":    unix.NF_INET_FORWARD,
}

// replace adds to the batch of conn what replaces the table, if any, by t.
func (t *table) replace(conn *nftables.Conn, cgroupID func(path string) (uint64, error)) error {
	nt := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	// To delete what is not there would be an error.
	conn.AddTable(nt)
	conn.DelTable(nt)
	conn.AddTable(nt)
	for i, s := range t.sets {
		ns, elements := s.encode(nt)
		// A number in the transaction. Left to the package, it is one that all
		// connections count up without a lock.
		ns.ID = uint32(i + 1)
		if err := conn.AddSet(ns, elements); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	for _, c := range t.chains {
		hook, priority, policy := nftables.ChainHook(hooks[c.hook]), nftables.ChainPriority(c.priority), nftables.ChainPolicyAccept
		nc := conn.AddChain(&nftables.Chain{
			Name: c.name, Table: nt, Type: nftables.ChainTypeFilter, Hooknum: &hook, Priority: &priority, Policy: &policy,
		})
		for _, r := range c.rules {
			exprs, err := r.encode(cgroupID)
			if err != nil {
				return err
			}
			nr := &nftables.Rule{Table: nt, Chain: nc, Exprs: exprs}
			if r.comment != "" {
				nr.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
			}
			conn.AddRule(nr)
		}
	}
	return nil
}

func (s *set) encode(t *nftables.Table) (*nftables.Set, []nftables.SetElement) {
	ns := &nftables.Set{Table: t, Name: s.name}
	switch {
	case s.interfaces != nil:
		ns.KeyType, ns.KeyByteOrder = nftables.TypeIFName, binaryutil.NativeEndian
	case s.ranges != nil && s.ranges[0].from.Is4():
		ns.KeyType, ns.Interval = nftables.TypeIPAddr, true
	case s.ranges != nil:
		ns.KeyType, ns.Interval = nftables.TypeIP6Addr, true
	default:
		ns.KeyType, ns.KeyByteOrder = nftables.TypeInetService, binaryutil.BigEndian
	}
	return ns, s.encodeElements()
}

func (s *set) encodeElements() []nftables.SetElement {
	var out []nftables.SetElement
	for _, name := range s.interfaces {
		out = append(out, nftables.SetElement{Key: interfaceName(name)})
	}
	if len(s.ranges) > 0 {
		// nft marks the beginning of what is not in the set, and so do we.
		if zero := unspecified(s.ranges[0].from); s.ranges[0].from != zero {
			out = append(out, nftables.SetElement{Key: zero.AsSlice(), IntervalEnd: true})
		}
	}
	for _, r := range s.ranges {
		out = append(out, nftables.SetElement{Key: r.from.AsSlice()})
		if end := r.to.Next(); end.IsValid() { // else it reaches to the last address
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	for _, port := range s.ports {
		out = append(out, nftables.SetElement{Key: binary.BigEndian.AppendUint16(nil, port)})
	}
	return out
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// interfaceName pads a name as the kernel compares it.
func interfaceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func (r rule) encode(cgroupID func(string) (uint64, error)) ([]expr.Any, error) {
	var out []expr.Any
	for _, m := range r.matches {
		switch m := m.(type) {
		case matchState:
			out = append(out, bits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)...)
		case matchTranslated:
			out = append(out, bits(expr.CtKeySTATUS, statusTranslated)...)
		case matchLocal:
			out = append(out,
				&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
				equal(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)))
		case matchNeighbours:
			out = append(out, metaEqual(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6)...)
			out = append(out, metaEqual(expr.MetaKeyL4PROTO, unix.IPPROTO_ICMPV6)...)
			out = append(out,
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
				&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{133}},
				&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{137}})
		case matchInterface:
			out = append(out, m.encode()...)
		case matchAddr:
			out = append(out, m.encode()...)
		case matchPort:
			out = append(out, metaEqual(expr.MetaKeyL4PROTO, byte(m.protocol))...)
			if m.original {
				out = append(out, &expr.Ct{Register: 1, Key: expr.CtKeyPROTODST, Direction: 0})
			} else {
				out = append(out, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
			}
			out = append(out, lookup(m.set))
		case matchCgroup:
			id, err := cgroupID(m.path)
			if err != nil {
				return nil, err
			}
			out = append(out,
				&expr.Socket{Key: expr.SocketKeyCgroupv2, Level: uint32(m.level), Register: 1},
				equal(binary.NativeEndian.AppendUint64(nil, id)))
		default:
			return nil, fmt.Errorf("rule %q: no encoding", r.text())
		}
	}
	if r.drop {
		return append(out, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}), nil
	}
	return append(out, &expr.Verdict{Kind: expr.VerdictAccept}), nil
}

func (m matchInterface) encode() []expr.Any {
	key := expr.MetaKeyIIFNAME
	if m.out {
		key = expr.MetaKeyOIFNAME
	}
	load := &expr.Meta{Key: key, Register: 1}
	if m.set != nil {
		return []expr.Any{load, lookup(m.set)}
	}
	if beginning, ok := strings.CutSuffix(m.name, "*"); ok {
		return []expr.Any{load, equal([]byte(beginning))}
	}
	return []expr.Any{load, equal(interfaceName(m.name))}
}

func (m matchAddr) encode() []expr.Any {
	addr := m.prefix.Addr()
	if m.set != nil {
		addr = m.set.ranges[0].from
	}
	// RFC 791 section 3.1, RFC 8200 section 3.
	protocol, source, length := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if addr.Is6() {
		protocol, source, length = unix.NFPROTO_IPV6, 8, 16
	}
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: source, Len: length}
	if !m.source {
		load.Offset += length
	}
	out := append(metaEqual(expr.MetaKeyNFPROTO, protocol), load)
	if m.set != nil {
		return append(out, lookup(m.set))
	}
	load.Len = uint32(m.prefix.Bits() / 8) // all of ours are whole bytes
	return append(out, equal(addr.AsSlice()[:load.Len]))
}

func lookup(s *set) *expr.Lookup { return &expr.Lookup{SourceRegister: 1, SetName: s.name} }

func equal(data []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func metaEqual(key expr.MetaKey, value byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, equal([]byte{value})}
}

// bits is true if one of the bits of mask is set.
func bits(key expr.CtKey, mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: key},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// element describes an element of a set for people.
func (s *set) element(key []byte, end bool) string {
	text := fmt.Sprintf("% x", key)
	switch {
	case len(key) == unix.IFNAMSIZ && s.interfaces != nil:
		text = cmp.Or(strings.TrimRight(string(key), "\x00"), "the empty name")
	case len(key) == 2:
		text = fmt.Sprint(binary.BigEndian.Uint16(key))
	default:
		if a, ok := netip.AddrFromSlice(key); ok {
			text = a.String()
		}
	}
	if end {
		return "the end before " + text
	}
	return text
}
