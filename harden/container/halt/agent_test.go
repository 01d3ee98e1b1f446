package halt

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

var (
	idA = strings.Repeat("a", 64)
	idB = strings.Repeat("b", 64)
	idC = strings.Repeat("c", 64)
)

// What is the agent's is known by name, by id, by project; and what takes its
// place is known though it shares neither id nor name with it.
func TestWhoIsTheAgents(t *testing.T) {
	compose := func(id, name string) who { return who{id: id, name: name, project: "p", service: "s"} }
	for _, test := range []struct {
		name   string
		agent  Agent
		before []who // seen first
		now    []who
		want   []string
	}{
		{"a name", Agent{Names: []string{"agent"}}, nil, []who{{id: idA, name: "agent"}, {id: idB, name: "agent2"}}, []string{idA}},
		{"an id", Agent{Names: []string{idA}}, nil, []who{{id: idA, name: "x"}, {id: idB, name: "y"}}, []string{idA}},
		{"a short id", Agent{Names: []string{idA[:12]}}, nil, []who{{id: idA, name: "x"}, {id: idB, name: "y"}}, []string{idA}},
		{"the beginning of an id that is too short to be one", Agent{Names: []string{"aaa"}}, nil, []who{{id: idA, name: "x"}}, nil},
		{"a project", Agent{Projects: []string{"p"}}, nil, []who{compose(idA, "p-s-1"), {id: idB, name: "p"}}, []string{idA}},
		{"renamed", Agent{Names: []string{"agent"}}, []who{{id: idA, name: "agent"}}, []who{{id: idA, name: "else"}}, []string{idA}},
		{"of the same name, made anew", Agent{Names: []string{idA}}, []who{{id: idA, name: "agent"}}, []who{{id: idB, name: "agent"}}, []string{idB}},
		{"of the same service, under another name", Agent{Names: []string{"agent"}}, []who{compose(idA, "agent")}, []who{compose(idB, "0123456789ab_agent")}, []string{idB}},
		{"of the same service, listed before what tells", Agent{Names: []string{"agent"}}, nil, []who{compose(idB, "x"), compose(idA, "agent")}, []string{idA, idB}},
		{"another service of the project", Agent{Names: []string{"agent"}}, []who{compose(idA, "agent")}, []who{{id: idB, name: "db", project: "p", service: "db"}}, nil},
		{"no labels at all", Agent{Names: []string{"agent"}}, []who{{id: idA, name: "agent"}}, []who{{id: idB, name: "other"}}, nil},
		{"nothing is named", Agent{}, nil, []who{{id: idA}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r roll
			r.admit(test.agent, test.before)
			var got []string
			for _, w := range r.admit(test.agent, test.now) {
				got = append(got, w.id)
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// A name that nothing has is an error, since what it was meant for may run; not
// once something has had it.
func TestNamesThatNothingHas(t *testing.T) {
	a := Agent{Names: []string{"agent", "agnet"}, Projects: []string{"p"}}
	var r roll
	r.admit(a, []who{{id: idA, name: "agent"}})
	if err := r.unmet(a); err == nil || !strings.Contains(err.Error(), `"agnet"`) || !strings.Contains(err.Error(), `"p"`) || strings.Contains(err.Error(), `"agent"`) {
		t.Error(err)
	}
	r.admit(a, []who{{id: idB, name: "agnet", project: "p"}})
	r.admit(a, nil)
	if err := r.unmet(a); err != nil {
		t.Error(err)
	}
	if err := (Agent{}).none(); err == nil {
		t.Error("an agent of no containers")
	}
}

// A cgroup that is not the container's own is never taken for it.
func TestGroupOfContainer(t *testing.T) {
	v1, v2 := hierarchy{mount: "/f", root: "/"}, hierarchy{v2: true, mount: "/u", root: "/"}
	for _, test := range []struct{ name, file, v1, v2 string }{
		{"cgroupfs", "6:freezer:/docker/" + idA + "\n0::/docker/" + idA + "\n", "/docker/" + idA, "/docker/" + idA},
		{"systemd", "0::/system.slice/docker-" + idA + ".scope\n", "", "/system.slice/docker-" + idA + ".scope"},
		{"rootless", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker-" + idA + ".scope\n", "", "/user.slice/user-1000.slice/user@1000.service/app.slice/docker-" + idA + ".scope"},
		{"a process deeper down", "0::/docker/" + idA + "/init/x\n", "", "/docker/" + idA},
		{"hybrid, without version 2", "6:freezer:/docker/" + idA + "\n0::/\n", "/docker/" + idA, ""},
		{"the first of all", "6:freezer:/\n0::/\n", "", ""},
		{"shared with others", "6:freezer:/docker\n0::/system.slice\n", "", ""},
		{"of another container", "0::/docker/" + idB + "\n", "", ""},
		{"the freezer beside others", "6:cpu,freezer:/docker/" + idA + "\n5:memory:/x\n", "/docker/" + idA, ""},
		{"other controllers alone", "5:memory:/docker/" + idA + "\n", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			entries, err := procfs.ParseCgroup([]byte(test.file))
			if err != nil {
				t.Fatal(err)
			}
			if got := v1.groupOf(idA, entries); got != test.v1 {
				t.Errorf("version 1: %q, want %q", got, test.v1)
			}
			if got := v2.groupOf(idA, entries); got != test.v2 {
				t.Errorf("version 2: %q, want %q", got, test.v2)
			}
		})
	}
}

// What is mounted of a hierarchy decides where a cgroup is, and what of it can
// be reached.
func TestHierarchies(t *testing.T) {
	const (
		tmpfs   = "30 20 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"
		freezer = "31 30 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
		memory  = "32 30 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		unified = "33 30 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		pure    = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		part    = "34 20 0:38 /docker /mnt rw - cgroup2 cgroup2 rw\n"
	)
	for _, test := range []struct {
		name, mounts string
		v1, v2       string // where /docker/x is
	}{
		{"version 1", tmpfs + memory + freezer, "/sys/fs/cgroup/freezer/docker/x", ""},
		{"hybrid", tmpfs + memory + unified + freezer, "/sys/fs/cgroup/freezer/docker/x", "/sys/fs/cgroup/unified/docker/x"},
		{"version 2", pure, "", "/sys/fs/cgroup/docker/x"},
		{"a part of it", part, "", "/mnt/x"},
		{"a part of it, and all of it", part + pure, "", "/sys/fs/cgroup/docker/x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			hs, err := hierarchies([]byte(test.mounts))
			if err != nil {
				t.Fatal(err)
			}
			var v1, v2 string
			for _, h := range hs {
				dir, err := h.dir("/docker/x")
				if err != nil {
					t.Fatal(err)
				}
				if h.v2 {
					v2 = dir
				} else {
					v1 = dir
				}
			}
			if v1 != test.v1 || v2 != test.v2 {
				t.Errorf("%q and %q, want %q and %q", v1, v2, test.v1, test.v2)
			}
		})
	}
	if _, err := hierarchies([]byte(tmpfs + memory)); err == nil {
		t.Error("there is no freezer, and no error")
	}
	if dir, err := (hierarchy{mount: "/mnt", root: "/docker"}).dir("/system.slice/x"); err == nil {
		t.Errorf("what is not mounted is at %q", dir)
	}
}

const config = `{"ID":"%ID","Name":"/agent","Created":"x","State":{"Running":true,"Pid":4711},
"Config":{"Image":"openclaw:local","Env":["TOKEN=hunter2"],"Labels":{"com.docker.compose.project":"p","com.docker.compose.service":"s"}},
"NetworkSettings":{"SandboxKey":"/var/run/docker/netns/1","Networks":{"p_default":{"NetworkID":"n1"},"none":null}}}`

const hostConfig = `{"NetworkMode":"p_default","RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"Privileged":true,"CapAdd":["NET_ADMIN"]}`

// An engine's record of a container is read whatever else is in its directory,
// and one that cannot be read is an error and not a container less.
func TestRecords(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		name = filepath.Join(root, "containers", name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readRecords(root); err == nil {
		t.Error("there is no list of containers, and no error")
	}
	put(idA+"/config.v2.json", strings.ReplaceAll(config, "%ID", idA))
	put(idA+"/hostconfig.json", hostConfig)
	put(idB+"/hostname", "being made")
	put("README", "not a container")
	all, err := readRecords(root)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d records, %v", len(all), err)
	}
	r := all[0]
	if r.who != (who{id: idA, name: "agent", project: "p", service: "s"}) || r.pid != 4711 || r.policy != "on-failure:3" || r.networkMode != "p_default" ||
		r.networks["p_default"] != "n1" || len(r.networks) != 1 || r.sandbox == "" || !r.privileged || r.image != "openclaw:local" || !netAdmin(r.capAdd) {
		t.Errorf("%+v", r)
	}
	put(idC+"/config.v2.json", "{")
	put(idB+"/config.v2.json", strings.ReplaceAll(config, "%ID", idC))
	all, err = readRecords(root)
	if err == nil || !strings.Contains(err.Error(), idC) || !strings.Contains(err.Error(), idB) || len(all) != 1 {
		t.Errorf("%d records, %v", len(all), err)
	}
}

// Whatever is in the files, what comes of them is a container with an id, or an
// error.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(strings.ReplaceAll(config, "%ID", idA)), []byte(hostConfig))
	f.Add([]byte(`{}`), []byte(nil))
	f.Fuzz(func(t *testing.T, config, hostConfig []byte) {
		r, err := parseRecord(config, hostConfig)
		if err == nil && (len(r.id) != 64 || strings.HasPrefix(r.name, "//") && !strings.Contains(string(config), "///") || r.pid < 0) {
			t.Errorf("%+v", r)
		}
	})
}

// A process chooses its own name, and must not choose its state with it.
func TestStatOfHostileName(t *testing.T) {
	rest := " S 1 2 3 4 5 4194560 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21"
	name, fields, err := parseStat("4711 (a) Z 0 ()" + rest)
	if err != nil || name != "a) Z 0 (" || fields[0] != "S" || fields[1] != "1" {
		t.Errorf("%q %v %v", name, fields, err)
	}
}

func FuzzStat(f *testing.F) {
	f.Add("4711 (a) b) S 1 2 3 4 5 4194560 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21")
	f.Fuzz(func(t *testing.T, s string) {
		name, fields, err := parseStat(s)
		if err == nil && (len(fields) < 20 || len(fields[0]) != 1 || !strings.Contains(s, "("+name+")")) {
			t.Errorf("%q: %q %v", s, name, fields)
		}
	})
}

// How often a thread was switched is what the kernel says, or an error: that
// nothing is said must not look like a thread that stands still.
func TestSwitches(t *testing.T) {
	const both = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n"
	for _, test := range []struct {
		name, status string
		want         int64
		fails        bool
	}{
		{name: "both", status: both, want: 695},
		{name: "one", status: "voluntary_ctxt_switches:\t150\n", fails: true},
		{name: "neither", status: "Name:\tx\n", fails: true},
		{name: "no number", status: both[:len(both)-4] + "x\n", fails: true},
		{name: "nothing", fails: true},
	} {
		if got, err := switches(test.status); got != test.want || (err != nil) != test.fails {
			t.Errorf("%s: %d, %v", test.name, got, err)
		}
	}
}

func FuzzSwitches(f *testing.F) {
	f.Add("voluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n")
	f.Fuzz(func(t *testing.T, status string) {
		if n, err := switches(status); err == nil && !strings.Contains(status, "nonvoluntary_ctxt_switches:") {
			t.Errorf("%q: %d", status, n)
		}
	})
}

// Units that start the agent are found by what they run, and others are not.
func TestFindUnits(t *testing.T) {
	exec := func(line string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("[Service]\n# ExecStart=/usr/bin/docker start agent\n" + line + "\n")}
	}
	v := &host.View{FS: fstest.MapFS{
		"etc/systemd/system/agent.service":                              exec("ExecStart=/usr/bin/docker start -a agent"),
		"etc/systemd/system/run.service":                                exec("ExecStart=-/usr/bin/docker run --rm \\\n  --name=agent \\\n  openclaw:local"),
		"etc/systemd/system/compose.service":                            exec("ExecStart=/usr/bin/docker compose -p claw up"),
		"etc/systemd/system/shell.service":                              exec(`ExecStart=/bin/sh -c "docker start agent"`),
		"etc/systemd/system/other.service":                              exec("ExecStart=/usr/bin/docker start database"),
		"etc/systemd/system/longer.service":                             exec("ExecStart=/usr/bin/docker start agent-of-another"),
		"etc/systemd/system/plain.service":                              exec("ExecStart=/usr/bin/agent"),
		"etc/systemd/system/agent.socket":                               exec("ExecStart=/usr/bin/docker start agent"),
		"lib/systemd/system/docker.service":                             exec("ExecStart=/usr/bin/dockerd"),
		"home/claw/.config/systemd/user/openclaw-gateway.service":       exec("ExecStart=/usr/bin/node openclaw.mjs gateway"),
		"home/claw/.config/systemd/user/openclaw-gateway-work.service":  exec("ExecStart=/usr/bin/node openclaw.mjs gateway"),
		"home/claw/.config/systemd/user/not-openclaw-gateway.service":   exec("ExecStart=/bin/true"),
		"root/.config/systemd/user/default.target.wants/agent.service":  exec("ExecStart=/usr/bin/docker start agent"),
		"home/claw/.config/systemd/user/openclaw-gateway.service.d/x.y": exec(""),
	}}
	got, err := FindUnits(v, Agent{Names: []string{"agent"}, Projects: []string{"claw"}})
	want := []Unit{
		{Name: "agent.service"},
		{Name: "compose.service"},
		{Name: "run.service"},
		{Name: "shell.service"},
		{Name: "openclaw-gateway-work.service", User: "claw"},
		{Name: "openclaw-gateway.service", User: "claw"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

// An answer that does not say how a unit is does not say that it is down.
func FuzzUnitState(f *testing.F) {
	f.Add([]byte("LoadState=masked\nActiveState=inactive\nUnitFileState=masked-runtime\n"))
	f.Add([]byte("LoadState=loaded\nActiveState=activating\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseUnitState(data)
		if err == nil && (s.down() || s.absent()) && !strings.Contains(string(data), "inactive") && !strings.Contains(string(data), "failed") {
			t.Errorf("%q is taken for down", data)
		}
	})
}
