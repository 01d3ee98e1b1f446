package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

// Times of the server of the gateway's.
const (
	headerTime = 5 * time.Second
	idleTime   = 2 * time.Minute
	reloadTime = time.Minute
	// closeTime is for the executions that are under way: longer than one may
	// take.
	closeTime = gateway.DefaultCallTimeout + 5*time.Second
)

// gateway is the command of that name: what stands between agents and Composio.
func (p *program) gateway(ctx context.Context, args []string) (int, error) {
	if len(args) > 0 && args[0] == "token" {
		return p.token(args[1:])
	}
	var (
		listen string
		names  []string
	)
	err := p.parse("gateway", args, func(fs *flag.FlagSet) {
		p.composioFlags(fs)
		fs.StringVar(&listen, "listen", "127.0.0.1:8787", "`ADDRESS:PORT` to listen at; for agents in containers, that of their bridge, such as\n172.17.0.1:8787")
		fs.Func("host", "`NAME` beside the address by which agents reach the gateway, such as\nhost.docker.internal; may be given several times", func(name string) error {
			if name == "" {
				return errors.New("a name is missing")
			}
			names = append(names, strings.ToLower(name))
			return nil
		})
	})
	if err != nil {
		return exitUsage, err
	}
	address, err := listenAddress(listen)
	if err != nil {
		return exitUsage, err
	}
	if p.policy == "" || p.composioKey == "" {
		return exitUsage, usageError("say what agents may do, with --policy, and what with, with --composio-key-file")
	}
	names = append(names, "localhost", "127.0.0.1", "::1", address.Addr().String())
	if err := p.serve(ctx, address, names); err != nil {
		if _, ok := errors.AsType[usageError](err); ok {
			return exitUsage, err
		}
		return exitFail, err
	}
	return exitPass, nil
}

// listenAddress reads the value of --listen. Whoever has a token may use it
// from wherever the gateway is reached, and so that is said and not implied.
func listenAddress(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	switch {
	case err != nil:
		return a, usageError(fmt.Sprintf("--listen: %q is not an address and a port, such as 127.0.0.1:8787", text))
	case a.Addr().Unmap().IsUnspecified():
		return a, usageError(fmt.Sprintf("--listen: %v is every address of this machine, the internet's too: name the one at which agents are, such as 127.0.0.1 or the bridge's 172.17.0.1", a.Addr()))
	}
	return a, nil
}

// token is the command gateway token.
func (p *program) token(args []string) (int, error) {
	if err := p.parse("gateway token", args, nil); err != nil {
		return exitUsage, err
	}
	token, hash := gateway.NewToken()
	fmt.Fprintf(p.stdout, "token, for the agent:        %s\nits hash, for the policy:    %v\n", token.Reveal(), hash)
	return exitPass, nil
}

// serve is the gateway until ctx ends.
func (p *program) serve(ctx context.Context, address netip.AddrPort, names []string) (err error) {
	var mu sync.Mutex // what it says comes from several goroutines
	stdout, stderr := &inTurn{&mu, p.stdout}, &inTurn{&mu, p.stderr}
	say := func(w io.Writer, format string, args ...any) {
		fmt.Fprintf(w, "%s %s\n", time.Now().UTC().Format(time.RFC3339), printable(fmt.Sprintf(format, args...)))
	}

	policy, err := gateway.ReadPolicy(p.policy)
	if err != nil {
		return usageError(err.Error())
	}
	client, key, mode, err := p.composio()
	if err != nil {
		return err
	}
	if !private(mode) {
		return usageError(fmt.Sprintf("--composio-key-file: others may read or write %s: chmod 600 %s", p.composioKey, p.composioKey))
	}
	fence, err := p.fence()
	if err != nil {
		return err
	}
	redactor := &trail.Redactor{Values: []string{key.Reveal()}}
	book := p.book(gatewayTrail)
	record, public, _, err := book.open(trail.Config{Redactor: redactor})
	if err != nil {
		return err
	}
	pins := &trail.PinFile{Path: book.pin, Key: public}
	defer func() { err = errors.Join(err, pin(ctx, record, pins), record.Close()) }()
	if cut := record.Recovered(); cut.Bytes > 0 {
		say(stderr, "the trail ended in the middle of a write: %d bytes were cut off and are kept in %s", cut.Bytes, cut.File)
	}

	logger := slog.New(slog.NewTextHandler(stderr, nil))
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	wire := &tripwire{fence: fence}
	g, err := gateway.New(ctx, gateway.Config{
		Policy: policy, Upstream: client, Fence: fence, Trail: record, Redactor: redactor, Hosts: names, Logger: logger,
		OnTrip: func(t gateway.Trip) {
			why := fmt.Sprintf("%s: the breaker tripped: more than %v of destructive tools; the last, %s, was not made (request %s)",
				t.Time.UTC().Format(time.RFC3339), t.Limit, t.Tool, t.RequestID)
			epoch, err := wire.trip(context.WithoutCancel(ctx), t.Agent, why)
			if err != nil {
				say(stderr, "agent %s is stopped as long as this gateway runs, and NOT after: do not restart it, for %v", t.Agent, err)
				return
			}
			say(stderr, "agent %s is stopped: more than %v of destructive tools. Once you know why: managemyclaw reset --agent %s --epoch %d", t.Agent, t.Limit, t.Agent, epoch)
		},
	})
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address.String())
	if err != nil {
		return errors.Join(fmt.Errorf("gateway: %w", err), p.close(ctx, g))
	}
	server := &http.Server{
		Handler:           g,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // of what clients do to connections
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	say(stdout, "serving %d agents at http://%v, by policy %s", len(policy.Agents), listener.Addr(), policy.Digest())
	say(stdout, "trail in %s, public key %v", book.dir, public)
	living, stop := context.WithCancel(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() { keep(living, record, pins, func(err error) { say(stderr, "%v", err) }) })
	keeping.Go(func() { wire.watch(living, g, func(format string, args ...any) { say(stdout, format, args...) }) })
	defer func() { stop(); keeping.Wait() }() // before it is pinned for the last time
	for name := range policy.Agents {
		if err := fence.Fenced(ctx, name); err != nil {
			say(stderr, "agent %s is stopped: %v", name, err)
		}
	}
	for {
		select {
		case <-hup:
			if digest, err := p.reload(ctx, g); err != nil {
				say(stderr, "the policy was not taken on, and the old one holds: %v", err)
			} else {
				say(stdout, "policy taken on: %s", digest)
			}
		case err := <-ended:
			return errors.Join(fmt.Errorf("gateway: %w", err), p.close(ctx, g))
		case <-ctx.Done():
			say(stdout, "ending: nothing more is let through")
			err := p.close(ctx, g)
			return errors.Join(err, server.Close())
		}
	}
}

// reload takes on the policy that is in the file now, all of it or nothing.
func (p *program) reload(ctx context.Context, g *gateway.Gateway) (digest string, err error) {
	policy, err := gateway.ReadPolicy(p.policy)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	return policy.Digest(), g.Reload(ctx, policy)
}

// close waits for what is under way, though ctx may have ended.
func (p *program) close(ctx context.Context, g *gateway.Gateway) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return g.Close(ctx)
}

// An inTurn is a writer that several goroutines share with others.
type inTurn struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w *inTurn) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}
