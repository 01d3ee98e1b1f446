package firewall

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ReadRouting reads the routing of the machine whose programs run runs, with
// those of iproute2 (version 4.14 and later, which write JSON).
func ReadRouting(ctx context.Context, run Runner) (*Routing, error) {
	r := &Routing{}
	out, err := run.Run(ctx, nil, "ip", "-d", "-j", "address", "show")
	if err != nil {
		return nil, fmt.Errorf("firewall: cannot list the addresses: %w", err)
	}
	if err := r.addAddresses(out); err != nil {
		return nil, fmt.Errorf("firewall: cannot read the output of ip address: %w", err)
	}
	for _, family := range []string{"-4", "-6"} {
		out, err := run.Run(ctx, nil, "ip", family, "-d", "-j", "route", "show", "table", "all")
		if err != nil {
			return nil, fmt.Errorf("firewall: cannot list the routes: %w", err)
		}
		if err := r.addRoutes(out, family == "-6"); err != nil {
			return nil, fmt.Errorf("firewall: cannot read the output of ip route: %w", err)
		}
		out, err = run.Run(ctx, nil, "ip", family, "-j", "rule", "show")
		if err != nil {
			if family == "-6" && len(r.routesOf(true)) == 0 {
				continue // a kernel without IPv6
			}
			return nil, fmt.Errorf("firewall: cannot list the routing rules: %w", err)
		}
		if err := r.addRules(out, family == "-6"); err != nil {
			return nil, fmt.Errorf("firewall: cannot read the output of ip rule: %w", err)
		}
	}
	if len(r.routesOf(false)) == 0 {
		// The loopback interface may be down, but then the machine can
		// send nothing, and Routing would make routes up.
		r.Routes = append(r.Routes, Route{Dst: netip.MustParsePrefix("127.0.0.0/8"), Out: "lo", Type: RouteLocal, Table: "local"})
	}
	return r, nil
}

func (r *Routing) routesOf(v6 bool) []Route {
	var list []Route
	for _, t := range r.Routes {
		if t.Dst.Addr().Is6() == v6 {
			list = append(list, t)
		}
	}
	return list
}

// decodeList decodes what ip prints; nothing at all is an empty list.
func decodeList(data []byte, list any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	return json.Unmarshal(data, list)
}

func (r *Routing) addAddresses(data []byte) error {
	var list []struct {
		Name     string   `json:"ifname"`
		Flags    []string `json:"flags"`
		Master   string   `json:"master"`
		LinkInfo struct {
			SlaveKind string `json:"info_slave_kind"`
		} `json:"linkinfo"`
		Addrs []struct {
			Local string `json:"local"`
			Bits  int    `json:"prefixlen"`
		} `json:"addr_info"`
	}
	if err := decodeList(data, &list); err != nil {
		return err
	}
	for _, l := range list {
		if l.Name == "" {
			continue // older iproute2 leaves empty objects for what it filters out
		}
		i := Interface{Name: l.Name, Up: slices.Contains(l.Flags, "UP")}
		if l.LinkInfo.SlaveKind != "vrf" {
			i.Master = l.Master
		}
		for _, a := range l.Addrs {
			if a.Local == "" {
				continue
			}
			addr, err := netip.ParseAddr(a.Local)
			if err != nil {
				return fmt.Errorf("interface %s: %w", l.Name, err)
			}
			i.Addrs = append(i.Addrs, netip.PrefixFrom(addr, a.Bits))
		}
		r.Interfaces = append(r.Interfaces, i)
	}
	return nil
}

func (r *Routing) addRoutes(data []byte, v6 bool) error {
	var list []struct {
		Dst      string `json:"dst"`
		Dev      string `json:"dev"`
		Type     string `json:"type"`
		Table    string `json:"table"`
		Metric   int    `json:"metric"`
		Src      string `json:"from"`
		TOS      string `json:"tos"`
		Nexthops []struct {
			Dev string `json:"dev"`
		} `json:"nexthops"`
		Flags []string `json:"flags"`
	}
	if err := decodeList(data, &list); err != nil {
		return err
	}
	for _, l := range list {
		dst, err := parseRange(l.Dst, v6)
		if err != nil {
			return fmt.Errorf("route to %q: %w", l.Dst, err)
		}
		t := Route{Dst: dst, Out: l.Dev, Type: RouteType(cmp.Or(l.Type, string(RouteUnicast))), Table: cmp.Or(l.Table, "main"), Metric: l.Metric}
		if slices.Contains(l.Flags, "dead") {
			continue
		}
		for _, n := range l.Nexthops {
			if t.Out == "" {
				t.Out = n.Dev
			} else if t.Out != n.Dev {
				t.Type, t.Out = RouteUnknown, "" // by one or the other
				break
			}
		}
		if l.Src != "" || l.TOS != "" {
			t.Type = RouteUnknown // only for some packets
		}
		if v6 && t.Metric == 0 && t.Type != RouteLocal {
			t.Metric = 1024
		}
		r.Routes = append(r.Routes, t)
	}
	return nil
}

// parseRange parses "default", an address or a prefix.
func parseRange(s string, v6 bool) (netip.Prefix, error) {
	switch {
	case (s == "default" || s == "all" || s == "any") && v6:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0), nil
	case s == "default" || s == "all" || s == "any":
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), nil
	case strings.Contains(s, "/"):
		p, err := netip.ParsePrefix(s)
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a.WithZone(""), a.BitLen()), nil
}

// knownRuleKeys are what [RoutingRule] has room for, and what does not matter
// to which route is taken.
var knownRuleKeys = []string{
	"priority", "not", "src", "srclen", "dst", "dstlen", "fwmark", "fwmask", "iif", "iif_detached",
	"table", "action", "type", "suppress_prefixlen", "protocol",
}

func (r *Routing) addRules(data []byte, v6 bool) error {
	var list []map[string]json.RawMessage
	if err := decodeList(data, &list); err != nil {
		return err
	}
	for _, l := range list {
		if len(l) == 0 {
			continue
		}
		u := RoutingRule{IPv6: v6, SuppressPrefix: -1}
		_, u.Not = l["not"]
		var bad error
		text := func(key string) (s string) {
			if raw, ok := l[key]; ok {
				if err := json.Unmarshal(raw, &s); err != nil {
					bad = cmp.Or(bad, fmt.Errorf("rule: %s: %w", key, err))
				}
			}
			return s
		}
		num := func(key string, otherwise int) int {
			n := otherwise
			if raw, ok := l[key]; ok {
				if err := json.Unmarshal(raw, &n); err != nil {
					bad = cmp.Or(bad, fmt.Errorf("rule: %s: %w", key, err))
				}
			}
			return n
		}
		bits := func(key string) uint32 {
			s := text(key)
			if s == "" {
				return 0
			}
			n, err := strconv.ParseUint(s, 0, 32)
			if err != nil {
				bad = cmp.Or(bad, fmt.Errorf("rule: %s: %w", key, err))
			}
			return uint32(n)
		}
		area := func(key, length string) netip.Prefix {
			s := text(key)
			if s == "" || s == "all" {
				return netip.Prefix{}
			}
			p, err := parseRange(s, v6)
			if err != nil {
				bad = cmp.Or(bad, fmt.Errorf("rule: %s: %w", key, err))
				return p
			}
			if _, ok := l[length]; ok {
				p = netip.PrefixFrom(p.Addr(), num(length, 0)).Masked()
			}
			return p
		}
		u.Priority = num("priority", 0)
		u.From, u.To = area("src", "srclen"), area("dst", "dstlen")
		u.In = text("iif")
		u.Mark, u.Mask = bits("fwmark"), bits("fwmask")
		if _, ok := l["fwmask"]; !ok && l["fwmark"] != nil {
			u.Mask = ^uint32(0)
		}
		u.Table = text("table")
		u.SuppressPrefix = num("suppress_prefixlen", -1)
		if u.Table == "" {
			u.Action = RouteType(cmp.Or(text("action"), text("type"), string(RouteUnknown)))
		}
		for _, key := range slices.Sorted(maps.Keys(l)) {
			if !slices.Contains(knownRuleKeys, key) {
				u.Unknown = key
			}
		}
		if bad != nil {
			return bad
		}
		r.Rules = append(r.Rules, u)
	}
	return nil
}
