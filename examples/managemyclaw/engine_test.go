//go:build !windows

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// socket returns the path of a unix socket: short, for there is a limit.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mmc-") //nolint:usetesting // its paths are too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "engine.sock")
}

func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, "unix://" + path
}

// fakeEngine serves HTTP where an engine should, and returns its address.
func fakeEngine(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, addr := listen(t)
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return addr
}

// silentEngine accepts connections and says nothing.
func silentEngine(t *testing.T) string {
	t.Helper()
	l, addr := listen(t)
	go func() {
		var conns []net.Conn // kept from being collected, and so closed
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range conns {
					c.Close()
				}
				return
			}
			conns = append(conns, c)
		}
	}()
	return addr
}

// Without a working engine nothing is known: an audit reports that, with the
// reason, and hardening refuses.
func TestNoEngine(t *testing.T) {
	stale := socket(t)
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	garbage, garbageAddr := listen(t)
	go func() {
		for {
			c, err := garbage.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "\x1b[2Jwho are you?\r\n\r\n")
			c.Close()
		}
	}()
	answer := func(status int, kind, body string) string {
		return fakeEngine(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		})
	}
	for name, test := range map[string]struct{ host, want string }{
		"no socket":         {"unix:///nonexistent/engine.sock", "nothing listens at unix:///nonexistent/engine.sock: start the engine"},
		"a stale socket":    {"unix://" + stale, "connection refused"},
		"garbage":           {garbageAddr, "engine"},
		"a web site":        {answer(200, "text/html", "<html><body>\x1b[31mWelcome to nginx!</body></html>"), "does not answer as an engine does"},
		"not found":         {answer(404, "text/html", "<html>404</html>"), "engine"},
		"forbidden":         {answer(403, "application/json", `{"message":"plugin \u001b[31mauthz: no"}`), "authz: no"},
		"JSON of the wrong": {answer(200, "application/json", `{"Id":[]}`), "engine"},
		"no JSON at all":    {answer(200, "application/json", ``), "engine"},
	} {
		t.Run(name, func(t *testing.T) {
			runProgram(t, "security-audit", "--docker-host", test.host, "--timeout", "5s").want(t, notPass, test.want, "")
			for _, args := range [][]string{{"harden"}, {"harden", "--plan"}} {
				state := filepath.Join(t.TempDir(), "state")
				o := runProgram(t, append(args, "--docker-host", test.host, "--timeout", "5s", "--state-dir", state)...)
				o.want(t, exitFail, "", "managemyclaw: docker: ")
				if o.stdout != "" || strings.Count(o.stderr, "\n") > 2 {
					t.Errorf("stdout %q, stderr %q", o.stdout, o.stderr)
				}
				if _, err := os.Stat(state); err == nil {
					t.Error("a state directory was made")
				}
			}
		})
	}
}

// An engine that hangs costs about one time-out, not one for each check.
func TestSilentEngine(t *testing.T) {
	host := silentEngine(t)
	const timeout = time.Second
	for _, args := range [][]string{{"security-audit"}, {"harden", "--plan"}, {"harden"}} {
		began := time.Now()
		o := runProgram(t, append(args, "--docker-host", host, "--timeout", timeout.String(), "--state-dir", t.TempDir())...)
		if args[0] == "harden" {
			o.want(t, exitFail, "", "does not answer within 1s")
		} else {
			o.want(t, notPass, "deadline exceeded", "")
		}
		took := time.Since(began)
		t.Logf("%q took %v", args, took)
		if took > 8*timeout { // there are more checks than that
			t.Errorf("%q took %v with a timeout of %v", args, took, timeout)
		}
	}
}

// An interrupt ends an audit at once, whatever it waits for.
func TestInterruptedAudit(t *testing.T) {
	host := silentEngine(t)
	for _, args := range [][]string{{"security-audit"}, {"harden", "--plan"}, {"harden"}} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(200*time.Millisecond, cancel)
		var stdout, stderr strings.Builder
		began := time.Now()
		code := run(ctx, append(args, "--docker-host", host, "--timeout", "5m", "--state-dir", t.TempDir()), os.Getenv, &stdout, &stderr)
		if code == exitPass || stdout.Len() > 0 || stderr.String() != "managemyclaw: interrupted\n" || time.Since(began) > 30*time.Second {
			t.Errorf("%q: %d after %v: %q %q", args, code, time.Since(began), stdout.String(), stderr.String())
		}
	}
}

// What a container is called, or labelled, does not steer the terminal.
func TestNamesWithEscapes(t *testing.T) {
	const evil = "open\x1b]0;owned\a\x1b[2Jclaw\u202e"
	host := fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		var body any = map[string]any{"message": "no \x1b[31m such thing"}
		switch path := r.URL.Path; {
		case strings.HasSuffix(path, "/_ping"):
			fmt.Fprint(w, "OK")
			return
		case strings.HasSuffix(path, "/version"):
			body = map[string]any{"ApiVersion": "1.41", "Version": "20.10.24", "Os": "linux"}
		case strings.HasSuffix(path, "/info"):
			body = map[string]any{"ID": "X", "ServerVersion": "20.10.24", "OSType": "linux", "Name": evil, "DockerRootDir": "/var/lib/docker"}
		case strings.HasSuffix(path, "/containers/json"):
			body = []any{map[string]any{"Id": strings.Repeat("a", 64), "Names": []string{"/" + evil}}}
		case strings.Contains(path, "/containers/"):
			body = map[string]any{
				"Id": strings.Repeat("a", 64), "Name": "/" + evil, "Created": "2026-01-01T00:00:00Z",
				"State":           map[string]any{"Status": "running", "Running": true, "Pid": 1},
				"HostConfig":      map[string]any{"Privileged": true, "CapAdd": []string{evil}},
				"Config":          map[string]any{"Image": evil, "User": evil, "Labels": map[string]string{evil: evil}},
				"NetworkSettings": map[string]any{},
			}
		default:
			w.WriteHeader(http.StatusNotFound)
		}
		if err := json.NewEncoder(w).Encode(body); err != nil {
			t.Error(err)
		}
	})
	for _, args := range [][]string{{"security-audit"}, {"security-audit", "--full"}, {"harden", "--plan"}, {"harden"}} {
		o := runProgram(t, append(args, "--docker-host", host, "--state-dir", t.TempDir())...)
		o.want(t, exitFail, "", "")
		if !strings.Contains(o.stdout, "claw") || strings.ContainsAny(o.stdout+o.stderr, "\a\u202e") {
			t.Errorf("%q: %q %q", args, o.stdout, o.stderr)
		}
	}
}
