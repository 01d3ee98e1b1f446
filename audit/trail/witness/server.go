package witness

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// maxRequest and maxProof bound a request: see C2SP tlog-witness.
const (
	maxRequest = 1 << 17
	maxProof   = 63
)

// A Server is a witness: an [http.Handler] that cosigns checkpoints, each of
// which must extend those before. Run it on another machine than the logs. Its
// fields must not be changed once it is in use.
type Server struct {
	// Name and Key are the witness's. Required.
	Name string
	Key  ed25519.PrivateKey

	// Logs are the public keys of the logs that it cosigns for.
	Logs []trail.PublicKey

	// Dir is where it keeps the last checkpoint of each log. Required: a
	// witness that forgets is none.
	Dir string

	mu sync.Mutex
}

// Public returns the public key of s.
func (s *Server) Public() (trail.PublicKey, error) {
	public, ok := s.Key.Public().(ed25519.PublicKey)
	if !ok || len(s.Key) != ed25519.PrivateKeySize {
		return trail.PublicKey{}, fmt.Errorf("witness: %s: %w", s.Name, trail.ErrKey)
	}
	return trail.NewWitnessKey(s.Name, public)
}

// ServeHTTP implements [http.Handler]. It knows POST …/add-checkpoint.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/add-checkpoint") {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "too long", http.StatusRequestEntityTooLarge)
		return
	}
	line, has, status := s.add(string(body))
	switch {
	case status == http.StatusConflict:
		w.Header().Set("Content-Type", sizeType)
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "%d\n", has)
	case status != http.StatusOK:
		http.Error(w, http.StatusText(status), status)
	default:
		_, _ = io.WriteString(w, line)
	}
}

// add judges a request. It returns the cosignature, or the status, and with
// http.StatusConflict the size that it has.
func (s *Server) add(body string) (line string, has int64, status int) {
	old, proof, text, err := parseRequest(body)
	if err != nil {
		return "", 0, http.StatusBadRequest
	}
	origin, _, _ := strings.Cut(text, "\n")
	var c trail.Checkpoint
	status = http.StatusNotFound
	var log trail.PublicKey
	for _, key := range s.Logs {
		if key.Name() != origin {
			continue
		}
		if c, err = trail.ParseCheckpoint(text, key); err != nil {
			status = http.StatusForbidden
			continue
		}
		status, log = http.StatusOK, key
		break
	}
	if status != http.StatusOK {
		return "", 0, status
	}
	if old > c.Size {
		return "", 0, http.StatusBadRequest
	}
	// To compare and to keep is one step: see the race in C2SP tlog-witness.
	s.mu.Lock()
	defer s.mu.Unlock()
	pin := trail.PinFile{Path: s.file(origin), Key: log}
	last, err := pin.Read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", 0, http.StatusInternalServerError // it forgets nothing, so it does not go on
	}
	if old != last.Size {
		return "", last.Size, http.StatusConflict
	}
	if last.Size == c.Size && last.Note() != "" && last.Root != c.Root {
		return "", last.Size, http.StatusConflict
	}
	if old == 0 && len(proof) > 0 || old > 0 && trail.CheckConsistency(last, c, proof) != nil {
		return "", 0, http.StatusUnprocessableEntity
	}
	line, err = s.cosign(c)
	if err == nil {
		err = pin.Replace(c)
	}
	if err != nil {
		return "", 0, http.StatusInternalServerError
	}
	return line, 0, http.StatusOK
}

// file returns the name of the file for a log.
func (s *Server) file(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(s.Dir, fmt.Sprintf("%x.checkpoint", sum[:16]))
}

// cosign returns the line of a cosignature: C2SP tlog-cosignature.
func (s *Server) cosign(c trail.Checkpoint) (string, error) {
	public, err := s.Public()
	if err != nil {
		return "", err
	}
	body, _, _ := strings.Cut(c.Note(), "\n\n")
	now := uint64(time.Now().Unix())
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s\n", now, body)
	id, err := strconv.ParseUint(strings.Split(public.String(), "+")[1], 16, 32)
	if err != nil {
		return "", err
	}
	sig := binary.BigEndian.AppendUint32(nil, uint32(id))
	sig = binary.BigEndian.AppendUint64(sig, now)
	sig = append(sig, ed25519.Sign(s.Key, []byte(message))...)
	return fmt.Sprintf("— %s %s\n", s.Name, base64.StdEncoding.EncodeToString(sig)), nil
}

var errRequest = errors.New("witness: malformed request")

// parseRequest reads the body of a request: the old size, the proof, and the
// checkpoint.
func parseRequest(body string) (old int64, proof []trail.Hash, text string, err error) {
	head, text, ok := strings.Cut(body, "\n\n")
	if !ok {
		return 0, nil, "", errRequest
	}
	lines := strings.Split(head, "\n")
	size, ok := strings.CutPrefix(lines[0], "old ")
	old, err = strconv.ParseInt(size, 10, 64)
	if !ok || err != nil || old < 0 || strconv.FormatInt(old, 10) != size || len(lines)-1 > maxProof {
		return 0, nil, "", errRequest
	}
	for _, line := range lines[1:] {
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != sha256.Size {
			return 0, nil, "", errRequest
		}
		proof = append(proof, trail.Hash(raw))
	}
	return old, proof, text, nil
}
