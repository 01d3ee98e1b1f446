//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
)

// engine is the dockerd process, if there is one.
type engine struct {
	mu      sync.Mutex
	cmd     *exec.Cmd
	done    chan struct{} // closed once cmd has been waited for
	version string
}

func (e *engine) running() (*exec.Cmd, chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cmd, e.done
}

func (e *engine) wait() {
	if _, done := e.running(); done != nil {
		<-done
	}
}

// DockerHost is the engine's address, in the form that DOCKER_HOST has.
func (l *Lab) DockerHost() string { return "unix://" + l.HostPath("/run/docker.sock") }

// EngineVersion is what the engine says its version is, such as "20.10.24".
func (l *Lab) EngineVersion() string {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	return l.engine.version
}

// DockerdPID is the process number of the engine, 0 when it is stopped.
func (l *Lab) DockerdPID() int {
	cmd, done := l.engine.running()
	if cmd == nil || isClosed(done) {
		return 0
	}
	return cmd.Process.Pid
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// StartDockerd starts the engine and waits until it answers. It reads
// /etc/docker/daemon.json of the lab's host, if there is one.
func (l *Lab) StartDockerd(ctx context.Context) error {
	if l.DockerdPID() != 0 {
		return errors.New("lab: dockerd is running")
	}
	if err := l.endContainerd(ctx); err != nil {
		return err
	}
	path, err := dockerdPath(l.cfg)
	if err != nil {
		return err
	}
	args := []string{
		"--data-root=" + filepath.Join(l.dir, "docker"),
		"--exec-root=/run/docker",
		"--pidfile=/run/docker.pid",
		"--host=unix:///run/docker.sock",
		"--cgroup-parent=/" + l.id,
		"--exec-opt=native.cgroupdriver=cgroupfs",
		"--log-level=warn", // a later one, in DockerdArgs, holds
	}
	args = append(args, l.cfg.DockerdArgs...)

	logFile, err := os.OpenFile(filepath.Join(l.dir, "dockerd.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	// The engine does not end with ctx.
	cmd := l.Host.Command(context.WithoutCancel(ctx), path, args...)
	cmd.Env = []string{
		"HOME=/root",
		"PATH=" + strings.Join([]string{filepath.Join(l.dir, "bin"), filepath.Dir(path), os.Getenv("PATH")}, ":"),
	}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	var exit error
	go func() {
		exit = cmd.Wait()
		close(done)
	}()
	l.engine.mu.Lock()
	l.engine.cmd, l.engine.done = cmd, done
	l.engine.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return fmt.Errorf("lab: %s exited before it was ready (%w):\n%s", path, exit, l.DockerdLog())
		case <-ctx.Done():
			err := fmt.Errorf("lab: %s is not ready: %w:\n%s", path, ctx.Err(), l.DockerdLog())
			cmd.Process.Kill()
			<-done
			return err
		case <-tick.C:
			if version, err := l.askVersion(ctx); err == nil {
				l.engine.mu.Lock()
				l.engine.version = version
				l.engine.mu.Unlock()
				return nil
			}
		}
	}
}

// StopDockerd ends the engine as its service manager would.
func (l *Lab) StopDockerd(ctx context.Context) error {
	return l.end(ctx, syscall.SIGTERM)
}

// KillDockerd ends the engine with SIGKILL. Containers go on without it.
func (l *Lab) KillDockerd(ctx context.Context) error {
	return l.end(ctx, syscall.SIGKILL)
}

// endContainerd waits for the end of a containerd whose dockerd was killed. The
// kernel kills it then, but not at once, and a dockerd that finds its
// predecessor's still there relies on it for good.
func (l *Lab) endContainerd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	data, err := os.ReadFile(l.HostPath("/run/docker/containerd/containerd.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return err
	}
	for {
		// By now the number may be another process's.
		group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil || !strings.Contains(string(group), l.id) {
			return nil
		}
		syscall.Kill(pid, syscall.SIGKILL)
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab: containerd does not end: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// RestartDockerd is StopDockerd and StartDockerd.
func (l *Lab) RestartDockerd(ctx context.Context) error {
	if err := l.StopDockerd(ctx); err != nil {
		return err
	}
	return l.StartDockerd(ctx)
}

func (l *Lab) end(ctx context.Context, sig os.Signal) error {
	cmd, done := l.engine.running()
	if cmd == nil || isClosed(done) {
		return errors.New("lab: dockerd is not running")
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("lab: dockerd: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lab: dockerd does not end on %v: %w", sig, ctx.Err())
	}
}

// DockerdLog is the end of what the engine has printed.
func (l *Lab) DockerdLog() string {
	f, err := os.Open(filepath.Join(l.dir, "dockerd.log"))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const tail = 8 << 10
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		f.Seek(-tail, io.SeekEnd)
	}
	data, _ := io.ReadAll(f)
	return string(data)
}

// Docker runs the docker program against the lab's engine and returns what it
// printed, without white space around it. An error has what it complained of.
func (l *Lab) Docker(ctx context.Context, args ...string) (stdout string, err error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	// Neither the contexts nor the credentials of whoever runs this.
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + l.dir,
		"DOCKER_CONFIG=" + filepath.Join(l.dir, "docker-cli"),
		"DOCKER_HOST=" + l.DockerHost(),
	}
	cmd.WaitDelay = 5 * time.Second
	var outBuf, errBuf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &outBuf, &errBuf
	err = cmd.Run()
	stdout = strings.TrimSpace(outBuf.String())
	if err != nil {
		return stdout, fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errBuf.String()))
	}
	return stdout, nil
}

// api is an HTTP client for the engine's socket.
func (l *Lab) api() *http.Client {
	socket := l.HostPath("/run/docker.sock")
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

func (l *Lab) askVersion(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/version", nil)
	if err != nil {
		return "", err
	}
	resp, err := l.api().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var v struct{ Version string }
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK || v.Version == "" {
		return "", fmt.Errorf("lab: /version: %s", resp.Status)
	}
	return v.Version, nil
}
