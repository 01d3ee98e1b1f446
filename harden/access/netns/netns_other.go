//go:build !linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// DialFrom returns an error: there are no network namespaces here.
func (Dialer) DialFrom(context.Context, int, string, string) (net.Conn, error) {
	return nil, fmt.Errorf("netns: only Linux has network namespaces: %w", errors.ErrUnsupported)
}
