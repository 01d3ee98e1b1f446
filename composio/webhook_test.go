package composio_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

func sign(secret, id, stamp, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func signed(secret, body string) (http.Header, []byte) {
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	h := make(http.Header)
	h.Set("webhook-id", "msg_1")
	h.Set("webhook-timestamp", stamp)
	h.Set("webhook-signature", sign(secret, "msg_1", stamp, body))
	return h, []byte(body)
}

// A vector that the official client accepts.
func TestWebhookVector(t *testing.T) {
	const path = "../../shared/data/composio/webhook-vector.json"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("the vector is not there: %v", err)
	}
	var v struct{ Secret, ID, Timestamp, Body, Signature string }
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	at, _ := strconv.ParseInt(v.Timestamp, 10, 64)
	w := &composio.Webhook{Secret: composio.NewSecret(v.Secret), Now: func() time.Time { return time.Unix(at, 0) }}
	h := http.Header{"Webhook-Id": {v.ID}, "Webhook-Timestamp": {v.Timestamp}, "Webhook-Signature": {v.Signature}}
	e, err := w.Verify(h, []byte(v.Body))
	if err != nil || e.Type != "composio.connected_account.expired" || e.ID != v.ID {
		t.Errorf("%+v, %v", e, err)
	}
}

// The same, fixed: the key is the secret as it is, of which the value below was
// computed with another program.
func TestWebhookSignature(t *testing.T) {
	// printf 'msg_1.1790000000.{}' | openssl dgst -sha256 -hmac whsec_dGVzdA== -binary | base64
	w := &composio.Webhook{Secret: composio.NewSecret("whsec_dGVzdA=="), Now: func() time.Time { return time.Unix(1790000000, 0) }}
	h := http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {"1790000000"}, "Webhook-Signature": {"v1," + opensslSignature}}
	if _, err := w.Verify(h, []byte("{}")); err != nil {
		t.Error(err)
	}
}

func TestWebhookRefuses(t *testing.T) {
	const secret, id, stamp, body = "whsec_1", "msg_1", "1790000000", `{"type":"t"}`
	good := sign(secret, id, stamp, body)
	now := time.Unix(1790000000, 0)
	for _, c := range []struct {
		name                 string
		id, stamp, signature []string
		body                 string
		shift                time.Duration
		want                 error
	}{
		{"as it should be", []string{id}, []string{stamp}, []string{good}, body, 0, nil},
		{"one of several signatures", []string{id}, []string{stamp}, []string{"v1,AAAA v2,x " + good}, body, 0, nil},
		{"just within the tolerance", []string{id}, []string{stamp}, []string{good}, body, 5 * time.Minute, nil},
		{"too old", []string{id}, []string{stamp}, []string{good}, body, 5*time.Minute + time.Second, composio.ErrStaleEvent},
		{"of the future", []string{id}, []string{stamp}, []string{good}, body, -5*time.Minute - time.Second, composio.ErrStaleEvent},
		{"another body", []string{id}, []string{stamp}, []string{good}, body + " ", 0, composio.ErrSignature},
		{"another id", []string{"msg_2"}, []string{stamp}, []string{good}, body, 0, composio.ErrSignature},
		{"another time", []string{id}, []string{"1790000001"}, []string{good}, body, 0, composio.ErrSignature},
		{"another secret", []string{id}, []string{stamp}, []string{sign("whsec_2", id, stamp, body)}, body, 0, composio.ErrSignature},
		{"no signature", []string{id}, []string{stamp}, nil, body, 0, composio.ErrSignature},
		{"an empty signature", []string{id}, []string{stamp}, []string{""}, body, 0, composio.ErrSignature},
		{"a version without signature", []string{id}, []string{stamp}, []string{"v1,"}, body, 0, composio.ErrSignature},
		{"another version", []string{id}, []string{stamp}, []string{"v2" + good[2:]}, body, 0, composio.ErrSignature},
		{"not base64", []string{id}, []string{stamp}, []string{"v1,???"}, body, 0, composio.ErrSignature},
		{"two ids", []string{id, id}, []string{stamp}, []string{good}, body, 0, composio.ErrSignature},
		{"two times", []string{id}, []string{stamp, "1"}, []string{good}, body, 0, composio.ErrSignature},
		{"two signatures' headers", []string{id}, []string{stamp}, []string{good, "v1,AAAA"}, body, 0, composio.ErrSignature},
		{"no id", nil, []string{stamp}, []string{good}, body, 0, composio.ErrSignature},
		{"no time", []string{id}, nil, []string{good}, body, 0, composio.ErrSignature},
		{"a time that is none", []string{id}, []string{"now"}, []string{sign(secret, id, "now", body)}, body, 0, composio.ErrStaleEvent},
		{"a time beyond all times", []string{id}, []string{"9223372036854775807"}, []string{sign(secret, id, "9223372036854775807", body)}, body, 0, composio.ErrStaleEvent},
		{"a body that is not JSON", []string{id}, []string{stamp}, []string{sign(secret, id, stamp, "x")}, "x", 0, composio.ErrAnswer},
	} {
		w := &composio.Webhook{Secret: composio.NewSecret(secret), Now: func() time.Time { return now.Add(c.shift) }}
		h := http.Header{"Webhook-Id": c.id, "Webhook-Timestamp": c.stamp, "Webhook-Signature": c.signature}
		if _, err := w.Verify(h, []byte(c.body)); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	h, b := signed("", body)
	if _, err := new(composio.Webhook).Verify(h, b); err == nil {
		t.Error("without a secret anybody can sign")
	}
}

// Whatever the headers, an event that verifies was signed.
func FuzzWebhook(f *testing.F) {
	f.Add("msg_1", "1790000000", sign("whsec_1", "msg_1", "1790000000", "{}"), "{}")
	f.Add("", "", "v1,", "")
	f.Add("a.b", "1", "v1,AAAA v1,BBBB", `{"data":1}`)
	f.Fuzz(func(t *testing.T, id, stamp, signature, body string) {
		w := &composio.Webhook{Secret: composio.NewSecret("whsec_1"), Now: func() time.Time { return time.Unix(1790000000, 0) }}
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {signature}}
		if _, err := w.Verify(h, []byte(body)); err == nil && !strings.Contains(signature, sign("whsec_1", id, stamp, body)) {
			t.Errorf("%q %q %q %q", id, stamp, signature, body)
		}
	})
}

const opensslSignature = "hzyWn71mmavYzBH+YGM9qLuDHL9fwyCodo+87riEtuQ="
