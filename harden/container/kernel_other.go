//go:build !linux

package container

import (
	"errors"
	"io/fs"
)

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func device(fs.FileInfo) (major, minor uint32, ok bool) { return 0, 0, false }

func links(fs.FileInfo) uint64 { return 1 }

func group(fs.FileInfo) (uint32, bool) { return 0, false }
