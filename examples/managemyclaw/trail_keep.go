package main

import (
	"context"
	"fmt"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// kindAlive is the kind of a record by which the gateway says that it lives,
// so that silence is a sign of something else.
const kindAlive trail.Kind = "gateway.alive"

// How often the gateway pins its trail, and how often it says there that it
// lives.
const (
	pinInterval   = time.Minute
	aliveInterval = 5 * time.Minute
)

// pinTime bounds the pinning of a trail, for which another machine may be asked.
const pinTime = 10 * time.Second

// pin pins what is in a log, though ctx may have ended.
func pin(ctx context.Context, log *trail.Log, w trail.Witness) error {
	if log.Checkpoint().Size == 0 {
		return nil // there is nothing that could be cut off
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pinTime)
	defer cancel()
	if _, err := log.Witness(ctx, w); err != nil {
		return fmt.Errorf("the trail was not pinned: %w", err)
	}
	return nil
}

// keep pins a log, and has it show that its writer lives, until ctx ends.
func keep(ctx context.Context, log *trail.Log, w trail.Witness, say func(error)) {
	tick := time.NewTicker(pinInterval)
	defer tick.Stop()
	for alive := time.Now(); ; {
		if err := pin(ctx, log, w); err != nil {
			say(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if time.Since(alive) >= aliveInterval {
			alive = time.Now()
			if err := log.Record(ctx, trail.Event{Kind: kindAlive, Actor: "hardshell", Subject: "gateway"}); err != nil && ctx.Err() == nil {
				say(err)
			}
		}
	}
}
