package trailtest_test

import (
	"context"
	"fmt"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/audit/trail/trailtest"
)

// A Recorder that keeps nothing keeps no rule but those that ask it to refuse.
func ExampleTest() {
	err := trailtest.Test(context.Background(), trailtest.Subject{
		New:  func() (trail.Recorder, error) { return trail.Discard, nil },
		Kept: func(trail.Recorder) ([]trail.Event, error) { return nil, nil },
	})
	fmt.Println(err != nil)
	// Output:
	// true
}
