//go:build linux

package lab_test

import (
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

func TestQuick(t *testing.T) {
	t0 := time.Now()
	l := labtest.Start(t, lab.Config{Log: t.Output()})
	t.Log("start", time.Since(t0), l.EngineVersion())
	for _, args := range [][]string{
		{"images"},
		{"run", "-d", "--name=agent", "-p", "18789:18789", lab.AgentImage},
		{"exec", "agent", "/agent", "do", "whoami"},
		{"ps"},
	} {
		t0 := time.Now()
		out, err := l.Docker(t.Context(), args...)
		t.Log(args, time.Since(t0), out, err)
	}
	resp, err := l.Internet.Client(3 * time.Second).Get("http://192.0.2.1:18789/healthz")
	t.Log(resp, err)
	t0 = time.Now()
	err = l.Close()
	t.Log("close", time.Since(t0), err)
}
