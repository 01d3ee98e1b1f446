package gateway

import "github.com/managemyclaw/hardshell/composio"

// SessionVersion is the version of tools of a [Session].
const SessionVersion = "session"

type Session struct{}

var _ Upstream = (*composio.Client)(nil)
