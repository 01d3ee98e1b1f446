package compose_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/compose"
	"github.com/managemyclaw/hardshell/harden/host"
)

var update = flag.Bool("update", false, "write golden files")

var goldenEnv = map[string]string{"TOKEN": "canary-token", "HOME": "/home/me"}

// objections are what the checks say about a file, by service.
func objections(t *testing.T, doc []byte, env map[string]string) []string {
	t.Helper()
	files := fstest.MapFS{"srv/-/-/-/-/-/-/project/compose.yaml": {Data: doc}}
	p, err := compose.Load(t.Context(), compose.Options{Files: []string{"/srv/-/-/-/-/-/-/project/compose.yaml"}, FS: files, Env: env})
	if errors.Is(err, errors.ErrUnsupported) || bytes.Contains(doc, []byte("include:")) {
		return nil
	}
	require.NoError(t, err, "%s", doc)
	var all []string
	for _, r := range evaluate(t, p.Source(), &host.View{}) {
		for _, f := range r.Findings {
			all = append(all, strings.TrimPrefix(f.Subject, "compose/")+": "+f.Message)
		}
		if r.Status == harden.StatusUnknown {
			all = append(all, r.Detail)
		}
	}
	return all
}

// hard hardens doc and tests what holds for every file.
func hard(t *testing.T, doc string, h compose.Hardening) compose.Result {
	t.Helper()
	res, err := compose.Harden(t.Context(), []byte(doc), h)
	require.NoError(t, err)
	again, err := compose.Harden(t.Context(), res.Doc, h)
	require.NoError(t, err, "%s", res.Doc)
	assert.Equal(t, string(res.Doc), string(again.Doc), "hardening twice is hardening once")
	assert.Empty(t, again.Changes)
	assert.Equal(t, res.Manual, again.Manual)
	for _, c := range comments(doc) {
		assert.Contains(t, string(res.Doc), c, "comments survive")
	}
	if h.Services == nil {
		if left := objections(t, res.Doc, h.Env); len(res.Manual) == 0 {
			assert.Empty(t, left, "%s", res.Doc)
		} else {
			for _, l := range left {
				if !strings.Contains(l, "; ") {
					assert.Contains(t, strings.Join(res.Manual, "\n"), strings.TrimPrefix(l, "compose/"))
				}
			}
		}
	}
	if len(res.Changes) == 0 {
		assert.Equal(t, doc, string(res.Doc))
	}
	return res
}

var comment = regexp.MustCompile(`(?m)(?:^|[ \t])(#[^\r\n]*)`)

func comments(doc string) (all []string) {
	for _, m := range comment.FindAllStringSubmatch(doc, -1) {
		all = append(all, strings.TrimRight(m[1], " \t"))
	}
	return all
}

func TestGolden(t *testing.T) {
	t.Parallel()
	dirs, err := filepath.Glob("testdata/*/in.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	for _, in := range dirs {
		t.Run(filepath.Base(filepath.Dir(in)), func(t *testing.T) {
			doc, err := os.ReadFile(in)
			require.NoError(t, err)
			res := hard(t, string(doc), compose.Hardening{Needs: compose.OpenClawNeeds(), Env: goldenEnv})
			var b bytes.Buffer
			b.Write(res.Doc)
			for _, c := range res.Changes {
				b.WriteString("#- " + c.String() + "\n")
			}
			for _, n := range res.Notes {
				b.WriteString("#? " + n + "\n")
			}
			for _, m := range res.Manual {
				b.WriteString("#! " + m + "\n")
			}
			golden := filepath.Join(filepath.Dir(in), "want.yaml")
			if *update {
				require.NoError(t, os.WriteFile(golden, b.Bytes(), 0o600))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.Equal(t, string(want), b.String())
		})
	}
}

// Files that are written in every way that YAML and compose allow.
func TestShapes(t *testing.T) {
	needs := compose.OpenClawNeeds()
	needs.Writable, needs.Env = nil, nil
	for name, c := range map[string]struct {
		doc    string
		want   string // part of the result
		manual string // part of what is left to a person; empty for nothing
	}{
		"block":              {"services:\n  a:\n    image: x\n", "\n    read_only: true\n", ""},
		"no final newline":   {"services:\n  a:\n    image: x", "\n      - \"/tmp:size=64m,noexec,nosuid,nodev\"", ""},
		"CRLF":               {"services:\r\n  a:\r\n    image: x # y\r\n    ports:\r\n      - '1:1'\r\n      - '2:2'\r\n    privileged: true\r\n", "read_only: true\r\n", ""},
		"BOM":                {"\ufeffservices:\n  a:\n    image: x\n    pid: host\n", "\ufeffservices:", ""},
		"BOM and flow":       {"\ufeffservices: {a: {image: x, ports: ['1:1']}}\n", "\ufeffservices: {a: {", ""},
		"flow service":       {"services: {a: {image: x, ports: ['1:1', \"2:2\"], cap_add: [A, B]}}\n", `"127.0.0.1:2:2"`, ""},
		"flow over lines":    {"services: {\n  a: { # c1\n    image: x, # c2\n    ports: [\n      '1:1', # c3\n    ]\n  }\n}\n", "      \"127.0.0.1:1:1\", # c3\n", ""},
		"JSON":               {`{"services": {"a": {"image": "x", "privileged": true}}}`, `"privileged": false`, ""},
		"quoted keys":        {"\"services\":\n  'a b':\n    image: x\n", "", "invalid"},
		"quoted key":         {"services:\n  \"a\":\n    \"image\": x\n    'privileged': true\n    \"read_only\" : false # c\n", "\"read_only\" : true # c", ""},
		"escaped key":        {"services:\n  a:\n    image: x\n    \"privileg\\x65d\": true\n    z: 1\n", "", "invalid"},
		"escaped":            {"services:\n  a:\n    image: x\n    \"privileg\\x65d\": true\n    tty: true\n", "tty: true", ""},
		"other languages":    {"# größe ☃\nservices:\n  a:\n    labels: {ключ: 値, é: \"ü # not a comment\"}\n    image: x # ☃\n    privileged: true\n", "{ключ: 値, é: \"ü # not a comment\"}", ""},
		"unicode line break": {"services:\n  a:\n    image: x\n    labels: {a: \"x\u2028        y\", b: z}\n    privileged: true\n", "read_only", ""},
		"indent 4":           {"services:\n    a:\n        image: x\n        ports:\n        - 1:1\n", "\n        - \"127.0.0.1:1:1\"\n", ""},
		"compact list":       {"services:\n  a:\n    image: x\n    cap_drop:\n    - A\n    cap_add:\n    - B\n    - C # why\n    tty: true\n", "cap_drop:\n    - ALL\n", ""},
		"text at the end":    {"services:\n  a:\n    image: x\n    command: |\n      a\n\n      b\n\n\n# end\n", "      b\n    user:", ""},
		"text kept":          {"services:\n  a:\n    image: x\n    command: |+\n      a\n\n# end\nvolumes: {}\n", "read_only", ""},
		"text in the middle": {"services:\n  a:\n    image: x\n    command: >-\n      a: b\n      # not a comment\n    privileged: true # c\n    tty: true\n", "      # not a comment\n    # c\n", ""},
		"plain over lines":   {"services:\n  a:\n    image: x\n    command: one two\n      three  # c\n", "three  # c\n    user", ""},
		"quoted over lines":  {"services:\n  a:\n    image: x\n    command: \"one two\n\n      three # no \\\"comment\\\"\"\n", "comment", ""},
		"null values":        {"services:\n  a:\n    image: x\n    networks:\n      default:\n", "      default:\n    user", ""},
		"null list":          {"services:\n  a:\n    image: x\n    cap_drop: []\n    tmpfs: []\n    ports: []\n", "cap_drop: [ALL]", ""},
		"anchored value":     {"services:\n  a:\n    image: x\n    ports: &p\n      - 1:1\n  b:\n    image: x\n    ports: *p\n", "\n      - \"127.0.0.1:1:1\"\n", ""},
		"anchored item":      {"services:\n  a:\n    image: x\n    volumes:\n      - &s /run/docker.sock:/s\n      - ./a:/a\n  b:\n    image: x\n    volumes: [*s]\n", "volumes:\n      - ./a:/a\n", ""},
		"list of a merge":    {"x-a: &a\n  volumes: [./a:/a, '/etc:/b', *v]\nservices: {a: {image: x, <<: *a}}\n", "", "invalid"},
		"merge list":         {"x-v: &v ./v:/v\nx-a: &a\n  volumes: [./a:/a, '/etc:/b', *v ]\nservices:\n  a:\n    image: x\n    <<: [*a]\n", "volumes: [\"./a:/a\", *v ]", ""},
		"alias of a list":    {"x-v: &v [/etc:/a, './b:/b']\nservices:\n  a:\n    image: x\n    volumes: *v\n", "volumes: [\"./b:/b\"]", ""},
		"whole alias":        {"x-s: &s\n  image: x\nservices:\n  a: *s # c\n  b: *s\n", "  a: # c\n    <<: *s\n", ""},
		"flow whole alias":   {"x-s: &s\n  image: x\nservices: {a: *s }\n", "<<: *s }", ""},
		"merged services":    {"x-s: &s\n  a: {image: x}\nservices:\n  <<: *s\n", "", "a: the root file system is writable"},
		"extends a file":     {"services:\n  a:\n    image: x\n    extends: {file: other.yaml, service: b}\n", "read_only: true", "other.yaml"},
		"include":            {"include: [other.yaml]\nservices:\n  a:\n    image: x\n    depends_on: [b]\n", "read_only: true", "includes others"},
		"documents":          {"services: {a: {image: x}}\n---\nservices: {a: {tty: true}}\n", "", "several documents"},
		"end marks":          {"%YAML 1.1\n---\nservices:\n  a:\n    image: x\n...\n", "read_only: true", ""},
		"tags":               {"services:\n  a:\n    image: !!str x\n    ports: !!seq\n      - !!str 1:1\n    privileged: !!bool true\n", "127.0.0.1:1:1", ""},
		"sockets by need":    {"services:\n  a:\n    image: x\n    volumes: ['~:/home/node']\n", "127", ""},
		"windows":            {"services:\n  a:\n    image: x\n    volumes:\n      - 'C:\\data:/data'\n      - 'C:\\Users\\me:/home'\n", "- 'C:\\data:/data'\n    user", ""},
		"environment alias":  {"x-e: &e\n  A: b\nservices:\n  a:\n    image: x\n    environment: *e\n", "environment: *e", ""},
		"engine in map":      {"services:\n  a:\n    image: x\n    environment:\n      A: b # c1\n      DOCKER_HOST: tcp://x # c2\n      C: d\n", "A: b # c1\n      # c2\n      C: d", ""},
		"engine in a text":   {"services:\n  a:\n    image: x\n    environment:\n      DOCKER_HOST: |\n        tcp://x\n      C: d\n", "environment:\n      C: d\n", ""},
		"far right":          {"services: {a: {labels: {é: ü☃}, image: x, ports: ['1:1']}}\n", "ports: [\"127.0.0.1:1:1\"]", ""},
		"engine alone":       {"services:\n  a:\n    image: x\n    environment:\n      DOCKER_HOST: tcp://x\n", "image: x\n    user", ""},
		"only port":          {"services:\n  a:\n    image: x\n    ports: [80, 81/udp, '${P:-1}:2']\n", `["127.0.0.1::80", "127.0.0.1::81/udp", "127.0.0.1:${P:-1}:2"]`, ""},
		"port in a variable": {"services:\n  a:\n    image: x\n    ports: ['${PORT:-80:80}']\n", `["127.0.0.1:80:80/tcp"]`, ""},
		"address in one":     {"services:\n  a:\n    image: x\n    ports: ['${IP:-0.0.0.0}:80:80', '[::]:81:81']\n", `["127.0.0.1:80:80", "127.0.0.1:81:81"]`, ""},
		"limits below":       {"services:\n  a:\n    image: x\n    pids_limit: -1\n    mem_limit: 8g\n", "pids_limit: 512\n    mem_limit: 8g\n", ""},
		"deploy limits":      {"services:\n  a:\n    image: x\n    deploy:\n      resources:\n        limits:\n          cpus: '1' # c\n", "          cpus: '1' # c\n          memory: 2g\n          pids: 512\n", ""},
		"devices of deploy":  {"services:\n  a:\n    image: x\n    deploy:\n      resources:\n        reservations:\n          memory: 1g\n          devices:\n            - capabilities: [gpu] # c\n", "memory: 1g\n          # c\n", ""},
		"last options":       {"services:\n  a:\n    image: x\n    security_opt:\n      - no-new-privileges:true # c\n      - no-new-privileges=false\n      - label:level:s0\n", "      # c\n      - label:level:s0\n      - no-new-privileges:true\n", ""},
		"sysctls":            {"services:\n  a:\n    image: x\n    sysctls:\n      net.core.somaxconn: 1\n      kernel.msgmax: 2\n", "      net.core.somaxconn: 1\n    user", ""},
		"job":                {"services:\n  a:\n    image: x\njobs:\n  j:\n    image: x\n    triggers: {manual: true}\n", "read_only", "job j"},
		"hook":               {"services:\n  a:\n    image: x\n    post_start: [{command: id, user: root}]\n", "read_only", "hook"},
		"profile of seccomp": {"services:\n  a:\n    image: x\n    security_opt: ['seccomp:./p.json']\n", "['seccomp:./p.json'", "seccomp"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := compose.Hardening{Needs: needs}
			if c.manual == "invalid" {
				_, err := compose.Harden(t.Context(), []byte(c.doc), h)
				require.ErrorIs(t, err, compose.ErrInvalid)
				return
			}
			if name == "sockets by need" {
				h.Needs.Writable = []string{"/home/node/.openclaw"}
				res := hard(t, c.doc, h)
				assert.Contains(t, string(res.Doc), "~:/home/node")
				assert.NotEmpty(t, res.Manual)
				return
			}
			res := hard(t, c.doc, h)
			assert.Contains(t, string(res.Doc), c.want)
			if c.manual == "" {
				assert.Empty(t, res.Manual, "%s", res.Doc)
			} else {
				assert.Contains(t, strings.Join(res.Manual, "\n"), c.manual)
			}
		})
	}
}

func TestOnlyTheNamedServices(t *testing.T) {
	const (
		before = "# top\nx: &e {A: b}\nservices:\n  a: {image: x, privileged: true}\n  b:\n    image: x\n"
		after  = "\n  c:\n    image: x # odd   spacing\n    privileged:   true\nvolumes: {}   # end"
	)
	res := hard(t, strings.Replace(before+after, "x: &e", "x-e: &e", 1), compose.Hardening{Services: []string{"b"}})
	assert.True(t, strings.HasPrefix(string(res.Doc), strings.Replace(before, "x: &e", "x-e: &e", 1)))
	assert.True(t, strings.HasSuffix(string(res.Doc), after))
	assert.Equal(t, []string{"b: user is not set, and the user of the image is not known"}, res.Manual)

	_, err := compose.Harden(t.Context(), []byte(before), compose.Hardening{Services: []string{"z"}})
	assert.Error(t, err)
}

func TestSharedAnchor(t *testing.T) {
	doc := "services:\n  a: &a\n    image: x\n    privileged: true\n  b: *a\n  c:\n    <<: *a\n    image: y\n"
	res := hard(t, doc, compose.Hardening{Services: []string{"a"}, Needs: compose.Needs{User: "1:1"}})
	assert.Contains(t, res.Notes, "a: b changes with it, which takes settings from it")
	res = hard(t, doc, compose.Hardening{Services: []string{"c"}, Needs: compose.Needs{User: "1:1"}})
	assert.True(t, strings.HasPrefix(string(res.Doc), doc), "what others share stays")
	assert.Empty(t, res.Notes)
}

// What a service takes from the one at hand must not uncover something worse.
func TestNoHarmToOthers(t *testing.T) {
	doc := "x-base: &base {cap_add: [A, B, C]}\nservices:\n  a: &a\n    image: x\n    cap_add: [X]\n    tty: true\n  b:\n    <<: [*a, *base]\n"
	res := hard(t, doc, compose.Hardening{Services: []string{"a"}})
	assert.Contains(t, string(res.Doc), "    cap_add: []\n")
}

func TestNeeds(t *testing.T) {
	doc := "services:\n  a:\n    image: x\n    cap_add: [NET_BIND_SERVICE, SYS_ADMIN]\n    network_mode: host\n    volumes: ['/etc:/state', '/run/docker.sock:/state/s.sock', './ro:/ro:ro']\n    mem_limit: 100m\n    pids_limit: 10\n    environment: [\"A=b\"]\n"
	res := hard(t, doc, compose.Hardening{Needs: compose.Needs{
		User: "7:7", Writable: []string{"/state/db", "/ro", "/none"}, Tmpfs: []string{"/run", "/state"}, Env: map[string]string{"A": "c", "B": "x$y #"},
		Capabilities: []string{"cap_net_bind_service"}, Memory: 3 << 29, Pids: 1000, Ports: []uint16{80},
	}})
	got := string(res.Doc)
	for _, want := range []string{
		"cap_add: [NET_BIND_SERVICE]\n", "volumes: ['/etc:/state', './ro:/ro:ro']", "mem_limit: 1536m", "pids_limit: 1000",
		"environment: [\"A=b\", \"B=x$$y #\"]", "\"/run:size=64m,noexec,nosuid,nodev\"", "\"127.0.0.1:80:80\"", "user: \"7:7\"",
	} {
		assert.Contains(t, got, want)
	}
	assert.NotContains(t, got, "/tmp")
	manual := strings.Join(res.Manual, "\n")
	for _, want := range []string{"/etc on /state", "cap_add gives NET_BIND_SERVICE", "in /ro must last", "in /none must last"} {
		assert.Contains(t, manual, want)
	}
}
