//go:build linux

package lab

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// The sources travel with the package, so that a program outside the module's
// checkout can make a lab too.
//
//go:embed agent/*.go
var agentSource embed.FS

// agentModule is the go.mod that the sources are compiled with. They need the
// standard library only.
const agentModule = "module agent\n\ngo 1.26\n"

// AgentBinary compiles the program that is in the lab's images, unless it is
// in the user's cache directory already, and returns where it is. It is
// static, and runs outside containers too.
func AgentBinary(ctx context.Context) (string, error) {
	file, err := agentPath()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// Under sudo the home directory may still be somebody else's, who could
	// then choose what root runs.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if s := info.Sys().(*syscall.Stat_t); int(s.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 || !info.IsDir() {
		return "", fmt.Errorf("lab: %s is not ours alone: %v, uid %d", dir, info.Mode(), s.Uid)
	}
	// One compiles, the others wait: it takes all processors for a while.
	lock, err := os.OpenFile(file+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", os.NewSyscallError("flock", err)
	}
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	return file, compileAgent(ctx, file)
}

func compileAgent(ctx context.Context, file string) error {
	dir, err := os.MkdirTemp(filepath.Dir(file), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	src, err := fs.Sub(agentSource, "agent")
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, src); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(agentModule), 0o600); err != nil {
		return err
	}
	out := filepath.Join(dir, "agent")
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w -buildid=", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "GOPROXY=off",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the agent: %w: %s", err, strings.TrimSpace(string(text)))
	}
	// Whole or not at all.
	return os.Rename(out, file)
}

func haveAgent() bool {
	file, err := agentPath()
	if err != nil {
		return false
	}
	_, err = os.Stat(file)
	return err == nil
}

// agentPath depends on everything that the binary does.
func agentPath() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s", runtime.Version(), runtime.GOARCH, agentModule)
	files, err := fs.Glob(agentSource, "agent/*.go")
	if err != nil {
		return "", err
	}
	for _, name := range files {
		data, err := agentSource.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, name, len(data))
		h.Write(data)
	}
	return filepath.Join(cache, "hardshell-lab", "agent-"+hex.EncodeToString(h.Sum(nil))[:16]), nil
}
