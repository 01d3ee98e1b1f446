// Command managemyclaw locks down a machine that runs an OpenClaw agent, and
// shows that the lock holds. It is the reference program of the hardshell SDK:
// everything it does is a few calls of the packages that it imports.
//
//	managemyclaw security-audit [--full] [--format text|json|sarif|junit]
//	managemyclaw harden [--plan]
//	managemyclaw confirm
//	managemyclaw firewall recover|restore|watch
//	managemyclaw gateway --policy FILE --composio-key-file FILE
//	managemyclaw gateway token
//	managemyclaw standby [--listen ADDRESS --operators FILE] [--lease TIME]
//	managemyclaw kill [--reason TEXT]
//	managemyclaw fire --url URL --switch NAME --agent NAME --key FILE
//	managemyclaw drill --canary CONTAINER [--variant NAME|all]
//	managemyclaw status
//	managemyclaw reset --epoch NUMBER
//	managemyclaw trail verify|pin|tail|export|prove
//
// The gateway stands between agents and Composio, and lets through what the
// policy allows. A breaker that trips there stops the agent for good: the fence
// in the state directory holds it, also after a restart, until it is reset. On
// SIGHUP the policy is read anew.
//
// The kill switch stops an agent: its network, its processes, what would start
// them again, its tools at the gateway and its accounts at Composio, all at
// once. Kill needs nothing that runs; standby makes it faster, since all is
// prepared, and keeps down what was stopped. Whatever starts the agent asks
// fence first, such as by ExecStartPre= of its unit.
//
// What the gateway lets through or denies, and what the program changes, is
// recorded in two trails in the state directory, which nobody can change unseen:
// what cannot be recorded is not done, undoing excepted. Every record is pinned
// soon after it was made. Whoever owns the machine can replace what is pinned
// too, and so --pins names a place on another. An audit, and a plan, are
// recorded only where there is a trail: what only looks begins none.
//
// What agents hold and may use is audited as far as the flags say what there
// is: --policy, --composio-key-file, --gateway-url and --probe-token-file.
//
// It exits with 0 if every check passes, 1 if one fails or a change could not
// be made, 2 for wrong usage, and 3 if nothing fails but something could not be
// determined. With --plan, 0 means that the plan sees to all that fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/managemyclaw/hardshell/firewall/egress"
)

// Exit codes.
const (
	exitPass    = 0
	exitFail    = 1
	exitUsage   = 2
	exitUnknown = 3
)

func main() {
	if len(os.Args) > 1 && slices.Contains([]string{"kill", "standby", "drill"}, os.Args[1]) {
		hurry(os.Stderr)
		collectLate()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop() // not before: a second interrupt must not cut off the undoing that the first began
	os.Exit(code)
}

const usage = `usage: managemyclaw COMMAND [flags]

  security-audit   judge the machine by the 14 points
  harden           close what can be closed, and audit again; --plan only shows it
  confirm          keep a change of the firewall, from a session that was opened after it
  firewall         what runs when the machine starts: recover, restore and watch
  gateway          stand between agents and Composio; gateway token makes a token for an agent
  trail            verify, pin, show, export and prove what was recorded
  standby          keep the kill switch armed, and a stopped agent down
  kill             stop the agent, at once, and say what is confirmed off
  fire             fire the switch of another machine; operator makes the key for it
  drill            rehearse a kill on a canary, and keep what was seen
  status           say whether the agent is stopped, and the switch armed
  reset            let a stopped agent run again, by the second secret; starts nothing
  fence            exit with 0 if the agent may be started: for what starts it

Flags of a command: managemyclaw COMMAND -h
Exit status: 0 all pass, 1 something fails, 2 wrong usage, 3 nothing fails but something is unknown
`

// run is the whole program.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	p := &program{stdin: os.Stdin, stdout: stdout, stderr: stderr, getenv: getenv}
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	var (
		code int
		err  error
	)
	switch args[0] {
	case "security-audit":
		code, err = p.audit(ctx, args[1:])
	case "harden":
		code, err = p.harden(ctx, args[1:])
	case "confirm":
		code, err = p.confirm(ctx, args[1:])
	case "firewall":
		code, err = p.firewall(ctx, args[1:])
	case "gateway":
		code, err = p.gateway(ctx, args[1:])
	case "trail":
		code, err = p.trailCommand(ctx, args[1:])
	case "kill":
		code, err = p.kill(ctx, args[1:])
	case "fire":
		code, err = p.fire(ctx, args[1:])
	case "operator":
		code, err = p.operatorKey(args[1:])
	case "drill":
		code, err = p.drill(ctx, args[1:])
	case helperCommand:
		if err := egress.ServeHelper(); err != nil {
			return exitFail
		}
		return exitPass
	case refusedCommand:
		code, err = p.cutRefused(ctx)
	case "status":
		code, err = p.status(ctx, args[1:])
	case "reset":
		code, err = p.reset(ctx, args[1:])
	case "fence":
		code, err = p.fenced(ctx, args[1:])
	case "standby":
		code, err = p.standby(ctx, args[1:])
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return exitPass
	default:
		fmt.Fprintf(stderr, "managemyclaw: unknown command %q\n\n%s", args[0], usage)
		return exitUsage
	}
	if errors.Is(err, flag.ErrHelp) { // and it has been given
		return exitPass
	}
	if err != nil {
		fmt.Fprintf(stderr, "managemyclaw: %s\n", printable(err.Error()))
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return code
}
