//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
)

// An agent whose port is published can be told what to do from the internet.
func Example() {
	ctx := context.Background()
	l, err := lab.Start(ctx, lab.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()

	_, err = l.Docker(ctx, "run", "-d", "--name=agent", "-p", "18789:18789", lab.HealthImage)
	if err != nil {
		fmt.Println(err)
		return
	}
	client := l.Internet.Client(5 * time.Second)
	answer, err := lab.Ask(ctx, client, "192.0.2.1:18789", "write", "/app/skills", "something else")
	fmt.Println(answer, err)
}
