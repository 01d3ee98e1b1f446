// Package ufw reads the state of UFW, the Uncomplicated Firewall, and plans and
// makes changes of it that lock nobody out.
//
// [Read] looks at UFW's files, which say what is meant, and at the rules in the
// kernel, which say what is so. They differ more often than "ufw status" shows:
// it calls a firewall active as long as one chain exists, even one that no
// packet meets. [State.Problems] lists the differences.
//
// [State.Plan] returns, as data, the steps to a firewall that denies what is not
// allowed; [Plan.Apply] takes them, and looks after each whether it had its
// effect, which the exit codes of UFW do not say. Guard the change by package
// guard, and let the connection in that the change is made over first.
//
// Facts are those of ufw(8), ufw-framework(8) and UFW 0.36.2.
package ufw
