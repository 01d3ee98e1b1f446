package halt

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A bar is a drop-in that keeps a unit from being started until the machine is.
// A mask would not: "systemctl mask --runtime" has no effect on a unit whose file
// is in /etc or in a home, where administrators and OpenClaw put theirs, and
// "systemctl mask" refuses those. See systemd.unit(5), on the search path and on
// drop-ins, which are read wherever the unit is.
const (
	barFile = "zz-hardshell-stopped.conf"
	barText = `# The kill switch has stopped the agent that this unit starts.
[Unit]
AssertPathExists=!/

[Service]
Restart=no
`
)

// barDir returns the directory of the unit's bar.
func (u Unit) barDir(ctx context.Context, run run) (string, error) {
	if u.User == "" {
		return path.Join("/run/systemd/system", u.Name+".d"), nil
	}
	out, err := run(ctx, host.Command{Name: "id", Args: []string{"-u", "--", u.User}})
	if err != nil {
		return "", fmt.Errorf("halt: %s: %w", u.Object(), err)
	}
	uid, err := strconv.ParseUint(strings.TrimSpace(string(out.Stdout)), 10, 32)
	if err != nil {
		return "", fmt.Errorf("halt: %s: the number of user %q is not known: %w", u.Object(), u.User, err)
	}
	return fmt.Sprintf("/run/user/%d/systemd/user/%s.d", uid, u.Name), nil
}

// bar keeps the unit from being started.
func (u Unit) bar(ctx context.Context, run run, timeout time.Duration) error {
	return u.alter(ctx, run, timeout, func(dir string) []host.Command {
		return []host.Command{
			{Name: "mkdir", Args: []string{"-p", "--", dir}},
			{Name: "tee", Args: []string{"--", path.Join(dir, barFile)}, Stdin: []byte(barText)},
		}
	})
}

// unbar lets the unit be started.
func (u Unit) unbar(ctx context.Context, run run, timeout time.Duration) error {
	return u.alter(ctx, run, timeout, func(dir string) []host.Command {
		return []host.Command{
			{Name: "rm", Args: []string{"-f", "--", path.Join(dir, barFile)}},
			{Name: "rmdir", Args: []string{"--ignore-fail-on-non-empty", "--", dir}},
		}
	})
}

// alter runs what changes the bar, as the user whose unit it is: the directory is
// the user's, who may have put a link there. Then systemd reads it.
func (u Unit) alter(ctx context.Context, run run, timeout time.Duration, commands func(dir string) []host.Command) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dir, err := u.barDir(ctx, run)
	if err != nil {
		return err
	}
	for _, c := range commands(dir) {
		if u.User != "" {
			c.Name, c.Args = "runuser", slices.Concat([]string{"-u", u.User, "--", c.Name}, c.Args)
		}
		if _, err := run(ctx, c); err != nil {
			return fmt.Errorf("halt: %s: %w", u.Object(), err)
		}
	}
	if _, err := run(ctx, host.Command{Name: "systemctl", Args: append(u.manager(), "daemon-reload")}); err != nil {
		return fmt.Errorf("halt: systemctl daemon-reload: %w", err)
	}
	return nil
}

// barred reports whether systemd has read the bar.
func (s unitState) barred() bool {
	return slices.ContainsFunc(strings.Fields(s["DropInPaths"]), func(name string) bool { return path.Base(name) == barFile })
}
