package tailscale_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/managemyclaw/hardshell/harden/network/tailscale"
)

func ExampleClient_Read() {
	c := &tailscale.Client{Socket: "/run/no-such-directory/tailscaled.sock"}
	state, err := c.Read(context.Background())
	switch {
	case errors.Is(err, tailscale.ErrNoDaemon):
		fmt.Println("no tailscaled runs")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(state.Serve.Funnels())
	}
	// Output: no tailscaled runs
}
