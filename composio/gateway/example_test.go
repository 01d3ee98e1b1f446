package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

// An agent may read mails and delete few; what it is not granted it does not
// get, and a burst of deletions stops it.
func ExampleNew() {
	upstream := composiotest.New(composiotest.Config{})
	for slug, tag := range map[string]string{"GMAIL_FETCH_EMAILS": "readOnlyHint", "GMAIL_DELETE_MESSAGE": "destructiveHint", "GMAIL_SEND_EMAIL": "destructiveHint"} {
		upstream.AddTool(composiotest.Tool{Slug: slug, Version: "20260902_00", Tags: []string{tag}})
	}
	upstream.AddAccount(composiotest.Account{ID: "ca_mail", UserID: "ann", Toolkit: "gmail"})

	token, hash := gateway.NewToken()
	tripped := make(chan gateway.Trip, 1)
	g, err := gateway.New(context.Background(), gateway.Config{
		Policy: &gateway.Policy{Agents: map[string]gateway.Agent{"inbox": {
			Tokens: []gateway.TokenHash{hash}, UserID: "ann", Accounts: map[string]string{"gmail": "ca_mail"},
			Tools: map[string]gateway.Grant{
				"GMAIL_FETCH_EMAILS":   {Version: "20260902_00", Arguments: map[string]gateway.Rule{"query": {MaxLength: 100}}},
				"GMAIL_DELETE_MESSAGE": {Version: "20260902_00", Class: composio.ClassDestructive, Arguments: map[string]gateway.Rule{"message_id": {Required: true}}},
			},
			Breaker: gateway.Limit{Calls: 3, Per: time.Minute},
		}}},
		Upstream: upstream.Client(),
		Fence:    gateway.NoFence,
		Trail:    trail.Discard,
		OnTrip:   func(t gateway.Trip) { tripped <- t }, // fire the kill switch
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	server := httptest.NewServer(g)
	defer server.Close()

	call := func(tool, arguments string) int {
		body := `{"user_id":"ann","version":"20260902_00","arguments":` + arguments + `}`
		r, _ := http.NewRequest(http.MethodPost, server.URL+"/api/v3.1/tools/execute/"+tool, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("x-api-key", token.Reveal())
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			fmt.Println(err)
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	fmt.Println("read:", call("GMAIL_FETCH_EMAILS", `{"query":"in:inbox"}`))
	fmt.Println("send:", call("GMAIL_SEND_EMAIL", `{"to":"eve@example.org"}`))
	for i := range 200 {
		call("GMAIL_DELETE_MESSAGE", fmt.Sprintf(`{"message_id":"%d"}`, i))
	}
	t := <-tripped
	fmt.Printf("agent %s tripped its breaker of %v\n", t.Agent, t.Limit)
	deleted := 0
	for _, e := range upstream.Executions() {
		if e.Tool == "GMAIL_DELETE_MESSAGE" {
			deleted++
		}
	}
	fmt.Println("deleted:", deleted, "of 200")
	fmt.Println("read:", call("GMAIL_FETCH_EMAILS", `{"query":"in:inbox"}`))
	// Output:
	// read: 200
	// send: 403
	// agent inbox tripped its breaker of 3 calls in 1m0s
	// deleted: 3 of 200
	// read: 403
}

// A policy that is wrong is refused with where, what and how to put it right.
func ExampleParsePolicy() {
	_, err := gateway.ParsePolicy([]byte(`{
		"schema": "hardshell.policy/v1",
		"agents": {"inbox": {
			"tokens": ["sha256:1111111111111111111111111111111111111111111111111111111111111111"],
			"user_id": "ann",
			"tools": {"GMAIL_DELETE_MESSAGE": {"version": "latest", "class": "destructive"}}
		}}
	}`))
	fmt.Println(err)
	// Output:
	// gateway: policy: agents.inbox.tools.GMAIL_DELETE_MESSAGE.version: "latest" is not a version that stays what it is: pin one, such as 20260902_00
}

// A policy of which something does not hold at Composio is not taken on, and
// the old one holds.
func ExampleGateway_Reload() {
	upstream := composiotest.New(composiotest.Config{})
	upstream.AddTool(composiotest.Tool{Slug: "HACKERNEWS_GET_TOP_STORIES", Version: "20260902_00", Tags: []string{"readOnlyHint"}, NoAuth: true})
	upstream.AddTool(composiotest.Tool{Slug: "HACKERNEWS_FLAG_STORY", Version: "20260902_00", Tags: []string{"updateHint"}, NoAuth: true})
	_, hash := gateway.NewToken()
	policy := func(slug string) *gateway.Policy {
		return &gateway.Policy{Agents: map[string]gateway.Agent{"reader": {
			Tokens: []gateway.TokenHash{hash}, UserID: "ann", Tools: map[string]gateway.Grant{slug: {Version: "20260902_00"}},
		}}}
	}
	g, err := gateway.New(context.Background(), gateway.Config{
		Policy: policy("HACKERNEWS_GET_TOP_STORIES"), Upstream: upstream.Client(), Fence: gateway.NoFence, Trail: trail.Discard,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(g.Reload(context.Background(), policy("HACKERNEWS_FLAG_STORY")))
	for slug := range g.Policy().Agents["reader"].Tools {
		fmt.Println("still granted:", slug)
	}
	// Output:
	// gateway: policy: agents.reader.tools.HACKERNEWS_FLAG_STORY: it is of class update, and the policy grants read: grant it by name, with class update, or take it off
	// still granted: HACKERNEWS_GET_TOP_STORIES
}

// A token is given to the agent; the policy has its hash.
func ExampleNewToken() {
	token, hash := gateway.NewToken()
	fmt.Println(token, len(token.Reveal()), strings.HasPrefix(token.Reveal(), "hsg_"))
	fmt.Println(len(hash.String()), hash == gateway.HashToken(token))
	// Output:
	// [redacted] 47 true
	// 71 true
}
