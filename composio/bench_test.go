package composio_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
)

// What it costs beside waiting for the API: listing a thousand accounts, and
// revoking and deleting a hundred, over loopback.
func BenchmarkList(b *testing.B) {
	s := composiotest.New(composiotest.Config{})
	if err := s.Start(); err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for range 1000 {
		s.AddAccount(composiotest.Account{UserID: "u"})
	}
	c := s.Client()
	b.ReportAllocs()
	for b.Loop() {
		if rows, err := collect(c.Accounts(b.Context(), composio.AccountFilter{})); err != nil || len(rows) != 1000 {
			b.Fatal(len(rows), err)
		}
	}
}

func BenchmarkRevoke(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s := composiotest.New(composiotest.Config{})
		if err := s.Start(); err != nil {
			b.Fatal(err)
		}
		for range 100 {
			s.AddAccount(composiotest.Account{UserID: "u"})
		}
		r := &composio.Revoker{Client: s.Client(), Interval: time.Nanosecond}
		b.StartTimer()
		if _, err := r.Revoke(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}

// The run of TestRevokeThousandAccounts with real time over loopback, without
// the crash. It takes half a minute, and so runs on request, and with CI=true.
func TestRevokeThousandAccountsInRealTime(t *testing.T) {
	if os.Getenv("HARDSHELL_SLOW") == "" && os.Getenv("CI") != "true" {
		t.Skip("it takes half a minute: set HARDSHELL_SLOW=1")
	}
	const latency, concurrency = 200 * time.Millisecond, 32
	s := composiotest.New(composiotest.Config{Latency: latency, JobDelay: time.Hour, Fault: composiotest.Chaos(1, 0.05)})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := mixed(s, 1000)
	var w witness
	c := connect(t, s, w.watchOver)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	start := time.Now()
	rep, err := (&composio.Revoker{Client: c, Concurrency: concurrency, Interval: latency}).Revoke(ctx)
	elapsed := time.Since(start)
	if _, ok := errors.AsType[*composio.OpenError](err); !ok || !rep.Empty {
		t.Fatalf("%v: %q", err, rep.Problems)
	}
	counts := judge(t, s, before, nil, &w, rep)
	t.Logf("%v", counts)
	within(t, s, concurrency, latency, elapsed)
}
