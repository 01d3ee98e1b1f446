package composiotest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// A Fault is what goes wrong with a request. The zero Fault is none.
type Fault struct {
	Status     int           // answers with it, and does nothing
	RetryAfter time.Duration // of a status 429; one second if zero
	Delay      time.Duration // on top of [Config.Latency]
	Hang       bool          // never answers, and does nothing
	Garbage    bool          // answers with a page of HTML, and does nothing
	Lose       bool          // does it, and breaks the connection before the answer
	Truncate   bool          // does it, and breaks the connection in the answer
}

// Chaos returns a [Config.Fault] by which a request fails with the given
// probability: it is refused with 429, 500, 502 or 503, or its answer is lost
// or breaks off. The same seed gives the same sequence.
func Chaos(seed uint64, probability float64) func(*http.Request) Fault {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(*http.Request) Fault {
		mu.Lock()
		defer mu.Unlock()
		if rng.Float64() >= probability {
			return Fault{}
		}
		switch rng.IntN(6) {
		case 0:
			return Fault{Status: http.StatusTooManyRequests}
		case 1:
			return Fault{Status: http.StatusInternalServerError}
		case 2:
			return Fault{Status: http.StatusBadGateway}
		case 3:
			return Fault{Status: http.StatusServiceUnavailable}
		case 4:
			return Fault{Lose: true}
		}
		return Fault{Truncate: true}
	}
}

// Transport returns a transport that reaches the server without a network.
// Time spent on it is that of the bubble in package testing/synctest.
func (s *Server) Transport() http.RoundTripper { return memory{s} }

type memory struct{ s *Server }

func (m memory) RoundTrip(req *http.Request) (*http.Response, error) {
	inner := req.Clone(req.Context())
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	inner.RequestURI = req.URL.RequestURI()
	var rec recorder
	broken := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				if p != http.ErrAbortHandler {
					panic(p)
				}
				broken = true
			}
		}()
		m.s.ServeHTTP(&rec, inner)
	}()
	select {
	case <-done:
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if rec.code == 0 {
		return nil, fmt.Errorf("composiotest: the connection broke: %w", io.ErrUnexpectedEOF)
	}
	var body io.Reader = &rec.body
	if broken {
		body = io.MultiReader(body, brokenReader{})
	}
	return &http.Response{
		Status: http.StatusText(rec.code), StatusCode: rec.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: rec.header, Body: io.NopCloser(body), ContentLength: -1, Request: req,
	}, nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A recorder keeps an answer.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

func (r *recorder) status() int {
	if r.code == 0 {
		return http.StatusOK
	}
	return r.code
}

// discard takes an answer that nobody gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(b []byte) (int, error) { return len(b), nil }

// A statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}
