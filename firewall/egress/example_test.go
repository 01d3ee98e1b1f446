package egress_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/managemyclaw/hardshell/firewall/egress"
)

func Example() {
	ctx := context.Background()
	containers := func(context.Context) ([]egress.Workload, error) {
		return []egress.Workload{{Name: "openclaw", PID: 4711, Bridges: []string{"br-0123456789ab"}}}, nil
	}
	lock := &egress.Lock{Source: containers}
	defer lock.Close()
	if err := lock.Arm(ctx); err != nil {
		fmt.Println("will be open:", err)
	}

	// Later, when it has to be stopped:
	err := lock.Do(ctx)
	if e, ok := errors.AsType[*egress.OpenError](err); ok {
		for _, name := range slices.Sorted(maps.Keys(e.Open())) {
			fmt.Println(name, "is not closed:", e.Open()[name])
		}
	}

	// That it was done does not show that it holds.
	prober := &egress.Prober{Source: containers}
	defer prober.Close()
	remaining, err := prober.Remaining(ctx)
	fmt.Println(len(remaining) == 0 && err == nil)
}

func ExampleLock_Name() {
	fmt.Println((&egress.Lock{}).Name())
	fmt.Println((&egress.Prober{}).Name())
	// Output:
	// egress.lock
	// egress.probe
}
