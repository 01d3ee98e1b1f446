package guard_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/guard"
)

const applierEnv = "HARDSHELL_TEST_GUARD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(applierEnv); dir != "" {
		if err := applier(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// applierChange touches something of every kind, new and old.
var applierChange = guard.Change{
	What:   "a bit of everything",
	Files:  []string{"/etc/own.conf", "/etc/new.conf"},
	Tables: []guard.Table{{Name: "filter", Flavour: guard.NFT}, {Name: "filter", Flavour: guard.Legacy}, {Name: "mangle", Flavour: guard.NFT}},
	Chains: []guard.Chain{
		{Table: guard.Table{Name: "filter", Flavour: guard.NFT, IPv6: true}, Chain: "OWN"},
		{Table: guard.Table{Name: "filter", Flavour: guard.NFT, IPv6: true}, Chain: "FRESH"},
	},
	NFTables: []guard.NFTable{{Family: "inet", Name: "own"}, {Family: "inet", Name: "fresh"}},
	Sysctls:  []string{"net/ipv4/conf/all/log_martians"},
}

// What must be there before.
const applierBefore = `
	printf 'before\n' >/etc/own.conf; chmod 640 /etc/own.conf; chown 1:2 /etc/own.conf
	ip6tables-nft -N OWN
	ip6tables-nft -A OWN -p tcp --dport 1 -j DROP
	ip6tables-nft -A INPUT -p tcp --dport 2 -j DROP
	ip6tables-nft -I INPUT 2 -j OWN
	ip6tables-nft -A FORWARD -p udp -g OWN`

// The change, command by command. It leaves the operator's port open.
var applierSteps = []string{
	"iptables-nft -I INPUT -p tcp --dport 7777 -j DROP",
	"iptables-nft -F ts-input",
	"iptables-nft -P FORWARD DROP",
	"iptables-nft -N NEW",
	"iptables-nft -A OUTPUT -j NEW",
	"iptables-nft -X DOCKER-USER || iptables-nft -F DOCKER-USER",
	"iptables-nft -t mangle -A PREROUTING -p tcp --dport 7777 -j DROP",
	"iptables-legacy -F INPUT",
	"iptables-legacy -N NEW",
	"ip6tables-nft -F OWN",
	"ip6tables-nft -D INPUT -j OWN",
	"ip6tables-nft -N FRESH",
	"ip6tables-nft -I INPUT -j FRESH",
	"ip6tables-nft -A FRESH -p tcp --dport 3 -j DROP",
	"nft delete table inet own",
	"nft add table inet fresh",
	"nft add chain inet fresh c '{ type filter hook input priority 0; policy accept; }'",
	"rm /etc/own.conf",
	"echo after >/etc/own.conf",
	"echo new >/etc/new.conf",
	"sysctl -q -w net.ipv4.conf.all.log_martians=1",
}

// applier arms, changes and confirms, and asks before each command that it
// runs whether it may.
func applier(dir string) error {
	in := bufio.NewReader(os.Stdin)
	run := asking{in}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g := &guard.Guard{Dir: dir, Run: run, Window: applierWindow}
	armed, err := g.Arm(ctx, applierChange)
	if err != nil {
		return err
	}
	fmt.Println("armed", armed.ID)
	for _, step := range applierSteps {
		if _, err := run.Run(ctx, nil, "sh", "-c", step); err != nil {
			return err
		}
	}
	if err := g.Applied(ctx, armed.ID); err != nil {
		return err
	}
	fmt.Println("applied")
	line, err := in.ReadString('\n') // SSH_CONNECTION
	if err != nil {
		return err
	}
	c, err := guard.ParseSSHConnection(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	if err := g.Confirm(ctx, armed.ID, c); err != nil {
		return err
	}
	fmt.Println("confirmed")
	return nil
}

const applierWindow = 2500 * time.Millisecond

// asking asks before it runs anything. Programs it polls with in loops it
// runs unasked.
type asking struct{ in *bufio.Reader }

func (a asking) Run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	fmt.Println("point", name, strings.ReplaceAll(strings.Join(args, " "), "\n", " "))
	if _, err := a.in.ReadString('\n'); err != nil {
		return nil, err
	}
	return firewall.Programs{}.Run(ctx, stdin, name, args...)
}

// applying starts the applier on the host.
type applying struct {
	*site
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner

	armed     string    // the id
	began     time.Time // the watchdog was started after this
	applied   bool
	confirmed bool
	failed    string
	points    []string
}

func (s *site) apply() *applying {
	s.Helper()
	self, err := os.Executable()
	s.must(err)
	a := &applying{site: s, cmd: s.l.Host.Command(s.Context(), self)}
	a.cmd.Env = append(os.Environ(), applierEnv+"="+s.dir)
	// With a process group of its own, to kill with all that is in it.
	a.cmd.SysProcAttr.Setpgid = true
	a.in, err = a.cmd.StdinPipe()
	s.must(err)
	out, err := a.cmd.StdoutPipe()
	s.must(err)
	a.out = bufio.NewScanner(out)
	s.must(a.cmd.Start())
	return a
}

// next lets the applier go on to its next point; false means that it has ended.
func (a *applying) next() bool {
	a.Helper()
	if len(a.points) > 0 {
		if _, err := io.WriteString(a.in, "go\n"); err != nil {
			return false
		}
	}
	for a.out.Scan() {
		kind, text, _ := strings.Cut(a.out.Text(), " ")
		switch kind {
		case "point":
			if strings.Contains(text, "setsid") {
				a.began = time.Now()
			}
			a.points = append(a.points, text)
			return true
		case "armed":
			a.armed = text
		case "applied":
			a.applied = true
			c, err := a.connect()
			a.must(err)
			v := seen(c)
			fmt.Fprintln(a.in, v.Client.Addr(), v.Client.Port(), v.Server.Addr(), v.Server.Port())
		case "confirmed":
			a.confirmed = true
		case "error":
			a.failed = text
		}
	}
	a.cmd.Wait()
	return false
}

// kill ends the applier and its process group at once.
func (a *applying) kill() {
	a.Helper()
	a.must(syscall.Kill(-a.cmd.Process.Pid, syscall.SIGKILL))
	a.cmd.Wait()
}

// However far the program that changes the firewall has come when it is killed,
// with all of its process group: what is not confirmed is undone within the
// window, to the byte; what is, stays. Exactly one of the two.
func TestKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	// Once through, to count the points and to see what the change makes.
	s := newSite(t)
	s.sh(applierBefore)
	before := s.world()
	whole := s.apply()
	for whole.next() {
	}
	if !whole.confirmed {
		t.Fatalf("the change was not confirmed: %s", whole.failed)
	}
	after := s.world()
	if after == before {
		t.Fatal("the change changes nothing")
	}
	points := len(whole.points)
	t.Logf("%d points", points)
	if points < 60 {
		t.Errorf("only %d points: %q", points, whole.points)
	}
	time.Sleep(applierWindow)
	if now := s.world(); now != after {
		t.Errorf("confirmed, and undone all the same:\n%s", difference(after, now))
	}
	var at []int
	for i := range points {
		// Between two commands there is one point; some are alike.
		if !testing.Short() || i%5 == 0 || i > points-8 {
			at = append(at, i)
		}
	}
	// They wait most of the time, so there are more of them than processors.
	const workers = 12
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			t.Run(fmt.Sprintf("worker %d", w), func(t *testing.T) {
				s := newSite(t)
				s.sh(applierBefore)
				before := s.world()
				for i := w; i < len(at); i += workers {
					s.killAt(at[i], before, after)
				}
			})
		})
	}
	wg.Wait()
}

func (s *site) killAt(point int, before, after string) {
	s.Helper()
	a := s.apply()
	name := "not killed"
	for range point + 1 {
		if !a.next() {
			break // how often it looks for the watchdog's end varies
		}
	}
	switch {
	case len(a.points) == point+1 && !a.confirmed:
		name = fmt.Sprintf("killed at point %d, before %s", point, a.points[point])
		a.kill()
	case !a.confirmed:
		s.Errorf("ended at point %d: %s", len(a.points), a.failed)
		return
	}
	g := s.guard(applierWindow)
	if a.began.IsZero() {
		s.sameAs(before) // nothing was to be changed yet
	} else {
		// Window, the script's own work, and a busy machine.
		patience := applierWindow + 2500*time.Millisecond
		all, err := g.List(s.Context())
		s.must(err)
		kept := slices.ContainsFunc(all, func(st guard.Status) bool { return st.State == guard.StateConfirmed }) || len(all) == 0 && a.applied
		want := before
		if kept {
			want = after
		}
		time.Sleep(time.Until(a.began.Add(applierWindow)))
		for time.Since(a.began) < patience && s.world() != want {
			time.Sleep(200 * time.Millisecond)
		}
		if now := s.world(); now != want {
			s.Errorf("%s: %v after it was armed (confirmed: %v):\n%s", name, time.Since(a.began), kept, difference(want, now))
		}
		if kept {
			// It stays; by hand it is undone for the next.
			time.Sleep(max(0, time.Until(a.began.Add(patience))))
			if now := s.world(); now != after {
				s.Errorf("%s: confirmed and undone:\n%s", name, difference(after, now))
			}
			s.Logf("%s: confirmed, stays", name)
			s.back(before)
		}
	}
	// Nothing stands in the way of the next.
	all, err := g.List(s.Context())
	s.must(err)
	for _, st := range all {
		if st.State == guard.StateRollingBack || st.State == guard.StateArmed {
			st = s.await(g, st.ID, 15*time.Second)
		}
		if st.State != guard.StateRolledBack && st.State != guard.StateStale && st.State != guard.StateConfirmed {
			s.Errorf("%s: left as %v", name, st)
		}
		s.must(g.Remove(s.Context(), st.ID))
	}
}

// back undoes the applier's change by hand.
func (s *site) back(before string) {
	s.Helper()
	s.sh(`nft flush ruleset; iptables-legacy -F; iptables-legacy -X; nft add table inet other; rm -f /etc/new.conf; sysctl -q -w net.ipv4.conf.all.log_martians=0; nft delete table inet other`)
	s.fill()
	s.sh(applierBefore)
	s.sameAs(before)
}
