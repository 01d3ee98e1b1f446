package composio_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
)

// The word that every secret of these tests contains.
const canary = "CANARY"

// texts returns v in every way in which somebody might print it.
func texts(v any) map[string]string {
	out := make(map[string]string)
	wrapped := struct{ exported, inner any }{v, []any{v}}
	for _, verb := range "vsqxXdtbocOUeEfFgGpTw" {
		for _, flag := range []string{"", "+", "#", "-10", " ", "0"} {
			format := "%" + flag + string(verb)
			out[format] = fmt.Sprintf(format, v)
			out["wrapped "+format] = fmt.Sprintf(format, wrapped)
		}
	}
	out["print"] = fmt.Sprint(v, []any{v}, map[string]any{"k": v})
	if b, err := json.Marshal(v); err == nil {
		out["json"] = string(b)
	} else {
		out["json"] = err.Error()
	}
	if b, err := xml.Marshal(v); err == nil {
		out["xml"] = string(b)
	} else {
		out["xml"] = err.Error()
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v, slog.Group("g", "v", v), "w", wrapped)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "v", v, slog.Group("g", "v", v), "w", wrapped)
	out["slog"] = log.String()
	out["reflection"] = walk(reflect.ValueOf(v), 0)
	return out
}

// walk prints as printers do that ignore methods and look at fields that are
// not exported: without methods, through pointers.
func walk(v reflect.Value, depth int) string {
	if depth > 8 {
		return ""
	}
	switch v.Kind() {
	case reflect.String:
		return v.String() + "\n"
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return walk(v.Elem(), depth+1)
		}
	case reflect.Struct:
		var b strings.Builder
		for _, field := range v.Fields() {
			b.WriteString(walk(field, depth+1))
		}
		return b.String()
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("%s\n", v)
		}
		var b strings.Builder
		for i := range v.Len() {
			b.WriteString(walk(v.Index(i), depth+1))
		}
		return b.String()
	case reflect.Map:
		var b strings.Builder
		for k, e := range v.Seq2() {
			b.WriteString(walk(k, depth+1) + walk(e, depth+1))
		}
		return b.String()
	}
	return ""
}

func leaks(text string) bool {
	low := strings.ToLower(text)
	for _, form := range []string{
		canary, hex.EncodeToString([]byte(canary)), strings.Trim(base64.StdEncoding.EncodeToString([]byte(canary)), "="),
		strings.Trim(fmt.Sprintf("%d", []byte(canary)), "[]"),
	} {
		form = strings.ToLower(form)
		if strings.Contains(low, form) || strings.Contains(strings.ReplaceAll(low, " ", ""), form) {
			return true
		}
	}
	return false
}

// everything returns a value of each exported type, filled by an API in which
// every secret is a canary.
func everything(t *testing.T) map[string]any {
	ctx := t.Context()
	s := composiotest.New(composiotest.Config{})
	const key = "ak_" + canary + "_project"
	s.AddKey(key)
	token := map[string]string{"access_token": "tok_" + canary, "refresh_token": "ref_" + canary}
	off := false
	cfg := s.ClientConfig()
	cfg.APIKey = composio.NewSecret(key)
	// An API that tells more than it should, and everything in clear.
	inner := cfg.Transport
	cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/auth_configs/ac_1"):
			return answer(200, `{"id":"ac_1","type":"custom","credentials":{"client_secret":"`+canary+`"},"shared_credentials":{"x":"`+canary+`"}}`)
		case strings.HasSuffix(r.URL.Path, "/ca_error"):
			return answer(400, `{"error":{"message":"the key `+key+` `+canary+` is wrong","slug":"`+key+`","code":"tok `+canary+`","request_id":"`+key+`","suggested_fix":"`+canary+`"}}`,
				"X-Request-Id", key)
		case strings.HasSuffix(r.URL.Path, "/ca_broken"):
			return nil, fmt.Errorf("cannot send X-Api-Key: %s to %s: %w", r.Header.Get("X-Api-Key"), r.URL, fs.ErrClosed)
		case strings.HasSuffix(r.URL.Path, "/ca_type"):
			return answer(200, `{"id":{"`+canary+`":"`+canary+`"},"status":["`+canary+`"]}`)
		case strings.HasSuffix(r.URL.Path, "/ca_page"):
			return answer(200, canary)
		case strings.Contains(r.URL.Path, "regenerate"):
			return answer(200, `{"api_key":{"id":"key_1","name":"n","key":"ak_`+canary+`"}}`)
		}
		return inner.RoundTrip(r)
	})
	c, err := composio.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	must := func(v any, err error) any {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	failed := func(_ any, err error) error {
		t.Helper()
		if err == nil {
			t.Fatal("no error")
		}
		return err
	}
	must(c.UpdateProjectConfig(ctx, composio.ProjectConfig{MaskSecrets: &off}))
	s.AddAccount(composiotest.Account{ID: "ca_1", UserID: "u", Tokens: token})
	s.AddTool(composiotest.Tool{Slug: "GMAIL_X", Tags: []string{"readOnlyHint"}, Run: func(a map[string]any) (map[string]any, error) {
		if a["fail"] != nil {
			return nil, errors.New("wrong password " + canary)
		}
		return map[string]any{"session": canary}, nil
	}})
	s.AddTrigger(composiotest.Trigger{ID: "ti_1", UserID: "u"})
	call := composio.Call{Tool: "GMAIL_X", Version: "20260101_00", UserID: "u", Arguments: data(t, map[string]any{"password": canary})}
	result := must(c.Execute(ctx, call)).(composio.Result)
	call.Arguments = data(t, map[string]any{"fail": canary})
	failure := must(c.Execute(ctx, call))
	session := must(c.CreateSession(ctx, composio.SessionSpec{UserID: "u", Tools: map[string][]string{"gmail": {"GMAIL_X"}}}))
	account := must(c.Account(ctx, "ca_1")).(composio.Account)
	if len(account.Unmasked) != 2 {
		t.Errorf("unmasked: %q: the API told tokens in clear", account.Unmasked)
	}
	webhook := &composio.Webhook{Secret: composio.NewSecret("whsec_" + canary)}
	header, body := signed("whsec_"+canary, `{"type":"t","data":{"k":"`+canary+`"},"metadata":{"k":"`+canary+`"}}`)
	transport := failed(c.Account(ctx, "ca_broken"))
	if !errors.Is(transport, fs.ErrClosed) {
		t.Errorf("the error has lost its identity: %v", transport)
	}
	link := must(c.Link(ctx, composio.LinkRequest{AuthConfigID: "ac_gmail", UserID: "u"})).(composio.Link)
	link.URL, link.Token = composio.NewSecret("https://connect/"+canary), composio.NewSecret(canary)
	apiError := failed(c.Account(ctx, "ca_error"))
	filled, _ := errors.AsType[*composio.APIError](apiError)
	if !strings.Contains(filled.Message.Reveal(), canary) {
		t.Error("the test's API does not tell secrets")
	}
	revoker := &composio.Revoker{Client: c, Keys: []composio.Secret{composio.NewSecret(key)}, ProjectID: composiotest.ProjectID, Interval: 1}
	var journal bytes.Buffer
	revoker.Journal = &journal
	values := map[string]any{
		"Secret": composio.NewSecret(canary), "Data": data(t, canary), "Config": cfg, "Client": c, "APIError": filled,
		"Account": account, "AuthConfig": must(c.AuthConfig(ctx, "ac_1")), "Tool": must(c.Tool(ctx, "GMAIL_X", "")), "Call": call,
		"Result": []any{result, failure}, "Session": session, "Trigger": must(collect(c.Triggers(ctx, composio.TriggerFilter{}))),
		"Execution": must(c.Execution(ctx, result.LogID)), "ProjectConfig": must(c.ProjectConfig(ctx)), "Webhook": webhook,
		"Event": must(webhook.Verify(header, body)), "Link": link, "Key": must(c.RegenerateKey(ctx, composiotest.ProjectID)),
		"errors": []error{
			transport, apiError, failed(c.Account(ctx, "ca_type")), failed(c.Account(ctx, "ca_page")),
			failed(c.Accounts(ctx, composio.AccountFilter{IDs: []string{}}), errors.New("x")),
		},
		// These hold no secret, and nobody may put one in unseen.
		"MCPServer": composio.MCPServer{}, "Class": composio.ClassRead, "Status": composio.StatusActive, "AccountType": composio.AccountsAll,
		"AccountFilter": composio.AccountFilter{}, "ToolFilter": composio.ToolFilter{}, "TriggerFilter": composio.TriggerFilter{}, "LogFilter": composio.LogFilter{},
		"SessionSpec": composio.SessionSpec{}, "MCPServerSpec": composio.MCPServerSpec{}, "LinkRequest": composio.LinkRequest{},
		"Outcome": composio.OutcomeGone,
	}
	// Last, since it revokes everything.
	values["Revoked"] = must(c.RevokeAccount(ctx, "ca_1"))
	values["Deletion"] = must(c.DeleteAccount(ctx, "ca_1"))
	rep, err := revoker.Revoke(ctx)
	open, ok := errors.AsType[*composio.OpenError](err)
	if !ok {
		t.Fatal(err)
	}
	values["Revoker"], values["Revocation"], values["OpenError"] = revoker, rep, open
	values["AccountOutcome"], values["Cut"] = rep.Accounts, rep.Cuts
	values["journal"] = journal.String()
	if rep.NewKey.Value.Reveal() == "" || len(rep.Accounts) == 0 || len(rep.Cuts) == 0 || journal.Len() == 0 {
		t.Error("the revocation is empty")
	}
	return values
}

// No secret shows, however anything of this package is printed.
func TestSecretsStaySecret(t *testing.T) {
	values := everything(t)
	for name, v := range values {
		for how, text := range texts(v) {
			if leaks(text) {
				t.Errorf("%s, %s: %.300s", name, how, text)
			}
		}
	}
	for _, name := range exportedTypes(t) {
		if _, ok := values[name]; !ok {
			t.Errorf("%s is not printed by this test", name)
		}
	}
}

// That the printing would show a secret which is none.
func TestTheSearchForSecretsFinds(t *testing.T) {
	for how, text := range texts(struct {
		A string
		b []byte
	}{canary, []byte(canary)}) {
		if strings.ContainsAny(how[strings.Index(how, "%")+1:], "vsqxX") && strings.HasPrefix(how, "%") && !leaks(text) {
			t.Errorf("%s does not show %s", how, text)
		}
	}
	if !leaks(texts(struct{ p *string }{new(canary)})["reflection"]) {
		t.Error("reflection does not look behind pointers")
	}
}

//go:fix inline
func exportedTypes(t *testing.T) (names []string) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				names = append(names, spec.Name.Name)
			}
			return true
		})
	}
	if len(names) < 20 {
		t.Fatalf("only %d types found", len(names))
	}
	return names
}

func TestSecret(t *testing.T) {
	a, b := composio.NewSecret("x"), composio.NewSecret("x")
	if !a.Equal(b) || a.Equal(composio.NewSecret("y")) || a.Equal(composio.Secret{}) || a.Reveal() != "x" || a.IsZero() {
		t.Error("secrets do not compare")
	}
	var zero composio.Secret
	if !zero.IsZero() || zero.Reveal() != "" || zero.String() != "" || !composio.NewSecret("").IsZero() {
		t.Error("the zero secret holds something")
	}
	var read struct{ K composio.Secret }
	if err := json.Unmarshal([]byte(`{"K":"v"}`), &read); err != nil || read.K.Reveal() != "v" {
		t.Errorf("%v", err)
	}
	if err := json.Unmarshal([]byte(`{"K":"[redacted]"}`), &read); err == nil {
		t.Error("what was redacted is read as a secret")
	}
}

func TestData(t *testing.T) {
	d := data(t, map[string]int{"a": 1})
	b := d.Bytes()
	b[0] = 'x'
	var m map[string]int
	if err := d.Decode(&m); err != nil || m["a"] != 1 || d.String() != "[7 bytes of JSON]" {
		t.Errorf("%v %v %v", err, m, d)
	}
	if _, err := composio.NewData(func() {}); err == nil {
		t.Error("a function is data")
	}
	if _, err := composio.NewData(json.RawMessage("{")); err == nil {
		t.Error("what is not JSON is data")
	}
	var zero composio.Data
	if err := zero.Decode(&m); err == nil || !zero.IsZero() || zero.Bytes() != nil || zero.String() != "" {
		t.Error("the zero data is something")
	}
}
