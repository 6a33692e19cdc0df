// Package wire is the server's side of Anthropic's Messages API as bytes: requests read, answers, stream events and errors
// written, by pure functions. The gateway speaks it to clients; package anthropic is the client's side.
//
// Sources: https://docs.anthropic.com/en/api/messages, .../messages-streaming, .../errors.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

type request struct {
	Model       string          `json:"model"`
	MaxTokens   int             `json:"max_tokens"`
	System      content         `json:"system"`
	Messages    []message       `json:"messages"`
	Tools       []tool          `json:"tools"`
	ToolChoice  *choice         `json:"tool_choice"`
	Temperature *float64        `json:"temperature"`
	TopP        *float64        `json:"top_p"`
	TopK        json.RawMessage `json:"top_k"`
	Stop        []string        `json:"stop_sequences"`
	Thinking    *thinking       `json:"thinking"`
	Output      *output         `json:"output_config"`
	Servers     json.RawMessage `json:"mcp_servers"`
	Container   json.RawMessage `json:"container"`
}

type message struct {
	Role    string  `json:"role"`
	Content content `json:"content"`
}

// content is null (no blocks), a string (one text block) or a list of blocks.
type content []block

func (c *content) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case 'n':
		return nil
	case '[':
		return json.Unmarshal(b, (*[]block)(c))
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New("must be a string or a list of blocks")
	}
	*c = content{{Type: "text", Text: s}}
	return nil
}

type block struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Thinking  string          `json:"thinking"`
	Signature string          `json:"signature"`
	Data      string          `json:"data"`
	Source    *source         `json:"source"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	Content   json.RawMessage `json:"content"` // of tool_result, read by result: each reading goes one block deep
	IsError   bool            `json:"is_error"`
}

type source struct {
	Type      string `json:"type"`
	MediaType string `json:"media_type"`
	Data      []byte `json:"data"` // base64 on the wire
	URL       string `json:"url"`
}

type tool struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	InputSchema json.RawMessage `json:"input_schema"`
	Strict      bool            `json:"strict"`
}

type choice struct {
	Type            string `json:"type"`
	Name            string `json:"name"`
	DisableParallel bool   `json:"disable_parallel_tool_use"`
}

type thinking struct {
	Type         string `json:"type"`
	BudgetTokens int    `json:"budget_tokens"`
}

type output struct {
	Effort string  `json:"effort"`
	Format *format `json:"format"`
}

type format struct {
	Type   string          `json:"type"`
	Schema json.RawMessage `json:"schema"`
}

// ParseRequest reads the body of POST /v1/messages. Errors begin with the name of the field at fault. Fields that are not
// known are ignored; those that are known, would change the answer, and cannot be done are errors. Marks for Anthropic's
// cache (cache_control) are ignored: another provider has none.
func ParseRequest(b []byte) (llm.Request, error) {
	var in request
	if err := json.Unmarshal(b, &in); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return llm.Request{}, fmt.Errorf("%s: must not be a %s", wrong.Field, wrong.Value)
		}
		return llm.Request{}, fmt.Errorf("body: is not valid: %w", err)
	}
	switch {
	case len(in.Messages) == 0:
		return llm.Request{}, errors.New("messages: must hold at least one message")
	case in.MaxTokens < 0:
		return llm.Request{}, errors.New("max_tokens: must not be negative")
	case given(in.TopK):
		return llm.Request{}, errors.New("top_k: cannot be told to other providers; leave it out")
	case given(in.Servers):
		return llm.Request{}, errors.New("mcp_servers: are Anthropic's own service; configure the server under mcp.servers")
	case given(in.Container):
		return llm.Request{}, errors.New("container: is Anthropic's own service; leave it out")
	}
	req := llm.Request{Model: in.Model, MaxTokens: in.MaxTokens, Temperature: in.Temperature, TopP: in.TopP, Stop: in.Stop}
	names := map[string]string{} // of called tools, by id
	system, err := in.System.parts("system", names)
	if err != nil {
		return req, err
	}
	if len(system) > 0 {
		req.Messages = append(req.Messages, llm.Message{Role: llm.System, Parts: system})
	}
	for i, m := range in.Messages {
		at := fmt.Sprintf("messages[%d]", i)
		role, known := map[string]llm.Role{"user": llm.User, "assistant": llm.Assistant, "system": llm.System}[m.Role]
		if !known {
			return req, fmt.Errorf("%s.role: %q is not one of user, assistant", at, m.Role)
		}
		parts, err := m.Content.parts(at+".content", names)
		if err != nil {
			return req, err
		}
		req.Messages = append(req.Messages, turns(role, parts)...)
	}
	for i, t := range in.Tools {
		switch {
		case t.Type != "" && t.Type != "custom":
			return req, fmt.Errorf("tools[%d].type: %q is Anthropic's own tool; only tools that the client runs can be given", i, t.Type)
		case t.Name == "":
			return req, fmt.Errorf("tools[%d].name: is missing", i)
		}
		req.Tools = append(req.Tools, llm.ToolSpec{Name: t.Name, Description: t.Description, Schema: t.InputSchema, Strict: t.Strict})
	}
	return req, in.manner(&req)
}

func given(v json.RawMessage) bool {
	s := string(v)
	return s != "" && s != "null" && s != "[]" && s != "{}"
}

// turns are one message of the API as ours, which keep what tools returned apart from what the user says.
func turns(role llm.Role, parts []llm.Part) (all []llm.Message) {
	isResult := func(p llm.Part) bool { return p.Result != nil }
	if role != llm.User || !slices.ContainsFunc(parts, isResult) {
		return []llm.Message{{Role: role, Parts: parts}}
	}
	var said []llm.Part
	for _, p := range parts {
		if isResult(p) {
			all = append(all, llm.Message{Role: llm.Tool, Parts: []llm.Part{p}})
		} else {
			said = append(said, p)
		}
	}
	if len(said) > 0 {
		all = append(all, llm.Message{Role: llm.User, Parts: said})
	}
	return all
}

// manner reads how the answer is wanted.
func (in *request) manner(req *llm.Request) error {
	if c := in.ToolChoice; c != nil {
		req.NoParallelTools = c.DisableParallel
		switch c.Type {
		case "auto", "none":
			req.ToolChoice.Mode = c.Type
		case "any":
			req.ToolChoice.Mode = "required"
		case "tool":
			req.ToolChoice = llm.ToolChoice{Mode: "tool", Name: c.Name}
		default:
			return fmt.Errorf("tool_choice.type: %q is not one of auto, any, tool, none", c.Type)
		}
	}
	if o := in.Output; o != nil {
		req.Effort = o.Effort
		if f := o.Format; f != nil {
			if f.Type != "json_schema" || !given(f.Schema) {
				return errors.New("output_config.format: must be of type json_schema and have a schema")
			}
			req.Format = &llm.Format{Schema: f.Schema, Strict: true}
		}
	}
	if t := in.Thinking; t != nil {
		switch {
		case t.Type == "disabled":
			req.Effort = "none"
		case req.Effort != "" || t.Type == "adaptive":
		case t.Type == "enabled":
			req.Effort = effort(t.BudgetTokens)
		default:
			return fmt.Errorf("thinking.type: %q is not one of enabled, adaptive, disabled", t.Type)
		}
	}
	switch req.Effort {
	case "", "none", "minimal", "low", "medium", "high":
	case "xhigh", "max":
		req.Effort = "high" // the most that our words have
	default:
		return fmt.Errorf("output_config.effort: %q is not one of low, medium, high, xhigh, max", req.Effort)
	}
	return nil
}

// effort puts a budget of thinking tokens into words: the other way round package anthropic makes 2,048, 8,192 and 16,384 of them.
func effort(tokens int) string {
	switch {
	case tokens < 4096:
		return "low"
	case tokens < 12288:
		return "medium"
	}
	return "high"
}

// parts reads blocks. at is where they stand, for errors; names learns and tells the names of called tools.
func (c content) parts(at string, names map[string]string) (parts []llm.Part, err error) {
	for i, b := range c {
		at := fmt.Sprintf("%s[%d]", at, i)
		p := llm.Part{}
		switch b.Type {
		case "text":
			p.Text = b.Text
		case "thinking":
			p.Thinking = &llm.Thinking{Text: b.Thinking, Signature: b.Signature}
		case "redacted_thinking":
			p.Thinking = &llm.Thinking{Redacted: b.Data}
		case "image":
			if p.Image, err = b.Source.image(); err != nil {
				return nil, fmt.Errorf("%s.source: %w", at, err)
			}
		case "tool_use":
			if b.Name == "" {
				return nil, fmt.Errorf("%s.name: is missing", at)
			}
			names[b.ID] = b.Name
			p.Call = &llm.ToolCall{ID: b.ID, Name: b.Name, Arguments: string(b.Input)}
		case "tool_result":
			if b.ToolUseID == "" {
				return nil, fmt.Errorf("%s.tool_use_id: is missing", at)
			}
			said, seen, err := result(b.Content, at+".content")
			if err != nil {
				return nil, err
			}
			p.Result = &llm.ToolResult{ID: b.ToolUseID, Name: names[b.ToolUseID], Text: said, IsError: b.IsError}
			parts = append(append(parts, p), seen...)
			continue
		default:
			return nil, fmt.Errorf("%s.type: %q is not supported; text, image, thinking, tool_use and tool_result are", at, b.Type)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// result reads what a tool returned: its text, and its pictures, which our words have beside it.
func result(b json.RawMessage, at string) (text string, pictures []llm.Part, err error) {
	var c content
	if len(b) > 0 {
		if err := json.Unmarshal(b, &c); err != nil { // it was valid JSON when the body was read
			return "", nil, fmt.Errorf("%s: must be a string or a list of blocks", at)
		}
	}
	var s strings.Builder
	for i, block := range c {
		switch block.Type {
		case "text":
			s.WriteString(block.Text)
		case "image":
			p := llm.Part{}
			if p.Image, err = block.Source.image(); err != nil {
				return "", nil, fmt.Errorf("%s[%d].source: %w", at, i, err)
			}
			pictures = append(pictures, p)
		default:
			return "", nil, fmt.Errorf("%s[%d].type: %q is not supported here; text and image are", at, i, block.Type)
		}
	}
	return s.String(), pictures, nil
}

func (s *source) image() (*llm.Image, error) {
	switch {
	case s == nil:
		return nil, errors.New("is missing")
	case s.Type == "base64" && len(s.Data) > 0:
		return &llm.Image{MIME: s.MediaType, Data: s.Data}, nil
	case s.Type == "url" && (strings.HasPrefix(s.URL, "https://") || strings.HasPrefix(s.URL, "http://")):
		return &llm.Image{URL: s.URL}, nil
	}
	return nil, errors.New("must be base64 with data, or url with an http or https address")
}
