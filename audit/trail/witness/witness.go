// Package witness pins the checkpoints of a trail on another machine.
//
// [Client] gives them to a witness over HTTP; [Server] is one. Both speak the
// protocol of C2SP tlog-witness, so that either can be replaced by another
// implementation of it.
package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/managemyclaw/hardshell/audit/trail"
)

const (
	maxResponse = 1 << 16
	sizeType    = "text/x.tlog.size"
)

// A Client is a [trail.Witness] that asks a witness to cosign. It may be used
// concurrently; its fields must not be changed once it is in use.
type Client struct {
	// URL is the witness's submission prefix, such as
	// "https://witness.example.com/log". Required.
	URL string

	// Key is the public key of the witness: an answer without a cosignature
	// by it is an error. Required.
	Key trail.PublicKey

	// Log is the public key of the log. Required.
	Log trail.PublicKey

	// HTTP makes the requests. Nil means a client without any settings: give
	// the context a deadline.
	HTTP *http.Client

	mu   sync.Mutex
	seen int64 // size that the witness has, as far as is known
}

// Add implements [trail.Witness]. The error wraps [trail.ErrForked] if the
// witness has seen a log that this is not a continuation of.
func (c *Client) Add(ctx context.Context, cp trail.Checkpoint, extend func(size int64) ([]trail.Hash, error)) ([]byte, error) {
	c.mu.Lock()
	old := min(c.seen, cp.Size)
	c.mu.Unlock()
	lines, has, err := c.post(ctx, cp, old, extend)
	if errors.Is(err, errConflict) {
		if has > cp.Size {
			return nil, fmt.Errorf("%w: %s has a checkpoint of %d records, and this is one of %d", trail.ErrForked, c.URL, has, cp.Size)
		}
		if has == old {
			return nil, fmt.Errorf("%w: %s has other %d records", trail.ErrForked, c.URL, has)
		}
		// It tells which proof it needs. Ask once more, and not for ever.
		old = has
		lines, has, err = c.post(ctx, cp, old, extend)
		if errors.Is(err, errConflict) && has == old {
			return nil, fmt.Errorf("%w: %s has other %d records", trail.ErrForked, c.URL, has)
		}
	}
	if err != nil {
		return nil, err
	}
	cosigned, err := cp.WithCosignatures(lines)
	if err == nil {
		cosigned, err = trail.ParseCheckpoint(cosigned.Note(), c.Log, c.Key)
	}
	if err != nil {
		return nil, fmt.Errorf("witness: %s: %w", c.URL, err)
	}
	if len(cosigned.Cosignatures) == 0 {
		return nil, fmt.Errorf("witness: %s: it answered without a cosignature by %s", c.URL, c.Key)
	}
	c.mu.Lock()
	c.seen = max(c.seen, cp.Size)
	c.mu.Unlock()
	return lines, nil
}

var errConflict = errors.New("witness: it has seen another size")

// post makes one request, with the proof that cp extends old records. With
// errConflict it returns what the witness has.
func (c *Client) post(ctx context.Context, cp trail.Checkpoint, old int64, extend func(size int64) ([]trail.Hash, error)) ([]byte, int64, error) {
	proof, err := extend(old)
	if err != nil {
		return nil, 0, err
	}
	body := fmt.Appendf(nil, "old %d\n", old)
	for _, h := range proof {
		body = append(base64.StdEncoding.AppendEncode(body, h[:]), '\n')
	}
	body = append(append(body, '\n'), cp.Note()...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return nil, 0, fmt.Errorf("witness: %w", err)
	}
	client := c.HTTP
	if client == nil {
		client = new(http.Client)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("witness: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return nil, 0, fmt.Errorf("witness: %s: %w", c.URL, err)
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return answer, 0, nil
	case resp.StatusCode == http.StatusConflict && resp.Header.Get("Content-Type") == sizeType:
		has, err := strconv.ParseInt(strings.TrimSuffix(string(answer), "\n"), 10, 64)
		if err != nil || has < 0 {
			return nil, 0, fmt.Errorf("witness: %s: it answered with the size %.20q", c.URL, answer)
		}
		return nil, has, errConflict
	case resp.StatusCode == http.StatusUnprocessableEntity:
		return nil, 0, fmt.Errorf("%w: %s: the proof does not hold", trail.ErrForked, c.URL)
	case resp.StatusCode == http.StatusConflict:
		return nil, 0, fmt.Errorf("%w: %s: %s", trail.ErrForked, c.URL, resp.Status)
	}
	return nil, 0, fmt.Errorf("witness: %s: %s", c.URL, resp.Status)
}
