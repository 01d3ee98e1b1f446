package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A link is an interface.
type link struct {
	index  int
	name   string
	kind   string // such as "bridge", "veth", "macvlan"; empty for hardware
	peer   int    // index of the other end or the parent, wherever that is
	master int    // index of the bridge that it is a port of
	loop   bool
}

// route asks for a list by rtnetlink(7).
func (r *room) route(ctx context.Context, kind netlink.HeaderType, question []byte) (messages []netlink.Message, err error) {
	var c *netlink.Conn
	err = r.within(func() (err error) {
		c, err = netlink.Dial(unix.NETLINK_ROUTE, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // nothing is written
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return c.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump},
		Data:   question,
	})
}

// links lists the interfaces of a namespace.
func (r *room) links(ctx context.Context) ([]link, error) {
	messages, err := r.route(ctx, unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, fmt.Errorf("interfaces of %s: %w", r, err)
	}
	var out []link
	for _, m := range messages {
		l, err := parseLink(m.Data)
		if err != nil {
			return nil, fmt.Errorf("interfaces of %s: %w", r, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// parseLink parses what follows the header of RTM_NEWLINK, see rtnetlink(7).
func parseLink(data []byte) (l link, err error) {
	if len(data) < unix.SizeofIfInfomsg {
		return l, errors.New("rtnetlink: short message")
	}
	l.index = int(binary.NativeEndian.Uint32(data[4:]))
	l.loop = binary.NativeEndian.Uint32(data[8:])&unix.IFF_LOOPBACK != 0
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return l, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			l.name = ad.String()
		case unix.IFLA_LINK:
			l.peer = int(ad.Uint32())
		case unix.IFLA_MASTER:
			l.master = int(ad.Uint32())
		case unix.IFLA_LINKINFO:
			ad.Nested(func(info *netlink.AttributeDecoder) error {
				for info.Next() {
					if info.Type() == unix.IFLA_INFO_KIND {
						l.kind = info.String()
					}
				}
				return nil
			})
		}
	}
	if err := ad.Err(); err != nil {
		return l, err
	}
	if l.name == "" {
		return l, errors.New("rtnetlink: an interface without a name")
	}
	return l, nil
}

// wiring is what the interfaces of the host are to each other.
type wiring []link

func (w wiring) byIndex(index int) (link, bool) {
	i := slices.IndexFunc(w, func(l link) bool { return l.index == index && index != 0 })
	if i < 0 {
		return link{}, false
	}
	return w[i], true
}

func (w wiring) byName(name string) (link, bool) {
	i := slices.IndexFunc(w, func(l link) bool { return l.name == name })
	if i < 0 {
		return link{}, false
	}
	return w[i], true
}

func (w wiring) ports(bridge link) (out []link) {
	for _, l := range w {
		if l.master == bridge.index {
			out = append(out, l)
		}
	}
	return out
}

// other is the end on the host of an interface of a workload. Both name each
// other, since an index alone may be anything's.
func (w wiring) other(inside link) (link, bool) {
	if inside.kind != "veth" {
		return link{}, false
	}
	l, ok := w.byIndex(inside.peer)
	return l, ok && l.kind == "veth" && l.peer == inside.index
}

// virtual are kinds of ports that lead to somebody on the same machine. Another one
// leads out, and the bridge is then the host's own way there.
var virtual = []string{"veth", "tun", "tap", "ifb", "dummy", "vxlan"}

// uplink is a port by which a bridge leads out of the machine.
func (w wiring) uplink(bridge link) (link, bool) {
	for _, l := range w.ports(bridge) {
		if !slices.Contains(virtual, l.kind) {
			return l, true
		}
	}
	return link{}, false
}
