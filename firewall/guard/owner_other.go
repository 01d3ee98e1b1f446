//go:build !unix

package guard

import "io/fs"

func ownedByUs(fs.FileInfo) bool { return false }
