package fake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

func (d anthropic) read(r *http.Request, body []byte) (ask, *refusal) {
	known := []string{"/v1/messages", "/v1/messages/count_tokens", "/v1/models"}
	i := slices.Index(known, r.URL.Path)
	if i < 0 || (r.Method == http.MethodGet) != (i == 2) {
		return ask{}, &refusal{kind: script.NoModel, message: "Not found"}
	}
	if r.Header.Get("Anthropic-Version") == "" {
		return ask{}, &refusal{kind: script.BadRequest, message: "anthropic-version: header is required"}
	}
	switch i {
	case 1:
		a, bad := readMessages(body, false)
		a.op, a.raw = opRaw, fmt.Appendf(nil, `{"input_tokens":%d}`+"\n", script.Tokens(a.prompt))
		return a, bad
	case 2:
		return ask{op: opModels}, nil
	}
	return readMessages(body, true)
}

// An anthropicRequest has every field of the API that is not behind a beta header.
type anthropicRequest struct {
	Model         string             `json:"model"`
	MaxTokens     *int               `json:"max_tokens"`
	Messages      []anthropicMessage `json:"messages"`
	System        json.RawMessage    `json:"system"`
	Stream        bool               `json:"stream"`
	Temperature   *float64           `json:"temperature"`
	TopP          *float64           `json:"top_p"`
	TopK          *int               `json:"top_k"`
	StopSequences []string           `json:"stop_sequences"`
	Tools         []json.RawMessage  `json:"tools"`
	ToolChoice    *struct {
		Type            string `json:"type"`
		Name            string `json:"name"`
		DisableParallel bool   `json:"disable_parallel_tool_use"`
	} `json:"tool_choice"`
	Thinking *struct {
		Type         string `json:"type"`
		BudgetTokens int    `json:"budget_tokens"`
		Display      string `json:"display"`
	} `json:"thinking"`
	OutputConfig *struct {
		Effort string `json:"effort"`
		Format *struct {
			Type   string          `json:"type"`
			Schema json.RawMessage `json:"schema"`
		} `json:"format"`
	} `json:"output_config"`
	Metadata     json.RawMessage `json:"metadata"`
	ServiceTier  string          `json:"service_tier"`
	CacheControl json.RawMessage `json:"cache_control"`
	Container    json.RawMessage `json:"container"`
	InferenceGeo string          `json:"inference_geo"`
	Speed        string          `json:"speed"`
}

type anthropicMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type anthropicBlock struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Thinking  string          `json:"thinking"`
	Signature string          `json:"signature"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	Content   json.RawMessage `json:"content"`
	Source    *struct {
		Type string `json:"type"`
		Data []byte `json:"data"`
		URL  string `json:"url"`
	} `json:"source"`
}

// strictly decodes body into v. A field that v does not know comes back by its name.
func strictly(body []byte, v any) (unknown string, err error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err = dec.Decode(v)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("more than one value")
		}
		return "", err
	}
	if _, name, ok := strings.Cut(err.Error(), "unknown field "); ok {
		return strings.Trim(name, `"`), err
	}
	return "", err
}

// readMessages reads a request. answers is false for counting tokens, which needs no max_tokens.
func readMessages(body []byte, answers bool) (ask, *refusal) {
	var in anthropicRequest
	bad := func(format string, args ...any) (ask, *refusal) {
		return ask{model: in.Model, stream: in.Stream}, &refusal{kind: script.BadRequest, message: fmt.Sprintf(format, args...)}
	}
	unknown, err := strictly(body, &in)
	switch {
	case unknown != "":
		return bad("%s: Extra inputs are not permitted", unknown)
	case err != nil:
		return bad("The request body is not valid JSON: %v", err)
	case in.Model == "":
		return bad("model: Field required")
	case answers && in.MaxTokens == nil:
		return bad("max_tokens: Field required")
	case len(in.Messages) == 0:
		return bad("messages: at least one message is required")
	case in.Messages[0].Role != "user":
		return bad("messages: first message must use the \"user\" role")
	}
	if words := in.conflict(); words != "" {
		return bad("%s", words)
	}
	a := ask{model: in.Model, stream: in.Stream, json: in.OutputConfig != nil && in.OutputConfig.Format != nil}
	system, _ := anthropicBlocks(in.System)
	var all strings.Builder
	for _, b := range system {
		all.WriteString(b.Text + "\n")
	}
	calls := map[string]bool{} // of the turn before
	for i, m := range in.Messages {
		blocks, err := anthropicBlocks(m.Content)
		if err != nil || m.Role != "user" && m.Role != "assistant" {
			return bad("messages.%d: Input should be a valid message", i)
		}
		asked := map[string]bool{}
		text := ""
		for j, b := range blocks {
			place := fmt.Sprintf("messages.%d.content.%d", i, j)
			switch {
			case b.Type == "text" && strings.TrimSpace(b.Text) == "":
				return bad("messages: text content blocks must be non-empty")
			case b.Type == "text":
				text += b.Text
			case b.Type == "thinking" && b.Signature == "":
				return bad("%s.thinking.signature: Field required", place)
			case b.Type == "tool_use" && (len(b.Input) == 0 || b.Input[0] != '{'):
				return bad("%s.tool_use.input: Input should be a valid dictionary", place)
			case b.Type == "tool_use":
				asked[b.ID] = true
			case b.Type == "tool_result" && !calls[b.ToolUseID]:
				return bad("%s: unexpected `tool_use_id` found in `tool_result` blocks: %s. Each `tool_result` block must have a corresponding `tool_use` block in the previous message.", place, b.ToolUseID)
			case b.Type == "tool_result":
				delete(calls, b.ToolUseID)
				inner, _ := anthropicBlocks(b.Content)
				for _, x := range inner {
					all.WriteString(x.Text + "\n")
				}
			case b.Type == "image" && (b.Source == nil || len(b.Source.Data) == 0 && b.Source.URL == ""):
				return bad("%s.image.source: Field required", place)
			}
			all.WriteString(b.Text + b.Thinking + string(b.Input) + "\n")
		}
		for id := range calls {
			return bad("messages.%d: `tool_use` ids were found without `tool_result` blocks immediately after: %s. Each `tool_use` block must have a corresponding `tool_result` block in the next message.", i-1, id)
		}
		calls = asked
		if m.Role == "user" && text != "" {
			a.input = text
		}
	}
	a.prompt = all.String()
	return a, nil
}

// anthropicBlocks reads content: a string, or a list of blocks.
func anthropicBlocks(raw json.RawMessage) (blocks []anthropicBlock, err error) {
	var s string
	switch {
	case len(raw) == 0:
		return nil, nil
	case json.Unmarshal(raw, &s) == nil:
		return []anthropicBlock{{Type: "text", Text: s}}, nil
	}
	return blocks, json.Unmarshal(raw, &blocks)
}

// conflict finds settings that exclude each other; "" none. The rules are the API's for the older way of thinking, and
// for the models that have done away with sampling.
func (in anthropicRequest) conflict() string {
	thinks := in.Thinking != nil && in.Thinking.Type == "enabled"
	forced := in.ToolChoice != nil && (in.ToolChoice.Type == "any" || in.ToolChoice.Type == "tool")
	newer := slices.ContainsFunc([]string{"claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-sonnet-5", "claude-haiku-5", "claude-fable", "claude-mythos"}, func(name string) bool { return strings.HasPrefix(in.Model, name) })
	always := strings.HasPrefix(in.Model, "claude-opus-5-5") || strings.HasPrefix(in.Model, "claude-fable-5-1")
	switch {
	case newer && (in.Temperature != nil || in.TopP != nil || in.TopK != nil):
		return "`temperature` is deprecated for this model."
	case newer && thinks, always && in.Thinking != nil && in.Thinking.Type == "disabled":
		return fmt.Sprintf("\"thinking.type.%s\" is not supported for this model. Use \"thinking.type.adaptive\" and \"output_config.effort\" to control thinking behavior.", in.Thinking.Type)
	case always && forced:
		return "tool_choice: forced tool use is not supported for this model."
	case thinks && in.Thinking.BudgetTokens < 1024:
		return "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
	case thinks && in.MaxTokens != nil && in.Thinking.BudgetTokens >= *in.MaxTokens:
		return "`max_tokens` must be greater than `thinking.budget_tokens`."
	case thinks && in.Temperature != nil && *in.Temperature != 1:
		return "`temperature` may only be set to 1 when thinking is enabled."
	case thinks && forced:
		return "Thinking may not be enabled when tool_choice forces tool use."
	case in.Temperature != nil && (*in.Temperature < 0 || *in.Temperature > 1):
		return "temperature: range: 0..1"
	}
	return ""
}
