package remote

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// maxNonces is how many commands of one key are remembered. Only its holder
// can make the memory forget.
const maxNonces = 4096

const noncesHeader = "hardshell.killswitch.nonces/v1\n"

// nonces remembers which commands were used. It never keeps a command from
// being carried out: what is full forgets the oldest, and what cannot be written
// is kept in memory. A replayed kill costs an agent's time; a kill that is
// refused may cost everything.
//
// It does not forget by the clock, which may be set.
type nonces struct {
	file string // empty: memory alone

	mu      sync.Mutex
	keys    map[keyID]*used
	order   []keyID
	pending []byte
	waiting []chan struct{}
	writing bool
	lines   int // in the file
	problem error
}

// used are the last nonces of one key, in a ring.
type used struct {
	set  map[[16]byte]bool
	ring [][16]byte
	next int
}

func (u *used) add(n [16]byte) {
	if len(u.ring) < maxNonces {
		u.ring = append(u.ring, n)
	} else {
		delete(u.set, u.ring[u.next])
		u.ring[u.next] = n
		u.next = (u.next + 1) % maxNonces
	}
	u.set[n] = true
}

// openNonces reads the file of a memory for the given keys. Whatever is wrong
// with it is a problem, and no error.
func openNonces(file string, keys []keyID) *nonces {
	m := &nonces{file: file, keys: make(map[keyID]*used), order: keys}
	for _, k := range keys {
		m.keys[k] = &used{set: make(map[[16]byte]bool)}
	}
	if file == "" {
		return m
	}
	whole, err := m.load()
	if err == nil && !whole {
		m.problem = fmt.Errorf("remote: %s is damaged: commands that were used before may be used again until they expire", file)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.problem = fmt.Errorf("remote: used commands cannot be read: %w", err)
	}
	if err != nil || !whole || m.lines > m.most() {
		if err := m.rewrite(); err != nil {
			m.problem = errors.Join(m.problem, fmt.Errorf("remote: used commands cannot be kept, so that they may be used again after a restart: %w", err))
		}
	}
	return m
}

// most is how many lines the file may have.
func (m *nonces) most() int { return 2 * maxNonces * max(len(m.order), 1) }

func (m *nonces) load() (whole bool, err error) {
	f, err := os.Open(m.file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s is not a regular file", m.file)
	}
	const line = 32 + 1 + 32 + 1
	if info.Size() > int64(len(noncesHeader)+2*m.most()*line) {
		return false, fmt.Errorf("%s is too long", m.file)
	}
	scan := bufio.NewReaderSize(f, 4096)
	head, err := scan.ReadSlice('\n')
	whole = err == nil && string(head) == noncesHeader
	for {
		text, err := scan.ReadSlice('\n')
		if len(text) == 0 && err != nil {
			return whole, nil
		}
		var k keyID
		var n [16]byte
		if len(text) != line || text[32] != ' ' || text[line-1] != '\n' || !unhex(k[:], text[:32]) || !unhex(n[:], text[33:65]) {
			whole = false
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return whole, nil
			}
			continue
		}
		m.lines++
		if u := m.keys[k]; u != nil && !u.set[n] {
			u.add(n)
		}
	}
}

func unhex(dst, digits []byte) bool {
	n, err := hex.Decode(dst, digits)
	return err == nil && n == len(dst)
}

// use remembers a command, and reports whether it was not used before. Saved is
// closed when that outlasts the process, or cannot.
func (m *nonces) use(k keyID, n [16]byte) (fresh bool, saved <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.keys[k]
	if u == nil || u.set[n] {
		return false, nil
	}
	u.add(n)
	done := make(chan struct{})
	if m.file == "" {
		close(done)
		return true, done
	}
	m.pending = fmt.Appendf(m.pending, "%s %x\n", k, n)
	m.waiting = append(m.waiting, done)
	if !m.writing {
		m.writing = true
		go m.write()
	}
	return true, done
}

// write writes what is pending until nothing is. One write and one fsync(2)
// serve all who came meanwhile.
func (m *nonces) write() {
	for {
		m.mu.Lock()
		text, waiting := m.pending, m.waiting
		m.pending, m.waiting = nil, nil
		if len(waiting) == 0 {
			m.writing = false
			m.mu.Unlock()
			return
		}
		m.lines += len(waiting)
		long := m.lines > m.most()
		m.mu.Unlock()
		var err error
		if long {
			err = m.rewrite() // has the new ones, too
		} else {
			err = appendTo(m.file, text)
		}
		if err != nil {
			err = fmt.Errorf("remote: used commands cannot be kept, so that they may be used again after a restart: %w", err)
		}
		m.mu.Lock()
		if err != nil {
			m.problem = err
			m.lines = m.most() // write the whole file next time
		} else {
			m.problem = nil
		}
		m.mu.Unlock()
		for _, w := range waiting {
			close(w)
		}
	}
}

func appendTo(file string, text []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// rewrite replaces the file by what is remembered.
func (m *nonces) rewrite() error {
	var text strings.Builder
	text.WriteString(noncesHeader)
	m.mu.Lock()
	m.lines = 0
	for _, k := range m.order {
		u := m.keys[k]
		for i := range u.ring {
			fmt.Fprintf(&text, "%s %x\n", k, u.ring[(u.next+i)%len(u.ring)])
			m.lines++
		}
	}
	m.mu.Unlock()
	dir := filepath.Dir(m.file)
	f, err := os.CreateTemp(dir, filepath.Base(m.file)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(text.String())
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), m.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) {
		return err // Windows cannot, and says ErrPermission
	}
	return nil
}

// wrong returns what is wrong with the memory.
func (m *nonces) wrong() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.problem
}
