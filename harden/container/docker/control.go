package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/versions"

	"github.com/managemyclaw/hardshell/harden/container"
)

// none is the answer of calls that have none.
type none = struct{}

func act(ctx context.Context, e *Engine, op string, call func(context.Context) error) error {
	_, err := do(ctx, e, op, func(ctx context.Context) (none, error) { return none{}, call(ctx) })
	return err
}

// Start implements [container.Control].
func (e *Engine) Start(ctx context.Context, id string) error {
	return act(ctx, e, fmt.Sprintf("start container %q", id), func(ctx context.Context) error {
		return e.cli.ContainerStart(ctx, id, api.StartOptions{})
	})
}

// Stop implements [container.Control].
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	var o api.StopOptions
	if grace > 0 {
		seconds := int((grace + time.Second - 1) / time.Second)
		o.Timeout = &seconds
	}
	return act(ctx, e, fmt.Sprintf("stop container %q", id), func(ctx context.Context) error {
		return e.cli.ContainerStop(ctx, id, o)
	})
}

// Rename implements [container.Control].
func (e *Engine) Rename(ctx context.Context, id, name string) error {
	return act(ctx, e, fmt.Sprintf("rename container %q to %q", id, name), func(ctx context.Context) error {
		return e.cli.ContainerRename(ctx, id, name)
	})
}

// Remove implements [container.Control].
func (e *Engine) Remove(ctx context.Context, id string) error {
	err := act(ctx, e, fmt.Sprintf("remove container %q", id), func(ctx context.Context) error {
		return e.cli.ContainerRemove(ctx, id, api.RemoveOptions{})
	})
	if errors.Is(err, container.ErrNoContainer) {
		return nil
	}
	return err
}

// RemoveVolume implements [container.Control].
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	err := act(ctx, e, fmt.Sprintf("remove volume %q", name), func(ctx context.Context) error {
		return e.cli.VolumeRemove(ctx, name, false)
	})
	if errors.Is(err, container.ErrNoContainer) { // no such volume
		return nil
	}
	return err
}

// SetRestartPolicy implements [container.Control].
func (e *Engine) SetRestartPolicy(ctx context.Context, id, policy string) error {
	op := fmt.Sprintf("set the restart policy of container %q", id)
	p, err := parsePolicy(policy)
	if err != nil {
		return fmt.Errorf("docker: %s: %w", op, err)
	}
	return act(ctx, e, op, func(ctx context.Context) error {
		_, err := e.cli.ContainerUpdate(ctx, id, api.UpdateConfig{RestartPolicy: p})
		return err
	})
}

// Clone implements [container.Control].
func (e *Engine) Clone(ctx context.Context, id, name string, h container.Hardening) (string, error) {
	op := fmt.Sprintf("clone container %q", id)
	old, err := e.inspect(ctx, id)
	if err != nil {
		return "", err
	}
	image := e.imageName(ctx, &old)
	// Asking settles the version of the API, which decides what may be said.
	p := clonePlan(&old, h, e.cli.ClientVersion())
	p.config.Image = image

	created, err := do(ctx, e, op, func(ctx context.Context) (api.CreateResponse, error) {
		return e.cli.ContainerCreate(ctx, p.config, p.host, p.networking, nil, name)
	})
	if err != nil {
		return "", redact(err, old.Config.Env)
	}
	if created.ID == "" {
		return "", e.nonsense(op, errNotDocker)
	}
	for _, n := range p.connect {
		err := act(ctx, e, fmt.Sprintf("%s: connect network %q", op, n.name), func(ctx context.Context) error {
			return e.cli.NetworkConnect(ctx, n.name, created.ID, n.endpoint)
		})
		if err != nil {
			return "", err
		}
	}
	if p.disconnect != "" {
		err := act(ctx, e, fmt.Sprintf("%s: disconnect network %q", op, p.disconnect), func(ctx context.Context) error {
			return e.cli.NetworkDisconnect(ctx, p.disconnect, created.ID, false)
		})
		if err != nil {
			return "", err
		}
	}
	clone, err := e.inspect(ctx, created.ID)
	if err != nil {
		return "", err
	}
	if clone.Image != old.Image { // the tag moved meanwhile
		return "", fmt.Errorf("docker: %s: the clone has image %s instead of %s", op, clone.Image, old.Image)
	}
	return created.ID, nil
}

// imageName returns the name that the container's image was asked for by, if
// it is still that image's, or else the image's id.
func (e *Engine) imageName(ctx context.Context, old *api.InspectResponse) string {
	id, err := do(ctx, e, "inspect image", func(ctx context.Context) (string, error) {
		i, err := e.cli.ImageInspect(ctx, old.Config.Image)
		return i.ID, err
	})
	if err != nil || id != old.Image {
		return old.Image
	}
	return old.Config.Image
}

// redact removes the values of the environment from an error of the engine,
// which may quote what it was sent.
func redact(err error, env []string) error {
	text := err.Error()
	for _, kv := range env {
		if _, value, _ := strings.Cut(kv, "="); len(value) > 3 {
			text = strings.ReplaceAll(text, value, "(not shown)")
		}
	}
	if text == err.Error() {
		return err
	}
	for _, kind := range []error{container.ErrNameTaken, container.ErrNoContainer, container.ErrEngine} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%w: %s", kind, text)
		}
	}
	return errors.New(text)
}

// Changed implements [container.Control].
func (e *Engine) Changed(ctx context.Context, id string) ([]string, error) {
	changes, err := do(ctx, e, fmt.Sprintf("list changed files of container %q", id), func(ctx context.Context) ([]api.FilesystemChange, error) {
		return e.cli.ContainerDiff(ctx, id)
	})
	return changed(changes), err
}

func changed(changes []api.FilesystemChange) []string {
	parents := make(map[string]bool)
	for _, c := range changes {
		for dir := path.Dir(c.Path); dir != "/" && dir != "."; dir = path.Dir(dir) {
			if parents[dir] {
				break
			}
			parents[dir] = true
		}
	}
	var all []string
	for _, c := range changes {
		if c.Kind != api.ChangeModify || !parents[c.Path] {
			all = append(all, c.Path)
		}
	}
	slices.Sort(all)
	return all
}

// Copy implements [container.Control].
func (e *Engine) Copy(ctx context.Context, from, to, dir string, skip []string, owner *container.Owner) error {
	dir = path.Clean(dir)
	op := fmt.Sprintf("copy %s of container %q", dir, from)
	type source struct {
		io.ReadCloser
		stat api.PathStat
	}
	src, err := do(ctx, e, op, func(ctx context.Context) (source, error) {
		r, stat, err := e.cli.CopyFromContainer(ctx, from, dir)
		return source{r, stat}, err
	})
	switch {
	case errors.Is(err, container.ErrNoContainer):
		// Either the container or the path does not exist.
		if _, err := e.inspect(ctx, from); err != nil {
			return err
		}
		src.ReadCloser = io.NopCloser(bytes.NewReader(emptyArchive(path.Base(dir), owner)))
	case err != nil:
		return err
	case !src.stat.Mode.IsDir():
		src.Close()
		return fmt.Errorf("docker: %s: not a directory", op)
	}
	defer src.Close()

	pr, pw := io.Pipe()
	done := make(chan struct{})
	var top *tar.Header
	go func() {
		defer close(done)
		var err error
		top, err = rewrite(pw, src, dir, skip, owner)
		pw.CloseWithError(err)
	}()
	err = act(ctx, e, fmt.Sprintf("copy %s to container %q", dir, to), func(ctx context.Context) error {
		return e.cli.CopyToContainer(ctx, to, dir, pr, api.CopyToContainerOptions{AllowOverwriteDirWithFile: false})
	})
	pr.CloseWithError(context.Canceled) // so that the other side ends, however this one did
	<-done
	if err != nil || top == nil {
		return err
	}
	return e.setTop(ctx, to, dir, top)
}

// setTop gives the directory of a volume the owner and mode in a header: an
// engine unpacks what is in the directory, and not the directory itself.
func (e *Engine) setTop(ctx context.Context, id, dir string, h *tar.Header) error {
	r, err := e.inspect(ctx, id)
	if err != nil {
		return err
	}
	m := pointAt(&r, dir)
	if m == nil || m.Source == "" {
		return fmt.Errorf("docker: container %q has no volume at %s", id, dir)
	}
	if e.unix == "" {
		return fmt.Errorf("docker: set the owner of %s: the engine is on another machine: %w", dir, errors.ErrUnsupported)
	}
	at := m.Source
	if pid := e.peer(ctx); pid > 0 { // the engine may have mounts of its own
		if seen := filepath.Join("/proc", strconv.Itoa(pid), "root", m.Source); exists(seen) {
			at = seen
		}
	}
	root, err := os.OpenRoot(at)
	if err != nil {
		return fmt.Errorf("docker: set the owner of %s: %w", dir, err)
	}
	defer root.Close()
	err = root.Lchown(".", h.Uid, h.Gid)
	if err == nil {
		err = root.Chmod(".", h.FileInfo().Mode()&(fs.ModePerm|fs.ModeSticky|fs.ModeSetgid))
	}
	if err != nil {
		return fmt.Errorf("docker: set the owner of %s: %w", dir, err)
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func emptyArchive(base string, owner *container.Owner) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	h := &tar.Header{Name: base + "/", Typeflag: tar.TypeDir, Mode: 0o700, ModTime: time.Unix(0, 0)}
	if owner == nil {
		h.Mode = 0o755
	}
	_ = w.WriteHeader(h) // a buffer takes everything
	_ = w.Close()
	return buf.Bytes()
}

// rewrite copies an archive whose root is named after dir so that it unpacks
// in dir itself, and returns the header of that.
func rewrite(w io.Writer, r io.Reader, dir string, skip []string, owner *container.Owner) (top *tar.Header, err error) {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	base := path.Base(dir)
	inside := func(name string) (string, bool) {
		name = path.Clean(strings.TrimPrefix(name, "/"))
		if name == base {
			return ".", true
		}
		rest, ok := strings.CutPrefix(name, base+"/")
		return rest, ok && rest != ".." && !strings.HasPrefix(rest, "../")
	}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return top, out.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		name, ok := inside(h.Name)
		if !ok {
			return nil, fmt.Errorf("read archive: %q is not in %q", h.Name, base)
		}
		full := path.Join(dir, name)
		if slices.ContainsFunc(skip, func(s string) bool { return strings.HasPrefix(full, path.Clean(s)+"/") }) {
			continue
		}
		h.Name = "./" + name
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			target, ok := inside(h.Linkname)
			if !ok {
				return nil, fmt.Errorf("read archive: link %q is not in %q", h.Linkname, base)
			}
			h.Linkname = "./" + target
		}
		if owner != nil {
			h.Uid, h.Gid, h.Uname, h.Gname = int(owner.UID), int(owner.GID), "", ""
			h.Mode &^= 0o6000 // a program that becomes its owner must not change its owner
		}
		h.Format = tar.FormatPAX
		if name == "." {
			top = h
		}
		if err := out.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("write archive: %w", err)
		}
		if _, err := io.Copy(out, in); err != nil {
			return nil, fmt.Errorf("copy %s: %w", name, err)
		}
	}
}

func atLeast(version, want string) bool { return versions.GreaterThanOrEqualTo(version, want) }
