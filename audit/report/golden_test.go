package report_test

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/report"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type encoder = func(io.Writer, *audit.Report) error

var encoders = []struct {
	name   string
	encode encoder
}{
	{"txt", report.Text},
	{"full.txt", report.TextOptions{Full: true, Width: 100}.Encode},
	{"color.txt", report.TextOptions{Color: true}.Encode},
	{"json", report.JSON},
	{"sarif", report.SARIF},
	{"xml", report.JUnit},
}

func encode(t testing.TB, e encoder, r *audit.Report) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, e(&b, r))
	return b.Bytes()
}

// What users see changes only on purpose: run with -update and read the diff.
func TestGolden(t *testing.T) {
	for _, s := range scenarios {
		for _, e := range encoders {
			large := s.name == "crowd" && e.name != "txt"
			if large || s.name != "mixed" && s.name != "hostile" && e.name == "color.txt" {
				continue
			}
			t.Run(s.name+"/"+e.name, func(t *testing.T) {
				got := encode(t, e.encode, s.report)
				file := filepath.Join("testdata", s.name+"."+e.name)
				if *update {
					require.NoError(t, os.WriteFile(file, got, 0o644))
				}
				want, err := os.ReadFile(file)
				require.NoError(t, err)
				assert.Equal(t, string(want), string(got))
			})
		}
	}
}
