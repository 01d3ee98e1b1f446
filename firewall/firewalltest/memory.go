package firewalltest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/managemyclaw/hardshell/firewall"
)

// Memory is a [firewall.Backend] that has a policy kept by nobody: its rules
// are lines in memory. It keeps the contract, as far as that is possible without
// packets. The zero Memory is ready for use. Its methods may be called concurrently.
type Memory struct {
	// Fail, if it is not nil, is asked before each method is carried out,
	// with its name, such as "Apply", and may have it fail.
	Fail func(method string) error

	mu     sync.Mutex
	lines  []string
	writes int
}

// Name implements [firewall.Backend].
func (m *Memory) Name() string { return "memory" }

// Lines returns the rules.
func (m *Memory) Lines() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.lines)
}

// Edit changes the rules as somebody else would.
func (m *Memory) Edit(change func(lines []string) []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = change(slices.Clone(m.lines))
}

// Apply implements [firewall.Backend].
func (m *Memory) Apply(ctx context.Context, p firewall.Policy) error {
	want, err := m.begin(ctx, "Apply", &p)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	if !slices.Equal(m.lines, want) {
		m.lines = want
		m.writes++
	}
	return nil
}

// Remove implements [firewall.Backend].
func (m *Memory) Remove(ctx context.Context) error {
	if _, err := m.begin(ctx, "Remove", nil); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.lines = nil
	return nil
}

// Drift implements [firewall.Backend].
func (m *Memory) Drift(ctx context.Context, p firewall.Policy) (drift []string, err error) {
	want, err := m.begin(ctx, "Drift", &p)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	for i := range max(len(want), len(m.lines)) {
		switch {
		case i >= len(m.lines):
			drift = append(drift, "lacks "+want[i])
		case i >= len(want):
			drift = append(drift, m.lines[i]+" does not belong there")
		case m.lines[i] != want[i]:
			drift = append(drift, fmt.Sprintf("is %s, want %s", m.lines[i], want[i]))
		}
	}
	return drift, nil
}

// begin returns with the lock held unless it fails.
func (m *Memory) begin(ctx context.Context, method string, p *firewall.Policy) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("firewalltest: %s: %w", method, err)
	}
	if m.Fail != nil {
		if err := m.Fail(method); err != nil {
			return nil, fmt.Errorf("firewalltest: %s: %w", method, err)
		}
	}
	var want []string
	if p != nil {
		if err := p.Validate(); err != nil {
			return nil, err
		}
		data, err := json.MarshalIndent(p, "", " ")
		if err != nil {
			return nil, fmt.Errorf("firewalltest: %s: %w", method, err)
		}
		want = strings.Split(string(data), "\n")
	}
	m.mu.Lock()
	return want, nil
}
