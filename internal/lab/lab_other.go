//go:build !linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"runtime"
	"time"
)

// A lab is made of Linux namespaces, so elsewhere there is none: Start fails,
// and what is below exists to compile.

var errUnsupported = fmt.Errorf("lab: on %s: %w", runtime.GOOS, errors.ErrUnsupported)

type (
	Lab     struct{ Host, Internet, Neighbour *Machine }
	Machine struct {
		Name         string
		Addr4, Addr6 netip.Addr
	}
	Sink struct{ Addr net.Addr }
)

func Start(context.Context, Config) (*Lab, error)  { return nil, errUnsupported }
func Sweep() ([]string, error)                     { return nil, nil }
func Missing(Config) []string                      { return []string{"not Linux"} }
func AgentBinary(context.Context) (string, error)  { return "", errUnsupported }
func (*Lab) Close() error                          { return errUnsupported }
func (*Lab) ID() string                            { return "" }
func (*Lab) Dir() string                           { return "" }
func (*Lab) HostPath(string) string                { return "" }
func (*Lab) DockerHost() string                    { return "" }
func (*Lab) EngineVersion() string                 { return "" }
func (*Lab) DockerdPID() int                       { return 0 }
func (*Lab) DockerdLog() string                    { return "" }
func (*Lab) StartDockerd(context.Context) error    { return errUnsupported }
func (*Lab) StopDockerd(context.Context) error     { return errUnsupported }
func (*Lab) KillDockerd(context.Context) error     { return errUnsupported }
func (*Lab) RestartDockerd(context.Context) error  { return errUnsupported }
func (*Machine) Client(time.Duration) *http.Client { return nil }
func (*Sink) Conns() int64                         { return 0 }
func (*Sink) Bytes() int64                         { return 0 }
func (*Sink) Last() time.Time                      { return time.Time{} }
func (*Sink) Close() error                         { return errUnsupported }

func (*Lab) Docker(context.Context, ...string) (string, error) { return "", errUnsupported }

func (*Machine) Command(context.Context, string, ...string) *exec.Cmd {
	return &exec.Cmd{Err: errUnsupported} // not to run it on this machine instead
}

func (*Machine) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errUnsupported
}

func (*Machine) Listen(context.Context, string, string) (net.Listener, error) {
	return nil, errUnsupported
}

func (*Machine) Sink(context.Context, string, string) (*Sink, error) {
	return nil, errUnsupported
}
