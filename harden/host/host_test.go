package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden/host"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

// A world is a machine to run the cases on: the local one below a temporary
// directory, or one in memory.
type world struct {
	*host.Host

	dir     string // absolute, exists, empty
	mkdir   func(name string, perm fs.FileMode)
	symlink func(name, target string)
}

func (w world) path(name string) string { return w.dir + "/" + name }

func (w world) write(t *testing.T, name, contents string, perm fs.FileMode) {
	t.Helper()
	require.NoError(t, w.WriteFile(w.path(name), []byte(contents), perm))
}

func localWorld(t *testing.T) world {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("paths of this system do not begin with a slash")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return world{
		Host: host.Local(),
		dir:  dir,
		mkdir: func(name string, perm fs.FileMode) {
			require.NoError(t, os.MkdirAll(name, 0o755))
			require.NoError(t, os.Chmod(name, perm))
		},
		symlink: func(name, target string) { require.NoError(t, os.Symlink(target, name)) },
	}
}

// memoryWorld scripts the programs that the cases run.
func memoryWorld(*testing.T) world {
	m := new(hosttest.Machine).Dir("/tmp/case", 0o755)
	sh := func(ctx context.Context, c host.Command) (host.Output, error) {
		switch script := c.Args[1]; script {
		case "exit 0":
			return host.Output{}, nil
		case "cat":
			return host.Output{Stdout: c.Stdin}, nil
		case "echo $GREETING; echo complaint >&2; exit 3":
			out := host.Output{Stdout: []byte(c.Env[0][len("GREETING="):] + "\n"), Stderr: []byte("complaint\n")}
			return out, &host.ExitError{Name: c.Name, Code: 3, Stderr: "complaint\n"}
		case "exec sleep 60":
			<-ctx.Done()
			return host.Output{}, fmt.Errorf("host: sh: %w", ctx.Err())
		default:
			return host.Output{}, fmt.Errorf("not in the memory world: %q", script)
		}
	}
	m.Program("sh", hosttest.Reply{Do: sh})
	m.Uninstall("no-such-program", "/no/such/program")
	return world{
		Host:    m.Host(),
		dir:     "/tmp/case",
		mkdir:   func(name string, perm fs.FileMode) { m.Dir(name, perm) },
		symlink: func(name, target string) { m.Symlink(name, target) },
	}
}

// TestSameBehaviour holds the machine in memory to what the local one does.
func TestSameBehaviour(t *testing.T) {
	worlds := map[string]func(*testing.T) world{"local": localWorld, "memory": memoryWorld}
	for _, tt := range cases {
		for name, open := range worlds {
			t.Run(tt.name+"/"+name, func(t *testing.T) { tt.test(t, open(t)) })
		}
	}
}

var cases = []struct {
	name string
	test func(*testing.T, world)
}{
	{"a new file gets the mode asked for, whatever the umask", func(t *testing.T, w world) {
		w.write(t, "new", "text", 0o666)
		info, err := w.Stat(w.path("new"))
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o666), info.Mode())
		assert.Equal(t, "new", info.Name())
		assert.EqualValues(t, 4, info.Size())
	}},
	{"replacing a file keeps its mode", func(t *testing.T, w world) {
		w.write(t, "f", "old", 0o640)
		w.write(t, "f", "new", 0o600)
		info, err := w.Stat(w.path("f"))
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o640), info.Mode())
		data, err := w.ReadFile(w.path("f"))
		require.NoError(t, err)
		assert.Equal(t, "new", string(data))
	}},
	{"an empty file is read as empty, not nil", func(t *testing.T, w world) {
		w.write(t, "f", "", 0o600)
		data, err := w.ReadFile(w.path("f"))
		require.NoError(t, err)
		assert.NotNil(t, data)
		assert.Empty(t, data)
	}},
	{"writing leaves nothing else behind", func(t *testing.T, w world) {
		w.write(t, "f", "old", 0o600)
		w.write(t, "f", "new", 0o600)
		assert.Equal(t, []string{"f"}, names(t, w, w.dir))
	}},
	{"a reader that has the file open keeps the old contents", func(t *testing.T, w world) {
		w.write(t, "f", "old", 0o600)
		f, err := w.Open(w.path("f"))
		require.NoError(t, err)
		w.write(t, "f", "newer", 0o600)
		data, err := io.ReadAll(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		assert.Equal(t, "old", string(data))
	}},
	{"what the caller does with the data later does not matter", func(t *testing.T, w world) {
		data := []byte("mine")
		require.NoError(t, w.WriteFile(w.path("f"), data, 0o600))
		data[0] = 'w'
		got, err := w.ReadFile(w.path("f"))
		require.NoError(t, err)
		assert.Equal(t, "mine", string(got))
		got[0] = 'x'
		got, err = w.ReadFile(w.path("f"))
		require.NoError(t, err)
		assert.Equal(t, "mine", string(got))
	}},
	{"a missing file does not exist, for every method", func(t *testing.T, w world) {
		for op, err := range everyRead(w, w.path("missing")) {
			assert.ErrorIs(t, err, fs.ErrNotExist, op)
		}
		assert.ErrorIs(t, w.Remove(w.path("missing")), fs.ErrNotExist)
		assert.ErrorIs(t, w.WriteFile(w.path("missing/f"), nil, 0o600), fs.ErrNotExist)
	}},
	{"a relative path is refused, by every method", func(t *testing.T, w world) {
		for _, name := range []string{"etc/passwd", "", ".", "../x", "/nul\x00"} {
			for op, err := range everyRead(w, name) {
				assert.ErrorIs(t, err, fs.ErrInvalid, "%s %q", op, name)
			}
			assert.ErrorIs(t, w.WriteFile(name, nil, 0o600), fs.ErrInvalid, "%q", name)
			assert.ErrorIs(t, w.Remove(name), fs.ErrInvalid, "%q", name)
		}
	}},
	{"dot-dot is removed before links are followed, in reading and writing", func(t *testing.T, w world) {
		w.mkdir(w.path("a/b"), 0o755)
		w.symlink(w.path("link"), "a/b")
		w.write(t, "link/../f", "text", 0o600)
		assert.Equal(t, []string{"a", "f", "link"}, names(t, w, w.dir))
		data, err := w.ReadFile(w.path("link/../f"))
		require.NoError(t, err)
		assert.Equal(t, "text", string(data))
		require.NoError(t, w.Remove(w.path("link/../f")))
	}},
	{"a file is no directory", func(t *testing.T, w world) {
		w.write(t, "f", "text", 0o600)
		_, err := w.ReadFile(w.path("f/g"))
		assert.ErrorIs(t, err, syscall.ENOTDIR)
		assert.NotErrorIs(t, err, fs.ErrNotExist)
		assert.ErrorIs(t, w.WriteFile(w.path("f/g"), nil, 0o600), syscall.ENOTDIR)
		_, err = w.ReadDir(w.path("f"))
		assert.Error(t, err)
	}},
	{"a directory is not written over", func(t *testing.T, w world) {
		w.mkdir(w.path("d"), 0o755)
		assert.ErrorIs(t, w.WriteFile(w.path("d"), nil, 0o600), fs.ErrInvalid)
	}},
	{"a directory is listed in order", func(t *testing.T, w world) {
		w.mkdir(w.path("b"), 0o700)
		w.write(t, "c", "", 0o600)
		w.write(t, "a", "", 0o600)
		w.write(t, "b/inner", "", 0o600)
		assert.Equal(t, []string{"a", "b", "c"}, names(t, w, w.dir))
		info, err := w.Stat(w.path("b"))
		require.NoError(t, err)
		assert.Equal(t, fs.ModeDir|0o700, info.Mode())
	}},
	{"only an empty directory is removed", func(t *testing.T, w world) {
		w.mkdir(w.path("d"), 0o755)
		w.write(t, "d/f", "", 0o600)
		assert.ErrorIs(t, w.Remove(w.path("d")), syscall.ENOTEMPTY)
		require.NoError(t, w.Remove(w.path("d/f")))
		require.NoError(t, w.Remove(w.path("d")))
		assert.Empty(t, names(t, w, w.dir))
	}},
	{"links are followed, absolute and relative", func(t *testing.T, w world) {
		w.mkdir(w.path("real"), 0o755)
		w.write(t, "real/f", "text", 0o600)
		w.symlink(w.path("abs"), w.path("real"))
		w.symlink(w.path("real/up"), "../abs/f")
		data, err := w.ReadFile(w.path("abs/up"))
		require.NoError(t, err)
		assert.Equal(t, "text", string(data))

		info, err := w.Stat(w.path("real/up"))
		require.NoError(t, err)
		assert.True(t, info.Mode().IsRegular())
		assert.Equal(t, "up", info.Name())
		info, err = w.Lstat(w.path("real/up"))
		require.NoError(t, err)
		assert.Equal(t, fs.ModeSymlink, info.Mode().Type())
		target, err := w.ReadLink(w.path("real/up"))
		require.NoError(t, err)
		assert.Equal(t, "../abs/f", target)
		_, err = w.ReadLink(w.path("real/f"))
		assert.Error(t, err)
	}},
	{"writing through a link changes the file, not the link", func(t *testing.T, w world) {
		w.mkdir(w.path("real"), 0o755)
		w.write(t, "real/f", "old", 0o640)
		w.symlink(w.path("link"), "real/f")
		w.write(t, "link", "new", 0o600)
		data, err := w.ReadFile(w.path("real/f"))
		require.NoError(t, err)
		assert.Equal(t, "new", string(data))
		info, err := w.Lstat(w.path("link"))
		require.NoError(t, err)
		assert.Equal(t, fs.ModeSymlink, info.Mode().Type())
		assert.Equal(t, []string{"f"}, names(t, w, w.path("real")))
	}},
	{"removing a link leaves the file", func(t *testing.T, w world) {
		w.write(t, "f", "text", 0o600)
		w.symlink(w.path("link"), "f")
		require.NoError(t, w.Remove(w.path("link")))
		assert.Equal(t, []string{"f"}, names(t, w, w.dir))
	}},
	{"a dangling link is not written through or over", func(t *testing.T, w world) {
		w.symlink(w.path("link"), "nowhere")
		assert.ErrorIs(t, w.WriteFile(w.path("link"), []byte("x"), 0o600), fs.ErrInvalid)
		assert.Equal(t, []string{"link"}, names(t, w, w.dir))
		_, err := w.ReadFile(w.path("link"))
		assert.ErrorIs(t, err, fs.ErrNotExist)
	}},
	{"a loop of links is an error that is not absence", func(t *testing.T, w world) {
		w.symlink(w.path("a"), "b")
		w.symlink(w.path("b"), "a")
		_, err := w.ReadFile(w.path("a"))
		assert.ErrorIs(t, err, syscall.ELOOP)
		assert.Error(t, w.WriteFile(w.path("a"), nil, 0o600))
	}},

	{"a program that ends well", func(t *testing.T, w world) {
		out, err := w.Run(t.Context(), sh("exit 0"))
		require.NoError(t, err)
		assert.Empty(t, out.Stdout)
		assert.Empty(t, out.Stderr)
	}},
	{"a program reads what it is given", func(t *testing.T, w world) {
		c := sh("cat")
		c.Stdin = []byte("given")
		out, err := w.Change(t.Context(), c)
		require.NoError(t, err)
		assert.Equal(t, "given", string(out.Stdout))
	}},
	{"an exit status is data, with both streams", func(t *testing.T, w world) {
		c := sh("echo $GREETING; echo complaint >&2; exit 3")
		c.Env = []string{"GREETING=hello"}
		out, err := w.Run(t.Context(), c)
		exit, ok := errors.AsType[*host.ExitError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, host.ExitError{Name: "sh", Code: 3, Stderr: "complaint\n"}, *exit)
		assert.Equal(t, "hello\n", string(out.Stdout))
		assert.Equal(t, "complaint\n", string(out.Stderr))
	}},
	{"a program that is not installed", func(t *testing.T, w world) {
		for _, name := range []string{"no-such-program", "/no/such/program"} {
			for _, run := range []func(context.Context, host.Command) (host.Output, error){w.Run, w.Change} {
				_, err := run(t.Context(), host.Command{Name: name})
				assert.ErrorIs(t, err, exec.ErrNotFound, name)
				assert.ErrorContains(t, err, name)
			}
		}
	}},
	{"a deadline ends a program", func(t *testing.T, w world) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := w.Run(ctx, sh("exec sleep 60"))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	}},
	{"no program is started for a caller that has gone", func(t *testing.T, w world) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := w.Change(ctx, sh("exit 0"))
		assert.ErrorIs(t, err, context.Canceled)
	}},
}

func sh(script string) host.Command {
	return host.Command{Name: "sh", Args: []string{"-c", script}}
}

func names(t *testing.T, w world, dir string) []string {
	t.Helper()
	entries, err := w.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func everyRead(w world, name string) map[string]error {
	_, readFile := w.ReadFile(name)
	_, open := w.Open(name)
	_, readDir := w.ReadDir(name)
	_, stat := w.Stat(name)
	_, lstat := w.Lstat(name)
	_, readLink := w.ReadLink(name)
	return map[string]error{
		"ReadFile": readFile, "Open": open, "ReadDir": readDir, "Stat": stat, "Lstat": lstat, "ReadLink": readLink,
	}
}

// The zero View and Host, and nil ones, have access to nothing: they are not
// the local machine.
func TestNoAccess(t *testing.T) {
	for name, h := range map[string]*host.Host{"zero": {}, "nil": nil} {
		t.Run(name, func(t *testing.T) {
			var v *host.View
			if h != nil {
				v = &h.View
			}
			for op, err := range everyRead(world{Host: &host.Host{}}, "/etc/passwd") {
				assert.ErrorIs(t, err, host.ErrNoAccess, op)
			}
			_, err := v.ReadFile("/etc/passwd")
			require.ErrorIs(t, err, host.ErrNoAccess)
			_, err = v.Run(t.Context(), sh("exit 0"))
			require.ErrorIs(t, err, host.ErrNoAccess)
			_, err = h.Change(t.Context(), sh("exit 0"))
			require.ErrorIs(t, err, host.ErrNoAccess)
			require.ErrorIs(t, h.WriteFile("/tmp/f", nil, 0o600), host.ErrNoAccess)
			require.ErrorIs(t, h.Remove("/tmp/f"), host.ErrNoAccess)
		})
	}
}

func TestExitErrorText(t *testing.T) {
	assert.EqualError(t, &host.ExitError{Name: "ufw", Code: 1}, "host: ufw: exit status 1")
	assert.EqualError(t, &host.ExitError{Name: "ufw", Code: -1, Stderr: "\nno\n"}, "host: ufw: exit status -1: no")
}

func TestPrivilege(t *testing.T) {
	for p, want := range map[host.Privilege]string{
		0:                                  "none",
		host.ReadFiles:                     "read-files",
		host.ReadFiles | host.AdminNetwork: "read-files+admin-network",
		host.AllPrivileges:                 "read-files+read-processes+write-files+admin-network+admin-system+signal-processes",
		host.WriteFiles | 1<<30:            "write-files+0x40000000",
	} {
		assert.Equal(t, want, p.String())
	}
	assert.Zero(t, host.AllPrivileges.Missing(host.ReadFiles))
	assert.Equal(t, host.WriteFiles, host.ReadFiles.Missing(host.ReadFiles|host.WriteFiles))
}
