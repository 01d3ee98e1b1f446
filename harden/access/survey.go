package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A survey looks at one container.
type survey struct {
	cfg    *Config
	view   *host.View
	scan   *scanner
	limits Limits
	agent  Agent

	environ []variables // of its processes
	seen    map[string]bool
}

// variables are the environment of one process.
type variables struct {
	pid    int
	values map[string]string
}

// chunk is how much of a file is looked at in one piece, and overlap how much
// of it again with the next, so that no credential is cut.
const (
	chunk   = 1 << 20
	overlap = 8 << 10
)

// stuck is how long a file may take that does not answer, such as a pipe that
// took the place of a file.
const stuck = 5 * time.Second

func procDir(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// gone reports whether a process has ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// processes looks at the environment and the arguments of every process, and at
// the deleted files that it holds open.
func (s *survey) processes(ctx context.Context) {
	for _, p := range s.agent.Container.Kernel.Processes {
		if slices.Contains(s.agent.Processed, p.PID) {
			continue // a thread of the same
		}
		s.agent.Processed = append(s.agent.Processed, p.PID)
		dir := procDir(p.PID)
		env, err := s.read(ctx, dir+"/environ")
		if gone(err) {
			continue
		}
		if err != nil {
			s.unread(InEnvironment, dir+"/environ", err)
		}
		s.environment(ctx, p.PID, env)
		args, err := s.read(ctx, dir+"/cmdline")
		if err != nil && !gone(err) {
			s.unread(InArguments, dir+"/cmdline", err)
		}
		s.text(ctx, args, Leak{Kind: InArguments, Place: dir + "/cmdline"}, 0)
		s.agent.Processes++
		s.openFiles(ctx, p.PID)
	}
}

// environment looks at the variables of a process.
func (s *survey) environment(ctx context.Context, pid int, env []byte) {
	vars := variables{pid, make(map[string]string)}
	at := 0
	for field := range bytes.SplitSeq(env, []byte{0}) {
		name, value, ok := strings.Cut(string(field), "=")
		if ok {
			vars.values[name] = value
		}
		text := field
		if ok && slices.Contains(s.cfg.Own, name) {
			text = []byte(name + "=")
		}
		s.text(ctx, text, Leak{Kind: InEnvironment, Place: procDir(pid) + "/environ", Name: s.shown(name)}, int64(at))
		if ok {
			s.way(procDir(pid)+"/environ", name, value)
		}
		at += len(field) + 1
	}
	s.environ = append(s.environ, vars)
}

// openFiles looks at files that no name leads to.
func (s *survey) openFiles(ctx context.Context, pid int) {
	dir := procDir(pid) + "/fd"
	entries, err := s.view.ReadDir(dir)
	if err != nil {
		if !gone(err) {
			s.unread(InOpenFile, dir, err)
		}
		return
	}
	for _, e := range entries {
		name := dir + "/" + e.Name()
		link, err := s.view.ReadLink(name)
		if err != nil || !strings.HasSuffix(link, " (deleted)") {
			continue
		}
		if info, err := s.view.Stat(name); err != nil || !info.Mode().IsRegular() {
			continue
		}
		s.file(ctx, name, Leak{Kind: InOpenFile, Place: name})
	}
}

// text looks at a text; at is where it begins in the place of leak.
func (s *survey) text(ctx context.Context, text []byte, leak Leak, at int64) {
	if len(text) == 0 {
		return
	}
	s.agent.Bytes += int64(len(text))
	original := bytes.Clone(text)
	if leak.Kind == InArguments {
		text = bytes.ReplaceAll(text, []byte{0}, []byte{' '})
	}
	matches, err := s.scan.scan(ctx, text)
	if err != nil {
		s.unread(leak.Kind, leak.Place, err)
		return
	}
	for _, m := range matches {
		leak.Rule, leak.Mark, leak.At = m.Rule, s.scan.mark(original[m.Start:m.End]), at+int64(m.Start)
		s.agent.Leaks = append(s.agent.Leaks, leak)
	}
}

// limitError makes the end of the time a limit like any other.
func limitError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w (%w)", errLimit, err)
	}
	return err
}

// file looks at a file, which is opened.
func (s *survey) file(ctx context.Context, name string, leak Leak) {
	if s.agent.Files >= s.limits.Files || s.agent.Bytes >= s.limits.Bytes {
		s.unread(leak.Kind, leak.Place, errLimit)
		return
	}
	f, err := s.open(ctx, name)
	if err != nil {
		if !gone(err) {
			s.unread(leak.Kind, leak.Place, err)
		}
		return
	}
	defer f.Close()
	s.agent.Files++
	var (
		buf   []byte
		at    int64 // where buf begins in the file
		line  = 1   // there
		found = make(map[int64]bool)
	)
	for {
		kept := len(buf)
		var err error
		if buf, err = s.more(ctx, f, buf, kept+chunk); err == nil && len(buf) == kept {
			err = io.EOF
		}
		n := len(buf) - kept
		s.agent.Bytes += int64(n)
		end := err != nil
		if end && !errors.Is(err, io.EOF) {
			s.unread(leak.Kind, leak.Place, err)
			if n == 0 {
				return
			}
		}
		if len(buf) > 0 {
			matches, err := s.scan.scan(ctx, bytes.Clone(buf))
			if err != nil {
				s.unread(leak.Kind, leak.Place, err)
				return
			}
			for _, m := range matches {
				if from := at + int64(m.Start); !found[from] {
					found[from] = true
					leak.Rule, leak.At, leak.Line = m.Rule, from, line+bytes.Count(buf[:m.Start], []byte{'\n'})
					leak.Mark = s.scan.mark(buf[m.Start:m.End])
					s.agent.Leaks = append(s.agent.Leaks, leak)
				}
			}
		}
		if end {
			return
		}
		if s.agent.Bytes >= s.limits.Bytes {
			s.unread(leak.Kind, leak.Place, errLimit)
			return
		}
		past := max(len(buf)-overlap, 0)
		line += bytes.Count(buf[:past], []byte{'\n'})
		at += int64(past)
		buf = bytes.Clone(buf[past:])
	}
}

// read reads a small file.
func (s *survey) read(ctx context.Context, name string) ([]byte, error) {
	const most = 4 << 20
	f, err := s.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := s.more(ctx, f, nil, most+1)
	if len(data) > most {
		return nil, fmt.Errorf("it is larger than %d bytes", most)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data, nil
}

// open opens a file that may turn out to be none, and then never open.
func (s *survey) open(ctx context.Context, name string) (io.ReadCloser, error) {
	return patiently(ctx, func() (io.ReadCloser, error) { return s.view.Open(name) }, func(f io.ReadCloser) { f.Close() })
}

// more reads until there are size bytes in buf, or the file ends, which is
// io.EOF.
func (s *survey) more(ctx context.Context, f io.Reader, buf []byte, size int) ([]byte, error) {
	for block := 32 << 10; len(buf) < size; block = min(2*block, chunk) {
		// A reader that is given up on may still write to its buffer: it
		// gets one of its own each time.
		got, err := patiently(ctx, func() (read, error) {
			own := make([]byte, min(block, size-len(buf)))
			n, err := io.ReadFull(f, own)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			return read{own[:n], err}, nil
		}, nil)
		if err != nil {
			return buf, err
		}
		if buf = append(buf, got.data...); got.err != nil {
			return buf, got.err
		}
	}
	return buf, nil
}

type read struct {
	data []byte
	err  error
}

// patiently waits for f, but not for ever; what comes of it too late is dropped.
func patiently[T any](ctx context.Context, f func() (T, error), drop func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result)
	ctx, cancel := context.WithTimeoutCause(ctx, stuck, fmt.Errorf("it does not answer: %w", context.DeadlineExceeded))
	defer cancel()
	go func() {
		v, err := f()
		select {
		case done <- result{v, err}:
		case <-ctx.Done():
			if err == nil && drop != nil {
				drop(v)
			}
		}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}
