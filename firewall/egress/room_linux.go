package egress

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nsID is what the kernel knows a namespace by.
type nsID struct{ dev, ino uint64 }

// A room is a network namespace that is held open, with a socket in it.
type room struct {
	id    nsID
	path  string // where it was found
	ns    *os.File
	marks *marks // of what is made in it

	mu      sync.Mutex // of what follows, and of the transactions
	nft     *nftables.Conn
	netlink *netlink.Conn
	closed  bool
}

func (r *room) String() string {
	if r.path == "" {
		return "the host's network namespace"
	}
	return r.path
}

func openRoom(path string, marks *marks) (*room, error) {
	file := path
	if file == "" {
		file = "/proc/thread-self/ns/net"
	}
	ns, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	id, err := identify(ns)
	if err != nil {
		ns.Close()
		return nil, err
	}
	return &room{id: id, path: path, ns: ns, marks: marks}, nil
}

func identify(f *os.File) (nsID, error) {
	info, err := f.Stat()
	if err != nil {
		return nsID{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nsID{}, fmt.Errorf("%s has no inode", f.Name())
	}
	var buf unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &buf); err != nil {
		return nsID{}, err
	}
	if buf.Type != unix.NSFS_MAGIC {
		return nsID{}, fmt.Errorf("%s is not a namespace", f.Name())
	}
	return nsID{dev: uint64(stat.Dev), ino: stat.Ino}, nil //nolint:unconvert // 32 bits on some
}

// dial makes the socket, unless there is one.
func (r *room) dial() error {
	if !r.mu.TryLock() {
		return nil // it is in use
	}
	defer r.mu.Unlock()
	return r.dialLocked()
}

func (r *room) dialLocked() error {
	if r.closed {
		return fs.ErrClosed
	}
	if r.nft != nil {
		return nil
	}
	// Not by WithNetNSFd, which loses the error of a kernel that has no nftables, or
	// no socket left: package socket then panics (mdlayher/socket v0.5.0).
	return r.within(func() error {
		nft, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
			r.netlink = c
			return nil
		}))
		if err != nil {
			r.netlink = nil
			return fmt.Errorf("open a socket for nftables: %w", err)
		}
		r.nft = nft
		return nil
	})
}

func (r *room) hangUpLocked() {
	if r.nft != nil {
		_ = r.nft.CloseLasting()
		r.nft, r.netlink = nil, nil
	}
}

func (r *room) close() {
	// A transaction that does not end keeps the socket: it is closed when
	// nobody refers to it.
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	r.closed = true
	r.hangUpLocked()
	r.ns.Close()
}

// ask calls fn with the socket, which ends with ctx.
func (r *room) ask(ctx context.Context, fn func(*nftables.Conn) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.dialLocked(); err != nil {
		return r.marks.explain(err)
	}
	socket := r.netlink
	if deadline, ok := ctx.Deadline(); ok {
		_ = socket.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	err := fn(r.nft)
	stop()
	if err != nil {
		r.hangUpLocked() // with what may still come of it
		if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			err = ctx.Err()
		}
		return r.marks.explain(err)
	}
	_ = socket.SetDeadline(time.Time{})
	return nil
}

// transact carries out a transaction.
func (r *room) transact(ctx context.Context, fill func(*batch)) error {
	return r.ask(ctx, func(c *nftables.Conn) error {
		b := &batch{Conn: c, table: r.marks.table}
		fill(b)
		if b.err != nil {
			return b.err
		}
		return c.Flush()
	})
}

// flush carries out a transaction. Where somebody has left something else under the
// names that it uses, it replaces all of it.
func (r *room) flush(ctx context.Context, fill func(*batch), families ...nftables.TableFamily) error {
	err := r.transact(ctx, fill)
	for _, other := range []error{unix.EEXIST, unix.EOPNOTSUPP, unix.EINVAL, unix.EBUSY} {
		if errors.Is(err, other) {
			again := r.transact(ctx, func(b *batch) {
				for _, family := range families {
					b.remove(family)
				}
				fill(b)
			})
			if again == nil {
				return nil
			}
			return errors.Join(err, again)
		}
	}
	return err
}

// release takes the tables away.
func (r *room) release(ctx context.Context) error {
	var errs []error
	for _, family := range allFamilies {
		err := r.ask(ctx, func(c *nftables.Conn) error {
			b := &batch{Conn: c, table: r.marks.table}
			b.remove(family)
			return c.Flush()
		})
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, r.releaseIPTables(ctx))...)
}

// closeDevices closes what packet sockets use.
func (r *inside) closeDevices(ctx context.Context) error {
	var errs []error
	for _, d := range r.devices {
		err := r.flush(ctx, func(b *batch) { b.device(d) }, nftables.TableFamilyNetdev)
		if err != nil && !errors.Is(err, unix.ENOENT) { // it has gone
			errs = append(errs, fmt.Errorf("%s: %w", d.name, err))
		}
	}
	return errors.Join(errs...)
}

// engaged reports whether a Do has not been released.
func engaged(ctx context.Context, host *room) (yes bool, err error) {
	err = host.ask(ctx, func(c *nftables.Conn) error {
		chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
		for _, chain := range chains {
			yes = yes || chain.Name == engagedChain && chain.Table.Name == host.marks.table
		}
		return err
	})
	if err == nil && !yes {
		yes, err = engagedByIPTables(ctx, host)
	}
	return yes, err
}

// explain adds what the caller can do about err.
func (m *marks) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN, and look who owns a table %s: %w", m.table, err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("this kernel has no nftables, or lacks a part of it: %w: %w", errors.ErrUnsupported, err)
	}
	return err
}
