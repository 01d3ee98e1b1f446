package container

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// Defaults of a [Recreator].
const (
	DefaultSettle        = 10 * time.Second
	DefaultHealthTimeout = 15 * time.Minute
	DefaultUndoTimeout   = 2 * time.Minute
)

var errLocked = errors.New("another run is recreating it")

// A Recreator recreates containers hardened, each as one transaction: after
// it, the container of that name is either the new one, which [Checks] have
// verified, or the old one, as it was. That holds also if the process is
// killed: every step is written down in StateDir before it is taken, and the
// next run undoes or finishes what it finds there. The old and the new
// container never run at once.
//
// Fields must not be changed once it is in use; its methods may then be called
// concurrently.
type Recreator struct {
	// Control is the engine. Required.
	Control Control

	// Profile says what the containers may have and need.
	Profile Profile

	// Source lists the containers. Use the one that the checks are bound to.
	// Nil means all that run.
	Source *harden.Source[Container]

	// StateDir is a directory of this program's own, in which transactions
	// are written down. Required. It is made if it does not exist.
	StateDir string

	// MayStart, if set, is asked before a container is started. An error, as
	// from an engaged kill switch, keeps it from being started: a transaction
	// that has not begun does not begin, and one that is being undone leaves
	// the container stopped, without a restart policy, and says so.
	MayStart func(ctx context.Context, name string) error

	// Grace is how long a container gets to stop. Zero means its own time.
	Grace time.Duration

	// Settle is how long a new container without a health check must go on
	// running to be taken for well. Zero means DefaultSettle.
	Settle time.Duration

	// HealthTimeout bounds the wait for a health check, whose own times decide
	// otherwise. Zero means DefaultHealthTimeout.
	HealthTimeout time.Duration

	// CheckTimeout bounds each check that verifies. Zero means
	// [harden.DefaultTimeout].
	CheckTimeout time.Duration

	// UndoTimeout bounds the undoing of a transaction, which goes on when the
	// caller's context has ended. Zero means DefaultUndoTimeout.
	UndoTimeout time.Duration

	// For tests.
	list      func(...string) *harden.Source[Container]
	ownership func(EngineInfo) ownership
	poll      time.Duration // between looks at a container
	patience  time.Duration // for an engine that is restarting, while undoing

	mu   sync.Mutex
	held map[string]heldLock // of applied transactions, by the container's name
}

// Remedy returns a check that is c with a remedy: its plan recreates each
// container that c fails for. Wrap all checks of one source: the plans for one
// container are equal, so that [harden.Propose] and [harden.Fixer] recreate it
// once.
//
// While a transaction that was cut off has not been undone or finished, the
// check fails, and its plan does that first.
func (r *Recreator) Remedy(c harden.Check) harden.Remediator { return &remedy{r: r, Check: c} }

type remedy struct {
	harden.Check

	r *Recreator
}

// Unwrap returns the check without the remedy.
func (m *remedy) Unwrap() harden.Check { return m.Check }

func (m *remedy) Run(ctx context.Context, v *host.View) (harden.Verdict, error) {
	cut, err := m.r.cutOff(ctx)
	if err != nil {
		return harden.Verdict{}, err
	}
	var findings []harden.Finding
	for _, j := range cut {
		findings = append(findings, harden.Finding{
			ID: m.Info().ID + ".interrupted", Subject: "container/" + j.Name,
			Message: "a run that was to harden it was cut off, and left it between two states",
			Remedy:  "run the remedy again: it first undoes or finishes what was begun",
		})
	}
	if len(findings) > 0 {
		return harden.Fail(findings[0], findings[1:]...), nil
	}
	return m.Check.Run(ctx, v)
}

func (m *remedy) Plan(ctx context.Context, v *host.View) (harden.Plan, error) {
	var plan harden.Plan
	if err := m.r.valid(); err != nil {
		return plan, err
	}
	cut, err := m.r.cutOff(ctx)
	if err != nil {
		return plan, err
	}
	if len(cut) > 0 {
		for _, j := range cut {
			plan.Actions = append(plan.Actions, m.r.resume(j))
		}
		return plan, nil
	}
	res := harden.Evaluate(ctx, v, m.Check, m.r.CheckTimeout)
	if res.Status != harden.StatusFail {
		return plan, nil
	}
	containers, err := m.r.source().All(ctx, v)
	if err != nil {
		return plan, err
	}
	others, err := m.r.Control.Containers(ctx)
	if err != nil {
		return plan, err
	}
	named := false
	for _, c := range containers {
		if slices.ContainsFunc(res.Findings, func(f harden.Finding) bool { return f.Subject == c.Subject() }) {
			named = true
			if err := m.r.planFor(ctx, &plan, m.Check, c, others); err != nil {
				return harden.Plan{}, err
			}
		}
	}
	if !named {
		plan.Manual = append(plan.Manual, "what fails is not a container that could be recreated: see the findings")
	}
	return plan, nil
}

func (r *Recreator) planFor(ctx context.Context, plan *harden.Plan, check harden.Check, c Container, others []Settings) error {
	advice := Harden(c, r.Profile)
	switch {
	case !advice.Hardening.IsZero() && !advice.leaves(check):
	case len(advice.Manual) > 0:
		plan.Manual = append(plan.Manual, advice.Manual...)
		return nil
	default:
		plan.Manual = append(plan.Manual, c.Subject()+": its settings are as strict as they can be made; "+
			"if a process that was put into it (docker exec) is at fault, end it")
		return nil
	}
	if joined := joinedTo(&c.Settings, others); len(joined) > 0 {
		plan.Manual = append(plan.Manual, fmt.Sprintf("%s: %s in its namespaces, and would be left in those of a container that is gone: stop and remove them, harden this one, and make them again",
			c.Subject(), strings.Join(joined, " and ")))
		return nil
	}
	plan.Notes = append(plan.Notes, advice.Notes...)
	plan.Notes = append(plan.Notes, advice.Manual...) // of other checks than this one
	if changed, err := r.changedOutside(ctx, c.ID, &c.Settings, advice.Hardening); err != nil {
		return err
	} else if len(changed) > 0 {
		plan.Notes = append(plan.Notes, fmt.Sprintf("%s: files that the profile does not declare were changed in it, and are not in the new container: %s. The old container is kept, stopped, as %s",
			c.Subject(), someOf(changed), asideName(c.Name, "…")))
	}
	if c.HealthCheck == nil {
		plan.Notes = append(plan.Notes, fmt.Sprintf("%s: it has no health check: it is taken for well if it still runs after %v", c.Subject(), cmp.Or(r.Settle, DefaultSettle)))
	}
	before, after := advice.Hardening.describe(&c.Settings)
	plan.Actions = append(plan.Actions, &recreate{
		r: r, id: c.ID, name: c.Name, subject: c.Subject(), hardening: advice.Hardening, before: before, after: after,
	})
	return nil
}

func someOf(all []string) string {
	const most = 5
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// joinedTo names the containers that are in a namespace of s.
func joinedTo(s *Settings, all []Settings) []string {
	var joined []string
	for _, o := range all {
		for _, mode := range []string{o.NetworkMode, o.PidMode, o.IpcMode} {
			target, ok := strings.CutPrefix(mode, "container:")
			if ok && o.ID != s.ID && target != "" && (target == s.Name || strings.HasPrefix(s.ID, target)) {
				joined = append(joined, "container/"+o.Name+" is")
				break
			}
		}
	}
	return joined
}

func (r *Recreator) valid() error {
	switch {
	case r.Control == nil:
		return errors.New("container: Recreator.Control is not set")
	case r.StateDir == "":
		return errors.New("container: Recreator.StateDir is not set: nothing is changed that is not written down")
	}
	return nil
}

func (r *Recreator) source() *harden.Source[Container] {
	if r.Source != nil {
		return r.Source
	}
	return r.named()
}

// named returns a source of its own, of the named containers.
func (r *Recreator) named(names ...string) *harden.Source[Container] {
	if r.list != nil {
		return r.list(names...)
	}
	return NewSource(r.Control, names...)
}

func (r *Recreator) files(info EngineInfo) ownership {
	if r.ownership != nil {
		return r.ownership(info)
	}
	return localFiles{info.PID}
}

// recreate is the action that recreates one container.
type recreate struct {
	r                    *Recreator
	id, name, subject    string
	hardening            Hardening
	before, after        string
	unfinished           bool // a transaction that was cut off comes first
	unfinishedSince      time.Time
	unfinishedIsVerified bool
}

// resume returns the action that undoes or finishes a transaction, and then
// does what it was to do.
func (r *Recreator) resume(j *journal) *recreate {
	return &recreate{
		r: r, name: j.Name, subject: "container/" + j.Name, before: j.Before, after: j.After,
		unfinished: true, unfinishedSince: j.Started, unfinishedIsVerified: j.verified(),
	}
}

// Change implements [harden.Action].
func (a *recreate) Change() harden.Change {
	c := harden.Change{Subject: a.subject, Summary: "recreate it hardened", Before: a.before, After: a.after}
	if a.unfinished {
		first := "undo"
		if a.unfinishedIsVerified {
			first = "finish"
		}
		c.Summary = fmt.Sprintf("%s what was begun at %s and cut off, and recreate it hardened", first, a.unfinishedSince.UTC().Format(time.RFC3339))
	}
	return c
}

// Apply implements [harden.Action].
func (a *recreate) Apply(ctx context.Context, h *host.Host) error {
	if err := a.r.valid(); err != nil {
		return err
	}
	if err := a.r.apply(ctx, h, a); err != nil {
		return fmt.Errorf("recreate %s: %w", a.subject, err)
	}
	return nil
}

// Revert implements [harden.Action].
func (a *recreate) Revert(ctx context.Context, _ *host.Host) error {
	err := a.r.withJournal(ctx, a.name, func(f journalFile, j *journal) error {
		switch {
		case j == nil:
			return errors.New("nothing is written down that could be reverted")
		case j.Step == stepCommit:
			return errors.New("it was committed, and can no longer be reverted")
		}
		info, err := a.r.Control.Info(ctx)
		if err != nil {
			return err
		}
		return a.r.undo(ctx, info, f, j)
	})
	if err != nil {
		return fmt.Errorf("revert %s: %w", a.subject, err)
	}
	return nil
}

// Commit implements [harden.Committer].
func (a *recreate) Commit(ctx context.Context, _ *host.Host) error {
	err := a.r.withJournal(ctx, a.name, func(f journalFile, j *journal) error {
		switch {
		case j == nil:
			return nil
		case !j.verified():
			return errors.New("it was not applied")
		}
		return a.r.commit(ctx, f, j)
	})
	if err != nil {
		return fmt.Errorf("commit %s: %w", a.subject, err)
	}
	return nil
}

var _ harden.Committer = (*recreate)(nil)

// A heldLock is that of a journal whose transaction is applied here, and
// neither committed nor reverted yet.
type heldLock struct {
	file journalFile
	lock *os.File
}

// withJournal calls do with the journal of a container, or nil, under its
// lock, and releases the lock, also one that has been held: whatever do leaves
// undone is left to the next run.
func (r *Recreator) withJournal(ctx context.Context, name string, do func(journalFile, *journal) error) error {
	if err := r.valid(); err != nil {
		return err
	}
	r.mu.Lock()
	h, ok := r.held[name]
	delete(r.held, name)
	r.mu.Unlock()
	if !ok {
		info, err := r.Control.Info(ctx)
		if err != nil {
			return err
		}
		h.file = r.journalFile(info, name)
		if h.lock, err = r.take(h.file); err != nil {
			return err
		}
	}
	j, err := h.file.load()
	if err == nil {
		err = do(h.file, j)
	}
	return errors.Join(err, unlockFile(h.lock))
}

func (r *Recreator) take(f journalFile) (*os.File, error) {
	r.mu.Lock() // keeps peek from looking just now
	defer r.mu.Unlock()
	lock, err := lockFile(f.lock())
	if err != nil {
		return nil, fmt.Errorf("container: lock: %w", err)
	}
	return lock, nil
}

func (r *Recreator) hold(name string, h heldLock) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = make(map[string]heldLock)
	}
	r.held[name] = h
}

func (r *Recreator) apply(ctx context.Context, h *host.Host, a *recreate) (err error) {
	if err := os.MkdirAll(r.StateDir, 0o700); err != nil {
		return err
	}
	info, err := r.Control.Info(ctx)
	if err != nil {
		return err
	}
	f := r.journalFile(info, a.name)
	lock, err := r.take(f)
	if err != nil {
		return err
	}
	applied := false
	defer func() {
		if applied {
			r.hold(a.name, heldLock{f, lock})
		} else {
			err = errors.Join(err, unlockFile(lock))
		}
	}()

	j, err := f.load()
	if err != nil {
		return err
	}
	if (j != nil) != a.unfinished {
		return fmt.Errorf("another run came between: %w", harden.ErrStale)
	}
	if j != nil {
		done := j.verified()
		if err := r.settle(ctx, info, f, j); err != nil {
			return err
		}
		if done {
			return nil
		}
		a = a.withID("")
	}
	j, c, err := r.begin(ctx, h, a)
	if err != nil {
		return err
	}
	j.EngineID, j.EngineHost = info.ID, info.Host
	before := r.judge(ctx, h, j.OldID)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.transact(ctx, h, info, f, j, c, before); err != nil {
		undo := r.undo(ctx, info, f, j)
		if undo != nil {
			return fmt.Errorf("%w; %w, run the remedy again to go on with it: %w", err, harden.ErrUnfinished, undo)
		}
		return fmt.Errorf("%w (everything was undone)", err)
	}
	applied = true
	return nil
}

func (a *recreate) withID(id string) *recreate {
	b := *a
	b.id, b.hardening = id, Hardening{}
	return &b
}

// begin looks at the container again and writes the plan of the transaction.
func (r *Recreator) begin(ctx context.Context, h *host.Host, a *recreate) (*journal, *Container, error) {
	fresh, done := harden.Share(ctx)
	defer done()
	found, err := r.named(cmp.Or(a.id, a.name)).All(fresh, &h.View)
	switch {
	case errors.Is(err, ErrNoContainer):
		return nil, nil, fmt.Errorf("%w: %w", harden.ErrStale, err)
	case err != nil:
		return nil, nil, err
	case len(found) != 1 || found[0].Name != a.name:
		return nil, nil, fmt.Errorf("it has another name now: %w", harden.ErrStale)
	}
	c := found[0]
	advice := Harden(c, r.Profile)
	before, after := advice.Hardening.describe(&c.Settings)
	if before != a.before || after != a.after || a.id != "" && !reflect.DeepEqual(advice.Hardening, a.hardening) {
		return nil, nil, harden.ErrStale
	}
	others, err := r.Control.Containers(ctx)
	if err != nil {
		return nil, nil, err
	}
	if joined := joinedTo(&c.Settings, others); len(joined) > 0 {
		return nil, nil, fmt.Errorf("%s in its namespaces: %w", strings.Join(joined, " and "), harden.ErrStale)
	}
	if err := r.mayStart(ctx, c.Name); err != nil {
		return nil, nil, err
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	tx := hex.EncodeToString(random[:])
	j := &journal{
		Schema: journalSchema, Transaction: tx, Started: time.Now().UTC().Truncate(time.Second),
		Name: c.Name, Temp: c.Name + "-hardened-" + tx, Aside: asideName(c.Name, tx),
		OldID: c.ID, Policy: c.RestartPolicy,
		Hardening: advice.Hardening, Before: before, After: after, Leaves: advice.Leaves,
	}
	j.Hardening.Volumes = slices.Clone(j.Hardening.Volumes)
	for i := range j.Hardening.Volumes {
		v := &j.Hardening.Volumes[i]
		v.Name = c.Name + strings.ReplaceAll(volumeSafe(v.Path), "/", "_") + "_" + tx
	}
	for _, dest := range j.Hardening.Chown {
		for _, m := range c.Mounts {
			if m.Destination != dest {
				continue
			}
			t, err := r.files(c.Engine).find(&c, m)
			if err != nil {
				return nil, nil, fmt.Errorf("the files in %s: %w", dest, err)
			}
			j.Trees = append(j.Trees, t)
		}
	}
	return j, &c, nil
}

func asideName(name, tx string) string { return name + "-before-hardening-" + tx }

// volumeSafe replaces what the name of a volume must not have.
func volumeSafe(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_.-/", c) {
			return c
		}
		return '-'
	}, name)
}

func (r *Recreator) mayStart(ctx context.Context, name string) error {
	if r.MayStart == nil {
		return nil
	}
	if err := r.MayStart(ctx, name); err != nil {
		return fmt.Errorf("container/%s must not be started: %w", name, err)
	}
	return nil
}

// transact takes the steps up to and including the one after which nothing is
// undone any more.
func (r *Recreator) transact(ctx context.Context, h *host.Host, info EngineInfo, f journalFile, j *journal, c *Container, before map[string]harden.Result) error {
	ctl := r.Control
	for _, s := range []struct {
		step step
		do   func() error
	}{
		{stepClone, func() (err error) {
			j.NewID, err = ctl.Clone(ctx, j.OldID, j.Temp, j.Hardening)
			return err
		}},
		{stepPolicy, func() error { return ctl.SetRestartPolicy(ctx, j.OldID, "no") }},
		{stepStop, func() error { return ctl.Stop(ctx, j.OldID, r.Grace) }},
		{stepAside, func() error { return ctl.Rename(ctx, j.OldID, j.Aside) }},
		{stepRename, func() error { return ctl.Rename(ctx, j.NewID, j.Name) }},
		{stepCopy, func() error { return r.copyData(ctx, j, c) }},
		{stepOwners, func() error { return r.giveFiles(info, f, j) }},
		{stepStart, func() error {
			if err := r.mayStart(ctx, j.Name); err != nil {
				return err
			}
			return ctl.Start(ctx, j.NewID)
		}},
		{stepWait, func() error { return r.await(ctx, j.NewID) }},
		{stepVerify, func() error { return r.verify(ctx, h, j, before) }},
		{stepVerified, func() error { return ctl.SetRestartPolicy(ctx, j.NewID, j.Policy) }},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		j.Step = s.step
		if err := f.save(j); err != nil {
			return err
		}
		if err := s.do(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Recreator) copyData(ctx context.Context, j *journal, c *Container) error {
	for _, v := range j.Hardening.Volumes {
		var skip []string // what has mounts of its own
		for _, m := range c.Mounts {
			if below(path.Clean(m.Destination), v.Path) {
				skip = append(skip, m.Destination)
			}
		}
		for dest := range j.Hardening.Tmpfs {
			if below(dest, v.Path) {
				skip = append(skip, dest)
			}
		}
		if err := r.Control.Copy(ctx, j.OldID, j.NewID, v.Path, skip, j.owner(c)); err != nil {
			return err
		}
	}
	return nil
}

// owner returns to whom what is copied is given, or nil.
func (j *journal) owner(c *Container) *Owner {
	to := j.Hardening.owner()
	if to != nil && c.Kernel.UID == int64(to.UID) {
		return nil
	}
	return to
}

func (r *Recreator) giveFiles(info EngineInfo, f journalFile, j *journal) error {
	to := j.Hardening.owner()
	if to == nil || len(j.Trees) == 0 {
		return nil
	}
	files := r.files(info)
	perTree := make([][]owned, len(j.Trees))
	var all []owned
	for i, t := range j.Trees {
		found, err := files.scan(t, *to)
		if err != nil {
			return err
		}
		for k := range found {
			found[k].Tree = i
		}
		perTree[i] = found
		all = append(all, found...)
	}
	if err := f.saveOwners(all); err != nil { // before the first is changed
		return err
	}
	for i, t := range j.Trees {
		given := slices.Clone(perTree[i])
		for k := range given {
			given[k].Owner, given[k].Mode = *to, 0
		}
		if err := files.set(t, given); err != nil {
			return err
		}
	}
	return nil
}

func (r *Recreator) returnFiles(info EngineInfo, f journalFile, j *journal) error {
	all, err := f.loadOwners()
	if err != nil {
		return err
	}
	files := r.files(info)
	var errs []error
	for i, t := range j.Trees {
		var of []owned
		for _, o := range all {
			if o.Tree == i {
				of = append(of, o)
			}
		}
		if err := files.set(t, of); err != nil {
			errs = append(errs, fmt.Errorf("give files back to their owners: %w", err))
		}
	}
	return errors.Join(errs...)
}

// await waits until a container is well.
func (r *Recreator) await(ctx context.Context, id string) error {
	limit := cmp.Or(r.Settle, DefaultSettle)
	if s, err := r.look(ctx, id); err != nil {
		return err
	} else if hc := s.HealthCheck; hc != nil {
		limit = min(hc.StartPeriod+time.Duration(hc.Retries+1)*(hc.Interval+hc.Timeout)+limit, cmp.Or(r.HealthTimeout, DefaultHealthTimeout))
	}
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(cmp.Or(r.poll, 250*time.Millisecond))
	defer tick.Stop()
	over := false
	for {
		s, err := r.look(ctx, id)
		switch {
		case err != nil:
			return err
		case s.State != "running":
			return fmt.Errorf("the new container did not go on running: it is %s", s.State)
		case s.Health == "unhealthy":
			return errors.New("the new container is unhealthy")
		case s.Health == "healthy":
			return nil
		case over && s.HealthCheck == nil:
			return nil
		case over:
			return fmt.Errorf("the new container is still %s after %v", cmp.Or(s.Health, "without a health status"), limit)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the new container: %w", ctx.Err())
		case <-end.C:
			over = true
		case <-tick.C:
		}
	}
}

// look returns what the engine says of one container.
func (r *Recreator) look(ctx context.Context, id string) (Settings, error) {
	all, err := r.Control.Containers(ctx, id)
	if err != nil {
		return Settings{}, err
	}
	if len(all) != 1 {
		return Settings{}, fmt.Errorf("container %s: %w", id, ErrNoContainer)
	}
	return all[0], nil
}

// judge evaluates all checks for one container, on facts of its own.
func (r *Recreator) judge(ctx context.Context, h *host.Host, id string) map[string]harden.Result {
	ctx, done := harden.Share(ctx)
	defer done()
	all := make(map[string]harden.Result)
	for _, c := range Checks(r.named(id), r.Profile) {
		res := harden.Evaluate(ctx, &h.View, c, r.CheckTimeout)
		all[res.Info.ID] = res
	}
	return all
}

// verify compares what the checks say of the new container with what they
// said of the old one.
func (r *Recreator) verify(ctx context.Context, h *host.Host, j *journal, before map[string]harden.Result) error {
	after := r.judge(ctx, h, j.NewID)
	if err := ctx.Err(); err != nil {
		return err
	}
	var wrong []string
	seen := false
	for id, now := range after {
		was := before[id].Status
		left := slices.Contains(j.Leaves, id)
		ok := now.Status == harden.StatusPass || now.Status == harden.StatusNotApplicable
		seen = seen || now.Status == harden.StatusPass
		switch {
		case ok:
		case left && !(was == harden.StatusPass && now.Status == harden.StatusFail):
		case was == harden.StatusUnknown && now.Status == harden.StatusUnknown:
		default:
			why := now.Detail
			for _, f := range now.Findings {
				why = strings.Join([]string{why, f.Message}, "; ")
			}
			wrong = append(wrong, fmt.Sprintf("%s was %v and is %v: %s", id, was, now.Status, strings.TrimPrefix(why, "; ")))
		}
	}
	slices.Sort(wrong)
	switch {
	case len(wrong) > 0:
		return fmt.Errorf("the new container does not pass: %s", strings.Join(wrong, "; "))
	case !seen:
		return errors.New("no check passes for the new container")
	}
	return nil
}

// commit takes what was kept for undoing away, and ends the transaction.
func (r *Recreator) commit(ctx context.Context, f journalFile, j *journal) error {
	j.Step = stepCommit
	if err := f.save(j); err != nil {
		return err
	}
	old, err := r.look(ctx, j.OldID)
	switch {
	case errors.Is(err, ErrNoContainer): // an earlier attempt, or somebody, removed it
		return f.remove()
	case err != nil:
		return err
	}
	changed, err := r.changedOutside(ctx, j.OldID, &old, j.Hardening)
	if err != nil {
		return err
	}
	if len(changed) == 0 { // or else it is kept
		if err := r.Control.Remove(ctx, j.OldID); err != nil {
			return err
		}
	}
	return f.remove()
}

// changedOutside returns the files that a container changed in its writable
// layer and that the new one does not have.
func (r *Recreator) changedOutside(ctx context.Context, id string, s *Settings, h Hardening) ([]string, error) {
	all, err := r.Control.Changed(ctx, id)
	if err != nil {
		return nil, err
	}
	kept := []string{ // temporary, or what engines put there
		"/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv",
		"/sbin/docker-init", "/usr/sbin/docker-init",
	}
	for _, m := range s.Mounts {
		kept = append(kept, path.Clean(m.Destination))
	}
	for _, v := range h.Volumes {
		kept = append(kept, v.Path)
	}
	for dest := range h.Tmpfs {
		kept = append(kept, dest)
	}
	return slices.DeleteFunc(all, func(name string) bool {
		return slices.ContainsFunc(kept, func(k string) bool {
			return below(name, k) || below(k, name) // or a directory on the way to it
		})
	}), nil
}
