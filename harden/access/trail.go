package access

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// DefaultMaxUnpinned is what the zero value of [Trail.MaxUnpinned] means.
const DefaultMaxUnpinned = time.Hour

// A Trail is a log of package trail on the machine, in which what agents do is
// recorded, or what is done about them. All paths are absolute.
type Trail struct {
	// Name names it in reports, such as "gateway".
	Name string

	// Dir is the directory of the log.
	Dir string

	// Key is the public key that verifies it. Zero means the one in KeyFile.
	// Whoever can exchange it, and the pinned checkpoint, can exchange the log.
	Key     trail.PublicKey
	KeyFile string

	// Pin is the file with the checkpoint that the log must extend; see
	// [trail.PinFile]. It is worth as much as the place where it is kept.
	Pin string

	// Secret is the file with the key that signs the log, if it is on the
	// machine.
	Secret string

	// Owner is the number of the user whose the log is, beside root.
	Owner uint32

	// MaxAge is how old the last record may be: somewhat more than the
	// interval at which whoever writes to the log says that it lives. Zero
	// means that it may be silent.
	MaxAge time.Duration

	// MaxUnpinned is how long a record may be there before a pinned checkpoint
	// covers it, and it can be cut off unseen until then. Zero means
	// DefaultMaxUnpinned.
	MaxUnpinned time.Duration

	// Gateway says that the gateway of [Config] records in it what agents do.
	// It is then asked for what it must refuse, and the refusal looked for.
	Gateway bool
}

// files are all that belongs to the trail, beside the log.
func (t *Trail) files() []string {
	var all []string
	for _, name := range []string{t.KeyFile, t.Pin, t.Secret} {
		if name != "" {
			all = append(all, name)
		}
	}
	return all
}

// A TrailReview is what a trail shows of itself. It holds no secret.
type TrailReview struct {
	Trail Trail
	Key   trail.PublicKey

	// Err is why the log is not sound, wrapping a [*trail.DamageError], or why
	// that cannot be told.
	Err     error
	Summary trail.Summary

	// Gone says that there is no log, although there is a key or a pinned
	// checkpoint of one.
	Gone bool

	Pinned *trail.Checkpoint
	PinErr error // why there is none

	// Last is the time of the last record, and Unpinned that of the first that
	// Pinned does not cover, if there is one.
	Last     time.Time
	Unpinned time.Time
	ReadErr  error // why they are not known

	Asked    bool // the gateway was asked for what it must refuse
	Recorded bool // and has recorded it
	AskErr   error

	Now time.Time // when it was looked at
}

// Subject names the trail in reports.
func (r *TrailReview) Subject() string { return "trail/" + cmp.Or(r.Trail.Name, r.Trail.Dir) }

// NewTrailSource returns the trails of c. Each is verified as a whole.
func NewTrailSource(c Config) *harden.Source[TrailReview] {
	return &harden.Source[TrailReview]{
		Name:    "trails",
		Subject: func(r TrailReview) string { return r.Subject() },
		List: func(ctx context.Context, v *host.View) ([]TrailReview, error) {
			if len(c.Trails) == 0 {
				return nil, errNoTrail
			}
			all := make([]TrailReview, len(c.Trails))
			for i, t := range c.Trails {
				all[i] = TrailReview{Trail: t, Now: time.Now()}
				all[i].look(ctx, &c, v)
			}
			return all, ctx.Err()
		},
	}
}

var errNoTrail = errors.New("access: Config.Trails: it is not known where what agents do is recorded")

// logOf returns the log of t as the machine has it.
func (t *Trail) logOf(v *host.View) (fs.FS, error) {
	if !path.IsAbs(t.Dir) || path.Clean(t.Dir) != t.Dir || t.Dir == "/" {
		return nil, fmt.Errorf("access: Config.Trails: %q is not an absolute path in its shortest form", t.Dir)
	}
	_, err := v.ReadDir(t.Dir) // which says what fs.Sub does not
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no log in %s: have what agents do recorded there: %w", t.Dir, err)
	}
	if err != nil {
		return nil, err
	}
	return fs.Sub(v.FS, strings.TrimPrefix(t.Dir, "/"))
}

// keyOf returns the public key of t.
func (t *Trail) keyOf(v *host.View) (trail.PublicKey, error) {
	if !t.Key.IsZero() {
		return t.Key, nil
	}
	if t.KeyFile == "" {
		return trail.PublicKey{}, errors.New("access: Config.Trails: without the log's public key nothing can be verified")
	}
	text, err := v.ReadFile(t.KeyFile)
	if err != nil {
		return trail.PublicKey{}, fmt.Errorf("the log's public key: %w", err)
	}
	key, err := trail.ParsePublicKey(strings.TrimSpace(string(text)))
	if err != nil {
		return trail.PublicKey{}, fmt.Errorf("%s: %w", t.KeyFile, err)
	}
	return key, nil
}

// pinOf returns the checkpoint that is pinned of t. The error wraps
// [fs.ErrNotExist] if there is none.
func (t *Trail) pinOf(v *host.View, key trail.PublicKey) (*trail.Checkpoint, error) {
	if t.Pin == "" {
		return nil, fmt.Errorf("no file is named for the checkpoint that pins the log: %w", fs.ErrNotExist)
	}
	text, err := v.ReadFile(t.Pin)
	if err != nil {
		return nil, err
	}
	c, err := trail.ParseCheckpoint(string(text), key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Pin, err)
	}
	return &c, nil
}

func (r *TrailReview) look(ctx context.Context, c *Config, v *host.View) {
	t := &r.Trail
	var id string
	if t.Gateway && c.Gateway.URL != "" {
		r.Asked = true
		id, r.AskErr = ask(ctx, &c.Gateway)
	}
	log, err := t.logOf(v)
	if r.Gone = errors.Is(err, fs.ErrNotExist) && t.leftovers(v); err != nil {
		r.Err = err
		return
	}
	if r.Key, r.Err = t.keyOf(v); r.Err != nil {
		return
	}
	if r.Pinned, r.PinErr = t.pinOf(v, r.Key); r.PinErr != nil {
		r.Pinned = nil
	}
	verifier := trail.Verifier{Key: r.Key, Live: true}
	if r.Pinned != nil {
		verifier.Pinned = []trail.Checkpoint{*r.Pinned}
	}
	if r.Summary, r.Err = verifier.Verify(ctx, log); r.Err != nil {
		r.Gone = errors.Is(r.Err, fs.ErrNotExist) && t.leftovers(v)
		return
	}
	r.ReadErr = r.read(ctx, log, id)
}

// leftovers reports whether there is a key or a pinned checkpoint of a log.
func (t *Trail) leftovers(v *host.View) bool {
	for _, name := range t.files() {
		if _, err := v.Lstat(name); err == nil {
			return true
		}
	}
	return false
}

// read looks for the records that say how the log is kept.
func (r *TrailReview) read(ctx context.Context, log fs.FS, asked string) error {
	reader, err := trail.OpenReader(ctx, log, r.Key)
	if err != nil {
		return err
	}
	size := reader.Checkpoint().Size
	if size == 0 {
		return nil
	}
	last, err := reader.Tail(ctx, trail.Query{}, 1)
	if err != nil {
		return err
	}
	if len(last) == 1 {
		r.Last = last[0].Event.Time
	}
	if r.Pinned != nil && r.Pinned.Size < size {
		rec, err := reader.Record(ctx, max(r.Pinned.Size, r.Summary.First))
		if err != nil {
			return err
		}
		r.Unpinned = rec.Event.Time
	}
	if asked != "" {
		// Whoever writes to a log is not faster than the log: what was asked
		// before the log was read is in it.
		found, err := reader.Tail(ctx, trail.Query{ID: asked, Since: r.Now.Add(-clockSlack)}, 1)
		if err != nil {
			return err
		}
		r.Recorded = len(found) == 1
	}
	return nil
}

// clockSlack is how far clocks may be apart.
const clockSlack = 5 * time.Minute

// ask asks the gateway for what it refuses everybody, and returns its number
// for the request, by which the refusal is recorded.
func ask(ctx context.Context, g *Gateway) (id string, err error) {
	token := composio.NewSecret("none")
	if len(g.Probes) > 0 {
		token = g.Probes[0].Token
	}
	d, err := newDoor(g, token)
	if err != nil {
		return "", err
	}
	answer, err := d.do(ctx, http.MethodGet, "/api/v3.1/hardshell-asks-whether-this-is-recorded", token.Reveal(), "", nil)
	if err != nil {
		return "", err
	}
	var refusal struct {
		Error struct {
			RequestID string `json:"request_id"`
		} `json:"error"`
	}
	err = json.Unmarshal(answer.body, &refusal)
	id = refusal.Error.RequestID
	if err != nil || answer.status < 400 || len(id) < 8 || len(id) > 200 {
		return "", fmt.Errorf("%w, and does not number the request: it is no gateway of this module's", statusError(answer.status))
	}
	return id, nil
}
