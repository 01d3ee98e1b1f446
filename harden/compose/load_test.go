package compose_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/compose"
	"github.com/managemyclaw/hardshell/harden/hardentest"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

func load(t *testing.T, o compose.Options, files map[string]string) (map[string]compose.Service, error) {
	t.Helper()
	tree := fstest.MapFS{}
	for name, data := range files {
		tree[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(data)}
	}
	if o.FS == nil {
		o.FS = tree
	}
	if o.Files == nil {
		o.Files = []string{dir + "/compose.yaml"}
	}
	p, err := compose.Load(t.Context(), o)
	if err != nil {
		assert.Nil(t, p)
		return nil, err
	}
	all := make(map[string]compose.Service)
	for _, s := range p.Services() {
		all[s.Name] = s
	}
	return all, nil
}

func TestLoadMergesFilesAndVariables(t *testing.T) {
	s, err := load(t, compose.Options{
		Files: []string{dir + "/compose.yaml", dir + "/compose.override.yaml"},
		Env:   map[string]string{"A": "from env"},
	}, map[string]string{
		dir + "/compose.yaml":          "services: {a: {image: '${A}', user: '${B}', volumes: ['./x:/x'], cap_add: [A]}}",
		dir + "/compose.override.yaml": "services: {a: {cap_add: [B], ports: ['1:1']}, b: {image: '${C:-c}', profiles: [p]}}",
		dir + "/.env":                  "A=from file\nB=7\n",
	})
	require.NoError(t, err)
	assert.Equal(t, "from env", s["a"].Image)
	assert.Equal(t, "7", s["a"].User)
	assert.Equal(t, []string{"A", "B"}, s["a"].CapAdd)
	assert.Equal(t, dir+"/x", s["a"].Mounts[0].Source)
	assert.Equal(t, "c", s["b"].Image)
}

func TestLoadSelectsByProfile(t *testing.T) {
	files := map[string]string{dir + "/compose.yaml": "services: {a: {image: x}, b: {image: x, profiles: [p]}}"}
	for _, c := range []struct {
		profiles []string
		want     int
	}{{nil, 2}, {[]string{}, 1}, {[]string{"p"}, 2}, {[]string{"q"}, 1}} {
		s, err := load(t, compose.Options{Profiles: c.profiles}, files)
		require.NoError(t, err)
		assert.Len(t, s, c.want)
	}
}

// The environment of the process must not count.
func TestLoadReadsNoEnvironment(t *testing.T) {
	t.Setenv("HARDSHELL_TEST_IMAGE", "leaked")
	t.Setenv("HOME", "/leaked")
	t.Setenv("COMPOSE_FILE", "/leaked")
	s, err := load(t, compose.Options{}, map[string]string{
		dir + "/compose.yaml": "services: {a: {image: '${HARDSHELL_TEST_IMAGE:-x}', volumes: ['~/y:/y'], environment: [HARDSHELL_TEST_IMAGE]}}",
	})
	require.NoError(t, err)
	assert.Equal(t, "x", s["a"].Image)
	assert.NotContains(t, fmt.Sprintf("%+v", s), "leaked")
}

func TestLoadOtherFiles(t *testing.T) {
	d := t.TempDir()
	write := func(name, data string) {
		require.NoError(t, os.WriteFile(filepath.Join(d, name), []byte(data), 0o600))
	}
	write("base.yaml", "services: {base: {image: x, privileged: true, volumes: ['./b:/b']}}")
	write("more.yaml", "services: {more: {image: x, pid: host}}")
	for name, doc := range map[string]string{
		"extends": "services: {a: {extends: {file: base.yaml, service: base}}}",
		"include": "include: [more.yaml]\nservices: {a: {image: x}}",
	} {
		t.Run(name, func(t *testing.T) {
			write("compose.yaml", doc)
			_, err := load(t, compose.Options{}, map[string]string{dir + "/compose.yaml": doc})
			assert.ErrorIs(t, err, errors.ErrUnsupported, "not from this computer")
			if runtime.GOOS == "windows" {
				t.Skip("paths of the host are those of Linux")
			}
			s, err := load(t, compose.Options{FS: os.DirFS("/"), Local: true, Files: []string{filepath.Join(d, "compose.yaml")}}, nil)
			require.NoError(t, err)
			if name == "extends" {
				assert.True(t, s["a"].Privileged)
				assert.Equal(t, filepath.Join(d, "b"), s["a"].Mounts[0].Source)
			} else {
				assert.Equal(t, "host", s["more"].Pid)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := range 12 {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 8), i)
	}
	for name, doc := range map[string]string{
		"empty":            "",
		"only a comment":   "# nothing\n",
		"null":             "null\n",
		"a list":           "[a]\n",
		"a word":           "services",
		"no services":      "services:\n",
		"null body":        "services:\n  a:\n",
		"a tab":            "services:\n\ta:\n",
		"same key twice":   "services: {a: {image: x, image: y}}",
		"unknown key":      "services: {a: {image: x, privilegd: true}}",
		"unknown anchor":   "services: {a: *a}",
		"inside itself":    "services: &a {a: *a}",
		"billion laughs":   laughs.String() + "services: {a: {image: x}}",
		"large":            "services: {a: {image: x}} #" + strings.Repeat("x", 5<<20),
		"not UTF-8":        "services: {a: {image: \"\xff\"}}",
		"UTF-16":           "s\x00e\x00",
		"required":         "services: {a: {image: '${NONE:?please}'}}",
		"bad variable":     "services: {a: {image: '${'}}",
		"unknown service":  "services: {a: {image: x, depends_on: [b]}}",
		"extends in rings": "services: {a: {image: x, extends: b}, b: {extends: a}}",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := load(t, compose.Options{}, map[string]string{dir + "/compose.yaml": doc})
			require.ErrorIs(t, err, compose.ErrInvalid)
			assert.Contains(t, err.Error(), dir+"/compose.yaml")
			res, err := compose.Harden(t.Context(), []byte(doc), compose.Hardening{})
			require.ErrorIs(t, err, compose.ErrInvalid)
			assert.Nil(t, res.Doc)
			assert.Less(t, time.Since(start), 2*time.Second)
		})
	}
	_, err := load(t, compose.Options{}, nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = compose.Load(t.Context(), compose.Options{Files: []string{"/a"}})
	require.ErrorIs(t, err, host.ErrNoAccess, "the zero Options read nothing")
	_, err = compose.Load(t.Context(), compose.Options{})
	require.Error(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = compose.Load(ctx, compose.Options{Files: []string{"/a"}, FS: fstest.MapFS{"a": {Data: []byte(good)}}})
	require.ErrorIs(t, err, context.Canceled)
}

func TestImageUsersAndAddresses(t *testing.T) {
	files := fstest.MapFS{"a/c.yaml": {Data: []byte("services: {a: {image: 'x:1', ports: ['100.64.1.2:1:1']}}")}}
	for user, want := range map[string]harden.Status{"": harden.StatusUnknown, "1000:1000": harden.StatusPass, "0": harden.StatusFail, "node": harden.StatusUnknown} {
		r := evaluate(t, compose.Source(compose.Options{
			Files: []string{"/a/c.yaml"}, ImageUsers: map[string]string{"x:1": user},
			BindTo: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")},
		}), &host.View{FS: files})
		assert.Equal(t, want, r["compose.non_root"].Status, user)
		assert.Equal(t, harden.StatusPass, r["compose.ports"].Status)
	}
}

const canary = "c4n4ry-s3cret"

// Nothing that this package says may hold the value of a variable.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	docs := []string{
		good + "    environment: {TOKEN: " + canary + ", DOCKER_HOST: 'tcp://" + canary + "'}\n    command: [--token, " + canary + "]\n",
		good + "    environment: ['TOKEN=" + canary + "', 'DOCKER_HOST=tcp://" + canary + "']\n    privileged: true\n    env_file: secret.env\n",
		good + "    environment: {TOKEN: '${" + canary + "'}\n",
		good + "    environment: {TOKEN: '${TOKEN:?" + canary + "}'}\n",
		good + "    environment: {TOKEN: [" + canary + "]}\n",
		good + "    environment: " + canary + "\n",
		good + "    environment: {TOKEN: " + canary + ", TOKEN: " + canary + "}\n",
		good + "    environment: {TOKEN: *" + canary + "}\n",
		good + "    environment: {TOKEN: \"" + canary + "}\n",
		good + "    restart: services.it.environment." + canary + "\n    mem_limit: " + canary + "\n",
		good + "    privileged: " + canary + "\n",
		good + "    user: root\n    image: '${SECRET}" + canary + "'\n    environment: {A: '${SECRET}'}\n",
		good + "    volumes: ['services.it." + canary + ":/x:/y:/z']\n",
		good + "    privileged: true\n    environment: {TOKEN: " + canary + "}\n",
		"x-env: &env {TOKEN: " + canary + ", B: '${SECRET}'}\nservices: {it: {image: x, environment: *env, privileged: true}}\n",
	}
	for i, doc := range docs {
		for _, env := range []string{"A=" + canary, "A='" + canary} {
			files := fstest.MapFS{
				"opt/agent/compose.yaml": {Data: []byte(doc)},
				"opt/agent/.env":         {Data: []byte(env)},
				"opt/agent/secret.env":   {Data: []byte("DOCKER_HOST=" + canary + "\n'" + canary)},
			}
			o := compose.Options{Files: []string{dir + "/compose.yaml"}, FS: files, Env: map[string]string{"SECRET": canary}}
			h := compose.Hardening{Needs: compose.OpenClawNeeds(), Env: o.Env, FS: files}
			v := &host.View{FS: files}
			var said strings.Builder
			say := func(values ...any) {
				for _, x := range values {
					if e, ok := x.(error); ok {
						fmt.Fprintf(&said, "%v\n%+v\n%#v\n", e, e, e)
						for ; e != nil; e = errors.Unwrap(e) {
							fmt.Fprintf(&said, "%v\n", e)
						}
						continue
					}
					fmt.Fprintf(&said, "%v\n%+v\n%#v\n", x, x, x)
				}
			}
			p, err := compose.Load(t.Context(), o)
			say(err)
			if p != nil && i != 11 { // an image may well be named after a variable
				say(p.Services())
			}
			res, err := compose.Harden(t.Context(), []byte(doc), h)
			say(err, res.Changes, res.Notes, res.Manual)
			ctx, done := harden.Share(t.Context())
			for _, c := range compose.Remediate(o, h) {
				say(harden.Evaluate(ctx, v, c, 0))
				r, ok := harden.AsRemediator(c)
				require.True(t, ok)
				plan, err := r.Plan(t.Context(), v)
				say(err, plan.Notes, plan.Manual)
				for _, a := range plan.Actions {
					say(a.Change())
				}
			}
			done()
			assert.NotContains(t, said.String(), canary, "document %d with %q", i, env)
		}
	}
}

// A check, with its remedy, keeps the contract. The others differ from it in
// the rule only, and each evaluation takes a while.
func TestContract(t *testing.T) {
	t.Parallel()
	const bad = `services:
  it:
    image: agent
    user: root
    tmpfs: /tmp
    privileged: true
    pid: host
    volumes: ['/etc:/host', '/run/docker.sock:/s']
    ports: ['80:80']
    environment: {TOKEN: ` + hardentest.Canary + `}
`
	machine := func(doc string) func() *hosttest.Machine {
		return func() *hosttest.Machine {
			return new(hosttest.Machine).File(dir+"/compose.yaml", doc)
		}
	}
	for _, c := range compose.Remediate(
		compose.Options{Files: []string{dir + "/compose.yaml"}},
		compose.Hardening{Needs: compose.Needs{User: "1000:1000"}},
	) {
		if c.Info().ID != "compose.ports" {
			continue
		}
		hardentest.Run(t, hardentest.Subject{
			Check: c,
			Good:  machine(good + "    environment: {TOKEN: " + hardentest.Canary + "}\n"),
			Bad:   machine(bad),
			Reads: []string{dir + "/compose.yaml"},
		})
	}
}

func TestRemediate(t *testing.T) {
	doc := "services:\n  a: # first\n    image: x\n    ports: ['80:80']\n    environment: {TOKEN: x}\n"
	m := new(hosttest.Machine).File(dir+"/compose.yaml", doc)
	h := m.Host()
	checks := compose.Remediate(
		compose.Options{Files: []string{dir + "/compose.yaml"}},
		compose.Hardening{Needs: compose.Needs{User: "1000:1000"}},
	)
	var edits int
	for _, p := range harden.Propose(t.Context(), &h.View, 0, checks...) {
		require.NoError(t, p.Err)
		edits += len(p.Plan.Actions)
	}
	assert.Equal(t, 1, edits, "one edit serves all checks")
	fixes, err := (&harden.Fixer{Trail: trail.Discard}).Fix(t.Context(), h, nil, checks...)
	require.NoError(t, err)
	require.NotEmpty(t, fixes)
	for _, c := range checks {
		r := harden.Evaluate(t.Context(), &h.View, c, 0)
		assert.Equal(t, harden.StatusPass, r.Status, "%s: %s", r.Info.ID, r.Detail)
	}
	got, _ := m.Read(dir + "/compose.yaml")
	assert.Contains(t, got, "a: # first\n    image: x\n    ports: [\"127.0.0.1:80:80\"]\n")
	for _, c := range checks {
		r, _ := harden.AsRemediator(c)
		plan, err := r.Plan(t.Context(), &h.View)
		require.NoError(t, err)
		assert.Empty(t, plan.Actions)
	}
}

func TestRemediateLeavesAloneWhatItCannotPass(t *testing.T) {
	f := fstest.MapFS{"opt/agent/compose.yaml": {Data: []byte("services: {a: {image: x}}")}}
	v := &host.View{FS: f}
	for _, c := range compose.Remediate(compose.Options{Files: []string{dir + "/compose.yaml"}}, compose.Hardening{}) {
		r, _ := harden.AsRemediator(c)
		plan, err := r.Plan(t.Context(), v)
		require.NoError(t, err)
		if c.Info().ID == "compose.non_root" {
			assert.Empty(t, plan.Actions)
			assert.NotEmpty(t, plan.Manual)
		}
	}
	for _, c := range compose.Remediate(compose.Options{Files: []string{"/a", "/b"}}, compose.Hardening{}) {
		r, _ := harden.AsRemediator(c)
		plan, err := r.Plan(t.Context(), v)
		require.NoError(t, err)
		assert.Empty(t, plan.Actions)
		assert.Contains(t, plan.Manual[0], "/a, /b")
	}
}
