package firewall

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// quietTargets have no effect on what becomes of a packet.
var quietTargets = []string{
	"LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "CHECKSUM", "TCPMSS", "TCPOPTSTRIP", "TOS", "DSCP", "ECN", "CLASSIFY",
	"TTL", "HL", "LED", "IDLETIMER", "SECMARK", "CONNSECMARK", "RATEEST", "TEE",
}

// do adds an action with an effect on the flow.
func (c *iptablesCompiler) do(kind string, act func(*flow) verdict) {
	c.rule.ops = append(c.rule.ops, op{kind: kind, act: act})
}

// blindAction adds an action that is not understood.
func (c *iptablesCompiler) blindAction(what string) {
	if c.rule.Problem == "" {
		c.rule.Problem = what
	}
	c.rule.ops = append(c.rule.ops, op{kind: "?", blind: what, act: func(*flow) verdict { return verdict{kind: lost} }})
}

// extendedTarget adds the action of a target with arguments, or of a jump.
func (c *iptablesCompiler) extendedTarget() {
	args := options(c.args)
	switch c.target {
	case "MARK", "CONNMARK":
		if c.markTarget(args) {
			return
		}
	case "DNAT":
		if act, ok := destinationNAT(args["--to-destination"]); ok {
			c.do("dnat", act)
			return
		}
	case "REDIRECT":
		if port, ok := natPort(args["--to-ports"]); ok {
			c.do("redirect", func(f *flow) verdict { return f.toThisMachine(port) })
			return
		}
	case "MASQUERADE":
		c.do("masquerade", func(f *flow) verdict { return f.fromElsewhere(netip.Addr{}) })
		return
	case "SNAT":
		a, _, _ := natTarget(args["--to-source"])
		c.do("snat", func(f *flow) verdict { return f.fromElsewhere(a) })
		return
	case "NOTRACK":
		c.do("notrack", (*flow).notrack)
		return
	case "CT":
		if _, ok := args["--notrack"]; ok {
			c.do("notrack", (*flow).notrack)
			return
		}
		if _, ok := args["--zone"]; !ok {
			return // a helper, a time-out or events
		}
	case "SET":
		if _, ok := args["--map-set"]; !ok {
			return // sets of ipset are not understood anyway
		}
	case "NFQUEUE", "QUEUE", "TPROXY", "SYNPROXY", "NETMAP", "HMARK", "CLUSTERIP", "DNPT", "SNPT", "REJECT", "ACCEPT", "DROP", "RETURN":
	default:
		if len(c.args) == 0 {
			c.rule.Jump = c.target
			v := verdict{kind: jump, chain: c.target}
			kind := "jump " + c.target
			if c.isGoto {
				v.kind, kind = gotoChain, "goto "+c.target
			}
			c.act(kind, v)
			return
		}
	}
	c.blindAction("target " + c.target)
}

// options makes a map of "--name value" pairs. A name may have no value.
func options(words []string) map[string]string {
	m := make(map[string]string)
	for i := 0; i < len(words); i++ {
		name := words[i]
		if i+1 < len(words) && !strings.HasPrefix(words[i+1], "--") {
			i++
			m[name] = words[i]
		} else {
			m[name] = ""
		}
	}
	return m
}

func (c *iptablesCompiler) markTarget(args map[string]string) bool {
	conn := c.target == "CONNMARK"
	set := func(erase, flip uint32) bool {
		c.do("mark", func(f *flow) verdict {
			if conn {
				if f.track == tracked {
					f.connmark = xmark(f.connmark, erase, flip)
					f.changed = true
				}
				return verdict{}
			}
			f.mark, f.changed = xmark(f.mark, erase, flip), true
			return verdict{does: "sets the mark"}
		})
		return true
	}
	for name, v := range args {
		n, mask, ok := markAndMask(v)
		switch name {
		case "--set-xmark":
			return ok && set(mask, n)
		case "--set-mark":
			return ok && set(mask|n, n)
		case "--and-mark":
			return ok && set(^n, 0)
		case "--or-mark":
			return ok && set(n, n)
		case "--xor-mark":
			return ok && set(0, n)
		case "--save-mark", "--restore-mark":
			return conn && c.copyMark(name == "--save-mark", args)
		}
	}
	return false
}

// xmark clears bits and inverts others, as MARK and CONNMARK do.
func xmark(v value, erase, flip uint32) value {
	v.n = v.n&^uint64(erase) ^ uint64(flip)
	v.unk &^= uint64(erase)
	return v
}

// copyMark is CONNMARK --save-mark and --restore-mark.
func (c *iptablesCompiler) copyMark(save bool, args map[string]string) bool {
	masks := map[string]uint64{"--nfmask": 1<<32 - 1, "--ctmask": 1<<32 - 1}
	for name := range masks {
		if s, ok := args[name]; ok {
			n, err := strconv.ParseUint(s, 0, 32)
			if err != nil {
				return false
			}
			masks[name] = n
		}
	}
	if s, ok := args["--mask"]; ok {
		n, err := strconv.ParseUint(s, 0, 32)
		if err != nil {
			return false
		}
		masks["--nfmask"], masks["--ctmask"] = n, n
	}
	nf, ct := masks["--nfmask"], masks["--ctmask"]
	merge := func(to, from value, erase, take uint64) value {
		from = masked(from, take)
		return value{n: to.n&^erase ^ from.n, unk: to.unk&^erase | from.unk}
	}
	c.do("mark", func(f *flow) verdict {
		if f.track != tracked {
			return verdict{}
		}
		f.changed = true
		if save {
			f.connmark = merge(f.connmark, f.mark, ct, nf)
			return verdict{}
		}
		f.mark = merge(f.mark, f.connmark, nf, ct)
		return verdict{does: "sets the mark"}
	})
	return true
}

// notrack takes the packet out of connection tracking, unless it has a
// connection already.
func (f *flow) notrack() verdict {
	if f.track == notYet || f.track == refused {
		f.track, f.changed = untracked, true
		return verdict{does: "takes the packet out of connection tracking"}
	}
	return verdict{}
}

// natPort parses a port; none is 0.
func natPort(s string) (port uint16, ok bool) {
	if s == "" {
		return 0, true
	}
	lo, hi, ranged := strings.Cut(s, "-")
	n, err := strconv.ParseUint(lo, 10, 16)
	return uint16(n), err == nil && (!ranged || lo == hi)
}

// natTarget parses "address", "address:port" and ":port". Ranges, of which the
// kernel chooses one, are not understood.
func natTarget(s string) (a netip.Addr, port uint16, ok bool) {
	host, portText := s, ""
	if strings.HasPrefix(s, "[") {
		var rest string
		host, rest, _ = strings.Cut(s[1:], "]")
		portText = strings.TrimPrefix(rest, ":")
	} else if strings.Count(s, ":") == 1 {
		host, portText, _ = strings.Cut(s, ":")
	}
	port, ok = natPort(portText)
	if !ok || host == "" {
		return netip.Addr{}, port, ok && port != 0
	}
	if lo, hi, ranged := strings.Cut(host, "-"); ranged && lo == hi {
		host = lo
	}
	a, err := netip.ParseAddr(host)
	return a, port, err == nil
}

func destinationNAT(to string) (func(*flow) verdict, bool) {
	a, port, ok := natTarget(to)
	if !ok {
		return nil, false
	}
	return func(f *flow) verdict {
		if !a.IsValid() {
			return f.toAddress(f.dst, port)
		}
		return f.toAddress(a, port)
	}, true
}

// toAddress is destination NAT. It ends the rules' say in the matter.
func (f *flow) toAddress(a netip.Addr, port uint16) verdict {
	if !f.validTarget(a) {
		return verdict{kind: lost, does: "the translation leads to an address of another family"}
	}
	f.dstDone, f.changed = true, true
	if a != f.dst || port != 0 && port != f.dport {
		f.dnat = yes
	}
	f.redirect(a, port)
	return verdict{kind: accept, does: "translates the destination to " + f.end()}
}

// end is the packet's destination as it is now.
func (f *flow) end() string {
	if f.dport == 0 {
		return f.dst.String()
	}
	return netip.AddrPortFrom(f.dst, f.dport).String()
}

func (f *flow) toThisMachine(port uint16) verdict {
	if f.routing == nil {
		return verdict{kind: lost, does: "the machine's addresses were not read"}
	}
	a, ok := f.localRedirect()
	if !ok {
		return verdict{kind: drop, does: fmt.Sprintf("drop: interface %s has no address to redirect to", f.in)}
	}
	return f.toAddress(a, port)
}

// fromElsewhere is source NAT. The zero address is one of the kernel's choice.
func (f *flow) fromElsewhere(a netip.Addr) verdict {
	f.srcDone, f.changed = true, true
	if a.IsValid() && a == f.packet.Src {
		return verdict{kind: accept}
	}
	// The port may be another, too, if it is taken.
	f.srcUnknown, f.snat = true, yes
	if !a.IsValid() {
		f.snat = maybe // unless it is the one that it has
	}
	return verdict{kind: accept, does: "translates the source"}
}
