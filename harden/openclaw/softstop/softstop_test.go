package softstop

import "testing"

func TestFake(t *testing.T) {
	cases(t, func(t *testing.T) machine { return newFake(t) })
}
