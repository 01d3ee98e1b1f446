//go:build linux

package lab

import (
	"net"
	"testing"
	"time"
)

// What arrives counts from when it does, however late it is read.
func TestSinkIsNotLate(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := stamp(ln); err != nil {
		t.Fatal(err)
	}
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	out.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	var s Sink
	s.drain(in)
	// The kernel's clock is read in another place than ours.
	if at := s.Last(); s.Bytes() != 1 || at.Before(before.Add(-time.Millisecond)) || at.After(after.Add(5*time.Millisecond)) {
		t.Errorf("%d bytes, the last %v after they were sent", s.Bytes(), at.Sub(before))
	}
}
