package egress

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// engagedChain is a chain without a hook: it is there while the lock is
// engaged.
const engagedChain = "engaged"

// Priorities. Nothing of the engine's or of UFW's comes before -300; what
// comes later cannot take a drop back.
const (
	hostPriority   = -350
	insidePriority = -400
)

// A batch is one transaction of nftables: the kernel does all of it or nothing.
// Everything here is such that it may be done again: what is there already stays,
// and chains are emptied before they are filled.
type batch struct {
	*nftables.Conn
	table string
	sets  uint32
	err   error
}

func (b *batch) chain(t *nftables.Table, name string, hook *nftables.ChainHook, priority int32, policy nftables.ChainPolicy, device string) *nftables.Chain {
	c := b.AddChain(&nftables.Chain{
		Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook,
		Priority: new(nftables.ChainPriority(priority)), Policy: &policy, Device: device,
	})
	b.FlushChain(c)
	return c
}

func (b *batch) set(t *nftables.Table, name string, kind nftables.SetDatatype) *nftables.Set {
	// A number in the transaction. Left to the package, it is one that all
	// connections count up without a lock.
	b.sets++
	s := &nftables.Set{Table: t, Name: name, ID: b.sets, KeyType: kind, KeyByteOrder: binaryutil.NativeEndian}
	if err := b.AddSet(s, nil); err != nil {
		b.err = err
	}
	return s
}

func (b *batch) add(s *nftables.Set, elements []nftables.SetElement) {
	if len(elements) == 0 {
		return
	}
	if err := b.SetAddElements(s, elements); err != nil {
		b.err = err
	}
}

// drop adds a rule that drops what matches.
func (b *batch) drop(c *nftables.Chain, match ...expr.Any) {
	b.AddRule(&nftables.Rule{
		Table: c.Table, Chain: c,
		Exprs: append(match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}),
	})
}

func named(key expr.MetaKey, s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID},
	}
}

// host is what a plan has in the host's namespace. Without engage it drops
// nothing, unless it is engaged already.
func (b *batch) host(p *plan, engage bool) {
	inet := b.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: b.table})
	cut := b.set(inet, "interfaces", nftables.TypeIFName)
	pre := b.chain(inet, "prerouting", nftables.ChainHookPrerouting, hostPriority, nftables.ChainPolicyAccept, "")
	b.drop(pre, named(expr.MetaKeyIIFNAME, cut)...)
	fwd := b.chain(inet, "forward", nftables.ChainHookForward, hostPriority, nftables.ChainPolicyAccept, "")
	b.drop(fwd, named(expr.MetaKeyOIFNAME, cut)...)
	out := b.chain(inet, "output", nftables.ChainHookOutput, hostPriority, nftables.ChainPolicyAccept, "")
	b.drop(out, named(expr.MetaKeyOIFNAME, cut)...)
	if engage {
		b.AddChain(&nftables.Chain{Name: engagedChain, Table: inet})
		b.add(cut, interfaceNames(p.names))
	}

	bridge := b.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: b.table})
	ports := b.set(bridge, "ports", nftables.TypeIFName)
	pre = b.chain(bridge, "prerouting", nftables.ChainHookPrerouting, hostPriority, nftables.ChainPolicyAccept, "")
	b.drop(pre, named(expr.MetaKeyIIFNAME, ports)...)
	fwd = b.chain(bridge, "forward", nftables.ChainHookForward, hostPriority, nftables.ChainPolicyAccept, "")
	b.drop(fwd, named(expr.MetaKeyOIFNAME, ports)...)
	if engage {
		b.add(ports, interfaceNames(p.ports))
	}

	if len(p.group) == 0 {
		return
	}
	groups := b.set(inet, "cgroups", nftables.TypeCGroupV2)
	var elements []nftables.SetElement
	levels := map[int]bool{}
	for _, g := range p.group {
		elements = append(elements, nftables.SetElement{Key: binary.NativeEndian.AppendUint64(nil, g.id)})
		if levels[g.level] {
			continue
		}
		levels[g.level] = true
		for name, hook := range map[string]*nftables.ChainHook{"input": nftables.ChainHookInput, "output": nftables.ChainHookOutput} {
			c := b.chain(inet, fmt.Sprintf("%s_level%d", name, g.level), hook, hostPriority, nftables.ChainPolicyAccept, "")
			b.drop(c,
				&expr.Socket{Key: expr.SocketKeyCgroupv2, Level: uint32(g.level), Register: 1},
				&expr.Lookup{SourceRegister: 1, SetName: groups.Name, SetID: groups.ID})
		}
	}
	if engage {
		b.add(groups, elements)
	}
}

// inside is what is in the namespace of a workload. Nothing passes, be it to
// the same namespace: an embedded resolver is reached by its loopback interface.
func (b *batch) inside() {
	t := b.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: b.table})
	b.chain(t, "input", nftables.ChainHookInput, insidePriority, nftables.ChainPolicyDrop, "")
	b.chain(t, "output", nftables.ChainHookOutput, insidePriority, nftables.ChainPolicyDrop, "")
}

// device is about what packet sockets send by an interface, which no other
// family sees.
func (b *batch) device(d link) {
	t := b.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: b.table})
	b.chain(t, fmt.Sprintf("egress%d", d.index), nftables.ChainHookEgress, insidePriority, nftables.ChainPolicyDrop, d.name)
}

// remove takes the tables of a family away, if there are any: to delete what
// is not there would be an error.
func (b *batch) remove(family nftables.TableFamily) {
	t := &nftables.Table{Family: family, Name: b.table}
	b.AddTable(t)
	b.DelTable(t)
}

var allFamilies = []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyBridge, nftables.TableFamilyNetdev}

// interfaceNames pads names as the kernel compares them.
func interfaceNames(names []string) []nftables.SetElement {
	var out []nftables.SetElement
	for _, name := range names {
		key := make([]byte, unix.IFNAMSIZ)
		copy(key, name)
		out = append(out, nftables.SetElement{Key: bytes.Clone(key)})
	}
	return out
}

var hostFamilies = []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyBridge}
