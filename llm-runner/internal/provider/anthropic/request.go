package anthropic

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// The request of POST /v1/messages.
type request struct {
	Model        string      `json:"model"`
	MaxTokens    int         `json:"max_tokens"`
	System       string      `json:"system,omitempty"`
	Messages     []message   `json:"messages"`
	Tools        []tool      `json:"tools,omitempty"`
	ToolChoice   *toolChoice `json:"tool_choice,omitempty"`
	Temperature  *float64    `json:"temperature,omitempty"`
	TopP         *float64    `json:"top_p,omitempty"`
	Stop         []string    `json:"stop_sequences,omitempty"`
	Thinking     *thinking   `json:"thinking,omitempty"`
	OutputConfig *output     `json:"output_config,omitempty"`
	Stream       bool        `json:"stream"`
}

type message struct {
	Role    string  `json:"role"`
	Content []block `json:"content"`
}

// A block is a content block of a request; which fields are set depends on Type.
type block struct {
	Type      string          `json:"type"`
	Text      string          `json:"text,omitempty"`
	Thinking  *string         `json:"thinking,omitempty"` // a signed block may have an empty one
	Signature string          `json:"signature,omitempty"`
	Data      string          `json:"data,omitempty"`
	Source    *source         `json:"source,omitempty"`
	ID        string          `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Input     json.RawMessage `json:"input,omitempty"`
	ToolUseID string          `json:"tool_use_id,omitempty"`
	Content   string          `json:"content,omitempty"`
	IsError   bool            `json:"is_error,omitempty"`
}

type source struct {
	Type      string `json:"type"`
	MediaType string `json:"media_type,omitempty"`
	Data      []byte `json:"data,omitempty"`
	URL       string `json:"url,omitempty"`
}

type tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	InputSchema json.RawMessage `json:"input_schema"`
	Strict      bool            `json:"strict,omitempty"`
}

type toolChoice struct {
	Type            string `json:"type"`
	Name            string `json:"name,omitempty"`
	DisableParallel bool   `json:"disable_parallel_tool_use,omitempty"`
}

type thinking struct {
	Type         string `json:"type"`
	BudgetTokens int    `json:"budget_tokens,omitempty"`
	Display      string `json:"display,omitempty"`
}

type output struct {
	Effort string  `json:"effort,omitempty"`
	Format *format `json:"format,omitempty"`
}

type format struct {
	Type   string          `json:"type"`
	Schema json.RawMessage `json:"schema"`
}

// encode writes req as the body of POST /v1/messages. What the model would refuse is left out or said in words:
//
//   - temperature and top_p where the model refuses sampling parameters or thinks; of the two only temperature where it
//     refuses both together; seed always, there is none;
//   - a schema becomes output_config.format (structured outputs, no beta header), cut to the supported keywords; models
//     before 4.5, and any request for "some JSON object", get an instruction instead, other vendors' models get both;
//   - a forced tool becomes an instruction where the model always thinks.
func encode(req llm.Request) ([]byte, error) {
	can := able(req.Model)
	out := request{Model: req.Model, MaxTokens: req.MaxTokens, Stream: true}
	if out.MaxTokens <= 0 {
		out.MaxTokens = can.tokens
	}
	var system []string
	out.Messages, system = conversation(req.Messages)
	for _, s := range req.Stop {
		if strings.TrimSpace(s) != "" { // refused: "each stop sequence must contain non-whitespace"
			out.Stop = append(out.Stop, s)
		}
	}
	for _, t := range req.Tools {
		strict := t.Strict && can.structured
		schema := t.Schema
		if len(schema) == 0 {
			schema = json.RawMessage(`{"type":"object","properties":{}}`)
		}
		if strict {
			schema = supported(schema)
		}
		out.Tools = append(out.Tools, tool{t.Name, t.Description, schema, strict})
	}
	var order string
	if out.ToolChoice, order = choose(req, can); order != "" {
		system = append(system, order)
	}
	forced := out.ToolChoice != nil && (out.ToolChoice.Type == "any" || out.ToolChoice.Type == "tool")
	out.think(req, can, forced)
	if f := req.Format; f != nil {
		constrained := can.structured && len(f.Schema) > 0
		if constrained {
			out.config().Format = &format{"json_schema", supported(f.Schema)}
		}
		if !constrained || can.stranger {
			system = append(system, instruction(f))
		}
	}
	if out.Thinking != nil && out.Thinking.Type == "enabled" && unthought(out.Messages) {
		out.Thinking = nil
	}
	if thinks := out.Thinking != nil && out.Thinking.Type != "disabled"; can.sampling && !thinks {
		if req.Temperature != nil {
			t := min(max(*req.Temperature, 0), 1) // OpenAI's go to 2
			out.Temperature = &t
		}
		if req.Temperature == nil || !can.either {
			out.TopP = req.TopP
		}
	}
	out.System = strings.Join(system, "\n\n")
	return json.Marshal(out)
}

func (r *request) config() *output {
	if r.OutputConfig == nil {
		r.OutputConfig = &output{}
	}
	return r.OutputConfig
}

// budgets are the thinking tokens of an effort, for models that take a number: at least 1,024, and less than max_tokens.
var budgets = map[string]int{"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}

// think says how hard to think. Without an effort nothing is said and the model's own default applies: off before Claude 5,
// on and unshown after. Where thinking is asked for it is also shown (display summarized). A forced tool rules thinking out.
func (r *request) think(req llm.Request, can ability, forced bool) {
	switch {
	case forced || req.Effort == "none":
		if can.quiet {
			r.Thinking = &thinking{Type: "disabled"}
		} else if can.thinking == adaptive {
			r.config().Effort = "low"
		}
	case req.Effort == "" || can.thinking == noThinking:
	case can.thinking == adaptive:
		r.Thinking = &thinking{Type: "adaptive", Display: "summarized"}
		r.config().Effort = req.Effort
		if req.Effort == "minimal" {
			r.config().Effort = "low"
		}
	default:
		n := budgets[req.Effort]
		if req.MaxTokens <= 0 {
			r.MaxTokens += n
		} else {
			n = min(n, req.MaxTokens/2) // the caller's limit stays one, with room for the answer itself
		}
		if n >= 1024 {
			r.Thinking = &thinking{Type: "enabled", BudgetTokens: n}
		}
	}
}

// unthought says that the last turn of the model calls tools and does not begin with thinking, as when another model wrote it.
// With a thinking budget such a turn is refused ("Expected `thinking` or `redacted_thinking`, but found `tool_use`");
// adaptive thinking takes it.
func unthought(turns []message) bool {
	for _, t := range slices.Backward(turns) {
		if t.Role == "assistant" {
			calls := slices.ContainsFunc(t.Content, func(b block) bool { return b.Type == "tool_use" })
			return calls && !strings.HasSuffix(t.Content[0].Type, "thinking")
		}
	}
	return false
}

// choose returns the tool choice, and an order in words where the model refuses the choice itself.
func choose(req llm.Request, can ability) (*toolChoice, string) {
	if len(req.Tools) == 0 {
		return nil, ""
	}
	c := &toolChoice{Type: "auto", DisableParallel: req.NoParallelTools}
	switch mode := req.ToolChoice.Mode; {
	case mode == "none":
		return &toolChoice{Type: "none"}, ""
	case mode == "required" && can.forced:
		c.Type = "any"
	case mode == "required":
		return c, "Answer by calling one of the tools, not with text."
	case mode == "tool" && can.forced:
		c.Type, c.Name = "tool", req.ToolChoice.Name
	case mode == "tool":
		return c, "Answer by calling the tool " + req.ToolChoice.Name + ", not with text."
	}
	if c.Type == "auto" && !c.DisableParallel {
		return nil, "" // the default
	}
	return c, ""
}

func instruction(f *llm.Format) string {
	s := "Answer with one JSON object and nothing else: no code fence, no text before or after it."
	if len(f.Schema) > 0 {
		s += " It must fit this JSON Schema:\n" + string(f.Schema)
	}
	return s
}

// conversation turns messages into the API's alternating turns: system texts apart, consecutive turns of one side merged,
// tool results first in theirs (the API demands it), empty texts and empty turns left out (it refuses them).
func conversation(messages []llm.Message) (turns []message, system []string) {
	for _, m := range messages {
		if m.Role == llm.System {
			if t := m.Text(); strings.TrimSpace(t) != "" {
				system = append(system, t)
			}
			continue
		}
		role := "user"
		if m.Role == llm.Assistant {
			role = "assistant"
		}
		blocks := blocks(m.Parts)
		if len(blocks) == 0 {
			continue
		}
		if n := len(turns); n > 0 && turns[n-1].Role == role {
			turns[n-1].Content = append(turns[n-1].Content, blocks...)
		} else {
			turns = append(turns, message{role, blocks})
		}
	}
	for _, t := range turns {
		first := "tool_result"
		if t.Role == "assistant" {
			if strings.HasSuffix(t.Content[0].Type, "thinking") {
				continue // as the model wrote it: signatures vouch for the order, too
			}
			first = "thinking"
		}
		slices.SortStableFunc(t.Content, func(a, b block) int {
			return rank(a, first) - rank(b, first)
		})
	}
	if n := len(turns); n > 0 && turns[n-1].Role == "assistant" {
		// A prefill (models before 4.6 take one) may not end in white space.
		if last := &turns[n-1].Content[len(turns[n-1].Content)-1]; last.Type == "text" {
			last.Text = strings.TrimRight(last.Text, " \t\r\n")
		}
	}
	return turns, system
}

func rank(b block, first string) int {
	if strings.HasSuffix(b.Type, first) {
		return 0
	}
	return 1
}

func blocks(parts []llm.Part) []block {
	var out []block
	for _, p := range parts {
		switch {
		case p.Thinking != nil:
			switch t := p.Thinking; {
			case t.Redacted != "":
				out = append(out, block{Type: "redacted_thinking", Data: t.Redacted})
			case t.Signature != "": // without one it is another model's, and refused
				out = append(out, block{Type: "thinking", Thinking: &t.Text, Signature: t.Signature})
			}
		case p.Image != nil:
			out = append(out, block{Type: "image", Source: picture(p.Image)})
		case p.Call != nil:
			out = append(out, block{Type: "tool_use", ID: toolID(p.Call.ID), Name: p.Call.Name, Input: p.Call.Object()})
		case p.Result != nil:
			r := p.Result
			out = append(out, block{Type: "tool_result", ToolUseID: toolID(r.ID), Content: r.Text, IsError: r.IsError})
		case strings.TrimSpace(p.Text) != "":
			out = append(out, block{Type: "text", Text: p.Text})
		}
	}
	return out
}

func picture(i *llm.Image) *source {
	if len(i.Data) == 0 {
		return &source{Type: "url", URL: i.URL}
	}
	mime := i.MIME
	if mime == "" {
		mime = http.DetectContentType(i.Data)
	}
	return &source{Type: "base64", MediaType: mime, Data: i.Data}
}

// toolID replaces what the API refuses in ids (it takes ^[a-zA-Z0-9_-]+$): they may come from another provider.
func toolID(id string) string {
	if id == "" {
		return "toolu_0"
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '_'
	}, id)
}
