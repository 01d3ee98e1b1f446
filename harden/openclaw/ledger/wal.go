package ledger

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// A frame of a write-ahead log has a header of 24 bytes before its page.
const frameHeader = 24

// errGap says that a frame of a log is broken, and that others follow it.
// SQLite would pass over them in silence, and with them over what was committed.
var errGap = errors.New("its log has a frame that is broken, and more after it")

// checkLog makes sure that SQLite will read all of the log in file: that each
// frame has the checksum that it must have ("WAL Format" of SQLite's
// documentation), up to the last one, which the writer may have been at. What is
// left over from the time before the log was begun anew has another salt.
func checkLog(file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	defer closeRead(f)
	in := bufio.NewReaderSize(f, 1<<20)
	var header [walHeader]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if binary.BigEndian.Uint32(header[:]) == walMagic[1] {
		order = binary.BigEndian
	}
	sum := logSum{}
	sum.add(order, header[:24])
	if !sum.is(header[24:32]) {
		return errGap
	}
	size := binary.BigEndian.Uint32(header[8:])
	if size < 512 || size > 65536 || size&(size-1) != 0 {
		return errGap
	}
	frame := make([]byte, frameHeader+size)
	broken := false
	for {
		if _, err := io.ReadFull(in, frame); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		current := [8]byte(frame[8:16]) == [8]byte(header[16:24])
		if broken {
			if current {
				return errGap
			}
			continue
		}
		sum.add(order, frame[:8])
		sum.add(order, frame[frameHeader:])
		broken = !current || !sum.is(frame[16:24])
	}
}

// A logSum is the running checksum of a log.
type logSum struct{ a, b uint32 }

func (s *logSum) add(order binary.ByteOrder, data []byte) {
	a, b := s.a, s.b
	for ; len(data) >= 8; data = data[8:] {
		a += order.Uint32(data) + b
		b += order.Uint32(data[4:]) + a
	}
	s.a, s.b = a, b
}

func (s *logSum) is(stored []byte) bool {
	return binary.BigEndian.Uint32(stored) == s.a && binary.BigEndian.Uint32(stored[4:]) == s.b
}
