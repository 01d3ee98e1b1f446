package gateway

import (
	"encoding/json"
	"fmt"

	"github.com/managemyclaw/hardshell/composio"
)

// maxNested is how many calls Composio takes in one.
const maxNested = 50

// multiVersion is the version under which the gateway offers its own
// COMPOSIO_MULTI_EXECUTE_TOOL.
const multiVersion = "20260101_00"

const multiDescription = "Executes several tools, one after the other, in the order given. All of them are judged before the first is executed: " +
	"if one is denied, none is executed."

var multiSchema = json.RawMessage(`{"type":"object","required":["tools"],"properties":{` +
	`"tools":{"type":"array","minItems":1,"maxItems":50,"items":{"type":"object","required":["tool_slug"],"properties":{` +
	`"tool_slug":{"type":"string"},"arguments":{"type":"object"}}}}}}`)

// unpack takes a call of COMPOSIO_MULTI_EXECUTE_TOOL apart. What the model
// notes down for itself beside the calls is not sent on, and so does not
// matter.
func unpack(arguments map[string]any) ([]ask, *denial) {
	r := newReader(arguments, multiExecute)
	list, _ := r.take("tools")
	calls, ok := list.([]any)
	if !ok || len(calls) == 0 || len(calls) > maxNested {
		return nil, deny(ReasonArguments, "%s.tools: it must be a list of 1 to %d calls", multiExecute, maxNested)
	}
	if r.flag("sync_response_to_workbench") {
		return nil, deny(ReasonArguments, "%s: answers cannot be put into a workbench: there is none", multiExecute)
	}
	for _, name := range []string{"thought", "memory", "current_step", "current_step_metric", "next_step", "session_id"} {
		r.take(name)
	}
	var asked []ask
	for i, c := range calls {
		in := reader{path: fmt.Sprintf("%s.tools[%d]", multiExecute, i), err: r.err}
		in.members = in.object(c, in.path)
		q := ask{slug: in.text("tool_slug"), accountID: in.text("account")}
		if q.slug == "" {
			in.fail(in.at("tool_slug"), "it is missing")
		}
		if v, ok := in.take("arguments"); ok {
			q.arguments = in.object(v, in.at("arguments"))
		}
		in.done("tool_slug, arguments and account")
		asked = append(asked, q)
	}
	r.done("tools, and what a model notes down for itself")
	if *r.err != nil {
		return nil, deny(ReasonArguments, "%v", *r.err)
	}
	return asked, nil
}

// An answer is what the API says of an execution.
type answer struct {
	Data       json.RawMessage `json:"data"`
	Error      *string         `json:"error"`
	Successful bool            `json:"successful"`
	LogID      string          `json:"log_id,omitempty"`
}

func newAnswer(d done) answer {
	if d.err != nil {
		text := failure(d.err).message
		return answer{Data: json.RawMessage("{}"), Error: &text}
	}
	a := answer{Data: d.res.Output.Bytes(), Successful: d.res.Successful, LogID: d.res.LogID}
	if a.Data == nil {
		a.Data = json.RawMessage("{}")
	}
	if !a.Successful {
		text := d.res.Failure.Reveal() // the tool's, for the agent
		a.Error = &text
	}
	return a
}

// together puts the outcomes of nested calls into one, as Composio does.
func together(all []done) done {
	type entry struct {
		Index    int    `json:"index"`
		Slug     string `json:"tool_slug"`
		Response answer `json:"response"`
	}
	var out struct {
		Results []entry `json:"results"`
		Total   int     `json:"total_count"`
		Success int     `json:"success_count"`
		Failed  int     `json:"error_count"`
	}
	for i, d := range all {
		a := newAnswer(d)
		out.Results = append(out.Results, entry{i, d.slug, a})
		out.Total++
		if a.Successful {
			out.Success++
		} else {
			out.Failed++
		}
	}
	data, err := composio.NewData(out)
	if err != nil {
		return done{slug: multiExecute, err: err}
	}
	return done{slug: multiExecute, res: composio.Result{Successful: out.Failed == 0, Output: data, Failure: composio.NewSecret(fmt.Sprintf("%d of %d calls were not successful", out.Failed, out.Total))}}
}
