package wire

import (
	"encoding/json"
	"net/http"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Meta is what an answer tells of itself.
type Meta struct {
	ID    string // "msg_..."
	Model string
}

// Alive is the event that keeps a stream alive.
const Alive = "event: ping\ndata: {\"type\": \"ping\"}\n\n"

type written struct {
	ID         string           `json:"id"`
	Type       string           `json:"type"`
	Role       string           `json:"role"`
	Model      string           `json:"model"`
	Content    []any            `json:"content"`
	StopReason *string          `json:"stop_reason"`
	Stop       *string          `json:"stop_sequence"`
	Usage      map[string]int64 `json:"usage"`
	Citations  []llm.Citation   `json:"citations,omitempty"` // ours: passages of the owner's notes
}

type textBlock struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type thinkingBlock struct {
	Type      string `json:"type"`
	Thinking  string `json:"thinking"`
	Signature string `json:"signature"`
}

type redactedBlock struct {
	Type string `json:"type"`
	Data string `json:"data"`
}

type toolBlock struct {
	Type  string          `json:"type"`
	ID    string          `json:"id"`
	Name  string          `json:"name"`
	Input json.RawMessage `json:"input"`
}

// AppendResponse appends a as a message in one piece.
func AppendResponse(dst []byte, a llm.Answer, meta Meta) []byte {
	out := written{ID: meta.ID, Type: "message", Role: "assistant", Model: meta.Model, Content: []any{}, StopReason: reason(a.Finish), Usage: told(a.Usage), Citations: a.Citations}
	for _, p := range a.Message.Parts {
		switch {
		case p.Thinking != nil && p.Thinking.Redacted != "":
			out.Content = append(out.Content, redactedBlock{"redacted_thinking", p.Thinking.Redacted})
		case p.Thinking != nil:
			out.Content = append(out.Content, thinkingBlock{"thinking", p.Thinking.Text, p.Thinking.Signature})
		case p.Call != nil:
			out.Content = append(out.Content, toolBlock{"tool_use", p.Call.ID, p.Call.Name, p.Call.Object()})
		case p.Text != "":
			out.Content = append(out.Content, textBlock{"text", p.Text})
		}
	}
	return llm.AppendJSON(dst, out)
}

// reason is a Finish in the API's words.
func reason(f llm.Finish) *string {
	s, known := map[llm.Finish]string{llm.FinishLength: "max_tokens", llm.FinishTools: "tool_use", llm.FinishRefusal: "refusal"}[f]
	if !known {
		s = "end_turn"
	}
	return &s
}

// told is usage in the API's words, which has no "unknown": that is 0. Input leaves out what the cache read and wrote.
func told(u llm.Usage) map[string]int64 {
	read, wrote := u.CachedInput.Or(0), u.CacheWrite.Or(0)
	return map[string]int64{"input_tokens": max(u.Input.Or(0)-read-wrote, 0), "output_tokens": u.Output.Or(0),
		"cache_read_input_tokens": read, "cache_creation_input_tokens": wrote}
}

// An EventWriter turns events into those of a stream, framed as server-sent events. The API tells its blocks one after the
// other: once a call of a tool is open, whatever is not its own waits until the answer ends, for nobody knows earlier that it is whole.
type EventWriter struct {
	meta      Meta
	usage     llm.Usage
	citations []llm.Citation
	begun     bool
	open      string      // type of the block that is open; "" none
	index     int         // of the next block
	call      int         // the call that is open
	later     []llm.Event // what waits for its end, each call in one event
}

// NewEventWriter returns the EventWriter of one stream.
func NewEventWriter(meta Meta) *EventWriter { return &EventWriter{meta: meta} }

// Append appends what ev says to dst, an element for each event.
func (w *EventWriter) Append(dst [][]byte, ev llm.Event) [][]byte {
	if ev.Usage != nil {
		w.usage = *ev.Usage
	}
	w.citations = append(w.citations, ev.Citations...)
	says := ev.Says() || ev.Signature != ""
	if !w.begun && (says || ev.Finish != "") {
		w.begun = true
		dst = append(dst, event("message_start", object{"message": written{ID: w.meta.ID, Type: "message", Role: "assistant", Model: w.meta.Model, Content: []any{}, Usage: told(w.usage)}}))
	}
	switch {
	case says && w.open == "tool_use" && ev.Call != nil && ev.Call.Index == w.call:
		dst = w.arguments(dst, ev.Call.Arguments)
	case says && w.open == "tool_use":
		w.wait(ev)
	case says:
		dst = w.say(dst, ev)
	}
	if ev.Finish != "" {
		dst = w.finish(dst, ev.Finish)
	}
	return dst
}

func (w *EventWriter) say(dst [][]byte, ev llm.Event) [][]byte {
	if ev.Redacted != "" {
		dst = w.start(w.close(dst), "redacted_thinking", redactedBlock{"redacted_thinking", ev.Redacted})
		dst = w.close(dst)
	}
	if ev.Thinking != "" || ev.Signature != "" {
		dst = w.within(dst, "thinking", thinkingBlock{Type: "thinking"})
		if ev.Thinking != "" {
			dst = w.delta(dst, object{"type": "thinking_delta", "thinking": ev.Thinking})
		}
		if ev.Signature != "" {
			dst = w.delta(dst, object{"type": "signature_delta", "signature": ev.Signature})
		}
	}
	if ev.Text != "" {
		dst = w.within(dst, "text", textBlock{Type: "text"})
		dst = w.delta(dst, object{"type": "text_delta", "text": ev.Text})
	}
	if c := ev.Call; c != nil {
		w.call = c.Index
		dst = w.start(w.close(dst), "tool_use", toolBlock{"tool_use", c.ID, c.Name, json.RawMessage("{}")})
		dst = w.arguments(dst, c.Arguments)
	}
	return dst
}

func (w *EventWriter) wait(ev llm.Event) {
	if c := ev.Call; c != nil {
		for _, had := range w.later {
			if had.Call != nil && had.Call.Index == c.Index {
				had.Call.Arguments += c.Arguments
				return
			}
		}
		more := *c
		ev.Call = &more
	}
	w.later = append(w.later, ev)
}

func (w *EventWriter) arguments(dst [][]byte, more string) [][]byte {
	if more == "" {
		return dst
	}
	return w.delta(dst, object{"type": "input_json_delta", "partial_json": more})
}

// finish tells what has waited, and why the answer ended.
func (w *EventWriter) finish(dst [][]byte, f llm.Finish) [][]byte {
	for _, ev := range w.later {
		dst = w.say(dst, ev)
	}
	w.later = nil
	dst = w.close(dst)
	end := object{"delta": object{"stop_reason": reason(f), "stop_sequence": nil}, "usage": told(w.usage)}
	if len(w.citations) > 0 {
		end["citations"] = w.citations
	}
	return append(dst, event("message_delta", end))
}

// End appends the event that ends a stream.
func (w *EventWriter) End(dst [][]byte) [][]byte { return append(dst, event("message_stop", object{})) }

// within has a block of a type be open: the one that is, or a new one.
func (w *EventWriter) within(dst [][]byte, kind string, begin any) [][]byte {
	if w.open == kind {
		return dst
	}
	return w.start(w.close(dst), kind, begin)
}

func (w *EventWriter) start(dst [][]byte, kind string, begin any) [][]byte {
	w.open = kind
	w.index++
	return append(dst, event("content_block_start", object{"index": w.index - 1, "content_block": begin}))
}

func (w *EventWriter) delta(dst [][]byte, d object) [][]byte {
	return append(dst, event("content_block_delta", object{"index": w.index - 1, "delta": d}))
}

func (w *EventWriter) close(dst [][]byte) [][]byte {
	if w.open == "" {
		return dst
	}
	w.open = ""
	return append(dst, event("content_block_stop", object{"index": w.index - 1}))
}

// An Error is what is said instead of an answer.
type Error struct {
	Type    string // "invalid_request_error", "overloaded_error", ...
	Message string
}

// TypeOf returns the API's name for errors of an HTTP status.
func TypeOf(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "authentication_error"
	case http.StatusPaymentRequired:
		return "billing_error"
	case http.StatusForbidden:
		return "permission_error"
	case http.StatusNotFound:
		return "not_found_error"
	case http.StatusRequestEntityTooLarge:
		return "request_too_large"
	case http.StatusTooManyRequests:
		return "rate_limit_error"
	case http.StatusGatewayTimeout:
		return "timeout_error"
	case Overloaded:
		return "overloaded_error"
	}
	if status >= 500 {
		return "api_error"
	}
	return "invalid_request_error"
}

// Overloaded is the API's own status for "try again later".
const Overloaded = 529

// AppendError appends e as a body.
func AppendError(dst []byte, e Error) []byte {
	return llm.AppendJSON(dst, object{"type": "error", "error": object{"type": e.Type, "message": e.Message}})
}

// AppendErrorEvent appends e as the event that ends a stream before its time.
func AppendErrorEvent(dst []byte, e Error) []byte {
	return append(append(append(dst, "event: error\ndata: "...), AppendError(nil, e)...), "\n\n"...)
}

type object map[string]any

func event(name string, data object) []byte {
	data["type"] = name
	return append(append([]byte("event: "+name+"\ndata: "), llm.AppendJSON(nil, data)...), "\n\n"...)
}
