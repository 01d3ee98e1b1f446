package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/internal/lab"
)

// What an engine does between which and the switch there is a proxy.
const (
	engineRefuses = "refuses" // everything
	engineShams   = "shams"   // says that everything was done, and has been, and does nothing
	engineDenies  = "denies"  // that there is such a container
)

// An engineProxy is between the switch and the lab's engine.
type engineProxy struct {
	host string
	mode atomic.Value
	pass *httputil.ReverseProxy
}

func newEngineProxy(t *testing.T, l *lab.Lab) *engineProxy {
	t.Helper()
	socket := strings.TrimPrefix(l.DockerHost(), "unix://")
	e := &engineProxy{}
	e.mode.Store("")
	e.pass = &httputil.ReverseProxy{
		ErrorLog: log.New(io.Discard, "", 0),
		Rewrite:  func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "docker" },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}},
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // as if nobody were there
		ModifyResponse: e.amend,
	}
	e.host = fakeEngine(t, e.serve)
	return e
}

func (e *engineProxy) serve(w http.ResponseWriter, r *http.Request) {
	mode, path := e.mode.Load(), r.URL.Path
	answer := func(status int, body string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
	switch {
	case mode == engineRefuses:
		answer(http.StatusInternalServerError, `{"message":"it was told to fail"}`)
	case mode == engineDenies && strings.HasSuffix(path, "/containers/json"):
		answer(http.StatusOK, `[]`)
	case mode == engineDenies && strings.Contains(path, "/containers/"), mode == engineDenies && strings.HasSuffix(path, "/disconnect"):
		answer(http.StatusNotFound, `{"message":"No such container"}`)
	case mode == engineShams && r.Method == http.MethodPost && strings.HasSuffix(path, "/update"):
		answer(http.StatusOK, `{"Warnings":null}`)
	case mode == engineShams && r.Method == http.MethodPost && strings.HasSuffix(path, "/disconnect"):
		w.WriteHeader(http.StatusOK)
	case mode == engineShams && r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.WriteHeader(http.StatusNoContent)
	default:
		e.pass.ServeHTTP(w, r)
	}
}

// amend has a container be stopped for good, by what is said about it.
func (e *engineProxy) amend(resp *http.Response) error {
	path := resp.Request.URL.Path
	if e.mode.Load() != engineShams || !strings.Contains(path, "/containers/") || !strings.HasSuffix(path, "/json") || strings.HasSuffix(path, "/containers/json") {
		return nil
	}
	var c map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
		return err
	}
	if state, ok := c["State"].(map[string]any); ok {
		state["Status"], state["Running"], state["Pid"] = "exited", false, 0
	}
	if config, ok := c["HostConfig"].(map[string]any); ok {
		config["RestartPolicy"] = map[string]any{"Name": "no", "MaximumRetryCount": 0}
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	return nil
}

func engineIn(mode string) func(*trial) {
	return func(r *trial) {
		r.proxy.mode.Store(mode)
		r.onLift(func() { r.proxy.mode.Store("") })
	}
}

func (r *trial) engineDies() {
	if err := r.KillDockerd(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.onLift(func() {
		if err := r.StartDockerd(context.Background()); err != nil {
			r.t.Error(err)
		}
	})
}

func (r *trial) engineHangs() {
	pid := r.DockerdPID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		r.t.Fatal(err)
	}
	r.onLift(func() { syscall.Kill(pid, syscall.SIGCONT) })
}

// What Composio does.
const (
	composioFails = "fails"
	composioHangs = "hangs"
	composioShams = "shams" // answers all that changes something with success, and does nothing
)

// A composioFront is where Composio is reached, by the switch and the gateway.
type composioFront struct {
	url    string
	mode   atomic.Value
	calls  atomic.Int64 // of tools
	real   http.Handler
	shadow *composiotest.Server // what is asked to answer, in place of what is to do
}

func newComposioFront(t *testing.T, real *composiotest.Server) *composioFront {
	t.Helper()
	f := &composioFront{real: real, shadow: composiotest.New(composiotest.Config{})}
	for _, a := range real.Accounts() {
		f.shadow.AddAccount(a)
	}
	f.mode.Store("")
	f.url, _ = listenLoopback(t, f)
	return f
}

func (f *composioFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mode := f.mode.Load()
	call := strings.Contains(r.URL.Path, "/tools/execute")
	if call {
		f.calls.Add(1)
	}
	switch {
	case mode == composioFails:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, `{"error":{"message":"it was told to fail","slug":"Internal","status":500}}`)
	case mode == composioHangs:
		<-r.Context().Done()
	case mode == composioShams && r.Method != http.MethodGet && !call:
		f.shadow.ServeHTTP(w, r)
	default:
		f.real.ServeHTTP(w, r)
	}
}

func composioIn(mode string) func(*trial) {
	return func(r *trial) {
		r.front.mode.Store(mode)
		r.onLift(func() { r.front.mode.Store("") })
	}
}

// What the way to the gateway does.
const (
	doorHangs = "hangs"
	doorLies  = "lies" // says at one door that the agent is stopped
)

// A gatewayDoor is where the gateway is reached, by the agent and by who looks
// whether it is let in.
type gatewayDoor struct {
	url  string
	mode atomic.Value
	to   atomic.Pointer[httputil.ReverseProxy]
}

func newGatewayDoor(t *testing.T, gateway string) *gatewayDoor {
	t.Helper()
	d := &gatewayDoor{}
	d.mode.Store("")
	d.lead(gateway)
	d.url, _ = listenLoopback(t, d)
	return d
}

func (d *gatewayDoor) lead(gateway string) {
	to, err := url.Parse(gateway)
	if err != nil {
		panic(err)
	}
	d.to.Store(&httputil.ReverseProxy{
		ErrorLog:     log.New(io.Discard, "", 0),
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:    &http.Transport{DisableKeepAlives: true},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	})
}

func (d *gatewayDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case d.mode.Load() == doorHangs:
		<-r.Context().Done()
	case d.mode.Load() == doorLies && r.URL.Path != "/mcp":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"error":{"message":"the agent is stopped","slug":"Gateway_fenced","status":403}}`)
	default:
		d.to.Load().ServeHTTP(w, r)
	}
}

func doorIn(mode string) func(*trial) {
	return func(r *trial) {
		r.door.mode.Store(mode)
		r.onLift(func() { r.door.mode.Store("") })
	}
}

// open starts a gateway, which needs Composio for that.
func (r *trial) open(o *office) *service {
	mode := r.front.mode.Swap("")
	defer r.front.mode.Store(mode)
	return o.start(r.t, "--composio-url", r.front.url)
}

// gatewayGoes ends the gateway; another takes its place in the end.
func (r *trial) gatewayGoes() {
	r.gateway.stop()
	r.onLift(func() {
		r.gateway = r.open(r.office)
		r.door.lead(r.gateway.url)
	})
}

// gatewayBlind has a gateway that looks at another fence, and a door that says
// otherwise.
func (r *trial) gatewayBlind() {
	other := *r.office
	other.state = filepath.Join(r.office.dir, "another")
	blind := r.open(&other)
	r.door.lead(blind.url)
	r.door.mode.Store(doorLies)
	r.onLift(func() {
		r.door.mode.Store("")
		r.door.lead(r.gateway.url)
	})
}

// trailInTheWay has a file where the trail is.
func (r *trial) trailInTheWay() {
	dir := r.program.book(programTrail).dir
	if err := os.RemoveAll(dir); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.onLift(func() { os.Remove(dir) })
}

func (r *trial) diskFills() {
	name := filepath.Join(r.stage.disk.root, "filler")
	f, err := os.Create(name)
	if err != nil {
		r.t.Fatal(err)
	}
	for block := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(block)
	}
	for err = nil; err == nil; {
		_, err = f.Write([]byte{0})
	}
	f.Close()
	r.onLift(func() { os.Remove(name) })
}

func (r *trial) diskReadOnly() {
	d := r.stage.disk // files that are open keep the mount itself from it
	d.command(r.t, nil, "mount", "--bind", d.at, d.at)
	d.command(r.t, nil, "mount", "-o", "remount,bind,ro", d.at)
	r.onLift(func() { d.command(r.t, nil, "umount", "--lazy", d.at) })
}

// diskHangs covers the disk with one that is served by nobody.
func (r *trial) diskHangs() {
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.stage.disk.command(r.t, []*os.File{fuse}, "mount", "-i", "-t", "fuse", "hung", r.stage.disk.at, "-o", "fd=3,rootmode=40000,user_id=0,group_id=0")
	r.onLift(func() {
		r.stage.disk.command(r.t, nil, "umount", "--lazy", "-i", r.stage.disk.at)
		fuse.Close()
	})
}

// fenceLocked holds the lock that those take who change the fence.
func (r *trial) fenceLocked() {
	f, err := os.OpenFile(filepath.Join(r.office.state, "fence", ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		r.t.Fatal(err)
	}
	r.onLift(func() { f.Close() })
}

// flushed has another process take all rules away, of the host and of the
// container, right after they were made.
func (r *trial) flushed() {
	pid := r.pid
	r.actuators[kernelParts[aNetfilter]].after = func() {
		for _, where := range [][]string{{"nft"}, {"nsenter", "-t", strconv.Itoa(pid), "-n", "nft"}} {
			for _, family := range []string{"inet", "bridge"} {
				_ = r.Host.Command(r.t.Context(), where[0], append(where[1:], "delete", "table", family, "hardshell_kill")...).Run()
			}
		}
	}
}

// thawed has somebody thaw the container again and again.
func (r *trial) thawed() {
	end, ended := make(chan struct{}), make(chan struct{})
	f := r.freezer
	go func() {
		defer close(ended)
		for tick := time.Tick(time.Millisecond); ; {
			select {
			case <-end:
				return
			case <-tick:
				f.thaw()
			}
		}
	}()
	r.onLift(func() { close(end); <-ended })
}
