package guard_test

import (
	"context"
	"fmt"
	"time"

	"github.com/managemyclaw/hardshell/firewall"
	"github.com/managemyclaw/hardshell/firewall/guard"
)

// A change of the machine's own table of nftables, guarded. It is kept only if
// a new connection can be made within two minutes.
func Example() {
	change := func(ctx context.Context, apply, probe func(context.Context) error) error {
		g := &guard.Guard{Dir: "/var/lib/hardshell/guard", Run: firewall.Programs{}, Window: 2 * time.Minute}
		armed, err := g.Arm(ctx, guard.Change{
			What:     "close the published ports",
			NFTables: []guard.NFTable{{Family: "inet", Name: "hardshell"}},
		})
		if err != nil {
			return err // nothing is guarded, so nothing is changed
		}
		if err := apply(ctx); err != nil {
			_, undo := g.Rollback(ctx, armed.ID)
			return fmt.Errorf("%w (undone: %v)", err, undo == nil)
		}
		if err := g.Applied(ctx, armed.ID); err != nil {
			return err
		}
		return g.ConfirmBy(ctx, armed.ID, probe)
	}
	_ = change
}

func ExampleParseSSHConnection() {
	c, err := guard.ParseSSHConnection("198.51.100.7 50022 192.0.2.1 22") // $SSH_CONNECTION
	if err != nil {
		fmt.Println(err)
		return
	}
	allow := c.Allow()
	fmt.Println(c)
	fmt.Println("allow", allow.Protocol, allow.Number, "from", allow.From)
	// Output:
	// 198.51.100.7:50022 → 192.0.2.1:22
	// allow tcp 22 from [198.51.100.7/32]
}
