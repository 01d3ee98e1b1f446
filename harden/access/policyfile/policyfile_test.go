package policyfile_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/gateway"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/access/policyfile"
)

func TestRead(t *testing.T) {
	token, hash := gateway.NewToken()
	_, other := gateway.NewToken()
	p := &gateway.Policy{Agents: map[string]gateway.Agent{
		"inbox": {
			Tokens: []gateway.TokenHash{hash}, UserID: "ann", MultiExecute: true,
			Tools: map[string]gateway.Grant{
				"GMAIL_FETCH_EMAILS":   {Version: "20260902_00", Class: composio.ClassRead},
				"GMAIL_DELETE_MESSAGE": {Version: "20260902_00", Class: composio.ClassDestructive},
			},
			Breaker: gateway.Limit{Calls: 1, Per: time.Minute},
		},
		"calendar": {Tokens: []gateway.TokenHash{other}, UserID: "ben", Tools: map[string]gateway.Grant{"GOOGLECALENDAR_EVENTS_LIST": {Version: "20260902_00"}}},
	}}
	data, err := p.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "policy.json")
	read := policyfile.Read(name)
	if _, err := read(t.Context()); err == nil {
		t.Error("a policy that is not there is read")
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := read(t.Context())
	want := access.Policy{Source: name, Agents: map[string]access.Grants{
		"inbox": {Multi: true, Tools: map[string]access.Grant{
			"GMAIL_FETCH_EMAILS": {Version: "20260902_00", Class: composio.ClassRead}, "GMAIL_DELETE_MESSAGE": {Version: "20260902_00", Class: composio.ClassDestructive},
		}},
		"calendar": {Tools: map[string]access.Grant{"GOOGLECALENDAR_EVENTS_LIST": {Version: "20260902_00", Class: composio.ClassRead}}},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if all := policyfile.Tokens(p, "inbox"); len(all) != 1 || all[0] != sha256.Sum256([]byte(token.Reveal())) {
		t.Errorf("%d tokens", len(all))
	}
	if all := policyfile.Tokens(p); len(all) != 2 {
		t.Errorf("%d tokens of all agents", len(all))
	}
}
