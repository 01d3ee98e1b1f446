// Package netns connects from the network namespaces of processes: it is what
// tries the ways out of an agent's container for package access.
package netns

// A Dialer is an access.Inside for the machine that the process runs on. It
// needs CAP_SYS_ADMIN, and works on Linux alone; elsewhere its error wraps
// errors.ErrUnsupported. It is ready for use.
type Dialer struct{}
