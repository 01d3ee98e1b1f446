package docker

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	api "github.com/docker/docker/api/types/container"

	"github.com/managemyclaw/hardshell/harden/container"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func recorded(t testing.TB, engine string) map[string]api.InspectResponse {
	t.Helper()
	data, err := os.ReadFile("testdata/" + engine + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]api.InspectResponse
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

var engines = []string{"engine-20.10", "engine-29"}

// show prints the fields of Settings that are not zero, a line each.
func show(s container.Settings) string {
	var b strings.Builder
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			data, err := json.Marshal(f.Interface())
			if err != nil {
				data = []byte(err.Error())
			}
			fmt.Fprintf(&b, "  %s %s\n", v.Type().Field(i).Name, data)
		}
	}
	return b.String()
}

// What engines 20.10 and 29 were seen to say of containers is translated into
// what was asked of them, evasions included.
func TestSettingsOfRecordedContainers(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			var b strings.Builder
			all := recorded(t, engine)
			if len(all) < 70 {
				t.Fatalf("%d recorded containers", len(all))
			}
			for _, name := range slices.Sorted(maps.Keys(all)) {
				fmt.Fprintf(&b, "%s\n%s", name, show(settings(all[name])))
			}
			file := "testdata/" + engine + ".golden"
			if *update {
				if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.String(); got != string(want) {
				gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
				for i := range gotLines {
					if i >= len(wantLines) || gotLines[i] != wantLines[i] {
						t.Fatalf("line %d: %s\n(-update rewrites the file)", i+1, gotLines[i])
					}
				}
				t.Fatal("lines are missing")
			}
		})
	}
}

// The same settings, asserted by hand: what a wrong translation would hide.
func TestSettingsByHand(t *testing.T) {
	for _, engine := range engines {
		all := recorded(t, engine)
		get := func(name string) container.Settings { return settings(all[name]) }
		for _, c := range []struct {
			name string
			ok   bool
		}{
			{"privileged", get("privileged").Privileged && len(get("privileged").MaskedPaths) == 0},
			{"hardened", get("hardened").ReadonlyRootfs && slices.Equal(get("hardened").CapDrop, []string{"ALL"}) && get("hardened").Memory == 64<<20 && get("hardened").PidsLimit == 100},
			{"hardened tmpfs", slices.ContainsFunc(get("hardened").Mounts, func(m container.Mount) bool {
				return m.Type == "tmpfs" && m.Destination == "/tmp" && m.TmpfsSize == 64<<20 && m.ReadWrite
			})},
			{"tmpfs without size", slices.ContainsFunc(get("ro-tmpfs-nosize").Mounts, func(m container.Mount) bool {
				return m.Type == "tmpfs" && m.TmpfsSize == 0
			})},
			{"mounted tmpfs with size", slices.ContainsFunc(get("ro-mount-tmpfs-size").Mounts, func(m container.Mount) bool {
				return m.Type == "tmpfs" && m.TmpfsSize > 0
			})},
			{"socket", slices.ContainsFunc(get("sock-direct").Mounts, func(m container.Mount) bool { return strings.HasSuffix(m.Source, "docker.sock") })},
			{"read-only socket", slices.ContainsFunc(get("sock-ro").Mounts, func(m container.Mount) bool { return !m.ReadWrite })},
			{"engine by environment", len(get("sock-tcp").EngineHosts) == 1},
			{"pid host", get("ns-pid").PidMode == "host"},
			{"net host", get("ns-net").NetworkMode == "host"},
			{"device", len(get("dev-kmsg").Devices) == 1},
			{"device rule", len(get("dev-rule").DeviceCgroupRules) == 1},
			{"every address", slices.ContainsFunc(get("ports").Ports, func(p container.Port) bool { return p.HostIP == "" && p.Host == 8099 && p.Container == 80 })},
			{"live v4", slices.ContainsFunc(get("ports").Ports, func(p container.Port) bool { return p.HostIP == "0.0.0.0" && p.Host == 8099 })},
			{"loopback", slices.ContainsFunc(get("ports").Ports, func(p container.Port) bool { return p.HostIP == "127.0.0.1" && p.Host == 8098 })},
			{"all ports", len(get("publishall").Ports) > 0},
			{"restart", get("restart").RestartPolicy == "always"},
			{"shared", slices.ContainsFunc(get("m-shared").Mounts, func(m container.Mount) bool { return strings.Contains(m.Propagation, "shared") })},
			{"group", slices.Contains(get("group-0").GroupAdd, "0")},
		} {
			if !c.ok {
				t.Errorf("%s: %s", engine, c.name)
			}
		}
	}
}

// No value of the environment gets out, nor credentials in an engine's address.
func TestSettingsHoldNoSecret(t *testing.T) {
	const secret = "hunter2hunter2"
	r := api.InspectResponse{
		ContainerJSONBase: &api.ContainerJSONBase{ID: "1", HostConfig: &api.HostConfig{}, Args: []string{secret}, Path: secret},
		Config: &api.Config{
			Env:    []string{"TOKEN=" + secret, "DOCKER_HOST=tcp://user:" + secret + "@10.0.0.1:2375?k=" + secret, "CONTAINER_HOST=%" + secret},
			Cmd:    []string{"--token", secret},
			Labels: map[string]string{"auth": secret, "com.docker.compose.project": "web"},
		},
	}
	s := settings(r)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if strings.Contains(fmt.Sprintf(verb, s), secret) {
			t.Errorf("%s shows the secret", verb)
		}
	}
	if !slices.Equal(s.EnvNames, []string{"CONTAINER_HOST", "DOCKER_HOST", "TOKEN"}) || len(s.EngineHosts) != 2 || s.EngineHosts[0] != "tcp://10.0.0.1:2375" {
		t.Errorf("%q %q", s.EnvNames, s.EngineHosts)
	}
	if s.ManagedBy != "compose project web" {
		t.Errorf("managed by %q", s.ManagedBy)
	}
}

func FuzzSettings(f *testing.F) {
	for _, engine := range engines {
		all := recorded(f, engine)
		for _, name := range []string{"default", "hardened", "ports", "ro-mount-tmpfs", "sock-volbind", "limits"} {
			data, err := json.Marshal(all[name])
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	for _, s := range []string{`{}`, `null`, `[]`, `{"Id":"x"}`, `{"Config":{"Env":["=",""]},"HostConfig":{"Binds":["",":","a:b:c:d"],"PortBindings":{"x":[null],"99999/tcp":null}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r api.InspectResponse
		if json.Unmarshal(data, &r) != nil {
			return
		}
		s := settings(r)
		for _, p := range s.Ports {
			if p.Container == 0 && p.Protocol == "" {
				t.Errorf("port %+v", p)
			}
		}
		if r.ContainerJSONBase == nil || r.Config == nil || r.HostConfig == nil {
			return // inspect refuses it
		}
		// A clone of anything may be refused by an engine, but it is planned
		// without a panic and keeps to what the hardening says.
		h := container.Hardening{ReadonlyRootfs: true, DropCapabilities: true, NoNewPrivileges: true, User: "1000:1000", Unprivileged: true, PidsLimit: 5}
		c := clonePlan(&r, h, "1.41")
		if !c.host.ReadonlyRootfs || len(c.host.CapAdd) > 0 || c.host.Privileged || c.config.User != "1000:1000" || !c.host.RestartPolicy.IsNone() || *c.host.PidsLimit != 5 {
			t.Errorf("clone %+v", c.host)
		}
	})
}
