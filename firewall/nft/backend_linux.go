package nft

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/managemyclaw/hardshell/firewall"
)

// bufferSize is that of the socket. The kernel acknowledges each object of a
// transaction at once, and reports no room for that as the failure of a transaction that
// it has carried out.
const bufferSize = 4 << 20

// Apply implements [firewall.Backend]. It reads the table before, and does
// nothing if it is as it should be; it reads it again after, and fails if
// it is not.
func (b *Backend) Apply(ctx context.Context, p firewall.Policy) error {
	if err := p.Validate(); err != nil {
		return err
	}
	want := compile(p.Canonical(), b.EngineCgroup)
	return b.do(ctx, "apply", func(open opener) error {
		s, err := open()
		if err != nil {
			return err
		}
		drift, err := s.drift(want)
		if err != nil || len(drift) == 0 {
			return err
		}
		if err := want.replace(s.nft, cgroupID); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		flushed := s.nft.Flush()
		if flushed != nil && !unheard(flushed) {
			return flushed
		}
		if flushed != nil {
			// What the kernel did is to be seen, by a connection without
			// old answers in it.
			if s, err = open(); err != nil {
				return fmt.Errorf("the new rules may hold: %w", errors.Join(flushed, err))
			}
		}
		drift, err = s.drift(want)
		switch {
		case err != nil:
			return fmt.Errorf("the new rules may hold: %w", errors.Join(flushed, err))
		case len(drift) > 0 && flushed != nil:
			return flushed
		case len(drift) > 0:
			return fmt.Errorf("the kernel does not hold what it was given: %s", strings.Join(drift, "; "))
		}
		return nil
	})
}

// unheard reports whether err is of hearing the kernel's answer, and says
// nothing of what the kernel did.
func unheard(err error) bool {
	return errors.Is(err, unix.ENOBUFS) || errors.Is(err, os.ErrDeadlineExceeded)
}

// Remove implements [firewall.Backend].
func (b *Backend) Remove(ctx context.Context) error {
	return b.do(ctx, "remove", func(open opener) error {
		s, err := open()
		if err != nil {
			return err
		}
		have, err := read(s.netlink)
		if err != nil || have == nil {
			return err
		}
		s.nft.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
		if err := s.nft.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	})
}

// Drift implements [firewall.Backend].
func (b *Backend) Drift(ctx context.Context, p firewall.Policy) (lines []string, err error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	want := compile(p.Canonical(), b.EngineCgroup)
	err = b.do(ctx, "drift", func(open opener) error {
		s, err := open()
		if err != nil {
			return err
		}
		lines, err = s.drift(want)
		return err
	})
	return lines, err
}

// A session is one socket.
type session struct {
	nft     *nftables.Conn
	netlink *netlink.Conn
}

type opener func() (session, error)

func (s session) drift(want *table) ([]string, error) {
	have, err := read(s.netlink)
	if err != nil {
		return nil, err
	}
	lines, err := want.drift(have, cgroupID)
	if errors.Is(err, fs.ErrNotExist) && have != nil {
		// The rules are there, and what one of them is about is not.
		return []string{err.Error()}, nil
	}
	return lines, err
}

// do runs fn with what opens a session, closes what it opened, and ends
// what waits for the kernel with ctx.
func (b *Backend) do(ctx context.Context, what string, fn func(opener) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	timeout := b.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := ctx.Err()
	if err == nil {
		var sessions []session
		err = fn(func() (session, error) {
			s, err := b.open()
			if err != nil {
				return s, err
			}
			sessions = append(sessions, s)
			context.AfterFunc(ctx, func() { _ = s.netlink.SetDeadline(time.Unix(1, 0)) })
			return s, nil
		})
		for _, s := range sessions {
			_ = s.nft.CloseLasting() // nothing of ours is in its buffers
		}
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = ctx.Err()
	}
	return explain(what, err)
}

func (b *Backend) open() (s session, err error) {
	options := []nftables.ConnOption{
		nftables.AsLasting(),
		nftables.WithSockOptions(func(c *netlink.Conn) error {
			s.netlink = c
			// Both succeed in part where the process may not have as much.
			return errors.Join(c.SetReadBuffer(bufferSize), c.SetWriteBuffer(bufferSize))
		}),
	}
	if b.NetNS != "" {
		ns, err := os.Open(b.NetNS)
		if err != nil {
			return s, err
		}
		defer ns.Close()
		options = append(options, nftables.WithNetNSFd(int(ns.Fd())))
	}
	s.nft, err = nftables.New(options...)
	return s, err
}

// explain adds what the caller can do about err.
func explain(what string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("nft: %s: run as root, or with CAP_NET_ADMIN: %w", what, err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("nft: %s: this kernel lacks something that nftables needs (nf_tables, nft_ct, nft_fib_inet; nft_socket for EngineCgroup): %w: %w", what, errors.ErrUnsupported, err)
	case errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("nft: %s: the kernel's answer was lost (net.core.rmem_max is too small): %w", what, err)
	}
	return fmt.Errorf("nft: %s: %w", what, err)
}

// cgroupID is the number by which the kernel knows a control group: that of its
// directory.
func cgroupID(path string) (uint64, error) {
	root, err := cgroupRoot()
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(filepath.Join(root, filepath.Clean("/"+path)))
	if err != nil {
		return 0, fmt.Errorf("control group of the engine: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("control group of the engine: %s has no inode", path)
	}
	return stat.Ino, nil
}

// cgroupRoot is where the hierarchy of version 2 is mounted.
func cgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, source, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if ok && len(fields) > 4 && fields[3] == "/" && strings.HasPrefix(source, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("control group of the engine: no cgroup2 is mounted here")
}
