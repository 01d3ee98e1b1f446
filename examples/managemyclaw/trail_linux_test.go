package main

import (
	"context"
	"strings"
	"testing"
)

// -f goes on with what is recorded from then on, until it is interrupted.
func TestTrailFollow(t *testing.T) {
	d := newDesk(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := newSaid()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"trail", "tail", "-f", "-n", "1", "--state-dir", d.state, "--log", "program"}, func(string) string { return "" }, out, out)
	}()
	out.await(t, "#1 ")
	d.record(t, 2, 4)
	out.await(t, "#3 ")
	cancel()
	if code := <-ended; code != exitPass || strings.Contains(out.text(), "#0 ") || strings.Count(out.text(), "#2 ") != 1 {
		t.Errorf("status %d: %s", code, out.text())
	}
}
