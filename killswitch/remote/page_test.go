package remote_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/killswitch/remote"
)

// A phone is a browser without a script, which keeps no cookie.
type phone struct {
	t    *testing.T
	base string
	at   string // the address
	http *http.Client

	status int
	header http.Header
	page   string
}

func (w *world) phone() *phone {
	return &phone{t: w.t, base: w.server.URL, http: w.server.Client()}
}

func (p *phone) send(method, path string, form url.Values) {
	p.t.Helper()
	p.at = path
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	p.status, p.header, p.page = resp.StatusCode, resp.Header, string(data)
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`)

// fields returns what the form of the page would send.
func (p *phone) fields() url.Values {
	form := make(url.Values)
	for _, m := range hiddenField.FindAllStringSubmatch(p.page, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	return form
}

// tap sends the form of the page, with what was typed.
func (p *phone) tap(typed ...string) {
	p.t.Helper()
	if n := strings.Count(p.page, "<form"); n != 1 {
		p.t.Fatalf("%d forms: %s", n, p.page)
	}
	form := p.fields()
	for i := 0; i < len(typed); i += 2 {
		form.Set(typed[i], typed[i+1])
	}
	p.send(http.MethodPost, p.at, form)
}

func (p *phone) shows(status int, texts ...string) {
	p.t.Helper()
	if p.status != status {
		p.t.Errorf("status %d, want %d", p.status, status)
	}
	for _, text := range texts {
		if !strings.Contains(p.page, text) {
			p.t.Fatalf("it does not show %q: %s", text, p.page)
		}
	}
}

// Two taps stop the agent, from the link and from the field; nothing else does.
func TestPage(t *testing.T) {
	for situation, open := range map[string]func(*world, *phone){
		"by its address": func(w *world, p *phone) { p.send(http.MethodGet, "/"+w.link.Reveal(), nil) },
		"by the field": func(w *world, p *phone) {
			p.send(http.MethodGet, "/", nil)
			p.shows(http.StatusOK, `type="password"`)
			if strings.Contains(p.page, theAgent) || strings.Contains(p.page, theSwitch) {
				t.Errorf("a stranger is told: %s", p.page)
			}
			p.tap("link", w.link.Reveal())
		},
	} {
		t.Run(situation, func(t *testing.T) {
			w := newWorld(t)
			p := w.phone()
			open(w, p)
			p.shows(http.StatusOK, "openclaw may run", "You are ann", "a line &lt;about&gt; it")
			p.tap()
			p.shows(http.StatusOK, "Stop openclaw now?", "Yes, stop openclaw now")
			if n := w.counter.fires.Load(); n != 0 {
				t.Fatalf("fired %d times", n)
			}
			sure := p.fields()
			p.tap("reason", "it deletes <mail>")
			p.shows(http.StatusOK, "openclaw is confirmed off", "egress: confirmed off after 700µs", "openclaw is stopped")
			if n := w.counter.fires.Load(); n != 1 || !strings.HasPrefix(w.counter.reasons[0], "it deletes <mail> (by the page") {
				t.Fatalf("fired %d times: %q", n, w.counter.reasons)
			}
			// The page is loaded again.
			p.send(http.MethodPost, p.at, sure)
			p.shows(http.StatusConflict, "sent before", "openclaw is stopped")
			if n := w.counter.fires.Load(); n != 1 {
				t.Errorf("fired %d times", n)
			}
			// And from there once more, for good.
			p.tap()
			p.tap()
			p.shows(http.StatusOK, "openclaw is confirmed off")
			if n := w.counter.fires.Load(); n != 2 {
				t.Errorf("fired %d times", n)
			}
		})
	}
}

// A page can do nothing but send its form back to where it came from, is kept
// by nobody, and sends its address to nobody.
func TestPageIsShut(t *testing.T) {
	w := newWorld(t)
	p := w.phone()
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`)
	look := func() {
		t.Helper()
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := p.header.Get(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
		m := style.FindStringSubmatch(p.page)
		if m == nil {
			t.Fatal("no style")
		}
		sum := sha256.Sum256([]byte(m[1]))
		want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
		if got := p.header.Get("Content-Security-Policy"); got != want {
			t.Errorf("policy %q, want %q", got, want)
		}
		if len(p.header.Values("Set-Cookie")) > 0 {
			t.Error("it sets a cookie")
		}
		for _, bad := range []string{"<script", "src=", "href=", "url(", "@import", "style=", "onclick", "action="} {
			if strings.Contains(p.page, bad) {
				t.Errorf("it has %s", bad)
			}
		}
		for _, good := range []string{`<html lang="en">`, `name="viewport"`, "<h1>", "<title>"} {
			if !strings.Contains(p.page, good) {
				t.Errorf("it lacks %s", good)
			}
		}
		for input := range strings.SplitSeq(p.page, "<input") {
			if id := regexp.MustCompile(`^ id="([a-z]+)"`).FindStringSubmatch(input); id != nil && !strings.Contains(p.page, `<label for="`+id[1]+`"`) {
				t.Errorf("%s has no label", id[1])
			}
		}
		if strings.Contains(p.page, w.link.Reveal()) {
			t.Error("it shows the link")
		}
	}
	p.send(http.MethodGet, "/", nil)
	look()
	p.tap("link", "wrong")
	look()
	p.send(http.MethodGet, "/"+w.link.Reveal(), nil)
	look()
	p.tap()
	look()
	p.tap()
	look()
}

// Nothing but what this server gave to this operator not long ago fires.
func TestPageRefuses(t *testing.T) {
	other, otherHash := remote.NewLink()
	w := newWorld(t, func(c *remote.Config) {
		c.Operators = append(c.Operators, remote.Operator{Name: "bob", Links: []remote.LinkHash{otherHash}})
	})
	sure := func(link remote.Link) url.Values {
		p := w.phone()
		p.send(http.MethodGet, "/"+link.Reveal(), nil)
		p.tap()
		return p.fields()
	}
	ask := func() url.Values {
		p := w.phone()
		p.send(http.MethodGet, "/"+w.link.Reveal(), nil)
		return p.fields()
	}
	with := func(form url.Values, name, value string) url.Values { form.Set(name, value); return form }
	for situation, form := range map[string]url.Values{
		"nothing":                         {"step": {"fire"}},
		"a name alone":                    {"step": {"fire"}, "who": {"ann"}},
		"the ticket of the page before":   with(ask(), "step", "fire"),
		"the ticket of somebody else":     with(sure(other), "who", "ann"),
		"a ticket that was changed":       with(sure(w.link), "ticket", "A"+sure(w.link).Get("ticket")[1:]),
		"somebody who is not there":       with(sure(w.link), "who", "eve"),
		"the link, and not the ticket":    {"step": {"fire"}, "link": {w.link.Reveal()}},
		"a made-up ticket":                {"step": {"fire"}, "who": {"ann"}, "ticket": {strings.Repeat("A", 55)}},
		"a challenge in a ticket's place": {"step": {"fire"}, "who": {"ann"}, "ticket": {func() string { _, a := w.do(http.MethodGet, "/v1/challenge", ""); return a.Challenge }()}},
	} {
		t.Run(situation, func(t *testing.T) {
			for _, at := range []string{"/", "/" + w.link.Reveal()} {
				p := w.phone()
				p.send(http.MethodPost, at, form)
				p.shows(http.StatusForbidden, "Nothing was done")
			}
		})
	}
	old := sure(w.link)
	// What GET fetches, previews and prefetches fire nothing.
	for _, path := range []string{"/" + w.link.Reveal(), "/" + w.link.Reveal() + "?" + sure(w.link).Encode(), "/?" + sure(w.link).Encode()} {
		p := w.phone()
		p.send(http.MethodGet, path, nil)
		p.send(http.MethodHead, path, nil)
	}
	// Nor does POST what is in the address alone.
	p := w.phone()
	p.send(http.MethodPost, "/?"+sure(w.link).Encode(), nil)
	for _, path := range []string{"/hsk_" + strings.Repeat("A", 43), "/" + w.link.Reveal()[:40], "/" + w.link.Reveal() + "A"} {
		p.send(http.MethodGet, path, nil)
		p.shows(http.StatusForbidden, "not the key of anybody")
	}
	for _, path := range []string{"/x", "/" + w.link.Reveal() + "/x", "/v1", "/v1/kill"} {
		p.send(http.MethodGet, path, nil)
		if p.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, p.status)
		}
	}
	w.start() // tickets end with the process
	p = w.phone()
	p.send(http.MethodPost, "/"+w.link.Reveal(), old)
	p.shows(http.StatusForbidden, "Nothing was done", "openclaw may run")
	p.tap()
	p.shows(http.StatusOK, "Stop openclaw now?")
	if n := w.counter.fires.Load(); n != 0 {
		t.Errorf("fired %d times", n)
	}
}

// The page says what is not as it should be, in plain words.
func TestPageSaysWhatIsWrong(t *testing.T) {
	w := newWorld(t, func(c *remote.Config) { c.Key, c.State = nil, nil })
	w.counter.err = errors.New("out of <order>")
	p := w.phone()
	p.send(http.MethodGet, "/"+w.link.Reveal(), nil)
	p.shows(http.StatusOK, "It is not known whether openclaw is stopped", "the server has no key")
	p.tap()
	p.tap()
	p.shows(http.StatusOK, "out of &lt;order&gt;")
	if strings.Contains(p.page, "confirmed off") {
		t.Error(p.page)
	}
}

// A guess is answered like any other, however many there were, and a link is
// good after any number of them.
func TestPageGuesses(t *testing.T) {
	w := newWorld(t)
	p := w.phone()
	for range 100 {
		p.send(http.MethodPost, "/", url.Values{"link": {"hsk_guess"}})
		p.shows(http.StatusForbidden)
	}
	start := time.Now()
	p.send(http.MethodGet, "/"+w.link.Reveal(), nil)
	p.tap()
	p.tap()
	p.shows(http.StatusOK, "confirmed off")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}
