package gateway

import (
	"fmt"
	"net/http"
	"time"
)

// A Reason says why something was denied. It is the attribute "reason" of the
// record of a denial, and part of the answer.
type Reason string

// The reasons. More may be added.
const (
	ReasonUnauthenticated Reason = "unauthenticated" // no token, more than one, or one that is not known
	ReasonOrigin          Reason = "origin"          // from a web page, or under a name that the gateway does not go by
	ReasonFenced          Reason = "fenced"          // the agent has been stopped, or whether it has cannot be told
	ReasonTripped         Reason = "tripped"         // its breaker has tripped
	ReasonStopped         Reason = "stopped"         // by Gateway.Deny
	ReasonClosed          Reason = "closed"          // the gateway is closing
	ReasonEndpoint        Reason = "endpoint"        // no agent may use this part of the API, or this method of MCP
	ReasonRequest         Reason = "request"         // the request is not made as it must be
	ReasonTool            Reason = "tool"            // the agent may not use this tool
	ReasonVersion         Reason = "version"         // not at this version
	ReasonAccount         Reason = "account"         // not as this user, or with this account
	ReasonArguments       Reason = "arguments"       // not with these arguments
	ReasonRate            Reason = "rate"            // too many calls
	ReasonBusy            Reason = "busy"            // too many calls at a time
	ReasonTogether        Reason = "together"        // another call in the same request is denied
	ReasonUnrecorded      Reason = "unrecorded"      // it cannot be recorded
	ReasonUpstream        Reason = "upstream"        // it was let through, and Composio did not carry it out, or may not have
)

// halts reports whether the agent is denied everything for this reason.
func (r Reason) halts() bool {
	return r == ReasonFenced || r == ReasonTripped || r == ReasonStopped
}

// A denial is why a request is not carried out.
type denial struct {
	reason  Reason
	message string // for the agent; without anything of others', and without values
	after   time.Duration
	status  int  // of HTTP, if not that of the reason
	noted   bool // it is recorded already
}

func (d *denial) Error() string { return string(d.reason) + ": " + d.message }

func deny(r Reason, format string, args ...any) *denial {
	return &denial{reason: r, message: fmt.Sprintf(format, args...)}
}

// recorded marks d as recorded.
func (d *denial) recorded() *denial {
	c := *d
	c.noted = true
	return &c
}

func (d *denial) code() int {
	if d.status != 0 {
		return d.status
	}
	switch d.reason {
	case ReasonUnauthenticated:
		return http.StatusUnauthorized
	case ReasonRequest:
		return http.StatusBadRequest
	case ReasonRate, ReasonBusy:
		return http.StatusTooManyRequests
	case ReasonClosed, ReasonUnrecorded:
		return http.StatusServiceUnavailable
	}
	return http.StatusForbidden
}

// slug is what Composio would call the error.
func (d *denial) slug() string { return "Gateway_" + string(d.reason) }
