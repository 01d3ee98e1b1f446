package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/docker/docker/api/types/container"

	"github.com/managemyclaw/hardshell/harden/container"
)

func decode(t testing.TB, answer string) api.InspectResponse {
	t.Helper()
	var r api.InspectResponse
	if err := json.Unmarshal([]byte(answer), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// Situations that no recording has.
func TestSettings(t *testing.T) {
	of := func(edit string) string {
		return `{"Id":"c0ffee","Name":"/web","State":{"Status":"exited"},"Config":{},"HostConfig":{}` + edit + `}`
	}
	for _, c := range []struct {
		name   string
		answer string
		want   func(s *container.Settings)
	}{
		{"nothing is set", of(""), func(*container.Settings) {}},
		{"no name", of(`,"Name":""`), func(s *container.Settings) { s.Name = "" }},
		{"a malformed date of creation is none", of(`,"Created":"yesterday"`), func(*container.Settings) {}},
		{"a date of creation", of(`,"Created":"2026-01-02T03:04:05.6Z"`), func(s *container.Settings) {
			s.Created = time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
		}},
		{"a process that cannot be", of(`,"State":{"Status":"running","Pid":-1}`), func(s *container.Settings) { s.State = "running" }},
		{"env: names, sorted, once; the values of those that name engines", of(`,"Config":{"Env":["Z=1","A=x=y","BARE","A=2","DOCKER_HOST=tcp://a:1"]}`), func(s *container.Settings) {
			s.EnvNames, s.EngineHosts = []string{"A", "BARE", "DOCKER_HOST", "Z"}, []string{"tcp://a:1"}
		}},
		{"labels: compose", of(`,"Config":{"Labels":{"com.docker.compose.project":"oc","io.kubernetes.pod.name":"p"}}`), func(s *container.Settings) {
			s.ManagedBy = "compose project oc"
		}},
		{"labels: swarm", of(`,"Config":{"Labels":{"com.docker.swarm.service.id":"x"}}`), func(s *container.Settings) { s.ManagedBy = "swarm" }},
		{"labels: kubernetes", of(`,"Config":{"Labels":{"io.kubernetes.pod.uid":"x"}}`), func(s *container.Settings) { s.ManagedBy = "kubernetes" }},
		{"labels: others", of(`,"Config":{"Labels":{"maintainer":"x"}}`), func(*container.Settings) {}},
		{"health: a check that says none is none", of(`,"State":{"Status":"running","Health":{"Status":"none"}},"Config":{"Healthcheck":{"Test":["NONE"]}}`), func(s *container.Settings) {
			s.State = "running"
		}},
		{"health: as it is", of(`,"State":{"Status":"running","Pid":7,"Health":{"Status":"unhealthy"}},"Config":{"Healthcheck":{"Test":["CMD","true"],"Interval":1,"Timeout":2,"StartPeriod":3,"Retries":4}}`), func(s *container.Settings) {
			s.State, s.PID, s.Health = "running", 7, "unhealthy"
			s.HealthCheck = &container.HealthCheck{Interval: 1, Timeout: 2, StartPeriod: 3, Retries: 4}
		}},
		{"health: what the engine takes for nothing", of(`,"Config":{"Healthcheck":{"Test":["CMD","true"]}}`), func(s *container.Settings) {
			s.HealthCheck = &container.HealthCheck{Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 3}
		}},
		{"pids: unlimited", of(`,"HostConfig":{"PidsLimit":-1}`), func(s *container.Settings) { s.PidsLimit = -1 }},
		{"pids: null", of(`,"HostConfig":{"PidsLimit":null}`), func(*container.Settings) {}},
		{
			"devices and GPUs", of(`,"HostConfig":{"Devices":[{"PathOnHost":"/dev/kmsg","PathInContainer":"/dev/k","CgroupPermissions":"rwm"}],"DeviceRequests":[{"Count":-1},{"Count":1}]}`),
			func(s *container.Settings) { s.Devices, s.DeviceRequests = []string{"/dev/kmsg:/dev/k:rwm"}, 2 },
		},
		{
			"ports: what was asked for is there too where something else is open",
			of(`,"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]}},"NetworkSettings":{"Ports":{"81/tcp":[{"HostPort":"1"}]}}`),
			func(s *container.Settings) {
				s.Ports = []container.Port{{Container: 80, Protocol: "tcp", HostIP: "127.0.0.1", Host: 8080}, {Container: 81, Protocol: "tcp", Host: 1}}
			},
		},
		{
			"ports: the open one says what was chosen",
			of(`,"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":""}],"90/UDP":[]}},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"::","HostPort":"49153"},{"HostIp":"0.0.0.0","HostPort":"49153"}],"70/tcp":null}}`),
			func(s *container.Settings) {
				s.Ports = []container.Port{
					{Container: 80, Protocol: "tcp", HostIP: "0.0.0.0", Host: 49153},
					{Container: 80, Protocol: "tcp", HostIP: "::", Host: 49153},
					{Container: 90, Protocol: "udp"},
				}
			},
		},
		{"networks: without an endpoint, and with no address", of(`,"NetworkSettings":{"Networks":{"b":null,"a":{"IPAddress":"not one","Gateway":"0.0.0.0"}}}`), func(s *container.Settings) {
			s.Networks = []container.Network{{Name: "a"}, {Name: "b"}}
		}},
		{
			"mounts: tmpfs of both kinds",
			of(`,"HostConfig":{"Tmpfs":{"/b":"size=1m,ro","/a":"ronly"},"Mounts":[{"Type":"tmpfs","Target":"/c","TmpfsOptions":{"SizeBytes":5}}]},"Mounts":[{"Type":"tmpfs","Destination":"/c","RW":true}]`),
			func(s *container.Settings) {
				s.Mounts = []container.Mount{
					{Type: "tmpfs", Destination: "/a", ReadWrite: true, TmpfsOpts: "ronly"},
					{Type: "tmpfs", Destination: "/b", TmpfsOpts: "size=1m,ro", TmpfsSize: 1 << 20},
					{Type: "tmpfs", Destination: "/c", ReadWrite: true, TmpfsSize: 5},
				}
			},
		},
		{
			"mounts: of a container that never ran",
			of(`,"HostConfig":{"Mounts":[{"Type":"bind","Source":"/etc","Target":"/e","ReadOnly":true,"BindOptions":{"Propagation":"rshared"}},{"Type":"volume","Source":"v","Target":"/d","VolumeOptions":{"DriverConfig":{"Options":{"device":"/etc","o":"bind","token":"x"}}}}]}`),
			func(s *container.Settings) {
				s.Mounts = []container.Mount{
					{Type: "volume", Name: "v", Destination: "/d", ReadWrite: true, Options: map[string]string{"device": "/etc", "o": "bind"}},
					{Type: "bind", Source: "/etc", Destination: "/e", Propagation: "rshared"},
				}
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := container.Settings{ID: "c0ffee", Name: "web", State: "exited"}
			c.want(&want)
			if got := settings(decode(t, c.answer)); !reflect.DeepEqual(got, want) {
				t.Errorf("\ngot  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Nothing may be concluded from the zero values of parts that are missing: such
// an answer is an error, not a container that was given nothing.
func TestAnswersWithoutParts(t *testing.T) {
	whole := map[string]string{"Id": `"c0ffee"`, "State": `{"Status":"running"}`, "Config": `{}`, "HostConfig": `{}`}
	ask := func(parts map[string]string) error {
		var all []string
		for name, value := range parts {
			all = append(all, fmt.Sprintf("%q:%s", name, value))
		}
		e := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, "{%s}", strings.Join(all, ","))
		}))
		_, err := e.Containers(t.Context(), "web")
		return err
	}
	if err := ask(whole); err != nil {
		t.Fatal(err)
	}
	for name := range whole {
		less := maps.Clone(whole)
		delete(less, name)
		if err := ask(less); err == nil {
			t.Errorf("without %s", name)
		}
		less[name] = "null"
		if err := ask(less); err == nil {
			t.Errorf("%s is null", name)
		}
	}
}

// The same was asked of both engines, so that it must be understood to the same
// effect, but for what newer engines really do otherwise.
func TestSettingsAreTheSameOfBothEngines(t *testing.T) {
	old, recent := recorded(t, engines[0]), recorded(t, engines[1])
	compared := 0
	for name, o := range old {
		n, ok := recent[name]
		a, b := settings(o), settings(n)
		if !ok || a.State != b.State {
			continue
		}
		compared++
		if len(a.Mounts) != len(b.Mounts) {
			t.Errorf("%s: mounts %+v, and %+v", name, a.Mounts, b.Mounts)
		}
		for _, s := range []*container.Settings{&a, &b} {
			// Each container's own, and what the engines really do otherwise.
			s.ID, s.Created, s.PID, s.OwnFiles, s.Networks, s.Mounts, s.Ports = "", time.Time{}, 0, nil, nil, nil, nil
			slices.Sort(s.MaskedPaths)
			s.MaskedPaths = slices.DeleteFunc(s.MaskedPaths, func(p string) bool { return p == "/proc/interrupts" || strings.HasPrefix(p, "/sys/devices/") })
			s.NetworkMode, s.PidMode = strings.Replace(s.NetworkMode, "default", "bridge", 1), withoutID(s.PidMode)
			s.NetworkMode = withoutID(s.NetworkMode)
		}
		va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
		for i := range va.NumField() {
			if x, y := fmt.Sprintf("%+v", va.Field(i)), fmt.Sprintf("%+v", vb.Field(i)); x != y {
				t.Errorf("%s: %s: %s of %s, %s of %s", name, va.Type().Field(i).Name, x, engines[0], y, engines[1])
			}
		}
	}
	if compared < 70 {
		t.Errorf("%d containers were compared", compared)
	}
}

func withoutID(mode string) string {
	if strings.HasPrefix(mode, "container:") {
		return "container:"
	}
	return mode
}

// Values of the environment and of labels, arguments, a health check's command
// and output, and a log's and a volume's options are secrets, or may be: they
// are planted in every recorded answer, and must not come out.
func TestRecordedContainersKeepSecrets(t *testing.T) {
	const secret = "hunter2"
	for _, engine := range engines {
		for name, r := range recorded(t, engine) {
			r.Config.Env = []string{"API_KEY=" + secret, "DOCKER_HOSTS=" + secret, "=" + secret, "docker_host=" + secret, "DOCKER_HOST=tcp://" + secret + "@h:1/#" + secret}
			r.Config.Labels = map[string]string{"owner": secret, "com.docker.compose.service": secret, "com.docker.swarm.service.id": secret, "io.kubernetes.pod.name": secret}
			r.Config.Cmd, r.Config.Entrypoint = []string{"--token", secret}, []string{"/run", secret}
			r.Config.Healthcheck = &api.HealthConfig{Test: []string{"CMD", "curl", secret}}
			r.Path, r.Args = secret, []string{secret}
			r.State.Error = secret
			r.State.Health = &api.Health{Status: "healthy", Log: []*api.HealthcheckResult{{Output: secret}}}
			r.HostConfig.LogConfig.Config = map[string]string{"splunk-token": secret}
			r.HostConfig.Annotations = map[string]string{"a": secret}
			r.HostConfig.StorageOpt = map[string]string{"a": secret}
			s := settings(r)
			text, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, shown := range []string{fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%+v", s.HealthCheck), string(text)} {
				if strings.Contains(shown, secret) {
					t.Errorf("%s %s: %s", engine, name, shown)
				}
			}
			if want := []string{"", "API_KEY", "DOCKER_HOST", "DOCKER_HOSTS", "docker_host"}; !slices.Equal(s.EnvNames, want) {
				t.Errorf("%s %s: %q", engine, name, s.EnvNames)
			}
		}
	}
}

func TestOptionsOfAVolumeHoldNoSecret(t *testing.T) {
	answer := `{"Name":"shared","Driver":"local","Options":{"type":"cifs","device":"//nas/share","o":"addr=10.0.0.1,username=u,password=hunter2,secret=hunter2,ro,uid=1000","sas-token":"hunter2"}}`
	f := &fake{n: 1}
	e := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/volumes/") {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, answer)
			return
		}
		f.ServeHTTP(w, r)
	}))
	all, err := e.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"type": "cifs", "device": "//nas/share",
		"o": "addr=10.0.0.1,username=(not shown),password=(not shown),secret=(not shown),ro,uid=1000",
	}
	if got := all[0].Mounts[0].Options; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
