package halt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// Defaults of a [Kill].
const (
	DefaultEngineTimeout = 120 * time.Millisecond
	DefaultKillTimeout   = 400 * time.Millisecond
)

// slowEngine is how much longer an engine is waited for, once the processes have
// ended, that answers other questions meanwhile: one that hangs does not.
const slowEngine = 2 * time.Second

// Kill is an actuator that ends every process of the agent's containers,
// without the engine. It freezes first, so that nothing forks away or sees its
// end coming; has the engine switch off restarts, if it answers soon; and sends
// SIGKILL to all in the cgroup and below, again until it is empty. In version 1
// they are thawed only once the signal is pending, so that none runs another
// instruction of its own. Then it ends what had left the cgroup and is still in
// a namespace of the container.
//
// A process is killed through its cgroup, or through a handle whose process
// was seen to be the container's after the handle was opened, so that a number
// that has been given to another process hits nobody.
type Kill struct {
	Tracker *Tracker // Required.

	// EngineTimeout is how long the engine is waited for before the processes
	// are killed, and again once they have ended if it refused while they did. One
	// that is slow, and does not hang, is then given 2 s besides. Zero means
	// DefaultEngineTimeout, negative that it is not asked.
	EngineTimeout time.Duration

	// Timeout is how long processes are killed until what is left is an error.
	// Zero means DefaultKillTimeout.
	Timeout time.Duration
}

// Name returns "container.kill".
func (a *Kill) Name() string { return "container.kill" }

// Arm opens the cgroups of the containers; see [Tracker.Arm].
func (a *Kill) Arm(ctx context.Context) error { return a.Tracker.Arm(ctx) }

// Do kills all of the agent's containers. Its error names the processes that
// have not ended, such as one that waits in the kernel for what never comes,
// and the containers that the engine may start again.
func (a *Kill) Do(ctx context.Context) error {
	if err := errors.Join(a.Tracker.Agent.none(), supported()); err != nil {
		return err
	}
	ours := a.Tracker.list()
	for _, k := range ours {
		k.beginKill()
	}
	_, err := within(ctx, func() (none, error) {
		lookErr := a.Tracker.relook(ctx)
		all := a.Tracker.list()
		for _, k := range all {
			if !slices.Contains(ours, k) {
				k.beginKill()
				ours = append(ours, k)
			} else {
				k.refreeze()
			}
		}
		defer func() {
			for _, k := range ours {
				k.endKill()
			}
		}()
		var l ledger
		timeout := cmp.Or(a.EngineTimeout, DefaultEngineTimeout)
		beats, stop := a.feel(ctx, timeout)
		defer stop()
		on := a.policies(ctx, ours, timeout)
		ending, cancel := context.WithTimeout(ctx, cmp.Or(a.Timeout, DefaultKillTimeout))
		defer cancel()
		each(ours, func(k *tracked) { k.end(ending, &l) })
		slow := len(on) > 0 && beats()
		if slow {
			timeout += slowEngine
		}
		var again []*tracked
		for k, err := range on {
			// It answers, and could not, or not yet, while the container ended.
			if !errors.Is(err, container.ErrEngine) && (slow || !k.policy.pending()) {
				again = append(again, k)
				delete(on, k)
			}
		}
		if len(again) > 0 {
			stop := a.keepEnding(ctx, ours)
			maps.Copy(on, a.policies(ctx, again, timeout))
			stop()
		}
		for k, err := range on {
			c := k.info()
			l.add(c.Object(), fmt.Sprintf("the engine may start it again, its restart policy is %q: %v", k.policy.last(), err))
		}
		return none{}, errors.Join(l.err("kill"), lookErr)
	})
	return err
}

// policies switches restarts off, for all containers at once. It returns those
// whose policy is still on, and why.
func (a *Kill) policies(ctx context.Context, all []*tracked, timeout time.Duration) map[*tracked]error {
	if a.Tracker.Engine == nil || timeout < 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var mu sync.Mutex
	on := make(map[*tracked]error)
	each(all, func(k *tracked) {
		if !k.mayRevive() {
			return
		}
		if err := a.Tracker.policyOff(ctx, k); err != nil {
			mu.Lock()
			defer mu.Unlock()
			on[k] = err
		}
	})
	return on
}

// keepEnding ends what an engine starts again while it is waited for, until stop
// is called.
func (a *Kill) keepEnding(ctx context.Context, ours []*tracked) (stop func()) {
	const every = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for sleep(ctx, every) == nil {
			_ = a.Tracker.relook(ctx) // the engine gives it a control group of its own anew
			var l ledger              // what does not end now was said before, or is for an observer to see
			each(ours, func(k *tracked) {
				k.refreeze()
				k.end(ctx, &l)
			})
		}
	}()
	return func() { cancel(); <-ended }
}

// feel tells an engine that is slow from one that hangs: it asks for what costs
// nothing, when half of the time is over that the engine has for something else,
// and waits for that as long. beats reports whether there was an answer.
func (a *Kill) feel(ctx context.Context, timeout time.Duration) (beats func() bool, stop func()) {
	if a.Tracker.Engine == nil || timeout < 0 {
		return func() bool { return false }, func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+timeout/2)
	felt := make(chan struct{})
	timer := time.AfterFunc(timeout/2, func() {
		defer cancel()
		if _, err := a.Tracker.Engine.List(ctx); err == nil {
			close(felt)
		}
	})
	return func() bool {
			<-ctx.Done()
			select {
			case <-felt:
				return true
			default:
				return false
			}
		}, func() {
			timer.Stop()
			cancel()
		}
}

func (k *tracked) beginKill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.killing++
	_ = k.freezeLocked() // what cannot be frozen is killed all the same
}

func (k *tracked) refreeze() {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.freezeLocked()
}

func (k *tracked) endKill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.killing--
}

// end kills until nothing is left or ctx is done.
func (k *tracked) end(ctx context.Context, l *ledger) {
	c := k.info()
	ns := k.namespaces()
	defer ns.close()
	pause := 100 * time.Microsecond
	for first := true; ; first = false {
		var left []int
		held := false // in version 2, from where there is no fork away
		for _, g := range k.groups() {
			if !g.current() {
				continue
			}
			ns.learn(g.pids())
			k.killGroup(ctx, g, !held || !first)
			held = held || g.v2
		}
		for _, g := range k.groups() {
			left = append(left, g.pidsNow()...)
		}
		if first || len(left) == 0 {
			left = append(left, ns.sweep(c.ID)...)
		}
		if len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			slices.Sort(left)
			left = slices.DeleteFunc(slices.Compact(left), func(pid int) bool { return ended(pid) })
			if len(left) > 0 {
				l.add(c.Object(), "killed, and not ended yet: "+describe(left))
			}
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Millisecond)
	}
}

// killGroup kills all in a cgroup once. In version 1 they are frozen for it,
// if they are to be, and thawed when all have the signal.
func (k *tracked) killGroup(ctx context.Context, g *cgroup, freeze bool) {
	if g.kill != nil && write(g.kill, "1") == nil {
		return // all at once, those that are just forking too; frozen ones die of it
	}
	if !g.v2 && freeze {
		// What is not frozen forks faster than it is killed.
		_ = g.setFrozen(true)
		for deadline := time.Now().Add(20 * time.Millisecond); !g.frozen() && time.Now().Before(deadline) && ctx.Err() == nil; {
			time.Sleep(50 * time.Microsecond)
		}
	}
	killed := make(map[int]bool)
	for again := true; again; {
		again = false
		for _, pid := range g.pids() {
			if !killed[pid] {
				killed[pid], again = true, true
				killIf(pid, func() bool { return alive(pid, k.c.ID) })
			}
		}
	}
	if !g.v2 {
		g.thawAll()
	}
}

// killIf kills a process if it is one to kill. The question is asked when the
// process is held, so that the answer is about the one that is killed.
func killIf(pid int, is func() bool) {
	p, err := os.FindProcess(pid) // a pidfd, from Linux 5.4 on
	if err != nil {
		return
	}
	defer func() { _ = p.Release() }()
	if is() {
		_ = p.Kill() // it has ended, or will be seen not to have
	}
}

// ended reports whether a process has no thread that is not a zombie.
func ended(pid int) bool {
	tasks, err := os.ReadDir(procDir(pid) + "/task")
	if err != nil {
		return gone(err)
	}
	for _, t := range tasks {
		_, state, err := nameAndState(procDir(pid) + "/task/" + t.Name() + "/stat")
		if err == nil && state != "Z" && state != "X" {
			return false
		}
	}
	return true
}

func nameAndState(file string) (name, state string, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	s := string(data)
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open || len(s) < end+3 {
		return "", "", fmt.Errorf("%s: malformed: %q", file, s)
	}
	return s[open+1 : end], s[end+2 : end+3], nil
}

// describe names processes, as many as a person reads.
func describe(pids []int) string {
	const most = 5
	var parts []string
	for _, pid := range pids[:min(most, len(pids))] {
		name, state, err := nameAndState(procDir(pid) + "/stat")
		if err != nil {
			name, state = "?", "?"
		}
		parts = append(parts, fmt.Sprintf("process %d (%s) in state %s", pid, strconv.QuoteToASCII(name), state))
	}
	if more := len(pids) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}

// namespaceSet is the process and mount namespaces that are a container's own.
// They are held while it is used, so that no other gets the number of one that
// has gone.
type namespaceSet struct {
	own    map[string]bool // this process's
	looked map[string]bool
	held   map[string]*os.File
}

var ownNamespaces = sync.OnceValue(func() map[string]bool {
	own := make(map[string]bool)
	for _, kind := range []string{"pid", "mnt"} {
		for _, who := range []string{"self", "1"} {
			if link, err := os.Readlink("/proc/" + who + "/ns/" + kind); err == nil {
				own[link] = true
			}
		}
	}
	return own
})

func (k *tracked) namespaces() *namespaceSet {
	ns := &namespaceSet{own: ownNamespaces(), looked: make(map[string]bool), held: make(map[string]*os.File)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pidns != nil {
		// Opened again, since Arm may close the other at any time.
		if f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", k.pidns.Fd())); err == nil {
			ns.hold(f)
		}
	}
	return ns
}

// hold keeps an open namespace, unless it is the machine's.
func (ns *namespaceSet) hold(f *os.File) {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil || ns.own[link] || ns.held[link] != nil {
		f.Close()
		return
	}
	ns.held[link] = f
}

// learn holds the namespaces of processes, where they are the container's own:
// a process that is on its way in is still in those of the engine. A crowd has
// few, so that those of its first and last are enough.
func (ns *namespaceSet) learn(pids []int) {
	const most = 64
	if len(pids) > most {
		pids = slices.Concat(pids[:most/2], pids[len(pids)-most/2:])
	}
	for _, pid := range pids {
		ns.learnOne(filepath.Join(procDir(pid), "ns/pid"), func() bool { return firstOfNamespace(pid) })
		ns.learnOne(filepath.Join(procDir(pid), "ns/mnt"), func() bool { return mountsOf(procDir(pid)+"/mountinfo", engineFiles) })
	}
}

func (ns *namespaceSet) learnOne(name string, its func() bool) {
	link, err := os.Readlink(name)
	if err != nil || ns.own[link] || ns.held[link] != nil || ns.looked[name] {
		return
	}
	ns.looked[name] = true
	f, err := os.Open(name)
	if err != nil {
		return
	}
	if !its() {
		f.Close()
		return
	}
	ns.hold(f)
}

// firstOfNamespace reports whether a process is the first of a process
// namespace other than the machine's.
func firstOfNamespace(pid int) bool {
	data, err := os.ReadFile(procDir(pid) + "/status")
	if err != nil {
		return false
	}
	st, err := procfs.ParseStatus(data)
	return err == nil && len(st.NSpid) > 1 && st.NSpid[len(st.NSpid)-1] == 1
}

func (ns *namespaceSet) close() {
	for _, f := range ns.held {
		f.Close()
	}
}

var anyID = regexp.MustCompile(`[0-9a-f]{64}`)

// sweep kills the processes that are in one of the namespaces, or in a mount
// tree with the container's own files in it, and not in the cgroup of another
// container. It returns those that it found.
func (ns *namespaceSet) sweep(id string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	trees := make(map[string]bool)
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid <= 1 || pid == os.Getpid() {
			continue
		}
		if ns.has(pid, id, trees) {
			killIf(pid, func() bool { return ns.has(pid, id, make(map[string]bool)) })
			if !ended(pid) {
				found = append(found, pid)
			}
		}
	}
	return found
}

func (ns *namespaceSet) has(pid int, id string, trees map[string]bool) bool {
	dir := procDir(pid)
	mnt, err := os.Readlink(dir + "/ns/mnt")
	if err != nil { // it has ended
		return false
	}
	pidns, err := os.Readlink(dir + "/ns/pid")
	if err != nil {
		return false
	}
	if ns.held[mnt] != nil {
		return true
	}
	// A process namespace, and those files, may be shared with others.
	in := ns.held[pidns] != nil
	if !in && !ns.own[mnt] {
		is, seen := trees[mnt]
		if !seen {
			is = mountsOf(dir+"/mountinfo", regexp.MustCompile("/containers/"+id+"/"))
			trees[mnt] = is
		}
		in = is
	}
	if !in {
		return false
	}
	group, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(anyID.FindAllString(string(group), -1), func(other string) bool { return other != id })
}

var engineFiles = regexp.MustCompile("/containers/[0-9a-f]{64}/")

// mountsOf reports whether a mount tree has in it the files that an engine
// mounts into each container from the container's own directory, such as its
// hostname.
func mountsOf(mountinfo string, files *regexp.Regexp) bool {
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		// ID, parent, device, and what of the file system is mounted.
		if f := strings.Fields(line); len(f) > 4 && files.MatchString(f[3]) {
			return true
		}
	}
	return false
}
