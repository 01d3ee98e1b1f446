package composio_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
)

// project is a Composio in memory with two accounts.
func project() *composiotest.Server {
	s := composiotest.New(composiotest.Config{JobDelay: time.Hour})
	s.AddAccount(composiotest.Account{ID: "ca_mail", UserID: "alice", Toolkit: "gmail"})
	s.AddAccount(composiotest.Account{ID: "ca_chat", UserID: "team", Toolkit: "slack", Shared: true, Provider: composiotest.CannotRevoke})
	s.AddTool(composiotest.Tool{Slug: "GMAIL_FETCH_EMAILS", Tags: []string{"readOnlyHint"}})
	s.AddTool(composiotest.Tool{Slug: "GMAIL_DELETE_MESSAGE", Tags: []string{"destructiveHint"}})
	return s
}

func ExampleNew() {
	_, err := composio.New(composio.Config{APIKey: composio.NewSecret("ak_0123456789"), BaseURL: "http://composio.example"})
	fmt.Println(err)
	// Output: composio: Config.BaseURL must be https, for the key would cross the network in clear
}

func ExampleClient_Accounts() {
	client := project().Client()
	for a, err := range client.Accounts(context.Background(), composio.AccountFilter{}) {
		if err != nil {
			log.Fatal(err) // what came before is true, and not all there is
		}
		fmt.Println(a.ID, a.Toolkit, a.Type, a.Status)
	}
	// Output:
	// ca_mail gmail PRIVATE ACTIVE
	// ca_chat slack SHARED ACTIVE
}

func ExampleClient_Tools() {
	client := project().Client()
	for t, err := range client.Tools(context.Background(), composio.ToolFilter{Toolkit: "gmail"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(t.Slug, t.Class())
	}
	// Output:
	// GMAIL_FETCH_EMAILS read
	// GMAIL_DELETE_MESSAGE destructive
}

func ExampleClient_Execute() {
	client := project().Client()
	arguments, err := composio.NewData(map[string]any{"query": "is:unread"})
	if err != nil {
		log.Fatal(err)
	}
	result, err := client.Execute(context.Background(), composio.Call{
		Tool: "GMAIL_FETCH_EMAILS", Version: "20260101_00", UserID: "alice", Arguments: arguments,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Successful, result.Output) // what it holds is not printed
	// Output: true [21 bytes of JSON]
}

func ExampleClient_RestrictAuthConfig() {
	client := project().Client()
	_, err := client.RestrictAuthConfig(context.Background(), "ac_gmail", nil)
	fmt.Println(err)
	a, err := client.RestrictAuthConfig(context.Background(), "ac_gmail", []string{"GMAIL_FETCH_EMAILS"})
	fmt.Println(a.ExecutableTools, err)
	// Output:
	// composio: auth config ac_gmail: an empty list of tools would allow all of them: name at least one
	// [GMAIL_FETCH_EMAILS] <nil>
}

func ExampleClient_CreateSession() {
	client := project().Client()
	s, err := client.CreateSession(context.Background(), composio.SessionSpec{
		UserID: "alice", Tools: map[string][]string{"gmail": {"GMAIL_FETCH_EMAILS"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Tools, s.Workbench, s.MultiExecute)
	// Output: map[gmail:[GMAIL_FETCH_EMAILS]] false false
}

func ExampleAPIError() {
	client := project().Client()
	_, err := client.Account(context.Background(), "ca_gone")
	fmt.Println(errors.Is(err, composio.ErrNotFound))
	if e, ok := errors.AsType[*composio.APIError](err); ok {
		fmt.Println(e.Status, e.Slug)
	}
	// Output:
	// true
	// 404 ConnectedAccount_ResourceNotFound
}

func ExampleSecret() {
	key := composio.NewSecret("ak_0123456789")
	fmt.Printf("%v %+v %#v %q %x\n", key, key, key, key, key)
	fmt.Println(len(key.Reveal()))
	// Output:
	// [redacted] [redacted] [redacted] [redacted] [redacted]
	// 13
}

func ExampleRevoker() {
	server := project()
	r := &composio.Revoker{Client: server.Client(), Interval: time.Millisecond}
	report, err := r.Revoke(context.Background())
	for _, a := range report.Accounts {
		fmt.Printf("%s: %s, deleted %v\n", a.ID, a.Outcome, a.Deleted)
	}
	if open, ok := errors.AsType[*composio.OpenError](err); ok {
		for id, what := range open.Open() {
			fmt.Printf("open: %s: %s\n", id, what)
		}
	}
	// Output:
	// ca_chat: unsupported, deleted true
	// ca_mail: confirmed, deleted true
	// open: ca_chat: its tokens at the provider of slack, until they expire or a person revokes them there
}

// After a crash the journal tells of accounts that are gone by then.
func ExampleRevoker_Resume() {
	server := project()
	journal := `{"v":1,"account":{"id":"ca_old","outcome":"confirmed","tokens":["access_token","refresh_token"],"deleted":true}}
{"v":1,"account":{"id":"ca_mail","user_`
	r := &composio.Revoker{Client: server.Client(), Interval: time.Millisecond}
	if err := r.Resume(strings.NewReader(journal)); err != nil {
		log.Fatal(err)
	}
	report, _ := r.Revoke(context.Background())
	for _, a := range report.Accounts {
		fmt.Println(a.ID, a.Outcome)
	}
	// Output:
	// ca_chat unsupported
	// ca_mail confirmed
	// ca_old confirmed
}

func ExampleWebhook() {
	webhook := &composio.Webhook{Secret: composio.NewSecret("whsec_0123456789")}
	handler := func(w http.ResponseWriter, r *http.Request, body []byte) {
		event, err := webhook.Verify(r.Header, body)
		if err != nil {
			http.Error(w, "not from Composio", http.StatusForbidden)
			return
		}
		fmt.Println(event.Type)
	}
	_ = handler
	_, err := webhook.Verify(http.Header{}, []byte(`{}`))
	fmt.Println(errors.Is(err, composio.ErrSignature))
	// Output: true
}
