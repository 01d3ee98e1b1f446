package remote

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
)

const (
	askTime  = 30 * time.Minute // for which a page with the state can be used
	fireTime = 2 * time.Minute  // for which a page that asks can be used
	maxForm  = 4096             // bytes
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pagePolicy lets the page do nothing but send its forms back: no script, no
// image, no request to anybody, no frame around it.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

// What a page shows. Who has not shown a link sees no more than a field for it.
type view struct {
	Style  template.CSS
	Switch string
	Agent  string
	Notice string // what went wrong

	Step     string // "enter", "state", "sure" or "result"
	Who      string
	Ticket   string
	State    State
	Unknown  string // why the state is not known
	Problems string

	Receipt *killswitch.Receipt
	Failure string
}

// page serves the page. GET shows; POST goes a step on, and the last one
// fires. Nothing that a browser sends by itself is believed: there is no cookie,
// and neither an address nor the headers of a proxy say who asks. Each step
// carries what the one before gave to whoever had a link, so that no other site
// can have a browser take one.
func (h *Handler) page(w http.ResponseWriter, r *http.Request, link string) {
	form, ok := h.form(w, r)
	if !ok {
		h.show(w, http.StatusBadRequest, view{Step: "enter", Notice: "What was sent could not be read. Nothing was done."})
		return
	}
	step := form.Get("step")
	if r.Method == http.MethodPost && (step == "ask" || step == "fire") {
		who, ticket := form.Get("who"), form.Get("ticket")
		kind, limit := byte(ticketAsk), askTime
		if step == "fire" {
			kind, limit = ticketFire, fireTime
		}
		age, mine := h.minter.check(kind, h.subject(who), ticket)
		switch {
		case !mine || !h.roster.names[who] || age > limit:
			notice := "That page was too old, or not from here. Nothing was done: please try again."
			if who, ok := h.roster.opener(link); ok {
				h.showState(w, r, http.StatusForbidden, who, notice)
				return
			}
			h.strange(r)
			h.show(w, http.StatusForbidden, view{Step: "enter", Notice: notice})
		case step == "ask":
			h.showSure(w, r, who)
		default:
			h.pageFire(w, r, who, ticket, form.Get("reason"))
		}
		return
	}
	secret := link
	if secret == "" {
		secret = form.Get("link")
	}
	if secret == "" {
		h.show(w, http.StatusOK, view{Step: "enter"})
		return
	}
	who, ok := h.roster.opener(secret)
	if !ok {
		h.strange(r)
		h.show(w, http.StatusForbidden, view{Step: "enter", Notice: "That is not the key of anybody here."})
		return
	}
	h.showState(w, r, http.StatusOK, who, "")
}

// form reads what a page sent. The address is not part of it.
func (h *Handler) form(w http.ResponseWriter, r *http.Request) (url.Values, bool) {
	if r.Method != http.MethodPost {
		return nil, true
	}
	data, err := h.body(w, r, maxForm)
	if err != nil {
		return nil, false
	}
	form, err := url.ParseQuery(string(data))
	return form, err == nil
}

// subject binds the tickets of pages to an operator.
func (h *Handler) subject(who string) string { return h.cfg.Name + " " + h.cfg.Agent + " " + who }

// strange records somebody without a link, if there were not many.
func (h *Handler) strange(r *http.Request) {
	if h.refusals.allow(source(r)) {
		h.record(r.Context(), trail.Event{Kind: kindCommand, Decision: trail.DecisionDeny, Message: "it is not the link of an operator", Attrs: map[string]string{"source": r.RemoteAddr}})
	}
}

func (h *Handler) known(r *http.Request, step, who string) view {
	v := view{Step: step, Who: who, Switch: h.cfg.Name, Agent: h.cfg.Agent, Problems: h.problems()}
	state, err := h.state(r.Context())
	if v.State = state; err != nil {
		v.Unknown = err.Error()
	}
	return v
}

func (h *Handler) showState(w http.ResponseWriter, r *http.Request, status int, who, notice string) {
	v := h.known(r, "state", who)
	v.Notice, v.Ticket = notice, h.minter.mint(ticketAsk, h.subject(who))
	h.show(w, status, v)
}

func (h *Handler) showSure(w http.ResponseWriter, r *http.Request, who string) {
	v := h.known(r, "sure", who)
	v.Ticket = h.minter.mint(ticketFire, h.subject(who))
	h.show(w, http.StatusOK, v)
}

// pageFire fires, and shows the receipt when there is one. A page that was sent
// again, as by reloading it, does not fire again.
func (h *Handler) pageFire(w http.ResponseWriter, r *http.Request, who, ticket, reason string) {
	reason = cut(reason, maxReason)
	if !h.pages.use(ticket) {
		h.showState(w, r, http.StatusConflict, who, "This page was sent before. It was not carried out a second time: below is how things are now.")
		return
	}
	f := h.fire(r, who, "by the page", reason)
	h.record(r.Context(), trail.Event{
		Kind: kindCommand, Actor: "operator/" + who, Decision: trail.DecisionAllow, Message: reason,
		Attrs: map[string]string{"source": r.RemoteAddr, "page": "true"},
	})
	ended := f.wait(r.Context())
	v := h.known(r, "result", who)
	if ended {
		v.Receipt = f.receipt
		if f.err != nil {
			v.Failure = f.err.Error()
		}
	} else {
		v.Failure = "The stop goes on, and has not ended yet. Open the page again to see how things are."
	}
	v.Ticket = h.minter.mint(ticketAsk, h.subject(who))
	h.show(w, http.StatusOK, v)
}

func (h *Handler) show(w http.ResponseWriter, status int, v view) {
	v.Style = template.CSS(pageStyle) // #nosec G203 -- it is ours
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		http.Error(w, fmt.Sprintf("the page cannot be shown: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	w.Header().Set("X-Frame-Options", "DENY")
	w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// cut cuts text to a number of bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xc0 == 0x80 {
		most--
	}
	return s[:most]
}
