package tailscale

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// recorded returns an answer that tailscaled 1.102.5 gave.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// serve answers on a unix socket as h does.
func serve(t testing.TB, h http.HandlerFunc) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return &Client{Socket: socket}
}

// daemon serves recorded answers, and refuses what tailscaled refuses.
func daemon(t testing.TB, status, prefs, config string) *Client {
	t.Helper()
	answers := map[string][]byte{
		"/localapi/v0/status?peers=false": recorded(t, status),
		"/localapi/v0/prefs":              recorded(t, prefs),
		"/localapi/v0/serve-config":       recorded(t, config),
	}
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.RequestURI()]
		switch {
		case r.Host != "local-tailscaled.sock":
			http.Error(w, "invalid localapi request", http.StatusForbidden)
		case r.Method != http.MethodGet || !ok:
			http.Error(w, "no", http.StatusNotFound)
		default:
			w.Write(body)
		}
	})
}

func TestReadRecorded(t *testing.T) {
	s, err := daemon(t, "status-running", "prefs-ssh-shields", "serve-foreground").Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Status.Backend != "Running" || !s.Status.Self.Online || s.Status.Self.KeyExpiry != nil || !s.Status.MayFunnel() {
		t.Errorf("status %+v", s.Status)
	}
	if want := netip.MustParseAddr("100.64.0.1"); len(s.Status.Addrs) != 2 || s.Status.Addrs[0] != want {
		t.Errorf("addresses %v", s.Status.Addrs)
	}
	if want := (Prefs{RunSSH: true, ShieldsUp: true, NetfilterMode: 2}); s.Prefs != want {
		t.Errorf("preferences %+v, want %+v", s.Prefs, want)
	}
	want := []Funnel{
		{"openclaw-gw.fake-tailnet.ts.net:10000", "foreground session 730d1af97b143b25"},
		{"openclaw-gw.fake-tailnet.ts.net:8443", ""},
	}
	if got := s.Serve.Funnels(); !reflect.DeepEqual(got, want) {
		t.Errorf("funnels %v, want %v", got, want)
	}
	if all := fmt.Sprintf("%#v", s); strings.Contains(all, "user-1") || strings.Contains(all, "privkey") || strings.Contains(all, "nodekey") {
		t.Errorf("keeps what nobody needs: %s", all)
	}
}

func TestConnected(t *testing.T) {
	recordedAt := time.Date(2026, 11, 22, 11, 30, 0, 0, time.UTC)
	for _, tt := range []struct {
		status string
		now    time.Time
		why    string // empty if it is connected
	}{
		{"status-running", recordedAt, ""},
		{"status-keyexpiry-72h", recordedAt, ""},
		{"status-keyexpiry-72h", recordedAt.AddDate(0, 0, 4), "its key expired"},
		{"status-expired", recordedAt, "its key expired"},
		{"status-stopped", recordedAt, "its state is Stopped"},
		{"status-needslogin", recordedAt, "its state is NeedsLogin"},
	} {
		s, err := daemon(t, tt.status, "prefs-default", "serve-none").Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		why, ok := s.Status.Connected(tt.now)
		if ok != (tt.why == "") || !strings.HasPrefix(why, tt.why) {
			t.Errorf("%s at %v: %v, %q; want %q", tt.status, tt.now, ok, why, tt.why)
		}
	}
	running := Status{Backend: "Running", Self: Self{Online: true}}
	if why, ok := running.Connected(recordedAt); !ok {
		t.Error(why)
	}
	running.Self.KeyExpiry = &recordedAt
	if _, ok := running.Connected(recordedAt); ok {
		t.Error("connected at the very moment when the key expires")
	}
	running.Self = Self{}
	if _, ok := running.Connected(recordedAt); ok {
		t.Error("connected, and not online")
	}
}

func TestFunnels(t *testing.T) {
	for _, tt := range []struct {
		name, config string
		want         []Funnel
	}{
		{"nothing is served", `null`, nil},
		{"nothing is served, as the CLI says it", `{}`, nil},
		{"served to the tailnet only", string(recorded(t, "serve-tailnet-only")), nil},
		{"switched off again", `{"AllowFunnel":{"a:443":false}}`, nil},
		{"by the daemon", string(recorded(t, "serve-funnel")), []Funnel{{"openclaw-gw.fake-tailnet.ts.net:443", ""}}},
		{"in the foreground only", `{"Foreground":{"s":{"AllowFunnel":{"a:443":true}}}}`, []Funnel{{"a:443", "foreground session s"}}},
		{"by a service", `{"Services":{"svc:web":{"AllowFunnel":{"a:443":true}}}}`, []Funnel{{"a:443", "service svc:web"}}},
		{"nested", `{"Foreground":{"s":{"Services":{"svc:w":{"AllowFunnel":{"a:1":true}}}}}}`, []Funnel{{"a:1", "foreground session s, service svc:w"}}},
		{"an empty session", `{"Foreground":{"s":null}}`, nil},
	} {
		s, err := parse(recorded(t, "status-running"), recorded(t, "prefs-default"), []byte(tt.config))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := s.Serve.Funnels(); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestErrors(t *testing.T) {
	good := func(w http.ResponseWriter, r *http.Request) {}
	stale := filepath.Join(t.TempDir(), "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	for _, tt := range []struct {
		name string
		c    *Client
		is   error
	}{
		{"no socket", &Client{Socket: filepath.Join(t.TempDir(), "none")}, ErrNoDaemon},
		{"a socket that nobody listens on", &Client{Socket: stale}, ErrNoDaemon},
		{"refused", serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }), fs.ErrPermission},
		{"hangs", func() *Client {
			c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			c.Timeout = 20 * time.Millisecond
			return c
		}(), context.DeadlineExceeded},
		{"empty", serve(t, good), nil},
		{"an error", serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "{}", http.StatusInternalServerError) }), nil},
		{"too large", serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, maxAnswer+1)) }), nil},
		{"something else", serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }), nil},
		{"a redirect", serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }), nil},
	} {
		s, err := tt.c.Read(t.Context())
		if err == nil || s != nil {
			t.Errorf("%s: got %+v, %v", tt.name, s, err)
		} else if tt.is != nil && !errors.Is(err, tt.is) || tt.is == nil && (errors.Is(err, ErrNoDaemon) || errors.Is(err, fs.ErrPermission)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestParseRefusesWhatIsNotTailscaleds(t *testing.T) {
	status, prefs := string(recorded(t, "status-running")), string(recorded(t, "prefs-default"))
	for _, answers := range [][3]string{{status, "{}", "null"}, {"{}", prefs, "null"}, {status, prefs, "[]"}, {status, "null", "null"}} {
		if s, err := parse([]byte(answers[0]), []byte(answers[1]), []byte(answers[2])); err == nil || s != nil {
			t.Errorf("%.20q %.20q %q: got %+v", answers[0], answers[1], answers[2], s)
		}
	}
}

// What does not say what every tailscaled says is not read as being off.
func FuzzParse(f *testing.F) {
	for _, names := range [][3]string{
		{"status-running", "prefs-default", "serve-none"},
		{"status-expired", "prefs-ssh-shields", "serve-foreground"},
	} {
		f.Add(recorded(f, names[0]), recorded(f, names[1]), recorded(f, names[2]))
	}
	f.Add([]byte(`{}`), []byte(`{}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, status, prefs, serve []byte) {
		s, err := parse(status, prefs, serve)
		if (s == nil) == (err == nil) {
			t.Fatalf("state %v, error %v", s, err)
		}
		if err != nil {
			return
		}
		if s.Status.Backend == "" {
			t.Error("a state without a BackendState")
		}
		if why, ok := s.Status.Connected(time.Unix(1<<31, 0)); ok != (why == "") {
			t.Errorf("connected %v, and %q", ok, why)
		}
		for _, fn := range s.Serve.Funnels() {
			_ = fn
		}
	})
}
