package compose_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/compose"
	"github.com/managemyclaw/hardshell/harden/host"
)

const dir = "/opt/agent"

// good has nothing that a check could object to.
const good = `services:
  it:
    image: agent
    user: "1000:1000"
    read_only: true
    tmpfs: ["/tmp:size=64m,noexec,nosuid,nodev"]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    mem_limit: 2g
    pids_limit: 512
`

// with returns good with lines in the place of those with the same keys. A
// line "!key" only drops one, and those behind "top:" go to the top level.
func with(lines string) string {
	own := make(map[string]bool)
	var service, top strings.Builder
	at := &service
	for l := range strings.Lines(lines) {
		l = strings.TrimSuffix(l, "\n")
		if l == "top:" {
			at = &top
			continue
		}
		if key, ok := strings.CutPrefix(l, "!"); ok {
			own[key] = true
			continue
		}
		if at == &service {
			if k, _, ok := strings.Cut(l, ":"); ok && l[0] != ' ' {
				own[k] = true
			}
			l = "    " + l
		}
		at.WriteString(l + "\n")
	}
	var kept strings.Builder
	for l := range strings.Lines(good) {
		if k, _, _ := strings.Cut(strings.TrimSpace(l), ":"); !own[k] {
			kept.WriteString(l)
		}
	}
	return kept.String() + service.String() + top.String()
}

func evaluate(t *testing.T, src *harden.Source[compose.Service], v *host.View) map[string]harden.Result {
	t.Helper()
	checks := compose.Checks(src)
	require.NoError(t, harden.Validate(checks...))
	ctx, done := harden.Share(t.Context())
	defer done()
	results := make(map[string]harden.Result)
	for _, c := range checks {
		results[c.Info().ID] = harden.Evaluate(ctx, v, c, 0)
	}
	return results
}

func judge(t *testing.T, doc string, more map[string]string) map[string]harden.Result {
	t.Helper()
	files := fstest.MapFS{"opt/agent/compose.yaml": {Data: []byte(doc)}}
	for name, data := range more {
		f := &fstest.MapFile{Data: []byte(data)}
		if to, ok := strings.CutPrefix(data, "-> "); ok {
			f = &fstest.MapFile{Data: []byte(to), Mode: 1 << 27} // fs.ModeSymlink
		}
		files[name] = f
	}
	o := compose.Options{Files: []string{dir + "/compose.yaml"}, Env: map[string]string{"HOME": "/home/me", "ROOT": "/", "ZERO": "0", "ANY": "0.0.0.0"}}
	return evaluate(t, compose.Source(o), &host.View{FS: files})
}

func TestGoodPasses(t *testing.T) {
	for _, doc := range []string{
		good,
		with("ports: ['127.0.0.1:18789:18789', '[::1]:1:1', '127.0.0.9:5000-5002:5000-5002/udp', {target: 80, host_ip: 127.0.0.1, mode: host}]"),
		with("expose: [18789]\nnetworks: [a]\ntop:\nnetworks: {a: {internal: true}}"),
		with("volumes: ['./state:/state', 'data:/data', '~/.openclaw:/c', '/etc/localtime:/etc/localtime:ro', /anonymous, '/etcetera:/e', '/running:/r']\ntop:\nvolumes: {data: }"),
		with("cap_drop: [all]"),
		with("cap_drop: [net_raw, All]"),
		with("security_opt: ['no-new-privileges:false', 'no-new-privileges=1', 'apparmor=docker-default', 'label:level:s0', 'seccomp=builtin']"),
		with("security_opt: [no-new-privileges]"),
		with("network_mode: none\nipc: private\ncgroup: private\npid: ''"),
		with("!mem_limit\n!pids_limit\ndeploy: {resources: {limits: {memory: 1g, pids: 64}}}"),
		with("environment: {DOCKER_HOST: '', A: b}\nsysctls: {net.ipv4.ip_unprivileged_port_start: 0}"),
		with("volumes: [{type: tmpfs, target: /x, tmpfs: {size: 1m}}]"),
		with("x-note: privileged\nlabels: {a: /var/run/docker.sock}"),
		with("profiles: [debug]\nrestart: always"),
		"version: '3'\n" + good,
	} {
		for id, r := range judge(t, doc, nil) {
			assert.Equalf(t, harden.StatusPass, r.Status, "%s %s %v\n%s", id, r.Detail, r.Findings, doc)
			assert.Equal(t, harden.LevelDeclared, r.Level)
		}
	}
}

// Whatever defeats a setting must not pass the check of that setting.
func TestEvasions(t *testing.T) {
	t.Parallel()
	const fail, unknown = harden.StatusFail, harden.StatusUnknown
	for _, c := range []struct {
		lines, check string
		want         harden.Status
	}{
		{"user: '0'", "non_root", fail},
		{"user: 0:0", "non_root", fail},
		{"user: root", "non_root", fail},
		{"user: root:1000", "non_root", fail},
		{"user: '00'", "non_root", fail},
		{"user: '+0'", "non_root", fail},
		{"user: ':1000'", "non_root", fail},
		{"user: ':'", "non_root", fail},
		{"user: '000:1000'", "non_root", fail},
		{"user: '1000:0'", "non_root", fail},
		{"user: '1000:root'", "non_root", fail},
		{"user: '1000:docker'", "non_root", fail},
		{"user: '1000:999'", "non_root", fail},
		{"user: ${ZERO}", "non_root", fail},
		{"user: ${UNSET}:${UNSET}", "non_root", fail},
		{"user: ''", "non_root", unknown},
		{"user: ${UNSET}", "non_root", unknown},
		{"user: node", "non_root", unknown},
		{"user: node:1000", "non_root", unknown},
		{"user: '1000:node'", "non_root", unknown},
		{"user: '1000'", "non_root", unknown},
		{"user: '1000:'", "non_root", unknown},
		{"user: '0x0:1000'", "non_root", unknown},
		{"user: '4294967296:1000'", "non_root", unknown},
		{"user: '-1:1000'", "non_root", unknown},
		{"group_add: [0]", "non_root", fail},
		{"group_add: ['00']", "non_root", fail},
		{"group_add: [root]", "non_root", fail},
		{"group_add: [docker]", "non_root", fail},
		{"group_add: [999]", "non_root", fail},
		{"group_add: [wheel]", "non_root", unknown},
		{"post_start: [{command: id, user: root}]", "non_root", fail},
		{"post_start: [{command: id, privileged: true}]", "capabilities", fail},
		{"pre_stop: [{command: id, user: '0'}]", "non_root", fail},
		{"pre_start: [{image: x, command: id, user: '0'}]", "non_root", fail},
		{"pre_start: [{image: x, command: id, privileged: true}]", "capabilities", fail},
		{"pre_start: [{image: x, command: id, volumes: ['/var/run/docker.sock:/s']}]", "engine_socket", fail},
		{"provider: {type: program}", "non_root", unknown},
		{"provider: {type: program}", "ports", unknown},
		{"top:\njobs: {j: {image: x, privileged: true, triggers: {manual: true}}}", "capabilities", fail},

		{"read_only: false", "read_only", fail},
		{"!read_only", "read_only", fail},
		{"tmpfs: /tmp", "read_only", fail},
		{"tmpfs: [/tmp]", "read_only", fail},
		{"tmpfs: ['/tmp:noexec']", "read_only", fail},
		{"tmpfs: ['/tmp:size=0']", "read_only", fail},
		{"tmpfs: ['/tmp:size=100%']", "read_only", fail},
		{"tmpfs: ['/tmp:size=']", "read_only", fail},
		{"tmpfs: ['/tmp:size=1m,size=0']", "read_only", fail},
		{"tmpfs: ['/tmp:size=1m,exec']", "read_only", fail},
		{"tmpfs: ['/tmp:size=1m,noexec,exec']", "read_only", fail},
		{"tmpfs: ['/tmp:size=1m,suid']", "read_only", fail},
		{"tmpfs: ['/tmp:size=1m,dev']", "read_only", fail},
		{"volumes: [{type: tmpfs, target: /x}]", "read_only", fail},
		{"volumes: [{type: tmpfs, target: /x, tmpfs: {size: 0}}]", "read_only", fail},
		{"security_opt: [no-new-privileges, systempaths=unconfined]", "read_only", fail},

		{"volumes: ['/:/host:ro']", "mounts", fail},
		{"volumes: ['//:/host:ro']", "mounts", fail},
		{"volumes: ['${ROOT}:/host']", "mounts", fail},
		{"volumes: ['/etc:/x']", "mounts", fail},
		{"volumes: ['/etc/shadow:/x:ro']", "mounts", fail},
		{"volumes: ['/etc/localtime:/x']", "mounts", fail},
		{"volumes: ['/root:/x']", "mounts", fail},
		{"volumes: ['/home:/x']", "mounts", fail},
		{"volumes: ['~:/x']", "mounts", fail},
		{"volumes: ['~/.ssh:/x:ro']", "mounts", fail},
		{"volumes: ['~/.config:/x:ro']", "mounts", fail},
		{"volumes: ['/home/me/.bashrc:/x']", "mounts", fail},
		{"volumes: ['/boot:/x']", "mounts", fail},
		{"volumes: ['/proc:/x:ro']", "mounts", fail},
		{"volumes: ['/proc/sys/kernel/core_pattern:/x']", "mounts", fail},
		{"volumes: ['/sys/fs/cgroup:/x:ro']", "mounts", fail},
		{"volumes: ['/dev:/x']", "mounts", fail},
		{"volumes: ['/lib/modules:/x:ro']", "mounts", fail},
		{"volumes: ['/var/lib/docker:/x']", "mounts", fail},
		{"volumes: ['/var/lib:/x']", "mounts", fail},
		{"volumes: ['/var:/x']", "mounts", fail},
		{"volumes: ['/run:/x']", "mounts", fail},
		{"volumes: ['/var/log:/x:ro']", "mounts", fail},
		{"volumes: ['../../etc:/x']", "mounts", fail},
		{"volumes: ['./../../../../etc:/x']", "mounts", fail},
		{"volumes: ['/srv/../etc/./:/x']", "mounts", fail},
		{"volumes: ['/proc/1/root/etc:/x']", "mounts", fail},
		{"volumes: ['.:/x']", "mounts", fail},
		{"volumes: ['../:/x']", "mounts", fail},
		{"volumes: ['./compose.yaml:/x']", "mounts", fail},
		{"volumes: ['./link:/x']", "mounts", fail},
		{"volumes: ['./link/down:/x']", "mounts", fail},
		{`volumes: ['C:\Users\me:/x']`, "mounts", fail},
		{`volumes: ['C:\:/x']`, "mounts", fail},
		{"volumes: [{type: bind, source: /etc, target: /x, read_only: true}]", "mounts", fail},
		{"volumes: ['./a:/x:rshared']", "mounts", fail},
		{"volumes: [{type: bind, source: ./a, target: /x, bind: {propagation: shared}}]", "mounts", fail},
		{"volumes: ['vol:/x']\ntop:\nvolumes: {vol: {driver_opts: {type: none, o: bind, device: /etc}}}", "mounts", fail},
		{"volumes: ['vol:/x']\ntop:\nvolumes: {vol: {driver: local, driver_opts: {o: 'rbind,ro', device: '${ROOT}'}}}", "mounts", fail},
		{"volumes: ['vol:/x']\ntop:\nvolumes: {vol: {driver_opts: {type: overlay, device: overlay, o: 'lowerdir=/srv:/etc,upperdir=/srv/u,workdir=/srv/w'}}}", "mounts", fail},
		{"volumes: ['vol:/x']\ntop:\nvolumes: {vol: {driver_opts: {type: ext4, device: /dev/sda1}}}", "mounts", fail},
		{"volumes: ['vol:/x']\ntop:\nvolumes: {vol: {external: true}}", "mounts", unknown},
		{"volumes: ['vol:/x']\ntop:\nvolumes: {vol: {driver: ghost}}", "mounts", unknown},
		{"volumes_from: ['container:other']", "mounts", unknown},
		{"secrets: [s]\ntop:\nsecrets: {s: {file: /etc/shadow}}", "mounts", fail},
		{"configs: [s]\ntop:\nconfigs: {s: {file: /root/.ssh/id_rsa}}", "mounts", fail},

		{"cap_drop: []", "capabilities", fail},
		{"cap_drop: [CAP_ALL]", "capabilities", fail},
		{"cap_drop: [NET_RAW, NET_ADMIN]", "capabilities", fail},
		{"cap_add: [SYS_ADMIN]", "capabilities", fail},
		{"cap_add: [ALL]", "capabilities", fail},
		{"privileged: true", "capabilities", fail},
		{"privileged: 'true'", "capabilities", fail},

		{"pid: host", "isolation", fail},
		{"pid: 'container:x'", "isolation", fail},
		{"pid: 'service:it2'\ntop:\n  it2: {image: x}", "isolation", fail},
		{"ipc: host", "isolation", fail},
		{"ipc: shareable", "isolation", fail},
		{"ipc: 'container:x'", "isolation", fail},
		{"uts: host", "isolation", fail},
		{"userns_mode: host", "isolation", fail},
		{"cgroup: host", "isolation", fail},
		{"cgroup_parent: /", "isolation", fail},
		{"network_mode: host", "isolation", fail},
		{"networks: [n]\ntop:\nnetworks: {n: {name: host, external: true}}", "isolation", fail},
		{"top:\nnetworks: {default: {name: host, external: true}}", "isolation", fail},
		{"devices: ['/dev/kmsg:/dev/kmsg']", "isolation", fail},
		{"device_cgroup_rules: ['b *:* rwm']", "isolation", fail},
		{"gpus: all", "isolation", fail},
		{"deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}", "isolation", fail},
		{"sysctls: {kernel.msgmax: 65536}", "isolation", fail},
		{"sysctls: ['kernel.msgmax=65536']", "isolation", fail},
		{"build: {context: ., privileged: true}", "isolation", fail},
		{"security_opt: [no-new-privileges, seccomp=unconfined]", "isolation", fail},
		{"security_opt: [no-new-privileges, 'seccomp:unconfined']", "isolation", fail},
		{"security_opt: [no-new-privileges, 'seccomp:./profile.json']", "isolation", unknown},
		{"security_opt: [no-new-privileges, 'apparmor:unconfined']", "isolation", fail},
		{"security_opt: [no-new-privileges, apparmor=mine]", "isolation", unknown},
		{"security_opt: [no-new-privileges, 'label:disable']", "isolation", fail},
		{"security_opt: [no-new-privileges, 'label=disable']", "isolation", fail},
		{"security_opt: [no-new-privileges, 'label=type:spc_t']", "isolation", fail},
		{"security_opt: [no-new-privileges, writable-cgroups=true]", "isolation", fail},
		{"security_opt: [no-new-privileges, surprise=1]", "isolation", unknown},
		{"runtime: surprise", "isolation", unknown},

		{"volumes: ['/var/run/docker.sock:/var/run/docker.sock:ro']", "engine_socket", fail},
		{"volumes: ['/run/docker.sock:/s']", "engine_socket", fail},
		{"volumes: ['/run//./docker.sock:/s']", "engine_socket", fail},
		{"volumes: ['/var/run:/s']", "engine_socket", fail},
		{"volumes: ['/var:/s']", "engine_socket", fail},
		{"volumes: ['/:/s:ro']", "engine_socket", fail},
		{"volumes: ['/proc:/s']", "engine_socket", fail},
		{"volumes: ['/run/containerd/containerd.sock:/s']", "engine_socket", fail},
		{"volumes: ['/run/containerd:/s']", "engine_socket", fail},
		{"volumes: ['/run/podman/podman.sock:/s']", "engine_socket", fail},
		{"volumes: ['/run/user/1000/docker.sock:/s']", "engine_socket", fail},
		{"volumes: ['/run/user/1000:/s']", "engine_socket", fail},
		{"volumes: ['/run/crio/crio.sock:/s']", "engine_socket", fail},
		{"volumes: ['/run/buildkit/buildkitd.sock:/s']", "engine_socket", fail},
		{"volumes: ['/run/docker/plugins:/s']", "engine_socket", fail},
		{"volumes: ['~/.docker/run/docker.sock:/s']", "engine_socket", fail},
		{"volumes: ['~/.colima:/s']", "engine_socket", fail},
		{"volumes: ['~:/s']", "engine_socket", fail},
		{"volumes: ['/srv/my-docker.sock:/s']", "engine_socket", fail},
		{"volumes: ['/srv/innocent:/var/run/docker.sock']", "engine_socket", fail},
		{"volumes: ['./sock:/s']", "engine_socket", fail},
		{"volumes: ['/tmp/ssh-abc/agent.17:/s']", "engine_socket", fail},
		{"volumes: ['/srv/other.sock:/s']", "engine_socket", fail},
		{`volumes: ['\\.\pipe\docker_engine:\\.\pipe\docker_engine']`, "engine_socket", fail},
		{`volumes: [{type: npipe, source: '\\.\pipe\docker_engine', target: '\\.\pipe\docker_engine'}]`, "engine_socket", fail},
		{"volumes: ['vol:/x']\ntop:\nvolumes: {vol: {driver_opts: {type: none, o: bind, device: /var/run}}}", "engine_socket", fail},
		{"volumes: ['vol:/x']\ntop:\nvolumes: {vol: {external: true}}", "engine_socket", unknown},
		{"secrets: [s]\ntop:\nsecrets: {s: {file: /var/run/docker.sock}}", "engine_socket", fail},
		{"configs: [{source: s, target: /x}]\ntop:\nconfigs: {s: {file: ./sock}}", "engine_socket", fail},
		{"volumes_from: [it2]\ntop:\n  it2: {image: x}", "engine_socket", fail},
		{"use_api_socket: true", "engine_socket", fail},
		{"environment: {DOCKER_HOST: 'tcp://10.0.0.1:2375'}", "engine_socket", fail},
		{"environment: ['DOCKER_HOST=tcp://10.0.0.1:2375']", "engine_socket", fail},
		{"environment: [HOME, 'CONTAINER_HOST=x']", "engine_socket", fail},
		{"environment: {docker_host: x}", "engine_socket", fail},
		{"env_file: engine.env", "engine_socket", fail},
		{"env_file: [{path: engine.env, format: raw}]", "engine_socket", fail},
		{"env_file: missing.env", "engine_socket", unknown},
		{"network_mode: host", "engine_socket", fail},

		{"security_opt: []", "no_new_privileges", fail},
		{"security_opt: ['no-new-privileges:false']", "no_new_privileges", fail},
		{"security_opt: ['no-new-privileges=false']", "no_new_privileges", fail},
		{"security_opt: ['no-new-privileges:true', 'no-new-privileges:false']", "no_new_privileges", fail},
		{"security_opt: ['no-new-privileges:yes']", "no_new_privileges", fail},
		{"security_opt: ['no-new-privileges:']", "no_new_privileges", fail},
		{"security_opt: ['NO-NEW-PRIVILEGES:true']", "no_new_privileges", fail},
		{"security_opt: ['x-no-new-privileges:true']", "no_new_privileges", fail},

		{"ports: ['18789:18789']", "ports", fail},
		{"ports: [18789]", "ports", fail},
		{"ports: ['0.0.0.0:18789:18789']", "ports", fail},
		{"ports: ['${ANY}:18789:18789']", "ports", fail},
		{"ports: ['${UNSET:-0.0.0.0}:18789:18789']", "ports", fail},
		{"ports: ['[::]:18789:18789']", "ports", fail},
		{"ports: ['192.168.1.2:18789:18789']", "ports", fail},
		{"ports: ['18789-18790:18789-18790']", "ports", fail},
		{"ports: ['18789:18789/udp']", "ports", fail},
		{"ports: ['127.0.0.1:1:1', '2:2']", "ports", fail},
		{"ports: [{target: 80}]", "ports", fail},
		{"ports: [{target: 80, published: '80', mode: host}]", "ports", fail},
		{"ports: [{target: 80, host_ip: '::'}]", "ports", fail},
		{"ports: [{target: 80, host_ip: localhost}]", "ports", unknown},
		{"network_mode: host", "ports", fail},
		{"networks: [n]\ntop:\nnetworks: {n: {driver: macvlan}}", "ports", fail},
		{"networks: [n]\ntop:\nnetworks: {n: {driver: ipvlan}}", "ports", fail},
		{"network_mode: 'container:x'", "ports", unknown},

		{"mem_limit: 0", "limits", fail},
		{"!mem_limit", "limits", fail},
		{"pids_limit: 0", "limits", fail},
		{"pids_limit: -1", "limits", fail},
		{"!pids_limit\n!mem_limit\ndeploy: {resources: {limits: {memory: 1g}}}", "limits", fail},
		{"oom_kill_disable: true", "limits", fail},
	} {
		t.Run(strings.ReplaceAll(c.lines, "/", "|"), func(t *testing.T) {
			r := judge(t, with(c.lines), map[string]string{
				"opt/agent/engine.env": "A=b\nDOCKER_HOST=tcp://10.0.0.1:2375\n",
				"opt/agent/link":       "-> ../../etc",
				"opt/agent/sock":       "-> /srv/hop/docker.sock",
				"srv/hop":              "-> /var/run",
			})["compose."+c.check]
			assert.Equal(t, c.want, r.Status, "%s %v", r.Detail, r.Findings)
			for _, f := range r.Findings {
				assert.NotEmpty(t, f.Message)
				assert.NotEmpty(t, f.Remedy)
				assert.True(t, strings.HasPrefix(f.ID, "compose."+c.check+"."), f.ID)
			}
		})
	}
}

func TestInheritance(t *testing.T) {
	const fail = harden.StatusFail
	for name, doc := range map[string]string{
		"merge key":          "x-a: &a {privileged: true}\nservices: {it: {<<: *a, image: x}}",
		"list of merge keys": "x-a: &a {image: x}\nx-b: &b {privileged: true}\nservices: {it: {<<: [*a, *b]}}",
		"merge of a merge":   "x-a: &a {privileged: true}\nx-b: &b {<<: *a, image: x}\nservices: {it: {<<: *b}}",
		"alias":              "x-a: &a {image: x, privileged: true}\nservices: {it: *a}",
		"alias of a value":   "x-a: &a true\nservices: {it: {image: x, privileged: *a}}",
		"extends":            "services: {base: {image: x, privileged: true}, it: {extends: base}}",
		"second document":    "services: {it: {image: x}}\n---\nservices: {it: {privileged: true}}",
		"profile":            "services: {it: {image: x, privileged: true, profiles: [never]}}",
		"escaped key":        "services: {it: {image: x, \"privileg\\x65d\": true}}",
		"alias as key":       "x-k: &k privileged\nservices: {it: {image: x, *k : true}}",
		"override tag":       "services: {base: {image: x, cap_drop: [ALL]}, it: {extends: base, cap_drop: !override [NET_RAW]}}",
		"reset tag":          "services: {base: {image: x, cap_drop: [ALL]}, it: {extends: base, cap_drop: !reset []}}",
	} {
		t.Run(name, func(t *testing.T) {
			r := judge(t, doc, nil)["compose.capabilities"]
			assert.Equal(t, fail, r.Status, r.Detail)
			assert.GreaterOrEqual(t, len(r.Findings), 1)
		})
	}
}
