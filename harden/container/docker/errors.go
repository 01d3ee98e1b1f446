package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/managemyclaw/hardshell/harden/container"
)

// wrap gives an error of the client the identity that callers decide by. The
// client replaces the error of a socket that may not be opened by text that
// wraps nothing, so wrap asks the socket again.
func (e *Engine) wrap(ctx context.Context, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("docker: %s: %s does not answer: %w", doing, e.host, ctx.Err())
	case cerrdefs.IsPermissionDenied(err), cerrdefs.IsUnauthorized(err):
		return fmt.Errorf("docker: %s: %w: %w", doing, fs.ErrPermission, err)
	}
	if e.socket != "" && client.IsErrConnectionFailed(err) {
		conn, dialErr := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", e.socket)
		switch {
		case dialErr == nil:
			_ = conn.Close()
		case errors.Is(dialErr, fs.ErrPermission):
			return fmt.Errorf("docker: %s: %w (run as root, or as a member of the socket's group)", doing, dialErr)
		default:
			return fmt.Errorf("docker: %s: %w: %w (is it running, and is %s its address?)", doing, container.ErrEngine, dialErr, e.host)
		}
	}
	return fmt.Errorf("docker: %s: %w: %w", doing, container.ErrEngine, err)
}
