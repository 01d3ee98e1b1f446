package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/managemyclaw/hardshell/internal/lab/labtest"
)

// pty returns the two ends of a pseudo-terminal of so many columns.
func pty(t *testing.T, columns uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		labtest.Skip(t, "no pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { master.Close() })
	ioctl := func(request uintptr, arg unsafe.Pointer) {
		conn, err := master.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err = conn.Control(func(fd uintptr) {
			if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(arg)); errno != 0 {
				t.Errorf("ioctl %#x: %v", request, errno)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var number uint32
	var unlocked int32
	size := [4]uint16{24, columns}
	ioctl(syscall.TIOCSPTLCK, unsafe.Pointer(&unlocked))
	ioctl(syscall.TIOCGPTN, unsafe.Pointer(&number))
	ioctl(syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		labtest.Skip(t, "no pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// onTerminal runs the program with both outputs on a terminal, or only stderr.
func onTerminal(t *testing.T, columns uint16, both bool, env map[string]string, args ...string) (screen, stdout string) {
	t.Helper()
	master, slave := pty(t, columns)
	shown := make(chan string)
	go func() {
		var all bytes.Buffer
		_, _ = all.ReadFrom(master) // ends with EIO when nobody has the other end
		shown <- all.String()
	}()
	var apart bytes.Buffer
	getenv := func(key string) string { return env[key] }
	if both {
		run(t.Context(), args, getenv, slave, slave)
	} else {
		run(t.Context(), args, getenv, &apart, slave)
	}
	slave.Close()
	select {
	case screen = <-shown:
	case <-time.After(10 * time.Second):
		t.Fatal("the terminal does not end")
	}
	return screen, apart.String()
}

// Progress, colour and width are for terminals, and NO_COLOR is obeyed.
func (w *world) terminal(t *testing.T) {
	const name = "on-terminal"
	w.run(t, name)
	args := w.args("security-audit", name, t.TempDir())
	screen, _ := onTerminal(t, 60, true, nil, args...)
	for _, want := range []string{clearLine, "1/", "\x1b[3", "Security score"} {
		if !strings.Contains(screen, want) {
			t.Errorf("%q is not on the terminal:\n%q", want, screen)
		}
	}
	plain, _ := onTerminal(t, 60, true, map[string]string{"NO_COLOR": "1"}, args...)
	_, shown, _ := cutLast(plain, clearLine)
	if strings.Contains(shown, "\x1b") {
		t.Errorf("colours with NO_COLOR: %q", shown)
	}
	for line := range strings.Lines(shown) {
		if n := len([]rune(strings.TrimRight(line, "\r\n"))); n > 60 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	screen, stdout := onTerminal(t, 60, false, nil, append(args, "--format", "json")...)
	if !strings.HasSuffix(screen, clearLine) {
		t.Errorf("progress stays: %q", screen)
	}
	parse(t, stdout)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
