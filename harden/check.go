// Package harden is the contract between those who judge a machine and those
// who run the judgement.
//
// A [Check] decides whether one property of a machine holds. Checks about many
// things of one kind, such as containers, are pure functions of one such thing,
// bound to a [Source] of them by [Each]. [Evaluate] runs one check in
// isolation; package audit runs many and scores them. A [Remediator] is a
// check that can also say how to make itself pass, as a [Plan]; a [Fixer]
// applies plans, verifies them by running the check again, and reverts them
// unless it passes.
//
// Three rules run through all of it. Could not look is unknown: the zero
// [Verdict] and every error are unknown, never pass and never fail. A pass
// needs evidence, of the level that the check requires. A change is planned as
// data, shown, applied, verified, and undone unless it worked.
//
// Package hardentest tests whether a check keeps this contract.
package harden

import (
	"context"

	"github.com/managemyclaw/hardshell/harden/host"
)

// A Check decides whether one property of a machine is as it should be.
//
// A check that can put things right should also implement [Remediator]. A
// check that wraps another should have a method Unwrap() Check, so that it does
// not hide the other's remedy; see [AsRemediator].
type Check interface {
	// Info describes the check. It must return the same value every time.
	Info() Info

	// Run examines the machine and changes nothing.
	//
	// It returns an error when it could not reach a verdict, wrapping the
	// cause: an error wrapping [io/fs.ErrPermission] becomes
	// [ReasonPrivilege], and so on; see [Reason]. An error beside a failing
	// verdict does not weaken it: what was seen stays seen. An error beside
	// any other verdict makes the result unknown.
	//
	// Run must return soon after ctx is done and may be called concurrently.
	Run(ctx context.Context, v *host.View) (Verdict, error)
}

// Info describes a [Check]. Fields may be added in later versions.
type Info struct {
	// ID names the check in reports and configuration. It consists of
	// lower-case words joined by dots, such as "ssh.root_login", and must
	// never change meaning.
	ID string

	// Point is the point of the framework that the check belongs to.
	// Zero means none: the check is reported but does not score.
	Point Point

	// Title is a short phrase for people that states the property, such as
	// "SSH root login is off".
	Title string

	// Doc explains why the property matters and what remedies it.
	Doc string

	// Refs lists the rules that the check answers, such as "CIS Docker 5.4".
	Refs []string

	// Severity applies to findings that state none of their own.
	Severity Severity

	// Requires is the level of evidence that the check needs to pass. With
	// evidence below it the result is unknown, for [ReasonEvidence].
	Requires Level

	// Needs is what the check must be allowed to do. Without it the result is
	// unknown, for [ReasonPrivilege], and Run is not called.
	Needs host.Privilege
}

// New returns a [Check] that calls run. A check that also has a remedy is a
// type of its own.
func New(info Info, run func(context.Context, *host.View) (Verdict, error)) Check {
	return &funcCheck{info, run}
}

type funcCheck struct {
	info Info
	run  func(context.Context, *host.View) (Verdict, error)
}

func (c *funcCheck) Info() Info { return c.info }
func (c *funcCheck) Run(ctx context.Context, v *host.View) (Verdict, error) {
	return c.run(ctx, v)
}
