package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

// BenchmarkExecute measures what the gateway adds to an execution, beside
// httputil.ReverseProxy before the same upstream, which decides nothing and
// records nothing. Each is measured with one agent that waits for each answer,
// and with 16 at a time.
func BenchmarkExecute(b *testing.B) {
	answer := []byte(`{"data":{"messages":[]},"error":null,"successful":true,"log_id":"log_1"}`)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	b.Cleanup(upstream.Close)
	client, err := composio.New(composio.Config{APIKey: composio.NewSecret("ak_test"), BaseURL: upstream.URL})
	if err != nil {
		b.Fatal(err)
	}
	key, err := trail.GenerateKey("bench.example.com/gateway")
	if err != nil {
		b.Fatal(err)
	}
	log, err := trail.Create(b.TempDir(), key, trail.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = log.Close() })

	var token composio.Secret
	serve := func(rec trail.Recorder) string {
		w := newWorld(b, func(c *gateway.Config) {
			c.Upstream = catalogue{c.Upstream, client.Execute}
			c.Trail, c.MaxCalls = rec, 1000
		})
		token = w.token
		return w.listen().url
	}
	target, err := url.Parse(upstream.URL)
	if err != nil {
		b.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConns: 100, MaxIdleConnsPerHost: 100}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	b.Cleanup(proxy.Close)

	body := []byte(`{"user_id":"ann","version":"` + version + `","arguments":{"query":"from:bob","max_results":10}}`)
	message := []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"GMAIL_FETCH_EMAILS","arguments":{"query":"from:bob","max_results":10}}}`)
	for _, to := range []struct {
		name string
		url  func() string
		path string
		body []byte
	}{
		{"direct", func() string { return upstream.URL }, fetchPath, body},
		{"ReverseProxy", func() string { return proxy.URL }, fetchPath, body},
		{"gateway", func() string { return serve(trail.Discard) }, fetchPath, body},
		{"gateway over MCP", func() string { return serve(trail.Discard) }, "/mcp", message},
		{"gateway with a trail", func() string { return serve(log) }, fetchPath, body},
	} {
		url := to.url() + to.path
		agents := &http.Client{Transport: &http.Transport{MaxIdleConns: 100, MaxIdleConnsPerHost: 100}}
		send := func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(to.body))
			if err != nil {
				return err
			}
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json, text/event-stream")
			r.Header.Set("X-Api-Key", token.Reveal())
			resp, err := agents.Do(r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if data, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%d %s: %w", resp.StatusCode, data, err)
			}
			return nil
		}
		for _, at := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", to.name, at), func(b *testing.B) {
				var mu sync.Mutex
				var all []time.Duration
				next := make(chan struct{})
				var workers sync.WaitGroup
				for range at {
					workers.Go(func() {
						for range next {
							start := time.Now()
							if err := send(b.Context()); err != nil {
								b.Error(err)
							}
							took := time.Since(start)
							mu.Lock()
							all = append(all, took)
							mu.Unlock()
						}
					})
				}
				for b.Loop() {
					next <- struct{}{}
				}
				close(next)
				workers.Wait()
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
				b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "calls/s")
			})
		}
	}
}
