//go:build !unix

package access

import "io/fs"

func ownership(fs.FileInfo) (uid uint32, links uint64, ok bool) { return 0, 0, false }
