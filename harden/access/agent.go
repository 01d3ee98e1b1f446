package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/container"
	"github.com/managemyclaw/hardshell/harden/host"
)

// An Agent is what one of the agent's containers shows of credentials, and of
// its ways to tools. It holds no credential. It is shared between checks and
// must not be changed.
//
// Looked at are the environment and the arguments of every process; every
// regular file of every mount; what the container has written over its image;
// the homes and working directories of its processes, without node_modules; the
// places of OpenClaw's configuration; and deleted files that a process holds
// open. The rest of the image is not read: it is the same for all who have it.
type Agent struct {
	Container container.Container

	// Err says why nothing was seen of it.
	Err error

	Leaks []Leak
	// Unread is what could not be read, and therefore may hold more.
	Unread []Unread

	// How much was read.
	Processes, Files int
	Bytes            int64
	Skipped          []string // directories, because Config.Skip names them
	General          bool     // a general detector looked

	Settings  *OpenClaw // OpenClaw's configuration; nil if none was found
	Ways      []Way     // to tools, that it is told of
	Attempts  []Attempt // to reach Composio directly
	Processed []int     // numbers of the processes that were looked at
}

// Unread is something that could not be read.
type Unread struct {
	Kind  LeakKind // what it is
	Place string
	Err   error
}

// Subject names the agent in reports, such as "container/openclaw".
func (a *Agent) Subject() string { return a.Container.Subject() }

var errNoContainers = errors.New("access: Config.Containers is not set: nothing says which containers are the agent's")

// NewSource returns the agents of c. Bind checks of your own to it with
// [harden.Each].
func NewSource(c Config) *harden.Source[Agent] {
	scan := newScanner(&c)
	return &harden.Source[Agent]{
		Name:    "agents",
		Subject: func(a Agent) string { return a.Subject() },
		List: func(ctx context.Context, v *host.View) ([]Agent, error) {
			if c.Containers == nil {
				return nil, errNoContainers
			}
			all, err := c.Containers.All(ctx, v)
			if err != nil {
				return nil, err
			}
			agents := make([]Agent, len(all))
			for i := range all {
				s := &survey{cfg: &c, view: v, scan: scan, limits: c.Limits.orDefault(), agent: Agent{Container: all[i], General: c.Detector != nil}}
				agents[i] = s.run(ctx)
			}
			return agents, ctx.Err()
		},
	}
}

// run looks at one container.
func (s *survey) run(ctx context.Context) Agent {
	c := &s.agent.Container
	switch {
	case c.Kernel == nil && c.KernelErr != nil:
		s.agent.Err = c.KernelErr
	case c.Kernel == nil:
		s.agent.Err = errors.New("nothing was seen of its processes")
	case len(c.Kernel.Trees) == 0 || len(c.Kernel.Processes) == 0:
		s.agent.Err = errors.New("it has no process or no file")
	}
	if s.agent.Err != nil {
		return s.agent
	}
	limited, cancel := context.WithTimeout(ctx, s.limits.Time)
	defer cancel()
	s.processes(limited)
	s.settings(limited)
	s.files(limited)
	s.attempts(ctx)
	return s.agent
}

// unread notes what could not be read. Of what is beyond a limit it notes the
// first.
func (s *survey) unread(kind LeakKind, place string, err error) {
	g := s.gap(kind, place, err)
	for _, u := range s.agent.Unread {
		if errors.Is(g.Err, errLimit) && errors.Is(u.Err, errLimit) {
			return
		}
	}
	const most = 1000
	if len(s.agent.Unread) < most {
		s.agent.Unread = append(s.agent.Unread, g)
	}
}

// gap describes what could not be read. The error of the operating system names
// the file once more, as the agent did.
func (s *survey) gap(kind LeakKind, place string, err error) Unread {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return Unread{kind, s.shown(place), limitError(err)}
}

var errLimit = errors.New("the limit of what is read was reached: raise Config.Limits, or name what need not be read in Config.Skip")

// shown returns a path as it may be shown: an agent chooses the names of its
// files, and may have put anything into them.
func (s *survey) shown(name string) string {
	if len(s.scan.quick([]byte(name))) > 0 {
		dir, _ := cutLast(name)
		for len(s.scan.quick([]byte(dir))) > 0 {
			dir, _ = cutLast(dir)
		}
		return dir + "/(a name that holds a credential)"
	}
	return printableText(name)
}

func cutLast(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}

// printableText returns a text of the agent's without what could forge lines or
// move a terminal's cursor.
func printableText(s string) string {
	q := fmt.Sprintf("%+q", s)
	if q[1:len(q)-1] == s {
		return s
	}
	return q
}
