package gateway_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

// No secret shows: neither the agent's token, nor the gateway's key, nor what
// is secret among arguments, in answers, records, logs, errors or values.
func TestSecretsDoNotShow(t *testing.T) {
	t.Parallel()
	const canary = "hunter2-canary-0123456789"
	var log bytes.Buffer
	var out strings.Builder
	printed := func(values ...any) {
		for _, v := range values {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			data, _ := json.Marshal(v)
			out.Write(data)
		}
	}
	w := newWorldWith(t, composiotest.Config{}, func(c *gateway.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		p := c.Policy.Agents["inbox"]
		p.Tools["GMAIL_DELETE_MESSAGE"] = gateway.Grant{Version: version, Class: composio.ClassDestructive, Arguments: map[string]gateway.Rule{"id": {}, "password": {}, "headers": {}}}
	})
	secret := object{"id": "Bearer " + canary, "password": canary, "headers": object{"Authorization": canary}}
	requests := []*http.Request{
		w.request("POST", "/api/v3.1/tools/execute/GMAIL_DELETE_MESSAGE", fetch(object{"arguments": secret})),
		w.request("POST", "/api/v3.1/tools/execute/GMAIL_SEND_EMAIL", fetch(object{"arguments": secret})),
		w.request("POST", fetchPath, fetch(object{"custom_auth_params": object{"token": canary}})),
		w.request("GET", "/api/v3.1/tools?api_key="+canary, nil),
		w.request("GET", "/api/v3.1/nothing/Bearer%20"+canary, nil),
		header("X-Api-Key", "hsg_"+canary+canary)(w),
		header("Authorization", "Bearer "+canary+canary)(w),
		call("GMAIL_DELETE_MESSAGE", secret)(w),
		call("GMAIL_SEND_EMAIL", secret)(w),
		call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_DELETE_MESSAGE", secret), entry("GMAIL_SEND_EMAIL", secret)))(w),
	}
	for _, failing := range []bool{false, true} {
		if failing {
			w.trail.failing(func(trail.Event) error { return errors.New("disk full") })
		}
		for i, r := range requests {
			body := new(bytes.Buffer)
			_, _ = body.ReadFrom(r.Body)
			again := r.Clone(t.Context())
			again.Body = http.NoBody
			if body.Len() > 0 {
				again.Body = readCloser{bytes.NewReader(body.Bytes())}
			}
			r.Body = readCloser{bytes.NewReader(body.Bytes())}
			rec := w.send(again)
			answer := rec.Body.String()
			if i != 0 && i != 7 { // those that are executed give back what they were given
				out.WriteString(answer)
			}
		}
	}
	w.trail.failing(nil)
	printed(w.gateway, w.policy, *w.policy, w.policy.Agents["inbox"], w.token, gateway.HashToken(w.token), w.gateway.Policy())
	printed(gateway.SessionConfig{APIKey: composio.NewSecret(canary)}, gateway.Config{Policy: w.policy, Upstream: w.composio.Client()})
	for _, e := range w.trail.all() {
		printed(e)
	}
	out.Write(log.Bytes())
	if log.Len() == 0 {
		t.Error("nothing was logged: the test does not test the log")
	}
	text := out.String()
	for name, s := range map[string]string{
		"the canary": canary, "its hexadecimal digits": fmt.Sprintf("%x", canary), "the token": w.token.Reveal(), "the token's digits": fmt.Sprintf("%x", w.token.Reveal()), "the key": composiotest.ProjectKey,
	} {
		if i := strings.Index(text, s); i >= 0 {
			t.Errorf("%s shows: …%s…", name, text[max(0, i-200):min(len(text), i+100)])
		}
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// An agent cannot send what the trail is too small for, and so bring all to a
// stop.
func TestRecordsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	many := make([]int, 200_000)
	const most = 100 << 10
	w.trail.failing(func(e trail.Event) error {
		if data, err := json.Marshal(e); err != nil || len(data) > most {
			return fmt.Errorf("%w: %d bytes", trail.ErrInvalidEvent, len(data))
		}
		return nil
	})
	for range 3 {
		w.execute("GMAIL_SEND_EMAIL", object{"many": many})
		w.mcpCall("GMAIL_SEND_EMAIL", object{"many": many})
		w.rest("GET", "/api/v3.1/"+strings.Repeat("x", 200_000), nil)
	}
	if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); refused(rec) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if n := len(w.trail.where(func(e trail.Event) bool { return e.Attrs["reason"] != "" })); n != 9 {
		t.Errorf("%d denials recorded with their reason, want 9", n)
	}
	// What cannot be recorded as it is must not hold up the rest.
	w.trail.failing(func(e trail.Event) error {
		if e.Attrs["reason"] != "" {
			return trail.ErrInvalidEvent
		}
		return nil
	})
	w.execute("GMAIL_SEND_EMAIL", object{})
	if rec := w.execute("GMAIL_FETCH_EMAILS", object{}); refused(rec) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if n := len(w.trail.denials()); n != 10 {
		t.Errorf("%d denials recorded, want 10", n)
	}
}
