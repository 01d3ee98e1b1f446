package halt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// DefaultDataRoot is where a Docker engine keeps its containers unless it is
// told otherwise.
const DefaultDataRoot = "/var/lib/docker"

const (
	composeProject = "com.docker.compose.project"
	composeService = "com.docker.compose.service"
)

// maxRecord bounds a file about a container. Environments are in it, but no
// files.
const maxRecord = 8 << 20

var fullID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// A record is what the engine has written down of a container. It is there as
// soon as the container is made, and tells of it also while the engine is hung
// or dead.
type record struct {
	who
	image       string
	pid         int
	sandbox     string            // its network namespace, as a path of the engine's
	networks    map[string]string // ids by name
	networkMode string
	policy      string // of restarts, as in container.Settings
	privileged  bool
	capAdd      []string
}

// readRecords reads all records below the data root of an engine. What was
// read is good also beside an error.
func readRecords(root string) ([]record, error) {
	dir := filepath.Join(root, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, listError(err)
	}
	var all []record
	var errs []error
	for _, e := range entries {
		if !fullID.MatchString(e.Name()) {
			continue
		}
		r, err := readRecord(filepath.Join(dir, e.Name()), e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist): // being made, or removed
		case err != nil:
			errs = append(errs, err)
		default:
			all = append(all, r)
		}
	}
	return all, errors.Join(errs...)
}

// A read is what was read of a container, and of which file.
type read struct {
	who
	file fs.FileInfo
}

// fresh is how old a file must be for what was read of it to be kept: one that
// is changed again in the same moment may look the same.
const fresh = 100 * time.Millisecond

// records returns whose the containers below a data root are. A record is read
// once: an engine puts another file in its place.
func (o *lookout) records(root string) ([]who, error) {
	dir := filepath.Join(root, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, listError(err)
	}
	o.mu.Lock()
	before := o.read
	o.mu.Unlock()
	var all []who
	var errs []error
	now := make(map[string]read)
	for _, e := range entries {
		id := e.Name()
		if !fullID.MatchString(id) {
			continue
		}
		name := filepath.Join(dir, id, "config.v2.json")
		info, err := os.Stat(name)
		known, ok := before[id]
		if err == nil && ok && os.SameFile(info, known.file) && info.ModTime().Equal(known.file.ModTime()) && info.Size() == known.file.Size() {
			now[id] = known
			all = append(all, known.who)
			continue
		}
		var r record
		if err == nil {
			r, err = readRecord(filepath.Join(dir, id), id)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // being made, or removed
		case err != nil:
			errs = append(errs, err)
		default:
			all = append(all, r.who)
			if time.Since(info.ModTime()) > fresh {
				now[id] = read{r.who, info}
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.read = now
	return all, errors.Join(errs...)
}

func listError(err error) error {
	return fmt.Errorf("halt: the engine's list of containers: name its data root, and be root: %w", err)
}

func readRecord(dir, id string) (record, error) {
	config, err := readBounded(filepath.Join(dir, "config.v2.json"))
	if err != nil {
		return record{}, err
	}
	hostConfig, err := readBounded(filepath.Join(dir, "hostconfig.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return record{}, err
	}
	r, err := parseRecord(config, hostConfig)
	if err != nil {
		return record{}, fmt.Errorf("halt: %s: %w", dir, err)
	}
	if r.id != id {
		return record{}, fmt.Errorf("halt: %s: it says that it is container %q", dir, r.id)
	}
	return r, nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err == nil && len(data) > maxRecord {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxRecord)
	}
	return data, err
}

// parseRecord parses config.v2.json and hostconfig.json of a container; the
// latter may be empty. Only fields that engines 20.10 to 29 have alike are
// used.
func parseRecord(config, hostConfig []byte) (record, error) {
	var c struct {
		ID     string
		Name   string
		State  struct{ Pid int }
		Config struct {
			Image  string
			Labels map[string]string
		}
		NetworkSettings struct {
			SandboxKey string
			Networks   map[string]*struct{ NetworkID string }
		}
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return record{}, fmt.Errorf("config.v2.json: %w", err)
	}
	if !fullID.MatchString(c.ID) {
		return record{}, errors.New("config.v2.json: it has no id")
	}
	r := record{
		who: who{
			id: c.ID, name: strings.TrimPrefix(c.Name, "/"),
			project: c.Config.Labels[composeProject], service: c.Config.Labels[composeService],
		},
		image: c.Config.Image, pid: max(c.State.Pid, 0), sandbox: c.NetworkSettings.SandboxKey,
		networks: make(map[string]string),
	}
	for name, n := range c.NetworkSettings.Networks {
		if n != nil {
			r.networks[name] = n.NetworkID
		}
	}
	if len(hostConfig) == 0 {
		return r, nil
	}
	var h struct {
		NetworkMode   string
		RestartPolicy struct {
			Name              string
			MaximumRetryCount int
		}
		Privileged bool
		CapAdd     []string
	}
	if err := json.Unmarshal(hostConfig, &h); err != nil {
		return record{}, fmt.Errorf("hostconfig.json: %w", err)
	}
	r.networkMode, r.privileged, r.capAdd = h.NetworkMode, h.Privileged, h.CapAdd
	r.policy = h.RestartPolicy.Name
	if n := h.RestartPolicy.MaximumRetryCount; n > 0 {
		r.policy = fmt.Sprintf("%s:%d", r.policy, n)
	}
	return r, nil
}

// revives reports whether a restart policy makes the engine start a container
// by itself.
func revives(policy string) bool { return policy != "" && policy != "no" }
