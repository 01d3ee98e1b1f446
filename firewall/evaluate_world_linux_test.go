package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// A world is a machine in a network namespace of its own, between an outside
// and a bridge with "containers", which are two more namespaces. Neither of
// those two has addresses: what they send is made by the test, and they answer
// nothing.
//
//	outside ── eth0 [machine] br0 ── inside
//
// Everything in it happens on one thread that stays on one processor, so that a
// frame that is answered has been preceded by whatever frames before it have
// led to.
type world struct {
	machine, outside, inside *os.File // namespaces
	calls                    chan func()

	atOutside, atInside int // sockets that send and see frames
	local               []localSocket
	raw4, raw6          int // sockets of the machine that send packets
	macMachine, macBr   [6]byte
	ifOutside, ifInside int
}

type localSocket struct {
	fd    int
	proto Protocol
	v6    bool
}

var (
	machine4, machine6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	bridge4, bridge6   = netip.MustParseAddr("172.17.0.1"), netip.MustParseAddr("fd00:d0c::1")
)

const frameMAC = "02:00:00:00:00:99"

// newWorld builds a world, or skips the test where it cannot.
func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "needs root to make network namespaces")
	}
	for _, name := range []string{"ip", "nft", "iptables-nft-restore", "ip6tables-nft-restore"} {
		if _, err := exec.LookPath(name); err != nil {
			skip(t, name+" is not installed")
		}
	}
	w := &world{calls: make(chan func())}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if syscall.Gettid() == os.Getpid() {
			// Not the first thread, which cannot end.
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread()
				w.serve(started)
			}()
			<-done
			runtime.UnlockOSThread()
			return
		}
		w.serve(started)
	}()
	if err := <-started; err != nil {
		skip(t, "no network namespaces: "+err.Error())
	}
	t.Cleanup(func() {
		close(w.calls)
		os.Remove(lockFile)
	})
	w.do(func() {
		if err := w.build(); err != nil {
			panic(err)
		}
	})
	return w
}

func skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("not run: " + reason)
	}
	t.Skip(reason)
}

func (w *world) serve(started chan<- error) {
	err := oneProcessor()
	for _, ns := range []**os.File{&w.outside, &w.inside, &w.machine} {
		if err == nil {
			err = syscall.Unshare(syscall.CLONE_NEWNET)
		}
		if err == nil {
			*ns, err = os.Open("/proc/thread-self/ns/net")
		}
	}
	started <- err
	if err != nil {
		return
	}
	for call := range w.calls {
		call()
	}
	for _, fd := range []int{w.atOutside, w.atInside, w.raw4, w.raw6} {
		syscall.Close(fd)
	}
	for _, l := range w.local {
		syscall.Close(l.fd)
	}
	for _, ns := range []*os.File{w.machine, w.outside, w.inside} {
		ns.Close()
	}
}

// oneProcessor keeps the thread on the first processor that it may use.
func oneProcessor() error {
	var mask [16]uint64
	n, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if errno != 0 {
		return errno
	}
	for i := range mask[:n/8] {
		if mask[i] != 0 {
			one := mask[i] & -mask[i]
			clear(mask[:])
			mask[i] = one
			break
		}
	}
	if _, _, errno = syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask))); errno != 0 {
		return errno
	}
	return nil
}

// do runs fn on the world's thread, in the namespace of the machine. Programs
// that it starts are there too.
func (w *world) do(fn func()) {
	done := make(chan any)
	w.calls <- func() {
		defer func() { done <- recover() }()
		fn()
	}
	if p := <-done; p != nil {
		panic(p)
	}
}

// sysSetns is missing from package syscall, which is older than the call.
var sysSetns = map[string]uintptr{"amd64": 308, "arm64": 268, "386": 346, "arm": 375, "riscv64": 268}[runtime.GOARCH]

func (w *world) enter(ns *os.File) error {
	if _, _, errno := syscall.RawSyscall(sysSetns, ns.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
		return os.NewSyscallError("setns", errno)
	}
	return nil
}

// tool runs a program on the machine.
func (w *world) tool(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "XTABLES_LOCKFILE="+lockFile)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %v: %w\n%s", name, args, err, out)
	}
	return string(out), nil
}

// lockFile keeps iptables-legacy of the test from waiting for the machine's.
var lockFile = fmt.Sprintf("%s/hardshell-firewall-test-%d.lock", os.TempDir(), os.Getpid())

func (w *world) build() error {
	nsPath := func(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }
	var batch strings.Builder
	fmt.Fprintf(&batch, `link set lo up
link add eth0 type veth peer name x0 netns %s
link add port0 type veth peer name x0 netns %s
link add br0 type bridge forward_delay 0 mcast_snooping 0
link set port0 master br0
address add 192.0.2.1/24 dev eth0
address add 2001:db8::1/64 dev eth0 nodad
address add 172.17.0.1/16 dev br0
address add fd00:d0c::1/64 dev br0 nodad
link set eth0 up
link set port0 up
link set br0 up
`, nsPath(w.outside), nsPath(w.inside))
	for _, a := range []string{"192.0.2.2", "192.0.2.9", "2001:db8::2", "2001:db8::9"} {
		fmt.Fprintf(&batch, "neighbour replace %s lladdr %s dev eth0 nud permanent\n", a, frameMAC)
	}
	for n := range 6 {
		fmt.Fprintf(&batch, "neighbour replace 172.17.0.%d lladdr %s dev br0 nud permanent\n", n+2, frameMAC)
		fmt.Fprintf(&batch, "neighbour replace fd00:d0c::%d lladdr %s dev br0 nud permanent\n", n+2, frameMAC)
	}
	batch.WriteString("route add default via 192.0.2.2\nroute add default via 2001:db8::2\n")
	if _, err := w.tool(batch.String(), "ip", "-batch", "-"); err != nil {
		return err
	}
	for _, s := range []string{
		"ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv4/conf/all/rp_filter=0", "ipv4/conf/eth0/rp_filter=0", "ipv4/conf/br0/rp_filter=0",
		"ipv4/conf/all/route_localnet=1", "ipv4/conf/all/send_redirects=0", "ipv4/conf/eth0/send_redirects=0", "ipv4/conf/br0/send_redirects=0",
		"ipv4/conf/all/accept_local=1", "ipv4/icmp_ratelimit=0", "ipv4/icmp_ratemask=0", "ipv6/icmp/ratelimit=0", "ipv4/icmp_msgs_per_sec=1000000", "ipv4/icmp_msgs_burst=1000000",
		"netfilter/nf_conntrack_tcp_be_liberal=1",
		// Otherwise what is translated back to the port that it comes from is
		// bridged, and a bridge sends nothing back.
		"bridge/bridge-nf-call-iptables=0", "bridge/bridge-nf-call-ip6tables=0",
	} {
		name, v, _ := strings.Cut(s, "=")
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(v), 0); err != nil && !strings.Contains(name, "icmp_msgs") && !strings.HasPrefix(name, "bridge/") {
			return err
		}
	}
	var err error
	if w.macMachine, err = hardware("eth0"); err != nil {
		return err
	}
	if w.macBr, err = hardware("br0"); err != nil {
		return err
	}
	for _, l := range []localSocket{{proto: TCP}, {proto: UDP}, {proto: ICMP}, {proto: TCP, v6: true}, {proto: UDP, v6: true}, {proto: ICMPv6, v6: true}} {
		family := syscall.AF_INET
		if l.v6 {
			family = syscall.AF_INET6
		}
		if l.fd, err = syscall.Socket(family, syscall.SOCK_RAW|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, int(l.proto)); err != nil {
			return os.NewSyscallError("socket", err)
		}
		if l.v6 {
			if err := syscall.SetsockoptInt(l.fd, syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1); err != nil {
				return err
			}
		}
		syscall.SetsockoptInt(l.fd, syscall.SOL_SOCKET, soRcvbufForce, 8<<20)
		w.local = append(w.local, l)
	}
	if w.raw4, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_RAW); err != nil {
		return err
	}
	if w.raw6, err = syscall.Socket(syscall.AF_INET6, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_RAW); err != nil {
		return err
	}
	for _, end := range []struct {
		ns      *os.File
		fd, idx *int
	}{{w.outside, &w.atOutside, &w.ifOutside}, {w.inside, &w.atInside, &w.ifInside}} {
		if err := w.enter(end.ns); err != nil {
			return err
		}
		if _, err := w.tool("", "ip", "link", "set", "x0", "address", frameMAC, "up"); err != nil {
			return err
		}
		if *end.idx, err = ifIndex("x0"); err != nil {
			return err
		}
		if *end.fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, int(htons(syscall.ETH_P_ALL))); err != nil {
			return os.NewSyscallError("socket", err)
		}
		if err := syscall.Bind(*end.fd, &syscall.SockaddrLinklayer{Protocol: htons(syscall.ETH_P_ALL), Ifindex: *end.idx}); err != nil {
			return err
		}
		syscall.SetsockoptInt(*end.fd, syscall.SOL_SOCKET, soRcvbufForce, 8<<20)
	}
	return w.enter(w.machine)
}

const soRcvbufForce = 33

func htons(n uint16) uint16 { return n<<8 | n>>8 }

func ifreq(name string, request uintptr) ([40]byte, error) {
	var req [40]byte
	copy(req[:15], name)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return req, err
	}
	defer syscall.Close(fd)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return req, fmt.Errorf("interface %s: %w", name, errno)
	}
	return req, nil
}

func hardware(name string) (mac [6]byte, err error) {
	req, err := ifreq(name, syscall.SIOCGIFHWADDR)
	copy(mac[:], req[18:])
	return mac, err
}

func ifIndex(name string) (int, error) {
	req, err := ifreq(name, syscall.SIOCGIFINDEX)
	return int(binary.NativeEndian.Uint32(req[16:])), err
}

// send puts a packet on the wire of In, or has the machine send it.
func (w *world) send(p Packet, id uint32, flags byte) error {
	data := encode(p, id, flags)
	if p.In == "" {
		fd := w.raw4
		if p.Dst.Is6() {
			return syscall.Sendto(w.raw6, data, 0, &syscall.SockaddrInet6{Addr: p.Dst.As16()})
		}
		return syscall.Sendto(fd, data, 0, &syscall.SockaddrInet4{Addr: p.Dst.As4()})
	}
	fd, idx, mac := w.atOutside, w.ifOutside, w.macMachine
	if p.In == "br0" {
		fd, idx, mac = w.atInside, w.ifInside, w.macBr
	}
	etherType := uint16(syscall.ETH_P_IP)
	if p.Dst.Is6() {
		etherType = syscall.ETH_P_IPV6
	}
	frame := append(mac[:], 2, 0, 0, 0, 0, 0x99, byte(etherType>>8), byte(etherType))
	return syscall.Sendto(fd, append(frame, data...), 0, &syscall.SockaddrLinklayer{Ifindex: idx, Halen: 6})
}

// encode makes the packet, with right checksums, since what has wrong ones is
// invalid to connection tracking. It bears the number id: in the sequence number
// of TCP, with room for what a refusal adds to it, and in the data otherwise.
func encode(p Packet, id uint32, flags byte) []byte {
	var l4 []byte
	switch p.Protocol {
	case TCP:
		l4 = make([]byte, 20)
		binary.BigEndian.PutUint32(l4[4:], id<<2)
		if flags&tcpACK != 0 {
			binary.BigEndian.PutUint32(l4[8:], id<<2)
		}
		l4[12], l4[13] = 5<<4, flags
		binary.BigEndian.PutUint16(l4[14:], 65535)
	case UDP:
		l4 = make([]byte, 12)
		binary.BigEndian.PutUint16(l4[4:], 12)
		binary.BigEndian.PutUint32(l4[8:], id)
	default:
		l4 = make([]byte, 12)
		l4[0], l4[1] = p.ICMPType, p.ICMPCode
		if p.ICMPType == 0 {
			l4[0] = 8
			if p.Protocol == ICMPv6 {
				l4[0] = 128
			}
		}
		binary.BigEndian.PutUint16(l4[4:], uint16(id)) // of the conversation
		binary.BigEndian.PutUint32(l4[8:], id)
	}
	if p.Protocol == TCP || p.Protocol == UDP {
		binary.BigEndian.PutUint16(l4, p.SrcPort)
		binary.BigEndian.PutUint16(l4[2:], p.DstPort)
	}
	src, dst := p.Src.AsSlice(), p.Dst.AsSlice()
	pseudo := uint32(0)
	if p.Protocol != ICMP {
		pseudo = sum(src) + sum(dst) + uint32(p.Protocol) + uint32(len(l4))
	}
	at := map[Protocol]int{TCP: 16, UDP: 6, ICMP: 2, ICMPv6: 2}[p.Protocol]
	binary.BigEndian.PutUint16(l4[at:], fold(pseudo+sum(l4)))
	if p.Dst.Is6() {
		h := make([]byte, 40)
		h[0] = 6 << 4
		binary.BigEndian.PutUint16(h[4:], uint16(len(l4)))
		h[6], h[7] = byte(p.Protocol), 64
		copy(h[8:], src)
		copy(h[24:], dst)
		return append(h, l4...)
	}
	h := make([]byte, 20)
	h[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
	binary.BigEndian.PutUint16(h[4:], uint16(id))
	h[8], h[9] = 64, byte(p.Protocol)
	copy(h[12:], src)
	copy(h[16:], dst)
	binary.BigEndian.PutUint16(h[10:], fold(sum(h)))
	return append(h, l4...)
}

func sum(b []byte) (n uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		n += uint32(b[len(b)-1]) << 8
	}
	return n
}

func fold(n uint32) uint16 {
	for n>>16 != 0 {
		n = n&0xffff + n>>16
	}
	return ^uint16(n)
}

// A sighting is what became of a packet.
type sighting struct {
	fate  Fate
	local bool
	out   string
	from  netip.AddrPort
	to    netip.AddrPort
}

func (s sighting) String() string {
	if s.fate != FateAccept {
		return s.fate.String()
	}
	if s.local {
		return fmt.Sprintf("accept, to a process at %v", s.to)
	}
	return fmt.Sprintf("accept, to %v by %s", s.to, s.out)
}

// decode reads a packet: whose it is, where it goes, and whether it refuses
// another rather than being it.
func decode(b []byte) (id uint32, from, to netip.AddrPort, refusal, ok bool) {
	if len(b) < 20 {
		return
	}
	var proto Protocol
	var src, dst netip.Addr
	switch b[0] >> 4 {
	case 4:
		proto, src, dst = Protocol(b[9]), netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		b = b[int(b[0]&15)*4:]
	case 6:
		if len(b) < 40 {
			return
		}
		proto, src, dst = Protocol(b[6]), netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		b = b[40:]
	default:
		return
	}
	return decodeL4(proto, src, dst, b)
}

func decodeL4(proto Protocol, src, dst netip.Addr, b []byte) (id uint32, from, to netip.AddrPort, refusal, ok bool) {
	if len(b) < 12 {
		return
	}
	switch proto {
	case TCP:
		if len(b) < 20 {
			return
		}
		id = binary.BigEndian.Uint32(b[4:]) >> 2
		if refusal = b[13]&tcpRST != 0; refusal {
			if b[13]&tcpACK != 0 { // what it refuses had none
				id = binary.BigEndian.Uint32(b[8:]) >> 2
			}
		}
		return id, netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])), refusal, true
	case UDP:
		return binary.BigEndian.Uint32(b[8:]), netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])), false, true
	case ICMP:
		switch b[0] {
		case 3:
			id, _, _, _, ok = decode(b[8:])
			return id, from, to, true, ok
		case 8:
			return binary.BigEndian.Uint32(b[8:]), netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0), false, true
		}
	case ICMPv6:
		switch b[0] {
		case 1:
			id, _, _, _, ok = decode(b[8:])
			return id, from, to, true, ok
		case 128:
			return binary.BigEndian.Uint32(b[8:]), netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0), false, true
		}
	}
	return
}

// collect returns what has been seen since the last time, when all that was
// sent has run its course.
func (w *world) collect() (map[uint32]sighting, error) {
	if err := w.settle(); err != nil {
		return nil, err
	}
	seen := make(map[uint32]sighting)
	note := func(id uint32, s sighting) {
		if old, ok := seen[id]; !ok || old.fate == FateReject {
			seen[id] = s
		}
	}
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for _, l := range w.local {
		for {
			n, oobn, _, peer, err := syscall.Recvmsg(l.fd, buf, oob, 0)
			if err != nil {
				break
			}
			if !l.v6 {
				if id, from, to, refusal, ok := decode(buf[:n]); ok && !refusal {
					note(id, sighting{fate: FateAccept, local: true, from: from, to: to})
				}
				continue
			}
			messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
			if err != nil {
				return nil, err
			}
			for _, m := range messages {
				if m.Header.Level == syscall.IPPROTO_IPV6 && m.Header.Type == syscall.IPV6_PKTINFO {
					src, dst := netip.AddrFrom16(peer.(*syscall.SockaddrInet6).Addr), netip.AddrFrom16([16]byte(m.Data[:16]))
					if id, from, to, refusal, ok := decodeL4(l.proto, src, dst, buf[:n]); ok && !refusal {
						note(id, sighting{fate: FateAccept, local: true, from: from, to: to})
					}
				}
			}
		}
	}
	for _, end := range []struct {
		fd  int
		out string
	}{{w.atOutside, "eth0"}, {w.atInside, "br0"}} {
		for {
			n, link, err := syscall.Recvfrom(end.fd, buf, 0)
			if err != nil {
				break
			}
			if l, ok := link.(*syscall.SockaddrLinklayer); !ok || l.Pkttype == syscall.PACKET_OUTGOING || n < 14 {
				continue
			}
			id, from, to, refusal, ok := decode(buf[14:n])
			if !ok {
				continue
			}
			if refusal {
				note(id, sighting{fate: FateReject})
			} else {
				note(id, sighting{fate: FateAccept, out: end.out, from: from, to: to})
			}
		}
	}
	return seen, nil
}

// settle asks the machine for its addresses on both wires and waits for the
// answers: by then all earlier frames have been dealt with.
func (w *world) settle() error {
	for _, end := range []struct {
		fd, idx int
		addr    netip.Addr
	}{{w.atOutside, w.ifOutside, machine4}, {w.atInside, w.ifInside, bridge4}, {w.atOutside, w.ifOutside, machine4}} {
		// A socket of its own, so that the others lose nothing.
		ns := w.outside
		if end.fd == w.atInside {
			ns = w.inside
		}
		if err := w.enter(ns); err != nil {
			return err
		}
		fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, int(htons(syscall.ETH_P_ARP)))
		if err != nil {
			return err
		}
		if err := w.enter(w.machine); err != nil {
			return err
		}
		tv := syscall.NsecToTimeval(int64(2 * time.Second))
		err = func() error {
			defer syscall.Close(fd)
			if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv); err != nil {
				return err
			}
			arp := []byte{
				0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x99, 8, 6,
				0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
			}
			a := end.addr.As4()
			arp = append(arp, a[:]...)
			if err := syscall.Sendto(end.fd, arp, 0, &syscall.SockaddrLinklayer{Ifindex: end.idx, Halen: 6}); err != nil {
				return err
			}
			buf := make([]byte, 128)
			for {
				n, _, err := syscall.Recvfrom(fd, buf, 0)
				if err != nil {
					return fmt.Errorf("the machine does not answer: %w", err)
				}
				if n >= 42 && buf[21] == 2 && netip.AddrFrom4([4]byte(buf[28:32])) == end.addr {
					return nil
				}
			}
		}()
		if err != nil {
			return err
		}
	}
	return nil
}
