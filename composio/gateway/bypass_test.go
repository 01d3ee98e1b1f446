package gateway_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/composio/gateway"
)

// A bypass is one attempt to get something past the policy.
type bypass struct {
	name   string
	reason gateway.Reason
	try    func(*world) *http.Request
}

func post(path string, body any) func(*world) *http.Request {
	return func(w *world) *http.Request { return w.request("POST", path, body) }
}

func get(path string) func(*world) *http.Request {
	return func(w *world) *http.Request { return w.request("GET", path, nil) }
}

// fetch is the body of a call that is allowed, with something else in it.
func fetch(with object) object {
	body := object{"user_id": "ann", "version": version, "arguments": object{"query": "x"}}
	maps.Copy(body, with)
	return body
}

const fetchPath = "/api/v3.1/tools/execute/GMAIL_FETCH_EMAILS"

// header is a call that is allowed, with a header that is not.
func header(name string, values ...string) func(*world) *http.Request {
	return func(w *world) *http.Request {
		r := w.request("POST", fetchPath, fetch(nil))
		r.Header[http.CanonicalHeaderKey(name)] = values
		return r
	}
}

func call(tool string, arguments any) func(*world) *http.Request {
	return message(object{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": object{"name": tool, "arguments": arguments}})
}

func message(m any) func(*world) *http.Request {
	return func(w *world) *http.Request { return w.mcpRequest(m) }
}

func nested(tools ...any) object { return object{"tools": tools} }

func entry(slug string, arguments any) object {
	return object{"tool_slug": slug, "arguments": arguments}
}

var bypasses = []bypass{
	// Tools that are not granted.
	{"a tool that is not granted", gateway.ReasonTool, post("/api/v3.1/tools/execute/GMAIL_SEND_EMAIL", fetch(nil))},
	{"a tool of another agent", gateway.ReasonTool, post("/api/v3.1/tools/execute/GOOGLECALENDAR_EVENTS_LIST", fetch(nil))},
	{"a tool that does not exist", gateway.ReasonTool, post("/api/v3.1/tools/execute/GMAIL_NO_SUCH_THING", fetch(nil))},
	{"the workbench", gateway.ReasonTool, post("/api/v3.1/tools/execute/COMPOSIO_REMOTE_WORKBENCH", fetch(nil))},
	{"remote bash", gateway.ReasonTool, post("/api/v3.1/tools/execute/COMPOSIO_REMOTE_BASH_TOOL", fetch(nil))},
	{"managing connections", gateway.ReasonTool, post("/api/v3.1/tools/execute/COMPOSIO_MANAGE_CONNECTIONS", fetch(nil))},
	{"searching all tools", gateway.ReasonTool, post("/api/v3.1/tools/execute/COMPOSIO_SEARCH_TOOLS", fetch(nil))},
	{"looking up a tool that is not granted", gateway.ReasonTool, get("/api/v3.1/tools/GMAIL_SEND_EMAIL")},

	// Spellings of a tool.
	{"lower case", gateway.ReasonEndpoint, post("/api/v3.1/tools/execute/gmail_fetch_emails", fetch(nil))},
	{"an escaped letter", gateway.ReasonEndpoint, post("/api/v3.1/tools/execute/GMAIL_FETCH_EMAIL%53", fetch(nil))},
	{"an escaped slash", gateway.ReasonEndpoint, post("/api/v3.1/tools/execute%2FGMAIL_SEND_EMAIL", fetch(nil))},
	{"a double escape", gateway.ReasonEndpoint, post("/api/v3.1/tools/execute/GMAIL%255FSEND_EMAIL", fetch(nil))},
	{"a path that climbs", gateway.ReasonEndpoint, post("/api/v3.1/tools/execute/GMAIL_FETCH_EMAILS/../GMAIL_SEND_EMAIL", fetch(nil))},
	{"an escaped climb", gateway.ReasonEndpoint, post("/api/v3.1/tools/execute/GMAIL_FETCH_EMAILS/..%2FGMAIL_SEND_EMAIL", fetch(nil))},
	{"a double slash", gateway.ReasonEndpoint, post("/api/v3.1//tools/execute/GMAIL_FETCH_EMAILS", fetch(nil))},
	{"a slash at the end", gateway.ReasonEndpoint, post(fetchPath+"/", fetch(nil))},
	{"a dot segment", gateway.ReasonEndpoint, post("/api/v3.1/./tools/execute/GMAIL_FETCH_EMAILS", fetch(nil))},
	{"a parameter of the path", gateway.ReasonEndpoint, post(fetchPath+";a=b", fetch(nil))},
	{"a letter of another alphabet", gateway.ReasonEndpoint, post("/api/v3.1/tools/execute/GM%D0%90IL_FETCH_EMAILS", fetch(nil))},
	{"a line break in the path", gateway.ReasonEndpoint, post(fetchPath+"%0a", fetch(nil))},

	// Other doors of the API.
	{"the proxy", gateway.ReasonEndpoint, post("/api/v3.1/tools/execute/proxy", object{"endpoint": "https://gmail.googleapis.com/", "method": "DELETE"})},
	{"making up arguments", gateway.ReasonEndpoint, post("/api/v3.1/tools/execute/GMAIL_FETCH_EMAILS/input", object{"text": "all"})},
	{"the older API", gateway.ReasonEndpoint, post("/api/v3/tools/execute/GMAIL_FETCH_EMAILS", fetch(nil))},
	{"the oldest API", gateway.ReasonEndpoint, post("/api/v2/actions/GMAIL_FETCH_EMAILS/execute", fetch(nil))},
	{"connecting an account", gateway.ReasonEndpoint, post("/api/v3.1/connected_accounts/link", object{"user_id": "ann", "auth_config_id": "ac_1"})},
	{"listing accounts", gateway.ReasonEndpoint, get("/api/v3.1/connected_accounts")},
	{"deleting an account", gateway.ReasonEndpoint, func(w *world) *http.Request { return w.request("DELETE", "/api/v3.1/connected_accounts/ca_mail", nil) }},
	{"enabling an account", gateway.ReasonEndpoint, func(w *world) *http.Request {
		return w.request("PATCH", "/api/v3.1/connected_accounts/ca_mail/status", object{"enabled": true})
	}},
	{"making a session", gateway.ReasonEndpoint, post("/api/v3.1/tool_router/session", object{"user_id": "ann"})},
	{"executing in a session", gateway.ReasonEndpoint, post("/api/v3.1/tool_router/session/trs_1/execute", object{"tool_slug": "GMAIL_SEND_EMAIL"})},
	{"executing a meta tool in a session", gateway.ReasonEndpoint, post("/api/v3.1/tool_router/session/trs_1/execute_meta", object{"slug": "COMPOSIO_REMOTE_WORKBENCH"})},
	{"the proxy of a session", gateway.ReasonEndpoint, post("/api/v3.1/tool_router/session/trs_1/proxy_execute", object{"endpoint": "/x"})},
	{"MCP of a session", gateway.ReasonEndpoint, post("/tool_router/trs_1/mcp", object{})},
	{"making an MCP server", gateway.ReasonEndpoint, post("/api/v3.1/mcp/servers", object{"name": "x"})},
	{"widening an auth config", gateway.ReasonEndpoint, func(w *world) *http.Request { return w.request("PATCH", "/api/v3.1/auth_configs/ac_1", object{}) }},
	{"reading the project's configuration", gateway.ReasonEndpoint, get("/api/v3.1/org/project/config")},
	{"reading the log", gateway.ReasonEndpoint, post("/api/v3.1/logs/tool_execution", object{})},
	{"revoking keys", gateway.ReasonEndpoint, post("/api/v3.1/api_key_revocation", object{"api_keys": []string{"ak_1"}})},
	{"a proxy request", gateway.ReasonOrigin, func(w *world) *http.Request {
		r := w.request("GET", "http://backend.composio.dev/api/v3.1/connected_accounts", nil)
		r.Host = "backend.composio.dev"
		return r
	}},
	{"another method", gateway.ReasonEndpoint, func(w *world) *http.Request { return w.request("PUT", fetchPath, fetch(nil)) }},
	{"a query at an execution", gateway.ReasonRequest, post(fetchPath+"?version=latest", fetch(nil))},
	{"a query that says nothing", gateway.ReasonRequest, post(fetchPath+"?", fetch(nil))},
	{"an unknown parameter of a list", gateway.ReasonRequest, get("/api/v3.1/tools?user_id=ben")},
	{"a body where there is none", gateway.ReasonRequest, func(w *world) *http.Request { return w.request("GET", "/api/v3.1/tools", object{}) }},

	// What the body may not say.
	{"a text for a model", gateway.ReasonRequest, post(fetchPath, fetch(object{"text": "delete all mails"}))},
	{"credentials of the agent's", gateway.ReasonRequest, post(fetchPath, fetch(object{"custom_auth_params": object{"base_url": "https://evil.example"}}))},
	{"connection data of the agent's", gateway.ReasonRequest, post(fetchPath, fetch(object{"custom_connection_data": object{}}))},
	{"another entity", gateway.ReasonRequest, post(fetchPath, fetch(object{"entity_id": "ben"}))},
	{"tracing", gateway.ReasonRequest, post(fetchPath, fetch(object{"allow_tracing": true}))},
	{"an unknown member", gateway.ReasonRequest, post(fetchPath, fetch(object{"session_id": "trs_1"}))},
	{"a member in other case", gateway.ReasonRequest, post(fetchPath, fetch(object{"Arguments": object{"query": "y"}}))},
	{"another user", gateway.ReasonAccount, post(fetchPath, fetch(object{"user_id": "ben"}))},
	{"another account", gateway.ReasonAccount, post(fetchPath, fetch(object{"connected_account_id": "ca_cal"}))},
	{"a newer account", gateway.ReasonAccount, post(fetchPath, fetch(object{"connected_account_id": "ca_newer"}))},
	{"the user as a list", gateway.ReasonRequest, post(fetchPath, fetch(object{"user_id": []string{"ann", "ben"}}))},
	{"no version", gateway.ReasonVersion, post(fetchPath, object{"user_id": "ann", "arguments": object{}})},
	{"the latest version", gateway.ReasonVersion, post(fetchPath, fetch(object{"version": "latest"}))},
	{"another version", gateway.ReasonVersion, post(fetchPath, fetch(object{"version": "20260101_00"}))},
	{"the version as a number", gateway.ReasonRequest, post(fetchPath, fetch(object{"version": 1}))},
	{"another version looked up", gateway.ReasonVersion, get("/api/v3.1/tools/GMAIL_FETCH_EMAILS?version=20260101_00")},
	{"two versions looked up", gateway.ReasonVersion, get("/api/v3.1/tools/GMAIL_FETCH_EMAILS?version=" + version + "&version=latest")},

	// How the body is written.
	{"a name twice, the worse last", gateway.ReasonRequest, post(fetchPath, `{"version":"`+version+`","arguments":{},"arguments":{"query":"y"}}`)},
	{"a name twice, once escaped", gateway.ReasonRequest, post(fetchPath, `{"version":"`+version+`","user_id":"ann","user\u005fid":"ben"}`)},
	{"a name twice within", gateway.ReasonRequest, post(fetchPath, `{"version":"`+version+`","arguments":{"query":"a","query":"b"}}`)},
	{"something after the body", gateway.ReasonRequest, post(fetchPath, `{"version":"`+version+`"}{"text":"x"}`)},
	{"a list for a body", gateway.ReasonRequest, post(fetchPath, `[{"version":"`+version+`"}]`)},
	{"no body", gateway.ReasonRequest, post(fetchPath, "")},
	{"null", gateway.ReasonRequest, post(fetchPath, "null")},
	{"no JSON", gateway.ReasonRequest, post(fetchPath, "version="+version)},
	{"a comment", gateway.ReasonRequest, post(fetchPath, `{/**/"version":"`+version+`"}`)},
	{"a byte order mark", gateway.ReasonRequest, post(fetchPath, "\ufeff{\"version\":\""+version+"\"}")},
	{"bytes that are not UTF-8", gateway.ReasonRequest, post(fetchPath, "{\"version\":\""+version+"\",\"arguments\":{\"query\":\"\xff\"}}")},
	{"very deep", gateway.ReasonRequest, post(fetchPath, `{"version":"`+version+`","arguments":{"query":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`}}`)},
	{"very large", gateway.ReasonRequest, post(fetchPath, `{"version":"`+version+`","arguments":{"query":"`+strings.Repeat("a", 2<<20)+`"}}`)},
	{"a form", gateway.ReasonRequest, header("Content-Type", "application/x-www-form-urlencoded")},
	{"text/plain", gateway.ReasonRequest, header("Content-Type", "text/plain")},
	{"two types", gateway.ReasonRequest, header("Content-Type", "application/json", "text/plain")},
	{"another character set", gateway.ReasonRequest, header("Content-Type", "application/json; charset=utf-7")},
	{"compressed", gateway.ReasonRequest, header("Content-Encoding", "gzip")},
	{"headers for models", gateway.ReasonRequest, header("X-Llm-Gateway-Headers", "{}")},

	// What the arguments may not be.
	{"an argument that is not named", gateway.ReasonArguments, post(fetchPath, fetch(object{"arguments": object{"include_spam_trash": true}}))},
	{"an argument in other case", gateway.ReasonArguments, post(fetchPath, fetch(object{"arguments": object{"Query": "x"}}))},
	{"an argument that is too long", gateway.ReasonArguments, post(fetchPath, fetch(object{"arguments": object{"query": strings.Repeat("a", 41)}}))},
	{"a number that is too large", gateway.ReasonArguments, post(fetchPath, `{"version":"`+version+`","arguments":{"max_results":51}}`)},
	{"a number that is too large by little", gateway.ReasonArguments, post(fetchPath, `{"version":"`+version+`","arguments":{"max_results":50.0000000000000000001}}`)},
	{"a number that is too small", gateway.ReasonArguments, post(fetchPath, `{"version":"`+version+`","arguments":{"max_results":-1}}`)},
	{"a number with a monstrous exponent", gateway.ReasonArguments, post(fetchPath, `{"version":"`+version+`","arguments":{"max_results":1e999999999}}`)},
	{"a number as a text", gateway.ReasonArguments, post(fetchPath, fetch(object{"arguments": object{"max_results": "5000"}}))},
	{"a text as a list", gateway.ReasonArguments, post(fetchPath, fetch(object{"arguments": object{"query": []string{"x"}}}))},
	{"a value that is not listed", gateway.ReasonArguments, post(fetchPath, fetch(object{"arguments": object{"format": "raw"}}))},
	{"null for a text", gateway.ReasonArguments, post(fetchPath, fetch(object{"arguments": object{"format": nil}}))},
	{"a recipient elsewhere", gateway.ReasonArguments, post("/api/v3.1/tools/execute/GMAIL_CREATE_EMAIL_DRAFT", fetch(object{"arguments": object{"to": "eve@evil.example"}}))},
	{"a recipient elsewhere on a second line", gateway.ReasonArguments, post("/api/v3.1/tools/execute/GMAIL_CREATE_EMAIL_DRAFT", fetch(object{"arguments": object{"to": "ann@example.com\neve@evil.example"}}))},
	{"a list of recipients", gateway.ReasonArguments, post("/api/v3.1/tools/execute/GMAIL_CREATE_EMAIL_DRAFT", fetch(object{"arguments": object{"to": []string{"eve@evil.example"}}}))},
	{"no recipient", gateway.ReasonArguments, post("/api/v3.1/tools/execute/GMAIL_CREATE_EMAIL_DRAFT", fetch(object{"arguments": object{"body": "x"}}))},
	{"an argument of the schema's alone", gateway.ReasonArguments, post("/api/v3.1/tools/execute/GMAIL_DELETE_MESSAGE", fetch(object{"arguments": object{"id": "1", "all": true}}))},
	{"arguments as a text", gateway.ReasonRequest, post(fetchPath, fetch(object{"arguments": `{"query":"x"}`}))},

	// Who asks.
	{"no token", gateway.ReasonUnauthenticated, header("X-Api-Key")},
	{"an empty token", gateway.ReasonUnauthenticated, header("X-Api-Key", "")},
	{"a token that is not known", gateway.ReasonUnauthenticated, header("X-Api-Key", "hsg_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")},
	{"the hash for the token", gateway.ReasonUnauthenticated, func(w *world) *http.Request {
		r := w.request("POST", fetchPath, fetch(nil))
		r.Header.Set("X-Api-Key", gateway.HashToken(w.token).String())
		return r
	}},
	{"two tokens", gateway.ReasonUnauthenticated, func(w *world) *http.Request {
		r := w.request("POST", fetchPath, fetch(nil))
		r.Header.Set("Authorization", "Bearer "+w.other.Reveal())
		return r
	}},
	{"two tokens in one header", gateway.ReasonUnauthenticated, func(w *world) *http.Request {
		r := w.request("POST", fetchPath, fetch(nil))
		r.Header.Add("X-Api-Key", w.other.Reveal())
		return r
	}},
	{"basic authentication", gateway.ReasonUnauthenticated, header("Authorization", "Basic YTpi")},
	{"a user's key", gateway.ReasonUnauthenticated, header("X-User-Api-Key", "uak_1")},
	{"an organization's key", gateway.ReasonUnauthenticated, header("X-Org-Api-Key", "oak_1")},
	{"a consumer's key", gateway.ReasonUnauthenticated, header("X-Consumer-Api-Key", "ck_1")},
	{"the token in the query", gateway.ReasonUnauthenticated, func(w *world) *http.Request {
		r := w.request("GET", "/api/v3.1/tools?api_key="+w.token.Reveal(), nil)
		r.Header.Del("X-Api-Key")
		return r
	}},
	{"another agent's tool with its own token", gateway.ReasonTool, func(w *world) *http.Request {
		r := w.request("POST", fetchPath, fetch(nil))
		r.Header.Set("X-Api-Key", w.other.Reveal())
		return r
	}},
	{"a web page", gateway.ReasonOrigin, header("Origin", "https://evil.example")},
	{"a web page without an origin", gateway.ReasonOrigin, header("Origin", "null")},
	{"a web page of this host", gateway.ReasonOrigin, header("Sec-Fetch-Site", "same-origin")},
	{"a name that was made to point here", gateway.ReasonOrigin, func(w *world) *http.Request {
		r := w.request("POST", fetchPath, fetch(nil))
		r.Host = "rebound.evil.example:8080"
		return r
	}},

	// MCP.
	{"mcp: a tool that is not granted", gateway.ReasonTool, call("GMAIL_SEND_EMAIL", object{})},
	{"mcp: a tool in lower case", gateway.ReasonTool, call("gmail_fetch_emails", object{})},
	{"mcp: a tool with a space", gateway.ReasonTool, call("GMAIL_FETCH_EMAILS ", object{})},
	{"mcp: a tool with a null byte", gateway.ReasonTool, call("GMAIL_FETCH_EMAILS\x00", object{})},
	{"mcp: the workbench", gateway.ReasonTool, call("COMPOSIO_REMOTE_WORKBENCH", object{"code": "run_composio_tool()"})},
	{"mcp: remote bash", gateway.ReasonTool, call("COMPOSIO_REMOTE_BASH_TOOL", object{"command": "id"})},
	{"mcp: managing connections", gateway.ReasonTool, call("COMPOSIO_MANAGE_CONNECTIONS", object{"toolkits": []string{"gmail"}})},
	{"mcp: an argument that is not named", gateway.ReasonArguments, call("GMAIL_FETCH_EMAILS", object{"q": "x"})},
	{"mcp: arguments as a list", gateway.ReasonRequest, call("GMAIL_FETCH_EMAILS", []string{"x"})},
	{"mcp: a batch", gateway.ReasonRequest, message([]any{object{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": object{"name": "GMAIL_FETCH_EMAILS"}}})},
	{"mcp: two messages", gateway.ReasonRequest, message(`{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"GMAIL_FETCH_EMAILS"}}`)},
	{"mcp: a method twice", gateway.ReasonRequest, message(`{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"GMAIL_FETCH_EMAILS"}}`)},
	{"mcp: a name twice", gateway.ReasonRequest, message(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"GMAIL_FETCH_EMAILS","name":"GMAIL_SEND_EMAIL"}}`)},
	{"mcp: a name in other case", gateway.ReasonRequest, message(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"GMAIL_FETCH_EMAILS","Name":"GMAIL_SEND_EMAIL"}}`)},
	{"mcp: a method in other case", gateway.ReasonRequest, message(`{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"GMAIL_FETCH_EMAILS"}}`)},
	{"mcp: a call as a notification", gateway.ReasonRequest, message(object{"jsonrpc": "2.0", "method": "tools/call", "params": object{"name": "GMAIL_FETCH_EMAILS"}})},
	{"mcp: a call without parameters", gateway.ReasonRequest, message(object{"jsonrpc": "2.0", "id": 1, "method": "tools/call"})},
	{"mcp: a call that carries on another", gateway.ReasonRequest, message(object{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": object{"name": "GMAIL_FETCH_EMAILS", "requestState": "x"}})},
	{"mcp: an answer that nobody asked for", gateway.ReasonRequest, message(object{"jsonrpc": "2.0", "id": 1, "result": object{}})},
	{"mcp: prompts", gateway.ReasonEndpoint, message(object{"jsonrpc": "2.0", "id": 1, "method": "prompts/list"})},
	{"mcp: resources", gateway.ReasonEndpoint, message(object{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": object{"uri": "file:///etc/passwd"}})},
	{"mcp: completion", gateway.ReasonEndpoint, message(object{"jsonrpc": "2.0", "id": 1, "method": "completion/complete"})},
	{"mcp: the log level", gateway.ReasonEndpoint, message(object{"jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": object{"level": "debug"}})},
	{"mcp: listening", gateway.ReasonEndpoint, message(object{"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": object{}})},
	{"mcp: a stream", gateway.ReasonEndpoint, func(w *world) *http.Request { return w.request("GET", "/mcp", nil) }},
	{"mcp: ending another's session", gateway.ReasonEndpoint, func(w *world) *http.Request {
		r := w.request("DELETE", "/mcp", nil)
		r.Header.Set("Mcp-Session-Id", "AAAA")
		return r
	}},
	{"mcp: another path", gateway.ReasonEndpoint, func(w *world) *http.Request {
		r := w.mcpRequest(object{"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
		r.URL.Path = "/MCP"
		return r
	}},
	{"mcp: a web page", gateway.ReasonOrigin, func(w *world) *http.Request {
		r := w.mcpRequest(object{"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
		r.Header.Set("Origin", "http://localhost:8080")
		return r
	}},
	{"mcp: no token", gateway.ReasonUnauthenticated, func(w *world) *http.Request {
		r := w.mcpRequest(object{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": object{"name": "GMAIL_FETCH_EMAILS"}})
		r.Header.Del("Authorization")
		r.Header.Set("Mcp-Session-Id", "AAAA")
		return r
	}},

	// Calls within calls.
	{"nested: one that is not granted", gateway.ReasonTool, call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_FETCH_EMAILS", object{}), entry("GMAIL_SEND_EMAIL", object{})))},
	{"nested: the workbench", gateway.ReasonTool, call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("COMPOSIO_REMOTE_WORKBENCH", object{})))},
	{"nested: itself", gateway.ReasonTool, call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_FETCH_EMAILS", object{})))))},
	{"nested: with arguments that are denied", gateway.ReasonArguments, call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_FETCH_EMAILS", object{}), entry("GMAIL_FETCH_EMAILS", object{"x": 1})))},
	{"nested: with another account", gateway.ReasonAccount, call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(object{"tool_slug": "GMAIL_FETCH_EMAILS", "arguments": object{}, "account": "ca_newer"}))},
	{"nested: with an unknown member", gateway.ReasonArguments, call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(object{"tool_slug": "GMAIL_FETCH_EMAILS", "text": "all"}))},
	{"nested: none", gateway.ReasonArguments, call("COMPOSIO_MULTI_EXECUTE_TOOL", nested())},
	{"nested: too many", gateway.ReasonArguments, func(w *world) *http.Request {
		var many []any
		for range 51 {
			many = append(many, entry("GMAIL_FETCH_EMAILS", object{}))
		}
		return call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(many...))(w)
	}},
	{"nested: into a workbench", gateway.ReasonArguments, call("COMPOSIO_MULTI_EXECUTE_TOOL", object{"tools": []any{entry("GMAIL_FETCH_EMAILS", object{})}, "sync_response_to_workbench": true})},
	{"nested: as a text", gateway.ReasonArguments, call("COMPOSIO_MULTI_EXECUTE_TOOL", object{"tools": `[{"tool_slug":"GMAIL_SEND_EMAIL"}]`})},
	{"nested over the API: one that is not granted", gateway.ReasonTool, post("/api/v3.1/tools/execute/COMPOSIO_MULTI_EXECUTE_TOOL", object{"version": "20260101_00", "arguments": nested(entry("GMAIL_FETCH_EMAILS", object{}), entry("GMAIL_SEND_EMAIL", object{}))})},
	{"nested over the API: as another user", gateway.ReasonAccount, post("/api/v3.1/tools/execute/COMPOSIO_MULTI_EXECUTE_TOOL", object{"version": "20260101_00", "user_id": "ben", "arguments": nested(entry("GMAIL_FETCH_EMAILS", object{}))})},
	{"nested, by an agent that may not", gateway.ReasonTool, func(w *world) *http.Request {
		r := call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GOOGLECALENDAR_EVENTS_LIST", object{})))(w)
		r.Header.Set("Authorization", "Bearer "+w.other.Reveal())
		return r
	}},
}

// Every attempt is denied, for the reason expected, and recorded, and nothing
// of it reaches Composio.
func TestBypass(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, b := range bypasses {
		if seen[b.name] {
			t.Errorf("%s is there twice", b.name)
		}
		seen[b.name] = true
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			before := len(w.composio.Requests())
			rec := w.send(b.try(w))
			if !refused(rec) {
				t.Errorf("it was not refused: %d %s", rec.Code, rec.Body)
			}
			if n := len(w.composio.Requests()) - before; n != 0 || len(w.composio.Executions()) != 0 {
				t.Errorf("%d requests reached Composio: executed %v", n, w.executed())
			}
			denials := w.trail.denials()
			if len(denials) == 0 {
				t.Fatalf("it was not recorded; the answer was %d %s", rec.Code, rec.Body)
			}
			if !strings.Contains(rec.Body.String(), string(b.reason)) {
				t.Errorf("the answer is not about %q: %s", b.reason, rec.Body)
			}
			found := false
			for _, e := range denials {
				found = found || e.Attrs["reason"] == string(b.reason)
			}
			if !found {
				t.Errorf("recorded %+v, want reason %q", denials, b.reason)
			}
			if allowed := w.trail.where(func(e trail.Event) bool { return e.Decision == trail.DecisionAllow }); len(allowed) > 0 {
				t.Errorf("recorded as allowed: %+v", allowed)
			}
		})
	}
	t.Logf("%d attempts", len(bypasses))
}

// The request that the attempts vary is allowed: they are not refused for
// something else.
func TestBypassBaseline(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, r := range map[string]*http.Request{
		"rest":            post(fetchPath, fetch(nil))(w),
		"rest, with more": post(fetchPath, fetch(object{"connected_account_id": "ca_mail", "arguments": object{"query": "x", "max_results": 50, "format": "full"}}))(w),
		"draft":           post("/api/v3.1/tools/execute/GMAIL_CREATE_EMAIL_DRAFT", fetch(object{"arguments": object{"to": "ann@example.com"}}))(w),
		"charset":         header("Content-Type", "application/json; charset=UTF-8")(w),
		"same token":      header("Authorization", "Bearer "+w.token.Reveal())(w),
		"mcp":             call("GMAIL_FETCH_EMAILS", object{"query": "x"})(w),
		"nested":          call("COMPOSIO_MULTI_EXECUTE_TOOL", nested(entry("GMAIL_FETCH_EMAILS", object{}), entry("GMAIL_FETCH_EMAILS", object{"query": "y"})))(w),
		"no auth":         post("/api/v3.1/tools/execute/HACKERNEWS_GET_LATEST_POSTS", fetch(nil))(w),
	} {
		before := len(w.composio.Executions())
		if rec := w.send(r); refused(rec) || len(w.composio.Executions()) == before {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
	if d := w.trail.denials(); len(d) > 0 {
		t.Errorf("denied: %+v", d)
	}
}
