package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/firewall/egress"
)

// refusedCommand is the hidden command that cuts off what it is told by a lock
// that the kernel refuses nftables to. A process cannot be given back what was
// refused to it once, and so it is another one.
const refusedCommand = "egress-refused"

// What the command is told, and what it answers.
type (
	refusedOrder struct {
		NetNS     string            `json:"netns"`
		Label     string            `json:"label"`     // of the lock
		Workloads []egress.Workload `json:"workloads"` // none: only find out
	}
	refusedAnswer struct {
		Refused string            `json:"refused"` // nftables, by this; or not
		Error   string            `json:"error"`   // of the lock
		Open    map[string]string `json:"open"`
	}
)

// cutRefused is the command.
func (p *program) cutRefused(ctx context.Context) (int, error) {
	var o refusedOrder
	if err := json.NewDecoder(p.stdin).Decode(&o); err != nil {
		return exitUsage, usageError(fmt.Sprintf("the command %s is for the program itself: %v", refusedCommand, err))
	}
	if err := refuseNFTables(); err != nil {
		return exitFail, fmt.Errorf("have the kernel refuse nftables: %w", err)
	}
	// The lock itself tries: on nothing, and so it makes empty tables if it may.
	none := &egress.Lock{NetNS: o.NetNS, Label: o.Label, Source: func(context.Context) ([]egress.Workload, error) { return nil, nil }}
	var a refusedAnswer
	if err := none.Arm(ctx); errors.Is(err, errors.ErrUnsupported) {
		a.Refused = err.Error()
	} else if err != nil {
		return exitFail, err
	}
	if a.Refused != "" && len(o.Workloads) > 0 {
		lock := &egress.Lock{NetNS: o.NetNS, Label: o.Label, Source: func(context.Context) ([]egress.Workload, error) { return o.Workloads, nil }}
		if err := lock.Do(ctx); err != nil {
			a.Error = err.Error()
			if open, ok := errors.AsType[*egress.OpenError](err); ok {
				a.Open = open.Open()
			}
		}
	}
	return exitPass, p.writeJSON(a)
}

// errNFTRefused reports that nftables were refused, as they should be.
var errNFTRefused = errors.New("the kernel refuses")

// A refusal is nftables, to which the kernel says no: an actuator that does
// nothing but ask, and fails.
type refusal struct{ netns, label string }

func (r *refusal) Name() string { return "egress.nftables" }

// Do implements [killswitch.Actuator]. Nil means that nothing was refused.
func (r *refusal) Do(ctx context.Context) error {
	a, err := r.run(ctx, nil)
	if err != nil || a.Refused == "" {
		return err
	}
	return fmt.Errorf("%w: %s", errNFTRefused, a.Refused)
}

// cut cuts workloads off by a lock that nftables are refused to.
func (r *refusal) cut(ctx context.Context, all []egress.Workload) error {
	if len(all) == 0 {
		return errors.New("there is nothing to cut off")
	}
	a, err := r.run(ctx, all)
	switch {
	case err != nil:
		return err
	case a.Refused == "":
		return errors.New("nftables are not refused: nothing was done")
	case a.Error != "":
		return &openError{a.Error, a.Open}
	}
	return nil
}

func (r *refusal) run(ctx context.Context, all []egress.Workload) (a refusedAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, egress.DefaultTimeout+time.Second)
	defer cancel()
	order, err := json.Marshal(refusedOrder{r.netns, r.label, all})
	if err != nil {
		return a, err
	}
	self, err := os.Executable()
	if err != nil {
		return a, err
	}
	cmd := exec.CommandContext(ctx, self, refusedCommand)
	var stderr strings.Builder
	cmd.Stdin, cmd.Stderr, cmd.WaitDelay = bytes.NewReader(order), &stderr, time.Second
	out, err := cmd.Output()
	if err != nil {
		return a, fmt.Errorf("%s: %s", refusedCommand, cmp.Or(strings.TrimSpace(stderr.String()), err.Error()))
	}
	return a, json.Unmarshal(out, &a)
}

// An openError is what another process could not close.
type openError struct {
	text string
	open map[string]string
}

func (e *openError) Error() string           { return e.text }
func (e *openError) Open() map[string]string { return maps.Clone(e.open) }
