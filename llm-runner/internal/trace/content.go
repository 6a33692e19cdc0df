package trace

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

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
	s.Set("gen_ai.input.messages", fitting(all))
	return r
}

// mostPart bounds one part of a message, in bytes; what is longer is cut, and says so.
const mostPart = 8 << 10

// fitting is messages as JSON of at most mostValue bytes, which a span would cut anywhere: long parts are cut, and where that is not enough the
// first message and the newest ones are told.
func fitting(all []message) string {
	const room = mostValue - 1<<10 // for what is said of those that are left out
	each, n := make([]json.RawMessage, len(all)), 0
	for i, m := range all {
		for k, p := range m.Parts {
			m.Parts[k].Content = cut(p.Content)
		}
		b, err := json.Marshal(m)
		if err != nil {
			return ""
		}
		each[i], n = b, n+len(b)+1
	}
	gone := 0
	for n > room && gone < len(each)-1 { // the second, the third ...
		gone++
		n -= len(each[gone]) + 1
	}
	if n > room { // one message, of very many parts
		return ""
	}
	if gone > 0 {
		each[gone] = json.RawMessage(fmt.Sprintf(`{"role":"system","parts":[{"type":"text","content":"(%d messages left out)"}]}`, gone))
		each = append(each[:1], each[gone:]...)
	}
	b, err := json.Marshal(each)
	if err != nil {
		return ""
	}
	return string(b)
}

func cut(text string) string {
	if len(text) <= mostPart {
		return text
	}
	at := mostPart
	for at > 0 && !utf8.RuneStart(text[at]) {
		at--
	}
	return fmt.Sprintf("%s (%d bytes left out)", text[:at], len(text)-at)
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
	r.span.Set("gen_ai.output.messages", fitting([]message{{Role: string(llm.Assistant), Parts: []part{{Type: "text", Content: text}}, Finish: string(f)}}))
}
