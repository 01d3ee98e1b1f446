package remote_test

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/killswitch"
	"github.com/managemyclaw/hardshell/killswitch/killswitchtest"
	"github.com/managemyclaw/hardshell/killswitch/remote"
)

// An operator fires the switch of an agent on another machine.
func Example() {
	dir, err := os.MkdirTemp("", "switch")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	// On the machine of the agent: a switch, and who may fire it.
	canary := killswitchtest.NewThing("container/openclaw") // stands for the agent
	s, err := killswitch.New(killswitch.Config{
		Agent: "openclaw", Dir: dir, Trail: trail.Discard,
		Targets: []killswitch.Target{{
			Name:      "container",
			Ladder:    []killswitch.Rung{{Actuators: []killswitch.Actuator{&killswitchtest.Actuator{Called: "container.kill", Thing: canary}}}},
			Observers: []killswitch.Observer{&killswitchtest.Observer{Called: "container.processes", Thing: canary}},
		}},
	})
	if err != nil {
		panic(err)
	}
	ann, server := remote.GenerateKey(), remote.GenerateKey() // kept with Key.WriteFile
	operators, err := remote.ParseOperators("ann " + ann.Public().String())
	if err != nil {
		panic(err)
	}
	h, err := remote.New(remote.Config{Name: "prod-1", Agent: "openclaw", Switch: s, Operators: operators, Key: server, Nonces: dir + "/remote.nonces"})
	if err != nil {
		panic(err)
	}
	web := httptest.NewServer(h) // remote.NewServer("100.64.0.7:7443", h).ListenAndServe()
	defer web.Close()

	// Elsewhere.
	c := remote.Client{URL: web.URL, Switch: "prod-1", Agent: "openclaw", Key: ann, Server: server.Public()}
	receipt, err := c.Fire(context.Background(), "it deletes mail")
	if err != nil {
		panic(err)
	}
	fmt.Println(receipt.Off(), receipt.Request.By, canary.On())
	// Output: true operator/ann []
}

// An operator who has not signed is refused.
func ExampleHandler() {
	_, hash := remote.NewLink()
	h, err := remote.New(remote.Config{
		Name: "prod-1", Agent: "openclaw", Switch: new(counter),
		Operators: []remote.Operator{{Name: "ann", Links: []remote.LinkHash{hash}}},
	})
	if err != nil {
		panic(err)
	}
	web := httptest.NewServer(h)
	defer web.Close()
	stranger := remote.Client{URL: web.URL, Switch: "prod-1", Agent: "openclaw", Key: remote.GenerateKey()}
	_, err = stranger.Fire(context.Background(), "")
	first, _, _ := strings.Cut(err.Error(), "\n")
	fmt.Println(first)

	resp, err := web.Client().Get(web.URL + "/hsk_guess")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(resp.StatusCode, strings.Contains(string(page), "That is not the key of anybody here."))
	// Output:
	// remote: refused (unauthorized): it is not signed by the key of an operator
	// 403 true
}
