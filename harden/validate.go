package harden

import (
	"errors"
	"fmt"
	"regexp"
)

var idPattern = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$`)

// Validate reports what is wrong with a list of checks before any of them
// runs: nil checks, malformed or repeated IDs, missing titles, values out of
// range. The error joins one for each problem.
func Validate(checks ...Check) error {
	var errs []error
	seen := make(map[string]int, len(checks))
	for i, c := range checks {
		info, err := infoOf(c)
		if err != nil {
			errs = append(errs, fmt.Errorf("harden: check %d: %w", i, err))
			continue
		}
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("harden: check %d (%q): %s", i, info.ID, fmt.Sprintf(format, args...)))
		}
		if !idPattern.MatchString(info.ID) {
			bad("ID must be lower-case words joined by dots, such as \"ssh.root_login\"")
		} else if first, ok := seen[info.ID]; ok {
			bad("ID is also that of check %d", first)
		} else {
			seen[info.ID] = i
		}
		if info.Title == "" {
			bad("Title is empty")
		}
		if !info.Point.Valid() {
			bad("Point %d is not between 0 and %d", int(info.Point), NumPoints)
		}
		if info.Requires < LevelDeclared || info.Requires > LevelProbed {
			bad("Requires is %v", info.Requires)
		}
		if info.Severity < SeverityUnspecified || info.Severity > SeverityCritical {
			bad("Severity %d is out of range", int(info.Severity))
		}
	}
	return errors.Join(errs...)
}
