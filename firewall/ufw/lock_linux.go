package ufw

import (
	"fmt"
	"io/fs"
	"syscall"
)

// lockID returns how /proc/locks names a file: the device, its numbers in
// hexadecimal, and the inode.
func lockID(files fs.FS, name string) (string, bool) {
	info, err := fs.Stat(files, name)
	if err != nil {
		return "", false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	dev := st.Dev
	// The layout of makedev(3) in the GNU C library.
	major := dev>>8&0xfff | dev>>32&^0xfff
	minor := dev&0xff | dev>>12&^0xff
	return fmt.Sprintf("%02x:%02x:%d", major, minor, st.Ino), true
}
