package container

import "testing"

// A volume of the container's may show, for a moment, in the root of another
// container that has the host mounted. It is the same volume there; a directory
// of the host that a volume leads to is not.
func TestVolumeElsewhere(t *testing.T) {
	const volume = "/var/lib/docker/volumes/data/_data"
	c := &Container{
		Engine:   EngineInfo{DataRoot: "/var/lib/docker"},
		Settings: Settings{Mounts: []Mount{{Type: "volume", Source: volume}}},
	}
	for h, want := range map[string]bool{
		"/var/lib/docker/overlay2/abc/merged/host" + volume: true,
		"/etc":                                false,
		"/srv" + volume:                       false, // not the engine's
		"/var/lib/docker":                     false,
		"/var/lib/docker/volumes/other/_data": false,
	} {
		if got := c.volumeElsewhere(h, []string{volume, h}); got != want {
			t.Errorf("%s: %v", h, got)
		}
		if c.volumeElsewhere(h, []string{h}) {
			t.Errorf("%s: it is nowhere the container's own", h)
		}
	}
}
