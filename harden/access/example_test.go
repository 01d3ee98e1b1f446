package access_test

import (
	"context"
	"fmt"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio"
	"github.com/managemyclaw/hardshell/composio/composiotest"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/host"
)

// What a project at Composio gives away is put right, and looked at again.
func Example() {
	server := composiotest.New(composiotest.Config{}) // stands for Composio
	server.AddAccount(composiotest.Account{Toolkit: "gmail", Shared: true})
	client := server.Client()
	if _, err := client.UpdateProjectConfig(context.Background(), composio.ProjectConfig{MaskSecrets: new(false)}); err != nil {
		fmt.Println(err)
		return
	}

	checks := access.Checks(access.Config{Composio: client, Remedy: &access.Remedy{Composio: client}})
	fixer := harden.Fixer{Trail: trail.Discard}
	fixes, err := fixer.Fix(context.Background(), new(host.Host), nil, checks...)
	if err != nil {
		fmt.Println(err)
	}
	for _, f := range fixes {
		if f.Changed {
			fmt.Println(f.Before.Info.ID, f.Before.Status, "→", f.After.Status)
		}
	}
	// Output:
	// access.masked_secrets fail → pass
	// access.mcp_key fail → pass
}

// A detector says where a credential is, and not what it is.
func ExampleKeys() {
	text := []byte("# tools\nCOMPOSIO_API_KEY=ak_7Qw2Zr9Xc4Vb6Nm1Lk3Jh\n")
	found, err := access.Keys{}.Detect(context.Background(), text)
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(found[0].Rule, found[0].Start, found[0].End)
	// Output: composio-key 25 49
}

// An integrator's own check is a function of an agent.
func ExampleNewSource() {
	agents := access.NewSource(access.Config{Containers: containers(), Inside: &wire{}})
	info := harden.Info{ID: "example.few_files", Title: "The agent keeps few files", Requires: harden.LevelInspected}
	few := harden.Each(info, agents, func(_ context.Context, a access.Agent) (harden.Verdict, error) {
		e := harden.Evidence{Source: "files", Observed: fmt.Sprint(a.Files, " were read"), Level: harden.LevelInspected}
		if a.Files > 100 {
			return harden.Fail(harden.Finding{Message: "it keeps many files", Evidence: []harden.Evidence{e}}), nil
		}
		return harden.Pass(e), a.Err
	})
	r := harden.Evaluate(context.Background(), machine().View(), few, 0)
	fmt.Println(r.Status, r.Evidence[0].Observed)
	// Output: pass 4 were read
}
