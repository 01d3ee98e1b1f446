package witness_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/audit/trail/witness"
)

// The log's machine asks another to cosign what it has. From then on nobody on
// the log's machine can take that back.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "witness")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	key, err := trail.GenerateKey("trail.example.com/agent-1")
	if err != nil {
		fmt.Println(err)
		return
	}

	// On the witness's machine, behind TLS.
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &witness.Server{Name: "witness.example.com/w1", Key: private, Logs: []trail.PublicKey{key.Public()}, Dir: dir}
	public, err := server.Public()
	if err != nil {
		fmt.Println(err)
		return
	}
	machine := httptest.NewServer(server)
	defer machine.Close()

	// On the log's machine.
	log, err := trail.Create(filepath.Join(dir, "trail"), key, trail.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer log.Close()
	if err := log.Record(ctx, trail.Event{Kind: trail.KindDrill, Outcome: trail.OutcomeOK}); err != nil {
		fmt.Println(err)
		return
	}
	cosigned, err := log.Witness(ctx, &witness.Client{URL: machine.URL, Key: public, Log: key.Public()})
	if err != nil {
		fmt.Println(err)
		return
	}

	// Anywhere.
	c, err := trail.ParseCheckpoint(cosigned.Note(), key.Public(), public)
	fmt.Println(c.Size, c.Cosignatures[0].Name, err)
	// Output:
	// 1 witness.example.com/w1 <nil>
}
