// Package gitleaks finds credentials of some two hundred services with the
// rules of gitleaks, for package access. It is a package of its own, because
// gitleaks comes with some sixty modules that nobody else should compile.
package gitleaks

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/rs/zerolog"
	"github.com/spf13/viper"
	"github.com/zricethezav/gitleaks/v8/config"
	"github.com/zricethezav/gitleaks/v8/detect"
	"github.com/zricethezav/gitleaks/v8/logging"
	"github.com/zricethezav/gitleaks/v8/sources"

	"github.com/managemyclaw/hardshell/harden/access"
)

// A Detector is an [access.Detector]. It is made by [New] and may be used
// concurrently. It neither prints nor reads a file, the environment or a
// comment that asks it to look away.
type Detector struct {
	detector *detect.Detector
}

// decodeDepth is how often it looks through base64, hexadecimal digits and
// percent escapes.
const decodeDepth = 2

// rules reads the rules that are built into gitleaks. It does so once, for
// gitleaks keeps what it needs meanwhile in variables of the process.
var rules = sync.OnceValues(func() (config.Config, error) {
	logging.Logger = zerolog.Nop()
	v := viper.New() // not the one of the process, which others configure
	v.SetConfigType("toml")
	if err := v.ReadConfig(strings.NewReader(config.DefaultConfig)); err != nil {
		return config.Config{}, err
	}
	var raw config.ViperConfig
	if err := v.Unmarshal(&raw); err != nil {
		return config.Config{}, err
	}
	return raw.Translate()
})

// New returns a detector with the rules that are built into gitleaks, without
// those that only go by the name of a file. It silences gitleaks' log, which
// belongs to the whole process and would quote what was found. It may be called
// concurrently.
func New() (*Detector, error) {
	cfg, err := rules()
	if err != nil {
		return nil, fmt.Errorf("gitleaks: its own rules cannot be read: %w", err)
	}
	d := detect.NewDetector(cfg)
	d.MaxDecodeDepth = decodeDepth
	d.IgnoreGitleaksAllow = true
	return &Detector{d}, nil
}

// Detect implements [access.Detector].
func (d *Detector) Detect(ctx context.Context, text []byte) ([]access.Match, error) {
	found := d.detector.DetectContext(ctx, detect.Fragment(sources.Fragment{Raw: string(text)})) //nolint:staticcheck // until v9 has taken the name away
	if err := ctx.Err(); err != nil {
		return nil, err // it may have stopped half-way
	}
	var all []access.Match
	lines := lineStarts(text)
	for _, f := range found {
		start, end := locate(text, lines, f.StartLine, f.EndLine, f.Secret)
		all = append(all, access.Match{Rule: ruleName(f.RuleID), Start: start, End: end})
	}
	return all, nil
}

// ruleName keeps names to what names consist of.
func ruleName(id string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, id)
}

func lineStarts(text []byte) []int {
	starts := []int{0}
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// locate returns where in its lines, which count from zero, a credential is;
// all of the lines if it is not there as it is, because it was encoded.
func locate(text []byte, lines []int, first, last int, secret string) (start, end int) {
	first = min(max(first, 0), len(lines)-1)
	last = min(max(last, first), len(lines)-1)
	start, end = lines[first], len(text)
	if last+1 < len(lines) {
		end = lines[last+1]
	}
	if i := bytes.Index(text[start:end], []byte(secret)); i >= 0 && secret != "" {
		return start + i, start + i + len(secret)
	}
	return start, end
}
