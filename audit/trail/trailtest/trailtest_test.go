package trailtest_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/audit/trail/trailtest"
)

// A store keeps events in memory, correctly unless it is broken.
type store struct {
	mu     sync.Mutex
	events []trail.Event
	broken string
}

func (s *store) Record(ctx context.Context, e trail.Event) error {
	if err := ctx.Err(); err != nil && s.broken != "canceled" {
		return err
	}
	if err := e.Validate(); err != nil && s.broken != "invalid" {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.broken {
	case "durable":
		if len(s.events) == 3 {
			return nil // lost
		}
	case "concurrent":
		if len(s.events) == 50 {
			s.events = append(s.events, e)
		}
	case "not changed":
		s.events = append(s.events, e)
		return nil
	}
	data, err := json.Marshal(e)
	if err != nil && s.broken != "invalid" {
		return err
	}
	var c trail.Event
	_ = json.Unmarshal(data, &c)
	s.events = append(s.events, c)
	return nil
}

// Each rule finds the Recorder that breaks it, and only a correct one passes.
func TestKit(t *testing.T) {
	for _, broken := range []string{"", "durable", "invalid", "canceled", "concurrent", "not changed"} {
		err := trailtest.Test(t.Context(), trailtest.Subject{
			New:  func() (trail.Recorder, error) { return &store{broken: broken}, nil },
			Kept: func(r trail.Recorder) ([]trail.Event, error) { return r.(*store).events, nil },
		})
		switch {
		case broken == "" && err != nil:
			t.Errorf("a correct Recorder: %v", err)
		case broken != "" && (err == nil || !strings.Contains("\n"+err.Error(), "\n"+broken+": ")):
			t.Errorf("broken %q: %v", broken, err)
		}
	}
	trailtest.Run(t, trailtest.Subject{
		New:  func() (trail.Recorder, error) { return new(store), nil },
		Kept: func(r trail.Recorder) ([]trail.Event, error) { return r.(*store).events, nil },
	})
}
