package remote

import (
	"context"
	"fmt"
	"time"

	"github.com/managemyclaw/hardshell/killswitch"
)

// StateOf returns a [Config.State] that says how a switch and its agent are:
// what the fence holds, and what the observers see now.
func StateOf(s *killswitch.Switch) func(context.Context) (State, error) {
	return func(ctx context.Context) (State, error) {
		st := s.Status(ctx)
		state := State{Stopped: st.Fence.Engaged()}
		say := func(format string, args ...any) { state.Lines = append(state.Lines, fmt.Sprintf(format, args...)) }
		switch {
		case st.FenceError != "":
			say("the fence cannot be read, and so it holds: %s", st.FenceError)
		case st.Fence.Engaged():
			say("stopped at %s (epoch %d): %s", st.Fence.Time.UTC().Format(time.RFC3339), st.Fence.Epoch, st.Fence.Reason)
		}
		if st.Firing {
			say("a kill is under way")
		}
		for _, t := range st.Targets {
			switch t.State {
			case killswitch.Confirmed:
				say("%s: off", t.Name)
			case killswitch.Failed:
				say("%s: on", t.Name)
			default:
				say("%s: not known", t.Name)
			}
		}
		for _, p := range st.Problems {
			say("%s", p)
		}
		return state, nil
	}
}
