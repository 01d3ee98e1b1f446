//go:build linux

package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"
)

// image is the part of an image's configuration that the lab's images differ
// in, in the words of the image format.
type image struct {
	User        string              `json:",omitempty"`
	Env         []string            `json:",omitempty"`
	Entrypoint  []string            `json:",omitempty"`
	Cmd         []string            `json:",omitempty"`
	WorkingDir  string              `json:",omitempty"`
	Volumes     map[string]struct{} `json:",omitempty"`
	Healthcheck *healthcheck        `json:",omitempty"`

	ExposedPorts map[string]struct{} `json:",omitempty"`
}

type healthcheck struct {
	Test     []string
	Interval time.Duration
	Timeout  time.Duration
	Retries  int
}

func images() map[string]image {
	base := image{
		Entrypoint:   []string{"/agent"},
		Cmd:          []string{"serve", "-bind", "lan"},
		Env:          []string{"PATH=/"},
		WorkingDir:   "/app",
		ExposedPorts: map[string]struct{}{fmt.Sprintf("%d/tcp", AgentPort): {}},
	}
	with := func(change func(*image)) image {
		i := base
		change(&i)
		return i
	}
	check := func(test ...string) *healthcheck {
		return &healthcheck{Test: append([]string{"CMD"}, test...), Interval: time.Second, Timeout: 2 * time.Second, Retries: 1}
	}
	return map[string]image{
		AgentImage: base,
		UserImage:  with(func(i *image) { i.User = "app" }),
		ToorImage:  with(func(i *image) { i.User = "toor" }),
		VolumeImage: with(func(i *image) {
			i.User = "app"
			i.Volumes = map[string]struct{}{"/data": {}}
		}),
		HealthImage: with(func(i *image) { i.Healthcheck = check("/agent", "health") }),
		UnwellImage: with(func(i *image) { i.Healthcheck = check("/agent", "do", "read", "/nowhere") }),
		PickyImage: with(func(i *image) {
			i.User = "app"
			i.Env = append([]string{"HOME=/home/app"}, base.Env...)
			i.Cmd = []string{"serve", "-bind", "lan", "-picky"}
			i.Healthcheck = check("/agent", "health")
		}),
	}
}

const (
	passwd = "root:x:0:0:root:/root:/agent\n" +
		"toor:x:0:0:another root:/root:/agent\n" +
		"app:x:1000:1000:app:/home/app:/agent\n" +
		"nobody:x:65534:65534:nobody:/:/agent\n"
	group = "root:x:0:\n" +
		"docker:x:999:app\n" +
		"app:x:1000:\n" +
		"nogroup:x:65534:\n"
)

// file is an entry of the images' one layer; a directory ends in a slash.
type file struct {
	name string
	mode int64
	uid  int
	data []byte
}

// layer returns what all images have in them. The agent's own code is the
// program, which is root's, and /app/skills, which the agent could change
// unless it is kept from it.
func layer(agent []byte) ([]byte, error) {
	return archive([]file{
		{name: "agent", mode: 0o755, data: agent},
		{name: "app/", mode: 0o755, uid: 1000},
		{name: "app/skills", mode: 0o644, uid: 1000, data: []byte("what the agent does\n")},
		{name: "data/", mode: 0o755, uid: 1000},
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, data: []byte(group)},
		{name: "etc/passwd", mode: 0o644, data: []byte(passwd)},
		{name: "home/", mode: 0o755},
		{name: "home/app/", mode: 0o700, uid: 1000},
		{name: "root/", mode: 0o700},
		{name: "state/", mode: 0o755, uid: 1000},
		{name: "tmp/", mode: 0o1777},
	})
}

func archive(files []file) ([]byte, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range files {
		hdr := &tar.Header{
			Name: f.name, Mode: f.mode, Uid: f.uid, Gid: f.uid, Size: int64(len(f.data)),
			ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg,
		}
		if strings.HasSuffix(f.name, "/") {
			hdr.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(hdr); err != nil {
			return nil, err
		}
		if _, err := tw.Write(f.data); err != nil {
			return nil, err
		}
	}
	err := tw.Close()
	return buf.Bytes(), err
}

// imageArchive returns what "docker load" reads: all images, sharing a layer.
func imageArchive(agent []byte) ([]byte, error) {
	root, err := layer(agent)
	if err != nil {
		return nil, err
	}
	layerName := "layer.tar"
	files := []file{{name: layerName, mode: 0o644, data: root}}
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var manifest []entry
	for tag, img := range images() {
		config, err := json.Marshal(map[string]any{
			"architecture": runtime.GOARCH,
			"os":           "linux",
			"config":       img,
			"created":      time.Unix(0, 0).UTC(),
			"history":      []any{map[string]any{"created_by": "hardshell lab"}},
			"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(root)}},
		})
		if err != nil {
			return nil, err
		}
		name := digest(config) + ".json"
		files = append(files, file{name: name, mode: 0o644, data: config})
		manifest = append(manifest, entry{Config: name, RepoTags: []string{tag}, Layers: []string{layerName}})
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	return archive(append(files, file{name: "manifest.json", mode: 0o644, data: data}))
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (l *Lab) loadImages(ctx context.Context) error {
	if l.cfg.NoDocker {
		return nil
	}
	agent, err := os.ReadFile(l.agent)
	if err != nil {
		return err
	}
	data, err := imageArchive(agent)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker/images/load?quiet=1", bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := l.api().Do(req)
	if err != nil {
		return fmt.Errorf("load images: %w", err)
	}
	defer resp.Body.Close()
	// What goes wrong once the answer has begun is in the answer.
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("load images: %w", err)
	}
	if resp.StatusCode != http.StatusOK || bytes.Contains(body, []byte(`"errorDetail"`)) {
		return fmt.Errorf("load images: %s: %s", resp.Status, bytes.TrimSpace(body))
	}
	return nil
}
