//go:build linux

package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

var fileVerbs = map[string]verb{
	"write": {"PATH DATA: replace the file", 2, func(args []string) (any, error) {
		return nil, os.WriteFile(args[0], []byte(args[1]), 0o644)
	}},
	"append": {"PATH DATA: add to the file", 2, func(args []string) (any, error) {
		f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		_, err = f.WriteString(args[1])
		return nil, err
	}},
	"read": {"PATH: up to 1 MiB of the file", 1, func(args []string) (any, error) {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, 1<<20))
		return string(data), err
	}},
	"remove": {"PATH: remove the file or the tree", 1, func(args []string) (any, error) {
		return nil, os.RemoveAll(args[0])
	}},
	"mkdir": {"PATH: with its parents", 1, func(args []string) (any, error) {
		return nil, os.MkdirAll(args[0], 0o755)
	}},
	"chmod": {"PATH OCTAL: also 4755", 2, func(args []string) (any, error) {
		mode, err := strconv.ParseUint(args[1], 8, 32)
		if err != nil {
			return nil, err
		}
		return nil, syscall.Chmod(args[0], uint32(mode))
	}},
	"list": {"PATH: names in the directory", 1, func(args []string) (any, error) {
		entries, err := os.ReadDir(args[0])
		names := []string{}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names, err
	}},
	"stat": {"PATH: without following the last link", 1, func(args []string) (any, error) {
		info, err := os.Lstat(args[0])
		if err != nil {
			return nil, err
		}
		s := info.Sys().(*syscall.Stat_t)
		return map[string]any{
			"mode": info.Mode().String(), "perm": fmt.Sprintf("%04o", s.Mode&0o7777), "size": info.Size(),
			"uid": s.Uid, "gid": s.Gid, "dir": info.IsDir(), "link": info.Mode()&fs.ModeSymlink != 0,
		}, nil
	}},
	"mounts": {": lines of /proc/self/mountinfo", 0, func([]string) (any, error) {
		data, err := os.ReadFile("/proc/self/mountinfo")
		return strings.Split(strings.TrimSpace(string(data)), "\n"), err
	}},
	"fill": {"PATH MIB: write so many MiB", 2, func(args []string) (any, error) {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return nil, err
		}
		f, err := os.Create(args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		block := make([]byte, 1<<20)
		for i := range n {
			if _, err := f.Write(block); err != nil {
				return i, err
			}
		}
		return n, f.Sync()
	}},
}
