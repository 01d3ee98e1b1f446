//go:build !linux

// Command demo needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "demo: it needs Linux: network namespaces, and a dockerd in them")
	os.Exit(1)
}
