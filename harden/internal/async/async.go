// Package async runs one function beside another.
package async

import (
	"runtime/debug"

	"github.com/managemyclaw/hardshell/harden"
)

// Go calls f in a goroutine of its own and returns a function that waits for
// what comes of it, as often as it is called. A panic of f becomes a
// [*harden.PanicError].
func Go[T any](f func() (T, error)) (wait func() (T, error)) {
	var (
		value T
		err   error
		done  = make(chan struct{})
	)
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = &harden.PanicError{Value: p, Stack: debug.Stack()}
			}
		}()
		value, err = f()
	}()
	return func() (T, error) {
		<-done
		return value, err
	}
}
