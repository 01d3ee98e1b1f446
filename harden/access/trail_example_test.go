package access_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A log whose end was cut off is consistent in itself. That it was longer, the
// checkpoint tells that was pinned.
func ExampleTrail() {
	dir, err := os.MkdirTemp("", "trail-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	key, err := trail.GenerateKey("example.com/gateway")
	if err != nil {
		panic(err)
	}
	t := access.Trail{
		Name: "gateway", Dir: filepath.ToSlash(filepath.Join(dir, "log")), Key: key.Public(),
		Pin: filepath.ToSlash(filepath.Join(dir, "pinned")), MaxAge: time.Hour,
	}
	record := func(n int) {
		log, err := trail.Create(t.Dir, key, trail.Config{})
		if err != nil {
			panic(err)
		}
		defer log.Close()
		for range n {
			if err := log.Record(context.Background(), trail.Event{Kind: trail.KindToolCall, Agent: "inbox"}); err != nil {
				panic(err)
			}
		}
		if _, err := log.Witness(context.Background(), &trail.PinFile{Path: t.Pin, Key: key.Public()}); err != nil {
			fmt.Println("not pinned any more")
		}
	}
	look := func() {
		for _, c := range access.Checks(access.Config{Trails: []access.Trail{t}}) {
			if c.Info().ID != "access.trail_verifies" {
				continue
			}
			r := harden.Evaluate(context.Background(), &host.Local().View, c, 0)
			fmt.Print(r.Info.ID, " ", r.Status)
			for _, f := range r.Findings {
				fmt.Print(" ", f.ID)
			}
			fmt.Println()
		}
	}
	record(3)
	look()
	os.RemoveAll(t.Dir)
	record(2)
	look()
	// Output:
	// access.trail_verifies pass
	// not pinned any more
	// access.trail_verifies fail access.trail_verifies.truncated
}
