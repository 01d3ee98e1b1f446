package access_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/reconcile"
	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/hardentest"
	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

// The checks of an agent keep the contract on a machine in memory.
func TestChecksKeepTheContract(t *testing.T) {
	canary := func(m *hosttest.Machine) *hosttest.Machine {
		return m.File(root+"/home/node/.openclaw/workspace/canary.md", "token: "+hardentest.Canary)
	}
	with := func(f func(*hosttest.Machine)) func() *hosttest.Machine {
		return func() *hosttest.Machine {
			m := canary(machine())
			if f != nil {
				f(m)
			}
			return m
		}
	}
	reads := []string{root + "/home/node/.openclaw/openclaw.json", "/proc/100/environ"}
	for id, bad := range map[string]func(*hosttest.Machine){
		"access.agent_credentials": func(m *hosttest.Machine) {
			process(m, 101, []string{"x"}, "A="+consumerKey+hardentest.Canary)
			m.File(root+"/tmp/"+consumerKey+hardentest.Canary, projectKey)
		},
		"access.openclaw_config": settings(`{plugins:{entries:{composio:{config:{consumerKey:"` + hardentest.Canary + `"}}}}}`),
		"access.gateway_only":    settings(`{mcp:{servers:{m:{url:"https://` + "u:" + consumerKey + `@connect.composio.dev/mcp?k=` + hardentest.Canary + `"}}}}`),
		"access.tokens_at_rest": func(m *hosttest.Machine) {
			m.File(root+"/home/node/.openclaw/state/openclaw.sqlite", `{"access_token":"`+hardentest.Canary+`"}`)
		},
	} {
		t.Run(id, func(t *testing.T) {
			s := hardentest.Subject{Check: check(t, config(), id), Good: with(nil), Bad: with(bad)}
			s.Reads = reads
			if id == "access.tokens_at_rest" {
				s.Reads = []string{root + "/home/node/.openclaw/state/openclaw.sqlite"}
			}
			hardentest.Run(t, s)
		})
	}
}

func kept[T any](t *testing.T, id string, judge func(context.Context, T) (harden.Verdict, error), good, bad, unknown []T) {
	t.Helper()
	t.Run(id, func(t *testing.T) {
		hardentest.RunJudge(t, hardentest.JudgeSubject[T]{
			Info: check(t, access.Config{}, id).Info(), Judge: judge, Good: good, Bad: bad, Unknown: unknown,
			NoSecret: "the facts are made to hold none: TestNothingShowsACredential looks at how they are made",
		})
	})
}

// The judges keep the contract.
func TestJudgesKeepTheContract(t *testing.T) {
	unread := []access.Unread{{Kind: access.InEnvironment, Place: "/x", Err: fs.ErrPermission}}
	leak := func(k access.LeakKind) access.Agent {
		return access.Agent{General: true, Processes: 1, Files: 1, Leaks: []access.Leak{{Kind: k, Rule: access.RuleOAuthToken, Place: "/x", Mark: "00"}}}
	}
	kept(t, "access.agent_credentials", access.JudgeCredentials,
		[]access.Agent{{General: true, Processes: 1}},
		[]access.Agent{leak(access.InEnvironment), {Processes: 1, Leaks: leak(access.InFile).Leaks}},
		[]access.Agent{{}, {General: true}, {Processes: 1}, {General: true, Processes: 1, Unread: unread}, {Err: fs.ErrPermission, General: true, Processes: 1}})
	kept(t, "access.tokens_at_rest", access.JudgeStores,
		[]access.Agent{{Files: 1}, leak(access.InFile)}, []access.Agent{leak(access.InStore)}, []access.Agent{{Unread: unread}, {Err: fs.ErrPermission}})
	closed := access.Attempt{PID: 1, Name: "c", To: "192.0.2.1:443", Control: true, Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	open, untried, alone := closed, closed, closed
	open.Reached, open.Err = true, nil
	untried.Err = errors.New("setns")
	alone.Control = false
	other := untried
	other.Name = "d"
	kept(t, "access.gateway_only", access.JudgeGatewayOnly,
		[]access.Agent{{Attempts: []access.Attempt{closed}}, {Attempts: []access.Attempt{closed}, Ways: []access.Way{{Gateway: true}}}},
		[]access.Agent{{Attempts: []access.Attempt{open}}, {Attempts: []access.Attempt{closed}, Ways: []access.Way{{Host: "x"}}}},
		[]access.Agent{{}, {Attempts: []access.Attempt{untried}}, {Attempts: []access.Attempt{alone}}, {Attempts: []access.Attempt{closed, other}}, {Err: fs.ErrPermission}})
	masked := composio.Account{ID: "ca_1", Type: composio.AccountsShared}
	shown := masked
	shown.Unmasked = []string{"access_token"}
	kept(t, "access.masked_secrets", access.JudgeMasked,
		[]access.Vault{{Accounts: []composio.Account{masked}}},
		[]access.Vault{{Accounts: []composio.Account{masked, shown}}, {Config: composio.ProjectConfig{MaskSecrets: new(false)}}},
		[]access.Vault{{AccountsErr: composio.ErrIncompleteListing}, {Accounts: []composio.Account{masked}, ConfigErr: errors.New("broken off")}})
	list := composio.AuthConfig{ID: "ac_1", ExecutableTools: []string{"A_B"}}
	granted := access.Policy{Agents: map[string]access.Grants{"a": {Tools: map[string]access.Grant{"A_B": {}}}}}
	kept(t, "access.composio_allowlists", access.JudgeAllowlists,
		[]access.Vault{{AuthConfigs: []composio.AuthConfig{list}, Policy: granted}},
		[]access.Vault{{AuthConfigs: []composio.AuthConfig{list}}, {AuthConfigs: []composio.AuthConfig{{ID: "ac_2"}}, Policy: granted}},
		[]access.Vault{{AuthConfigs: []composio.AuthConfig{list}, PolicyErr: fs.ErrPermission}, {AuthConfigsErr: fs.ErrPermission}, {SessionsErr: fs.ErrPermission}, {ServersErr: fs.ErrPermission}})
}

// What a machine and Composio hold of credentials is in no finding, error or
// plan, and in none of the facts.
func TestNothingShowsACredential(t *testing.T) {
	secrets := []string{projectKey, consumerKey, agentToken, oauthToken, "hunter2-hunter2", "3f9a8c7be10d42"}
	m := machine()
	process(m, 100, []string{"x", "--key=" + projectKey}, "HOME=/home/node", consumerKey+"="+projectKey, "OPENCLAW_GATEWAY_TOKEN=3f9a8c7be10d42", "HTTPS_PROXY=http://u:hunter2-hunter2@10.0.0.1:3128",
		"COMPOSIO_BASE_URL=https://"+consumerKey+"@x.composio.dev/?api_key="+consumerKey)
	m.File(root+"/tmp/"+projectKey+"/"+consumerKey, oauthToken+"\n"+projectKey)
	m.File(root+"/tmp/denied-"+consumerKey, "x").Deny(root + "/tmp/denied-" + consumerKey)
	m.File(root+"/home/node/.openclaw/openclaw.json", `{
		$include: ["`+projectKey+`.json"], gateway: {auth: {password: "hunter2-hunter2"}}, "`+consumerKey+`": {token: "hunter2-hunter2"},
		mcp: {servers: {"composio-`+consumerKey+`": {url: "https://`+consumerKey+`.composio.dev/mcp", headers: {"`+projectKey+`": "x", token: "${`+"T"+`}"}}}}, bad
	`)
	broken := m
	whole := func() *hosttest.Machine {
		text, _ := broken.Read(root + "/home/node/.openclaw/openclaw.json")
		c := machine()
		process(c, 100, []string{"x", "--key=" + projectKey}, "HOME=/home/node", consumerKey+"="+projectKey, "T=hunter2-hunter2")
		return c.File(root+"/home/node/.openclaw/openclaw.json", strings.Replace(text, ", bad", "}", 1))
	}()
	cfg := config(func(c *access.Config) {
		c.Known = access.Secrets(projectKey)
		c.Gateway.URL = "http://u:" + agentToken + "@127.0.0.1:1"
		c.Gateway.Probes = []access.Probe{{Agent: "inbox", Token: composio.NewSecret(agentToken)}}
		c.Policy = policy()
		c.Composio = project().Client()
		c.Inside = &wire{open: map[int][]string{0: {composioAddr}, 100: {composioAddr, "10.0.0.1:3128"}}, reply: "HTTP/1.1 407 " + consumerKey + "\r\n\r\n"}
	})
	look := func(what string, v any) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			text := fmt.Sprintf(verb, v)
			for _, s := range secrets {
				if strings.Contains(text, s) {
					at := strings.Index(text, s)
					t.Errorf("%s with %s shows a credential: …%s…", what, verb, text[max(0, at-80):min(len(text), at+40)])
				}
			}
		}
	}
	found := 0
	for _, m := range []*hosttest.Machine{broken, whole} {
		for _, c := range access.Checks(cfg) {
			r := harden.Evaluate(t.Context(), m.View(), c, 0)
			look(r.Info.ID, r)
			found += len(r.Findings)
		}
		agents, err := access.NewSource(cfg).All(t.Context(), m.View())
		if err != nil {
			t.Fatal(err)
		}
		look("agents", agents)
		for _, a := range agents {
			look("settings", *a.Settings)
			if len(a.Leaks) == 0 || len(a.Settings.Credentials)+len(a.Settings.Unread) == 0 {
				t.Errorf("nothing was found: %+v", a)
			}
		}
	}
	vaults, err := access.NewVaultSource(cfg).All(t.Context(), new(host.View))
	look("vaults", vaults)
	look("error", err)
	offers, err := access.NewOfferSource(cfg).All(t.Context(), new(host.View))
	look("offers", offers)
	look("error", err)
	if found < 10 {
		t.Errorf("only %d findings", found)
	}
}

// The judges of trails keep the contract.
func TestTrailJudgesKeepTheContract(t *testing.T) {
	d := newDiary(t, 3, 3)
	sources := access.NewTrailSource(d.config())
	all, err := sources.List(t.Context(), &host.Local().View)
	if err != nil {
		t.Fatal(err)
	}
	sound := all[0]
	with := func(change func(*access.TrailReview)) access.TrailReview {
		r := sound
		change(&r)
		return r
	}
	damaged := with(func(r *access.TrailReview) { r.Err = &trail.DamageError{Kind: trail.DamageEdited, File: "0.seg"} })
	denied := with(func(r *access.TrailReview) { r.Err = fs.ErrPermission })
	unpinned := with(func(r *access.TrailReview) { r.Pinned, r.PinErr = nil, fs.ErrNotExist })
	unread := with(func(r *access.TrailReview) { r.ReadErr = fs.ErrPermission })
	stale := with(func(r *access.TrailReview) {
		r.Summary.Checkpoint.Size++
		r.Unpinned = r.Now.Add(-2 * access.DefaultMaxUnpinned)
	})
	undated := with(func(r *access.TrailReview) { r.Summary.Checkpoint.Size++ })
	behind := with(func(r *access.TrailReview) { r.Summary.Checkpoint.Size = 1 })
	kept(t, "access.trail_verifies", access.JudgeTrail, []access.TrailReview{sound, unread, stale},
		[]access.TrailReview{damaged, with(func(r *access.TrailReview) { r.Gone = true })}, []access.TrailReview{{}, denied, unpinned, behind})
	kept(t, "access.trail_pinned", access.JudgePinned, []access.TrailReview{sound},
		[]access.TrailReview{stale, with(func(r *access.TrailReview) { r.Pinned, r.PinErr = nil, trail.ErrCheckpoint })}, []access.TrailReview{{}, denied, damaged, unpinned, unread, undated, behind})
	kept(t, "access.trail_fresh", access.JudgeFresh, []access.TrailReview{sound, with(func(r *access.TrailReview) { r.Asked, r.Recorded = true, true })},
		[]access.TrailReview{with(func(r *access.TrailReview) { r.Asked = true }), with(func(r *access.TrailReview) { r.Last = r.Now.Add(-time.Hour) }), with(func(r *access.TrailReview) { r.Last = time.Time{} })},
		[]access.TrailReview{{}, denied, damaged, unread, with(func(r *access.TrailReview) { r.Asked, r.Recorded, r.AskErr = true, true, fs.ErrPermission })})
	report := func(r reconcile.Report) access.Completeness {
		return access.Completeness{Trail: d.trail, Since: sound.Now.Add(-time.Hour), Until: sound.Now, Report: &r}
	}
	found := []reconcile.Finding{{Kind: reconcile.Unrecorded, Side: reconcile.SideComposio, LogID: "log_x"}}
	kept(t, "access.trail_complete", access.JudgeComplete, []access.Completeness{report(reconcile.Report{Complete: true})},
		[]access.Completeness{report(reconcile.Report{Complete: true, Findings: found}), report(reconcile.Report{Findings: found})},
		[]access.Completeness{{}, {Err: fs.ErrPermission}, report(reconcile.Report{}), report(reconcile.Report{Complete: true, Gaps: []error{fs.ErrPermission}}), report(reconcile.Report{Complete: true, Open: found, Undecided: 1}), report(reconcile.Report{Complete: true, Undecided: 1})})
	entry := access.Entry{Path: "/t", Mode: fs.ModeDir | 0o700}
	kept(t, "access.trail_private", access.JudgeTrailGuard, []access.TrailGuard{{Trail: d.trail, Log: []access.Entry{entry}}},
		[]access.TrailGuard{{Log: []access.Entry{{Path: "/t", Mode: fs.ModeDir | 0o777}}}, {Log: []access.Entry{entry}, Mounts: []string{"x"}}},
		[]access.TrailGuard{{}, {Err: fs.ErrPermission}, {Log: []access.Entry{entry}, AgentsErr: fs.ErrPermission}, {Log: []access.Entry{entry}, Secret: &access.Guard{Err: fs.ErrPermission}}})
}
