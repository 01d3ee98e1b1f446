//go:build !linux

package main

import "io"

// hurry does nothing: what stops an agent here waits for nothing of this program's.
func hurry(io.Writer) {}
