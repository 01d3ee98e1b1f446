//go:build unix

package access

import (
	"io/fs"
	"syscall"
)

// ownership returns the owner of a file and how many names it has.
func ownership(info fs.FileInfo) (uid uint32, links uint64, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return st.Uid, uint64(st.Nlink), true //nolint:unconvert // 16 or 32 bits on some systems
}
