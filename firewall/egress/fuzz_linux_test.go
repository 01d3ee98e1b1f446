package egress

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Whatever a machine has, what is added is there afterwards, once, and is come
// to first; what was in chains of ours stays.
func FuzzXScript(f *testing.F) {
	m, err := (&Lock{}).marks()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("*raw\n:PREROUTING ACCEPT [0:0]\n:HARDSHELL-KILL-IN - [0:0]\n-A PREROUTING -j HARDSHELL-KILL-IN\n-A HARDSHELL-KILL-IN -i docker0 -j DROP\nCOMMIT\n", "br-1")
	f.Add("*raw\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j ACCEPT\n-A OUTPUT -j HARDSHELL-KILL-OUT\n-A OUTPUT -j HARDSHELL-KILL-OUT\nCOMMIT\n", "docker0")
	f.Add("-A\n*\n:\n", "x")
	f.Fuzz(func(t *testing.T, text, name string) {
		if name == "" || strings.ContainsAny(name, " \n\r\t*:#") || strings.TrimSpace(name) != name {
			return // no interface is called so
		}
		rule := "-i " + name + " -j DROP"
		have := parseXSave([]byte(text))
		key := [2]string{"raw", m.in}
		got := parseXSave([]byte(m.xscript(have, xrules{key: {rule}})))
		if n := count(got[key], rule); n != 1 && n != count(have[key], rule) {
			t.Errorf("%q is there %d times", rule, n)
		}
		for _, old := range have[key] {
			if old != "" && !slices.Contains(got[key], old) {
				t.Errorf("%q is lost", old)
			}
		}
	})
}

func count(all []string, s string) (n int) {
	for _, other := range all {
		if other == s {
			n++
		}
	}
	return n
}

// Frames are the workload's to shape: whatever is in them, they are either ours or
// its own, and nothing that was not sent is seen.
func FuzzLook(f *testing.F) {
	f.Add([]byte("hs001122334455x1x"))
	f.Add([]byte("hs001122334455xhs001122334455x99999999999x"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		c := &connection{addr: netip.MustParseAddr("198.18.0.1"), port: 40000}
		w := &watch{run: "hs001122334455x", seen: map[string]int{}, beyond: map[string]bool{}, conns: map[*connection]int{c: 0}, devices: map[int]string{}}
		w.look(frame, &unix.SockaddrLinklayer{Ifindex: 7, Pkttype: unix.PACKET_OUTGOING})
		for token := range w.seen {
			if !strings.Contains(strings.ToLower(string(frame)), token) {
				t.Errorf("saw %q", token)
			}
		}
		if w.conns[c] != 0 && !strings.Contains(string(frame), string(c.addr.AsSlice())) {
			t.Error("saw a connection")
		}
	})
}

func FuzzStateOf(f *testing.F) {
	f.Add("1 (a) b) Z 1")
	f.Fuzz(func(t *testing.T, name string) {
		if got := stateOf([]byte("12 (" + name + ") R 1 1 0")); got != 'R' {
			t.Errorf("%q: %q", name, got)
		}
	})
}

func FuzzParseLink(f *testing.F) {
	f.Add(make([]byte, unix.SizeofIfInfomsg))
	f.Fuzz(func(t *testing.T, data []byte) {
		if l, err := parseLink(data); err == nil && l.name == "" {
			t.Error("an interface without a name")
		}
	})
}

// Whatever address somebody's socket has, it hides no other's.
func FuzzAbstractNames(f *testing.F) {
	f.Add("@a", true)
	f.Add("@a\n0000: 00000002 00000000 00010000 0001 01 1 @relay2", false)
	f.Add("", true)
	f.Add("/run/x.sock", false)
	f.Fuzz(func(t *testing.T, name string, before bool) {
		const header = "Num       RefCount Protocol Flags    Type St Inode Path\n"
		line := func(name string) string {
			return "0000000000000000: 00000002 00000000 00010000 0001 01 4711 " + name + "\n"
		}
		text := header + line("@relay") + line(name)
		if before {
			text = header + line(name) + line("@relay")
		}
		got := abstractNames([]byte(text))
		if !slices.Contains(got, "@relay") {
			t.Errorf("%q hides another: %q", name, got)
		}
		for _, n := range got {
			if n[0] != '@' {
				t.Errorf("%q is no abstract address", n)
			}
		}
	})
}

// Nothing that the kernel says has the parser fail otherwise than by an error, and what it
// says of a queue is found.
func FuzzParseQueue(f *testing.F) {
	tcm := make([]byte, sizeofTcmsg)
	binary.NativeEndian.PutUint32(tcm[4:], 7)
	binary.NativeEndian.PutUint32(tcm[12:], tcRoot)
	stats := make([]byte, 20)
	binary.NativeEndian.PutUint32(stats[4:], 4711)
	inner, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 1, Data: make([]byte, 12)}, {Type: tcaStatsQueue, Data: stats}})
	if err != nil {
		f.Fatal(err)
	}
	outer, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 1, Data: []byte("tbf\x00")}, {Type: tcaStats2, Data: inner}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(slices.Clone(tcm), outer...), []byte{})
	f.Add([]byte{1}, tcm)
	f.Fuzz(func(t *testing.T, data, rest []byte) {
		_, _, _ = parseQueue(rest)
		message := append(slices.Clone(tcm), outer...)
		if index, n, err := parseQueue(message); index != 7 || n != 4711 || err != nil {
			t.Errorf("%d %d %v", index, n, err)
		}
		binary.NativeEndian.PutUint32(message[12:], 0x10001) // in another queue
		if _, n, err := parseQueue(message); n != 0 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		if _, n, err := parseQueue(data); err != nil && n != 0 {
			t.Errorf("%d and %v", n, err)
		}
	})
}
