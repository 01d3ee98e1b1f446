package halt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

// An Engine is what a [Tracker] asks of a container engine. The Engine of
// package docker is one.
type Engine interface {
	container.Engine
	// Remote reports, without asking, whether it is on another machine.
	Remote() bool
	List(ctx context.Context) ([]container.Listed, error)
	Networks(ctx context.Context) ([]container.EngineNetwork, error)
	Changes(ctx context.Context) <-chan struct{}

	SetRestartPolicy(ctx context.Context, id, policy string) error
	Pause(ctx context.Context, id string) error
	Disconnect(ctx context.Context, id, network string) error
	Kill(ctx context.Context, id string) error
	StopNow(ctx context.Context, id string) error
}

// A Container is one of the agent's, with what it takes to stop it and to cut
// it off.
type Container struct {
	ID, Name, Image  string
	Project, Service string // of Docker Compose

	// Running says that it had a process when it was last looked at, and PID
	// which is its first.
	Running bool
	PID     int

	// Freezer is its cgroup in the version 1 freezer, and Unified that of
	// version 2, as in /proc/PID/cgroup: relative to the root of the
	// hierarchy. Empty if it has none.
	Freezer, Unified string

	// NetNS is a path to its network namespace. Sandbox is another, as the
	// engine sees it, which outlives its processes. Either may be empty.
	NetNS, Sandbox string

	HostNetwork bool
	NetworkMode string
	Networks    []string // names
	Bridges     []string // the machine's interfaces through which they go
	Parents     []string // interfaces of macvlan and ipvlan networks
	Addrs       []netip.Addr

	RestartPolicy string
	Privileged    bool
	NetAdmin      bool     // it may change its own network
	Sockets       []string // unix sockets of the machine that are mounted into it, and up to 64 in directories that are
}

// Object is what receipts call it.
func (c *Container) Object() string {
	return who{id: c.ID, name: c.Name}.object()
}

// A Tracker knows the agent's containers, and holds open what it takes to stop
// them. The actuators of this package share one; observers have none.
//
// It asks the engine, and reads beside it what the engine has written down
// (see DataRoot) and what the kernel shows; so it also knows a container that
// was made while the engine does not answer. Fields must not be changed once
// it is in use; its methods may then be called concurrently.
type Tracker struct {
	// Agent says which containers are meant. Required.
	Agent Agent

	// Engine is asked. Nil if there is none to ask: then only DataRoot tells.
	Engine Engine

	// DataRoot is where the engine keeps its containers, as a path here. Empty
	// means what the engine says, or DefaultDataRoot.
	DataRoot string

	noV1, noV2, noKill bool // for tests: what the machine's kernel has not

	roll roll

	mu         sync.Mutex
	tracked    map[string]*tracked
	remote     bool
	engineRoot string            // the data root that the engine says it has
	interfaces map[string]string // of bridge networks, by id and by name
	parents    map[string]string // of macvlan and ipvlan networks, by name
}

// tracked is a container with its handles.
type tracked struct {
	mu      sync.Mutex
	c       Container
	v1, v2  *cgroup
	pidns   *os.File // holds its number from being given to another
	killing int      // how many kill it now: it is not frozen from outside then
	onDisk  bool     // its record was seen

	policy policy
}

func (k *tracked) info() Container {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.c
}

// Arm looks for the agent's containers and opens what it takes to stop them.
// An error says what is missing; what there is serves.
func (t *Tracker) Arm(ctx context.Context) error {
	if err := errors.Join(t.Agent.none(), supported()); err != nil {
		return err
	}
	engineErr := t.askEngine(ctx)
	var localErr error
	if t.isRemote() {
		localErr = errRemote
	} else {
		if err := t.readDisk(); err != nil && (engineErr != nil || !errors.Is(err, fs.ErrNotExist)) {
			localErr = err
		}
		localErr = errors.Join(localErr, t.open(ctx))
	}
	return errors.Join(engineErr, localErr, t.roll.unmet(t.Agent))
}

var errRemote = fmt.Errorf("halt: %w: freezing and killing by the kernel, and what finds processes, are missing", container.ErrRemote)

func (t *Tracker) isRemote() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remote || t.Engine != nil && t.Engine.Remote()
}

// Watch keeps the Tracker current, until ctx ends: it arms it again whenever
// the engine reports a change.
func (t *Tracker) Watch(ctx context.Context) {
	if t.Engine == nil {
		<-ctx.Done()
		return
	}
	for range t.Engine.Changes(ctx) {
		arming, cancel := context.WithTimeout(ctx, 30*time.Second)
		_ = t.Arm(arming) // whoever arms it in earnest is told
		cancel()
	}
}

// Containers returns the agent's containers as they were last seen, in order
// of their names. It asks nobody.
func (t *Tracker) Containers() []Container {
	var all []Container
	for _, k := range t.list() {
		c := k.info()
		c.Networks, c.Bridges, c.Parents = slices.Clone(c.Networks), slices.Clone(c.Bridges), slices.Clone(c.Parents)
		c.Addrs, c.Sockets = slices.Clone(c.Addrs), slices.Clone(c.Sockets)
		all = append(all, c)
	}
	return all
}

// Close closes what is held open. A Tracker that was closed can be armed
// again.
func (t *Tracker) Close() error {
	for _, k := range t.list() {
		k.mu.Lock()
		for _, c := range []*cgroup{k.v1, k.v2} {
			if c != nil {
				c.close()
			}
		}
		if k.pidns != nil {
			k.pidns.Close()
		}
		k.v1, k.v2, k.pidns = nil, nil, nil
		k.mu.Unlock()
		k.policy.abandon()
	}
	return nil
}

// list returns the tracked containers in order of their names.
func (t *Tracker) list() []*tracked {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*tracked
	for _, w := range t.roll.all() {
		if k := t.tracked[w.id]; k != nil {
			all = append(all, k)
		}
	}
	return all
}

// get returns the tracked container of an id, which is made if there is none.
func (t *Tracker) get(w who) *tracked {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.tracked[w.id]
	if k == nil {
		if t.tracked == nil {
			t.tracked = make(map[string]*tracked)
		}
		k = &tracked{c: Container{ID: w.id}}
		t.tracked[w.id] = k
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.c.Name, k.c.Project, k.c.Service = w.name, w.project, w.service
	return k
}

// askEngine learns what the engine knows.
func (t *Tracker) askEngine(ctx context.Context) error {
	if t.Engine == nil {
		return nil
	}
	info, err := t.Engine.Info(ctx)
	if err != nil {
		return fmt.Errorf("halt: the engine does not say what it has: %w", err)
	}
	t.mu.Lock()
	t.remote, t.engineRoot = info.Remote, info.DataRoot
	t.mu.Unlock()
	listed, err := t.Engine.List(ctx)
	if err != nil {
		return fmt.Errorf("halt: the engine does not list its containers: %w", err)
	}
	all := make([]who, 0, len(listed))
	for _, l := range listed {
		all = append(all, who{id: l.ID, name: l.Name, project: l.Project, service: l.Service})
	}
	mine := t.roll.admit(t.Agent, all)
	networks, err := t.Engine.Networks(ctx)
	if err != nil {
		return fmt.Errorf("halt: the engine does not list its networks: %w", err)
	}
	t.learnNetworks(networks)
	var errs []error
	for _, w := range mine {
		settings, err := t.Engine.Containers(ctx, w.id)
		if errors.Is(err, container.ErrNoContainer) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("halt: the engine does not describe %s: %w", w.object(), err))
		}
		k := t.get(w)
		for i := range settings {
			k.describe(&settings[i], t)
		}
	}
	return errors.Join(errs...)
}

func (t *Tracker) learnNetworks(networks []container.EngineNetwork) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.interfaces, t.parents = make(map[string]string), make(map[string]string)
	for _, n := range networks {
		if n.Interface != "" {
			t.interfaces[n.ID], t.interfaces[n.Name] = n.Interface, n.Interface
		}
		if n.Parent != "" {
			t.parents[n.Name] = n.Parent
		}
	}
}

// describe takes over what the engine says.
func (k *tracked) describe(s *container.Settings, t *Tracker) {
	var sockets []string
	if !t.isRemote() {
		var first process
		_ = first.readStat(procDir(s.PID) + "/stat") // else it has ended, and so has its shim
		sockets = mountedSockets(s.Mounts, first.ppid)
	}
	networks := make(map[string]string)
	var addrs []netip.Addr
	for _, n := range s.Networks {
		networks[n.Name] = ""
		addrs = append(addrs, n.Addrs...)
	}
	bridges, parents := t.waysOf(networks)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.c.Image, k.c.NetworkMode = s.Image, s.NetworkMode
	k.setPolicy(s.RestartPolicy)
	k.c.HostNetwork = s.NetworkMode == "host"
	k.c.Privileged, k.c.NetAdmin = s.Privileged, s.Privileged || netAdmin(s.CapAdd)
	k.c.Networks, k.c.Bridges, k.c.Parents = slices.Sorted(maps.Keys(networks)), bridges, parents
	k.c.Addrs, k.c.Sockets = addrs, sockets
	k.c.Running, k.c.PID = s.Running(), s.PID
}

func netAdmin(caps []string) bool {
	return slices.ContainsFunc(caps, func(c string) bool {
		c = strings.TrimPrefix(strings.ToUpper(c), "CAP_")
		return c == "ALL" || c == "NET_ADMIN" || c == "SYS_ADMIN"
	})
}

// waysOf returns the bridges and the parent interfaces of networks, by name
// and, where it is known, id.
func (t *Tracker) waysOf(networks map[string]string) (bridges, parents []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, id := range networks {
		if b := t.interfaces[name]; b != "" {
			bridges = append(bridges, b)
		} else if b := t.interfaces[id]; b != "" {
			bridges = append(bridges, b)
		} else if name == "bridge" {
			bridges = append(bridges, "docker0")
		} else if id != "" && t.parents[name] == "" && name != "host" && name != "none" {
			bridges = append(bridges, "br-"+short(id)) // what the driver calls it
		}
		if p := t.parents[name]; p != "" {
			parents = append(parents, p)
		}
	}
	slices.Sort(bridges)
	slices.Sort(parents)
	return slices.Compact(bridges), slices.Compact(parents)
}

func (t *Tracker) dataRoot() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, root := range []string{t.DataRoot, t.engineRoot} {
		if root != "" {
			return root
		}
	}
	return DefaultDataRoot
}

// readDisk learns what the engine has written down. It takes a millisecond or
// so, and nothing that hangs with the engine.
func (t *Tracker) readDisk() error {
	records, err := readRecords(t.dataRoot())
	all := make([]who, 0, len(records))
	byID := make(map[string]record, len(records))
	for _, r := range records {
		all, byID[r.id] = append(all, r.who), r
	}
	for _, w := range t.roll.admit(t.Agent, all) {
		r := byID[w.id]
		bridges, parents := t.waysOf(r.networks)
		k := t.get(w)
		k.mu.Lock()
		k.c.Sandbox, k.onDisk = r.sandbox, true
		k.setPolicy(r.policy)
		k.c.NetworkMode, k.c.HostNetwork = r.networkMode, r.networkMode == "host"
		k.c.Privileged, k.c.NetAdmin = r.privileged, r.privileged || netAdmin(r.capAdd)
		if k.c.Image == "" { // the engine has not described it
			k.c.Image, k.c.Networks, k.c.Bridges, k.c.Parents = r.image, slices.Sorted(maps.Keys(r.networks)), bridges, parents
		}
		if r.pid > 0 && !alive(k.c.PID, w.id) {
			k.c.PID = r.pid
		}
		k.mu.Unlock()
	}
	return err
}

// alive reports whether a process is in the cgroup of a container.
func alive(pid int, id string) bool {
	data, err := os.ReadFile(procDir(pid) + "/cgroup")
	return pid > 0 && err == nil && strings.Contains(string(data), id)
}

func procDir(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// open opens the handles of all containers, those that it has not got.
func (t *Tracker) open(ctx context.Context) error {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("halt: %w", err)
	}
	hs, err := hierarchies(mountinfo)
	if err != nil {
		return err
	}
	hs = slices.DeleteFunc(hs, func(h hierarchy) bool { return h.v2 && t.noV2 || !h.v2 && t.noV1 })
	var errs []error
	for _, k := range t.list() {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, fmt.Errorf("halt: %w", err))...)
		}
		err := k.open(hs)
		if t.noKill {
			k.mu.Lock()
			if k.v2 != nil && k.v2.kill != nil {
				k.v2.kill.Close()
				k.v2.kill = nil
			}
			k.mu.Unlock()
		}
		if err != nil {
			c := k.info()
			errs = append(errs, fmt.Errorf("halt: %s: %w", c.Object(), err))
		}
	}
	return errors.Join(errs...)
}

// open finds the container's cgroups and namespaces. The files of a cgroup that
// is still the one at its path are kept open.
func (k *tracked) open(hs []hierarchy) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var entries []procfs.CgroupEntry
	if alive(k.c.PID, k.c.ID) {
		data, err := os.ReadFile(procDir(k.c.PID) + "/cgroup")
		if err == nil {
			entries, _ = procfs.ParseCgroup(data) // else it is looked for
		}
	} else {
		k.c.PID = 0
	}
	var errs []error
	k.c.Freezer, k.c.Unified = "", ""
	for _, h := range hs {
		at, say := &k.v1, &k.c.Freezer
		if h.v2 {
			at, say = &k.v2, &k.c.Unified
		}
		group := h.groupOf(k.c.ID, entries)
		if group == "" && (*at).current() {
			group = (*at).path
		}
		if group == "" && (k.c.PID != 0 || k.c.Running || *at != nil || k.v1 == nil && k.v2 == nil) {
			group = h.find(k.c.ID)
		}
		*say = group
		if group == "" || (*at).current() && (*at).path == group {
			continue
		}
		fresh, err := openCgroup(h, group)
		switch {
		case err == nil:
			if *at != nil {
				(*at).close()
			}
			*at = fresh
		case !errors.Is(err, fs.ErrNotExist): // it has just ended
			errs = append(errs, err)
		}
	}
	live := k.v1.pidsNow()
	if len(live) == 0 {
		live = k.v2.pidsNow()
	}
	if k.c.PID == 0 && len(live) > 0 {
		k.c.PID = live[0]
	}
	k.c.Running = k.c.PID != 0
	k.c.NetNS = ""
	if k.c.PID != 0 {
		k.c.NetNS = procDir(k.c.PID) + "/ns/net"
		if !k.v1.current() && !k.v2.current() {
			errs = append(errs, errors.New("it runs in no cgroup of its own: the kernel cannot freeze it alone"))
		}
		if err := k.pin(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// pin holds the process namespace of the container's first process, if it is
// the container's own.
func (k *tracked) pin() error {
	if !firstOfNamespace(k.c.PID) {
		return nil
	}
	f, err := os.Open(procDir(k.c.PID) + "/ns/pid")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if k.pidns != nil {
		k.pidns.Close()
	}
	k.pidns = f
	return nil
}

// current reports whether a cgroup is still there, and the one that was
// opened.
func (c *cgroup) current() bool {
	if c == nil || c.freeze == nil {
		return false
	}
	open, err := c.freeze.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(c.freeze.Name())
	return err == nil && os.SameFile(open, there)
}

func (c *cgroup) pidsNow() []int {
	if !c.current() {
		return nil
	}
	return c.pids()
}
