package wire

import (
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Meta is what every line of an answer repeats.
type Meta struct {
	Model    string
	Began    time.Time // the request, for total_duration
	Generate bool      // of /api/generate, whose lines have "response" instead of "message"
}

type line struct {
	Model     string         `json:"model"`
	Created   time.Time      `json:"created_at"`
	Message   *said          `json:"message,omitempty"`
	Response  *string        `json:"response,omitempty"`
	Thinking  string         `json:"thinking,omitempty"`
	Done      bool           `json:"done"`
	Reason    string         `json:"done_reason,omitempty"`
	Total     int64          `json:"total_duration,omitempty"` // nanoseconds
	Prompt    *int64         `json:"prompt_eval_count,omitempty"`
	Output    *int64         `json:"eval_count,omitempty"`
	Citations []llm.Citation `json:"citations,omitempty"` // ours: passages of the owner's notes
}

type said struct {
	Role     string `json:"role"`
	Content  string `json:"content"`
	Thinking string `json:"thinking,omitempty"`
	Calls    []call `json:"tool_calls,omitempty"`
}

func (m Meta) line(text, thinking string, calls []call) line {
	l := line{Model: m.Model, Created: time.Now().UTC()}
	if m.Generate {
		l.Response, l.Thinking = &text, thinking
	} else {
		l.Message = &said{"assistant", text, thinking, calls}
	}
	return l
}

func (l *line) end(m Meta, f llm.Finish, u llm.Usage) {
	l.Done, l.Reason = true, "stop"
	if f == llm.FinishLength {
		l.Reason = "length"
	}
	l.Total = max(time.Since(m.Began).Nanoseconds(), 1)
	l.Prompt, l.Output = u.Input.Ptr(), u.Output.Ptr()
}

func asked(index int, c llm.ToolCall) call {
	return call{ID: c.ID, Function: function{index, c.Name, c.Object()}}
}

// AppendResponse appends a in one piece.
func AppendResponse(dst []byte, a llm.Answer, m Meta) []byte {
	var text, thinking strings.Builder
	var calls []call
	for _, p := range a.Message.Parts {
		switch {
		case p.Call != nil:
			calls = append(calls, asked(len(calls), *p.Call))
		case p.Thinking != nil:
			thinking.WriteString(p.Thinking.Text)
		default:
			text.WriteString(p.Text)
		}
	}
	l := m.line(text.String(), thinking.String(), calls)
	l.end(m, a.Finish, a.Usage)
	l.Citations = a.Citations
	return encode(dst, l)
}

// AppendLoaded appends the answer to a request that only wants its model loaded.
func AppendLoaded(dst []byte, m Meta) []byte {
	l := m.line("", "", nil)
	l.Done, l.Reason = true, "load"
	return encode(dst, l)
}

// A LineWriter turns events into the lines of a stream. A call is told when it is whole: at the end of the answer.
type LineWriter struct {
	meta Meta
	sum  llm.Accumulator // calls, citations and usage
}

// NewLineWriter returns the LineWriter of one stream.
func NewLineWriter(m Meta) *LineWriter { return &LineWriter{meta: m} }

// Append appends the lines that ev makes to dst, an element for each.
func (w *LineWriter) Append(dst [][]byte, ev llm.Event) [][]byte {
	w.sum.Add(llm.Event{Call: ev.Call, Usage: ev.Usage, Citations: ev.Citations})
	if ev.Text != "" || ev.Thinking != "" {
		dst = append(dst, encode(nil, w.meta.line(ev.Text, ev.Thinking, nil)))
	}
	if ev.Finish == "" {
		return dst
	}
	a := w.sum.Answer()
	var calls []call
	for _, p := range a.Message.Parts {
		calls = append(calls, asked(len(calls), *p.Call))
	}
	if calls != nil {
		dst = append(dst, encode(nil, w.meta.line("", "", calls)))
	}
	l := w.meta.line("", "", nil)
	l.end(w.meta, ev.Finish, a.Usage)
	l.Citations = a.Citations
	return append(dst, encode(nil, l))
}

// End appends nothing: the last line of Append is the end.
func (w *LineWriter) End(dst [][]byte) [][]byte { return dst }

// AppendEmbeddings appends vectors as POST /api/embed answers, or, with old, as POST /api/embeddings does.
func AppendEmbeddings(dst []byte, model string, e llm.Embeddings, old bool) []byte {
	if old {
		return encode(dst, map[string]any{"embedding": e.Vectors[0]})
	}
	return encode(dst, struct {
		Model   string      `json:"model"`
		Vectors [][]float32 `json:"embeddings"`
		Prompt  *int64      `json:"prompt_eval_count,omitempty"`
	}{model, e.Vectors, e.Usage.Input.Ptr()})
}

// AppendError appends what is said instead of an answer, as a body or as a stream's last line.
func AppendError(dst []byte, message string) []byte {
	return encode(dst, map[string]string{"error": message})
}

// encode writes v as a line of JSON.
func encode(dst []byte, v any) []byte { return append(llm.AppendJSON(dst, v), '\n') }
