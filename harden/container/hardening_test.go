package container_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/container/containertest"
	"github.com/managemyclaw/hardshell/harden/host"
)

var info = container.EngineInfo{Name: "docker", Version: "29.0.0", SeccompProfile: "builtin", CgroupVersion: "2"}

func running(change func(*container.Settings)) container.Container {
	s := container.Settings{ID: "0123456789abcdef", Name: "agent", State: "running", PID: 4711, NetworkMode: "bridge", CgroupnsMode: "private"}
	if change != nil {
		change(&s)
	}
	return containertest.Facts(info, s)
}

// Whatever a container is like, what Harden makes of it passes the checks, but
// for those that it says it leaves; and of that it makes nothing more.
func TestHardenPassesTheChecks(t *testing.T) {
	for name, change := range map[string]func(*container.Settings){
		"as it comes":  nil,
		"privileged":   func(s *container.Settings) { s.Privileged = true },
		"capabilities": func(s *container.Settings) { s.CapDrop, s.CapAdd = []string{"ALL"}, []string{"CAP_SYS_ADMIN"} },
		"unconfined": func(s *container.Settings) {
			s.SecurityOpt = []string{"seccomp=unconfined", "apparmor=unconfined", "no-new-privileges:false"}
		},
		"profile": func(s *container.Settings) { s.SecurityOpt = []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`} },
		"namespaces": func(s *container.Settings) {
			s.PidMode, s.IpcMode, s.UTSMode, s.CgroupnsMode = "host", "host", "host", "host"
		},
		"other's": func(s *container.Settings) { s.PidMode, s.IpcMode = "container:x", "container:x" },
		"socket": func(s *container.Settings) {
			s.Mounts = []container.Mount{{Type: "bind", Source: "/run/docker.sock", Destination: "/d.sock"}}
		},
		"host paths": func(s *container.Settings) {
			s.Mounts = []container.Mount{{Type: "bind", Source: "/etc", Destination: "/e", ReadWrite: true}, {Type: "bind", Source: "/", Destination: "/host"}}
		},
		"undeclared": func(s *container.Settings) {
			s.Mounts = []container.Mount{{Type: "bind", Source: "/projects", Destination: "/projects", ReadWrite: true, Propagation: "rshared"}}
		},
		"tmpfs": func(s *container.Settings) {
			s.Mounts = []container.Mount{{Type: "tmpfs", Destination: "/x", ReadWrite: true}}
		},
		"devices": func(s *container.Settings) {
			s.Devices, s.DeviceCgroupRules, s.DeviceRequests = []string{"/dev/kmsg:/dev/kmsg:rwm"}, []string{"b *:* rwm"}, 1
		},
		"ports": func(s *container.Settings) {
			s.Ports = []container.Port{{Container: 1, Protocol: "tcp", HostIP: "::", Host: 1}, {Container: 1, Protocol: "tcp", Host: 1}}
		},
		"group": func(s *container.Settings) { s.User, s.GroupAdd = "1000:1000", []string{"0", "docker", "audio"} },
		"engine's host": func(s *container.Settings) {
			s.EnvNames, s.EngineHosts = []string{"DOCKER_HOST", "X"}, []string{"tcp://10.0.0.1:2375"}
		},
		"limits that are none": func(s *container.Settings) {
			s.Memory, s.PidsLimit, s.ShmSize = 1<<60, 1<<40, 1<<50
		},
		"masks": func(s *container.Settings) { s.MaskedPaths, s.ReadonlyPaths = []string{}, []string{} },
	} {
		t.Run(name, func(t *testing.T) {
			p := container.Profile{User: "1000:1000", Writable: []string{"/state"}, Tmpfs: []container.Tmpfs{{Path: "/tmp"}}}
			c := running(change)
			a := container.Harden(c, p)
			if a.Hardening.IsZero() || len(a.Manual) > 0 {
				t.Fatalf("%+v", a)
			}
			s := containertest.Harden(c.Settings, a.Hardening)
			for _, v := range a.Hardening.Volumes {
				s.Mounts = append(s.Mounts, container.Mount{Type: "volume", Name: "new", Source: "/volumes/new", Destination: v.Path, ReadWrite: true})
			}
			hard := containertest.Facts(info, s)
			src := &harden.Source[container.Container]{
				Name: "containers", Subject: func(c container.Container) string { return c.Subject() },
				List: func(context.Context, *host.View) ([]container.Container, error) {
					return []container.Container{hard}, nil
				},
			}
			for _, check := range container.Checks(src, p) {
				res := harden.Evaluate(t.Context(), new(host.View), check, 0)
				if res.Status == harden.StatusFail || res.Status == harden.StatusUnknown && !slices.Contains(a.Leaves, res.Info.ID) {
					t.Errorf("%s: %v %s %+v", res.Info.ID, res.Status, res.Detail, res.Findings)
				}
			}
			if again := container.Harden(hard, p); !again.Hardening.IsZero() {
				t.Errorf("hardened again: %+v", again.Hardening)
			}
			// It is data.
			data, err := json.Marshal(a.Hardening)
			var back container.Hardening
			if err == nil {
				err = json.Unmarshal(data, &back)
			}
			if err != nil || !reflect.DeepEqual(back, a.Hardening) {
				t.Errorf("%s: %v", data, err)
			}
		})
	}
}

// Some containers are not for a program to recreate, and it says why.
func TestHardenRefuses(t *testing.T) {
	for want, c := range map[string]container.Container{
		"--rm":            running(func(s *container.Settings) { s.AutoRemove = true }),
		"swarm":           running(func(s *container.Settings) { s.ManagedBy = "swarm" }),
		"kubernetes":      running(func(s *container.Settings) { s.ManagedBy = "kubernetes" }),
		"paused":          running(func(s *container.Settings) { s.State = "paused" }),
		"exited":          running(func(s *container.Settings) { s.State, s.PID = "exited", 0 }),
		"unhealthy":       running(func(s *container.Settings) { s.Health = "unhealthy" }),
		"another machine": {Settings: container.Settings{ID: "1", State: "running", PID: 1}, KernelErr: container.ErrRemote},
	} {
		a := container.Harden(c, container.Profile{})
		if !a.Hardening.IsZero() || !strings.Contains(fmt.Sprint(a.Manual), want) {
			t.Errorf("%s: %+v", want, a)
		}
	}
}

// Who does not know as whom a container can run gets all the rest.
func TestHardenWithoutUser(t *testing.T) {
	for _, user := range []string{"", "node", "0", "0:0", "1000:0", "root"} {
		a := container.Harden(running(nil), container.Profile{User: user})
		if a.Hardening.User != "" || !a.Hardening.ReadonlyRootfs || !slices.Contains(a.Leaves, "container.non_root") || len(a.Manual) != 1 {
			t.Errorf("%q: %+v", user, a)
		}
	}
	if a := container.Harden(running(nil), container.Profile{User: "1000"}); a.Hardening.User != "1000:1000" {
		t.Errorf("a user without a group gets %q", a.Hardening.User)
	}
}

func TestHardenKeepsWhatIsNeeded(t *testing.T) {
	p := container.Profile{
		User: "1000:1000", Writable: []string{"/home/node/.openclaw"}, Publish: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")},
		Env: []string{"XDG_CACHE_HOME=/home/node/.openclaw/cache", "SET=already"}, Memory: 1 << 30,
	}
	a := container.Harden(running(func(s *container.Settings) {
		s.User, s.Memory, s.PidsLimit = "1000:1000", 4<<30, 99
		s.EnvNames = []string{"SET"}
		s.Mounts = []container.Mount{{Type: "bind", Source: "/home/u/.openclaw", Destination: "/home/node/.openclaw", ReadWrite: true}}
		s.Ports = []container.Port{{Container: 1, Protocol: "tcp", HostIP: "100.64.0.9", Host: 1}, {Container: 2, Protocol: "tcp", HostIP: "127.0.0.1", Host: 2}}
	}), p)
	h := a.Hardening
	if len(h.DropMounts)+len(h.ReadonlyMounts)+len(h.Ports)+len(h.Volumes)+len(h.Chown) > 0 || h.Memory != 0 || h.PidsLimit != 0 || h.User != "" {
		t.Errorf("%+v", h)
	}
	if !slices.Equal(h.Env, p.Env[:1]) {
		t.Errorf("environment %q", h.Env)
	}
}

// On the host's network, what it listens on decides.
func TestHardenLeavesTheHostsNetwork(t *testing.T) {
	for address, ok := range map[string]bool{"0.0.0.0:18789": true, "[::]:18789": true, "127.0.0.1:18789": false, "": false} {
		c := running(func(s *container.Settings) { s.NetworkMode = "host" })
		if address != "" {
			c.Host.Listeners = []container.Listener{
				{Protocol: "tcp", Addr: netip.MustParseAddrPort(address), PID: c.PID},
				{Protocol: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:22"), PID: 1},
			}
		}
		a := container.Harden(c, container.Profile{User: "1:1"})
		want := []container.Port{{Container: 18789, Protocol: "tcp", HostIP: "127.0.0.1", Host: 18789}}
		if a.Hardening.Bridge != ok || ok != slices.Equal(a.Hardening.Ports, want) || ok != (len(a.Manual) == 0) {
			t.Errorf("%q: %+v", address, a)
		}
	}
}

// No check asks for it, and yet what is shared on purpose is not left so.
func TestHardenUnsharesIPC(t *testing.T) {
	c := running(func(s *container.Settings) { s.IpcMode = "shareable" })
	if a := container.Harden(c, container.Profile{}); !slices.Contains(a.Hardening.Private, "ipc") {
		t.Errorf("%+v", a.Hardening)
	}
}

func ExampleHarden() {
	c := running(func(s *container.Settings) {
		s.Ports = []container.Port{{Container: 18789, Protocol: "tcp", HostIP: "0.0.0.0", Host: 18789}}
	})
	advice := container.Harden(c, container.Profile{User: "1000:1000"})
	fmt.Println(advice.Hardening.User, advice.Hardening.Ports[0].HostIP, advice.Hardening.ReadonlyRootfs)
	// Output: 1000:1000 127.0.0.1 true
}
