// Package guard undoes a change of a firewall unless it is confirmed by a new
// connection from outside, made after the change.
//
// [Guard.Arm] saves what the change will touch and starts a watchdog, in a
// process of its own, before the first rule is changed. The watchdog is a shell
// script that needs nothing of the program that started it: that one may be
// killed, its terminal closed, its process group ended. Then the caller makes the
// change and calls [Guard.Applied]. If nobody calls [Guard.Confirm] from a new connection,
// or [Guard.ConfirmBy] with a probe from outside, until the time is up, the watchdog puts
// everything back.
//
//	armed, err := g.Arm(ctx, change)
//	…                        // the change
//	err = g.Applied(ctx, armed.ID)
//	…                        // in a new session, within armed.Window:
//	err = g.Confirm(ctx, armed.ID, connection)
//
// What is put back is what the change declares: files, with mode and owner; whole
// tables of iptables, or single chains of them with the jumps to them; tables
// of nftables; values of sysctl. Whole tables are put back as they were, and so lose what
// others, such as Docker, have changed in them meanwhile; prefer chains.
// Counters start again from zero, and kernel modules that were loaded stay. A
// table of nftables that has to be made anew comes last in listings; the order of
// tables decides only between chains of the same hook and priority.
//
// # Restarts of the machine
//
// A machine that is shut down in good order ends the watchdog by SIGTERM, upon which
// it rolls back at once. After a crash, rules in the kernel are gone, and
// files that make the change permanent are not: call [Guard.Recover] when the machine
// starts, before what reads them (ufw.service, nftables.service, docker.service).
// It puts back the files of a change that nobody has confirmed.
//
// # What is asked of the machine
//
// A POSIX shell and awk, coreutils or busybox with timeout, setsid of util-linux
// or systemd-run, and the programs of the firewall that is changed. Everything is
// done by root.
package guard
