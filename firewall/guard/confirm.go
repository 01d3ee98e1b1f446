package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Connection is one of TCP to this machine, as sshd describes it in
// SSH_CONNECTION.
type Connection struct {
	Client, Server netip.AddrPort
}

// ParseSSHConnection reads the value of SSH_CONNECTION: the address and port of the client, and
// those of the server (ssh(1)).
func ParseSSHConnection(value string) (Connection, error) {
	f := strings.Fields(value)
	if len(f) != 4 {
		return Connection{}, fmt.Errorf("guard: SSH_CONNECTION is %q: it should be the client's address and port, and the server's", value)
	}
	client, err := parseEnd(f[0], f[1])
	server, err2 := parseEnd(f[2], f[3])
	if err := errors.Join(err, err2); err != nil {
		return Connection{}, fmt.Errorf("guard: SSH_CONNECTION is %q: %w", value, err)
	}
	return Connection{client, server}, nil
}

func parseEnd(addr, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

func (c Connection) String() string { return c.Client.String() + " → " + c.Server.String() }

// A ConnectionError says why a connection does not confirm a change.
type ConnectionError struct {
	Connection Connection
	Why        string
}

func (e *ConnectionError) Error() string {
	return fmt.Sprintf("guard: connection %v does not confirm the change: %s", e.Connection, e.Why)
}

// Confirm keeps the change id, if c is a connection that was opened to this
// machine from another after the change was made. Call it in the new session.
// The empty id is that of the current change. What counts is what the kernel
// shows; a connection that does not do is a [*ConnectionError], and the change can still be
// confirmed by another. [ErrRolledBack] means that it is too late. To confirm
// again, by its id, what is confirmed is no error until the next change is armed.
//
// A session by Tailscale's own SSH server is no connection of the kernel's: use
// [Guard.ConfirmBy].
func (g *Guard) Confirm(ctx context.Context, id string, c Connection) error {
	return g.confirm(ctx, id, c.String(), func(ctx context.Context, dir string) error {
		return g.isNew(ctx, dir, c)
	})
}

// ConfirmBy keeps the change id, if try succeeds: it opens a new connection to
// this machine from another, one that may not do without the machine's firewall, and gets an
// answer. A connection from the machine to itself proves nothing. The error wraps that of
// try if it fails; the change can still be confirmed.
func (g *Guard) ConfirmBy(ctx context.Context, id string, try func(context.Context) error) error {
	return g.confirm(ctx, id, "probe", func(ctx context.Context, _ string) error {
		if err := try(ctx); err != nil {
			return fmt.Errorf("guard: the probe from outside does not confirm the change: %w", err)
		}
		return nil
	})
}

func (g *Guard) confirm(ctx context.Context, id, by string, proof func(ctx context.Context, dir string) error) error {
	st, err := g.status(ctx, id)
	if err != nil {
		return err
	}
	if st.State == StateConfirmed {
		return nil
	}
	if st, err = g.pending(ctx, st.ID); err != nil {
		return err
	}
	if !st.Applied {
		return fmt.Errorf("%w: call Applied when it is", ErrNotApplied)
	}
	dir := filepath.Join(g.Dir, st.ID)
	if err := proof(ctx, dir); err != nil {
		return err
	}
	// The proof may have taken its time.
	if st, err = g.pending(ctx, st.ID); err != nil {
		return err
	}
	if st.Left == 0 {
		return fmt.Errorf("%w: %v", ErrRolledBack, st)
	}
	if err := decide(dir, fmt.Sprintf("%s by %s at %s\n", confirmedWord, by, time.Now().UTC().Format(time.RFC3339))); err != nil {
		return err
	}
	// From here on it is kept, whatever becomes of the files.
	g.cleanUp(ctx, dir, st.PID)
	return nil
}

// decide makes the decision, unless it has been made. A hard link appears at
// once, whole, and only once.
func decide(dir, text string) error {
	tmp := filepath.Join(dir, fmt.Sprintf("%s.%d", decisionFile, os.Getpid()))
	if err := writeFile(tmp, []byte(text)); err != nil {
		return err
	}
	err := os.Link(tmp, filepath.Join(dir, decisionFile))
	if errors.Is(err, fs.ErrExist) {
		made, err := os.ReadFile(filepath.Join(dir, decisionFile))
		if err == nil && strings.HasPrefix(string(made), confirmedWord) {
			return nil
		}
		return ErrRolledBack
	}
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return syncDir(dir)
}

// cleanUp removes what was saved of a change that is confirmed, once the
// watchdog has seen it. That it was confirmed is remembered until the next is
// armed: whoever made it may be waiting to hear of it.
func (g *Guard) cleanUp(ctx context.Context, dir string, watchdog int) {
	for range 100 {
		if _, alive, err := g.process(ctx, watchdog); err != nil || !alive {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Name() != recordFile && e.Name() != decisionFile {
			_ = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	_ = g.release(dir)
}

// isNew reports why c is not an established connection from another machine
// that was opened after the change.
func (g *Guard) isNew(ctx context.Context, dir string, c Connection) error {
	no := func(why string) error { return &ConnectionError{c, why} }
	want := flow{Local: unmap(c.Server), Remote: unmap(c.Client)}
	if !want.Local.IsValid() || !want.Remote.IsValid() {
		return no("it has no addresses")
	}
	if want.Remote.Addr().IsLoopback() || want.Remote.Addr() == want.Local.Addr() {
		return no("it is one of the machine to itself")
	}
	r, err := readRecord(dir)
	if err != nil {
		return err
	}
	var applied []flow
	data, err := os.ReadFile(filepath.Join(dir, appliedFile))
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if err := json.Unmarshal(data, &applied); err != nil {
		return fmt.Errorf("guard: %s: %w", filepath.Join(dir, appliedFile), err)
	}
	now, listening, err := g.sockets(ctx)
	switch {
	case err != nil:
		return err
	case slices.Contains(r.Sockets, want) || slices.Contains(applied, want):
		return no("it was there before the change was made: open a new one")
	case !slices.Contains(now, want) && c.Tailscale():
		return no("the kernel has no such connection: if it is a session by Tailscale's own SSH server, which the kernel does not see, confirm by a probe from the tailnet instead")
	case !slices.Contains(now, want):
		return no("the kernel has no such connection")
	case slices.Contains(now, flow{Local: want.Remote, Remote: want.Local}):
		return no("it is one of the machine to itself")
	case !slices.ContainsFunc(listening, func(l netip.AddrPort) bool {
		return l.Port() == want.Local.Port() && (l.Addr().IsUnspecified() || l.Addr() == want.Local.Addr())
	}):
		return no("nothing listens there, so that it is one that this machine has opened")
	}
	return nil
}
