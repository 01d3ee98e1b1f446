package harden_test

import (
	"encoding"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host/hosttest"
)

func TestValidate(t *testing.T) {
	with := func(change func(*harden.Info)) harden.Check {
		i := info("test.check")
		change(&i)
		return harden.New(i, nil)
	}
	id := func(id string) harden.Check { return with(func(i *harden.Info) { i.ID = id }) }
	for _, tt := range []struct {
		name   string
		checks []harden.Check
		errs   []string // one for each problem
	}{
		{"nothing", nil, nil},
		{"good", []harden.Check{id("a.b"), id("ssh2.root_login.x_9")}, nil},
		{"nil", []harden.Check{nil}, []string{"check 0: harden: nil check"}},
		{"panic in Info", []harden.Check{panicInfo{}}, []string{"check 0: panic: no info"}},
		{"no id", []harden.Check{id("")}, []string{`check 0 (""): ID must be`}},
		{"one word", []harden.Check{id("ssh")}, []string{"ID must be"}},
		{"upper case", []harden.Check{id("ssh.Root")}, []string{"ID must be"}},
		{"ends in a dot", []harden.Check{id("ssh.")}, []string{"ID must be"}},
		{"begins with a digit", []harden.Check{id("2ssh.root")}, []string{"ID must be"}},
		{"a line break after it", []harden.Check{id("ssh.root\n")}, []string{"ID must be"}},
		{"twice", []harden.Check{id("a.b"), id("a.c"), id("a.b")}, []string{`check 2 ("a.b"): ID is also that of check 0`}},
		{"no title", []harden.Check{with(func(i *harden.Info) { i.Title = "" })}, []string{"Title is empty"}},
		{"the last point", []harden.Check{with(func(i *harden.Info) { i.Point = 14 })}, nil},
		{"beyond the last point", []harden.Check{with(func(i *harden.Info) { i.Point = 15 })}, []string{"Point 15 is not between 0 and 14"}},
		{"before the first point", []harden.Check{with(func(i *harden.Info) { i.Point = -1 })}, []string{"Point -1"}},
		{"a level below", []harden.Check{with(func(i *harden.Info) { i.Requires = -1 })}, []string{"Requires is Level(-1)"}},
		{"a level above", []harden.Check{with(func(i *harden.Info) { i.Requires = 3 })}, []string{"Requires is Level(3)"}},
		{"a severity between two", []harden.Check{with(func(i *harden.Info) { i.Severity = 10 })}, nil},
		{"a severity below", []harden.Check{with(func(i *harden.Info) { i.Severity = -1 })}, []string{"Severity -1"}},
		{"a severity above", []harden.Check{with(func(i *harden.Info) { i.Severity = 17 })}, []string{"Severity 17"}},
		{"everything", []harden.Check{nil, with(func(i *harden.Info) { *i = harden.Info{Point: 99} })}, []string{"nil check", "ID must be", "Title is empty", "Point 99"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := harden.Validate(tt.checks...)
			if tt.errs == nil {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			lines := strings.Split(err.Error(), "\n")
			require.Len(t, lines, len(tt.errs))
			for i, want := range tt.errs {
				assert.Contains(t, lines[i], want)
			}
		})
	}
}

type enum interface {
	encoding.TextMarshaler
	String() string
}

func roundTrip[E enum, P interface {
	*E
	encoding.TextUnmarshaler
}](t *testing.T, words map[string]E, invalid ...E) {
	t.Helper()
	for word, e := range words {
		assert.Equal(t, word, e.String())
		text, err := e.MarshalText()
		require.NoError(t, err)
		assert.Equal(t, word, string(text))
		var back E
		require.NoError(t, P(&back).UnmarshalText(text))
		assert.Equal(t, e, back)
	}
	for _, e := range invalid {
		_, err := e.MarshalText()
		require.Error(t, err, e.String())
	}
	var zero, back E
	require.Error(t, P(&back).UnmarshalText([]byte("PASS")))
	require.Error(t, P(&back).UnmarshalText(nil))
	assert.Equal(t, zero, back)
}

func TestEnums(t *testing.T) {
	roundTrip(t, map[string]harden.Status{
		"unknown": 0, "pass": harden.StatusPass, "fail": harden.StatusFail,
		"not_applicable": harden.StatusNotApplicable, "waived": harden.StatusWaived,
	}, -1, 5)
	roundTrip(t, map[string]harden.Level{
		"declared": 0, "inspected": harden.LevelInspected, "probed": harden.LevelProbed,
	}, -1, 3)
	roundTrip(t, map[string]harden.Severity{
		"unspecified": 0, "low": harden.SeverityLow, "medium": harden.SeverityMedium,
		"high": harden.SeverityHigh, "critical": harden.SeverityCritical,
	})
	assert.Equal(t, "Status(9)", harden.Status(9).String())
	for s, word := range map[harden.Severity]string{-1: "unspecified", 3: "unspecified", 5: "low", 15: "high", 99: "critical"} {
		assert.Equal(t, word, s.String())
	}
	data, err := json.Marshal(harden.Finding{Subject: "s", Message: "m", Severity: harden.SeverityHigh})
	require.NoError(t, err)
	assert.JSONEq(t, `{"subject":"s","message":"m","severity":"high"}`, string(data))
}

func TestPoints(t *testing.T) {
	slugs := make(map[string]bool)
	for p := harden.PointNone; p <= harden.NumPoints; p++ {
		assert.True(t, p.Valid())
		assert.NotEmpty(t, p.Title())
		assert.Regexp(t, `^[a-z-]+$`, p.Slug())
		assert.False(t, slugs[p.Slug()], p.Slug())
		slugs[p.Slug()] = true
		if p != harden.PointNone {
			assert.GreaterOrEqual(t, p.Level(), harden.LevelInspected, "a setting alone is no point: %v", p)
		}
	}
	assert.Equal(t, harden.Point(14), harden.PointToolAllowlists)
	assert.Equal(t, "1 non-root", harden.PointNonRoot.String())
	assert.Equal(t, harden.LevelProbed, harden.PointKillSwitch.Level())
	for _, p := range []harden.Point{-1, 15} {
		assert.False(t, p.Valid())
		assert.NotEmpty(t, p.Slug()+p.Title()+p.String())
		assert.Equal(t, harden.LevelProbed, p.Level(), "the most that can be asked")
	}
}

func TestVerdicts(t *testing.T) {
	assert.Equal(t, harden.StatusUnknown, harden.Verdict{}.Status())
	v := harden.Pass(harden.Evidence{Source: "a"}, harden.Evidence{Source: "b", Level: harden.LevelProbed}, harden.Evidence{Source: "c"})
	assert.Equal(t, harden.LevelProbed, v.Level())
	v.Evidence()[0].Source = "changed"
	assert.Equal(t, "a", v.Evidence()[0].Source)

	v = harden.Fail(harden.Finding{Subject: "a"}, harden.Finding{Subject: "b"})
	v.Findings()[1].Subject = "changed"
	assert.Equal(t, "b", v.Findings()[1].Subject)
	assert.Equal(t, harden.LevelDeclared, v.Level())

	assert.Equal(t, "why", harden.NotApplicable("why").Note())
}

var errDisk = errors.New("disk full")

func TestEditFile(t *testing.T) {
	const name = "/etc/f"
	old, edited := []byte("old"), []byte("new")
	exists := func() *hosttest.Machine { return new(hosttest.Machine).FileMode(name, "old", 0o640) }
	absent := func() *hosttest.Machine { return new(hosttest.Machine).Dir("/etc", 0o755) }
	empty := func() *hosttest.Machine { return new(hosttest.Machine).FileMode(name, "", 0o640) }
	for _, tt := range []struct {
		name    string
		machine func() *hosttest.Machine
		edit    harden.EditFile
		want    string // the file afterwards
		mode    fs.FileMode
		err     error
	}{
		{"replace", exists, harden.EditFile{Before: old, After: edited, Perm: 0o777}, "new", 0o640, nil},
		{"empty", exists, harden.EditFile{Before: old, After: []byte{}}, "", 0o640, nil},
		{"create", absent, harden.EditFile{After: edited, Perm: 0o644}, "new", 0o644, nil},
		{"create, private unless said otherwise", absent, harden.EditFile{After: edited}, "new", 0o600, nil},
		{"create an empty file", absent, harden.EditFile{After: []byte{}}, "", 0o600, nil},
		{"remove", exists, harden.EditFile{Before: old, Perm: 0o640}, "", 0, nil},
		{"fill an empty file", empty, harden.EditFile{Before: []byte{}, After: edited}, "new", 0o640, nil},
		{"remove an empty file", empty, harden.EditFile{Before: []byte{}, Perm: 0o640}, "", 0, nil},
		{"nothing to nothing", absent, harden.EditFile{}, "", 0, nil},

		{"edited by somebody else", exists, harden.EditFile{Before: edited, After: old}, "", 0, harden.ErrStale},
		{"appeared", exists, harden.EditFile{After: edited}, "", 0, harden.ErrStale},
		{"appeared, empty", empty, harden.EditFile{After: edited}, "", 0, harden.ErrStale},
		{"disappeared", absent, harden.EditFile{Before: old, After: edited}, "", 0, harden.ErrStale},
		{"disappeared, was empty", absent, harden.EditFile{Before: []byte{}, After: edited}, "", 0, harden.ErrStale},
		{"cannot be read", func() *hosttest.Machine { return exists().Deny(name) }, harden.EditFile{Before: old, After: edited}, "", 0, fs.ErrPermission},
		{"cannot be read, and is not known to be absent", func() *hosttest.Machine { return absent().Deny(name) }, harden.EditFile{After: edited}, "", 0, fs.ErrPermission},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, e := tt.machine(), tt.edit
			e.Path = name
			before := m.Snapshot()
			err := e.Apply(t.Context(), m.Host())
			if tt.err != nil {
				require.ErrorIs(t, err, tt.err)
				assert.Empty(t, before.Diff(m.Snapshot()))
				return
			}
			require.NoError(t, err)
			got, there := m.Read(name)
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.mode != 0, there)
			if there {
				st, err := m.View().Stat(name)
				require.NoError(t, err)
				assert.Equal(t, tt.mode, st.Mode())
			}
			require.NoError(t, e.Revert(t.Context(), m.Host()))
			assert.Empty(t, before.Diff(m.Snapshot()))

			// An error means that nothing has changed, when it came before
			// the change was made and when it came after.
			for _, inject := range []func(*hosttest.Machine, int, error) *hosttest.Machine{
				(*hosttest.Machine).FailChange, (*hosttest.Machine).FailAfterChange,
			} {
				for _, step := range []func(*hosttest.Machine) error{
					func(m *hosttest.Machine) error { return e.Apply(t.Context(), m.Host()) },
					func(m *hosttest.Machine) error { return e.Revert(t.Context(), m.Host()) },
				} {
					m := tt.machine()
					before, changes := m.Snapshot(), m.Changes()
					inject(m, 1, errDisk)
					if err := step(m); m.Changes() > changes {
						require.ErrorIs(t, err, errDisk)
						assert.Empty(t, before.Diff(m.Snapshot()))
					}
					if err := e.Apply(t.Context(), m.Host()); err == nil {
						before = m.Snapshot()
						inject(m, 1, errDisk)
						if err := e.Revert(t.Context(), m.Host()); err != nil {
							require.ErrorIs(t, err, errDisk)
							assert.Empty(t, before.Diff(m.Snapshot()))
						}
					}
				}
			}
		})
	}
}

func TestEditFileChange(t *testing.T) {
	e := harden.EditFile{Path: "/f", Summary: "say new", Before: []byte("old"), After: []byte("new")}
	assert.Equal(t, harden.Change{Subject: "/f", Summary: "say new", Before: "old", After: "new"}, e.Change())
	e.Secret = true
	assert.Equal(t, harden.Change{Subject: "/f", Summary: "say new", Before: "(3 bytes, not shown)", After: "(3 bytes, not shown)"}, e.Change())
	e.Before, e.After = nil, []byte{}
	assert.Equal(t, "(no file)", e.Change().Before)
	assert.Equal(t, "(0 bytes, not shown)", e.Change().After)
}

type wrapper struct{ harden.Check }

func (w wrapper) Unwrap() harden.Check { return w.Check }

func TestAsRemediator(t *testing.T) {
	plain := returns(fail, nil)
	remedy := &remedy{Check: plain}
	for _, tt := range []struct {
		name  string
		check harden.Check
		found bool
	}{
		{"nil", nil, false},
		{"without a remedy", plain, false},
		{"with one", remedy, true},
		{"wrapped", wrapper{remedy}, true},
		{"wrapped twice", wrapper{wrapper{remedy}}, true},
		{"a wrapper around none", wrapper{wrapper{plain}}, false},
		{"a wrapper around nil", wrapper{nil}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, ok := harden.AsRemediator(tt.check)
			assert.Equal(t, tt.found, ok)
			if ok {
				assert.Same(t, remedy, r)
			}
		})
	}
}
