package container

import "github.com/managemyclaw/hardshell/harden"

// Checks returns the checks of containers: points 1 to 5, the container's part
// of point 6, and limits. They judge the containers of src by p.
func Checks(src *harden.Source[Container], p Profile) []harden.Check {
	return nil
}
