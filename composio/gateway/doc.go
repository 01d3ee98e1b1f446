// Package gateway stands between agents and Composio and lets through what a
// policy allows: it holds the key, and an agent holds a token that is good for
// nothing else.
//
// Begin with [ReadPolicy] and [New]. A [Gateway] is an [net/http.Handler] with
// two doors: Composio's API v3.1, as far as listing and executing tools goes,
// so that official clients work against it, and MCP over streamable HTTP at
// /mcp. Both lead through one decision:
//
//	authenticate → fence → policy → breaker → record the intent → fence again
//	→ execute, once → record the outcome
//
// What is not allowed is denied, and denials are recorded. An action that
// cannot be recorded is not taken. What is sent on is made anew from what was
// judged; nothing of the agent's request is forwarded, neither a header, nor a
// member of the body, nor the spelling of a number.
//
// # When things fail
//
// A [Fence] that cannot be read is engaged. An execution whose outcome cannot
// be recorded has happened: its result is given to the agent, which might
// otherwise repeat it, and no further call is let through, by any agent, until
// the record has been made good. An execution that is cut off runs on at
// Composio; it is recorded as unknown, and never repeated.
//
// The state of breakers and rates is kept in memory. What a breaker sets off
// ([Config.OnTrip]) is what must last: engage a fence there.
package gateway
