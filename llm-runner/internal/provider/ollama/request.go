package ollama

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

type request struct {
	Model    string          `json:"model"`
	Messages []message       `json:"messages"`
	Tools    []tool          `json:"tools,omitempty"`
	Format   json.RawMessage `json:"format,omitempty"`
	Think    json.RawMessage `json:"think,omitempty"`
	Options  map[string]any  `json:"options,omitempty"`
	Stream   bool            `json:"stream"`
}

type message struct {
	Role     string   `json:"role"`
	Content  string   `json:"content"`
	Thinking string   `json:"thinking,omitempty"`
	Images   [][]byte `json:"images,omitempty"` // base64 on the wire
	Calls    []call   `json:"tool_calls,omitempty"`
	ToolName string   `json:"tool_name,omitempty"`
	CallID   string   `json:"tool_call_id,omitempty"`
}

type call struct {
	ID       string `json:"id,omitempty"` // newer servers
	Function struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"` // an object, not text
	} `json:"function"`
}

type tool struct {
	Type     string   `json:"type"`
	Function toolSpec `json:"function"`
}

type toolSpec struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters"`
}

func (r request) marshal() []byte { return llm.AppendJSON(nil, r) }

// newRequest writes req in Ollama's words. Ollama has no tool_choice: "none" leaves the tools out, a named tool leaves out the
// others, "required" is a wish that cannot be told.
func newRequest(req llm.Request, contextTokens int) (request, error) {
	out := request{Model: req.Model, Messages: []message{}, Stream: true, Options: options(req, contextTokens), Think: think(req)}
	for _, m := range req.Messages {
		ms, err := messages(m)
		if err != nil {
			return request{}, err
		}
		out.Messages = append(out.Messages, ms...)
	}
	for _, t := range req.Tools {
		if req.ToolChoice.Mode == "none" || req.ToolChoice.Mode == "tool" && req.ToolChoice.Name != t.Name {
			continue
		}
		schema := t.Schema
		if len(schema) == 0 {
			schema = json.RawMessage(`{"type":"object","properties":{}}`)
		}
		if !json.Valid(schema) {
			return request{}, fmt.Errorf("tool %s: its schema is not valid JSON", t.Name)
		}
		out.Tools = append(out.Tools, tool{"function", toolSpec{t.Name, t.Description, schema}})
	}
	if f := req.Format; f != nil {
		out.Format = json.RawMessage(`"json"`)
		if len(f.Schema) > 0 {
			if !json.Valid(f.Schema) {
				return request{}, errors.New("format: its schema is not valid JSON")
			}
			out.Format = f.Schema
		}
	}
	return out, nil
}

func options(req llm.Request, contextTokens int) map[string]any {
	o := map[string]any{}
	if req.MaxTokens > 0 {
		o["num_predict"] = req.MaxTokens
	}
	if req.Temperature != nil {
		o["temperature"] = *req.Temperature
	}
	if req.TopP != nil {
		o["top_p"] = *req.TopP
	}
	if req.Seed != nil {
		o["seed"] = *req.Seed
	}
	if len(req.Stop) > 0 {
		o["stop"] = req.Stop
	}
	if contextTokens > 0 {
		o["num_ctx"] = contextTokens
	}
	return o
}

// think says how hard to think. Only gpt-oss knows degrees, others refuse them ("think value ... is not supported for this
// model"), and gpt-oss in turn cannot stop thinking.
func think(req llm.Request) json.RawMessage {
	degrees := strings.Contains(strings.ToLower(req.Model), "gpt-oss")
	switch {
	case req.Effort == "":
		return nil
	case degrees && (req.Effort == "none" || req.Effort == "minimal"):
		return json.RawMessage(`"low"`)
	case degrees:
		return json.RawMessage(`"` + req.Effort + `"`)
	case req.Effort == "none":
		return json.RawMessage("false")
	}
	return json.RawMessage("true")
}

// messages writes one message. Tool results become one message each, before the rest.
func messages(m llm.Message) ([]message, error) {
	var out []message
	rest := message{Role: string(m.Role)}
	for _, p := range m.Parts {
		switch {
		case p.Result != nil:
			out = append(out, message{Role: "tool", Content: p.Result.Text, ToolName: p.Result.Name, CallID: p.Result.ID})
		case p.Call != nil:
			c := call{ID: p.Call.ID}
			c.Function.Name, c.Function.Arguments = p.Call.Name, object(p.Call.Arguments)
			rest.Calls = append(rest.Calls, c)
		case p.Image != nil && p.Image.URL != "":
			return nil, errors.New("image: Ollama does not fetch addresses; send the image's data instead")
		case p.Image != nil:
			rest.Images = append(rest.Images, p.Image.Data)
		case p.Thinking != nil:
			rest.Thinking += p.Thinking.Text
		default:
			rest.Content += p.Text
		}
	}
	if m.Role == llm.Tool || len(out) > 0 && rest.Content == "" && rest.Calls == nil && rest.Images == nil {
		return out, nil
	}
	return append(out, rest), nil
}

// object returns arguments as the object that Ollama wants. What a model wrote wrongly goes back as it is, in a field.
func object(arguments string) json.RawMessage {
	var o map[string]json.RawMessage
	if json.Unmarshal([]byte(arguments), &o) == nil && o != nil {
		return json.RawMessage(arguments)
	}
	if strings.TrimSpace(arguments) == "" {
		return json.RawMessage("{}")
	}
	return llm.AppendJSON(nil, map[string]string{"invalid": arguments})
}

// calls counts the tool calls of a conversation so far.
func calls(req llm.Request) int {
	n := 0
	for _, m := range req.Messages {
		for _, p := range m.Parts {
			if p.Call != nil {
				n++
			}
		}
	}
	return n
}
