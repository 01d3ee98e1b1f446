package customcheck

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/harden/host"
)

const (
	mainFile = "/etc/ssh/sshd_config"

	// maxDepth is how deep sshd follows Include.
	maxDepth = 16
	// maxReads ends what files that include each other would have us do.
	maxReads = 256
)

// A setting is a line that sets PermitRootLogin.
type setting struct {
	file  string
	line  int // from 1
	value string
	match string // the condition of its Match block; empty in the global section
	sure  bool   // nothing before it, which would win, is unknown
}

func (s setting) String() string { return fmt.Sprintf("%s:%d", s.file, s.line) }

// A config is what an sshd with the given files would read.
type config struct {
	files    map[string][]byte
	settings []setting // in the order in which sshd meets them
	errs     []error
	reads    int
}

// effective returns the settings that decide: the first in the global section,
// and those in Match blocks, which override it where they match. Which of
// several blocks matches is not known beforehand, so all of them count.
func (c *config) effective() (global *setting, blocks []setting) {
	for _, s := range c.settings {
		switch {
		case s.match != "":
			blocks = append(blocks, s)
		case global == nil:
			global = &s
		}
	}
	return global, blocks
}

// readConfig reads the configuration as sshd does. With an error, the config
// holds what could be read.
func readConfig(v *host.View) (*config, error) {
	c := &config{files: make(map[string][]byte)}
	c.read(v, mainFile, "", 0)
	return c, errors.Join(c.errs...)
}

func (c *config) fail(err error) { c.errs = append(c.errs, err) }

// read reads one file. match is the condition of the block that includes it.
// A Match block ends at the next Match or with its file.
func (c *config) read(v *host.View, name, match string, depth int) {
	if c.reads++; depth > maxDepth || c.reads > maxReads {
		c.fail(fmt.Errorf("%s: too many files include each other", name))
		c.reads = maxReads + 1 // enough
		return
	}
	data, err := v.ReadFile(name)
	if err != nil {
		c.fail(err)
		return
	}
	c.files[name] = data
	n := 0
	outer := match
	for text := range bytes.Lines(data) {
		n++
		words, err := fields(string(text))
		if err != nil {
			c.fail(fmt.Errorf("%s:%d: %w", name, n, err))
			continue
		}
		if len(words) == 0 {
			continue
		}
		args := words[1:]
		switch strings.ToLower(words[0]) {
		case "permitrootlogin":
			value, err := rootLogin(args)
			if err != nil {
				c.fail(fmt.Errorf("%s:%d: %w", name, n, err))
				continue
			}
			c.settings = append(c.settings, setting{name, n, value, match, len(c.errs) == 0})
		case "match":
			match = strings.TrimSpace(outer + " " + strings.Join(args, " "))
		case "include":
			for _, pattern := range args {
				included, err := expand(v, pattern)
				if err != nil {
					c.fail(err)
				}
				for _, file := range included {
					if c.reads > maxReads {
						return
					}
					c.read(v, file, match, depth+1)
				}
			}
		}
	}
}

// rootLogin returns the canonical form of an argument of PermitRootLogin. With
// any other sshd does not start, and it is not for us to say what it would do.
func rootLogin(args []string) (string, error) {
	if len(args) == 1 {
		switch args[0] {
		case "yes", "no", "prohibit-password", "forced-commands-only":
			return args[0], nil
		case "without-password":
			return "prohibit-password", nil
		}
	}
	return "", errors.New("not an argument of PermitRootLogin")
}

// fields splits a line into a keyword and its arguments. The keyword may be
// followed by an equals sign, and an argument may be quoted.
func fields(line string) ([]string, error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return nil, nil
	}
	end := strings.IndexAny(line, " \t=\"")
	if end < 0 {
		return []string{line}, nil
	}
	words := []string{line[:end]}
	rest := strings.TrimLeft(line[end:], " \t")
	rest = strings.TrimLeft(strings.TrimPrefix(rest, "="), " \t")
	for rest != "" && rest[0] != '#' {
		var word string
		if rest[0] == '"' {
			var closed bool
			if word, rest, closed = strings.Cut(rest[1:], `"`); !closed {
				return nil, errors.New("a quotation mark is not closed")
			}
		} else {
			end := strings.IndexAny(rest, " \t")
			if end < 0 {
				end = len(rest)
			}
			word, rest = rest[:end], rest[end:]
		}
		words = append(words, word)
		rest = strings.TrimLeft(rest, " \t")
	}
	return words, nil
}

// expand returns the files that an Include names, in order. [fs.Glob] would not
// do: it takes a directory that it cannot read for an empty one.
func expand(v *host.View, pattern string) ([]string, error) {
	if !path.IsAbs(pattern) {
		pattern = path.Join("/etc/ssh", pattern)
	}
	dir, last := path.Split(pattern)
	if strings.ContainsAny(dir, `*?[\`) || strings.ContainsAny(last, `[\`) {
		return nil, fmt.Errorf("include %s: %w: only * and ? in the last part are followed", pattern, errors.ErrUnsupported)
	}
	entries, err := v.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // as for sshd
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		hidden := strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(last, ".")
		if ok, _ := path.Match(last, e.Name()); ok && !hidden {
			names = append(names, dir+e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
