package container_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/docker"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// hardened are the arguments of docker run that make a container pass, by what
// they are about.
var hardened = map[string][]string{
	"user":   {"--user", "1000:1000"},
	"root":   {"--read-only"},
	"caps":   {"--cap-drop", "ALL"},
	"nnp":    {"--security-opt", "no-new-privileges"},
	"cgroup": {"--cgroupns", "private"},
	"pids":   {"--pids-limit", "100"},
	"memory": {"--memory", "128m"},
	"tmpfs":  {"--tmpfs", "/tmp:size=16m"},
	"state":  {"--volume", "/state"},
}

// A situation is a hardened container with something different about it.
type situation struct {
	name    string
	without []string // keys of hardened that are left out
	args    []string // of docker run
	image   string   // UserImage if empty
	cmd     []string
	prepare func(t *testing.T, l *lab.Lab) // before it is run
	after   func(t *testing.T, l *lab.Lab, name string)

	fail    []string // checks that must fail, without "container."
	unknown []string // checks that must be unknown
	also    []string // checks that may fail too, for the same reason
}

func without(keys ...string) []string { return keys }

func args(a ...string) []string { return a }

func opt(o string) []string { return []string{"--security-opt", o} }

// situations are the configurations that were measured to be unsafe, or to look
// so, and evasions. dir is a directory of the host to mount.
func situations(l *lab.Lab, dir string) []situation {
	mount := func(spec string) []string { return []string{"--volume", spec} }
	exec := func(a ...string) func(*testing.T, *lab.Lab, string) {
		return func(t *testing.T, l *lab.Lab, name string) {
			t.Helper()
			must(t, l, slices.Concat([]string{"exec", "-d"}, a, []string{name, "/agent", "sleep", "600"})...)
		}
	}
	volume := func(name string, options ...string) func(*testing.T, *lab.Lab) {
		return func(t *testing.T, l *lab.Lab) {
			t.Helper()
			a := []string{"volume", "create"}
			for _, o := range options {
				a = append(a, "--opt", o)
			}
			must(t, l, append(a, name)...)
		}
	}
	allowAll := filepath.Join(dir, "allow.json")
	logAll := filepath.Join(dir, "log.json")
	oneTooMany := filepath.Join(dir, "one.json")
	gid := "0"
	if data, err := os.ReadFile("/etc/group"); err == nil {
		for line := range strings.Lines(string(data)) {
			if f := strings.Split(line, ":"); f[0] == "docker" {
				gid = f[2]
			}
		}
	}

	all := []situation{
		{name: "hardened"},
		{name: "hardened-with-init", args: args("--init")},
		{name: "hardened-published-on-loopback", args: args("-p", "127.0.0.1:21001:18789"), unknown: args("loopback_leak")},

		// USER
		{name: "user-unset", without: without("user"), image: lab.AgentImage, fail: args("non_root")},
		{name: "user-0", without: without("user"), args: args("-u", "0"), fail: args("non_root")},
		{name: "user-root", without: without("user"), args: args("-u", "root"), fail: args("non_root")},
		{name: "user-0-0", without: without("user"), args: args("-u", "0:0"), fail: args("non_root")},
		{name: "user-00", without: without("user"), args: args("-u", "00"), fail: args("non_root")},
		{name: "user-000-1000", without: without("user"), args: args("-u", "000:1000"), fail: args("non_root")},
		{name: "user-plus-0", without: without("user"), args: args("-u", "+0"), fail: args("non_root")},
		{name: "user-colon-1000", without: without("user"), args: args("-u", ":1000"), fail: args("non_root")},
		{name: "user-1000-0", without: without("user"), args: args("-u", "1000:0"), fail: args("non_root")},
		{name: "user-image-toor", without: without("user"), image: lab.ToorImage, fail: args("non_root")},
		{name: "user-image-app", without: without("user")},
		{name: "user-without-entry", without: without("user"), args: args("-u", "4321"), fail: args("non_root")},
		{name: "group-add-0", args: args("--group-add", "0"), fail: args("non_root")},
		{name: "group-add-docker-by-name", args: args("--group-add", "docker"), fail: args("non_root")},
		{name: "group-add-docker-by-id", args: args("--group-add", gid), fail: args("non_root")},

		// NNP
		{name: "nnp-unset", without: without("nnp"), fail: args("no_new_privileges")},
		{name: "nnp-colon-true", without: without("nnp"), args: opt("no-new-privileges:true")},
		{name: "nnp-equals-true", without: without("nnp"), args: opt("no-new-privileges=true")},
		{name: "nnp-colon-false", without: without("nnp"), args: opt("no-new-privileges:false"), fail: args("no_new_privileges")},
		{name: "nnp-equals-false", without: without("nnp"), args: opt("no-new-privileges=false"), fail: args("no_new_privileges")},
		{name: "nnp-true-then-false", args: opt("no-new-privileges:false"), fail: args("no_new_privileges")},

		// CAPS
		{name: "caps-default-non-root", without: without("caps"), fail: args("capabilities")},
		{name: "caps-default-root", without: without("caps", "user"), image: lab.AgentImage, fail: args("capabilities", "non_root")},
		{name: "caps-drop-lower-case", without: without("caps"), args: args("--cap-drop", "all")},
		{name: "caps-add-sys-admin", args: args("--cap-add", "SYS_ADMIN"), fail: args("capabilities"), also: args("masked_paths", "writable_paths", "seccomp")},
		{name: "caps-add-sys-admin-prefixed", args: args("--cap-add", "CAP_SYS_ADMIN"), fail: args("capabilities"), also: args("masked_paths", "writable_paths")},
		{name: "caps-add-all", args: args("--cap-add", "ALL"), fail: args("capabilities"), also: args("privileged")},
		{name: "caps-add-one", args: args("--cap-add", "NET_BIND_SERVICE"), fail: args("capabilities")},
		{
			name: "privileged-with-cap-drop", args: args("--privileged"),
			fail: args("privileged", "capabilities", "seccomp", "masked_paths", "devices", "writable_paths"), also: args("namespaces", "tmpfs"),
		},

		// SECCOMP
		{name: "seccomp-unconfined", args: opt("seccomp=unconfined"), fail: args("seccomp")},
		{name: "seccomp-unconfined-colon", args: opt("seccomp:unconfined"), fail: args("seccomp")},
		{name: "seccomp-allow-all", args: opt("seccomp=" + allowAll), fail: args("seccomp")},
		{name: "systempaths-unconfined", args: opt("systempaths=unconfined"), fail: args("masked_paths")},

		// NS
		{name: "pid-host", args: args("--pid", "host"), fail: args("namespaces", "engine_socket")},
		{name: "pid-container", args: args("--pid", "container:first"), fail: args("namespaces")},
		{name: "ipc-host", args: args("--ipc", "host"), fail: args("namespaces"), also: args("tmpfs", "host_paths", "writable_paths")},
		{name: "ipc-shareable", args: args("--ipc", "shareable")},
		{name: "ipc-container", args: args("--ipc", "container:shareable"), fail: args("namespaces"), also: args("tmpfs", "host_paths", "writable_paths")},
		{name: "net-host", args: args("--network", "host"), cmd: args("serve", "--port", "21002"), fail: args("host_network"), also: args("engine_socket", "writable_paths")},
		{name: "net-container", args: args("--network", "container:first"), cmd: args("serve", "--port", "21003")},
		{name: "uts-host", args: args("--uts", "host"), fail: args("namespaces")},
		{name: "userns-host-without-remap", args: args("--userns", "host")},
		{name: "cgroupns-host", without: without("cgroup"), args: args("--cgroupns", "host"), fail: args("cgroup_namespace"), also: args("namespaces")},

		// SOCK
		{name: "sock-direct", args: mount("/run/docker.sock:/run/docker.sock"), fail: args("engine_socket", "host_paths", "writable_paths")},
		{name: "sock-read-only", args: mount("/run/docker.sock:/run/docker.sock:ro"), fail: args("engine_socket", "host_paths")},
		{name: "sock-elsewhere", args: mount("/run/docker.sock:/tmp/innocent"), fail: args("engine_socket", "host_paths", "writable_paths")},
		{name: "sock-by-mount", args: args("--mount", "type=bind,src=/run/docker.sock,dst=/s"), fail: args("engine_socket", "host_paths", "writable_paths")},
		{name: "sock-parent", args: mount("/run:/host-run"), fail: args("engine_socket", "host_paths", "writable_paths"), also: args("tmpfs", "mount_propagation")},
		{name: "sock-parent-read-only", args: mount("/run:/host-run:ro"), fail: args("engine_socket", "host_paths"), also: args("tmpfs", "writable_paths", "mount_propagation")},
		{name: "sock-root-read-only", args: mount("/:/host:ro"), fail: args("engine_socket", "host_paths"), also: args("tmpfs", "writable_paths", "mount_propagation")},
		{name: "sock-symlink", args: mount(dir + "/innocent-link:/s"), fail: args("engine_socket", "host_paths", "writable_paths")},
		{name: "sock-volume", prepare: volume("vsock", "type=none", "o=bind", "device=/run"), args: mount("vsock:/s"), fail: args("engine_socket", "host_paths", "writable_paths"), also: args("tmpfs", "mount_propagation")},
		{name: "sock-volumes-from", args: args("--volumes-from", "sock-direct"), fail: args("engine_socket", "host_paths", "writable_paths")},
		{name: "sock-below-state", args: mount("/run/docker.sock:/state/s"), fail: args("engine_socket", "host_paths")},
		{name: "engine-in-environment", args: args("-e", "DOCKER_HOST=tcp://192.0.2.1:2375"), fail: args("engine_socket")},
		{name: "engine-in-environment-unix", args: args("-e", "DOCKER_HOST=unix:///none.sock")},

		// TMPFS
		{name: "tmpfs-without-size", without: without("tmpfs"), args: args("--tmpfs", "/tmp"), fail: args("tmpfs")},
		{name: "tmpfs-exec", without: without("tmpfs"), args: args("--tmpfs", "/tmp:size=16m,exec"), fail: args("tmpfs")},
		{name: "tmpfs-suid-dev", without: without("tmpfs"), args: args("--tmpfs", "/tmp:size=16m,suid,dev"), fail: args("tmpfs")},
		{name: "tmpfs-by-mount-without-size", args: args("--mount", "type=tmpfs,dst=/t"), fail: args("tmpfs")},
		{name: "tmpfs-by-mount", args: args("--mount", "type=tmpfs,dst=/t,tmpfs-size=1048576")},
		{name: "image-volume", image: lab.VolumeImage, fail: args("writable_paths")},
		{name: "anonymous-volume", args: mount("/data"), fail: args("writable_paths")},
		{name: "writable-root", without: without("root"), fail: args("read_only_root")},

		// DEV
		{name: "device", args: args("--device", "/dev/kmsg"), fail: args("devices")},
		{name: "device-rule", args: args("--device-cgroup-rule", "b *:* rwm"), fail: args("devices")},

		// LIMITS
		{name: "no-memory-limit", without: without("memory"), fail: args("memory_limit")},
		{name: "no-pids-limit", without: without("pids"), fail: args("pids_limit")},
		{name: "pids-limit-0", without: without("pids"), args: args("--pids-limit", "0"), fail: args("pids_limit")},
		{name: "pids-limit-minus-1", without: without("pids"), args: args("--pids-limit", "-1"), fail: args("pids_limit")},

		// EXEC
		{name: "exec-as-root", after: exec("-u", "0"), fail: args("non_root")},
		{name: "exec-as-group-root", after: exec("-u", "1000:0"), fail: args("non_root")},
		{name: "exec-privileged", after: exec("--privileged", "-u", "0"), fail: args("non_root", "capabilities", "privileged"), also: args("seccomp")},

		// PORTS
		{name: "published", args: args("-p", "21004:18789"), fail: args("published_ports")},
		{name: "published-on-ipv6", args: args("-p", "[::]:21005:18789"), fail: args("published_ports")},
		{name: "published-on-an-address", args: args("-p", "192.0.2.1:21006:18789"), fail: args("published_ports")},
		{name: "published-all", args: args("-P", "--expose", "18789"), fail: args("published_ports")},
		{name: "published-twice", args: args("-p", "127.0.0.1:21007:18789", "-p", "192.0.2.1:21007:18789"), fail: args("published_ports"), unknown: args("loopback_leak")},

		// Evasions beside those.
		{name: "evade-hard-link-of-the-socket", args: mount(l.Dir() + "/links:/links"), fail: args("engine_socket", "writable_paths")},
		{name: "evade-proxy-socket", args: mount(dir + "/proxy:/state/proxy:ro"), fail: args("engine_socket")},
		{name: "evade-moved-socket", args: mount(dir + "/moved:/state/moved"), fail: args("engine_socket")},
		{name: "evade-volume-through-a-symlink", prepare: volume("vlink", "type=none", "o=bind", "device="+dir+"/etc-link"), args: mount("vlink:/state/x:ro"), fail: args("host_paths"), also: args("tmpfs")},
		{name: "evade-below-declared-state", args: mount("/etc:/state/etc"), fail: args("host_paths"), also: args("tmpfs")},
		{name: "evade-ramfs-volume", without: without("state"), prepare: volume("vram", "type=ramfs", "device=ramfs"), args: mount("vram:/state"), fail: args("tmpfs")},
		{name: "evade-tmpfs-of-nine-tenths", without: without("tmpfs"), args: args("--tmpfs", "/tmp:size=90%"), fail: args("tmpfs")},
		{name: "evade-large-shm", args: args("--shm-size", "64g"), fail: args("tmpfs")},
		{name: "evade-seccomp-log-all", args: opt("seccomp=" + logAll), fail: args("seccomp")},
		{name: "evade-seccomp-one-too-many", args: opt("seccomp=" + oneTooMany), fail: args("seccomp")},
		{name: "evade-seccomp-repeated", args: slices.Concat(opt("seccomp="+oneTooMany), opt("seccomp=unconfined")), fail: args("seccomp")},
		{name: "evade-memory-limit-beyond-the-machine", without: without("memory"), args: args("--memory", "900g"), fail: args("memory_limit")},
		{name: "evade-pids-limit-beyond-the-machine", without: without("pids"), args: args("--pids-limit", "4194304"), fail: args("pids_limit")},
		{name: "evade-writable-mount-below-a-read-only-one", args: mount(dir + "/below:/in:ro"), fail: args("writable_paths"), also: args("tmpfs")},
		{name: "evade-device-by-mount", args: mount("/dev/kmsg:/state/kmsg"), fail: args("host_paths"), also: args("tmpfs", "writable_paths")},
		{name: "evade-shared-mount", args: mount(dir + "/shared:/shared:rshared"), fail: args("mount_propagation", "writable_paths")},
		{
			name: "evade-other-container's-volume", args: mount(filepath.Join(l.Dir(), "docker", "volumes") + ":/state/volumes:ro"),
			fail: args("host_paths"), also: args("tmpfs", "writable_paths", "engine_socket", "mount_propagation"),
		},
		{
			name: "evade-threads-that-differ", fail: args("non_root", "capabilities", "privileged"), also: args("seccomp"),
			after: func(t *testing.T, l *lab.Lab, name string) { // its first thread has nothing
				t.Helper()
				must(t, l, "exec", "-d", "--privileged", "-u", "0", name, "/agent", "split", "1000", "600")
			},
		},
		{
			name: "evade-process-from-outside", fail: args("non_root", "capabilities", "no_new_privileges"), also: args("seccomp", "privileged", "cgroup_namespace", "namespaces", "host_network", "tmpfs", "host_paths", "writable_paths", "masked_paths"),
			after: func(t *testing.T, l *lab.Lab, name string) { // not in its cgroup, only in its process namespace
				t.Helper()
				pid := strings.TrimSpace(must(t, l, "inspect", "-f", "{{.State.Pid}}", name))
				cmd := l.Host.Command(context.WithoutCancel(t.Context()), "nsenter", "-t", pid, "-p", "-m", "-n", "-u", "-i", "/agent", "sleep", "600")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				for { // until it is in there
					a, err := l.Do(ctx, name, "ps")
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(string(a.Result), "sleep") {
						return
					}
				}
			},
		},
	}
	for _, path := range []string{"/", "/etc", "/root", "/home", "/boot", "/proc", "/sys", "/dev", "/lib/modules", "/var/lib/docker", "/run", "/var/run", "/var/log", "/sys/fs/cgroup", "/proc/sys/kernel/core_pattern"} {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		for _, mode := range []string{"rw", "ro"} {
			all = append(all, situation{
				name: "mount" + strings.ReplaceAll(path, "/", "-") + "-" + mode, args: mount(path + ":/state/m:" + mode),
				fail: args("host_paths"), also: args("engine_socket", "tmpfs", "mount_propagation", "writable_paths"),
			})
		}
	}
	return all
}

func must(t *testing.T, l *lab.Lab, a ...string) string {
	t.Helper()
	out, err := l.Docker(t.Context(), a...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// furnish makes what the situations mount.
func furnish(t *testing.T, l *lab.Lab) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "host")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"proxy", "moved", "below/sub", "shared"} {
		check(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	check(os.WriteFile(filepath.Join(dir, "allow.json"), []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), 0o600))
	check(os.WriteFile(filepath.Join(dir, "log.json"), []byte(`{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO"}]}`), 0o600))
	check(os.WriteFile(filepath.Join(dir, "one.json"), []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount","umount2","kexec_load","init_module"],"action":"SCMP_ACT_ERRNO"}]}`), 0o600))
	check(os.Symlink("/run/docker.sock", filepath.Join(dir, "innocent-link")))
	check(os.Symlink("/etc", filepath.Join(dir, "etc-link")))
	check(os.MkdirAll(filepath.Join(l.Dir(), "links", "deep"), 0o755))
	check(os.Link(l.HostPath("/run/docker.sock"), filepath.Join(l.Dir(), "links", "deep", "x")))
	listen := func(name string) {
		t.Helper()
		ln, err := net.Listen("unix", filepath.Join(dir, name))
		check(err)
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		t.Cleanup(func() { ln.Close() })
	}
	listen("proxy/innocent.sock")
	listen("moved/a.sock")
	check(os.Rename(filepath.Join(dir, "moved/a.sock"), filepath.Join(dir, "moved/b")))
	for _, a := range [][]string{
		{"mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", filepath.Join(dir, "below/sub")},
		{"mount", "--bind", filepath.Join(dir, "shared"), filepath.Join(dir, "shared")},
		{"mount", "--make-shared", filepath.Join(dir, "shared")},
	} {
		if out, err := l.Host.Command(t.Context(), a[0], a[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", a, err, out)
		}
	}
	return dir
}

// No container that is unsafe in effect passes the check that it concerns, on a
// real engine and kernel; and nothing else about it fails.
func TestLive(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	dir := furnish(t, l)
	all := situations(l, dir)

	must(t, l, "run", "-d", "--name", "first", lab.UserImage)
	must(t, l, "run", "-d", "--name", "shareable", "--ipc", "shareable", lab.UserImage)
	for _, s := range all {
		if s.prepare != nil {
			s.prepare(t, l)
		}
	}
	names := make(map[string]string)
	var g errgroup.Group
	g.SetLimit(4)
	refused := make([]error, len(all))
	start := func(i int, s situation) {
		name := "s" + strconv.Itoa(i)
		if s.name == "sock-direct" {
			name = s.name // others take its volumes
		}
		names[s.name] = name
		a := []string{"run", "-d", "--name", name}
		for key, more := range hardened {
			if !slices.Contains(s.without, key) {
				a = append(a, more...)
			}
		}
		a = append(a, s.args...)
		image := s.image
		if image == "" {
			image = lab.UserImage
		}
		a = append(append(a, image), s.cmd...)
		g.Go(func() error {
			_, refused[i] = l.Docker(t.Context(), a...)
			return nil
		})
	}
	late := func(s situation) bool { return slices.Contains(s.args, "--volumes-from") }
	for i, s := range all {
		if !late(s) {
			start(i, s)
		}
	}
	_ = g.Wait()
	for i, s := range all {
		if late(s) {
			start(i, s)
		}
	}
	_ = g.Wait()
	for _, s := range all {
		if s.after != nil {
			s.after(t, l, names[s.name])
		}
	}

	engine, err := docker.Open(l.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	view := &host.Local().View
	found, err := container.NewSource(engine).All(t.Context(), view)
	if err != nil {
		t.Fatal(err)
	}
	api := apiMinor(t, engine)
	p := container.Profile{Writable: []string{"/state"}}
	for i, s := range all {
		switch {
		case api >= 48 && slices.Contains(s.unknown, "loopback_leak"):
			s.unknown = nil // Docker 28 closed it
		case api >= 44 && s.name == "evade-writable-mount-below-a-read-only-one":
			s.fail = nil // Docker 25 makes what is below read-only too
		}
		t.Run(s.name, func(t *testing.T) {
			if refused[i] != nil {
				t.Fatalf("the engine refuses it: %v", refused[i])
			}
			k := slices.IndexFunc(found, func(c container.Container) bool { return c.Name == names[s.name] })
			if k < 0 {
				out, _ := l.Docker(t.Context(), "logs", names[s.name])
				t.Fatalf("it is not running: %s", out)
			}
			results := judge(t, found[k], p)
			points := make(map[harden.Point]bool)
			for id, res := range results {
				id := strings.TrimPrefix(id, "container.")
				what := fmt.Sprintf("%v %s %v", res.Status, res.Detail, res.Findings)
				switch {
				case slices.Contains(s.fail, id):
					if res.Status != harden.StatusFail {
						t.Errorf("%s must fail: %s", id, what)
					}
					points[res.Info.Point] = true
				case slices.Contains(s.unknown, id):
					if res.Status != harden.StatusUnknown {
						t.Errorf("%s must be unknown: %s", id, what)
					}
				case slices.Contains(s.also, id):
				case res.Status != harden.StatusPass && res.Status != harden.StatusNotApplicable:
					t.Errorf("%s: %s", id, what)
				case res.Status == harden.StatusPass && res.Level < harden.LevelInspected && id != "loopback_leak":
					t.Errorf("%s passes on %v evidence", id, res.Level)
				}
			}
		})
	}
}

// apiMinor returns the minor version of the engine's API, such as 41.
func apiMinor(t *testing.T, e container.Engine) (minor int) {
	t.Helper()
	info, err := e.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(info.APIVersion, "1.%d", &minor); err != nil {
		t.Fatalf("API version %q: %v", info.APIVersion, err)
	}
	return minor
}

// judge judges one container.
func judge(t *testing.T, c container.Container, p container.Profile) map[string]harden.Result {
	t.Helper()
	src := &harden.Source[container.Container]{
		Name:    "containers",
		List:    func(context.Context, *host.View) ([]container.Container, error) { return []container.Container{c}, nil },
		Subject: func(c container.Container) string { return c.Subject() },
	}
	results := make(map[string]harden.Result)
	for _, check := range container.Checks(src, p) {
		res := harden.Evaluate(t.Context(), &host.View{}, check, 0)
		results[res.Info.ID] = res
	}
	return results
}

// An engine that listens on TCP is reached over the bridge.
func TestLiveEngineOnTCP(t *testing.T) {
	l := labtest.Start(t, lab.Config{DockerdArgs: []string{"-H", "tcp://0.0.0.0:2375"}})
	must(t, l, "run", "-d", "--name", "agent", lab.UserImage)
	engine, err := docker.Open(l.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	found, err := container.NewSource(engine).All(t.Context(), &host.Local().View)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := l.Do(t.Context(), "agent", "get", "http://172.17.0.1:2375/_ping")
	if err != nil || !answer.OK {
		t.Fatalf("the container does not reach it: %v %v", answer, err)
	}
	if res := judge(t, found[0], container.Profile{})["container.engine_tcp"]; res.Status != harden.StatusFail {
		t.Errorf("%v %s", res.Status, res.Detail)
	}
}

// Without privilege everything is unknown, for that reason, except what the
// engine itself says is wrong; the same as nobody, who may not ask the engine.
func TestLiveUnprivileged(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	must(t, l, "run", "-d", "--name", "agent", lab.UserImage)
	engine, err := docker.Open(l.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	view := host.Local().View
	view.Granted = 0
	for _, c := range container.Checks(container.NewSource(engine), container.Profile{}) {
		res := harden.Evaluate(t.Context(), &view, c, 0)
		if res.Status == harden.StatusPass {
			t.Errorf("%s passes", res.Info.ID)
		}
		if res.Status == harden.StatusUnknown && res.Reason != harden.ReasonPrivilege {
			t.Errorf("%s is unknown for %s: %s", res.Info.ID, res.Reason, res.Detail)
		}
	}
}

// A socket with a second name is found without any other reason to search.
func TestLiveHardLink(t *testing.T) {
	l := labtest.Start(t, lab.Config{})
	dir := filepath.Join(l.Dir(), "links")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, l, "run", "-d", "--name", "agent", "-v", dir+":/links", lab.UserImage)
	engine, err := docker.Open(l.DockerHost())
	if err != nil {
		t.Fatal(err)
	}
	status := func() harden.Status {
		t.Helper()
		found, err := container.NewSource(engine).All(t.Context(), &host.Local().View)
		if err != nil {
			t.Fatal(err)
		}
		return judge(t, found[0], container.Profile{})["container.engine_socket"].Status
	}
	if got := status(); got != harden.StatusPass {
		t.Errorf("without the link: %v", got)
	}
	if err := os.Link(l.HostPath("/run/docker.sock"), filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != harden.StatusFail {
		t.Errorf("with the link: %v", got)
	}
}
