package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// PowerOff ends the lab's host as a loss of power does: all processes of the
// lab at once, which none of them notices, and with them its network, its
// rules, its mounts and what is in /run and /etc. What is on disk stays: the
// engine's data, and every directory outside these two. The other machines keep
// their networks, and what the owner itself listens with there, but not the
// programs that it has started on them.
//
// Until [Lab.Boot] the host must not be used.
func (l *Lab) PowerOff(ctx context.Context) error {
	if err := killCgroups(l.id); err != nil {
		return fmt.Errorf("lab: power off: %w", err)
	}
	l.engine.wait()
	l.cgroup.Close()
	l.etc.Close()
	l.Host.close()
	// The other end of its cable goes with the namespace, but not at once.
	if err := l.sw.ip(ctx, []string{"link del port0"}); err != nil && !strings.Contains(err.Error(), "Cannot find device") {
		return fmt.Errorf("lab: power off: %w", err)
	}
	for _, name := range []string{"etc", "run"} {
		if err := os.RemoveAll(filepath.Join(l.dir, name)); err != nil {
			return fmt.Errorf("lab: power off: %w", err)
		}
	}
	return nil
}

// Boot starts the host again after [Lab.PowerOff], with the same addresses and
// an /etc that is as at first. The engine is for [Lab.StartDockerd].
func (l *Lab) Boot(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("lab: boot: %w", err)
		}
	}()
	if l.cgroup, err = newCgroup(l.id); err != nil {
		return err
	}
	ns, err := newNetns()
	if err != nil {
		return err
	}
	*l.Host = Machine{Name: l.Host.Name, Addr4: l.Host.Addr4, Addr6: l.Host.Addr6, ns: ns}
	for _, m := range []*Machine{l.Host, l.Internet, l.Neighbour} {
		m.cgroup = l.cgroup
	}
	cable := []string{
		"link add port0 type veth peer name eth0 netns " + path(ns.File),
		"link set port0 master br0",
		"link set port0 up",
	}
	host := []string{
		"link set lo up",
		fmt.Sprintf("addr add %s/24 dev eth0", HostAddr4),
		fmt.Sprintf("addr add %s/64 dev eth0 nodad", HostAddr6),
		"link set eth0 up",
		fmt.Sprintf("route add default via %s", InternetAddr4),
		fmt.Sprintf("route add default via %s", InternetAddr6),
	}
	if err := errors.Join(l.sw.ip(ctx, cable), ns.ip(ctx, host)); err != nil {
		return err
	}
	return l.makeHost(ctx)
}
