package softstop

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const protocolVersion = 4

// A frame is one message of the protocol.
type frame struct {
	Type string `json:"type"`

	// Of events.
	Event string `json:"event,omitempty"`

	// Of responses.
	ID      string          `json:"id,omitempty"`
	OK      bool            `json:"ok,omitempty"`
	Payload json.RawMessage `json:"payload,omitempty"`
	Error   *problem        `json:"error,omitempty"`
}

// A problem is what a gateway says when it says no. Its message is not read:
// it is the word of what is to be stopped, and would end up in a receipt.
type problem struct {
	Code    string          `json:"code"`
	Details json.RawMessage `json:"details,omitempty"`
}

func decodeFrame(data []byte) (frame, error) {
	var f frame
	if err := json.Unmarshal(data, &f); err != nil {
		return frame{}, errors.New("the gateway sent what is no frame of its protocol")
	}
	return f, nil
}

// A Phase is whether a gateway admits work.
type phase string

const (
	phaseAccepting phase = "accepting"
	phaseDraining  phase = "draining"
	phasePrepared  phase = "prepared" // it admits nothing, and nothing was under way when it began not to
)

// A hello is how a gateway greets who has authenticated.
type hello struct {
	Type     string `json:"type"`
	Protocol int    `json:"protocol"`
	Features struct {
		Methods []string `json:"methods"`
	} `json:"features"`
	Snapshot struct {
		Suspension struct {
			Phase phase `json:"phase"`
		} `json:"suspension"`
	} `json:"snapshot"`
	Auth struct {
		Scopes []string `json:"scopes"`
	} `json:"auth"`
	Policy struct {
		TickMS int `json:"tickIntervalMs"`
	} `json:"policy"`
}

func (h *hello) has(method string) bool { return slices.Contains(h.Features.Methods, method) }

// check returns why what follows cannot be relied upon.
func (h *hello) check() error {
	switch {
	case h.Type != "hello-ok":
		return errors.New("the gateway does not greet as it should")
	case h.Protocol != protocolVersion:
		return fmt.Errorf("the gateway speaks version %d of its protocol, and this package version %d", h.Protocol, protocolVersion)
	case !slices.Contains(h.Auth.Scopes, scopeAdmin):
		return fmt.Errorf("the gateway does not grant %s: connect over its loopback", scopeAdmin)
	}
	return nil
}

// A refusedError is a request that a gateway has refused.
type refusedError struct {
	method string
	code   string
	reason string // such as "gateway-suspending"
	phase  phase
}

func (p *problem) refused(method string, hide func(string) string) *refusedError {
	e := &refusedError{method: method}
	if p == nil {
		return e
	}
	var details struct {
		Reason string `json:"reason"`
		Code   string `json:"code"`
		Phase  phase  `json:"phase"`
	}
	_ = json.Unmarshal(p.Details, &details) // what there is of it
	e.code, e.reason, e.phase = word(hide(p.Code)), word(hide(details.Reason)), details.Phase
	if e.reason == "" {
		e.reason = word(hide(details.Code))
	}
	return e
}

func (e *refusedError) Error() string {
	why := strings.Trim(e.code+" "+e.reason, " ")
	if why == "" {
		why = "no reason is given"
	}
	return "the gateway refuses " + e.method + ": " + why
}

// suspended reports whether nothing but the control of the suspension is let
// in.
func (e *refusedError) suspended() bool { return e.reason == "gateway-suspending" }

// word returns s if it is one of those that the protocol uses as codes.
func word(s string) string {
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) {
		return ""
	}
	return s
}
