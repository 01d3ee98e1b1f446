//go:build linux

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// escapeVerbs get data out in ways that a rule may have overlooked.
var escapeVerbs = map[string]verb{
	"datagram": {"ADDRESS DATA: by UDP, and not wait for an answer", 2, func(args []string) (any, error) {
		c, err := net.Dial("udp", args[0])
		if err != nil {
			return nil, err
		}
		defer c.Close()
		_, err = c.Write([]byte(args[1]))
		return nil, err
	}},
	"spoof": {"SOURCE ADDRESS DATA: by UDP over IPv4, as if from SOURCE", 3, func(args []string) (any, error) {
		return nil, spoof(args[0], args[1], args[2])
	}},
	"frame": {"INTERFACE DATA: an Ethernet frame to everybody", 2, func(args []string) (any, error) {
		return nil, frame(args[0], args[1])
	}},
	"stream": {"ADDRESS SECONDS: connect by TCP and send 64 bytes a millisecond", 2, func(args []string) (any, error) {
		return stream1(args[0], args[1])
	}},
}

// all is apart, since it calls what calls it.
func init() {
	verbs["all"] = verb{"MILLISECONDS JSON...: do all at once, each an array of a verb and its arguments; " +
		"what has not ended by then has failed", 2, all}
}

func all(args []string) (any, error) {
	patience, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	type ended struct {
		i int
		a answer
	}
	done := make(chan ended, len(args))
	for i, text := range args[1:] {
		var words []string
		if err := json.Unmarshal([]byte(text), &words); err != nil || len(words) == 0 {
			return nil, fmt.Errorf("%s: %w", text, errors.Join(err, errors.New("not a verb and its arguments")))
		}
		go func() { done <- ended{i, do(words[0], words[1:])} }()
	}
	out := make([]answer, len(args)-1)
	for i := range out {
		out[i].Error = "no end"
	}
	over := time.After(time.Duration(patience) * time.Millisecond)
	for range out {
		select {
		case e := <-done:
			out[e.i] = e.a
		case <-over:
			return out, nil
		}
	}
	return out, nil
}

// spoof makes the header itself, as root with CAP_NET_RAW may.
func spoof(source, target, data string) error {
	src, err := netip.ParseAddr(source)
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddrPort(target)
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd)
	p := make([]byte, 28, 28+len(data)) // IP and UDP
	p[0], p[8], p[9] = 4<<4|5, 64, syscall.IPPROTO_UDP
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[20:], 4444)
	binary.BigEndian.PutUint16(p[22:], dst.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(data)))
	return os.NewSyscallError("sendto", syscall.Sendto(fd, append(p, data...), 0, &syscall.SockaddrInet4{Addr: dst.Addr().As4()}))
}

// frame is of a type for experiments (IEEE 802), so that nothing answers it.
func frame(device, data string) error {
	const experimental = 0x88b5
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd)
	f := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	f = append(f, dev.HardwareAddr...)
	f = binary.BigEndian.AppendUint16(f, experimental)
	f = append(f, data...)
	f = append(f, make([]byte, max(0, 60-len(f)))...)
	return os.NewSyscallError("sendto", syscall.Sendto(fd, f, 0, &syscall.SockaddrLinklayer{Ifindex: dev.Index, Halen: 6}))
}

func stream1(address, seconds string) (any, error) {
	n, err := strconv.ParseFloat(seconds, 64)
	if err != nil {
		return nil, err
	}
	c, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	chunk := []byte(strings.Repeat("exfiltrated data", 4))
	sent := 0
	for over := time.Now().Add(time.Duration(n * float64(time.Second))); time.Now().Before(over); time.Sleep(time.Millisecond) {
		k, err := c.Write(chunk)
		if sent += k; err != nil {
			return sent, err
		}
	}
	return sent, nil
}
