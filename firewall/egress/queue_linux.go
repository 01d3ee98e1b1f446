package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// queues says what waits to be sent by interfaces that are not cut, and may have
// come from a workload before it was: rules have seen it, and nothing sees it
// again. Interfaces are those of the host, and of workloads where they go past
// the host's.
func (p *plan) queues(ctx context.Context) map[string]string {
	open := map[string]string{}
	look := func(r *room, links []link, object func(link) string) {
		waiting, err := r.backlog(ctx)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // without queues there is nothing in them
			note(open, r.String(), err.Error())
		}
		for _, l := range links {
			if n := waiting[l.index]; n > 0 {
				note(open, object(l), fmt.Sprintf("%d bytes wait to be sent by %s, what was sent before the cut among them", n, l.name))
			}
		}
	}
	var others []link
	for _, l := range p.wiring {
		if !l.loop && !slices.Contains(p.names, l.name) && !slices.Contains(p.ports, l.name) {
			others = append(others, l)
		}
	}
	look(p.host, others, func(l link) string { return l.name })
	for _, r := range p.rooms {
		if r.direct {
			look(r.room, r.devices, func(link) string { return r.names[0] })
		}
	}
	return open
}

// backlog is how many bytes wait in the queue of each interface, by index.
func (r *room) backlog(ctx context.Context) (map[int]uint32, error) {
	messages, err := r.route(ctx, unix.RTM_GETQDISC, make([]byte, sizeofTcmsg))
	if err != nil {
		return nil, fmt.Errorf("queues of %s: %w", r, err)
	}
	out := map[int]uint32{}
	for _, m := range messages {
		index, n, err := parseQueue(m.Data)
		if err != nil {
			return nil, fmt.Errorf("queues of %s: %w", r, err)
		}
		out[index] += n
	}
	return out, nil
}

// What <linux/rtnetlink.h> and <linux/gen_stats.h> have, and package unix has not.
const (
	sizeofTcmsg   = 20
	tcRoot        = 0xffffffff // TC_H_ROOT
	tcaStats2     = 7          // TCA_STATS2
	tcaStatsQueue = 3          // TCA_STATS_QUEUE
)

// parseQueue parses what follows the header of RTM_NEWQDISC, see rtnetlink(7): the
// interface, and what waits there. A queue in another one, which counts for it
// too, has nothing.
func parseQueue(data []byte) (index int, waiting uint32, err error) {
	if len(data) < sizeofTcmsg {
		return 0, 0, errors.New("rtnetlink: short message")
	}
	index = int(int32(binary.NativeEndian.Uint32(data[4:]))) //nolint:gosec // as the kernel has it
	if binary.NativeEndian.Uint32(data[12:]) != tcRoot {
		return index, 0, nil
	}
	ad, err := netlink.NewAttributeDecoder(data[sizeofTcmsg:])
	if err != nil {
		return 0, 0, err
	}
	for ad.Next() {
		if ad.Type() != tcaStats2 {
			continue
		}
		ad.Nested(func(stats *netlink.AttributeDecoder) error {
			for stats.Next() {
				if stats.Type() == tcaStatsQueue && len(stats.Bytes()) >= 8 {
					waiting = binary.NativeEndian.Uint32(stats.Bytes()[4:])
				}
			}
			return nil
		})
	}
	if err := ad.Err(); err != nil {
		return 0, 0, err
	}
	return index, waiting, nil
}
