//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// services starts what else listens on the host, and logs its owner in.
func (d *demo) services(ctx context.Context) error {
	for port, greeting := range map[string]string{"22": "SSH-2.0-stand-in\r\n", "5432": ""} {
		ln, err := d.lab.Host.Listen(ctx, "tcp", ":"+port)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprint(c, greeting)
					io.Copy(c, c)
				}()
			}
		}()
	}
	var err error
	d.session, err = d.login(ctx)
	return err
}

// login is what ssh does from the internet, as far as the firewall sees.
func (d *demo) login(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return d.lab.Internet.Dial(ctx, "tcp", d.lab.Host.Addr4.String()+":22")
}

// onHost is the reference program on the host, in a session.
func (d *demo) onHost(ctx context.Context, session net.Conn, args ...string) *exec.Cmd {
	cmd := d.lab.Host.Command(ctx, d.program, append(args, "--state-dir", d.state)...)
	from, to := session.LocalAddr().(*net.TCPAddr), session.RemoteAddr().(*net.TCPAddr)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=", fmt.Sprintf("SSH_CONNECTION=%v %d %v %d", from.IP, from.Port, to.IP, to.Port))
	return cmd
}

// A confirmer reads over the owner's shoulder, and does in a second session
// what the program asks for in the first.
type confirmer struct {
	demo    *demo
	ctx     context.Context // of the program
	running sync.WaitGroup
	seen    strings.Builder
	asked   int
	err     error
}

func (c *confirmer) Write(p []byte) (int, error) {
	n, err := c.demo.w.Write(p)
	c.seen.Write(p)
	if asked := strings.Count(c.seen.String(), "managemyclaw confirm --state-dir"); asked > c.asked && strings.HasSuffix(c.seen.String(), "\n\n") {
		c.asked = asked
		c.running.Wait()
		c.running.Go(func() { c.err = c.confirm() })
	}
	return n, err
}

func (c *confirmer) confirm() error {
	second, err := c.demo.login(c.ctx)
	if err != nil {
		return fmt.Errorf("the owner is locked out: %w", err)
	}
	defer second.Close()
	cmd := c.demo.onHost(c.ctx, second, "confirm")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("confirm: %w: %s", err, &out)
	}
	c.demo.say("(second session) $ managemyclaw confirm\n(second session) %s\n", &out)
	return nil
}
