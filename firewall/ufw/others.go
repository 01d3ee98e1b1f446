package ufw

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/firewall"
)

// An Other is a firewall of the machine that is not UFW. Two managers at once
// get in each other's way, so this package changes UFW only; whether another one
// keeps a packet out is for [firewall.Ruleset.Evaluate] to say.
type Other struct {
	Kind OtherKind
	// Table and Chain are, for plain nftables, those of the chain that meets
	// incoming packets, such as "inet filter" and "input", and Policy is
	// what it does with those that no rule decides: "accept" or "drop".
	Table, Chain, Policy string
}

// An OtherKind is a manager of firewalls.
type OtherKind int

// Kinds of other firewalls.
const (
	Firewalld OtherKind = iota + 1
	NFTables            // rules of nft, as those of /etc/nftables.conf
)

func (k OtherKind) String() string {
	switch k {
	case Firewalld:
		return "firewalld"
	case NFTables:
		return "nftables"
	}
	return fmt.Sprintf("OtherKind(%d)", int(k))
}

// Others returns the firewalls for incoming packets that run on the machine
// and are not UFW. Tables of iptables, Docker, Tailscale and this module are not
// among them. It changes nothing.
func Others(ctx context.Context, files fs.FS, run firewall.Runner) ([]Other, error) {
	var all []Other
	out, err := runBounded(ctx, files, run, nil, "nft", "-j", "list", "chains")
	switch {
	case errors.Is(err, exec.ErrNotFound):
	case err != nil:
		return nil, fmt.Errorf("ufw: look for other firewalls: %w", err)
	default:
		if all, err = parseChains(out); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(all, func(o Other) bool { return o.Kind == Firewalld }) {
		return all, nil
	}
	// It may work by iptables.
	out, err = runBounded(ctx, files, run, nil, "firewall-cmd", "--state")
	exit, failed := errors.AsType[*firewall.ExitError](err)
	switch {
	case errors.Is(err, exec.ErrNotFound), failed && exit.Code == 252: // not running
	case err != nil:
		return nil, fmt.Errorf("ufw: look for other firewalls: %w", err)
	case strings.TrimSpace(string(out)) == "running":
		all = append(all, Other{Kind: Firewalld})
	}
	return all, nil
}

// notFirewalls are prefixes of tables that others keep for purposes of their own.
var notFirewalls = []string{"docker", "hardshell", "ts-", "libvirt"}

func parseChains(data []byte) ([]Other, error) {
	var list struct {
		NFTables []struct {
			Chain *struct {
				Family, Table, Name, Hook, Policy string
			}
		}
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("ufw: listing of nft: %w", err)
	}
	var all []Other
	for _, entry := range list.NFTables {
		c := entry.Chain
		switch {
		case c == nil || c.Hook != "input":
		case c.Table == "firewalld":
			if !slices.Contains(all, Other{Kind: Firewalld}) {
				all = append(all, Other{Kind: Firewalld})
			}
		case c.Family != "ip" && c.Family != "ip6" && c.Family != "inet":
		case c.Family != "inet" && c.Name == "INPUT": // iptables-nft
		case slices.ContainsFunc(notFirewalls, func(p string) bool { return strings.HasPrefix(c.Table, p) }):
		default:
			all = append(all, Other{NFTables, c.Family + " " + c.Table, c.Name, c.Policy})
		}
	}
	return all, nil
}
