package killswitch_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
)

// childVar makes the test binary another process: what it is to do, and its
// arguments, separated by line breaks.
const childVar = "HARDSHELL_KILLSWITCH_CHILD"

func child() {
	args := strings.Split(os.Getenv(childVar), "\n")
	var err error
	switch args[0] {
	case "":
		return
	case "engage":
		var f *killswitch.Fence
		if f, err = killswitch.OpenFence(args[1]); err == nil {
			var epoch uint64
			epoch, err = f.Engage(context.Background(), "inbox", "from another process")
			fmt.Println(epoch)
		}
	case "fire":
		err = fireAndEnd(args[1], args[2])
	default:
		err = fmt.Errorf("no child %q", args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), must(os.Executable()))
	cmd.Env = append(os.Environ(), childVar+"="+strings.Join(args, "\n"))
	cmd.Stderr = new(strings.Builder)
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%q: %v: %s", args, err, cmd.Stderr)
	}
	return string(out)
}

// A fileThing is stopped by removing the file, and outlasts the process as an
// agent does. Who acts leaves a mark first.
type fileThing struct {
	dir, name string
	step      func(string)
}

func (f fileThing) on() string        { return filepath.Join(f.dir, f.name+".on") }
func (f fileThing) acted() string     { return filepath.Join(f.dir, f.name+".acted") }
func (f fileThing) Name() string      { return f.name + ".stop" }
func (f fileThing) start() error      { return os.WriteFile(f.on(), nil, 0o600) }
func (f fileThing) Objects() []string { return []string{f.name} }

func (f fileThing) Do(context.Context) error {
	f.step("act")
	if err := os.WriteFile(f.acted(), nil, 0o600); err != nil {
		return err
	}
	f.step("stop")
	if err := os.Remove(f.on()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.step("return")
	return nil
}

type fileLook struct{ fileThing }

func (f fileLook) Name() string { return f.name + ".look" }

func (f fileLook) Remaining(context.Context) (map[string]string, error) {
	f.step("look")
	_, err := os.Stat(f.on())
	switch {
	case err == nil:
		return map[string]string{f.name: "on"}, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	}
	return nil, err
}

// fileSwitch stops two things in a directory.
func fileSwitch(dir string, step func(string)) (killswitch.Config, []fileThing) {
	key, err := killswitch.ReadKey(filepath.Join(dir, "key"))
	if err != nil {
		panic(err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "trail"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	cfg := killswitch.Config{Agent: "inbox", Dir: filepath.Join(dir, "state"), Trail: &trail.Lines{W: log}, Key: key, FenceTimeout: time.Minute, TrailTimeout: time.Minute}
	var things []fileThing
	for _, name := range []string{"egress", "process"} {
		f := fileThing{dir, name, step}
		things = append(things, f)
		cfg.Targets = append(cfg.Targets, killswitch.Target{
			Name: name, Ladder: []killswitch.Rung{{Actuators: []killswitch.Actuator{f}}}, Observers: []killswitch.Observer{fileLook{f}},
		})
	}
	return cfg, things
}

// fireAndEnd fires, and kills its own process at a step.
func fireAndEnd(dir, step string) error {
	end, err := strconv.ParseInt(step, 10, 64)
	if err != nil {
		return err
	}
	var n atomic.Int64
	count := func(what string) {
		if n.Add(1) == end {
			p, _ := os.FindProcess(os.Getpid())
			fmt.Println(what)
			_ = p.Kill()
			select {} // it comes at any moment
		}
	}
	cfg, _ := fileSwitch(dir, count)
	s, err := killswitch.New(cfg)
	if err != nil {
		return err
	}
	s.SetStep(func(op, name string) error {
		count(op + " " + filepath.Base(name))
		return nil
	})
	r, err := s.Fire(context.Background(), "it deletes mail")
	if err == nil && !r.Off() {
		err = errors.New("not off")
	}
	fmt.Println("done")
	return err
}

// TestKill9 kills the process that fires at every step that it takes: each
// change on disk, each action and each look. From the moment that anything may
// have been done to the agent the fence holds, and whoever comes after
// completes the kill in the same epoch, for the same reason.
func TestKill9(t *testing.T) {
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv("HARDSHELL_KILLS")); err == nil {
		rounds = n
	}
	seen := make(map[string]int)
	var held, resumed int
	steps := []string{"create", "write", "sync", "rename", "syncdir", "act", "stop", "return", "look"}
	missing := func() bool {
		return slices.ContainsFunc(steps, func(op string) bool { return seen[op] == 0 })
	}
	for done := 0; done < max(2, rounds) || done < 10 && missing(); done++ { // which step is the nth differs
		for step := 1; ; step++ {
			dir := t.TempDir()
			key := must(killswitch.GenerateKey())
			check(t, key.WriteFile(filepath.Join(dir, "key")))
			cfg, things := fileSwitch(dir, func(string) {})
			for _, f := range things {
				check(t, f.start())
			}
			if done%2 == 1 { // as Arm does it
				check(t, newSwitch(t, cfg).Fence().Prepare(t.Context(), "inbox"))
			}
			cmd := exec.CommandContext(t.Context(), must(os.Executable()))
			cmd.Env = append(os.Environ(), childVar+"="+strings.Join([]string{"fire", dir, strconv.Itoa(step)}, "\n"))
			out, err := cmd.Output()
			where := strings.TrimSpace(string(out))
			if where == "done" && err == nil {
				break
			}
			if code := cmd.ProcessState.ExitCode(); code != -1 {
				t.Fatalf("step %d, %s: the process ended by itself: %v", step, where, err)
			}
			seen[strings.Fields(where)[0]]++
			s := newSwitch(t, cfg)
			before, stateErr := s.Fence().State("inbox")
			acted := false
			for _, f := range things {
				_, err := os.Stat(f.acted())
				acted = acted || err == nil
			}
			fenced := s.Fence().Fenced(t.Context(), "inbox") != nil
			if acted && !fenced {
				t.Errorf("step %d, %s: something was done to the agent, and it may be started", step, where)
			}
			if stateErr != nil {
				t.Errorf("step %d, %s: %v", step, where, stateErr)
			}
			r, err := s.Resume(t.Context())
			if err != nil {
				t.Errorf("step %d, %s: %v", step, where, err)
			}
			if !fenced {
				if r != nil {
					t.Errorf("step %d, %s: it was not stopped, and is now", step, where)
				}
				if r, err = s.Fire(t.Context(), "it deletes mail"); err != nil {
					t.Errorf("step %d, %s: %v", step, where, err)
				}
			} else {
				held++
				if r.Runs > 1 {
					resumed++
				}
				if r.Epoch != before.Epoch || !r.Fired.Equal(before.Time) {
					t.Errorf("step %d, %s: %+v, and was %+v", step, where, r, before)
				}
			}
			if r == nil || !r.Off() || r.Epoch != 1 || r.Reason != "it deletes mail" {
				t.Fatalf("step %d, %s: %+v", step, where, r)
			}
			for _, f := range things {
				if _, err := os.Stat(f.on()); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("step %d, %s: %s is on: %v", step, where, f.name, err)
				}
			}
			if got, err := killswitch.LastReceipt(cfg.Dir, "inbox", key.Public()); err != nil || !got.Off() {
				t.Errorf("step %d, %s: %v, %v", step, where, got, err)
			}
			// There is nothing left to do.
			if again, err := newSwitch(t, cfg).Resume(t.Context()); err != nil || again.Runs != r.Runs {
				t.Errorf("step %d, %s: once more: %+v, %v", step, where, again, err)
			}
		}
	}
	if missing() {
		t.Errorf("there is a step at which it was never killed: %v", seen)
	}
	t.Logf("killed at %v; %d times the fence held, %d times a receipt had been begun", seen, held, resumed)
}

// A simulated reboot: the things run again, and only the directory is as it
// was. The fence holds, and Hold stops them.
func TestReboot(t *testing.T) {
	dir := t.TempDir()
	check(t, must(killswitch.GenerateKey()).WriteFile(filepath.Join(dir, "key")))
	cfg, things := fileSwitch(dir, func(string) {})
	cfg.Interval = 5 * time.Millisecond
	for _, f := range things {
		check(t, f.start())
	}
	if _, err := newSwitch(t, cfg).Fire(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	for _, f := range things {
		check(t, f.start())
	}
	s := newSwitch(t, cfg)
	if err := s.Fence().Fenced(t.Context(), "inbox"); !errors.Is(err, killswitch.ErrEngaged) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Hold(ctx) }()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		st := s.Status(t.Context())
		if st.Targets[0].State == killswitch.Confirmed && st.Targets[1].State == killswitch.Confirmed && st.Receipt.Returned == 2 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("they still run: %+v", st)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
