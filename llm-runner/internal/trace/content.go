package trace

import (
	"encoding/json"
	"fmt"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A part is one of the convention's messages (gen-ai-input-messages.json).
type part struct {
	Type      string          `json:"type"`
	Content   string          `json:"content,omitempty"`
	ID        string          `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
	Result    string          `json:"result,omitempty"`
}

type message struct {
	Role   string `json:"role"`
	Parts  []part `json:"parts"`
	Finish string `json:"finish_reason,omitempty"`
}

// left stands where something is not told.
const left = "(left out)"

// A Record gathers what an attempt was asked and what it answers, where content is told; nil gathers nothing.
type Record struct {
	span    *Span
	private bool // some of it no cloud provider may see
	text    strings.Builder
}

// Record begins with what is asked. What is private is left out, and so are pictures and what tools were called with and returned: they
// may hold what was private where they were read.
func (s *Span) Record(messages []llm.Message) *Record {
	if !s.Content() {
		return nil
	}
	r := &Record{span: s}
	all := make([]message, len(messages))
	for i, m := range messages {
		all[i] = message{Role: string(m.Role), Parts: make([]part, len(m.Parts))}
		for k, p := range m.Parts {
			x := part{Type: "text", Content: s.tracer.hidden.Replace(p.Text)}
			switch {
			case p.Private:
				r.private = true
				x.Content = left
			case p.Thinking != nil:
				x = part{Type: "reasoning", Content: left}
			case p.Image != nil:
				x = part{Type: "blob", Content: left}
			case p.Call != nil:
				x = part{Type: "tool_call", ID: p.Call.ID, Name: p.Call.Name}
			case p.Result != nil:
				r.private = true // who knows
				x = part{Type: "tool_call_response", ID: p.Result.ID, Result: fmt.Sprintf("(%d bytes left out)", len(p.Result.Text))}
			}
			all[i].Parts[k] = x
		}
	}
	s.setJSON("gen_ai.input.messages", all)
	return r
}

// Add takes one event of the answer.
func (r *Record) Add(ev llm.Event) {
	if r == nil {
		return
	}
	r.private = r.private || ev.Private
	if !r.private && r.text.Len() < mostValue {
		r.text.WriteString(ev.Text)
	}
}

// Done tells the answer; one that rests on something private is left out.
func (r *Record) Done(f llm.Finish) {
	if r == nil {
		return
	}
	text := r.span.tracer.hidden.Replace(r.text.String())
	if r.private {
		text = left
	}
	r.span.setJSON("gen_ai.output.messages", []message{{Role: string(llm.Assistant), Parts: []part{{Type: "text", Content: text}}, Finish: string(f)}})
}

func (s *Span) setJSON(key string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	s.Set(key, string(b))
}
