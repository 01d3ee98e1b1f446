package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/managemyclaw/hardshell/composio"
)

// What an agent may ask for over MCP. The gateway offers tools, and neither
// prompts nor resources.
var mcpMethods = []string{"initialize", "notifications/initialized", "notifications/cancelled", "ping", "server/discover", "tools/list", methodCall}

const methodCall = "tools/call"

// An mcpDoor is what one agent sees over MCP under one policy. It keeps no
// sessions: each request brings its token, so that there is nothing of another
// agent's that could be taken over.
type mcpDoor struct {
	gateway *Gateway
	agent   *agent
	handler *mcp.StreamableHTTPHandler
}

type requestKey struct{}

func (g *Gateway) newMCPDoor(a *agent) *mcpDoor {
	d := &mcpDoor{gateway: g, agent: a}
	quiet := slog.New(slog.DiscardHandler) // it would log what agents send
	server := mcp.NewServer(&mcp.Implementation{Name: "hardshell", Version: "1"}, &mcp.ServerOptions{
		Logger:       quiet,
		PageSize:     maxPage,
		Capabilities: &mcp.ServerCapabilities{Tools: &mcp.ToolCapabilities{}},
	})
	for _, slug := range a.offered() {
		t := a.describe(slug)
		hints := mcp.ToolAnnotations{Title: t.Name}
		if granted := a.tools[slug]; granted != nil {
			destroys := granted.class == composio.ClassDestructive
			hints.ReadOnlyHint, hints.DestructiveHint = granted.class == composio.ClassRead, &destroys
		}
		server.AddTool(&mcp.Tool{Name: slug, Title: t.Name, Description: t.Description, InputSchema: t.Input, Annotations: &hints}, unreachable)
	}
	server.AddReceivingMiddleware(d.intercept)
	d.handler = mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{
		Stateless:                  true,
		JSONResponse:               true,
		Logger:                     quiet,
		MaxRequestBodyBytes:        g.cfg.MaxBodyBytes * 6, // what was judged is written anew, with escapes
		DisableLocalhostProtection: true,                   // Config.Hosts is stricter
	})
	return d
}

// unreachable stands in for a handler: calls are taken by intercept.
func unreachable(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	return refusal(deny(ReasonEndpoint, "the gateway is not put together right"), ""), nil
}

// intercept takes the calls of tools, so that those of tools that the agent
// does not have are decided on, and recorded, like all others.
func (d *mcpDoor) intercept(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		if method != methodCall {
			return next(ctx, method, req)
		}
		rq, _ := ctx.Value(requestKey{}).(*request)
		call, ok := req.(*mcp.CallToolRequest)
		if rq == nil || !ok || rq.agent != d.agent {
			return unreachable(ctx, nil)
		}
		return d.call(ctx, rq, call.Params), nil
	}
}

func (d *mcpDoor) call(ctx context.Context, rq *request, params *mcp.CallToolParamsRaw) *mcp.CallToolResult {
	q := ask{slug: params.Name}
	if len(params.Arguments) > 0 {
		v, err := parseJSON(params.Arguments)
		arguments, ok := v.(map[string]any)
		if err != nil || !ok {
			why := deny(ReasonArguments, "the arguments are not an object")
			return refusal(d.gateway.refuse(ctx, rq, []ask{q}, nil, why), rq.id)
		}
		q.arguments = arguments
	}
	result, why := d.gateway.perform(ctx, rq, q)
	if why != nil {
		return refusal(why, rq.id)
	}
	a := newAnswer(result)
	text, err := json.Marshal(a)
	if err != nil {
		return refusal(failure(err), rq.id)
	}
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: string(text)}}, StructuredContent: json.RawMessage(text), IsError: !a.Successful}
}

// refusal says no in a way that the model gets to see.
func refusal(d *denial, id string) *mcp.CallToolResult {
	return &mcp.CallToolResult{
		Content:           []mcp.Content{&mcp.TextContent{Text: "denied: " + d.Error()}},
		StructuredContent: map[string]any{"denied": true, "reason": d.reason, "message": d.message, "request_id": id},
		IsError:           true,
	}
}

// serveMCP reads the message strictly and hands on what it has read, written
// anew.
func (g *Gateway) serveMCP(w http.ResponseWriter, r *http.Request, rq *request) *denial {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &denial{reason: ReasonEndpoint, message: "MCP is spoken with POST here: there are no sessions and no streams", status: http.StatusMethodNotAllowed}
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return deny(ReasonRequest, "there is no query here")
	}
	body, d := g.readBody(w, r)
	if d != nil {
		return d
	}
	message, d := decodeMessage(body)
	if d != nil {
		return d
	}
	clean, err := json.Marshal(message)
	if err != nil {
		return deny(ReasonRequest, "the message cannot be written anew")
	}
	in := r.Clone(context.WithValue(r.Context(), requestKey{}, rq))
	in.Body, in.ContentLength, in.TransferEncoding = io.NopCloser(bytes.NewReader(clean)), int64(len(clean)), nil
	in.Header = make(http.Header)
	for name, values := range r.Header {
		if name == "Accept" || name == "Content-Type" || strings.HasPrefix(name, "Mcp-") && name != "Mcp-Session-Id" {
			in.Header[name] = values
		}
	}
	rq.agent.mcp.handler.ServeHTTP(w, in)
	return nil
}

// decodeMessage reads one message of JSON-RPC from an agent.
func decodeMessage(body []byte) (map[string]any, *denial) {
	v, err := parseJSON(body)
	if err != nil {
		return nil, deny(ReasonRequest, "the body is not what it must be: %v", err)
	}
	message, ok := v.(map[string]any)
	if !ok {
		return nil, deny(ReasonRequest, "the body is not one message: there are no batches")
	}
	r := newReader(message, "")
	version, method := r.text("jsonrpc"), r.text("method")
	id, hasID := r.take("id")
	params, hasParams := r.within("params")
	r.done("jsonrpc, id, method and params")
	switch id.(type) {
	case string, json.Number:
	default:
		if hasID {
			r.fail("id", "it must be a text or a number")
		}
	}
	if version != "2.0" {
		r.fail("jsonrpc", `it must be "2.0"`)
	}
	if *r.err != nil {
		return nil, deny(ReasonRequest, "%v", *r.err)
	}
	switch {
	case !slices.Contains(mcpMethods, method):
		return nil, deny(ReasonEndpoint, "method %s is not offered: there are tools, and nothing else", quote(method))
	case hasID == strings.HasPrefix(method, "notifications/"):
		return nil, deny(ReasonRequest, "requests have an id, and notifications have none")
	case method == methodCall && !hasParams:
		return nil, deny(ReasonRequest, "params: it is missing")
	case method == methodCall:
		params.text("name")
		if v, ok := params.take("arguments"); ok {
			params.object(v, "params.arguments")
		}
		params.take("_meta")
		params.done("name, arguments and _meta")
		if *r.err != nil {
			return nil, deny(ReasonRequest, "%v", *r.err)
		}
	}
	return message, nil
}
