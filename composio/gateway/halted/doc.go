// Package halted finds out whether a gateway of package composio/gateway refuses
// an agent, by asking it as the agent would. Begin with [New]. It is for the
// process that stops the agent, which need not be that of the gateway.
package halted
