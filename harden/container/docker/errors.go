package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"github.com/managemyclaw/hardshell/harden/container"
)

// maxBody bounds an answer that is not an archive: ten thousand containers
// are about 20 MiB.
const maxBody = 64 << 20

var errTooLarge = errors.New("the answer is too large")

// transport notes what the client makes of errors that it destroys: of a
// socket that may not be opened it keeps a text that wraps nothing.
type transport struct{ base *http.Transport }

// cause is where a call finds what went wrong below the client.
type cause struct {
	err    error
	status int // of the last answer
}

type causeKey struct{}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	note, _ := req.Context().Value(causeKey{}).(*cause)
	if note == nil {
		note = new(cause)
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		note.err = err
		return nil, err
	}
	note.status = resp.StatusCode
	archive := strings.HasSuffix(req.URL.Path, "/archive")
	if resp.StatusCode >= http.StatusBadRequest && req.Method != http.MethodHead &&
		!strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		// An engine's errors are JSON; this is a proxy or something else.
		note.err = fmt.Errorf("%w: %s of type %q", errNotDocker, resp.Status, resp.Header.Get("Content-Type"))
	}
	if !archive || resp.StatusCode >= http.StatusBadRequest {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxBody, note: note}
	}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
	note *cause
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.note.err = errTooLarge
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.note.err = err
	}
	return n, err
}

// do makes one call of the client and repairs its error.
func do[T any](ctx context.Context, e *Engine, op string, call func(context.Context) (T, error)) (T, error) {
	note := new(cause)
	noted := context.WithValue(ctx, causeKey{}, note)
	var v, zero T
	err := e.agree(noted)
	if err == nil || note.status != 0 { // it answers, and the call shows better what is wrong
		*note = cause{}
		v, err = call(noted)
	}
	if err != nil {
		return zero, e.fail(ctx, op, err, note)
	}
	return v, nil
}

// fail says what err of the client means.
func (e *Engine) fail(ctx context.Context, op string, err error, note *cause) error {
	below := note.err
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("docker: %s at %s: %w", op, e.host, err)
	case ctx.Err() != nil:
		return fmt.Errorf("docker: %s at %s: %w", op, e.host, ctx.Err())
	case errors.Is(below, fs.ErrPermission):
		return fmt.Errorf("docker: %s: may not use %s: run as root or as a user whom the socket admits: %w", op, e.host, below)
	case errors.Is(below, syscall.ECONNREFUSED), errors.Is(below, fs.ErrNotExist):
		return fmt.Errorf("docker: %s: nothing listens at %s: start the engine, or name its address: %w: %w", op, e.host, container.ErrEngine, below)
	case errors.Is(below, errTooLarge), errors.Is(below, errNotDocker):
		return e.nonsense(op, below)
	case below != nil:
		return fmt.Errorf("docker: %s: the connection to %s failed: see whether the engine runs: %w: %w", op, e.host, container.ErrEngine, below)
	}
	switch note.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("docker: %s: %s refuses it: %w: %w", op, e.host, fs.ErrPermission, err)
	case http.StatusNotFound:
		return fmt.Errorf("docker: %s: %w: %w", op, container.ErrNoContainer, err)
	case http.StatusConflict:
		if strings.Contains(err.Error(), "is already in use by container") { // the only sign there is
			return fmt.Errorf("docker: %s: %w: %w", op, container.ErrNameTaken, err)
		}
	case 0:
		return fmt.Errorf("docker: %s: %w", op, err) // the client did not get to ask
	}
	if note.status >= http.StatusBadRequest {
		return fmt.Errorf("docker: %s at %s: %w", op, e.host, err)
	}
	return e.nonsense(op, err) // it could not be decoded
}

func (e *Engine) nonsense(op string, err error) error {
	return fmt.Errorf("docker: %s: %s does not answer as an engine does: check the address: %w: %w", op, e.host, container.ErrEngine, err)
}
