package trail

import (
	"context"
	"log/slog"
	"slices"
)

// A Handler is a [slog.Handler] that records each line of a log as an event of
// kind [KindMessage], its attributes in Attrs, with groups joined by dots. The
// level is the attribute "level", and the line is durable when the call returns.
// Attributes named "agent", "actor", "tool", "subject", "request_id",
// "session_id", "run_id", "tool_call_id" and "log_id", outside groups, fill in
// the fields of the event. Make one with [NewHandler].
type Handler struct {
	to    Recorder
	level slog.Leveler
	group string // with a dot at the end
	attrs []slog.Attr
}

// NewHandler returns a Handler that records to r what is of the given level or
// above. A nil level means [slog.LevelInfo].
func NewHandler(r Recorder, level slog.Leveler) *Handler {
	if level == nil {
		level = slog.LevelInfo
	}
	return &Handler{to: r, level: level}
}

// Enabled implements [slog.Handler].
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

// Handle implements [slog.Handler]. Its error is that of the Recorder, which
// package slog drops: what must not go unrecorded, give to the Recorder itself.
// The line is recorded also when ctx has ended.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	e := Event{Kind: KindMessage, Time: r.Time, Message: r.Message, Attrs: map[string]string{"level": r.Level.String()}}
	for _, a := range h.attrs { // the key of each is the group that it is in
		add(&e, a.Key, a.Value.Group()[0])
	}
	r.Attrs(func(a slog.Attr) bool {
		add(&e, h.group, a)
		return true
	})
	return h.to.Record(context.WithoutCancel(ctx), e)
}

// WithAttrs implements [slog.Handler].
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	g := *h
	g.attrs = slices.Clip(h.attrs)
	for _, a := range attrs {
		g.attrs = append(g.attrs, slog.Attr{Key: h.group, Value: slog.GroupValue(a)})
	}
	return &g
}

// WithGroup implements [slog.Handler].
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	g := *h
	g.group += name + "."
	return &g
}

// add puts an attribute into e.
func add(e *Event, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, m := range v.Group() {
			add(e, group, m)
		}
		return
	}
	name := group + a.Key
	if field := fieldOf(e, name); field != nil {
		*field = v.String()
		return
	}
	if name == "level" || name == "" {
		name = "attr." + name // the level is not for a message to set
	}
	e.Attrs[name] = v.String()
}

// fieldOf returns the field of e that is called name, or nil.
func fieldOf(e *Event, name string) *string {
	switch name {
	case "agent":
		return &e.Agent
	case "actor":
		return &e.Actor
	case "tool":
		return &e.Tool
	case "subject":
		return &e.Subject
	case "request_id":
		return &e.RequestID
	case "session_id":
		return &e.SessionID
	case "run_id":
		return &e.RunID
	case "tool_call_id":
		return &e.ToolCallID
	case "log_id":
		return &e.LogID
	}
	return nil
}
