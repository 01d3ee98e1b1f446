package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/remote"
)

// remoteFlags say who may fire the switch from elsewhere.
type remoteFlags struct {
	address   string
	operators string
	term      time.Duration
}

func (f *remoteFlags) add(fs *flag.FlagSet) {
	fs.StringVar(&f.address, "listen", "", "`ADDRESS:PORT` to take signed commands at, and to serve the page for a phone, such\nas this machine's in the tailnet")
	fs.StringVar(&f.operators, "operators", "", "`FILE` of who may fire: lines of a name and a public key, or the hash of a link,\nas managemyclaw operator makes them")
	fs.DurationVar(&f.term, "lease", 0, "stop the agent unless an operator renews this lease in time, such as 24h")
}

// lease runs the dead man's switch, if there is to be one.
func (p *program) lease(ctx context.Context, s *killSwitch, f remoteFlags, log *slog.Logger) (*killswitch.Lease, error) {
	if f.term == 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	l, err := killswitch.NewLease(s.Switch, f.term)
	if err != nil {
		return nil, usageError(err.Error())
	}
	if _, err := os.Stat(filepath.Join(p.stateDir, "lease", s.Agent())); errors.Is(err, fs.ErrNotExist) {
		if err := l.Begin(ctx, p.operator()); err != nil {
			return nil, err
		}
	}
	go func() {
		for ctx.Err() == nil {
			r, err := l.Run(ctx)
			if r == nil {
				continue
			}
			log.Error("the lease has expired, and the agent is stopped", "receipt", r.String(), "err", err)
			for ctx.Err() == nil && s.Fence().Fenced(ctx, s.Agent()) != nil {
				pause(ctx, fenceEvery)
			}
			if err := l.Begin(ctx, "reset"); err != nil && ctx.Err() == nil {
				log.Error("the lease cannot be begun anew", "err", err)
			}
		}
	}()
	return l, nil
}

// A doorway is the server of remote commands, if there is one.
type doorway struct{ server *http.Server }

func (d doorway) close() error {
	if d.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return d.server.Shutdown(ctx)
}

// listen takes commands from elsewhere until it is closed.
func (p *program) listen(ctx context.Context, s *killSwitch, f remoteFlags, lease *killswitch.Lease, log *slog.Logger) (doorway, error) {
	if f.address == "" && f.operators == "" {
		return doorway{}, nil
	}
	if f.address == "" || f.operators == "" {
		return doorway{}, usageError("--listen and --operators belong together: where to take commands, and whose")
	}
	address, err := listenAddress(f.address)
	if err != nil {
		return doorway{}, err
	}
	text, err := os.ReadFile(f.operators)
	if err != nil {
		return doorway{}, usageError("--operators: " + err.Error())
	}
	operators, err := remote.ParseOperators(string(text))
	if err != nil {
		if len(operators) == 0 {
			return doorway{}, usageError("--operators: " + err.Error())
		}
		log.Warn("some lines of --operators were not understood", "err", err)
	}
	name, err := os.Hostname()
	if err != nil {
		return doorway{}, err
	}
	key, err := p.remoteKey()
	if err != nil {
		log.Warn("answers are not signed", "err", err)
	}
	c := remote.Config{
		Name: name, Agent: s.Agent(), Switch: s, Operators: operators, Key: key, Trail: p.trail(),
		Nonces: filepath.Join(p.stateDir, "remote-nonces"), State: s.state,
	}
	if lease != nil {
		c.Lease = lease
	}
	h, err := remote.New(c)
	if err != nil {
		return doorway{}, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address.String())
	if err != nil {
		return doorway{}, err
	}
	server := remote.NewServer(ln.Addr().String(), h)
	go func() {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("no commands are taken any more", "err", err)
		}
	}()
	fmt.Fprintf(p.stdout, "switch %s of %s takes commands at http://%v", name, s.Agent(), ln.Addr())
	if key != nil {
		fmt.Fprintf(p.stdout, ", answers signed by %v", key.Public())
	}
	fmt.Fprintln(p.stdout)
	return doorway{server}, nil
}

// state is what the page and status commands show.
func (s *killSwitch) state(context.Context) (remote.State, error) {
	f, err := s.Fence().State(s.Agent())
	if err != nil {
		return remote.State{Stopped: true, Lines: []string{"nobody can tell whether it is stopped: it is not started"}}, nil //nolint:nilerr // that is the state
	}
	if f.Engaged() {
		return remote.State{Stopped: true, Lines: []string{fmt.Sprintf("epoch %d, since %s: %s", f.Epoch, f.Time.UTC().Format(time.RFC3339), f.Reason)}}, nil
	}
	return remote.State{}, nil
}

// remoteKey returns the key that signs answers, which is made when it is first
// used.
func (p *program) remoteKey() (*remote.Key, error) {
	name := filepath.Join(p.stateDir, "remote.key")
	key, err := remote.ReadKey(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := remote.GenerateKey().WriteFile(name); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return remote.ReadKey(name)
}

// operatorKey is the command operator: it makes what somebody fires a switch
// with, and the lines for --operators.
func (p *program) operatorKey(args []string) (int, error) {
	var name, file string
	err := p.parse("operator", args, func(fs *flag.FlagSet) {
		fs.StringVar(&name, "name", "", "`NAME` of the operator")
		fs.StringVar(&file, "key", "", "`FILE` to make with the operator's key, for managemyclaw fire")
	})
	if err != nil {
		return exitUsage, err
	}
	if name == "" || file == "" {
		return exitUsage, usageError("say who it is, with --name, and where to put the key, with --key")
	}
	key := remote.GenerateKey()
	if err := key.WriteFile(file); err != nil {
		return exitFail, err
	}
	link, hash := remote.NewLink()
	fmt.Fprintf(p.stdout, "for --operators:\n\n%s %v\n%s %v\n\nsecret of the page, for the phone, shown this once:\n\n    %s\n", name, key.Public(), name, hash, link.Reveal())
	return exitPass, nil
}

// fire is the command of that name: it fires a switch elsewhere.
func (p *program) fire(ctx context.Context, args []string) (int, error) {
	var url, name, keyFile, server, reason string
	err := p.parse("fire", args, func(fs *flag.FlagSet) {
		fs.StringVar(&url, "url", "", "`URL` where managemyclaw standby listens")
		fs.StringVar(&name, "switch", "", "`NAME` of the switch, as standby shows it")
		fs.StringVar(&p.agent, "agent", "", "`NAME` of the agent")
		fs.StringVar(&keyFile, "key", "", "`FILE` with the operator's key")
		fs.StringVar(&server, "server-key", "", "public `KEY` that answers are signed by, as standby shows it")
		fs.StringVar(&reason, "reason", "an operator asked for it", "`TEXT` for the receipt and the trail")
	})
	if err != nil {
		return exitUsage, err
	}
	if url == "" || name == "" || p.agent == "" || keyFile == "" {
		return exitUsage, usageError("--url, --switch, --agent and --key are needed")
	}
	key, err := remote.ReadKey(keyFile)
	if err != nil {
		return exitUsage, usageError("--key: " + err.Error())
	}
	c := &remote.Client{URL: url, Switch: name, Agent: p.agent, Key: key}
	if server != "" {
		if c.Server, err = remote.ParsePublicKey(server); err != nil {
			return exitUsage, usageError("--server-key: " + err.Error())
		}
	}
	receipt, err := c.Fire(ctx, reason)
	if receipt == nil {
		return exitFail, err
	}
	if lost := p.writeReceipt(receipt); lost != nil {
		return exitFail, errors.Join(err, lost)
	}
	return receiptCode(receipt, err), err
}
