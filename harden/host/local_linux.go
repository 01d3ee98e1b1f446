package host

import (
	"io/fs"
	"os"
	"syscall"
)

func granted() Privilege {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	p, _ := privilegesOf(string(status))
	return p
}

func chownLike(f *os.File, like fs.FileInfo) error {
	st, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}
