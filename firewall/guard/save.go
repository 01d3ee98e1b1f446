package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
)

// save fills dir with what is there before the change, and with the script that
// puts it back.
func (g *Guard) save(ctx context.Context, dir string, c Change) error {
	s := saver{g: g, dir: dir}
	for i, t := range c.Tables {
		if err := s.table(ctx, strconv.Itoa(i), t, nil); err != nil {
			return err
		}
	}
	for i, group := range groupChains(c.Chains) {
		if err := s.table(ctx, "chains"+strconv.Itoa(i), group.Table, group.chains); err != nil {
			return err
		}
	}
	for i, t := range c.NFTables {
		if err := s.nftTable(ctx, strconv.Itoa(i), t); err != nil {
			return err
		}
	}
	for i, name := range c.Files {
		if err := s.file(ctx, strconv.Itoa(i), name); err != nil {
			return err
		}
	}
	for i, key := range c.Sysctls {
		if err := s.sysctl(ctx, strconv.Itoa(i), key); err != nil {
			return err
		}
	}
	sockets, err := g.flows(ctx)
	if err != nil {
		return err
	}
	r, err := readRecord(dir)
	if err != nil {
		return err
	}
	r.Change, r.Window, r.Armed, r.Sockets = c, int64(g.window()), time.Now().UTC(), sockets
	if err := writeJSON(filepath.Join(dir, recordFile), r); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, scriptFile), []byte(s.script(c.What, g.window()))); err != nil {
		return err
	}
	return syncDir(dir)
}

// A saver collects what is saved and the steps that put it back.
type saver struct {
	g     *Guard
	dir   string
	steps []string // lines of the script
	tools []string
}

func (s *saver) step(name string, words ...string) {
	for i, w := range words {
		words[i] = quote(w)
	}
	s.steps = append(s.steps, "    step "+quote(name)+" "+strings.Join(words, " "))
}

func (s *saver) needs(tools ...string) {
	for _, t := range tools {
		if !slices.Contains(s.tools, t) {
			s.tools = append(s.tools, t)
		}
	}
}

func (s *saver) write(name string, data []byte) error {
	return writeFile(filepath.Join(s.dir, name), data)
}

// absent says that there is nothing to save under name, so that what is missing
// by accident is not taken for it.
func (s *saver) absent(name string) error { return s.write(name+".absent", nil) }

func (s *saver) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	out, err := s.g.Run.Run(ctx, nil, name, args...)
	if err != nil {
		return out, fmt.Errorf("guard: save what is there: %w", err)
	}
	return out, nil
}

func (s *saver) file(ctx context.Context, n, name string) error {
	out, err := s.run(ctx, "sh", "-c",
		`if [ -L "$1" ]; then echo link; elif [ -f "$1" ]; then echo file; elif [ -e "$1" ]; then echo other; else echo absent; fi`, "sh", name)
	if err != nil {
		return err
	}
	saved := "file." + n
	switch kind := strings.TrimSpace(string(out)); kind {
	case "file":
		if _, err := s.run(ctx, "cp", "-a", "--", name, filepath.Join(s.dir, saved)); err != nil {
			return err
		}
		if err := syncFile(filepath.Join(s.dir, saved)); err != nil {
			return err
		}
	case "absent":
		if err := s.absent(saved); err != nil {
			return err
		}
	case "link":
		return fmt.Errorf("guard: %s is a symbolic link: declare the file that it leads to", name)
	default:
		return fmt.Errorf("guard: %s is not a regular file, and cannot be put back", name)
	}
	s.step(name, "file", n, name)
	return nil
}

func (s *saver) sysctl(ctx context.Context, n, key string) error {
	path := "/proc/sys/" + key
	_, err := s.g.Run.Run(ctx, nil, "test", "-e", path)
	if exit, ok := errors.AsType[*firewall.ExitError](err); ok && exit.Code == 1 {
		return nil // a kernel without it; UFW ignores these too
	}
	if err != nil {
		return fmt.Errorf("guard: save what is there: %w", err)
	}
	out, err := s.run(ctx, "cat", path)
	if err != nil {
		return err
	}
	if err := s.write("sysctl."+n, out); err != nil {
		return err
	}
	s.step("sysctl "+key, "sysctl_value", n, path)
	return nil
}

// A chainGroup is chains of one table, which are put back in one transaction.
type chainGroup struct {
	Table
	chains []string
}

func groupChains(chains []Chain) []chainGroup {
	var groups []chainGroup
	for _, c := range chains {
		i := slices.IndexFunc(groups, func(g chainGroup) bool { return g.Table == c.Table })
		if i < 0 {
			groups = append(groups, chainGroup{Table: c.Table})
			i = len(groups) - 1
		}
		groups[i].chains = append(groups[i].chains, c.Chain)
	}
	return groups
}

func (s *saver) table(ctx context.Context, n string, t Table, chains []string) error {
	out, err := s.run(ctx, t.program()+"-save")
	if err != nil {
		return err
	}
	if bytes.Contains(out, []byte("is incompatible, use 'nft' tool")) {
		return fmt.Errorf("guard: %s holds rules that iptables cannot show, so that it could not put them back: move them into a table of nftables", t)
	}
	saved := "table." + n
	rules := tableOf(out, t.Name)
	if err := s.write(saved, rules); err != nil {
		return err
	}
	s.needs(t.program()+"-save", t.program()+"-restore")
	// What could not be put back must not be changed.
	test := slices.Concat([]byte("*"+t.Name+"\n"), rules, []byte("COMMIT\n"))
	if _, err := s.g.Run.Run(ctx, test, t.program()+"-restore", "--test", "-w", "5"); err != nil {
		return fmt.Errorf("guard: %s could not be put back as it is: %w", t, err)
	}
	nft := ""
	if isNFT(out, t) {
		if nft, err = s.hooks(ctx, saved, t); err != nil {
			return err
		}
	}
	name := t.String()
	if chains != nil {
		name += " chains " + strings.Join(chains, " ")
	}
	s.step(name, "table", n, t.program(), t.Name, nft, strings.Join(chains, " "))
	return nil
}

// isNFT reports whether a listing is of the flavour that works by nftables. The
// other's has nothing in parentheses. An empty listing may be of either.
func isNFT(listing []byte, t Table) bool {
	return t.Flavour == NFT || bytes.Contains(listing, []byte("(nf_tables)")) ||
		t.Flavour == Default && !bytes.Contains(listing, []byte("# Generated by "))
}

// hooks saves which chains the table of nftables has: iptables-save also shows
// those of the kernel's that are not there.
func (s *saver) hooks(ctx context.Context, saved string, t Table) (string, error) {
	family := "ip"
	if t.IPv6 {
		family = "ip6"
	}
	nft := family + " " + t.Name
	tables, err := s.g.Run.Run(ctx, nil, "nft", "list", "tables")
	if errors.Is(err, exec.ErrNotFound) {
		return nft, nil // the script does without, too
	}
	if err != nil {
		return "", fmt.Errorf("guard: save what is there: %w", err)
	}
	if !slices.Contains(strings.Split(string(tables), "\n"), "table "+nft) {
		return nft, s.absent(saved)
	}
	out, err := s.run(ctx, "nft", "list", "table", family, t.Name)
	if err != nil {
		return "", err
	}
	var names bytes.Buffer
	for _, m := range chainLine.FindAllSubmatch(out, -1) {
		names.Write(m[1])
		names.WriteByte('\n')
	}
	return nft, s.write(saved+".hooks", names.Bytes())
}

var chainLine = regexp.MustCompile(`(?m)^\tchain (.*) \{$`)

var counters = regexp.MustCompile(`(?m) \[[0-9]+:[0-9]+\]$`)

// tableOf returns the chains and rules of one table of a listing of
// iptables-save, without the counters of chains.
func tableOf(listing []byte, name string) []byte {
	var b bytes.Buffer
	inTable := false
	for line := range bytes.Lines(listing) {
		text := bytes.TrimRight(line, "\n")
		switch {
		case bytes.HasPrefix(text, []byte("*")):
			inTable = string(text[1:]) == name
		case string(text) == "COMMIT":
			inTable = false
		case inTable && bytes.HasPrefix(text, []byte(":")):
			b.Write(counters.ReplaceAll(text, nil))
			b.WriteByte('\n')
		case inTable && bytes.HasPrefix(text, []byte("-A ")):
			b.Write(text)
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func (s *saver) nftTable(ctx context.Context, n string, t NFTable) error {
	s.needs("nft")
	name := t.Family + " " + t.Name
	tables, err := s.run(ctx, "nft", "list", "tables")
	if err != nil {
		return err
	}
	saved := "nft." + n
	if !slices.Contains(strings.Split(string(tables), "\n"), "table "+name) {
		if err := s.absent(saved); err != nil {
			return err
		}
	} else {
		out, err := s.run(ctx, "nft", "-s", "list", "table", t.Family, t.Name)
		if err != nil {
			return err
		}
		if err := s.write(saved, out); err != nil {
			return err
		}
		test := fmt.Appendf(nil, "add table %s\ndelete table %s\n%s", name, name, out)
		if _, err := s.g.Run.Run(ctx, test, "nft", "-c", "-f", "-"); err != nil {
			return fmt.Errorf("guard: table %s of nftables could not be put back as it is: %w", name, err)
		}
	}
	s.step("nft table "+name, "nft_table", n, name)
	return nil
}

// script returns the watchdog.
func (s *saver) script(what string, window time.Duration) string {
	var tools strings.Builder
	for _, t := range s.tools {
		tools.WriteString(" " + quote(t))
	}
	return strings.NewReplacer(
		"@WHAT@", comment(what),
		"@SCRIPT@", comment(quote(filepath.Join(s.dir, scriptFile))),
		"dir=@DIR@", "dir="+quote(s.dir),
		"@DIR@", comment(quote(s.dir)),
		"@WINDOW@", strconv.FormatInt(int64(window/(10*time.Millisecond)), 10),
		"@TRIES@", strconv.Itoa(retries),
		"@SETTLE@", strconv.Itoa(settleRounds),
		"@TOOLS@", tools.String(),
		"@STEPS@", strings.Join(s.steps, "\n"),
	).Replace(script)
}

// quote makes one word of the shell's of any text.
func quote(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// comment keeps text on the line that it is a comment on.
func comment(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// syncDir brings the names in dir, and its own, to the disk.
func syncDir(dir string) error { return errors.Join(syncFile(dir), syncFile(filepath.Dir(dir))) }
