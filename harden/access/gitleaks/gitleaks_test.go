package gitleaks_test

import (
	"context"
	"fmt"
	"log"
	"sync"
	"testing"

	"github.com/managemyclaw/hardshell/harden/access/gitleaks"
)

var ctx = context.Background()

// Programs make one for each audit, and may run several at once.
func TestSeveralAtOnce(t *testing.T) {
	text := []byte("slack: " + "xoxb-" + "263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1\n")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			d, err := gitleaks.New()
			if err != nil {
				t.Error(err)
				return
			}
			if found, err := d.Detect(t.Context(), text); err != nil || len(found) != 1 {
				t.Errorf("Detect = %v, %v; want one match", found, err)
			}
		})
	}
	wg.Wait()
}

func ExampleNew() {
	d, err := gitleaks.New()
	if err != nil {
		log.Fatal(err)
	}
	text := "bot: " + "xoxb-" + "263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1"
	found, err := d.Detect(ctx, []byte(text))
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range found {
		fmt.Println(m.Rule, m.Start, m.End)
	}
	// Output: slack-bot-token 5 61
}
