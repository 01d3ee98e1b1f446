package reconcile

import (
	"iter"
	"strings"

	"github.com/managemyclaw/hardshell/composio"
)

// Composio returns what [composio.Client.Executions] lists as executions. Rows
// that say to be something else than the execution of a tool, such as a trigger,
// are left out.
func Composio(rows iter.Seq2[composio.Execution, error]) iter.Seq2[Execution, error] {
	return func(yield func(Execution, error) bool) {
		for row, err := range rows {
			if err != nil {
				yield(Execution{}, err)
				return
			}
			kind, _, _ := strings.Cut(row.Kind, ".")
			if kind == "trigger" || kind == "connected_account" {
				continue
			}
			if !yield(execution(row), nil) {
				return
			}
		}
	}
}

// execution reads what the API does not promise: the members of the metadata
// have several names, and may be missing.
func execution(row composio.Execution) Execution {
	e := Execution{ID: row.ID, Time: row.Time, ParentID: row.ParentID, Status: StatusFailed}
	if row.Succeeded {
		e.Status = StatusOK
	}
	var m map[string]any
	if row.Metadata.IsZero() || row.Metadata.Decode(&m) != nil {
		return e
	}
	e.Tool = first(m, "tool_slug", "toolSlug", "tool")
	e.AccountID = first(m, "connected_account_id", "connectedAccountId", "connected_account")
	e.UserID = first(m, "user_id", "userId", "entity_id")
	return e
}

// first returns the first of the members that is a text, or an object with a
// slug or an id that is one.
func first(m map[string]any, names ...string) string {
	for _, name := range names {
		switch v := m[name].(type) {
		case string:
			if v != "" {
				return v
			}
		case map[string]any:
			if s := first(v, "slug", "id"); s != "" {
				return s
			}
		}
	}
	return ""
}
