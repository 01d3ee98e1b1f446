package killswitch

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// What can be wrong with the second secret.
var (
	// ErrSecret reports a secret that is not the one that was set, or that
	// none was set.
	ErrSecret = errors.New("killswitch: wrong second secret")

	// ErrTooManyAttempts reports that the secret was wrong too often, and is
	// not looked at for a while.
	ErrTooManyAttempts = errors.New("killswitch: too many wrong second secrets")
)

const (
	secretSchema   = "hardshell.reset/v1"
	attemptsSchema = "hardshell.attempts/v1"

	// secretRounds is what OWASP's Password Storage Cheat Sheet asks of
	// PBKDF2 with HMAC-SHA-256.
	secretRounds = 600_000
	maxRounds    = 10_000_000
	minSecret    = 12 // bytes

	// freeAttempts may be wrong before each one more doubles the wait, which
	// begins with a second.
	freeAttempts = 3
	longestWait  = 15 * time.Minute
)

// A secretRecord is what is kept of the second secret.
type secretRecord struct {
	Schema string `json:"schema"`
	Agent  string `json:"agent"`
	Rounds int    `json:"rounds"` // of PBKDF2 with HMAC-SHA-256
	Salt   []byte `json:"salt"`
	Hash   []byte `json:"hash"`
}

// An attemptsRecord counts secrets that were wrong.
type attemptsRecord struct {
	Schema string    `json:"schema"`
	Wrong  int       `json:"wrong"` // in a row
	Last   time.Time `json:"last"`
}

func secretFile(dir, agent string) string { return filepath.Join(dir, "reset", agent+".json") }
func attemptsFile(dir, agent string) string {
	return filepath.Join(dir, "reset", agent+".attempts.json")
}

// GenerateResetSecret makes a second secret, of 128 random bits. Keep it where
// the machine of the agent cannot reach it.
func GenerateResetSecret() string { return rand.Text() }

// SetResetSecret sets the second secret of an agent, which [Switch.Reset] asks
// for, in the directory of its switch, [Config.Dir]. Only a slow salted hash is
// kept. A secret that was set before stays, and the error wraps [fs.ErrExist]:
// who may replace it may remove its file.
func SetResetSecret(dir, agent, secret string) error {
	switch {
	case !isAgent(agent):
		return fmt.Errorf("killswitch: set the second secret: %w: %q", ErrAgent, bounded(agent, maxName))
	case len(secret) < minSecret:
		return fmt.Errorf("killswitch: set the second secret: it is shorter than %d bytes: use GenerateResetSecret", minSecret)
	}
	file := secretFile(dir, agent)
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("killswitch: set the second secret of %s: %s: %w", agent, file, err)
	}
	rec := secretRecord{Schema: secretSchema, Agent: agent, Rounds: secretRounds, Salt: make([]byte, 16)}
	_, _ = rand.Read(rec.Salt) // it never fails
	var err error
	if rec.Hash, err = rec.hash(secret); err != nil {
		return fmt.Errorf("killswitch: set the second secret of %s: %w", agent, err)
	}
	data, err := json.Marshal(rec)
	if err == nil {
		err = disk{}.replace(file, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("killswitch: set the second secret of %s: %w", agent, err)
	}
	return nil
}

// HasResetSecret reports whether a second secret is set that can be used.
func HasResetSecret(dir, agent string) bool {
	_, err := readSecret(dir, agent)
	return err == nil
}

func (r *secretRecord) hash(secret string) ([]byte, error) {
	return pbkdf2.Key(sha256.New, secret, r.Salt, r.Rounds, sha256.Size)
}

func readSecret(dir, agent string) (*secretRecord, error) {
	data, err := readFile(secretFile(dir, agent))
	if err != nil {
		return nil, err
	}
	return parseSecret(data, agent)
}

func parseSecret(data []byte, agent string) (*secretRecord, error) {
	var r secretRecord
	if err := decode(secretSchema, data, &r); err != nil {
		return nil, err
	}
	if r.Agent != agent || r.Rounds < secretRounds || r.Rounds > maxRounds || len(r.Salt) < 16 || len(r.Hash) != sha256.Size {
		return nil, errors.New("killswitch: the record of the second secret is damaged")
	}
	return &r, nil
}

// checkSecret compares a secret with the one that was set. Before it does, it
// counts it as wrong, durably: what ends the process does not give one attempt
// more.
func (s *Switch) checkSecret(ctx context.Context, secret string) error {
	rec, err := readSecret(s.cfg.Dir, s.cfg.Agent)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: none was set for %s: use SetResetSecret", ErrSecret, s.cfg.Agent)
	case err != nil:
		return fmt.Errorf("%w: the one that was set cannot be read: %w", ErrSecret, err)
	}
	lock, err := lockFile(ctx, filepath.Join(s.cfg.Dir, "reset", ".lock"))
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if lock != nil {
		defer lock.Close()
	}
	a, err := s.attempts()
	if err != nil {
		return err
	}
	now := time.Now()
	if wait := a.wait(); now.Before(a.Last.Add(wait)) {
		return fmt.Errorf("%w: wait for %v", ErrTooManyAttempts, min(a.Last.Add(wait).Sub(now), longestWait).Round(time.Second))
	}
	a.Wrong, a.Last = a.Wrong+1, now.UTC().Round(0)
	if err := s.keepAttempts(a); err != nil {
		return err
	}
	hash, err := rec.hash(secret)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSecret, err)
	}
	if subtle.ConstantTimeCompare(hash, rec.Hash) != 1 {
		return ErrSecret
	}
	a.Wrong = 0
	return s.keepAttempts(a)
}

func (a attemptsRecord) wait() time.Duration {
	if a.Wrong < freeAttempts {
		return 0
	}
	return min(time.Second<<min(a.Wrong-freeAttempts, 20), longestWait)
}

// attempts returns what is known of earlier attempts. A record that is damaged
// counts as many.
func (s *Switch) attempts() (attemptsRecord, error) {
	data, err := readFile(attemptsFile(s.cfg.Dir, s.cfg.Agent))
	if errors.Is(err, fs.ErrNotExist) {
		return attemptsRecord{}, nil
	}
	if err != nil {
		return attemptsRecord{}, fmt.Errorf("killswitch: attempts to reset: %w", err)
	}
	a, err := parseAttempts(data)
	if err == nil {
		return a, nil
	}
	a = attemptsRecord{Wrong: 20, Last: time.Now().UTC().Round(0)}
	return a, s.keepAttempts(a)
}

func parseAttempts(data []byte) (attemptsRecord, error) {
	var a attemptsRecord
	err := decode(attemptsSchema, data, &a)
	if err == nil && (a.Wrong < 0 || a.Last.IsZero()) {
		err = errors.New("killswitch: the record of attempts to reset is damaged")
	}
	if err != nil {
		return attemptsRecord{}, err
	}
	return a, nil
}

func (s *Switch) keepAttempts(a attemptsRecord) error {
	a.Schema = attemptsSchema
	data, err := json.Marshal(a)
	if err == nil {
		err = s.disk.replace(attemptsFile(s.cfg.Dir, s.cfg.Agent), append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%w: attempts to reset: %w", ErrNotDurable, err)
	}
	return nil
}
