package harden

import "slices"

// Evidence is one observation that supports a verdict. It must hold no secret.
type Evidence struct {
	Source   string `json:"source"`             // such as "/proc/4711/status"
	Observed string `json:"observed"`           // what was there
	Expected string `json:"expected,omitempty"` // what should have been there
	Level    Level  `json:"level"`              // the zero value is the weakest
}

// A Finding is one violation. A check may have several. It must hold no
// secret.
type Finding struct {
	// ID names the kind of violation where a check knows several, such as
	// "container.mounts.writable". A waiver may name it. Empty means the ID
	// of the check.
	ID string `json:"id,omitempty"`

	Subject  string     `json:"subject"` // the offending object, such as "container/web"
	Message  string     `json:"message"` // what is wrong with it, for people
	Remedy   string     `json:"remedy,omitempty"`
	Severity Severity   `json:"severity,omitempty"` // zero means Info.Severity
	Evidence []Evidence `json:"evidence,omitempty"`
}

// A Verdict is what a [Check] concludes. The zero Verdict is undetermined.
// Make one with [Pass], [Fail] or [NotApplicable].
type Verdict struct {
	status   Status
	level    Level
	note     string
	evidence []Evidence
	findings []Finding
}

// Pass returns the verdict that all is well, with the observations that show
// it. Its level is that of the best of them.
func Pass(e Evidence, more ...Evidence) Verdict {
	v := Verdict{status: StatusPass, evidence: append([]Evidence{e}, more...)}
	for _, e := range v.evidence {
		v.level = max(v.level, e.Level)
	}
	return v
}

// Fail returns the verdict that something is wrong. A violation needs no level:
// a setting that asks for harm is enough.
func Fail(f Finding, more ...Finding) Verdict {
	return Verdict{status: StatusFail, findings: append([]Finding{f}, more...)}
}

// NotApplicable returns the verdict that the property does not exist on this
// machine, such as an SSH setting where no SSH server is installed.
func NotApplicable(why string) Verdict {
	return Verdict{status: StatusNotApplicable, note: why}
}

// Status returns the verdict's status.
func (v Verdict) Status() Status { return v.status }

// Level returns the level of evidence on which a pass rests. It is
// [LevelDeclared] for other verdicts.
func (v Verdict) Level() Level { return v.level }

// Note says why a verdict is not applicable.
func (v Verdict) Note() string { return v.note }

// Evidence returns a copy of the observations that support a pass.
func (v Verdict) Evidence() []Evidence { return slices.Clone(v.evidence) }

// Findings returns a copy of the violations of a failing verdict.
func (v Verdict) Findings() []Finding { return slices.Clone(v.findings) }

// atMost returns v with its level lowered to l.
func (v Verdict) atMost(l Level) Verdict {
	v.level = min(v.level, l)
	return v
}
