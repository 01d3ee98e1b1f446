package ufw_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/ufw"
	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// machine runs programs on a machine of the lab.
type machine struct{ *lab.Machine }

func (m machine) Run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := m.Command(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LANGUAGE=C")
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if strings.Contains(stderr.String(), "failed to execute") { // nsenter
			return nil, fmt.Errorf("%s: %w", name, exec.ErrNotFound)
		}
		return stdout.Bytes(), &firewall.ExitError{Name: name, Code: exit.ExitCode(), Stderr: stderr.String()}
	}
	return stdout.Bytes(), err
}

// files are those of the lab's host.
type files struct{ *lab.Lab }

func (f files) Open(name string) (fs.File, error) { return os.Open(f.HostPath("/" + name)) }

type site struct {
	*testing.T
	l *lab.Lab
}

func newSite(t *testing.T) *site {
	return &site{t, labtest.Start(t, lab.Config{NoDocker: true, UFW: true})}
}

func (s *site) sh(script string) string {
	s.Helper()
	out, err := s.l.Host.Command(s.Context(), "sh", "-euc", script).CombinedOutput()
	if err != nil {
		s.Fatalf("%v: %s\n%s", err, out, script)
	}
	return string(out)
}

func (s *site) read() *ufw.State {
	s.Helper()
	st, err := ufw.Read(s.Context(), files{s.l}, machine{s.l.Host})
	if err != nil {
		s.Fatal(err)
	}
	return st
}

func (s *site) apply(w ufw.Wish) (*ufw.Plan, *ufw.State) {
	s.Helper()
	p, err := s.read().Plan(w)
	if err != nil {
		s.Fatal(err)
	}
	st, err := p.Apply(s.Context(), files{s.l}, machine{s.l.Host})
	if err != nil {
		s.Fatalf("%v\nplan: %v", err, p.Steps)
	}
	return p, st
}

// reachable reports whether a connection from the internet to a port of the host is answered.
func (s *site) reachable(addr netip.Addr, port uint16) bool {
	s.Helper()
	ln, err := s.l.Host.Listen(s.Context(), "tcp", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		s.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(s.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := s.l.Internet.Dial(ctx, "tcp", ln.Addr().String())
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func kinds(ps []ufw.Problem) []ufw.ProblemKind {
	var all []ufw.ProblemKind
	for _, p := range ps {
		if !slices.Contains(all, p.Kind) {
			all = append(all, p.Kind)
		}
	}
	return all
}

func tcp(port uint16) firewall.Port { return firewall.Port{Protocol: firewall.TCP, Number: port} }

// Whatever rules UFW is given, what the kernel has is recognized as theirs.
func TestRulesOfAllKindsAreThoseInTheKernel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rules := []string{
		"allow SSH", "allow 22/tcp", "limit 2222/tcp", "allow 53", "deny 25", "reject 113", "reject 114/tcp", "reject 115/udp", "limit 7000",
		"allow in on tailscale0", "allow in on eth+ to any port 80 proto tcp", "allow proto tcp from 203.0.113.7 to any port 443",
		"allow proto tcp from 2001:db8::/32 to any port 443", "allow 6000:6007/tcp", "allow 80,443/tcp", "allow 80,6000:6007/udp",
		"deny out 25/tcp", "allow log 8080/tcp", "deny log-all 8081", "limit log 8082/tcp", "reject log 8083",
		"allow from 10.0.0.0/8", "deny from 10.1.2.3", "allow to 192.0.2.1 port 81 from 10.0.0.0/8 port 1024:2048 proto udp",
		"allow proto esp from any", "allow proto gre from 192.0.2.0/24", "allow proto ah from any", "allow proto igmp from 192.0.2.7",
		"route allow in on v0 out on v1 to 192.0.2.9 port 80 proto tcp", "route deny out on eth0 from 10.0.0.0/8", "route allow log proto udp from any to any port 53",
		"allow from 10.0.0.0/8 to any app SSH", "allow 9999/tcp comment 'mine: a -j b'", "allow in on eth0 from any port 67 to any port 68 proto udp",
		"reject out to 198.51.100.99", "reject from 2001:db8::7 proto tcp",
	}
	before := len(s.read().Rules)
	s.sh("ufw " + strings.Join(rules, "\nufw "))
	s.deleteAndAdd()
	s.sh("ufw --force enable")
	st := s.read()
	if n := len(st.Rules) - before; n < len(rules) {
		t.Errorf("%d rules of %d commands", n, len(rules))
	}
	for _, p := range st.Problems() {
		t.Error(p)
	}
	for _, k := range []ufw.Kernel{st.V4, st.V6} {
		if !k.Active || !k.InOrder() || k.Policy != "DROP" || k.Flavour == "" {
			t.Errorf("%+v", k)
		}
	}
	// Each rule of the kernel's that is taken away, or added, is noticed.
	restore := s.saved()
	for _, edit := range []struct{ name, do string }{
		{"a rule is gone", "iptables -D ufw-user-input -p tcp --dport 22 -j ACCEPT"},
		{"a rule is gone, IPv6", "ip6tables -D ufw6-user-input -p tcp --dport 22 -j ACCEPT"},
		{"a rule is new", "iptables -A ufw-user-input -p tcp --dport 1 -j ACCEPT"},
		{"a rule is new, forward", "iptables -A ufw-user-forward -j ACCEPT"},
		{"a rule has another address", "iptables -R ufw-user-input 1 -s 10.9.9.9 -p tcp --dport 22 -j ACCEPT"},
		{"a rule is negated", "iptables -R ufw-user-input 1 -p tcp ! --dport 22 -j ACCEPT"},
		{"a rule has another target", "iptables -R ufw-user-input 1 -p tcp --dport 22 -j DROP"},
		{"a rule is elsewhere", "iptables -D ufw-user-input -p tcp --dport 22 -j ACCEPT; iptables -A ufw-user-input -p tcp --dport 22 -j ACCEPT"},
	} {
		s.sh(edit.do)
		if got := kinds(s.read().Problems()); !slices.Equal(got, []ufw.ProblemKind{ufw.RulesDiffer}) {
			t.Errorf("%s: problems %v", edit.name, got)
		}
		restore()
		if got := s.read().Problems(); len(got) > 0 {
			t.Fatalf("%s: after it was put back: %v", edit.name, got)
		}
	}
}

// saved returns a function that puts the table filter of both families back.
func (s *site) saved() func() {
	s.Helper()
	s.sh("iptables-save -t filter >/run/save4; ip6tables-save -t filter >/run/save6")
	return func() {
		s.Helper()
		s.sh("iptables-restore </run/save4; ip6tables-restore </run/save6")
	}
}

// deleteAndAdd deletes each rule that UFW has by the words of DeleteSpec, and adds it
// again by those of Spec.
func (s *site) deleteAndAdd() {
	s.Helper()
	rules := slices.DeleteFunc(s.read().Rules, func(r ufw.Rule) bool {
		return r.ToApp+r.FromApp != "" || r.V6 && !r.To.IsValid() && !r.From.IsValid()
	})
	for _, specs := range []func(ufw.Rule) []string{func(r ufw.Rule) []string { return append([]string{"--force"}, r.DeleteSpec()...) }, ufw.Rule.Spec} {
		var script strings.Builder
		for _, r := range rules {
			script.WriteString("ufw")
			for _, word := range specs(r) {
				script.WriteString(" '" + word + "'")
			}
			script.WriteString("\n")
		}
		s.sh(script.String())
		if specs(rules[0])[0] == "--force" {
			if left := s.read().Rules; slices.ContainsFunc(left, func(r ufw.Rule) bool { return r.ToApp+r.FromApp == "" }) {
				s.Errorf("deleted, and still there: %v", left)
			}
		}
	}
	have := ruleTexts(s.read().Rules)
	for _, r := range rules {
		if !slices.Contains(have, r.String()) {
			s.Errorf("ufw %q does not add %v", r.Spec(), r)
		}
	}
}

func ruleTexts(rules []ufw.Rule) []string {
	var all []string
	for _, r := range rules {
		all = append(all, r.String())
	}
	return all
}

// "ufw status" calls these active. What it lies about is seen.
func TestStatusThatLies(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sh("ufw allow 22/tcp; ufw --force enable")
	restore := s.saved()
	for _, c := range []struct {
		name, do string
		want     []ufw.ProblemKind
	}{
		{"INPUT flushed and accepting", "iptables -F INPUT; iptables -P INPUT ACCEPT", []ufw.ProblemKind{ufw.JumpsMissing, ufw.PolicyDiffers}},
		{"INPUT flushed and accepting, IPv6", "ip6tables -F INPUT; ip6tables -P INPUT ACCEPT", []ufw.ProblemKind{ufw.JumpsMissing, ufw.PolicyDiffers}},
		{"one jump deleted", "iptables -D INPUT -j ufw-before-input", []ufw.ProblemKind{ufw.JumpsMissing}},
		{"a jump with a condition", "iptables -R INPUT 2 -i eth9 -j ufw-before-input", []ufw.ProblemKind{ufw.JumpsMissing}},
		{"jumps in another order", "iptables -D INPUT -j ufw-before-input; iptables -A INPUT -j ufw-before-input", []ufw.ProblemKind{ufw.JumpsOutOfOrder}},
		{"everything accepted first", "iptables -I INPUT -j ACCEPT", []ufw.ProblemKind{ufw.AcceptBefore}},
		{"every new connection accepted first", "iptables -I INPUT -m conntrack --ctstate NEW -j ACCEPT", []ufw.ProblemKind{ufw.AcceptBefore}},
		{"user chain unhooked", "iptables -D ufw-before-input -j ufw-user-input", []ufw.ProblemKind{ufw.JumpsMissing}},
		{"user chain flushed", "iptables -F ufw-user-input", []ufw.ProblemKind{ufw.RulesDiffer}},
		{"policy accepts", "iptables -P INPUT ACCEPT", []ufw.ProblemKind{ufw.PolicyDiffers}},
		{"all rules flushed and removed", "iptables -P INPUT ACCEPT; iptables -F; iptables -X", []ufw.ProblemKind{ufw.NotLoaded}},
	} {
		s.sh(c.do)
		st := s.read()
		if got := kinds(st.Problems()); !slices.Equal(got, c.want) {
			t.Errorf("%s: problems %v, want %v", c.name, st.Problems(), c.want)
		}
		restore()
		if got := s.read().Problems(); len(got) > 0 {
			t.Fatalf("%s: after it was put back: %v", c.name, got)
		}
	}
	// Rules of others ahead of UFW's that accept something are named, and
	// no problem of UFW's.
	s.sh("iptables -N ts-input; iptables -I INPUT -j ts-input; iptables -I INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT")
	st := s.read()
	if want := []string{"-m conntrack --ctstate ESTABLISHED -j ACCEPT", "-j ts-input"}; !slices.Equal(st.V4.Before, want) || len(st.Problems()) > 0 {
		t.Errorf("before UFW's rules: %q, problems %v", st.V4.Before, st.Problems())
	}
}

// A plan allows, denies the rest by both families, enables, and can be applied again.
func TestPlanIsApplied(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sh("ufw default allow incoming; ufw allow 8080; ufw allow from any to any; ufw deny 23/tcp")
	wish := ufw.Wish{Allow: []firewall.Allow{
		{Port: tcp(22), From: []netip.Prefix{netip.PrefixFrom(lab.InternetAddr4, 32), netip.PrefixFrom(lab.InternetAddr6, 128)}},
		{Port: tcp(443)},
		{In: "tailscale0"},
	}}
	p, err := s.read().Plan(wish)
	if err != nil {
		t.Fatal(err)
	}
	var any ufw.Rule
	for _, r := range p.Broader {
		if r.Everything() {
			any = r
		}
	}
	if any.Action != ufw.Allow || len(p.Broader) != 4 {
		t.Errorf("broader than wished: %v", p.Broader)
	}
	wish.Remove = []ufw.Rule{any}
	p, st := s.apply(wish)
	order := []ufw.StepKind{ufw.StepAllow, ufw.StepAllow, ufw.StepAllow, ufw.StepAllow, ufw.StepRemove, ufw.StepDefaultDeny, ufw.StepEnable}
	if got := stepKinds(p); !slices.Equal(got, order) {
		t.Errorf("steps %v", p.Steps)
	}
	if !st.Enabled || st.Incoming != ufw.Deny || len(st.Problems()) > 0 {
		t.Errorf("%+v: %v", st, st.Problems())
	}
	for _, addr := range []netip.Addr{lab.HostAddr4, lab.HostAddr6} {
		for port, want := range map[uint16]bool{22: true, 443: true, 8080: true, 8081: false} {
			if got := s.reachable(addr, port); got != want {
				t.Errorf("%v port %d: reachable %v, want %v", addr, port, got, want)
			}
			if rules := st.Admits(tcp(port), "eth0", sender(addr)); (len(rules) > 0) != want {
				t.Errorf("%v port %d: Admits returns %v", addr, port, rules)
			}
		}
	}
	if p, err := st.Plan(wish); err != nil || len(p.Steps) > 0 {
		t.Errorf("the same again: %v, %v", p.Steps, err)
	}
	before := s.sh("iptables-save; ip6tables-save; cat /etc/ufw/*.rules | cksum")
	s.apply(wish)
	if after := s.sh("iptables-save; ip6tables-save; cat /etc/ufw/*.rules | cksum"); strip(after) != strip(before) {
		t.Error("applied again it changes something")
	}
	// The kernel lost rules: they come back.
	s.sh("iptables -F ufw-user-input")
	if p, st := s.apply(wish); !slices.Equal(stepKinds(p), []ufw.StepKind{ufw.StepReload}) || len(st.Problems()) > 0 {
		t.Errorf("steps %v, problems %v", p.Steps, st.Problems())
	}
}

func strip(save string) string {
	var b strings.Builder
	for line := range strings.Lines(save) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func sender(to netip.Addr) netip.Addr {
	if to.Is4() {
		return lab.InternetAddr4
	}
	return lab.InternetAddr6
}

func stepKinds(p *ufw.Plan) []ufw.StepKind {
	var all []ufw.StepKind
	for _, s := range p.Steps {
		all = append(all, s.Kind)
	}
	return all
}

// IPv6 that UFW does not manage is dropped; the plan makes UFW manage it, also
// where it runs already.
func TestIPv6NotManaged(t *testing.T) {
	t.Parallel()
	for _, enabled := range []bool{false, true} {
		s := newSite(t)
		s.sh("sed -i s/^IPV6=yes/IPV6=no/ /etc/default/ufw")
		if enabled {
			s.sh("ufw --force enable")
			st := s.read()
			if st.IPv6 || st.V6.Policy != "DROP" || len(st.Problems()) > 0 {
				t.Errorf("%+v: %v", st.V6, st.Problems())
			}
			if s.reachable(lab.HostAddr6, 22) {
				t.Error("IPv6 is open")
			}
		}
		p, st := s.apply(ufw.Wish{Allow: []firewall.Allow{{Port: tcp(22)}}})
		if !st.IPv6 || !st.V6.Active || len(st.Problems()) > 0 {
			t.Errorf("enabled %v: steps %v: %+v: %v", enabled, p.Steps, st.V6, st.Problems())
		}
		if !s.reachable(lab.HostAddr6, 22) || s.reachable(lab.HostAddr6, 23) {
			t.Errorf("enabled %v: not what was allowed", enabled)
		}
	}
}

// UFW's chains without its jumps: enabling or reloading drops everything, so
// that there is no plan, active or not.
func TestPlanRefusesWithoutJumps(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sh("ufw allow 22/tcp; ufw --force enable; iptables -F INPUT; iptables -P INPUT ACCEPT")
	for _, state := range []string{"active", "disabled"} {
		if state == "disabled" {
			s.sh("ufw disable")
		}
		_, err := s.read().Plan(ufw.Wish{Allow: []firewall.Allow{{Port: tcp(22)}}})
		e, ok := errors.AsType[*ufw.JumpsError](err)
		if !ok || e.V6 || len(e.Missing) < 6 || !strings.Contains(err.Error(), "iptables -A INPUT -j") {
			t.Errorf("%s: %v", state, err)
		}
	}
	// That it would lock out, and that the remedy helps.
	s.sh("ufw --force enable")
	if s.reachable(lab.HostAddr4, 22) {
		t.Error("UFW has learnt to add its jumps: the refusal is not needed any more")
	}
	s.sh("for c in before-logging-input before-input after-input after-logging-input reject-input track-input; do iptables -A INPUT -j ufw-$c; done")
	if p := s.read().Problems(); len(p) > 0 || !s.reachable(lab.HostAddr4, 22) {
		t.Errorf("after the remedy: %v", p)
	}
}

// A plan whose ground has gone is not applied: the jumps went missing after it was made.
func TestApplyLooksAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sh("ufw --force enable; ufw disable")
	p, err := s.read().Plan(ufw.Wish{Allow: []firewall.Allow{{Port: tcp(22)}}})
	if err != nil {
		t.Fatal(err)
	}
	s.sh("iptables -F INPUT")
	_, err = p.Apply(t.Context(), files{s.l}, machine{s.l.Host})
	if _, ok := errors.AsType[*ufw.JumpsError](err); !ok {
		t.Errorf("%v", err)
	}
	if step, ok := errors.AsType[*ufw.StepError](err); !ok || step.Step.Kind != ufw.StepEnable {
		t.Errorf("%v", err)
	}
	if s.read().Enabled {
		t.Error("it was enabled")
	}
}

// UFW ends with status 0 also when it has done nothing, as when a question of
// its is answered with no. That is no success.
func TestApplyVerifies(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, err := s.read().Plan(ufw.Wish{Allow: []firewall.Allow{{Port: tcp(22)}}})
	if err != nil {
		t.Fatal(err)
	}
	s.sh("mount -t tmpfs tmpfs /usr/local/sbin; cp /bin/true /usr/local/sbin/ufw")
	_, err = p.Apply(t.Context(), files{s.l}, machine{s.l.Host})
	if step, ok := errors.AsType[*ufw.StepError](err); !ok || step.Taken != 0 || !strings.Contains(err.Error(), "as if all were well") {
		t.Errorf("%v", err)
	}
	s.sh("umount /usr/local/sbin")
}

// Enabled in the file, as after a boot that failed: the rules are loaded.
func TestEnabledButNotLoaded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sh("sed -i s/^ENABLED=no/ENABLED=yes/ /etc/ufw/ufw.conf")
	if got := kinds(s.read().Problems()); !slices.Equal(got, []ufw.ProblemKind{ufw.NotLoaded}) {
		t.Errorf("problems %v", got)
	}
	p, st := s.apply(ufw.Wish{Allow: []firewall.Allow{{Port: tcp(22)}}})
	// Loading comes last: nobody is cut off meanwhile.
	if got := stepKinds(p); !slices.Equal(got, []ufw.StepKind{ufw.StepNotLoaded, ufw.StepAllow, ufw.StepEnable}) {
		t.Errorf("steps %v", p.Steps)
	}
	if len(st.Problems()) > 0 || !s.reachable(lab.HostAddr4, 22) || s.reachable(lab.HostAddr4, 23) {
		t.Errorf("problems %v", st.Problems())
	}
}

// legacy makes the legacy flavour of iptables the default, as
// update-alternatives does.
func (s *site) legacy() {
	s.Helper()
	s.sh(`for p in iptables ip6tables; do for e in "" -save -restore; do ln -sf /usr/sbin/$p-legacy$e /etc/alternatives/$p$e; done; done`)
	if version := s.sh("iptables -V"); !strings.Contains(version, "legacy") {
		s.Skipf("this machine's iptables is %s, not chosen by /etc/alternatives", version)
	}
}

// The legacy flavour is read as the other is.
func TestLegacy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.legacy()
	_, st := s.apply(ufw.Wish{Allow: []firewall.Allow{{Port: tcp(22)}, {Port: tcp(23), In: "eth0"}}})
	if st.V4.Flavour != "legacy" || st.V6.Flavour != "legacy" || !st.V4.InOrder() || len(st.Problems()) > 0 {
		t.Errorf("%+v: %v", st.V4, st.Problems())
	}
	if !s.reachable(lab.HostAddr6, 23) || s.reachable(lab.HostAddr4, 24) {
		t.Error("not what was allowed")
	}
	s.sh("iptables -F INPUT")
	if got := kinds(s.read().Problems()); !slices.Equal(got, []ufw.ProblemKind{ufw.JumpsMissing}) {
		t.Errorf("problems %v", got)
	}
}

// A lock that another holds ends in an error that names it and its holder,
// within the deadline; reading waits for no lock.
func TestHeldLock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, hold string
		legacy           bool
	}{
		{name: "of UFW", path: "/run/ufw.lock", hold: "fcntl.lockf(f, fcntl.LOCK_EX)"},
		{name: "of iptables", path: "/run/xtables.lock", hold: "fcntl.flock(f, fcntl.LOCK_EX)", legacy: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			if c.legacy {
				s.legacy()
			}
			holder := s.l.Host.Command(t.Context(), "python3", "-uc",
				fmt.Sprintf("import fcntl,time\nf=open(%q,'w')\n%s\nprint('held')\ntime.sleep(60)", c.path, c.hold))
			out, err := holder.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				holder.Process.Kill()
				holder.Wait()
			}()
			if _, err := out.Read(make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			p, err := s.read().Plan(ufw.Wish{Allow: []firewall.Allow{{Port: tcp(22)}}})
			if err != nil {
				t.Fatal(err)
			}
			// A shorter deadline than the package's own.
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			began := time.Now()
			_, err = p.Apply(ctx, files{s.l}, machine{s.l.Host})
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("took %v", took)
			}
			lock, ok := errors.AsType[*ufw.LockError](err)
			if !ok || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%v", err)
			}
			if len(lock.Held) != 1 || lock.Held[0].Path != c.path || lock.Held[0].PID != holder.Process.Pid || !strings.HasPrefix(lock.Held[0].Command, "python3") {
				t.Errorf("%+v; the holder is %d", lock.Held, holder.Process.Pid)
			}
			t.Log(err)
		})
	}
}

// Without root there is an error, not a firewall that is off.
func TestReadWithoutRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, err := ufw.Read(t.Context(), denied{files{s.l}}, machine{s.l.Host})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("rules that cannot be read: %v", err)
	}
	_, err = ufw.Read(t.Context(), files{s.l}, nobody{machine{s.l.Host}})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a kernel that does not say: %v", err)
	}
}

// denied is a file system seen by one who may not read UFW's rules (mode 0640).
type denied struct{ fs.FS }

func (d denied) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, ".rules") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
	}
	return d.FS.Open(name)
}

// nobody runs programs without privileges.
type nobody struct{ machine }

func (n nobody) Run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	return n.machine.Run(ctx, stdin, "setpriv", append([]string{"--reuid=65534", "--clear-groups", name}, args...)...)
}

// Other firewalls are recognized, and iptables, UFW and Docker are none of them.
func TestOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	others := func() []ufw.Other {
		t.Helper()
		all, err := ufw.Others(t.Context(), files{s.l}, machine{s.l.Host})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	s.sh("ufw --force enable; nft add table inet hardshell; nft add chain inet hardshell c '{ type filter hook input priority 0; policy accept; }'")
	if got := others(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	s.sh("nft add table inet filter; nft add chain inet filter input '{ type filter hook input priority 0; policy drop; }'")
	if got, want := others(), []ufw.Other{{ufw.NFTables, "inet filter", "input", "drop"}}; !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	s.sh("nft add table inet firewalld; nft add chain inet firewalld filter_INPUT '{ type filter hook input priority 10; policy accept; }'")
	if got := others(); !slices.Contains(got, ufw.Other{Kind: ufw.Firewalld}) {
		t.Errorf("%+v", got)
	}
}
