package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// maxActivity bounds what is kept of the activity log, of which OpenClaw keeps
// 100,000 rows.
const maxActivity = 1 << 20

// A place is where a call was made. OpenClaw's activity log has the id of the
// call as a hash alone.
type place struct {
	session, run, hash string
}

// callHash is the id of a call as the activity log has it.
func callHash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// An activity is what the log has of one call.
type activity struct {
	agent, tool string
	session     string
	begun       time.Time
	ended       time.Time
	status      Status
}

// activities reads the activity log: for each place the calls, in order.
// A model may use an id again.
func (l *Ledger) activities(ctx context.Context) (map[place][]*activity, error) {
	all := make(map[place][]*activity)
	rows, err := l.state.conn.QueryContext(ctx, `SELECT sequence, occurred_at, action, status,
		coalesce(agent_id, ''), coalesce(session_id, ''), coalesce(run_id, ''), coalesce(tool_call_id, ''), coalesce(tool_name, '')
		FROM audit_events WHERE kind = 'tool_action' AND length(tool_call_id) < 500 AND length(tool_name) < 500
		AND length(coalesce(agent_id, '')) < 500 AND length(coalesce(session_id, '')) < 500 AND length(coalesce(run_id, '')) < 500
		ORDER BY sequence`)
	if err != nil {
		return nil, l.state.wrap(err)
	}
	defer closeRead(rows)
	n := 0
	for rows.Next() {
		var sequence, occurred sql.NullInt64
		var action, status, agent, session, run, id, tool string
		if err := rows.Scan(&sequence, &occurred, &action, &status, &agent, &session, &run, &id, &tool); err != nil {
			return nil, fmt.Errorf("%w, after row %d", l.state.wrap(err), sequence.Int64)
		}
		if n++; n > maxActivity {
			return nil, fmt.Errorf("%w: %s: table audit_events has more than %d calls of tools", ErrFormat, l.state.name, maxActivity)
		}
		if !strings.HasPrefix(id, "sha256:") {
			id = callHash(id)
		}
		at := placeOf(session, run, id)
		t := time.UnixMilli(occurred.Int64).UTC()
		list := all[at]
		var last *activity
		if len(list) > 0 {
			last = list[len(list)-1]
		}
		if action == "tool.action.started" || last == nil || !last.ended.IsZero() {
			last = &activity{agent: agent, tool: tool, session: session, begun: t}
			all[at] = append(list, last)
		}
		if action != "tool.action.started" {
			last.ended, last.status = t, statusOf(status)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, l.state.wrap(err)
	}
	return all, nil
}
