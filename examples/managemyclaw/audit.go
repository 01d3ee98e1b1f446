package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/managemyclaw/hardshell/audit"
	"github.com/managemyclaw/hardshell/audit/report"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

var errInterrupted = errors.New("interrupted")

// audit is the command security-audit.
func (p *program) audit(ctx context.Context, args []string) (int, error) {
	if err := p.parse("security-audit", args, p.accessFlags); err != nil {
		return exitUsage, err
	}
	d, err := p.deployment()
	if err != nil {
		return exitFail, err
	}
	return p.report(ctx, p.withFlags(d.Checks()))
}

// report audits and writes the report.
func (p *program) report(ctx context.Context, checks []harden.Check) (int, error) {
	progress := newProgress(p.stderr, len(checks))
	auditor := &audit.Auditor{
		Timeout: p.timeout, Waivers: p.waivers, Progress: progress.done,
		Concurrency: len(checks), // they wait for the same engine, and should do so at once
	}
	r, err := auditor.Run(ctx, &host.Local().View, checks...)
	progress.clear()
	if err != nil {
		return exitFail, err
	}
	if ctx.Err() != nil {
		return exitUnknown, errInterrupted
	}
	if err := p.encode(r); err != nil {
		return exitFail, fmt.Errorf("write the report: %w", err)
	}
	code := exitFail
	switch r.Worst() {
	case harden.StatusPass:
		code = exitPass
	case harden.StatusUnknown:
		code = exitUnknown
	}
	return p.recordAudit(ctx, r, code), nil
}

func (p *program) encode(r *audit.Report) error {
	if encode := formats[p.format]; encode != nil {
		return encode(p.stdout, r)
	}
	width, terminal := terminalWidth(p.stdout)
	return report.TextOptions{
		Color: terminal && p.getenv("NO_COLOR") == "", // https://no-color.org
		Full:  p.full,
		Width: width,
	}.Encode(p.stdout, r)
}
