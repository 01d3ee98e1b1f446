package remote

import (
	"encoding/binary"
	"os"
)

// NewNonces returns a memory of used commands: a function that uses the i-th
// one, and one that returns the size of the file.
func NewNonces(file string, k PublicKey) (use func(i int) bool, size func() (int64, error)) {
	m := openNonces(file, []keyID{k.id()})
	use = func(i int) bool {
		var n [16]byte
		binary.BigEndian.PutUint64(n[:], uint64(i))
		fresh, saved := m.use(k.id(), n)
		if fresh && i%500 == 0 {
			<-saved
		}
		return fresh
	}
	size = func() (int64, error) {
		info, err := os.Stat(file)
		if err != nil {
			return 0, err
		}
		return info.Size(), m.wrong()
	}
	return use, size
}

// ParseCommand parses a command, and returns it with who is said to have
// signed it, and what it is written again.
func ParseCommand(data []byte) (c Command, again []byte, ok bool) {
	s, err := parseCommand(data)
	if err != nil {
		return Command{}, nil, false
	}
	return s.Command, s.encode(s.key), true
}
