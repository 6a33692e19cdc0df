package anthropic

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

func ptr[T any](v T) *T { return &v }

func sameJSON(t *testing.T, got []byte, want string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatalf("%v in what is wanted: %s", err, want)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEncode(t *testing.T) {
	ask := []llm.Message{llm.Says(llm.User, "hi")}
	tools := []llm.ToolSpec{{Name: "now", Description: "Tells the time."}}
	schema := json.RawMessage(`{"type":"object","properties":{"n":{"type":"integer","minimum":1}}}`)
	const hi = `"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stream":true`
	const now = `"tools":[{"name":"now","description":"Tells the time.","input_schema":{"type":"object","properties":{}}}]`
	for _, tt := range []struct {
		name string
		req  llm.Request
		want string
	}{
		{"the least", llm.Request{Model: "claude-sonnet-5", Messages: ask}, `{"model":"claude-sonnet-5","max_tokens":16384,` + hi + `}`},
		{"an old model's limit", llm.Request{Model: "claude-3-haiku-20240307", Messages: ask}, `{"model":"claude-3-haiku-20240307","max_tokens":4096,` + hi + `}`},
		{"sampling, where it is known", llm.Request{Model: "claude-3-5-haiku-20241022", Messages: ask, MaxTokens: 5, Temperature: ptr(1.5), TopP: ptr(0.9), Stop: []string{"END", "\n"}, Seed: ptr(int64(1))},
			`{"model":"claude-3-5-haiku-20241022","max_tokens":5,"temperature":1,"top_p":0.9,"stop_sequences":["END"],` + hi + `}`},
		{"sampling, one of two", llm.Request{Model: "claude-sonnet-4-6", Messages: ask, MaxTokens: 5, Temperature: ptr(0.5), TopP: ptr(0.9)},
			`{"model":"claude-sonnet-4-6","max_tokens":5,"temperature":0.5,` + hi + `}`},
		{"sampling, where it is refused", llm.Request{Model: "claude-opus-4-7", Messages: ask, MaxTokens: 5, Temperature: ptr(0.5), TopP: ptr(0.9)},
			`{"model":"claude-opus-4-7","max_tokens":5,` + hi + `}`},
		{"thinking by a budget, and no temperature", llm.Request{Model: "claude-haiku-4-5-20251001", Messages: ask, Effort: "low", Temperature: ptr(0.5)},
			`{"model":"claude-haiku-4-5-20251001","max_tokens":10240,"thinking":{"type":"enabled","budget_tokens":2048},` + hi + `}`},
		{"a budget within the caller's limit", llm.Request{Model: "claude-haiku-4-5", Messages: ask, Effort: "high", MaxTokens: 4000},
			`{"model":"claude-haiku-4-5","max_tokens":4000,"thinking":{"type":"enabled","budget_tokens":2000},` + hi + `}`},
		{"no room for a budget", llm.Request{Model: "claude-haiku-4-5", Messages: ask, Effort: "high", MaxTokens: 2000, Temperature: ptr(0.5)},
			`{"model":"claude-haiku-4-5","max_tokens":2000,"temperature":0.5,` + hi + `}`},
		{"thinking by effort", llm.Request{Model: "claude-opus-5", Messages: ask, Effort: "minimal"},
			`{"model":"claude-opus-5","max_tokens":16384,"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"low"},` + hi + `}`},
		{"no thinking", llm.Request{Model: "claude-opus-5", Messages: ask, Effort: "none"},
			`{"model":"claude-opus-5","max_tokens":16384,"thinking":{"type":"disabled"},` + hi + `}`},
		{"no thinking, where it cannot be helped", llm.Request{Model: "claude-opus-5-5", Messages: ask, Effort: "none"},
			`{"model":"claude-opus-5-5","max_tokens":16384,"output_config":{"effort":"low"},` + hi + `}`},
		{"no budget where another model has called the tools", llm.Request{Model: "claude-haiku-4-5", Effort: "high", MaxTokens: 9000, Messages: []llm.Message{
			{Role: llm.Assistant, Parts: []llm.Part{{Call: &llm.ToolCall{ID: "a", Name: "now"}}}}, {Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: "a", Text: "noon"}}}},
		}}, `{"model":"claude-haiku-4-5","max_tokens":9000,"stream":true,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"now","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"noon"}]}]}`},
		{"tools", llm.Request{Model: "claude-sonnet-5", Messages: ask, Tools: tools}, `{"model":"claude-sonnet-5","max_tokens":16384,` + now + `,` + hi + `}`},
		{"one tool at a time", llm.Request{Model: "claude-sonnet-5", Messages: ask, Tools: tools, NoParallelTools: true},
			`{"model":"claude-sonnet-5","max_tokens":16384,` + now + `,"tool_choice":{"type":"auto","disable_parallel_tool_use":true},` + hi + `}`},
		{"a forced tool rules thinking out", llm.Request{Model: "claude-sonnet-5", Messages: ask, Tools: tools, ToolChoice: llm.ToolChoice{Mode: "tool", Name: "now"}, Effort: "high"},
			`{"model":"claude-sonnet-5","max_tokens":16384,` + now + `,"tool_choice":{"type":"tool","name":"now"},"thinking":{"type":"disabled"},` + hi + `}`},
		{"a forced tool of an old model", llm.Request{Model: "claude-3-5-haiku-latest", Messages: ask, Tools: tools, ToolChoice: llm.ToolChoice{Mode: "required"}},
			`{"model":"claude-3-5-haiku-latest","max_tokens":4096,` + now + `,"tool_choice":{"type":"any"},` + hi + `}`},
		{"a tool that cannot be forced", llm.Request{Model: "claude-opus-5-5", Messages: ask, Tools: tools, ToolChoice: llm.ToolChoice{Mode: "required"}},
			`{"model":"claude-opus-5-5","max_tokens":16384,"system":"Answer by calling one of the tools, not with text.",` + now + `,"tool_choice":{"type":"auto"},` + hi + `}`},
		{"no tool", llm.Request{Model: "claude-opus-5", Messages: ask, Tools: tools, ToolChoice: llm.ToolChoice{Mode: "none"}},
			`{"model":"claude-opus-5","max_tokens":16384,` + now + `,"tool_choice":{"type":"none"},` + hi + `}`},
		{"structured output", llm.Request{Model: "claude-sonnet-4-5", Messages: ask, Format: &llm.Format{Name: "n", Schema: schema}},
			`{"model":"claude-sonnet-4-5","max_tokens":8192,"output_config":{"format":{"type":"json_schema","schema":{"type":"object","additionalProperties":false,"properties":{"n":{"type":"integer","description":"{minimum: 1}"}}}}},` + hi + `}`},
		{"structured output in words", llm.Request{Model: "claude-sonnet-4-20250514", Messages: ask, Format: &llm.Format{}},
			`{"model":"claude-sonnet-4-20250514","max_tokens":8192,"system":"Answer with one JSON object and nothing else: no code fence, no text before or after it.",` + hi + `}`},
		{"strict tools", llm.Request{Model: "claude-sonnet-5", Messages: ask, Tools: []llm.ToolSpec{{Name: "f", Schema: schema, Strict: true}}},
			`{"model":"claude-sonnet-5","max_tokens":16384,"tools":[{"name":"f","strict":true,"input_schema":{"type":"object","additionalProperties":false,"properties":{"n":{"type":"integer","description":"{minimum: 1}"}}}}],` + hi + `}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := encode(tt.req)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, got, tt.want)
		})
	}
}

func TestConversation(t *testing.T) {
	text := func(s string) llm.Part { return llm.Part{Text: s} }
	for _, tt := range []struct {
		name     string
		messages []llm.Message
		turns    string
		system   []string
	}{
		{name: "system texts apart, one side's turns merged, empty ones left out", messages: []llm.Message{
			llm.Says(llm.System, "one"), llm.Says(llm.User, "a"), llm.Says(llm.User, " "), llm.Says(llm.System, "two"), llm.Says(llm.User, "b"), llm.Says(llm.Assistant, ""),
		}, turns: `[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]`, system: []string{"one", "two"}},
		{name: "calls and results, results first", messages: []llm.Message{
			llm.Says(llm.User, "q"),
			{Role: llm.Assistant, Parts: []llm.Part{{Call: &llm.ToolCall{ID: "call.1:x", Name: "f", Arguments: `{"a": 1}`}}, {Call: &llm.ToolCall{ID: "b", Name: "g", Arguments: `not JSON`}}}},
			{Role: llm.User, Parts: []llm.Part{text("so?")}},
			{Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: "call.1:x", Text: "r"}}, {Result: &llm.ToolResult{ID: "b", Text: "no", IsError: true}}}},
		}, turns: `[{"role":"user","content":[{"type":"text","text":"q"}]},
			{"role":"assistant","content":[{"type":"tool_use","id":"call_1_x","name":"f","input":{"a":1}},{"type":"tool_use","id":"b","name":"g","input":{"INVALID_JSON":"not JSON"}}]},
			{"role":"user","content":[{"type":"tool_result","tool_use_id":"call_1_x","content":"r"},{"type":"tool_result","tool_use_id":"b","content":"no","is_error":true},{"type":"text","text":"so?"}]}]`},
		{name: "thinking goes back first, thinking without a signature not at all", messages: []llm.Message{
			llm.Says(llm.User, "q"),
			{Role: llm.Assistant, Parts: []llm.Part{text("x"), {Thinking: &llm.Thinking{Text: "t", Signature: "s"}}, {Thinking: &llm.Thinking{Redacted: "r"}}, {Thinking: &llm.Thinking{Text: "unsigned"}}}},
			llm.Says(llm.User, "q2"),
		}, turns: `[{"role":"user","content":[{"type":"text","text":"q"}]},
			{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"redacted_thinking","data":"r"},{"type":"text","text":"x"}]},
			{"role":"user","content":[{"type":"text","text":"q2"}]}]`},
		{name: "interleaved thinking keeps its order, an empty one its signature", messages: []llm.Message{
			{Role: llm.Assistant, Parts: []llm.Part{{Thinking: &llm.Thinking{Signature: "s"}}, text("x"), {Thinking: &llm.Thinking{Text: "t", Signature: "u"}}}},
			llm.Says(llm.User, "q"),
		}, turns: `[{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"s"},{"type":"text","text":"x"},{"type":"thinking","thinking":"t","signature":"u"}]},
			{"role":"user","content":[{"type":"text","text":"q"}]}]`},
		{name: "images", messages: []llm.Message{{Role: llm.User, Parts: []llm.Part{
			{Image: &llm.Image{MIME: "image/webp", Data: []byte("abc")}}, {Image: &llm.Image{Data: []byte("\x89PNG\r\n\x1a\n")}}, {Image: &llm.Image{URL: "https://example.org/a.png"}},
		}}}, turns: `[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/webp","data":"YWJj"}},
			{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}},{"type":"image","source":{"type":"url","url":"https://example.org/a.png"}}]}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			turns, system := conversation(tt.messages)
			got, err := json.Marshal(turns)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, got, tt.turns)
			if !reflect.DeepEqual(system, tt.system) {
				t.Errorf("system %q, want %q", system, tt.system)
			}
		})
	}
}

func TestAble(t *testing.T) {
	for model, want := range map[string]ability{
		"claude-3-haiku-20240307":    {sampling: true, forced: true, tokens: oldTokens},
		"claude-3-5-sonnet-latest":   {sampling: true, forced: true, tokens: oldTokens},
		"claude-3-7-sonnet-20250219": {thinking: budget, sampling: true, forced: true, tokens: midTokens},
		"claude-opus-4-20250514":     {thinking: budget, sampling: true, forced: true, tokens: midTokens},
		"claude-opus-4-1-20250805":   {thinking: budget, sampling: true, either: true, forced: true, tokens: midTokens},
		"claude-haiku-4-5-20251001":  {thinking: budget, sampling: true, either: true, forced: true, structured: true, tokens: midTokens},
		"claude-sonnet-4-6":          {thinking: adaptive, quiet: true, sampling: true, either: true, forced: true, structured: true, tokens: newTokens},
		"claude-opus-4-7":            {thinking: adaptive, quiet: true, either: true, forced: true, structured: true, tokens: newTokens},
		"claude-sonnet-5":            {thinking: adaptive, quiet: true, either: true, forced: true, structured: true, tokens: newTokens},
		"claude-haiku-5-5":           {thinking: adaptive, quiet: true, either: true, forced: true, structured: true, tokens: newTokens},
		"claude-opus-5-5":            {thinking: adaptive, either: true, structured: true, tokens: newTokens},
		"claude-fable-5-1":           {thinking: adaptive, either: true, structured: true, tokens: newTokens},
		"claude-mythos-preview":      {thinking: adaptive, either: true, structured: true, tokens: newTokens},
		"glm-5":                      {thinking: budget, sampling: true, forced: true, structured: true, stranger: true, tokens: midTokens},
	} {
		if got := able(model); got != want {
			t.Errorf("%s: got %+v, want %+v", model, got, want)
		}
	}
}

func TestSupportedSchema(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"objects are closed, at every depth", `{"$schema":"x","type":"object","properties":{"a":{"type":"array","items":{"type":"object","properties":{}}}}}`,
			`{"type":"object","additionalProperties":false,"properties":{"a":{"type":"array","items":{"type":"object","properties":{},"additionalProperties":false}}}}`},
		{"what is refused becomes words", `{"type":"string","description":"A name.","maxLength":5,"format":"zip","minLength":1}`,
			`{"type":"string","description":"A name.\n\n{format: \"zip\", maxLength: 5, minLength: 1}"}`},
		{"oneOf", `{"oneOf":[{"type":"object","properties":{}},{"type":"null"}]}`, `{"anyOf":[{"type":"object","properties":{},"additionalProperties":false},{"type":"null"}]}`},
		{"references stand alone", `{"$defs":{"a":{"type":"object"}},"properties":{"x":{"$ref":"#/$defs/a","description":"gone"}},"type":"object"}`,
			`{"$defs":{"a":{"type":"object","additionalProperties":false}},"properties":{"x":{"$ref":"#/$defs/a"}},"type":"object","additionalProperties":false}`},
		{"dictionaries stay open", `{"type":"object","additionalProperties":{"type":"integer","minimum":2}}`, `{"type":"object","additionalProperties":{"type":"integer","description":"{minimum: 2}"}}`},
		{"arrays of many", `{"type":"array","minItems":3}`, `{"type":"array","description":"{minItems: 3}"}`},
		{"not an object", `true`, `true`},
	} {
		t.Run(tt.name, func(t *testing.T) { sameJSON(t, supported(json.RawMessage(tt.in)), tt.want) })
	}
	if got := supported(json.RawMessage(`{"broken`)); !strings.HasPrefix(string(got), `{"broken`) {
		t.Errorf("a broken schema became %s", got)
	}
}
