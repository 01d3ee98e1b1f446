package hardshell

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/managemyclaw/hardshell"

// Who may compile what, beside the standard library. A path stands for itself
// and what is below it; own packages are named without the module's path.
//
// The arrows point from mechanism to contract: what is above knows nothing of
// what is below.
var allowed = map[string][]string{
	"audit/trail":               {},
	"harden/host":               {},
	"harden":                    {"harden/host", "audit/trail"},
	"audit":                     {"harden", "audit/trail"},
	"audit/report":              {"audit", "harden"},
	"composio":                  {},
	"composio/composiotest":     {"composio"},
	"harden/internal/async":     {"harden", "audit/trail"},
	"harden/container":          {"harden", "audit/trail", "harden/internal/async"},
	"harden/openclaw":           {"harden", "audit/trail", "audit/reconcile", "killswitch", "harden/internal/async", "composio", "firewall"},
	"harden/host/hosttest":      {"harden/host"},
	"harden/hardentest":         {"harden", "audit/trail"},
	"internal/lab":              {},
	"firewall":                  {},
	"firewall/nft":              {"firewall"},
	"firewall/iptables":         {"firewall"},
	"firewall/firewalltest":     {"firewall"},
	"firewall/ufw":              {"firewall"},
	"firewall/guard":            {"firewall"},
	"harden/access":             {"harden", "audit/trail", "audit/reconcile", "killswitch", "composio"},
	"harden/access/netns":       {},
	"audit/reconcile":           {"audit/trail", "composio"},
	"killswitch":                {"audit/trail"},
	"killswitch/killswitchtest": {"killswitch", "audit/trail"},
	"killswitch/remote":         {"killswitch", "audit/trail"},
	"firewall/egress":           {"firewall"},
	"harden/container/halt":     {"harden", "audit/trail"},
	"harden/openclaw/softstop":  {"composio"},
	"harden/openclaw/ledger":    {"audit/reconcile", "audit/trail", "composio"},
	"composio/gateway/halted":   {"composio"},
	"harden/network/tailscale":  {},
	"harden/network":            {"harden", "audit/trail", "harden/internal/async", "firewall"},
}

// What anybody may import: they import nothing but the standard library.
var tools = []string{"internal/filelock", "internal/hostpath", "internal/keyfile", "internal/procfs"}

// Third-party modules that a package may compile. Packages that are not listed
// compile none.
var thirdParty = map[string][]string{
	"audit/trail": {
		"golang.org/x/mod/sumdb/note",
		"golang.org/x/mod/sumdb/tlog",
	},
	"harden/container/docker": {
		"github.com/cespare/xxhash/v2",
		"github.com/containerd/errdefs",
		"github.com/containerd/errdefs/pkg",
		"github.com/distribution/reference",
		"github.com/docker/docker",
		"github.com/docker/go-connections",
		"github.com/docker/go-units",
		"github.com/felixge/httpsnoop",
		"github.com/go-logr/logr",
		"github.com/go-logr/stdr",
		"github.com/moby/docker-image-spec",
		"github.com/opencontainers/go-digest",
		"github.com/opencontainers/image-spec",
		"github.com/pkg/errors",
		"go.opentelemetry.io/auto/sdk",
		"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp",
		"go.opentelemetry.io/otel",
		"go.opentelemetry.io/otel/log",
		"go.opentelemetry.io/otel/metric",
		"go.opentelemetry.io/otel/trace",
		"golang.org/x/sync",
	},
	"composio/gateway": {
		"github.com/google/jsonschema-go",
		"github.com/modelcontextprotocol/go-sdk",
		"github.com/segmentio/asm",
		"github.com/segmentio/encoding",
		"github.com/yosida95/uritemplate/v3",
		"golang.org/x/oauth2",
		"golang.org/x/sync",
		"golang.org/x/sys",
		"golang.org/x/time",
	},
	"firewall/nft": {
		"github.com/google/nftables",
		"github.com/mdlayher/netlink",
		"github.com/mdlayher/socket",
		"golang.org/x/net",
		"golang.org/x/sync", // by mdlayher/netlink
		"golang.org/x/sys",
	},
	"killswitch": {
		"golang.org/x/sync/errgroup",
	},
	"firewall/egress": {
		"github.com/google/nftables",
		"github.com/mdlayher/netlink",
		"github.com/mdlayher/socket",
		"golang.org/x/net",
		"golang.org/x/sync", // by mdlayher/netlink
		"golang.org/x/sys",
	},
	"harden/openclaw/softstop": {
		"github.com/coder/websocket",
	},
	"harden/openclaw/ledger": {
		"github.com/dustin/go-humanize",
		"github.com/google/uuid",
		"github.com/klauspost/compress",
		"github.com/remyoudompheng/bigfft",
		"golang.org/x/sys",
		"modernc.org/libc",
		"modernc.org/mathutil",
		"modernc.org/memory",
		"modernc.org/sqlite",
	},
	"firewall/iptables": {
		"github.com/coreos/go-iptables",
		"golang.org/x/sys",
	},
	"harden/access/netns": {
		"golang.org/x/sys",
	},
	"harden/access/gitleaks": {
		"dario.cat/mergo",
		"github.com/BobuSumisu/aho-corasick",
		"github.com/Masterminds/goutils",
		"github.com/Masterminds/semver/v3",
		"github.com/Masterminds/sprig/v3",
		"github.com/STARRY-S/zip",
		"github.com/andybalholm/brotli",
		"github.com/aymanbagabas/go-osc52/v2",
		"github.com/bodgit/plumbing",
		"github.com/bodgit/sevenzip",
		"github.com/bodgit/windows",
		"github.com/charmbracelet/lipgloss",
		"github.com/dsnet/compress",
		"github.com/fatih/semgroup",
		"github.com/fsnotify/fsnotify",
		"github.com/gitleaks/go-gitdiff",
		"github.com/google/uuid",
		"github.com/h2non/filetype",
		"github.com/hashicorp/errwrap",
		"github.com/hashicorp/go-multierror",
		"github.com/hashicorp/go-version",
		"github.com/hashicorp/golang-lru/v2",
		"github.com/hashicorp/hcl",
		"github.com/huandu/xstrings",
		"github.com/klauspost/compress",
		"github.com/klauspost/pgzip",
		"github.com/lucasb-eyer/go-colorful",
		"github.com/magiconair/properties",
		"github.com/mattn/go-colorable",
		"github.com/mattn/go-isatty",
		"github.com/mattn/go-runewidth",
		"github.com/mholt/archives",
		"github.com/minio/minlz",
		"github.com/mitchellh/copystructure",
		"github.com/mitchellh/mapstructure",
		"github.com/mitchellh/reflectwalk",
		"github.com/muesli/reflow",
		"github.com/muesli/termenv",
		"github.com/nwaples/rardecode/v2",
		"github.com/pelletier/go-toml/v2",
		"github.com/pierrec/lz4/v4",
		"github.com/rivo/uniseg",
		"github.com/rs/zerolog",
		"github.com/sagikazarmark/slog-shim",
		"github.com/shopspring/decimal",
		"github.com/sorairolake/lzip-go",
		"github.com/spf13/afero",
		"github.com/spf13/cast",
		"github.com/spf13/pflag",
		"github.com/spf13/viper",
		"github.com/subosito/gotenv",
		"github.com/therootcompany/xz",
		"github.com/ulikunitz/xz",
		"github.com/zricethezav/gitleaks/v8",
		"go4.org",
		"golang.org/x/crypto",
		"golang.org/x/exp",
		"golang.org/x/mod",
		"golang.org/x/sync",
		"golang.org/x/sys",
		"golang.org/x/text",
		"gopkg.in/ini.v1",
		"gopkg.in/yaml.v3",
	},
	"harden/compose": {
		"github.com/compose-spec/compose-go/v2",
		"github.com/distribution/reference",
		"github.com/docker/go-connections",
		"github.com/docker/go-units",
		"github.com/go-viper/mapstructure/v2",
		"github.com/mattn/go-shellwords",
		"github.com/opencontainers/go-digest",
		"github.com/santhosh-tekuri/jsonschema/v6",
		"github.com/sirupsen/logrus",
		"github.com/xhit/go-str2duration/v2",
		"go.yaml.in/yaml/v4",
		"golang.org/x/sync",
		"golang.org/x/sys",
		"golang.org/x/text",
	},
}

type listed struct {
	ImportPath string
	Dir        string
	Standard   bool
	Module     *struct {
		Path string
		Main bool
	}
	Deps         []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// list runs go list for linux, on every package and all that they depend on.
func list(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Dir,Standard,Module,Deps,Imports,TestImports,XTestImports", "./...")
	cmd.Env = append(cmd.Environ(), "GOOS=linux")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	all := make(map[string]listed)
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
		if p.Module != nil && p.Module.Main {
			// go test caches results and cannot see what go list reads.
			// Reading the directory makes a change to it count.
			if _, err := os.ReadDir(p.Dir); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func within(p string, paths []string) bool {
	return slices.ContainsFunc(paths, func(a string) bool { return p == a || strings.HasPrefix(p, a+"/") })
}

func TestImports(t *testing.T) {
	all := list(t)
	var own []string
	for p, info := range all {
		if info.Module != nil && info.Module.Main {
			own = append(own, p)
		}
	}
	slices.Sort(own)
	for _, p := range own {
		rel := strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
		used := make(map[string]bool)
		for _, d := range all[p].Deps {
			info := all[d]
			if info.Standard {
				continue
			}
			if info.Module != nil && info.Module.Main {
				name := strings.TrimPrefix(d, module+"/")
				if strings.HasPrefix(name, "examples") {
					t.Errorf("%s imports an example", rel)
				}
				if strings.HasPrefix(name, "internal/lab") && !strings.HasPrefix(rel, "internal/lab") && !strings.HasPrefix(rel, "examples") {
					t.Errorf("%s imports the lab", rel)
				}
				if slices.Contains(tools, rel) {
					t.Errorf("%s, a tool, imports %s", rel, name)
				}
				if may, ok := allowed[rel]; ok && !within(name, may) && !slices.Contains(tools, name) {
					t.Errorf("%s must not import %s", rel, name)
				}
				continue
			}
			if strings.HasPrefix(rel, "examples") {
				continue // may use anything; the packages that it uses are judged themselves
			}
			if !within(d, thirdParty[rel]) && !usesOnlyThrough(all, p, d) {
				t.Errorf("%s must not compile %s", rel, d)
			}
			for _, a := range thirdParty[rel] {
				if within(d, []string{a}) {
					used[a] = true
				}
			}
		}
		for _, a := range thirdParty[rel] {
			if !used[a] {
				t.Errorf("%s no longer compiles %s: take it off the list", rel, a)
			}
		}
	}
	for _, table := range []map[string][]string{allowed, thirdParty} {
		for rel := range table {
			if _, ok := all[module+"/"+rel]; !ok {
				t.Errorf("%s is in the table, and does not exist", rel)
			}
		}
	}
}

// usesOnlyThrough reports whether p compiles d only because it imports a
// package of this module that may.
func usesOnlyThrough(all map[string]listed, p, d string) bool {
	for _, imp := range all[p].Imports {
		if info := all[imp]; info.Module == nil || !info.Module.Main {
			if imp == d || slices.Contains(info.Deps, d) {
				return false
			}
		}
	}
	return true
}

// What imports only the contract compiles no client of an engine, nothing that
// reads YAML, and no test framework: nothing that is not in the standard
// library, but for the Merkle tree and the signed notes of the trail, which are
// the Go project's and import nothing else.
func TestConsumerOfTheContract(t *testing.T) {
	const trees = "golang.org/x/mod"
	dir := t.TempDir()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	goMod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_ = goMod // a change of it must run this test again
	write("go.mod", "module example.com/consumer\n\ngo 1.26\n\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+root+"\n")
	write("main.go", `package main

import (
	"context"
	"fmt"

	"`+module+`/harden"
	"`+module+`/harden/host"
)

func main() {
	check := harden.New(harden.Info{ID: "consumer.ok", Title: "It builds"}, func(context.Context, *host.View) (harden.Verdict, error) {
		return harden.Pass(harden.Evidence{Source: "main.go", Observed: "built"}), nil
	})
	fmt.Println(harden.Evaluate(context.Background(), &host.View{}, check, 0).Status)
}
`)
	goSum, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	var sums strings.Builder
	for line := range strings.Lines(string(goSum)) {
		if strings.HasPrefix(line, trees+" ") {
			sums.WriteString(line)
		}
	}
	write("go.sum", sums.String())
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		// It needs nothing else from anywhere: neither a checksum nor a download.
		cmd.Env = append(cmd.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if got := run("run", "."); got != "pass\n" {
		t.Errorf("the consumer printed %q", got)
	}
	for p := range strings.FieldsSeq(run("list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")) {
		if p != "example.com/consumer" && !strings.HasPrefix(p, module+"/") && !within(p, thirdParty["audit/trail"]) {
			t.Errorf("the consumer compiles %s", p)
		}
	}
	if sum, err := os.ReadFile(filepath.Join(dir, "go.sum")); err != nil || string(sum) != sums.String() {
		t.Errorf("the consumer needs checksums of\n%s (%v)", sum, err)
	}
}

// Every package says what it is.
func TestPackagesAreDocumented(t *testing.T) {
	for p, info := range list(t) {
		if info.Module == nil || !info.Module.Main {
			continue
		}
		files, err := filepath.Glob(filepath.Join(info.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := slices.ContainsFunc(files, func(name string) bool {
			data, err := os.ReadFile(name)
			return err == nil && (strings.Contains("\n"+string(data), "\n// Package ") || strings.Contains("\n"+string(data), "\n// Command "))
		})
		if !found {
			t.Errorf("%s has no package comment", p)
		}
	}
}
