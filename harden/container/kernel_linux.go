package container

import (
	"errors"
	"io/fs"
	"syscall"
)

// gone reports whether an error says that a process has ended.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// device returns the numbers of a device node.
func device(info fs.FileInfo) (major, minor uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeDevice == 0 {
		return 0, 0, false
	}
	// The encoding of new_encode_dev in include/linux/kdev_t.h, widened as
	// glibc does.
	d := uint64(st.Rdev) //nolint:unconvert // 32 bits on some machines
	major = uint32((d>>8)&0xfff | (d>>32)&^uint64(0xfff))
	minor = uint32(d&0xff | (d>>12)&^uint64(0xff))
	return major, minor, true
}

// links returns how many names a file has, or 1 if that is not known.
func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) //nolint:unconvert // 32 bits on some machines
	}
	return 1
}

// group returns the group of a file.
func group(info fs.FileInfo) (uint32, bool) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Gid, true
	}
	return 0, false
}
