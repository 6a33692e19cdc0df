package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Options are the parts of a chat request that say how to answer, and not what is asked.
type Options struct {
	Stream       bool
	IncludeUsage bool // stream_options.include_usage
	N            int  // how many answers; at least 1
	User         string
}

// Request is a chat request on the wire.
type Request struct {
	Model               string          `json:"model"`
	Messages            []message       `json:"messages"`
	Tools               []tool          `json:"tools,omitempty"`
	ToolChoice          json.RawMessage `json:"tool_choice,omitempty"`
	Parallel            *bool           `json:"parallel_tool_calls,omitempty"`
	Format              *format         `json:"response_format,omitempty"`
	MaxTokens           int             `json:"max_tokens,omitempty"` // the older name, the only one that many servers know
	MaxCompletionTokens int             `json:"max_completion_tokens,omitempty"`
	Temperature         *float64        `json:"temperature,omitempty"`
	TopP                *float64        `json:"top_p,omitempty"`
	Seed                *int64          `json:"seed,omitempty"`
	Stop                stops           `json:"stop,omitempty"`
	Effort              string          `json:"reasoning_effort,omitempty"`
	N                   *int            `json:"n,omitempty"`
	User                string          `json:"user,omitempty"`
	Stream              bool            `json:"stream,omitempty"`
	StreamOptions       *streamOptions  `json:"stream_options,omitempty"`

	Functions json.RawMessage `json:"functions,omitempty"` // refused: replaced by tools in 2023
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type message struct {
	Role      string     `json:"role"`
	Content   content    `json:"content"`
	Reasoning string     `json:"reasoning_content,omitempty"`
	Groq      string     `json:"reasoning,omitempty"`
	Refusal   string     `json:"refusal,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
	CallID    string     `json:"tool_call_id,omitempty"`
}

// content is null (no parts), a string (one text part) or a list of parts.
type content []part

type part struct {
	Type    string    `json:"type"`
	Text    string    `json:"text,omitempty"`
	Refusal string    `json:"refusal,omitempty"`
	Image   *imageURL `json:"image_url,omitempty"`
}

type imageURL struct {
	URL string `json:"url"`
}

func (c content) MarshalJSON() ([]byte, error) {
	switch {
	case len(c) == 0:
		return []byte("null"), nil
	case len(c) == 1 && c[0].Type == "text":
		return llm.AppendJSON(nil, c[0].Text), nil
	}
	return llm.AppendJSON(nil, []part(c)), nil
}

func (c *content) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case 'n':
		return nil
	case '[':
		return json.Unmarshal(b, (*[]part)(c))
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New("must be a string or a list of parts")
	}
	*c = content{{Type: "text", Text: s}}
	return nil
}

// stops is one stop sequence or a list of them.
type stops []string

func (s *stops) UnmarshalJSON(b []byte) error {
	var one string
	switch b[0] {
	case '"':
		err := json.Unmarshal(b, &one)
		*s = stops{one}
		return err
	}
	return json.Unmarshal(b, (*[]string)(s))
}

type tool struct {
	Type     string   `json:"type"`
	Function toolSpec `json:"function"`
}

type toolSpec struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      bool            `json:"strict,omitempty"`
}

type format struct {
	Type   string      `json:"type"`
	Schema *jsonSchema `json:"json_schema,omitempty"`
}

type jsonSchema struct {
	Name   string          `json:"name"`
	Schema json.RawMessage `json:"schema,omitempty"`
	Strict bool            `json:"strict,omitempty"`
}

// ParseRequest reads a client's chat request. Errors begin with the name of the field at fault. Fields that are not known
// are ignored, as OpenAI's own compatible servers do; fields that are known and would change the answer are errors.
func ParseRequest(b []byte) (llm.Request, Options, error) {
	var in Request
	if err := json.Unmarshal(b, &in); err != nil {
		return llm.Request{}, Options{}, explain(err)
	}
	opts := Options{Stream: in.Stream, N: 1, User: in.User}
	opts.IncludeUsage = in.StreamOptions != nil && in.StreamOptions.IncludeUsage
	if in.N != nil {
		opts.N = *in.N
	}
	switch {
	case in.Model == "":
		return llm.Request{}, opts, errors.New("model: is missing")
	case len(in.Messages) == 0:
		return llm.Request{}, opts, errors.New("messages: must hold at least one message")
	case present(in.Functions):
		return llm.Request{}, opts, errors.New("functions: is no longer supported; use tools")
	case opts.N < 1:
		return llm.Request{}, opts, errors.New("n: must be at least 1")
	}
	req := llm.Request{
		Model: in.Model, MaxTokens: in.MaxCompletionTokens, Temperature: in.Temperature, TopP: in.TopP, Seed: in.Seed,
		Stop: in.Stop, Effort: in.Effort, NoParallelTools: in.Parallel != nil && !*in.Parallel,
	}
	if req.MaxTokens == 0 {
		req.MaxTokens = in.MaxTokens
	}
	if req.MaxTokens < 0 {
		return llm.Request{}, opts, errors.New("max_tokens: must not be negative")
	}
	names := map[string]string{} // of called tools, by call id
	for i, m := range in.Messages {
		msg, err := m.words(names)
		if err != nil {
			return llm.Request{}, opts, fmt.Errorf("messages[%d].%w", i, err)
		}
		req.Messages = append(req.Messages, msg)
	}
	for i, t := range in.Tools {
		if t.Type != "function" && t.Type != "" {
			return llm.Request{}, opts, fmt.Errorf("tools[%d].type: %q is not supported; only function is", i, t.Type)
		}
		if t.Function.Name == "" {
			return llm.Request{}, opts, fmt.Errorf("tools[%d].function.name: is missing", i)
		}
		f := t.Function
		if string(f.Parameters) == "null" {
			f.Parameters = nil
		}
		req.Tools = append(req.Tools, llm.ToolSpec{Name: f.Name, Description: f.Description, Schema: f.Parameters, Strict: f.Strict})
	}
	var err error
	if req.ToolChoice, err = parseChoice(in.ToolChoice); err != nil {
		return llm.Request{}, opts, err
	}
	if req.Format, err = in.Format.words(); err != nil {
		return llm.Request{}, opts, err
	}
	return req, opts, nil
}

// explain names the field at fault in an error of encoding/json.
func explain(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field != "" {
		return fmt.Errorf("%s: must not be a %s", wrong.Field, wrong.Value)
	}
	return fmt.Errorf("body: is not valid JSON: %w", err)
}

func (m message) words(names map[string]string) (llm.Message, error) {
	out := llm.Message{}
	switch m.Role {
	case "system", "developer":
		out.Role = llm.System
	case "user":
		out.Role = llm.User
	case "assistant":
		out.Role = llm.Assistant
	case "tool":
		var s strings.Builder
		for _, p := range m.Content {
			s.WriteString(p.Text)
		}
		if m.CallID == "" {
			return out, errors.New("tool_call_id: is missing")
		}
		return llm.Message{Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: m.CallID, Name: names[m.CallID], Text: s.String()}}}}, nil
	default:
		return out, fmt.Errorf("role: %q is not one of system, developer, user, assistant, tool", m.Role)
	}
	if thought := m.Reasoning + m.Groq; thought != "" && (m.Reasoning == "" || m.Groq == "") {
		out.Parts = append(out.Parts, llm.Part{Thinking: &llm.Thinking{Text: thought}})
	}
	for i, p := range m.Content {
		switch {
		case p.Type == "text":
			out.Parts = append(out.Parts, llm.Part{Text: p.Text})
		case p.Type == "refusal":
			out.Parts = append(out.Parts, llm.Part{Text: p.Refusal})
		case p.Type == "image_url" && p.Image != nil:
			img, err := parseImage(p.Image.URL)
			if err != nil {
				return out, fmt.Errorf("content[%d].image_url.url: %w", i, err)
			}
			out.Parts = append(out.Parts, llm.Part{Image: img})
		default:
			return out, fmt.Errorf("content[%d].type: %q is not supported; text and image_url are", i, p.Type)
		}
	}
	if m.Refusal != "" {
		out.Parts = append(out.Parts, llm.Part{Text: m.Refusal})
	}
	for i, c := range m.ToolCalls {
		if c.Function == nil || c.Function.Name == "" {
			return out, fmt.Errorf("tool_calls[%d].function.name: is missing", i)
		}
		names[c.ID] = c.Function.Name
		out.Parts = append(out.Parts, llm.Part{Call: &llm.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: string(c.Function.Arguments), Signature: c.signature()}})
	}
	return out, nil
}

// parseImage reads a data: URL (RFC 2397) with base64 data, or an address.
func parseImage(url string) (*llm.Image, error) {
	rest, ok := strings.CutPrefix(url, "data:")
	if !ok {
		if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
			return nil, errors.New("must be an http, https or data URL")
		}
		return &llm.Image{URL: url}, nil
	}
	head, data, _ := strings.Cut(rest, ",")
	mime, ok := strings.CutSuffix(head, ";base64")
	if !ok {
		return nil, errors.New("a data URL must be in base64")
	}
	raw, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return nil, errors.New("is not valid base64")
	}
	return &llm.Image{MIME: mime, Data: raw}, nil
}

func parseChoice(raw json.RawMessage) (llm.ToolChoice, error) {
	if !present(raw) {
		return llm.ToolChoice{}, nil
	}
	var mode string
	if json.Unmarshal(raw, &mode) == nil {
		switch mode {
		case "auto", "none", "required":
			return llm.ToolChoice{Mode: mode}, nil
		}
		return llm.ToolChoice{}, fmt.Errorf("tool_choice: %q is not one of auto, none, required", mode)
	}
	var one tool
	if json.Unmarshal(raw, &one) != nil || one.Function.Name == "" {
		return llm.ToolChoice{}, errors.New("tool_choice: must be auto, none, required, or name a function")
	}
	return llm.ToolChoice{Mode: "tool", Name: one.Function.Name}, nil
}

func (f *format) words() (*llm.Format, error) {
	switch {
	case f == nil || f.Type == "text":
		return nil, nil
	case f.Type == "json_object":
		return &llm.Format{}, nil
	case f.Type == "json_schema" && f.Schema != nil && present(f.Schema.Schema):
		return &llm.Format{Name: f.Schema.Name, Schema: f.Schema.Schema, Strict: f.Schema.Strict}, nil
	case f.Type == "json_schema":
		return nil, errors.New("response_format.json_schema.schema: is missing")
	}
	return nil, fmt.Errorf("response_format.type: %q is not one of text, json_object, json_schema", f.Type)
}

// MarshalRequest writes req for an upstream that is OpenAI itself: max_completion_tokens, and usage asked for in streams.
// Reasoning of earlier turns is left out: OpenAI has no field for it, and DeepSeek refuses a conversation that repeats it.
func MarshalRequest(req llm.Request, stream bool) ([]byte, error) {
	out, err := NewRequest(req, stream)
	if err != nil {
		return nil, err
	}
	return llm.AppendJSON(nil, out), nil
}

// NewRequest is MarshalRequest before it is written, for upstreams that want a field changed.
func NewRequest(req llm.Request, stream bool) (Request, error) {
	out := Request{
		Model: req.Model, Messages: []message{}, MaxCompletionTokens: req.MaxTokens, Temperature: req.Temperature, TopP: req.TopP,
		Seed: req.Seed, Stop: req.Stop, Effort: req.Effort, Stream: stream,
	}
	if stream {
		out.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	for _, m := range req.Messages {
		out.Messages = append(out.Messages, messages(m)...)
	}
	for _, t := range req.Tools {
		if len(t.Schema) > 0 && !json.Valid(t.Schema) {
			return Request{}, fmt.Errorf("tool %s: its schema is not valid JSON", t.Name)
		}
		schema := t.Schema
		if len(schema) == 0 {
			schema = json.RawMessage(`{"type":"object","properties":{}}`)
		}
		out.Tools = append(out.Tools, tool{"function", toolSpec{t.Name, t.Description, schema, t.Strict}})
	}
	if len(out.Tools) > 0 && req.NoParallelTools {
		out.Parallel = new(bool)
	}
	switch c := req.ToolChoice; c.Mode {
	case "":
	case "tool":
		out.ToolChoice = llm.AppendJSON(nil, map[string]any{"type": "function", "function": map[string]string{"name": c.Name}})
	default:
		out.ToolChoice = llm.AppendJSON(nil, c.Mode)
	}
	if f := req.Format; f != nil {
		out.Format = &format{Type: "json_object"}
		if len(f.Schema) > 0 {
			if !json.Valid(f.Schema) {
				return Request{}, errors.New("format: its schema is not valid JSON")
			}
			name := f.Name
			if name == "" {
				name = "answer" // required by OpenAI
			}
			out.Format = &format{"json_schema", &jsonSchema{name, f.Schema, f.Strict}}
		}
	}
	return out, nil
}

// Marshal writes r.
func (r Request) Marshal() []byte { return llm.AppendJSON(nil, r) }

// messages writes one message. Tool results become one message each, before the rest.
func messages(m llm.Message) []message {
	var out []message
	rest := message{Role: string(m.Role)}
	images := false
	var said strings.Builder
	for _, p := range m.Parts {
		switch {
		case p.Result != nil:
			out = append(out, message{Role: "tool", CallID: p.Result.ID, Content: content{{Type: "text", Text: p.Result.Text}}})
		case p.Call != nil:
			args := p.Call.Arguments
			if args == "" {
				args = "{}" // "" is not JSON, and several servers parse it
			}
			rest.ToolCalls = append(rest.ToolCalls, toolCall{
				ID: p.Call.ID, Type: "function", Function: &function{p.Call.Name, arguments(args)}, Extra: sealed(p.Call.Signature),
			})
		case p.Image != nil:
			images = true
			rest.Content = append(rest.Content, part{Type: "image_url", Image: &imageURL{imageAddress(p.Image)}})
		case p.Thinking != nil:
		case p.Text != "":
			said.WriteString(p.Text)
			rest.Content = append(rest.Content, part{Type: "text", Text: p.Text})
		}
	}
	if !images && len(rest.Content) > 1 { // lists are for images: many servers want plain strings
		rest.Content = content{{Type: "text", Text: said.String()}}
	}
	switch {
	case m.Role == llm.Tool:
		return out
	case len(rest.Content) == 0 && len(rest.ToolCalls) == 0 && len(out) > 0:
		return out
	case len(rest.Content) == 0 && len(rest.ToolCalls) == 0:
		rest.Content = content{{Type: "text"}}
	}
	return append(out, rest)
}

func imageAddress(img *llm.Image) string {
	if img.URL != "" {
		return img.URL
	}
	return "data:" + img.MIME + ";base64," + base64.StdEncoding.EncodeToString(img.Data)
}
