package remote

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Bounds on strangers.
const (
	maxReaders       = 512 // requests whose body is being read
	maxReadersSource = 32  // of one source
	readTime         = 5 * time.Second
	maxSources       = 4096
	refusalsBurst    = 20 // refusals of one source that are explained and recorded
	refusalsPerSec   = 1
)

// source returns who a request comes from: an IPv4 address or the first half of
// an IPv6 address, of which everybody has many.
func source(r *http.Request) netip.Addr {
	hostport, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		hostport = r.RemoteAddr
	}
	a, err := netip.ParseAddr(hostport)
	if err != nil {
		return netip.Addr{}
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

// readers are the requests whose body is being read. One more is always let in:
// where there are too many, the one that has taken longest is cut off. So those
// who send slowly keep out nobody who does not.
type readers struct {
	mu      sync.Mutex
	all     list.List
	sources map[netip.Addr]*list.List
}

type reader struct {
	source   netip.Addr
	cut      func()
	all, own *list.Element
	out      bool
}

// enter lets a request in. The function that it returns must be called when its
// body has been read.
func (r *readers) enter(from netip.Addr, cut func()) (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sources == nil {
		r.sources = make(map[netip.Addr]*list.List)
	}
	if own := r.sources[from]; own != nil && own.Len() >= maxReadersSource {
		r.evict(own.Front().Value.(*reader))
	} else if r.all.Len() >= maxReaders {
		r.evict(r.all.Front().Value.(*reader))
	}
	own := r.sources[from]
	if own == nil {
		own = new(list.List)
		r.sources[from] = own
	}
	v := &reader{source: from, cut: cut}
	v.all, v.own = r.all.PushBack(v), own.PushBack(v)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.remove(v)
	}
}

func (r *readers) evict(v *reader) {
	r.remove(v)
	v.cut()
}

func (r *readers) remove(v *reader) {
	if v.out {
		return
	}
	v.out = true
	r.all.Remove(v.all)
	own := r.sources[v.source]
	own.Remove(v.own)
	if own.Len() == 0 {
		delete(r.sources, v.source)
	}
}

// refusals says of which source one more refusal is worth explaining and
// recording. It decides about nothing else: what is valid is never refused
// because of what is not.
type refusals struct {
	mu      sync.Mutex
	sources map[netip.Addr]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func (r *refusals) allow(from netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.sources == nil || len(r.sources) >= maxSources {
		r.sources = make(map[netip.Addr]bucket)
	}
	b, ok := r.sources[from]
	if !ok {
		b = bucket{refusalsBurst, now}
	}
	b.tokens = min(refusalsBurst, b.tokens+refusalsPerSec*now.Sub(b.at).Seconds())
	b.at = now
	allowed := b.tokens >= 1
	if allowed {
		b.tokens--
	}
	r.sources[from] = b
	return allowed
}
