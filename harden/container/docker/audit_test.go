package docker

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
)

// unprivileged returns this machine as somebody sees it who may nothing.
func unprivileged() *host.View {
	v := host.Local().View
	v.Granted = 0
	return &v
}

func auditOf(t *testing.T, ctx context.Context, e *Engine, v *host.View) *audit.Report {
	t.Helper()
	report, err := new(audit.Auditor).Run(ctx, v, container.Checks(container.NewSource(e), container.Profile{})...)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// hardened answers for containers of which the engine has nothing bad to say.
type hardened struct{ *fake }

func (h hardened) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, rest, _ := strings.Cut(r.URL.Path, "/containers/")
	var id uint64
	if _, err := fmt.Sscanf(rest, "%64x/json", &id); err != nil || id == 0 {
		h.fake.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"Id":"%064x","Name":"/c%d","State":{"Status":"running","Running":true,"Pid":9},"Config":{"User":"1000:1000","Env":["A=b"]},`+
		`"HostConfig":{"ReadonlyRootfs":true,"CapDrop":["ALL"],"SecurityOpt":["no-new-privileges"],"Memory":67108864,"PidsLimit":100,"CgroupnsMode":"private","IpcMode":"private",`+
		`"MaskedPaths":["/proc/kcore"],"ReadonlyPaths":["/proc/sys"]}}`, id, id)
}

// The declarations of ten thousand containers are no evidence: where the kernel
// may not be looked at, everything is unknown, and says so at bounded length.
func TestAuditOfTenThousandContainers(t *testing.T) {
	e := serve(t, hardened{&fake{n: 10_000}})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	report := auditOf(t, t.Context(), e, unprivileged())
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)
	t.Logf("%v, %d MiB allocated in total, %d MiB from the system", elapsed, (after.TotalAlloc-before.TotalAlloc)>>20, after.Sys>>20)
	if len(report.Results) < 10 {
		t.Errorf("%d results", len(report.Results))
	}
	for _, r := range report.Results {
		none := r.Info.ID == "container.loopback_leak" && r.Status == harden.StatusNotApplicable // nothing is published
		if !none && (r.Status != harden.StatusUnknown || r.Reason != harden.ReasonPrivilege) {
			t.Errorf("%s: %v for %s: %.300s %v", r.Info.ID, r.Status, r.Reason, r.Detail, r.Findings)
		}
		if n := len(r.Detail); n == 0 || n > 4096 {
			t.Errorf("%s: the detail is %d bytes long", r.Info.ID, n)
		}
	}
	if report.Score.Passed > 0 || report.Score.Failed > 0 {
		t.Errorf("score %+v", report.Score)
	}
}

// Whatever is wrong with an engine, the audit ends in time with a report in
// which everything is unknown for the reason, and nothing panics.
func TestAuditOfABrokenEngine(t *testing.T) {
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html>welcome</html>")
	}
	healthy := &fake{n: 3}
	sick := func(path string, h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, path) {
				h(w, r)
				return
			}
			healthy.ServeHTTP(w, r)
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `[{"Id":"`)
		for r.Context().Err() == nil {
			if _, err := fmt.Fprint(w, strings.Repeat("a", 1<<16)); err != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		timeout time.Duration // none if zero
		reason  harden.Reason
	}{
		{"it hangs at once", hang, 50 * time.Millisecond, harden.ReasonTimeout},
		{"it hangs when asked for the list", sick("/containers/json", hang), 50 * time.Millisecond, harden.ReasonTimeout},
		{"it hangs when asked for one container", sick(healthy.id(1)+"/json", hang), 50 * time.Millisecond, harden.ReasonTimeout},
		{"it hangs when asked for a volume", sick("/volumes/shared", hang), 50 * time.Millisecond, harden.ReasonTimeout},
		{"it is a web site", page, 0, harden.ReasonError},
		{"one container is a web site", sick(healthy.id(1)+"/json", page), 0, harden.ReasonError},
		{"its list does not end", sick("/containers/json", endless), 0, harden.ReasonError},
		{"it refuses", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"message":"no"}`)
		}, 0, harden.ReasonPrivilege},
		{"it fails", sick("/containers/json", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"message":"the database is locked"}`)
		}), 0, harden.ReasonError},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := serve(t, c.handler)
			ctx := t.Context()
			if c.timeout > 0 {
				short, cancel := context.WithTimeout(ctx, c.timeout)
				defer cancel()
				ctx = short
			}
			for _, r := range auditOf(t, ctx, e, unprivileged()).Results {
				if r.Status != harden.StatusUnknown || r.Reason != c.reason || r.Detail == "" {
					t.Errorf("%s: %v for %s: %s", r.Info.ID, r.Status, r.Reason, r.Detail)
				}
			}
		})
	}
}
