package remote

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
)

// What the trail calls what was asked for; the kill itself is recorded by the
// switch.
const (
	kindCommand trail.Kind = "kill.command"
	kindLease   trail.Kind = "kill.lease"
)

const answerSchema = "hardshell.killswitch.answer/v1"

// signatureHeader carries the signature of an answer.
const signatureHeader = "Hardshell-Signature"

// An answer is what the server says, as JSON.
type answer struct {
	Schema    string          `json:"schema"`
	Outcome   outcome         `json:"outcome"`
	Code      Code            `json:"code,omitempty"` // why a command was refused
	Message   string          `json:"message,omitempty"`
	By        string          `json:"by,omitempty"` // the operator
	Now       int64           `json:"now"`          // by the server's clock, in milliseconds since 1970
	Challenge string          `json:"challenge,omitempty"`
	Receipt   json.RawMessage `json:"receipt,omitempty"`
	State     *State          `json:"state,omitempty"`
	Problems  string          `json:"problems,omitempty"` // of the server
}

type outcome string

const (
	outcomeChallenge outcome = "challenge"
	outcomeRefused   outcome = "refused"
	outcomeFired     outcome = "fired"  // there is a receipt
	outcomeFiring    outcome = "firing" // the kill goes on; ask again
	outcomeFailed    outcome = "failed" // the switch returned no receipt; ask again
	outcomeState     outcome = "state"
	outcomeRenewed   outcome = "renewed"
)

// A Code says why a command was refused.
type Code string

// The codes.
const (
	CodeMalformed    Code = "malformed"    // it is not a command
	CodeUnauthorized Code = "unauthorized" // it is not signed by an operator's key
	CodeElsewhere    Code = "elsewhere"    // it is for another switch or agent
	CodeStale        Code = "stale"        // it is not shown to be fresh; sign a challenge
	CodeReplayed     Code = "replayed"     // it was used before
	CodeLease        Code = "lease"        // there is no lease, or it has expired
	CodeTooMany      Code = "too_many"     // it was not valid, and neither were many before it
)

func (c Code) status() int {
	switch c {
	case CodeMalformed:
		return http.StatusBadRequest
	case CodeUnauthorized:
		return http.StatusUnauthorized
	case CodeElsewhere:
		return http.StatusMisdirectedRequest
	case CodeStale:
		return http.StatusForbidden
	case CodeReplayed, CodeLease:
		return http.StatusConflict
	case CodeTooMany:
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

// send sends an answer. If it is to a command that an operator signed, it is
// signed itself, together with that command, so that it answers no other.
func (h *Handler) send(w http.ResponseWriter, status int, to *signed, a answer) {
	a.Schema, a.Now = answerSchema, time.Now().UnixMilli()
	body, err := json.Marshal(a)
	if err != nil { // of our own types, none
		http.Error(w, "the answer cannot be written", http.StatusInternalServerError)
		return
	}
	if to != nil && h.cfg.Key.usable() {
		w.Header().Set(signatureHeader, base64.StdEncoding.EncodeToString(h.cfg.Key.sign(answerText(to.text, body))))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// answerText is what the server signs: which command it answers, and what.
func answerText(command, body []byte) []byte {
	return fmt.Appendf(nil, "%s\ncommand %x\nanswer %x\n", answerSchema, sha256.Sum256(command), sha256.Sum256(body))
}

func (h *Handler) command(w http.ResponseWriter, r *http.Request) {
	data, err := h.body(w, r, MaxCommand)
	if err != nil {
		h.refuse(w, r, CodeMalformed, "the command could not be read, or is too long")
		return
	}
	s, err := parseCommand(data)
	if err != nil {
		h.refuse(w, r, CodeMalformed, "it is not a command of "+commandHeader[:len(commandHeader)-1])
		return
	}
	who, ok := h.roster.author(&s)
	if !ok {
		h.refuse(w, r, CodeUnauthorized, "it is not signed by the key of an operator")
		return
	}
	// From here on it is an operator who asks.
	if s.Switch != h.cfg.Name || s.Agent != h.cfg.Agent {
		h.decline(w, r, &s, who, CodeElsewhere, "it is for another switch or another agent")
		return
	}
	if why := h.stale(&s); why != "" {
		h.decline(w, r, &s, who, CodeStale, why)
		return
	}
	if s.Action == Renew {
		h.renew(w, r, &s, who)
		return
	}
	if s.Action == Kill { // to be told twice how things are does no harm
		fresh, saved := h.nonces.use(s.key, s.Nonce)
		if !fresh {
			h.decline(w, r, &s, who, CodeReplayed, "it was used before: sign another")
			return
		}
		h.kill(w, r, &s, who, saved)
		return
	}
	state, err := h.state(r.Context())
	if err != nil {
		h.send(w, http.StatusOK, &s, answer{Outcome: outcomeState, By: who, Message: err.Error(), Problems: h.problems()})
		return
	}
	h.send(w, http.StatusOK, &s, answer{Outcome: outcomeState, By: who, State: &state, Problems: h.problems()})
}

// stale says why a command is not shown to be fresh, or returns "". A challenge
// shows it whatever the clocks say. To renew a lease takes one: what is safe
// there is to be refused.
func (h *Handler) stale(s *signed) string {
	if s.Challenge != "" {
		if age, ok := h.minter.check(ticketChallenge, h.cfg.Name, s.Challenge); !ok || age > challengeTime {
			return "the challenge is not one that this server gave in the last minute: get another"
		}
		return ""
	}
	if s.Action == Renew {
		return "to renew a lease, sign a challenge"
	}
	now := time.Now()
	switch {
	case now.Before(s.Issued.Add(-h.cfg.Skew)):
		return "by the clock here it was issued in the future: sign a challenge"
	case !now.Before(s.Expires.Add(h.cfg.Skew)):
		return "by the clock here it has expired: sign a challenge"
	}
	return ""
}

func (h *Handler) kill(w http.ResponseWriter, r *http.Request, s *signed, who string, saved <-chan struct{}) {
	f := h.fire(r, who, "by a signed command", s.Reason)
	h.record(r.Context(), trail.Event{
		Kind: kindCommand, Actor: "operator/" + who, Decision: trail.DecisionAllow, Message: s.Reason, RequestID: fmt.Sprintf("%x", s.Nonce),
		Attrs: map[string]string{"source": r.RemoteAddr, "key": s.key.String()},
	})
	a := answer{By: who}
	if !f.wait(r.Context()) {
		a.Outcome, a.Message = outcomeFiring, "the kill goes on, and has not ended yet"
		h.send(w, http.StatusAccepted, s, a)
		return
	}
	late := time.NewTimer(savedTime)
	defer late.Stop()
	select {
	case <-saved: // or not, which is among the problems
	case <-late.C:
	}
	a.Problems = h.problems()
	if f.err != nil {
		a.Message = f.err.Error()
	}
	if f.receipt != nil {
		receipt, err := json.Marshal(f.receipt)
		if err == nil {
			a.Outcome, a.Receipt = outcomeFired, receipt
			h.send(w, http.StatusOK, s, a)
			return
		}
		a.Message = "the receipt cannot be written: " + err.Error()
	}
	a.Outcome = outcomeFailed
	h.send(w, http.StatusInternalServerError, s, a)
}

func (h *Handler) problems() string {
	if err := h.Problems(); err != nil {
		return err.Error()
	}
	return ""
}

var errNoState = errors.New("remote: nothing here says whether the agent is stopped")

func (h *Handler) state(ctx context.Context) (s State, err error) {
	if h.cfg.State == nil {
		return State{}, errNoState
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("remote: the state cannot be told: %v", v)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	return h.cfg.State(ctx)
}

// refuse refuses what no operator has signed. It takes little.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, code Code, why string) {
	if !h.refusals.allow(source(r)) {
		h.send(w, CodeTooMany.status(), nil, answer{Outcome: outcomeRefused, Code: CodeTooMany, Message: "it is not valid, and neither were many before it"})
		return
	}
	h.record(r.Context(), trail.Event{Kind: kindCommand, Decision: trail.DecisionDeny, Message: why, Attrs: map[string]string{"source": r.RemoteAddr, "code": string(code)}})
	h.send(w, code.status(), nil, answer{Outcome: outcomeRefused, Code: code, Message: why})
}

// decline refuses what an operator has signed.
func (h *Handler) decline(w http.ResponseWriter, r *http.Request, s *signed, who string, code Code, why string) {
	// Whoever has heard a command can send it again: it is no more than a
	// stranger who may do so.
	if h.refusals.allow(source(r)) {
		h.record(r.Context(), trail.Event{
			Kind: kindCommand, Actor: "operator/" + who, Decision: trail.DecisionDeny, Message: why, RequestID: fmt.Sprintf("%x", s.Nonce),
			Attrs: map[string]string{"source": r.RemoteAddr, "code": string(code), "key": s.key.String()},
		})
	}
	h.send(w, code.status(), s, answer{Outcome: outcomeRefused, Code: code, Message: why, By: who})
}

func (h *Handler) renew(w http.ResponseWriter, r *http.Request, s *signed, who string) {
	if h.cfg.Lease == nil {
		h.decline(w, r, s, who, CodeLease, "there is no lease here")
		return
	}
	if !h.renewed.use(s.Challenge) {
		h.decline(w, r, s, who, CodeReplayed, "the challenge was used before, or there were too many: get another")
		return
	}
	if err := h.cfg.Lease.Renew(r.Context(), "operator/"+who); err != nil {
		h.decline(w, r, s, who, CodeLease, err.Error())
		return
	}
	h.record(r.Context(), trail.Event{
		Kind: kindLease, Actor: "operator/" + who, Decision: trail.DecisionAllow, Message: s.Reason, RequestID: fmt.Sprintf("%x", s.Nonce),
		Attrs: map[string]string{"source": r.RemoteAddr, "key": s.key.String()},
	})
	h.send(w, http.StatusOK, s, answer{Outcome: outcomeRenewed, By: who})
}
