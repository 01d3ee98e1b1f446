package access

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Way is an address at which the agent is told that tools are.
type Way struct {
	Place   string // who says so
	Host    string // with the port
	Gateway bool   // it is the gateway's
}

// way notes the addresses of Composio in a variable.
func (s *survey) way(place, name, value string) {
	for _, h := range hostsIn(value) {
		if strings.Contains(h, "composio") || strings.Contains(strings.ToLower(name), "composio") {
			s.agent.Ways = append(s.agent.Ways, Way{Place: place + " " + s.shown(name), Host: s.shown(h), Gateway: s.isGateway(h)})
		}
	}
}

// An Attempt is what came of trying to reach Composio from the agent's network.
type Attempt struct {
	PID  int
	Name string // of what was to be reached
	To   string // address and port
	Via  string // a proxy, if one was asked

	Reached bool
	// Control says that the machine itself reached the same address, without
	// which the agent's failure proves nothing.
	Control bool
	Err     error // why it was not reached, or why it could not be tried
}

// dialTimeout is how long an attempt waits.
const dialTimeout = 2 * time.Second

// attempts tries every destination from each network that the container's
// processes are in, directly and through the proxies that they are told of.
func (s *survey) attempts(ctx context.Context) {
	if s.cfg.Inside == nil {
		return
	}
	networks := make(map[uint64]int)
	for _, p := range s.agent.Container.Kernel.Processes {
		if _, ok := networks[p.Namespaces["net"]]; !ok {
			networks[p.Namespaces["net"]] = p.PID
		}
	}
	direct := s.cfg.Direct
	if direct == nil {
		direct = DefaultDirect()
	}
	var (
		mu  sync.Mutex
		wg  sync.WaitGroup
		all []Attempt
	)
	note := func(a Attempt, err error) {
		mu.Lock()
		defer mu.Unlock()
		a.Reached, a.Err = err == nil, err
		all = append(all, a)
	}
	proxies := s.proxies()
	for _, d := range direct {
		wg.Go(func() {
			addrs, err := d.addresses(ctx)
			if err != nil {
				note(Attempt{Name: d.Name}, fmt.Errorf("%w: its address was not found: %w", errUntried, err))
				return
			}
			for _, to := range addrs {
				wg.Go(func() {
					control := s.dial(ctx, 0, to.String()) == nil
					for _, pid := range networks {
						note(Attempt{PID: pid, Name: d.Name, To: to.String(), Control: control}, s.dial(ctx, pid, to.String()))
					}
				})
			}
			target := net.JoinHostPort(d.Name, strconv.Itoa(int(addrs[0].Port())))
			for _, proxy := range proxies {
				for _, pid := range networks {
					wg.Go(func() {
						note(Attempt{PID: pid, Name: d.Name, To: target, Via: proxy, Control: true}, s.connect(ctx, pid, proxy, target))
					})
				}
			}
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b Attempt) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.To, b.To), strings.Compare(a.Via, b.Via), a.PID-b.PID)
	})
	s.agent.Attempts = all
}

// addresses returns where a destination is.
func (d *Destination) addresses(ctx context.Context) ([]netip.AddrPort, error) {
	port := d.Port
	if port == 0 {
		port = 443
	}
	addrs := d.Addrs
	if len(addrs) == 0 {
		var err error
		if addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip", d.Name); err != nil {
			return nil, err
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New("there is none")
	}
	var all []netip.AddrPort
	for _, a := range addrs {
		all = append(all, netip.AddrPortFrom(a.Unmap(), port))
	}
	return all, nil
}

func (s *survey) dial(ctx context.Context, pid int, to string) error {
	limited, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := s.cfg.Inside.DialFrom(limited, pid, "tcp", to)
	if ctx.Err() != nil && err != nil { // the caller's time was up, not the attempt's
		return fmt.Errorf("%w: %w", errUntried, ctx.Err())
	}
	if err != nil {
		return err
	}
	return conn.Close()
}

// proxies returns the addresses of the proxies that the agent is told of.
func (s *survey) proxies() []string {
	var all []string
	for _, env := range s.environ {
		for name, value := range env.values {
			switch strings.ToLower(name) {
			case "http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy":
			default:
				continue
			}
			if !strings.Contains(value, "://") {
				value = "http://" + value
			}
			u, err := url.Parse(value)
			if err != nil || u.Hostname() == "" {
				continue
			}
			port := u.Port()
			if port == "" {
				port = "80"
			}
			if p := net.JoinHostPort(u.Hostname(), port); !slices.Contains(all, p) && !s.isGateway(strings.ToLower(p)) {
				all = append(all, p)
			}
		}
	}
	slices.Sort(all)
	return all
}

// connect asks a proxy for a connection.
func (s *survey) connect(ctx context.Context, pid int, proxy, target string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	if _, err := netip.ParseAddrPort(proxy); err != nil {
		return fmt.Errorf("%w: the proxy is known by a name alone, which only the agent could look up", errUntried)
	}
	conn, err := s.cfg.Inside.DialFrom(ctx, pid, "tcp", proxy)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%w: the proxy answers %d", errRefused, resp.StatusCode)
	}
	return nil
}

var (
	errUntried = errors.New("it could not be tried")
	errRefused = errors.New("it was refused")
)

// closed reports whether the error of an attempt says that there is no way, and
// not that it could not be tried: that a namespace could not be entered looks
// like a firewall's refusal but for where it comes from.
func closed(err error) bool {
	if errors.Is(err, errRefused) {
		return true
	}
	dial, ok := errors.AsType[*net.OpError](err)
	if !ok || errors.Is(err, errUntried) {
		return false
	}
	for _, no := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES, syscall.EPERM,
		syscall.ETIMEDOUT, os.ErrDeadlineExceeded, context.DeadlineExceeded,
	} {
		if errors.Is(dial.Err, no) {
			return true
		}
	}
	return dial.Timeout()
}
