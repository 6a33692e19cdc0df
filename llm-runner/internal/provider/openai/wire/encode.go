package wire

import (
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Meta is what every answer and chunk repeats.
type Meta struct {
	ID      string // "chatcmpl-..."
	Created int64  // seconds since 1970, UTC
	Model   string
}

// written is a message or a delta as it is written. Content is null where there are only calls, as OpenAI writes it.
type written struct {
	Role      string     `json:"role,omitempty"`
	Content   *string    `json:"content,omitempty"`
	Reasoning string     `json:"reasoning_content,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

type whole struct {
	Role      string     `json:"role"`
	Content   *string    `json:"content"`
	Reasoning string     `json:"reasoning_content,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

// AppendResponse appends a as a chat.completion object. Usage that is not known is left out.
func AppendResponse(dst []byte, a llm.Answer, meta Meta) []byte {
	msg := whole{Role: string(llm.Assistant)}
	var text, thinking strings.Builder
	for _, p := range a.Message.Parts {
		switch {
		case p.Call != nil:
			msg.ToolCalls = append(msg.ToolCalls, toolCall{
				ID: p.Call.ID, Type: "function", Function: &function{p.Call.Name, arguments(p.Call.Arguments)}, Extra: sealed(p.Call.Signature),
			})
		case p.Thinking != nil:
			thinking.WriteString(p.Thinking.Text)
		default:
			text.WriteString(p.Text)
		}
	}
	msg.Reasoning = thinking.String()
	if s := text.String(); s != "" || len(msg.ToolCalls) == 0 {
		msg.Content = &s
	}
	type choice struct {
		Index    int        `json:"index"`
		Message  whole      `json:"message"`
		Logprobs *struct{}  `json:"logprobs"`
		Finish   llm.Finish `json:"finish_reason"`
	}
	return llm.AppendJSON(dst, struct {
		ID      string   `json:"id"`
		Object  string   `json:"object"`
		Created int64    `json:"created"`
		Model   string   `json:"model"`
		Choices []choice `json:"choices"`
		Usage   *usage   `json:"usage,omitempty"`
	}{meta.ID, "chat.completion", meta.Created, meta.Model, []choice{{Message: msg, Finish: a.Finish}}, told(a.Usage)})
}

// A ChunkWriter turns events into chat.completion.chunk objects: the data of server-sent events, without framing. The
// stream's owner writes Done after the last.
type ChunkWriter struct {
	meta  Meta
	usage *llm.Usage // what is known so far; nil where the client did not ask for usage
	begun bool
	ended bool
}

// NewChunkWriter returns the ChunkWriter of one stream. With includeUsage a last chunk tells the usage, if it is known.
func NewChunkWriter(meta Meta, includeUsage bool) *ChunkWriter {
	w := &ChunkWriter{meta: meta}
	if includeUsage {
		w.usage = new(llm.Usage)
	}
	return w
}

type chunk struct {
	ID      string        `json:"id"`
	Object  string        `json:"object"`
	Created int64         `json:"created"`
	Model   string        `json:"model"`
	Choices []chunkChoice `json:"choices"`
	Usage   *usage        `json:"usage,omitempty"`
}

type chunkChoice struct {
	Index  int         `json:"index"`
	Delta  written     `json:"delta"`
	Finish *llm.Finish `json:"finish_reason"`
}

// Append appends the chunks that ev makes to dst: none, one, or, with a Finish, two. A chunk is one element.
func (w *ChunkWriter) Append(dst [][]byte, ev llm.Event) [][]byte {
	if ev.Usage != nil && w.usage != nil {
		*w.usage = *ev.Usage
	}
	d := written{Reasoning: ev.Thinking}
	if ev.Text != "" {
		d.Content = &ev.Text
	}
	if c := ev.Call; c != nil {
		call := toolCall{Index: &c.Index, ID: c.ID, Function: &function{c.Name, arguments(c.Arguments)}, Extra: sealed(c.Signature)}
		if c.ID != "" {
			call.Type = "function"
		}
		d.ToolCalls = []toolCall{call}
	}
	if d.Reasoning != "" || d.Content != nil || d.ToolCalls != nil {
		dst = append(dst, w.chunk(d, nil))
	}
	if ev.Finish != "" && !w.ended {
		w.ended = true
		dst = append(dst, w.chunk(written{}, &ev.Finish))
	}
	return dst
}

// End appends the chunk of usage, where the client asked for it and it is known. It comes after the last Append.
func (w *ChunkWriter) End(dst [][]byte) [][]byte {
	if w.usage == nil || told(*w.usage) == nil {
		return dst
	}
	return append(dst, llm.AppendJSON(nil, chunk{w.meta.ID, "chat.completion.chunk", w.meta.Created, w.meta.Model, []chunkChoice{}, told(*w.usage)}))
}

func (w *ChunkWriter) chunk(d written, finish *llm.Finish) []byte {
	if !w.begun {
		w.begun = true
		d.Role = string(llm.Assistant)
		if d.Content == nil {
			d.Content = new(string)
		}
	}
	return llm.AppendJSON(nil, chunk{w.meta.ID, "chat.completion.chunk", w.meta.Created, w.meta.Model, []chunkChoice{{Delta: d, Finish: finish}}, nil})
}
