package main

import (
	"os"
	"runtime/debug"
)

// memoryLimit is how much memory is used before any is collected; several times
// what a kill of a thousand accounts takes.
const memoryLimit = 128 << 20

// collectLate has the collector of memory wait, which takes a quarter of the
// processors just when everything is to be stopped at once. Whoever runs the program
// may say otherwise, by GOGC and GOMEMLIMIT.
func collectLate() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
}
