package container

// A tree is a directory, or a file, of the host that a container has as a
// mount.
type tree struct {
	Path string `json:"path"` // as this process sees it
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
}

// ownership changes the owners of files. It follows no symbolic links.
type ownership interface {
	// find returns the tree that a running container has as m. It is an error
	// if what is at the place that the engine names is not what the container
	// sees.
	find(c *Container, m Mount) (tree, error)

	// scan returns the files of a tree that do not belong to an owner.
	scan(t tree, to Owner) ([]owned, error)

	// set gives files to the owners they name. Those that are gone are left
	// out.
	set(t tree, all []owned) error
}

// maxOwned bounds what is written down of a tree.
const maxOwned = 1 << 20
