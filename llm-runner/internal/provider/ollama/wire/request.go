// Package wire is the server's side of Ollama's API as bytes: requests read, answers and lines of streams written, by pure
// functions. The gateway speaks it to clients; package ollama is the client's side.
//
// Source: https://github.com/ollama/ollama/blob/main/docs/api.md.
package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

type request struct {
	Model    string          `json:"model"`
	Messages []message       `json:"messages"` // of /api/chat
	Tools    []tool          `json:"tools"`
	Prompt   string          `json:"prompt"` // of /api/generate, and what follows
	System   string          `json:"system"`
	Images   []string        `json:"images"`
	Suffix   string          `json:"suffix"`
	Template string          `json:"template"`
	Raw      bool            `json:"raw"`
	Format   json.RawMessage `json:"format"`
	Think    json.RawMessage `json:"think"`
	Options  options         `json:"options"`
}

type message struct {
	Role     string   `json:"role"`
	Content  string   `json:"content"`
	Thinking string   `json:"thinking"`
	Images   []string `json:"images"`
	Calls    []call   `json:"tool_calls"`
	ToolName string   `json:"tool_name"`
	CallID   string   `json:"tool_call_id"`
}

type call struct {
	ID       string   `json:"id,omitempty"`
	Function function `json:"function"`
}

type function struct {
	Index     int             `json:"index"`
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"` // an object, not text
}

type tool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
	} `json:"function"`
}

// options are those that other providers know too. The rest (num_ctx, top_k, repeat_penalty, ...) is how Ollama runs a model, which is set
// on the machine that does.
type options struct {
	Temperature *float64 `json:"temperature"`
	TopP        *float64 `json:"top_p"`
	Seed        *int64   `json:"seed"`
	Predict     int      `json:"num_predict"` // below zero: no limit
	Stop        stops    `json:"stop"`
}

// stops is one stop sequence or a list of them.
type stops []string

func (s *stops) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		var one string
		err := json.Unmarshal(b, &one)
		*s = stops{one}
		return err
	}
	return json.Unmarshal(b, (*[]string)(s))
}

// ParseChat reads the body of POST /api/chat, ParseGenerate that of POST /api/generate. Errors begin with the name of the field at fault.
// A request without anything asked wants its model loaded: it has no messages then.
func ParseChat(b []byte) (llm.Request, error) {
	in, req, err := parse(b)
	if err != nil {
		return req, err
	}
	var all calls
	for i, m := range in.Messages {
		msg, err := m.words(&all)
		if err != nil {
			return req, fmt.Errorf("messages[%d].%w", i, err)
		}
		req.Messages = append(req.Messages, msg)
	}
	for i, t := range in.Tools {
		if t.Function.Name == "" {
			return req, fmt.Errorf("tools[%d].function.name: is missing", i)
		}
		req.Tools = append(req.Tools, llm.ToolSpec{Name: t.Function.Name, Description: t.Function.Description, Schema: t.Function.Parameters})
	}
	return req, nil
}

// ParseGenerate reads the body of POST /api/generate; see ParseChat.
func ParseGenerate(b []byte) (llm.Request, error) {
	in, req, err := parse(b)
	if err != nil {
		return req, err
	}
	for field, is := range map[string]bool{"suffix": in.Suffix != "", "template": in.Template != "", "raw": in.Raw} {
		if is {
			return req, fmt.Errorf("%s: only Ollama itself can do this; leave it out", field)
		}
	}
	if in.System != "" {
		req.Messages = append(req.Messages, llm.Says(llm.System, in.System))
	}
	if in.Prompt == "" && len(in.Images) == 0 {
		req.Messages = nil
		return req, nil
	}
	asked := llm.Says(llm.User, in.Prompt)
	pictures, err := images(in.Images)
	if err != nil {
		return req, err
	}
	asked.Parts = append(asked.Parts, pictures...)
	req.Messages = append(req.Messages, asked)
	return req, nil
}

func parse(b []byte) (in request, req llm.Request, err error) {
	if err := json.Unmarshal(b, &in); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return in, req, fmt.Errorf("%s: must not be a %s", wrong.Field, wrong.Value)
		}
		return in, req, fmt.Errorf("body: is not valid: %w", err)
	}
	o := in.Options
	req = llm.Request{Model: in.Model, MaxTokens: max(o.Predict, 0), Temperature: o.Temperature, TopP: o.TopP, Seed: o.Seed, Stop: o.Stop}
	switch f := string(in.Format); {
	case f == "" || f == "null" || f == `""`:
	case f == `"json"`:
		req.Format = &llm.Format{}
	case f[0] == '{':
		req.Format = &llm.Format{Schema: in.Format}
	default:
		return in, req, fmt.Errorf("format: %s is neither \"json\" nor a schema", f)
	}
	switch t := string(in.Think); t {
	case "", "null":
	case "false":
		req.Effort = "none"
	case "true":
		req.Effort = "medium"
	case `"low"`, `"medium"`, `"high"`:
		req.Effort = strings.Trim(t, `"`)
	default:
		return in, req, fmt.Errorf("think: %s is not one of true, false, low, medium, high", t)
	}
	return in, req, nil
}

// calls are those of a conversation so far.
type calls struct {
	made int
	open map[by][]*openCall // of the last message that made some, in order: nothing had answered them when they were put here
}

// by is what a call is found by: an id, or a name, or nothing.
type by struct{ id, name string }

type openCall struct {
	llm.ToolCall
	answered bool
}

func (c *calls) add(call llm.ToolCall) {
	c.made++
	m := &openCall{ToolCall: call}
	for _, k := range []by{{id: call.ID}, {name: call.Name}, {}} {
		c.open[k] = append(c.open[k], m)
	}
}

// answered is the call that a result answers: that of its id, or else the first of its tool that is open, or of all, where the client tells no
// name. Results come in the order of their calls, and few clients send the ids back.
func (c *calls) answered(m message) llm.ToolCall {
	k := by{id: m.CallID}
	if m.CallID == "" {
		k.name = m.ToolName
	}
	for len(c.open[k]) > 0 {
		first := c.open[k][0]
		if c.open[k] = c.open[k][1:]; !first.answered {
			first.answered = true
			return first.ToolCall
		}
	}
	return llm.ToolCall{ID: m.CallID, Name: m.ToolName}
}

func (m message) words(all *calls) (out llm.Message, err error) {
	switch m.Role {
	case "system", "user", "assistant":
		out.Role = llm.Role(m.Role)
	case "tool":
		call := all.answered(m)
		return llm.Message{Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: call.ID, Name: call.Name, Text: m.Content}}}}, nil
	default:
		return out, fmt.Errorf("role: %q is not one of system, user, assistant, tool", m.Role)
	}
	if m.Thinking != "" {
		out.Parts = append(out.Parts, llm.Part{Thinking: &llm.Thinking{Text: m.Thinking}})
	}
	if m.Content != "" {
		out.Parts = append(out.Parts, llm.Part{Text: m.Content})
	}
	pictures, err := images(m.Images)
	if err != nil {
		return out, err
	}
	out.Parts = append(out.Parts, pictures...)
	if len(m.Calls) > 0 {
		all.open = map[by][]*openCall{} // results come before the next calls: what has none by now gets none
	}
	for i, c := range m.Calls {
		if c.Function.Name == "" {
			return out, fmt.Errorf("tool_calls[%d].function.name: is missing", i)
		}
		id := c.ID
		if id == "" {
			id = fmt.Sprintf("call_%d", all.made)
		}
		call := llm.ToolCall{ID: id, Name: c.Function.Name, Arguments: string(c.Function.Arguments)}
		all.add(call)
		out.Parts = append(out.Parts, llm.Part{Call: &call})
	}
	return out, nil
}

func images(list []string) (parts []llm.Part, err error) {
	for i, s := range list {
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil || len(data) == 0 {
			return nil, fmt.Errorf("images[%d]: is not valid base64", i)
		}
		parts = append(parts, llm.Part{Image: &llm.Image{MIME: http.DetectContentType(data), Data: data}})
	}
	return parts, nil
}

// ParseName reads the older name of the field "model", which Ollama's own command line still sends to POST /api/show; "" where it is not there.
func ParseName(b []byte) string {
	var in struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(b, &in) != nil {
		return ""
	}
	return in.Name
}

// ParseEmbed reads the body of POST /api/embed, and of its older form POST /api/embeddings, which has one prompt.
func ParseEmbed(b []byte) (llm.EmbedRequest, error) {
	var in struct {
		Model      string          `json:"model"`
		Input      json.RawMessage `json:"input"`
		Prompt     string          `json:"prompt"`
		Dimensions int             `json:"dimensions"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return llm.EmbedRequest{}, fmt.Errorf("body: is not valid: %w", err)
	}
	req := llm.EmbedRequest{Model: in.Model, Dimensions: in.Dimensions}
	var one string
	switch {
	case in.Prompt != "":
		req.Texts = []string{in.Prompt}
	case json.Unmarshal(in.Input, &one) == nil && one != "":
		req.Texts = []string{one}
	case json.Unmarshal(in.Input, &req.Texts) != nil || len(req.Texts) == 0:
		return req, errors.New("input: must be a text or a list of texts")
	}
	return req, nil
}
