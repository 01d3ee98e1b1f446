//go:build !linux

package ufw

import "io/fs"

// lockID knows of no /proc/locks.
func lockID(fs.FS, string) (string, bool) { return "", false }
