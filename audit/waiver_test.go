package audit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// waiver returns one that holds for an hour.
func waiver(id, scope string) audit.Waiver {
	return audit.Waiver{ID: id, Scope: scope, Owner: "ops", Reason: "known", Expires: time.Now().Add(time.Hour)}
}

func expired(id, scope string) audit.Waiver {
	w := waiver(id, scope)
	w.Expires = time.Now()
	return w
}

// A waiver covers what was seen to be wrong, for as long as it holds and as far
// as it reaches, and nothing else. That it is not needed, or holds no longer, is
// a finding.
func TestWaiverBySituation(t *testing.T) {
	kind := harden.Finding{ID: "c.mounts.writable", Subject: "container/web", Message: "m"}
	partly := func(err error) runFunc {
		return func(context.Context, *host.View) (harden.Verdict, error) {
			return harden.Fail(on("container/web")), err
		}
	}
	for _, tt := range []struct {
		situation string
		run       runFunc
		waivers   func() []audit.Waiver
		status    harden.Status
		waived    []bool
		waivers2  string // status and findings of the result about the waivers
	}{
		{
			"by the ID of the check", failing(on("container/web")), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts", "")} },
			harden.StatusWaived,
			[]bool{true},
			"pass",
		},
		{
			"by the ID of the finding", failing(kind), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts.writable", "container/*")} },
			harden.StatusWaived,
			[]bool{true},
			"pass",
		},
		{
			"by the ID of the check though the finding has one", failing(kind), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts", "")} },
			harden.StatusWaived,
			[]bool{true},
			"pass",
		},
		{
			"only one of two kinds", failing(kind, on("container/web")), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts.writable", "")} },
			harden.StatusFail,
			[]bool{true, false},
			"pass",
		},
		{
			"only one of two subjects", failing(on("container/web"), on("container/db")), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts", "container/d*")} },
			harden.StatusFail,
			[]bool{false, true},
			"pass",
		},
		{"two waivers for two subjects", failing(on("container/web"), on("container/db")), func() []audit.Waiver {
			return []audit.Waiver{waiver("c.mounts", "container/web"), waiver("c.mounts", "container/db")}
		}, harden.StatusWaived, []bool{true, true}, "pass"},
		{
			"a star does not cross a slash", failing(on("container/web/x")), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts", "container/*")} },
			harden.StatusFail, nil, "fail audit.waivers.unmatched",
		},
		{
			"of another check", failing(on("x")), func() []audit.Waiver { return []audit.Waiver{waiver("c.other", "")} },
			harden.StatusFail, nil, "fail audit.waivers.unmatched",
		},
		{
			"a prefix of the ID is not the ID", failing(kind), func() []audit.Waiver { return []audit.Waiver{waiver("c", "")} },
			harden.StatusFail, nil, "fail audit.waivers.unmatched",
		},
		{
			"expired at this moment", failing(on("x")), func() []audit.Waiver { return []audit.Waiver{expired("c.mounts", "")} },
			harden.StatusFail, nil, "fail audit.waivers.expired",
		},
		{"expired and renewed for one", failing(on("x"), on("y")), func() []audit.Waiver {
			return []audit.Waiver{expired("c.mounts", ""), waiver("c.mounts", "x")}
		}, harden.StatusFail, []bool{true, false}, "fail audit.waivers.expired"},
		{
			"of what passes", passing(harden.LevelProbed), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts", "")} },
			harden.StatusPass, nil, "fail audit.waivers.unmatched",
		},
		{
			"of what does not apply", func(context.Context, *host.View) (harden.Verdict, error) { return harden.NotApplicable("n"), nil },
			func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts", "")} }, harden.StatusNotApplicable, nil, "fail audit.waivers.unmatched",
		},
		{
			"of what is unknown", erring(errors.New("no")), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts", "")} },
			harden.StatusUnknown, nil, "unknown",
		},
		{
			"of a kind of finding of what is unknown", erring(errors.New("no")), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts.writable", "")} },
			harden.StatusUnknown, nil, "unknown",
		},
		{
			"of a kind that no check goes by, where one is unknown", erring(errors.New("no")), func() []audit.Waiver { return []audit.Waiver{waiver("elsewhere", "")} },
			harden.StatusUnknown, nil, "unknown",
		},
		{
			"of another check, where one is unknown", erring(errors.New("no")), func() []audit.Waiver { return []audit.Waiver{waiver("p.passes", "")} },
			harden.StatusUnknown, nil, "fail audit.waivers.unmatched",
		},
		{
			"of all that was seen where something was not", partly(errors.New("container/db: no")), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts", "")} },
			harden.StatusUnknown,
			[]bool{true},
			"pass",
		},
		{
			"of a subject that may be among those not seen", partly(errors.New("container/db: no")), func() []audit.Waiver { return []audit.Waiver{waiver("c.mounts", "container/db")} },
			harden.StatusFail, nil, "unknown",
		},
	} {
		t.Run(tt.situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				auditor := audit.Auditor{Waivers: tt.waivers()}
				rep, err := auditor.Run(t.Context(), nil, check("c.mounts", 2, tt.run), check("p.passes", 1, passing(harden.LevelProbed)))
				require.NoError(t, err)
				require.Len(t, rep.Results, 3)

				r := rep.Results[0]
				assert.Equal(t, tt.status, r.Status)
				assert.Equal(t, tt.status == harden.StatusUnknown, r.Reason != "")
				var waived []bool
				for i := range r.Findings {
					_, ok := r.Waiver(i)
					waived = append(waived, ok)
				}
				if tt.waived == nil {
					assert.Empty(t, r.Waivers)
				} else {
					assert.Equal(t, tt.waived, waived)
				}

				about := rep.Results[2]
				assert.Equal(t, audit.WaiversID, about.Info.ID)
				var got strings.Builder
				got.WriteString(about.Status.String())
				for _, f := range about.Findings {
					got.WriteString(" " + f.ID)
					assert.NotEmpty(t, f.Remedy)
					assert.Equal(t, harden.SeverityMedium, f.Severity)
				}
				assert.Equal(t, tt.waivers2, got.String(), about.Detail)
			})
		})
	}
}

// A waiver holds until its moment, judged when the audit ends.
func TestWaiverExpiresDuringTheAudit(t *testing.T) {
	for _, tt := range []struct {
		takes  time.Duration
		status harden.Status
	}{{time.Hour - 1, harden.StatusWaived}, {time.Hour, harden.StatusFail}} {
		synctest.Test(t, func(t *testing.T) {
			auditor := audit.Auditor{Timeout: 2 * time.Hour, Waivers: []audit.Waiver{waiver("c.mounts", "")}}
			rep, err := auditor.Run(t.Context(), nil, check("c.mounts", 2, func(ctx context.Context, v *host.View) (harden.Verdict, error) {
				time.Sleep(tt.takes)
				return harden.Fail(on("x")), nil
			}))
			require.NoError(t, err)
			assert.Equal(t, tt.status, rep.Results[0].Status)
		})
	}
}

// An audit that was stopped still says what it knows of its waivers.
func TestWaiversWhenTheContextHasEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	auditor := audit.Auditor{Waivers: []audit.Waiver{waiver("a.b", ""), expired("a.c", "")}}
	rep, err := auditor.Run(ctx, nil, check("a.b", 1, failing(on("x"))))
	require.NoError(t, err)
	assert.Equal(t, harden.StatusUnknown, rep.Results[0].Status)
	about := rep.Results[1]
	assert.Equal(t, harden.StatusFail, about.Status)
	require.Len(t, about.Findings, 1)
	assert.Equal(t, "waiver/a.c", about.Findings[0].Subject)
	assert.Contains(t, about.Detail, "a.b")
}

func TestResultWaiver(t *testing.T) {
	var r audit.Result
	for _, i := range []int{-1, 0, 1} {
		_, ok := r.Waiver(i)
		assert.False(t, ok)
	}
}

const goodWaiver = `{"id":"a.b","owner":"o","reason":"r","expires":"2030-01-02"}`

func TestParseWaivers(t *testing.T) {
	got, err := audit.ParseWaivers(strings.NewReader(`[
		{"id": "a.b", "scope": "container/*", "owner": "ops@example.com", "reason": "because", "expires": "2030-12-31"},
		{"expires": "2030-06-30T12:00:00+02:00", "reason": "because", "owner": "o", "id": "a.b"}
	]`))
	require.NoError(t, err)
	assert.Equal(t, []audit.Waiver{
		{ID: "a.b", Scope: "container/*", Owner: "ops@example.com", Reason: "because", Expires: time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)},
		{ID: "a.b", Owner: "o", Reason: "because", Expires: time.Date(2030, 6, 30, 10, 0, 0, 0, time.UTC)},
	}, got)
	assert.False(t, got[0].Expired(time.Date(2030, 12, 31, 23, 59, 59, 999, time.UTC)), "until the end of the day")
	assert.True(t, got[0].Expired(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)))

	got, err = audit.ParseWaivers(strings.NewReader("[]"))
	require.NoError(t, err)
	assert.Empty(t, got)
}

// An error names the entry and the field, and says what to do.
func TestParseWaiversRefuses(t *testing.T) {
	for _, tt := range []struct{ situation, in, want string }{
		{"nothing", ``, "not a JSON array"},
		{"null", `null`, "write [] for none"},
		{"an object", goodWaiver, "not a JSON array"},
		{"data after the array", `[` + goodWaiver + `] x`, "not a JSON array"},
		{"two arrays", `[] []`, "not a JSON array"},
		{"an entry that is no object", `[` + goodWaiver + `, 1]`, "waiver 2: not an object"},
		{"an entry that is null", `[null]`, "waiver 1: not an object"},
		{"unknown field", `[{"id":"a.b","ownr":"o"}]`, `waiver 1 ("a.b"): field "ownr" is unknown: the fields are`},
		{"field in capitals", `[{"ID":"a.b"}]`, `field "ID" is unknown`},
		{"field twice", `[{"id":"a.b","id":"a.c"}]`, `waiver 1 ("a.b"): field "id" is there twice`},
		{"number for a string", `[{"id":"a.b","owner":7}]`, `field "owner" is not a string: put it in quotes`},
		{"null for a string", `[{"id":"a.b","scope":null}]`, `field "scope" is not a string`},
		{"no id", strings.Replace(goodWaiver, `"a.b"`, `""`, 1), `waiver 1: field "id" is missing: name`},
		{"id with a space", strings.Replace(goodWaiver, `a.b`, `a b`, 1), `has no spaces`},
		{"id with a control character", strings.Replace(goodWaiver, `a.b`, `a\u001bb`, 1), `control characters`},
		{"waiver of the waivers", strings.Replace(goodWaiver, `a.b`, `audit.waivers.expired`, 1), `cannot be waived`},
		{"no owner", strings.Replace(goodWaiver, `"owner":"o",`, ``, 1), `field "owner" is missing: name`},
		{"blank owner", strings.Replace(goodWaiver, `"o"`, `" \t"`, 1), `field "owner" is missing`},
		{"no reason", strings.Replace(goodWaiver, `"r"`, `""`, 1), `field "reason" is missing: say`},
		{"no expiry", strings.Replace(goodWaiver, `,"expires":"2030-01-02"`, ``, 1), `field "expires" is missing: say until when`},
		{"expiry in words", strings.Replace(goodWaiver, `2030-01-02`, `never`, 1), `field "expires" is "never": write a date`},
		{"no such day", strings.Replace(goodWaiver, `2030-01-02`, `2030-02-30`, 1), `write a date`},
		{"time without zone", strings.Replace(goodWaiver, `2030-01-02`, `2030-01-02T10:00:00`, 1), `write a date`},
		{"last day that can be written", strings.Replace(goodWaiver, `2030-01-02`, `9999-12-31`, 1), `year 10000`},
		{"malformed scope", strings.Replace(goodWaiver, `"owner"`, `"scope":"a[","owner"`, 1), `field "scope" is "a["`},
		{"duplicate", goodWaiver + "," + goodWaiver, `waiver 2 ("a.b"): has the id and scope of waiver 1`},
		{"not UTF-8", strings.Replace(goodWaiver, `"r"`, "\"\xff\"", 1), "not UTF-8"},
		{"too large", strings.Repeat(" ", audit.MaxWaiversSize) + "[]", "more than 1048576 bytes"},
	} {
		t.Run(tt.situation, func(t *testing.T) {
			in := tt.in
			if strings.HasPrefix(in, "{") && tt.situation != "an object" {
				in = "[" + in + "]"
			}
			got, err := audit.ParseWaivers(strings.NewReader(in))
			assert.Nil(t, got)
			assert.ErrorContains(t, err, "audit: ")
			assert.ErrorContains(t, err, tt.want)
		})
	}

	_, err := audit.ParseWaivers(strings.NewReader(`[{"id":"a.b"},{"nonsense":""}]`))
	for _, want := range []string{`waiver 1 ("a.b"): field "owner"`, `field "reason"`, `field "expires"`, "waiver 2: field \"nonsense\""} {
		assert.ErrorContains(t, err, want, "all problems at once")
	}
}
