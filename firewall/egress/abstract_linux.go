package egress

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// abstract says which sockets of a namespace everybody in it can reach, whatever
// files they see: those that have an abstract address, see unix(7). Others may
// pass on what they are told there.
func (r *room) abstract() (why string) {
	var names []string
	err := r.within(func() error {
		data, err := os.ReadFile("/proc/thread-self/net/unix")
		names = abstractNames(data)
		return err
	})
	if err != nil {
		return fmt.Sprintf("which UNIX sockets of the host it may reach is not known: %v", err)
	}
	if len(names) == 0 {
		return ""
	}
	const few = 3
	more := ""
	if n := len(names) - few; n > 0 {
		names, more = names[:few], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("it may reach UNIX sockets of the host by abstract addresses: %q%s", names, more)
}

// abstractNames are the addresses in /proc/net/unix that can be sent to, see
// proc(5): listeners, and what takes datagrams from anybody. An address can hold anything, be it
// what looks like other lines: it then says too much, and never too little.
func abstractNames(data []byte) (names []string) {
	const (
		flags, kind, state, path = 3, 4, 5, 7 // fields
		listening                = "00010000"
		datagrams, unconnected   = "0002", "01"
	)
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) > path && strings.HasPrefix(fields[path], "@") && (fields[flags] == listening || fields[kind] == datagrams && fields[state] == unconnected) {
			names = append(names, fields[path])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
