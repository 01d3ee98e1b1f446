package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The table is read with netlink itself and not with package nftables, which
// leaves out what it does not know: a rule with a condition that makes it never match would look as
// if it had none. It also forgets which error it met.

// kernelTable is what the kernel holds under the table's name.
type kernelTable struct {
	flags  uint32
	chains map[string]*kernelChain
	order  []string // of the chains
	sets   map[string]*kernelSet
}

type kernelChain struct {
	hook, priority, policy uint32
	kind                   string
	rules                  [][]kernelExpr
}

type kernelExpr struct {
	name string
	data []byte
}

type kernelSet struct {
	flags, keyLen uint32
	elements      map[string]bool // keys, with a byte that says if it is the end of an interval
}

// errInterrupted says that somebody changed what was being read.
var errInterrupted = errors.New("the rules change faster than they can be read")

// read returns nil if there is no such table.
func read(conn *netlink.Conn) (t *kernelTable, err error) {
	for range 10 {
		if t, err = readOnce(conn); !errors.Is(err, errInterrupted) {
			return t, err
		}
	}
	return nil, err
}

func readOnce(conn *netlink.Conn) (*kernelTable, error) {
	tables, err := dump(conn, unix.NFT_MSG_GETTABLE, nil)
	if err != nil {
		return nil, err
	}
	var t *kernelTable
	for _, m := range tables {
		if m.text(unix.NFTA_TABLE_NAME) == tableName {
			t = &kernelTable{flags: m.number(unix.NFTA_TABLE_FLAGS), chains: make(map[string]*kernelChain), sets: make(map[string]*kernelSet)}
		}
	}
	if t == nil {
		return nil, nil
	}
	if err := errors.Join(t.readChains(conn), t.readSets(conn)); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *kernelTable) readChains(conn *netlink.Conn) error {
	chains, err := dump(conn, unix.NFT_MSG_GETCHAIN, nil)
	if err != nil {
		return err
	}
	for _, m := range chains {
		if m.text(unix.NFTA_CHAIN_TABLE) != tableName {
			continue
		}
		c := &kernelChain{policy: m.number(unix.NFTA_CHAIN_POLICY), kind: m.text(unix.NFTA_CHAIN_TYPE)}
		hook, err := parse(m[unix.NFTA_CHAIN_HOOK])
		if err != nil {
			return err
		}
		c.hook, c.priority = hook.number(unix.NFTA_HOOK_HOOKNUM), hook.number(unix.NFTA_HOOK_PRIORITY)
		name := m.text(unix.NFTA_CHAIN_NAME)
		t.chains[name] = c
		t.order = append(t.order, name)
	}
	rules, err := dump(conn, unix.NFT_MSG_GETRULE, []netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: zeroEnded(tableName)}})
	if err != nil {
		return err
	}
	for _, m := range rules {
		if m.text(unix.NFTA_RULE_TABLE) != tableName {
			continue // an older kernel, which sends them all
		}
		exprs, err := parseExprs(m[unix.NFTA_RULE_EXPRESSIONS])
		if err != nil {
			return err
		}
		c := t.chains[m.text(unix.NFTA_RULE_CHAIN)]
		if c == nil {
			return errInterrupted
		}
		c.rules = append(c.rules, exprs)
	}
	return nil
}

func (t *kernelTable) readSets(conn *netlink.Conn) error {
	sets, err := dump(conn, unix.NFT_MSG_GETSET, []netlink.Attribute{{Type: unix.NFTA_SET_TABLE, Data: zeroEnded(tableName)}})
	if err != nil {
		return err
	}
	for _, m := range sets {
		name := m.text(unix.NFTA_SET_NAME)
		if m.text(unix.NFTA_SET_TABLE) != tableName {
			continue
		}
		s := &kernelSet{flags: m.number(unix.NFTA_SET_FLAGS), keyLen: m.number(unix.NFTA_SET_KEY_LEN), elements: make(map[string]bool)}
		t.sets[name] = s
		lists, err := dump(conn, unix.NFT_MSG_GETSETELEM, []netlink.Attribute{
			{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: zeroEnded(tableName)},
			{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: zeroEnded(name)},
		})
		if err != nil {
			if errors.Is(err, unix.ENOENT) {
				return errInterrupted
			}
			return err
		}
		for _, list := range lists {
			if err := s.readElements(list[unix.NFTA_SET_ELEM_LIST_ELEMENTS]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *kernelSet) readElements(data []byte) error {
	ad, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return err
	}
	for ad.Next() {
		e, err := parse(ad.Bytes())
		if err != nil {
			return err
		}
		key, err := parse(e[unix.NFTA_SET_ELEM_KEY])
		if err != nil {
			return err
		}
		s.elements[elementKey(key[unix.NFTA_DATA_VALUE], e.number(unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0)] = true
	}
	return ad.Err()
}

func elementKey(key []byte, end bool) string {
	if end {
		return string(key) + "\x01"
	}
	return string(key) + "\x00"
}

// attributes are those of a message, by their type.
type attributes map[uint16][]byte

func parse(data []byte) (attributes, error) {
	ad, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return nil, err
	}
	out := make(attributes)
	for ad.Next() {
		out[ad.Type()] = ad.Bytes()
	}
	return out, ad.Err()
}

func (a attributes) text(kind uint16) string {
	return string(bytes.TrimRight(a[kind], "\x00"))
}

func (a attributes) number(kind uint16) uint32 {
	if len(a[kind]) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[kind])
}

func zeroEnded(s string) []byte { return append([]byte(s), 0) }

// dump asks for all objects of a kind in family inet.
func dump(conn *netlink.Conn, kind uint16, filter []netlink.Attribute) ([]attributes, error) {
	data, err := netlink.MarshalAttributes(filter)
	if err != nil {
		return nil, err
	}
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if errors.Is(err, unix.EINTR) {
		return nil, errInterrupted
	}
	if err != nil {
		return nil, err
	}
	var out []attributes
	for _, m := range replies {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return nil, errInterrupted
		}
		if len(m.Data) < 4 {
			return nil, fmt.Errorf("answer of %d bytes", len(m.Data))
		}
		a, err := parse(m.Data[4:])
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func parseExprs(data []byte) ([]kernelExpr, error) {
	ad, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return nil, err
	}
	var out []kernelExpr
	for ad.Next() {
		e, err := parse(ad.Bytes())
		if err != nil {
			return nil, err
		}
		out = append(out, kernelExpr{e.text(unix.NFTA_EXPR_NAME), e[unix.NFTA_EXPR_DATA]})
	}
	return out, ad.Err()
}

// is reports whether the kernel's expression does what want does.
func (e kernelExpr) is(want expr.Any) bool {
	name := strings.ToLower(reflect.TypeOf(want).Elem().Name())
	switch want := want.(type) {
	case *expr.Counter:
		return e.name == name // whatever it has counted
	case *expr.Ct:
		// Package expr cannot read the direction, which is one byte.
		a, err := parse(e.data)
		_, directed := a[unix.NFTA_CT_DIRECTION]
		return err == nil && e.name == name &&
			a.number(unix.NFTA_CT_KEY) == uint32(want.Key) && a.number(unix.NFTA_CT_DREG) == want.Register &&
			directed == (want.Key == expr.CtKeyPROTODST) && (!directed || a[unix.NFTA_CT_DIRECTION][0] == byte(want.Direction))
	case *expr.Verdict:
		name = "immediate"
	}
	if e.name != name {
		return false
	}
	have := reflect.New(reflect.TypeOf(want).Elem()).Interface().(expr.Any)
	return expr.Unmarshal(unix.NFPROTO_INET, e.data, have) == nil && reflect.DeepEqual(have, want)
}
