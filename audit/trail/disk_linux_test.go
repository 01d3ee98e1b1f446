package trail_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// mountedVar names the test that runs in a mount namespace of its own.
const mountedVar = "HARDSHELL_TRAIL_MOUNTED"

// inMountNamespace runs the test again in a process with mounts of its own, as
// root in a user namespace, and reports whether this is that process.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mountedVar) == t.Name() {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mountedVar+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) && os.Getenv("CI") == "" {
		t.Skipf("user namespaces are not allowed here: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a mount namespace: %v\n%s", err, out)
	}
	return false
}

// mount mounts a file system in memory of the given size.
func mount(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestDiskFull fills a real file system, by the log and by others, so that
// writes fail at any length, also when a segment begins. Nothing that was
// acknowledged is lost, and the log goes on when there is room.
func TestDiskFull(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	for _, segment := range []int64{1 << 20, 20_000} {
		for _, leave := range []int{0, 1, 3, 7, 20} {
			t.Run(fmt.Sprint(segment, leave), func(t *testing.T) {
				dir := mount(t, "400k")
				w := create(t, trail.Config{})
				w.close(t)
				w.dir = filepath.Join(dir, "trail")
				var err error
				if w.log, err = trail.Create(w.dir, w.key, trail.Config{SegmentBytes: segment}); err != nil {
					t.Fatal(err)
				}
				w.record(t, 0, 10)
				ballast := filepath.Join(dir, "ballast")
				fill(t, ballast, leave)
				n := 10
				for ; ; n++ {
					if n > 2000 {
						t.Fatal("it never became full")
					}
					if err = w.log.Record(t.Context(), event(n)); err != nil {
						break
					}
				}
				if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), w.dir) {
					t.Errorf("the error is %v", err)
				}
				for range 3 {
					if err := w.log.Record(t.Context(), event(n)); !errors.Is(err, syscall.ENOSPC) {
						t.Errorf("still full: %v", err)
					}
				}
				if s := w.verify(t); s.Records != int64(n) {
					t.Errorf("%d records, of %d", s.Records, n)
				}
				if err := os.Remove(ballast); err != nil && leave > 0 {
					t.Fatal(err)
				}
				w.record(t, n, n+20)
				if s := w.verify(t); s.Records != int64(n+20) {
					t.Errorf("%d records, of %d", s.Records, n+20)
				}
				w.close(t)
				w.open(t, trail.Config{})
				if events, err := allEvents(t, w); err != nil || len(events) != n+20 || events[n].ID != fmt.Sprint(n) {
					t.Error(len(events), err)
				}
				w.close(t)
			})
		}
	}
}

// fill fills the file system, but for about so many pages.
func fill(t *testing.T, name string, leave int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(max(0, info.Size()-int64(leave)*4096)); err != nil {
		t.Fatal(err)
	}
}

// A log on a file system that cannot be written to says so, can be read and
// verified, and is not harmed.
func TestReadOnlyFileSystem(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	dir := mount(t, "1m")
	w := create(t, trail.Config{})
	w.close(t)
	w.dir = filepath.Join(dir, "trail")
	var err error
	if w.log, err = trail.Create(w.dir, w.key, trail.Config{}); err != nil {
		t.Fatal(err)
	}
	w.record(t, 0, 5)
	w.close(t)
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	if _, err := trail.Open(w.dir, w.key, trail.Config{}); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), w.dir) {
		t.Errorf("open: %v", err)
	}
	if _, err := trail.Create(filepath.Join(dir, "other"), w.key, trail.Config{}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("create: %v", err)
	}
	if s := w.verify(t); s.Records != 5 {
		t.Errorf("%+v", s)
	}
	if events, err := allEvents(t, w); err != nil || len(events) != 5 {
		t.Error(len(events), err)
	}
	remount(0)
	w.open(t, trail.Config{})
	w.record(t, 5, 6)
	w.close(t)
}

// A directory that the process may not write to is fs.ErrPermission.
func TestDirectoryWithoutPermission(t *testing.T) {
	w := create(t, trail.Config{})
	w.record(t, 0, 3)
	w.close(t)
	if os.Getuid() == 0 {
		if !inMountNamespace(t) {
			return
		}
		// Root of a user namespace still is the owner: hide behind a read-only bind.
		if err := errors.Join(
			syscall.Mount(w.dir, w.dir, "", syscall.MS_BIND, ""),
			syscall.Mount(w.dir, w.dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""),
		); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(w.dir, syscall.MNT_DETACH) })
		if _, err := trail.Open(w.dir, w.key, trail.Config{}); !errors.Is(err, syscall.EROFS) {
			t.Errorf("the error is %v", err)
		}
		return
	}
	if err := os.Chmod(w.dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(w.dir, 0o700) })
	if err := os.Chmod(filepath.Join(w.dir, "lock"), 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Open(w.dir, w.key, trail.Config{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the error is %v", err)
	}
}
