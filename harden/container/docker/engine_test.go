package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/docker/docker/api/types/container"

	"github.com/managemyclaw/hardshell/harden/container"
)

// serve answers as an engine on a unix socket would.
func serve(t testing.TB, h http.Handler) *Engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return open(t, "unix://"+socket)
}

func open(t testing.TB, host string) *Engine {
	t.Helper()
	e, err := Open(host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// fake is an engine with n containers, of which some vanish while they are
// listed.
type fake struct {
	n        int
	vanished func(i int) bool
	inspects atomic.Int64
	volumes  atomic.Int64
	at, most atomic.Int64
}

func (f *fake) id(i int) string { return fmt.Sprintf("%064x", i+1) }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	p := r.URL.Path
	if strings.HasPrefix(p, "/v1.") {
		_, p, _ = strings.Cut(p[1:], "/")
		p = "/" + p
	}
	switch {
	case p == "/_ping":
	case p == "/info":
		fmt.Fprint(w, `{"ID":"X","ServerVersion":"20.10.24","DockerRootDir":"/data","CgroupVersion":"2","SecurityOptions":["name=seccomp,profile=default","name=userns","name=rootless"]}`)
	case p == "/containers/json":
		all := make([]map[string]any, f.n)
		for i := range all {
			all[i] = map[string]any{"Id": f.id(i), "Names": []string{fmt.Sprintf("/c%d", i)}, "State": "running"}
		}
		json.NewEncoder(w).Encode(all)
	case strings.HasPrefix(p, "/containers/"):
		f.inspects.Add(1)
		now := f.at.Add(1)
		defer f.at.Add(-1)
		for old := f.most.Load(); now > old && !f.most.CompareAndSwap(old, now); old = f.most.Load() {
		}
		name := strings.Split(p, "/")[2]
		for i := range f.n {
			if name != f.id(i) && name != fmt.Sprintf("c%d", i) {
				continue
			}
			if f.vanished != nil && f.vanished(i) {
				break
			}
			fmt.Fprintf(w, `{"Id":%q,"Name":"/c%d","State":{"Status":"running","Pid":%d},"Config":{"Env":["A=b"]},"HostConfig":{},`+
				`"Mounts":[{"Type":"volume","Name":"shared","Driver":"local","Source":"/v/_data","Destination":"/data","RW":true}]}`, f.id(i), i, i+100)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"No such container: %s"}`, name)
	case strings.HasPrefix(p, "/volumes/"):
		f.volumes.Add(1)
		fmt.Fprint(w, `{"Name":"shared","Driver":"local","Options":{"type":"none","o":"bind","device":"/etc"}}`)
	default:
		w.WriteHeader(http.StatusTeapot)
	}
}

func TestContainersOfAFakeEngine(t *testing.T) {
	f := &fake{n: 5, vanished: func(i int) bool { return i == 3 }}
	e := serve(t, f)
	all, err := e.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 {
		t.Errorf("%d containers, want 4: one vanished", len(all))
	}
	if f.volumes.Load() != 1 {
		t.Errorf("the volume was asked for %d times", f.volumes.Load())
	}
	if m := all[0].Mounts[0]; m.Options["device"] != "/etc" {
		t.Errorf("mount %+v", m)
	}

	one, err := e.Containers(t.Context(), "c1", f.id(1))
	if err != nil || len(one) != 1 || one[0].Name != "c1" {
		t.Errorf("by name and id: %v, %v", one, err)
	}
	for _, name := range []string{"c3", "nobody", "", "../info", "c1/json?x="} {
		_, err = e.Containers(t.Context(), "c0", name)
		if !errors.Is(err, container.ErrNoContainer) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err = e.Containers(t.Context(), "nobody"); !strings.Contains(err.Error(), "c0, c1") {
		t.Errorf("the error does not say what there is: %v", err)
	}

	info, err := e.Info(t.Context())
	want := container.EngineInfo{
		Name: "docker", Version: "20.10.24", ID: "X", Host: e.host, PID: info.PID,
		Rootless: true, UsernsRemap: true, SeccompProfile: "default", CgroupVersion: "2", APIVersion: "1.41", DataRoot: "/data",
	}
	if err != nil || info != want {
		t.Errorf("info %+v, %v", info, err)
	}
	if runtime.GOOS == "linux" && info.PID != os.Getpid() {
		t.Errorf("pid %d, want that of the listener, %d", info.PID, os.Getpid())
	}
}

// What is not an engine is reported as such, with what to do; never as a
// missing container, which would say that there is nothing to judge.
func TestWhatIsNoEngine(t *testing.T) {
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	const js, html = "application/json", "text/html"
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    error
	}{
		{"HTML", answer(200, html, "<html>hello</html>"), container.ErrEngine},
		{"HTML with status 404", answer(404, html, "<html>no</html>"), container.ErrEngine},
		{"HTML with status 502", answer(502, html, "<html>bad gateway</html>"), container.ErrEngine},
		{"garbage", answer(200, js, "\x00\x01\x02"), container.ErrEngine},
		{"nothing", answer(200, js, ""), container.ErrEngine},
		{"cut off", answer(200, js, `[{"Id":"abc","Na`), container.ErrEngine},
		{"foreign JSON", answer(200, js, `{"hello":"world"}`), container.ErrEngine},
		{"a list of nothing known", answer(200, js, `[{"hello":"world"}]`), container.ErrEngine},
		{"too much", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", js)
			chunk := []byte(`[` + strings.Repeat(" ", 1<<20))
			for range maxBody>>20 + 1 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
				chunk[0] = ' '
			}
		}, container.ErrEngine},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, container.ErrEngine},
		{"an error without JSON headers", answer(500, "text/plain", "oops"), container.ErrEngine},
		{"unauthorized", answer(401, js, `{"message":"who are you"}`), fs.ErrPermission},
		{"forbidden by a plugin", answer(403, js, `{"message":"authorization denied by plugin"}`), fs.ErrPermission},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := serve(t, c.handler)
			for op, call := range map[string]func() error{
				"Containers": func() error { _, err := e.Containers(t.Context()); return err },
				"named":      func() error { _, err := e.Containers(t.Context(), "x"); return err },
				"Info":       func() error { _, err := e.Info(t.Context()); return err },
			} {
				err := call()
				if !errors.Is(err, c.want) {
					t.Errorf("%s: %v", op, err)
				}
				if errors.Is(err, container.ErrNoContainer) || err != nil && !strings.Contains(err.Error(), e.host) {
					t.Errorf("%s: %v", op, err)
				}
			}
		})
	}
}

// What an engine leaves out is not guessed: of unknown version, it may have old
// defects.
func TestInfo(t *testing.T) {
	for _, c := range []struct {
		name, info, version string
		want                container.EngineInfo // none if empty: it is no engine
	}{
		{"no version of the API", `{"ID":"X","ServerVersion":"29.0.0"}`, "", container.EngineInfo{}},
		{"no version", `{"ID":"X"}`, "1.52", container.EngineInfo{}},
		{"nothing", `{}`, "1.52", container.EngineInfo{}},
		{
			"no seccomp", `{"ServerVersion":"29.0.0","SecurityOptions":["name=cgroupns"]}`, "1.52",
			container.EngineInfo{Version: "29.0.0", APIVersion: "1.52"},
		},
		{
			"seccomp turned off", `{"ServerVersion":"29.0.0","SecurityOptions":["name=seccomp,profile=unconfined"]}`, "1.52",
			container.EngineInfo{Version: "29.0.0", APIVersion: "1.52"},
		},
		{
			"a profile of the operator's", `{"ServerVersion":"29.0.0","SecurityOptions":["name=apparmor","name=seccomp,profile=/etc/docker/p.json"]}`, "1.52",
			container.EngineInfo{Version: "29.0.0", APIVersion: "1.52", SeccompProfile: "/etc/docker/p.json"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if c.version != "" {
					w.Header().Set("Api-Version", c.version)
				}
				if strings.HasSuffix(r.URL.Path, "/info") {
					io.WriteString(w, c.info)
				}
			}))
			got, err := e.Info(t.Context())
			if c.want == (container.EngineInfo{}) {
				if !errors.Is(err, container.ErrEngine) {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			c.want.Name, c.want.Host, c.want.PID = "docker", e.host, got.PID
			if err != nil || got != c.want {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp.Close()
	for name, host := range map[string]string{
		"no socket":    "unix://" + filepath.Join(dir, "none"),
		"refused":      "unix://" + dead,
		"tcp refused":  "tcp://" + tcp.Addr().String(),
		"not a socket": "unix:///etc/passwd",
	} {
		_, err := open(t, host).Containers(t.Context())
		if !errors.Is(err, container.ErrEngine) || errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A hanging engine costs no more than the context allows, and leaves no
// goroutine.
func TestEngineThatHangs(t *testing.T) {
	release := make(chan struct{})
	before := runtime.NumGoroutine()
	func() {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}))
		srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		defer srv.Close()
		defer close(release)
		e := open(t, "unix://"+socket)
		defer e.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := e.Containers(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, container.ErrEngine) || !strings.Contains(err.Error(), e.host) {
			t.Errorf("Containers: %v", err)
		}
		if _, err := e.Info(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, container.ErrEngine) {
			t.Errorf("Info: %v", err)
		}
		canceled, stop := context.WithCancel(t.Context())
		stop()
		if err := e.Start(canceled, "x"); !errors.Is(err, context.Canceled) {
			t.Errorf("Start: %v", err)
		}
	}()
	for range 200 {
		if runtime.NumGoroutine() <= before+2 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

func TestTenThousandContainers(t *testing.T) {
	f := &fake{n: 10_000}
	f.vanished = func(int) bool { return false }
	e := serve(t, fast{f})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	all, err := e.Containers(t.Context())
	if err != nil || len(all) != f.n {
		t.Fatalf("%d containers, %v", len(all), err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 64<<20 {
		t.Errorf("%d MiB are kept", kept>>20)
	}
	if m := f.most.Load(); m > concurrency {
		t.Errorf("%d requests at once", m)
	}
	runtime.KeepAlive(all)
}

// fast finds a container of a large fake without a search.
type fast struct{ *fake }

func (f fast) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var id uint64
	if _, rest, ok := strings.Cut(r.URL.Path, "/containers/"); ok && rest != "json" {
		if _, err := fmt.Sscanf(rest, "%64x/json", &id); err == nil && id > 0 {
			now := f.at.Add(1)
			defer f.at.Add(-1)
			for old := f.most.Load(); now > old && !f.most.CompareAndSwap(old, now); old = f.most.Load() {
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"Id":"%064x","Name":"/c%d","State":{"Status":"running","Pid":9},"Config":{"Env":["A=b"]},"HostConfig":{}}`, id, id)
			return
		}
	}
	f.fake.ServeHTTP(w, r)
}

func TestHosts(t *testing.T) {
	for host, ok := range map[string]bool{
		"": true, "unix:///run/docker.sock": true, "unix:///run/agent@home/docker.sock": true,
		"tcp://10.0.0.1:2375": true, "tcp://[2001:db8::1]:2375": true, "tcp://engine.example:2375/": true,

		"/run/docker.sock": false, "unix://run/docker.sock": false, "unix://": false, "unix:///" + strings.Repeat("x", 200): false,
		"tcp://": false, "tcp://10.0.0.1": false, "tcp://:2375": false, "tcp://10.0.0.1:": false, "tcp://2001:db8::1:2375": false, "10.0.0.1:2375": false,
		"ssh://10.0.0.1": false, "http://10.0.0.1:2375": false, "fd://": false, "npipe:////./pipe/docker_engine": false,
	} {
		e, err := Open(host)
		if (err == nil) != ok {
			t.Errorf("Open(%q): %v", host, err)
		}
		if err == nil {
			e.Close()
		}
	}
	t.Setenv("DOCKER_HOST", "tcp://192.0.2.1:1")
	if e := open(t, ""); e.host != DefaultHost {
		t.Errorf("the environment decides: %s", e.host)
	}
}

// An address with credentials is refused in every spelling, and no error shows
// them.
func TestHostsWithCredentials(t *testing.T) {
	const secret = "hunter2"
	for _, host := range []string{
		"tcp://user:hunter2@10.0.0.1:2375", "tcp://hunter2@10.0.0.1:2375", "tcp://user:hunter2@", "tcp://user:hunter2@[::1",
		"tcp://10.0.0.1:2375?token=hunter2", "tcp://10.0.0.1:2375/?token=hunter2", "tcp://10.0.0.1:2375#hunter2",
		"http://user:hunter2@10.0.0.1:2375", "ssh://user:hunter2@10.0.0.1", "TCP://user:hunter2@10.0.0.1:2375",
		"user:hunter2@10.0.0.1:2375", "tcp:user:hunter2@10.0.0.1:2375", "tcp:/user:hunter2@10.0.0.1:2375", "unix://user:hunter2@/run/docker.sock",
	} {
		e, err := Open(host)
		if err == nil {
			e.Close()
			t.Errorf("%q is accepted", host)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// Over TLS, with the certificate checked.
func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(&fake{n: 1})
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	host := "tcp://" + srv.Listener.Addr().String()
	config := srv.Client().Transport.(*http.Transport).TLSClientConfig
	e, err := New(Config{Host: host, TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	info, err := e.Info(t.Context())
	if err != nil || !info.Remote || info.PID != 0 {
		t.Errorf("%+v %v", info, err)
	}
	if _, err := open(t, host).Info(t.Context()); !errors.Is(err, container.ErrEngine) {
		t.Errorf("in clear: %v", err)
	}
	stranger := config.Clone()
	stranger.RootCAs = nil
	s, err := New(Config{Host: host, TLS: stranger})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Info(t.Context()); !errors.Is(err, container.ErrEngine) {
		t.Errorf("unknown authority: %v", err)
	}
}

func TestErrorsOfTheEngineAreRedacted(t *testing.T) {
	err := redact(fmt.Errorf("%w: bad variable hunter2hunter2", container.ErrNameTaken), []string{"A=hunter2hunter2", "B=x", "C"})
	if strings.Contains(err.Error(), "hunter2") || !errors.Is(err, container.ErrNameTaken) {
		t.Error(err)
	}
	if plain := errors.New("plain x"); redact(plain, []string{"B=x"}) != plain {
		t.Error("changed without need")
	}
}

func TestChanged(t *testing.T) {
	got := changed([]api.FilesystemChange{
		{Kind: api.ChangeModify, Path: "/home"},
		{Kind: api.ChangeModify, Path: "/home/app"},
		{Kind: api.ChangeAdd, Path: "/home/app/new"},
		{Kind: api.ChangeAdd, Path: "/home/app/new/file"},
		{Kind: api.ChangeDelete, Path: "/etc/motd"},
		{Kind: api.ChangeModify, Path: "/etc"},
		{Kind: api.ChangeModify, Path: "/opt"},
	})
	want := "/etc/motd /home/app/new /home/app/new/file /opt"
	if strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
