package egress

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/managemyclaw/hardshell/internal/lab"
)

// Where nftables refuses, iptables closes the same ways, but for frames of
// packet sockets.
func TestWithoutNFTables(t *testing.T) {
	t.Parallel()
	s := newSite(t, lab.Config{})
	l := &Lock{Source: s.source, NetNS: s.l.Host.NetNS(), IPTables: true}
	t.Cleanup(func() { l.Close() })
	s.expectOpen("before")
	if err := l.Arm(t.Context()); err != nil {
		t.Fatalf("Arm: %v", err)
	}
	for range 2 {
		err := l.Do(t.Context())
		open, _ := errors.AsType[*OpenError](err)
		if open == nil || len(open.Unwrap()) > 0 || !strings.Contains(open.Open()["solo"], "packet sockets") {
			t.Fatalf("Do returns %v, want what packet sockets leave open, and nothing else", err)
		}
	}
	frames := []string{"frame to the same bridge", frameToHost, "frame to the cable"}
	s.expectClosed("locked", frames...)
	s.docker("restart", "-t", "0", "solo", "duo", "inner")
	s.expectClosed("restarted, and nobody has noticed", append(frames, "resolver", "same bridge, IPv4", "same bridge, IPv6")...)
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("Release: %v", err)
	}
	if left := s.sh(s.l.Host, "{ nft list ruleset; iptables-save; ip6tables-save; } 2>/dev/null | grep -i hardshell || true"); left != "" {
		t.Errorf("after Release there is\n%s", left)
	}
	s.expectOpen("released")

	// A table that a process owns refuses everybody else, see
	// NFT_TABLE_F_OWNER of <linux/netfilter/nf_tables.h>.
	owner := s.l.Host.Command(t.Context(), "nft", "-i")
	stdin, err := owner.StdinPipe()
	s.must(err)
	s.must(owner.Start())
	_, err = io.WriteString(stdin, "add table inet hardshell_kill { flags owner; }\nadd table bridge hardshell_kill { flags owner; }\n")
	s.must(err)
	for start := time.Now(); !strings.Contains(s.sh(s.l.Host, "nft list tables 2>/dev/null"), "bridge hardshell_kill"); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatal("nft does not own tables")
		}
	}
	refused := &Lock{Source: s.source, NetNS: s.l.Host.NetNS()}
	t.Cleanup(func() { refused.Close() })
	if err := refused.Arm(t.Context()); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "iptables will keep the lock") {
		t.Errorf("Arm, refused: %v", err)
	}
	err = refused.Do(t.Context())
	if open, _ := errors.AsType[*OpenError](err); open == nil || len(open.Unwrap()) > 0 {
		t.Errorf("Do, refused: %v", err)
	}
	s.expectClosed("refused")
	stdin.Close()
	s.must(owner.Wait())
	if err := refused.Release(t.Context()); err != nil {
		t.Errorf("Release, refused: %v", err)
	}
	s.expectOpen("released again")
}
