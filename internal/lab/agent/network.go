//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const dialTimeout = 3 * time.Second

var networkVerbs = map[string]verb{
	"get": {"URL: status and up to 64 KiB of the body", 1, func(args []string) (any, error) {
		return get(&http.Client{Timeout: dialTimeout}, args[0])
	}},
	"unix": {"SOCKET [PATH [METHOD]]: an HTTP request, as for the Docker socket", 1, func(args []string) (any, error) {
		path, method := "/version", http.MethodGet
		if len(args) > 1 {
			path = args[1]
		}
		if len(args) > 2 {
			method = args[2]
		}
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", args[0])
		}}
		return request(&http.Client{Timeout: dialTimeout, Transport: transport}, method, "http://socket"+path)
	}},
	"dial": {"NETWORK ADDRESS: connect and close", 2, func(args []string) (any, error) {
		c, err := net.DialTimeout(args[0], args[1], dialTimeout)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.LocalAddr().String(), nil
	}},
	"send": {"NETWORK ADDRESS DATA: connect, write, and return what comes within a second", 3, func(args []string) (any, error) {
		c, err := net.DialTimeout(args[0], args[1], dialTimeout)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if _, err := io.WriteString(c, args[2]); err != nil {
			return nil, err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		data, _ := io.ReadAll(io.LimitReader(c, 64<<10))
		return string(data), nil
	}},
	"lookup": {"NAME [SERVER]: ask the DNS", 1, func(args []string) (any, error) {
		r := net.DefaultResolver
		if len(args) > 1 {
			r = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, args[1])
			}}
		}
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		return r.LookupHost(ctx, args[0])
	}},
	"addrs": {": addresses of the interfaces", 0, func([]string) (any, error) {
		addrs, err := net.InterfaceAddrs()
		all := []string{}
		for _, a := range addrs {
			all = append(all, a.String())
		}
		return all, err
	}},
	"stream-start": {"ADDRESS: connect by TCP and send 64 bytes a millisecond until stream-stop; in the server only", 1, func(args []string) (any, error) {
		return nil, streams.start(args[0])
	}},
	"stream-status": {": streams, and whether they still send", 0, func([]string) (any, error) {
		return streams.status(), nil
	}},
	"stream-stop": {": end all streams", 0, func([]string) (any, error) {
		return streams.stop(), nil
	}},
}

func get(client *http.Client, url string) (any, error) {
	return request(client, http.MethodGet, url)
}

func request(client *http.Client, method, url string) (any, error) {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return map[string]any{"status": resp.StatusCode, "body": string(body)}, err
}

// streams are connections that a kill switch should cut.
var streams streamSet

type streamSet struct {
	mu  sync.Mutex
	all []*stream
}

type stream struct {
	conn net.Conn

	mu   sync.Mutex
	sent int64
	last time.Time
	err  error
}

func (s *streamSet) start(address string) error {
	c, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		return err
	}
	st := &stream{conn: c}
	s.mu.Lock()
	s.all = append(s.all, st)
	s.mu.Unlock()
	go st.run()
	return nil
}

func (st *stream) run() {
	chunk := []byte(strings.Repeat("exfiltrated data", 4))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		n, err := st.conn.Write(chunk)
		st.mu.Lock()
		st.sent += int64(n)
		if err == nil {
			st.last = time.Now()
		}
		st.err = err
		st.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *streamSet) status() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []any{}
	for _, st := range s.all {
		st.mu.Lock()
		m := map[string]any{"to": st.conn.RemoteAddr().String(), "sent": st.sent, "last": st.last, "open": st.err == nil}
		if st.err != nil {
			m["error"] = st.err.Error()
			if errors.Is(st.err, net.ErrClosed) {
				m["error"] = "stopped"
			}
		}
		st.mu.Unlock()
		all = append(all, m)
	}
	return all
}

func (s *streamSet) stop() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.all {
		st.conn.Close()
	}
	n := len(s.all)
	s.all = nil
	return fmt.Sprintf("%d stopped", n)
}
