package docker

import (
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden/container"
)

func TestNetworks(t *testing.T) {
	const listing = `[
		{"Name":"bridge","Id":"aaaaaaaaaaaaaaaa","Driver":"bridge","Scope":"local","IPAM":{"Config":[{"Subnet":"172.17.0.0/16"},{"Subnet":"fd00:d0c::/64"}]},
		 "Options":{"com.docker.network.bridge.name":"docker0"}},
		{"Name":"agent","Id":"0123456789abcdef","Driver":"bridge","Scope":"local","Internal":true,"IPAM":{"Config":[{"Subnet":"172.30.0.9/24"},{"Subnet":"","Gateway":"fd00::1"}]}},
		{"Name":"named","Id":"cccccccccccccccc","Driver":"bridge","Scope":"local","IPAM":{},"Options":{"com.docker.network.bridge.name":"agents0"}},
		{"Name":"short","Id":"dd","Driver":"bridge","Scope":"local","IPAM":{}},
		{"Name":"host","Id":"eeeeeeeeeeeeeeee","Driver":"host","Scope":"local","IPAM":{"Config":[]}},
		{"Name":"lan","Id":"ffffffffffffffff","Driver":"macvlan","Scope":"local","IPAM":{"Config":[{"Subnet":"192.0.2.0/24"}]},"Options":{"parent":"eth0"}}]`
	e := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Api-Version", "1.41")
		if strings.HasSuffix(r.URL.Path, "/networks") {
			fmt.Fprint(w, listing)
		}
	}))
	got, err := e.Networks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	prefixes := func(all ...string) (p []netip.Prefix) {
		for _, s := range all {
			p = append(p, netip.MustParsePrefix(s))
		}
		return p
	}
	want := []container.EngineNetwork{
		{ID: "0123456789abcdef", Name: "agent", Driver: "bridge", Scope: "local", Interface: "br-0123456789ab", Prefixes: prefixes("172.30.0.0/24"), Internal: true},
		{ID: "aaaaaaaaaaaaaaaa", Name: "bridge", Driver: "bridge", Scope: "local", Interface: "docker0", Prefixes: prefixes("172.17.0.0/16", "fd00:d0c::/64")},
		{ID: "eeeeeeeeeeeeeeee", Name: "host", Driver: "host", Scope: "local"},
		{ID: "ffffffffffffffff", Name: "lan", Driver: "macvlan", Scope: "local", Parent: "eth0", Prefixes: prefixes("192.0.2.0/24")},
		{ID: "cccccccccccccccc", Name: "named", Driver: "bridge", Scope: "local", Interface: "agents0"},
		{ID: "dd", Name: "short", Driver: "bridge", Scope: "local", Interface: "br-dd"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestNetworksOfSomethingElse(t *testing.T) {
	e := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `[{"Name":"bridge"}]`)
	}))
	if all, err := e.Networks(t.Context()); err == nil {
		t.Errorf("got %+v", all)
	}
}
