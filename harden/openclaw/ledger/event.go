package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
)

// maxEvent is how large an event of a transcript may be. OpenClaw writes none
// above 4 MiB.
const maxEvent = 8 << 20

// An event is what matters of an event of a transcript: calls that the model
// asks for, or the result of one.
type event struct {
	time   time.Time // zero if it does not say
	run    string
	calls  []asked
	result *result
}

type asked struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
}

type result struct {
	callID, tool string
	status       Status
}

// parseEvent reads an event. Those that are not about tools are empty.
func parseEvent(data []byte) (event, error) {
	if len(data) > maxEvent {
		return event{}, fmt.Errorf("it has %d bytes", len(data))
	}
	// Most events are not about tools. Whoever writes them spells the names
	// out; an escape might hide one.
	if !bytes.Contains(data, []byte("toolCall")) && !bytes.Contains(data, []byte("toolResult")) && !bytes.Contains(data, []byte(`\u`)) {
		if !json.Valid(data) {
			return event{}, errors.New("it is not JSON")
		}
		return event{}, nil
	}
	var outer struct {
		Type      string          `json:"type"`
		Timestamp json.RawMessage `json:"timestamp"`
		Message   json.RawMessage `json:"message"`
	}
	if err := json.Unmarshal(data, &outer); err != nil {
		return event{}, errors.New("it is not a JSON object as it must be")
	}
	if outer.Type != "message" {
		return event{}, nil
	}
	var m struct {
		Role     string          `json:"role"`
		Content  json.RawMessage `json:"content"`
		CallID   string          `json:"toolCallId"`
		Tool     string          `json:"toolName"`
		IsError  bool            `json:"isError"`
		Details  json.RawMessage `json:"details"`
		OpenClaw struct {
			RunID string `json:"runId"`
		} `json:"__openclaw"`
	}
	if err := json.Unmarshal(outer.Message, &m); err != nil {
		return event{}, errors.New("its message is not as it must be")
	}
	e := event{run: m.OpenClaw.RunID}
	var stamp string
	if json.Unmarshal(outer.Timestamp, &stamp) == nil {
		if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			e.time = t.UTC()
		}
	}
	switch m.Role {
	case "assistant":
		calls, err := parseCalls(m.Content)
		if err != nil {
			return event{}, err
		}
		e.calls = calls
	case "toolResult":
		e.result = &result{callID: m.CallID, tool: m.Tool, status: StatusSucceeded}
		var details struct {
			Status string `json:"status"`
		}
		_ = json.Unmarshal(m.Details, &details) // tools put there what they like
		switch {
		case details.Status == "blocked":
			e.result.status = StatusBlocked
		case m.IsError:
			e.result.status = StatusFailed
		}
	}
	return e, nil
}

func parseCalls(content json.RawMessage) ([]asked, error) {
	if content = bytes.TrimSpace(content); !bytes.HasPrefix(content, []byte("[")) {
		return nil, nil // a text alone
	}
	var items []json.RawMessage
	if err := json.Unmarshal(content, &items); err != nil {
		return nil, errors.New("its content is not as it must be")
	}
	var calls []asked
	for _, item := range items {
		var kind struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(item, &kind) != nil || kind.Type != "toolCall" {
			continue
		}
		var a asked
		if err := json.Unmarshal(item, &a); err != nil {
			return nil, errors.New("a call in it is not as it must be")
		}
		calls = append(calls, a)
	}
	return calls, nil
}

// masked reports whether OpenClaw has masked something in what it wrote down:
// it puts asterisks, or an ellipsis in the middle.
func masked(arguments []byte) bool {
	return bytes.Contains(arguments, []byte("***")) || bytes.Contains(arguments, []byte("…"))
}

// inflate decompresses an event. What is compressed may be a bomb.
func inflate(data []byte) ([]byte, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxEvent), zstd.WithDecoderMaxWindow(maxEvent))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	out, err := d.DecodeAll(data, nil)
	if err != nil {
		return nil, fmt.Errorf("it cannot be decompressed: %w", err)
	}
	return out, nil
}
