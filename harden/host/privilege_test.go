package host

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPrivilegesOf(t *testing.T) {
	const rest = "Name:\tagent\nCapPrm:\t000001ffffffffff\n%sCapBnd:\t000001ffffffffff\n"
	for _, tt := range []struct {
		name, line string
		want       Privilege
		ok         bool
	}{
		{"root", "CapEff:\t000001ffffffffff\n", AllPrivileges, true},
		{"nobody", "CapEff:\t0000000000000000\n", 0, true},
		{"docker's default set", "CapEff:\t00000000a80425fb\n", ReadFiles | WriteFiles | SignalProcesses, true},
		{"CAP_DAC_OVERRIDE also reads", "CapEff:\t0000000000000002\n", ReadFiles | WriteFiles, true},
		{"CAP_DAC_READ_SEARCH does not write", "CapEff:\t0000000000000004\n", ReadFiles, true},
		{"CAP_SYS_PTRACE", "CapEff:\t0000000000080000\n", ReadProcesses, true},
		{"CAP_NET_ADMIN", "CapEff:\t0000000000001000\n", AdminNetwork, true},
		{"CAP_SYS_ADMIN", "CapEff:\t0000000000200000\n", AdminSystem, true},
		{"CAP_KILL", "CapEff:\t0000000000000020\n", SignalProcesses, true},
		{"CAP_NET_RAW is none of ours", "CapEff:\t0000000000002000\n", 0, true},
		{"no such line", "", 0, false},
		{"no number", "CapEff:\t\n", 0, false},
		{"not a number", "CapEff:\tall\n", 0, false},
		{"a number and more", "CapEff:\tff ff\n", 0, false},
		{"a number too long", "CapEff:\t1ffffffffffffffff\n", 0, false},
		{"signed", "CapEff:\t-1\n", 0, false},
		{"only the effective set counts", "XCapEff:\tffffffffffffffff\n", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := privilegesOf(fmt.Sprintf(rest, tt.line))
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.ok, ok)
		})
	}
}

// Whatever surrounds it, the first CapEff line alone decides, and a set of
// capabilities never grants less than a part of it does.
func FuzzPrivilegesOf(f *testing.F) {
	f.Add("Name:\tagent\n", uint64(0x1ffffffffff), uint64(2), "CapEff:\tffff\n")
	f.Add("", uint64(0), uint64(0), "")
	f.Add("CapEff:\tzz\n", uint64(1<<63), uint64(1), "\x00")
	f.Fuzz(func(t *testing.T, before string, caps, part uint64, after string) {
		if p, ok := privilegesOf(before); p.Missing(AllPrivileges)|p != AllPrivileges || !ok && p != 0 {
			t.Fatalf("privilegesOf(%q) = %v, %v", before, p, ok)
		}
		before = strings.ReplaceAll(before, "CapEff", "CapPrm")
		if before != "" && !strings.HasSuffix(before, "\n") {
			before += "\n"
		}
		all, ok := privilegesOf(fmt.Sprintf("%sCapEff:\t%016x\n%s", before, caps, after))
		if !ok {
			t.Fatalf("not found after %q", before)
		}
		some, _ := privilegesOf(fmt.Sprintf("CapEff:\t%016x\n", caps&part))
		if all.Missing(some) != 0 {
			t.Fatalf("%x grants %v, but its part %x grants %v", caps, all, caps&part, some)
		}
	})
}
