package harden

import "fmt"

// Status is the outcome of a check.
type Status int

// The zero Status is StatusUnknown.
const (
	StatusUnknown       Status = iota // could not be determined
	StatusPass                        // as it should be
	StatusFail                        // not as it should be
	StatusNotApplicable               // nothing to examine
	StatusWaived                      // fails, and somebody answers for it; only an auditor sets it
)

var statusNames = []string{"unknown", "pass", "fail", "not_applicable", "waived"}

// String returns a word such as "not_applicable".
func (s Status) String() string { return enumName("Status", statusNames, int(s)) }

// MarshalText encodes s as String does.
func (s Status) MarshalText() ([]byte, error) { return marshalEnum("status", statusNames, int(s)) }

// UnmarshalText reverses MarshalText.
func (s *Status) UnmarshalText(text []byte) error {
	return unmarshalEnum("status", statusNames, text, (*int)(s))
}

// Level says what an observation rests on.
type Level int

// Levels from the weakest to the strongest. The zero Level is the weakest.
const (
	LevelDeclared  Level = iota // a file or an API field says so
	LevelInspected              // the kernel or the running process says so
	LevelProbed                 // it was tried, and refused
)

var levelNames = []string{"declared", "inspected", "probed"}

// String returns a word such as "inspected".
func (l Level) String() string { return enumName("Level", levelNames, int(l)) }

// MarshalText encodes l as String does.
func (l Level) MarshalText() ([]byte, error) { return marshalEnum("level", levelNames, int(l)) }

// UnmarshalText reverses MarshalText.
func (l *Level) UnmarshalText(text []byte) error {
	return unmarshalEnum("level", levelNames, text, (*int)(l))
}

// Severity ranks findings. There is room between the constants.
type Severity int

// Severities. The zero Severity is unspecified.
const (
	SeverityUnspecified Severity = 0
	SeverityLow         Severity = 4
	SeverityMedium      Severity = 8
	SeverityHigh        Severity = 12
	SeverityCritical    Severity = 16
)

var severityNames = map[Severity]string{
	SeverityUnspecified: "unspecified",
	SeverityLow:         "low",
	SeverityMedium:      "medium",
	SeverityHigh:        "high",
	SeverityCritical:    "critical",
}

// String returns a word such as "high". A value between two constants is named
// after the lower one.
func (s Severity) String() string {
	name := severityNames[SeverityUnspecified]
	for _, level := range []Severity{SeverityLow, SeverityMedium, SeverityHigh, SeverityCritical} {
		if s >= level {
			name = severityNames[level]
		}
	}
	return name
}

// MarshalText encodes s as String does.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reverses MarshalText.
func (s *Severity) UnmarshalText(text []byte) error {
	for value, name := range severityNames {
		if name == string(text) {
			*s = value
			return nil
		}
	}
	return fmt.Errorf("harden: unknown severity %q", text)
}

func enumName(kind string, names []string, i int) string {
	if i < 0 || i >= len(names) {
		return fmt.Sprintf("%s(%d)", kind, i)
	}
	return names[i]
}

func marshalEnum(kind string, names []string, i int) ([]byte, error) {
	if i < 0 || i >= len(names) {
		return nil, fmt.Errorf("harden: invalid %s %d", kind, i)
	}
	return []byte(names[i]), nil
}

func unmarshalEnum(kind string, names []string, text []byte, dst *int) error {
	for i, name := range names {
		if name == string(text) {
			*dst = i
			return nil
		}
	}
	return fmt.Errorf("harden: unknown %s %q", kind, text)
}
