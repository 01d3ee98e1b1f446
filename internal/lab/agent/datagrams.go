//go:build linux

package main

import "net"

// echo answers each datagram that comes to an address with itself.
func echo(address string) {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		fatal(1, err.Error())
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			fatal(1, err.Error())
		}
		c.WriteTo(buf[:n], from)
	}
}
