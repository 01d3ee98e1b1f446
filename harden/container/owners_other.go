//go:build !linux

package container

import (
	"errors"
	"fmt"
)

type localFiles struct{ enginePID int }

var errOwners = fmt.Errorf("change the owners of a container's files: %w", errors.ErrUnsupported)

func (localFiles) find(*Container, Mount) (tree, error) { return tree{}, errOwners }
func (localFiles) scan(tree, Owner) ([]owned, error)    { return nil, errOwners }
func (localFiles) set(tree, []owned) error              { return errOwners }
