package async_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/internal/async"
)

func TestGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		began := time.Now()
		first := async.Go(func() (int, error) { time.Sleep(time.Second); return 1, nil })
		second := async.Go(func() (string, error) { time.Sleep(time.Second); return "half", refused })
		third := async.Go(func() (int, error) { panic("there is no such file") })
		for range 2 {
			if n, err := first(); n != 1 || err != nil {
				t.Errorf("first = %v, %v", n, err)
			}
			if s, err := second(); s != "half" || !errors.Is(err, refused) {
				t.Errorf("second = %q, %v", s, err)
			}
			_, err := third()
			if p, ok := errors.AsType[*harden.PanicError](err); !ok || p.Value != "there is no such file" || len(p.Stack) == 0 {
				t.Errorf("third = %v; want the panic", err)
			}
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("two of a second took %v: one waited for the other", d)
		}
	})
}
