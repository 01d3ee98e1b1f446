package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/managemyclaw/hardshell/composio/gateway"
)

// A fileFence is a [gateway.Fence] that outlasts the process: an agent is
// stopped as long as there is a file of its name in the directory, whatever is
// in it. If nobody can tell, it is stopped too.
type fileFence struct{ dir string }

// openFence returns the fence in a directory, which it makes if it is not there.
func openFence(dir string) (fileFence, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fileFence{}, fmt.Errorf("fence: %w (name another directory with --state-dir)", err)
	}
	return fileFence{dir}, nil
}

func (f fileFence) file(agent string) string { return filepath.Join(f.dir, agent) }

// Fenced implements [gateway.Fence].
func (f fileFence) Fenced(_ context.Context, agent string) error {
	if !filepath.IsLocal(agent) || filepath.Base(agent) != agent {
		return fmt.Errorf("fence: %q is not the name of an agent", agent)
	}
	switch _, err := os.Lstat(f.file(agent)); {
	case err == nil:
		return errors.New("fence: the agent was stopped: whoever runs the gateway has to look at why before it may go on")
	case !errors.Is(err, fs.ErrNotExist):
		return errors.New("fence: it cannot be read, and so it holds")
	}
	// That there is no file says something only where there could be one.
	if info, err := os.Lstat(f.dir); err != nil || !info.IsDir() {
		return errors.New("fence: it cannot be read, and so it holds")
	}
	return nil
}

// engage stops an agent until somebody removes the file, also over a loss of
// power once it has returned. It stops it as soon as there is a file, even if
// it returns an error after that.
func (f fileFence) engage(agent, why string) error {
	file, err := os.OpenFile(f.file(agent), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	_, err = fmt.Fprintln(file, why)
	if err := errors.Join(err, file.Sync(), file.Close(), syncDir(f.dir)); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return nil
}

// syncDir makes the names in a directory durable, which Windows does by itself.
func syncDir(name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

var _ gateway.Fence = fileFence{}
