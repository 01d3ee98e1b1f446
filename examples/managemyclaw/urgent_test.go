package main

import (
	"runtime/debug"
	"testing"
)

// Memory is collected late, unless whoever runs the program says when.
func TestCollectLate(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	for _, tt := range []struct {
		gogc, limit string
		late        bool
	}{{"", "", true}, {"50", "", false}, {"", "1GiB", false}} {
		t.Setenv("GOGC", tt.gogc)
		t.Setenv("GOMEMLIMIT", tt.limit)
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(1 << 40)
		collectLate()
		if percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1); (percent < 0) != tt.late || (limit == memoryLimit) != tt.late {
			t.Errorf("%+v: %d %%, at most %d", tt, percent, limit)
		}
	}
}
