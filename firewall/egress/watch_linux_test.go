package egress

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// A look ends on a machine that sends all the time, and has seen all that was
// sent before.
func TestWatchOfABusyMachine(t *testing.T) {
	t.Parallel()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	loopback := netip.MustParseAddr("127.0.0.1")
	var others sync.WaitGroup
	stop := make(chan struct{})
	defer others.Wait()
	defer close(stop)
	for range 3 {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = sendUDP(loopback, discardPort, "", "others")
				}
			}
		})
	}
	for range 3 {
		w, err := watchOut(ns, newRun(), true)
		if errors.Is(err, fs.ErrPermission) {
			labtest.Skip(t, "packet sockets need CAP_NET_RAW")
		}
		if err != nil {
			t.Fatal(err)
		}
		token := w.token()
		if err := sendUDP(loopback, discardPort, "", token); err != nil {
			t.Fatal(err)
		}
		finished := make(chan error, 1)
		go func() { finished <- w.finish() }()
		select {
		case err = <-finished:
		case <-time.After(10 * time.Second):
			t.Fatal("it looks on and on")
		}
		if _, ok := w.saw(token); err != nil || !ok {
			t.Fatalf("what was sent before the end was seen: %t, %v", ok, err)
		}
		w.close()
	}
}
