package procfs

import (
	"fmt"
	"net/netip"
	"os"
	"path"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const statusFile = `Name:	node
Umask:	0022
State:	S (sleeping)
Tgid:	42
Ngid:	0
Pid:	43
PPid:	7
TracerPid:	0
Uid:	1000	1000	1000	1000
Gid:	1000	1000	1000	0
FDSize:	64
Groups:	27 999 
NStgid:	42	1
NSpid:	43	2
Threads:	16
CapInh:	0000000000000000
CapPrm:	0000000000000001
CapEff:	00000000a80425fb
CapBnd:	000001fffeffffff
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
`

func TestParseStatus(t *testing.T) {
	got, err := ParseStatus([]byte(statusFile))
	if err != nil {
		t.Fatal(err)
	}
	want := Status{
		Name: "node", State: "S", TGID: 42, PID: 43, PPID: 7,
		UIDs: [4]uint32{1000, 1000, 1000, 1000}, GIDs: [4]uint32{1000, 1000, 1000, 0},
		Groups: []uint32{27, 999}, NSpid: []int{43, 2}, Threads: 16,
		CapPrm: 1, CapEff: 0xa80425fb, CapBnd: 0x1fffeffffff, NoNewPrivs: true, Seccomp: 2,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A status from which a line is missing must not read as zeros: zero is what
// the checks hope for.
func TestParseStatusNeedsEveryLine(t *testing.T) {
	lines := strings.SplitAfter(statusFile, "\n")
	for i, line := range lines {
		key, _, _ := strings.Cut(line, ":")
		if !slices.Contains(statusFields, key) {
			continue
		}
		without := strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "")
		if _, err := ParseStatus([]byte(without)); err == nil {
			t.Errorf("accepted without %s", key)
		}
		twice := statusFile + line
		if _, err := ParseStatus([]byte(twice)); err == nil {
			t.Errorf("accepted with %s twice", key)
		}
	}
	for _, bad := range []string{"", "Uid", strings.Replace(statusFile, "Uid:\t1000\t", "Uid:\t", 1), strings.Replace(statusFile, "NoNewPrivs:\t1", "NoNewPrivs:\tx", 1)} {
		if _, err := ParseStatus([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

const mountinfoFile = `100 50 0:30 / / ro,relatime master:5 - overlay overlay ro,lowerdir=/a:/b
101 100 0:31 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
102 100 0:32 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
103 100 8:1 /srv/my\040state /state\011x rw,relatime shared:2 - ext4 /dev/sda1 rw
104 101 0:32 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
`

func TestParseMountinfo(t *testing.T) {
	got, err := ParseMountinfo([]byte(mountinfoFile))
	if err != nil {
		t.Fatal(err)
	}
	want := Mount{
		ID: 103, Parent: 100, Device: "8:1", Root: "/srv/my state", Path: "/state\tx",
		Options: []string{"rw", "relatime"}, Tags: []string{"shared:2"}, FSType: "ext4", Source: "/dev/sda1", Super: []string{"rw"},
	}
	if !reflect.DeepEqual(got[3], want) {
		t.Errorf("got %+v, want %+v", got[3], want)
	}
	for _, bad := range []string{"", "\n", "1 2 3", "a 50 0:30 / / ro - x y z", "1 2 0:30 / / ro no separator here", "1 2 0:30 / relative ro - x y z"} {
		if _, err := ParseMountinfo([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func tree(t *testing.T, lines ...string) *Tree {
	t.Helper()
	mounts, err := ParseMountinfo([]byte(strings.Join(lines, "\n") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return NewTree(mounts)
}

func TestTop(t *testing.T) {
	tr := tree(t,
		"1 0 8:1 / / rw - ext4 x rw",
		"2 1 0:2 / /run rw - tmpfs x rw",
		"3 2 0:3 / /run/docker rw - tmpfs x rw",
		"4 2 0:4 / /run rw - tmpfs over rw",     // covers mount 2 and with it 3
		"5 1 0:5 / /data rw - tmpfs x rw",       // covered by the next
		"6 5 8:1 /srv /data rw - ext4 x rw",     // stacked
		"7 1 8:1 /etc/passwd /p rw - ext4 x rw", // a file
	)
	for name, want := range map[string]int{
		"/": 1, "/etc": 1, "/run": 4, "/run/docker": 4, "/run/docker/x": 4, "/runner": 1, "/data/x": 6, "/p": 7,
	} {
		if i := tr.Top(name); tr.Mounts[i].ID != want {
			t.Errorf("%s is on mount %d, want %d", name, tr.Mounts[i].ID, want)
		}
	}
	for name, want := range map[string]string{"/data/x": "8:1 /srv/x", "/p": "8:1 /etc/passwd", "/a/b": "8:1 /a/b", "/run/s": "0:4 /s", "/": "8:1 /"} {
		device, within, ok := tr.InFileSystem(name)
		if got := device + " " + within; got != want || !ok {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for within, want := range map[string][]string{
		"/srv/x":      {"/srv/x", "/data/x"},
		"/etc/passwd": {"/etc/passwd", "/p"},
		"/run/x":      nil, // under the mounts
	} {
		if got := tr.Paths("8:1", within); !slices.Equal(got, want) {
			t.Errorf("8:1 %s is at %q, want %q", within, got, want)
		}
	}
	if got := tr.Paths("0:3", "/x"); got != nil {
		t.Errorf("what is on a covered mount is at %q", got)
	}
	chrooted := tree(t, "2 1 0:2 / /run rw - tmpfs x rw")
	if i := chrooted.Top("/etc"); i >= 0 {
		t.Errorf("a tree without a root has /etc on %+v", chrooted.Mounts[i])
	}
}

// Where a tree says that a file is, the file is.
func FuzzTree(f *testing.F) {
	f.Add([]byte(mountinfoFile), "/proc/kcore")
	f.Add([]byte("1 1 0:1 / / rw - a b c\n1 1 0:1 / /a rw - a b c\n1 1 0:1 / /a rw - a b c\n"), "/a/b")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		mounts, err := ParseMountinfo(data)
		if err != nil || !strings.HasPrefix(name, "/") {
			return
		}
		tr := NewTree(mounts)
		i := tr.Top(name)
		if i >= 0 && !Below(name, tr.Mounts[i].Path) {
			t.Errorf("%q is said to be on %q", name, tr.Mounts[i].Path)
		}
		device, within, ok := tr.InFileSystem(name)
		if !ok {
			return
		}
		paths := tr.Paths(device, within)
		root := tr.Mounts[i].Root // of a namespace it is not a path
		if clean := path.Clean(name) == name && path.Clean("/"+root) == root; clean && !slices.Contains(paths, name) {
			t.Errorf("%q is at %s %q, which is said to be only at %q", name, device, within, paths)
		}
		for _, p := range paths {
			if j := tr.Top(p); tr.Mounts[j].Device != device {
				t.Errorf("%q is said to be at %q, which is on device %s and not %s", within, p, tr.Mounts[j].Device, device)
			}
		}
	})
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`a\040b`: "a b", `\134`: `\`, `\04`: `\04`, `\999`: `\999`, `x\012`: "x\n", "": ""} {
		if got := Unescape(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

const tcpFile = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:4965 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0
`

const tcp6File = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0000000000000000 100 0 0 10 0
   1: B80D0120000000000000000001000000:0051 00000000000000000000000000000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0000000000000000 100 0 0 10 0
`

func TestParseInet(t *testing.T) {
	if runtime.GOARCH == "s390x" {
		t.Skip("the samples are little-endian")
	}
	got, err := ParseInet([]byte(tcpFile))
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	if got[0].Local != netip.MustParseAddrPort("127.0.0.1:18789") || got[0].State != TCPListen || got[0].UID != 1000 || got[0].Inode != 12345 {
		t.Errorf("got %+v", got[0])
	}
	got, err = ParseInet([]byte(tcp6File))
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if got[0].Local != netip.MustParseAddrPort("[::]:80") || got[1].Local != netip.MustParseAddrPort("[2001:db8::1]:81") {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{"x\ny", "h\n0: 01:02 03:04 0A a b c d e f", "h\n0: 0100007F:ZZZZ 00000000:0000 0A a:b c d 0 0 1"} {
		if _, err := ParseInet([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

const unixFile = `Num       RefCount Protocol Flags    Type St Inode Path
00000000f330099b: 00000003 00000000 00000000 0001 03  1582
000000000b5b0ba5: 00000002 00000000 00010000 0001 01     1 /run/docker.sock
000000000b5b0ba6: 00000002 00000000 00010000 0001 01 99999 @/containerd-shim/x.sock
000000000b5b0ba7: 00000002 00000000 00010000 0001 01 12345 /srv/with  spaces 1 /s
000000000b5b0ba8: 00000002 00000000 00010000 0001 01 12346 /srv/with
break
`

func TestParseUnix(t *testing.T) {
	got, err := ParseUnix([]byte(unixFile))
	if err != nil {
		t.Fatal(err)
	}
	want := []UnixSocket{
		{Inode: 1582},
		{Inode: 1, Listen: true, Path: "/run/docker.sock"},
		{Inode: 99999, Listen: true, Path: "@/containerd-shim/x.sock"},
		{Inode: 12345, Listen: true, Path: "/srv/with  spaces 1 /s"},
		{Inode: 12346, Listen: true, Path: "/srv/with\nbreak"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestParseCgroup(t *testing.T) {
	got, err := ParseCgroup([]byte("12:cpu,cpuacct:/docker/4f0c\n1:name=systemd:/docker/4f0c\n0::/system.slice/a:b\n"))
	want := []CgroupEntry{
		{12, []string{"cpu", "cpuacct"}, "/docker/4f0c"},
		{1, []string{"name=systemd"}, "/docker/4f0c"},
		{0, nil, "/system.slice/a:b"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "a:b:/c", "1:b:c"} {
		if _, err := ParseCgroup([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

// What this machine's kernel writes can be read.
func TestThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no /proc on " + runtime.GOOS)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	st, err := ParseStatus(read("status"))
	if err != nil || st.TGID != os.Getpid() || int(st.UIDs[1]) != os.Geteuid() {
		t.Errorf("status: %+v, %v", st, err)
	}
	mounts, err := ParseMountinfo(read("mountinfo"))
	if err != nil {
		t.Error(err)
	}
	if NewTree(mounts).Top("/") < 0 {
		t.Error("no mount is at the root")
	}
	if _, err := ParseCgroup(read("cgroup")); err != nil {
		t.Error(err)
	}
	if _, err := ParseUnix(read("net/unix")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		data, err := os.ReadFile("/proc/self/net/" + name)
		if err != nil {
			continue // no IPv6
		}
		if _, err := ParseInet(data); err != nil {
			t.Error(name, err)
		}
	}
}

func FuzzParsers(f *testing.F) {
	for _, s := range []string{statusFile, mountinfoFile, tcpFile, tcp6File, unixFile, "0::/x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := ParseStatus(data); err == nil && !strings.Contains(string(data), "NoNewPrivs") {
			t.Errorf("a status without NoNewPrivs reads as %+v", s)
		}
		if all, err := ParseCgroup(data); err == nil && len(all) == 0 {
			t.Error("no cgroup, and no error")
		}
		if all, err := ParseUnix(data); err == nil {
			for _, s := range all {
				_ = fmt.Sprint(s)
			}
		}
		_, _ = ParseInet(data)
	})
}
