package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const mcpPath = "/mcp"

// serve lets a request in to one of the doors, if its agent may do anything at
// all.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	rq := newRequest(doorREST)
	if r.URL.EscapedPath() == mcpPath {
		rq.door = doorMCP
	}
	if d := g.admit(rq, r); d != nil {
		g.turnAway(w, r, rq, d)
		return
	}
	if !rq.standing.enter(g.cfg.MaxCalls) {
		d := deny(ReasonBusy, "the agent has %d requests under way, which is as many as it may", g.cfg.MaxCalls)
		d.after = time.Second
		g.turnAway(w, r, rq, d)
		return
	}
	defer rq.standing.leave()
	var d *denial
	if rq.door == doorMCP {
		d = g.serveMCP(w, r, rq)
	} else {
		d = g.serveREST(w, r, rq)
	}
	if d != nil {
		g.turnAway(w, r, rq, d)
	}
}

// turnAway records a denial and answers with it.
func (g *Gateway) turnAway(w http.ResponseWriter, r *http.Request, rq *request, d *denial) {
	if !d.noted {
		// Decoded, so that what looks like a secret is seen for one.
		g.denied(r.Context(), rq, r.Method+" "+r.URL.Path, d)
	}
	g.replyDenial(w, rq, d)
}

// admit authenticates.
func (g *Gateway) admit(rq *request, r *http.Request) *denial {
	if !slices.Contains(g.cfg.Hosts, hostname(r.Host)) {
		return &denial{reason: ReasonOrigin, message: "the gateway does not go by this name: add it to the gateway's hosts if it should", status: http.StatusMisdirectedRequest}
	}
	// No agent is a web page. A browser says that it is one, and so what a
	// page has it send is told apart.
	if len(r.Header.Values("Origin")) > 0 || !slices.Contains([]string{"", "none"}, r.Header.Get("Sec-Fetch-Site")) {
		return deny(ReasonOrigin, "requests from web pages are denied")
	}
	token, err := credential(r.Header)
	if err != nil {
		return deny(ReasonUnauthenticated, "%v", err)
	}
	b := g.book.Load()
	a, hash := b.owner(token)
	if a == nil {
		return deny(ReasonUnauthenticated, "the token is not one of this gateway's")
	}
	rq.agent, rq.token, rq.book, rq.standing = a, hash, b, g.standing(a.name)
	return g.halted(r.Context(), a.name, rq.standing)
}

func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func (s *standing) enter(most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active >= most {
		return false
	}
	s.active++
	return true
}

func (s *standing) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
}

// readBody reads a body of JSON.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *denial) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || kind != "application/json" || len(r.Header.Values("Content-Type")) != 1 || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, &denial{reason: ReasonRequest, message: "the body must be of type application/json", status: http.StatusUnsupportedMediaType}
	}
	if e := r.Header.Values("Content-Encoding"); len(e) > 0 {
		return nil, &denial{reason: ReasonRequest, message: "the body must not be compressed", status: http.StatusUnsupportedMediaType}
	}
	// Not all that implements ResponseWriter has deadlines; a real
	// connection has.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(g.cfg.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.cfg.MaxBodyBytes))
	_ = control.SetReadDeadline(time.Time{})
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &denial{reason: ReasonRequest, message: "the body is larger than " + strconv.FormatInt(g.cfg.MaxBodyBytes, 10) + " bytes", status: http.StatusRequestEntityTooLarge}
	}
	if err != nil {
		return nil, deny(ReasonRequest, "the body did not arrive")
	}
	return body, nil
}

func reply(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error":{"message":"the answer cannot be encoded"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the agent may have gone
}

// replyDenial answers as the API answers with an error. Clients are told not to
// try again: a denial stays one.
func (g *Gateway) replyDenial(w http.ResponseWriter, rq *request, d *denial) {
	type problem struct {
		Message   string `json:"message"`
		Code      int    `json:"code"`
		Slug      string `json:"slug"`
		Status    int    `json:"status"`
		RequestID string `json:"request_id"`
	}
	if d.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((d.after+time.Second-1)/time.Second)))
	} else {
		w.Header().Set("X-Should-Retry", "false")
	}
	if d.reason == ReasonUnauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	reply(w, d.code(), map[string]problem{"error": {d.message, d.code(), d.slug(), d.code(), rq.id}})
}
