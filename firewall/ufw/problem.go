package ufw

import (
	"fmt"
	"strconv"
	"strings"
)

// A ProblemKind is a way in which UFW does not do what it is meant to.
type ProblemKind int

// Kinds of problems.
const (
	// NotLoaded: UFW is enabled, and its rules are not in the kernel.
	NotLoaded ProblemKind = iota + 1
	// NotEnabled: UFW's rules are in the kernel, and it will not start with the machine.
	NotEnabled
	// JumpsMissing: no packet, or not every packet, meets UFW's rules.
	// Reloading UFW now would drop everything.
	JumpsMissing
	// JumpsOutOfOrder: packets meet UFW's chains in another order than UFW's.
	JumpsOutOfOrder
	// AcceptBefore: a rule ahead of UFW's accepts everything.
	AcceptBefore
	// PolicyDiffers: chain INPUT accepts what no rule decides, and should not.
	PolicyDiffers
	// RulesDiffer: the rules in the kernel are not those of the file.
	RulesDiffer
	// NotUnderstood: a rule in the file is not understood.
	NotUnderstood
)

var problemNames = map[ProblemKind]string{
	NotLoaded: "not loaded", NotEnabled: "not enabled", JumpsMissing: "jumps missing", JumpsOutOfOrder: "jumps out of order",
	AcceptBefore: "accept before", PolicyDiffers: "policy differs", RulesDiffer: "rules differ", NotUnderstood: "not understood",
}

func (k ProblemKind) String() string {
	if s, ok := problemNames[k]; ok {
		return s
	}
	return "ProblemKind(" + strconv.Itoa(int(k)) + ")"
}

// MarshalText encodes k as String does.
func (k ProblemKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// A Problem is one way in which UFW does not do what it is meant to.
type Problem struct {
	Kind   ProblemKind
	V6     bool
	Detail string // what it is, in a sentence
}

func (p Problem) String() string {
	family := "IPv4"
	if p.V6 {
		family = "IPv6"
	}
	if p.Kind == NotUnderstood {
		return p.Detail
	}
	return family + ": " + p.Detail
}

// Problems returns the ways in which UFW does not do what its files say. None
// does not mean that it is enabled, or denies anything.
func (s *State) Problems() []Problem {
	if !s.Installed {
		return nil
	}
	var all []Problem
	for _, text := range s.Malformed {
		all = append(all, Problem{Kind: NotUnderstood, Detail: text})
	}
	all = append(all, s.kernelProblems(s.V4, false)...)
	if s.IPv6 {
		return append(all, s.kernelProblems(s.V6, true)...)
	}
	// Not managed: then nothing comes in by IPv6.
	if s.Enabled && s.V4.Active && s.V6.Policy != "DROP" {
		all = append(all, Problem{PolicyDiffers, true, "UFW does not manage IPv6 and should drop it, and the policy of chain INPUT is " + s.V6.Policy})
	}
	return all
}

func (s *State) kernelProblems(k Kernel, v6 bool) []Problem {
	var all []Problem
	add := func(kind ProblemKind, format string, args ...any) {
		all = append(all, Problem{kind, v6, fmt.Sprintf(format, args...)})
	}
	switch {
	case s.Enabled && !k.Active:
		add(NotLoaded, "UFW is enabled and its rules are not in the kernel")
	case !s.Enabled && k.Active:
		add(NotEnabled, "UFW's rules are in the kernel, and it will not start with the machine")
	}
	if len(k.Missing) > 0 {
		add(JumpsMissing, "UFW's chains are there and packets do not get to %s", strings.Join(k.Missing, ", "))
	}
	if !k.Active {
		return all
	}
	if len(k.Missing) == 0 && !k.InOrder() {
		add(JumpsOutOfOrder, "chain INPUT jumps to %s, which is not UFW's order", strings.Join(k.Jumps, ", "))
	}
	for _, rule := range k.AcceptBefore() {
		add(AcceptBefore, "rule %q of chain INPUT accepts everything before UFW sees it", rule)
	}
	if s.Incoming != Allow && k.Policy != "DROP" {
		add(PolicyDiffers, "incoming packets are to be dropped unless allowed, and the policy of chain INPUT is %s", k.Policy)
	}
	for _, rule := range k.Lost {
		add(RulesDiffer, "the file has the rule %q and the kernel does not", rule)
	}
	for _, rule := range k.Extra {
		add(RulesDiffer, "the kernel has the rule %q and the file does not", rule)
	}
	return all
}
