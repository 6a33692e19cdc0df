package gemini

import (
	"encoding/json"
	"reflect"
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
	schema := json.RawMessage(`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false}`)
	tools := []llm.ToolSpec{{Name: "now", Description: "Tells the time."}, {Name: "f", Schema: schema}}
	const hi = `"contents":[{"role":"user","parts":[{"text":"hi"}]}]`
	const box = `"tools":[{"functionDeclarations":[{"name":"now","description":"Tells the time."},{"name":"f","parametersJsonSchema":{"type":"object","additionalProperties":false}}]}]`
	for _, tt := range []struct {
		name string
		req  llm.Request
		want string
	}{
		{"the least", llm.Request{Messages: ask}, `{` + hi + `}`},
		{"settings", llm.Request{Model: "gemini-3.8-flash", Messages: append([]llm.Message{llm.Says(llm.System, "brief"), llm.Says(llm.System, "kind")}, ask...), MaxTokens: 5, Temperature: ptr(1.5), TopP: ptr(0.9), Seed: ptr(int64(1<<32 + 7)), Stop: []string{"END"}},
			`{"systemInstruction":{"parts":[{"text":"brief\n\nkind"}]},` + hi + `,"generationConfig":{"maxOutputTokens":5,"temperature":1.5,"topP":0.9,"seed":7,"stopSequences":["END"]}}`},
		{"tools", llm.Request{Messages: ask, Tools: tools}, `{` + hi + `,` + box + `}`},
		{"no tool", llm.Request{Messages: ask, Tools: tools, ToolChoice: llm.ToolChoice{Mode: "none"}}, `{` + hi + `,` + box + `,"toolConfig":{"functionCallingConfig":{"mode":"NONE"}}}`},
		{"any tool, one at a time", llm.Request{Messages: ask, Tools: tools, ToolChoice: llm.ToolChoice{Mode: "required"}, NoParallelTools: true},
			`{` + hi + `,` + box + `,"toolConfig":{"functionCallingConfig":{"mode":"ANY"}},"systemInstruction":{"parts":[{"text":"Call at most one tool at a time."}]}}`},
		{"one tool", llm.Request{Messages: ask, Tools: tools, ToolChoice: llm.ToolChoice{Mode: "tool", Name: "f"}}, `{` + hi + `,` + box + `,"toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["f"]}}}`},
		{"structured output", llm.Request{Messages: ask, Format: &llm.Format{Schema: schema}}, `{` + hi + `,"generationConfig":{"responseMimeType":"application/json","responseJsonSchema":{"type":"object","additionalProperties":false}}}`},
		{"any JSON", llm.Request{Messages: ask, Format: &llm.Format{}}, `{` + hi + `,"generationConfig":{"responseMimeType":"application/json"}}`},
		{"structured output with tools", llm.Request{Model: "gemini-3-flash-preview", Messages: ask, Tools: tools, Format: &llm.Format{}}, `{` + hi + `,` + box + `,"generationConfig":{"responseMimeType":"application/json"}}`},
		{"structured output with tools, where they exclude each other", llm.Request{Model: "gemini-2.5-flash", Messages: ask, Tools: tools, Format: &llm.Format{}},
			`{` + hi + `,` + box + `,"systemInstruction":{"parts":[{"text":"Unless you call a tool, answer with one JSON object and nothing else: no code fence, no text before or after it."}]}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := encode(tt.req, false)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, got, tt.want)
		})
	}
}

func TestThink(t *testing.T) {
	for _, tt := range []struct{ model, effort, want string }{
		{"gemini-3.8-flash", "", `null`},
		{"gemini-3.8-flash", "none", `{"thinkingLevel":"MINIMAL"}`},
		{"gemini-3.1-pro-preview", "none", `{"thinkingLevel":"LOW"}`},
		{"gemini-3.1-pro-preview", "minimal", `{"thinkingLevel":"LOW","includeThoughts":true}`},
		{"gemini-flash-latest", "high", `{"thinkingLevel":"HIGH","includeThoughts":true}`},
		{"gemini-4", "medium", `{"thinkingLevel":"MEDIUM","includeThoughts":true}`},
		{"gemini-2.5-flash", "none", `{"thinkingBudget":0}`},
		{"gemini-2.5-pro", "none", `{"thinkingBudget":128}`},
		{"models/gemini-2.5-flash-lite", "medium", `{"thinkingBudget":8192,"includeThoughts":true}`},
		{"gemini-2.0-flash", "high", `null`},
		{"gemma-3-27b-it", "high", `null`},
	} {
		got, err := json.Marshal(able(tt.model).think(tt.effort))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(tt.model+" "+tt.effort, func(t *testing.T) { sameJSON(t, got, tt.want) })
	}
}

func TestConversation(t *testing.T) {
	call := func(id, name, args, signature string) llm.Part {
		return llm.Part{Call: &llm.ToolCall{ID: id, Name: name, Arguments: args, Signature: signature}}
	}
	turn := func(parts ...llm.Part) []llm.Message {
		return []llm.Message{llm.Says(llm.User, "q"), {Role: llm.Assistant, Parts: parts}}
	}
	const q = `{"role":"user","parts":[{"text":"q"}]},`
	for _, tt := range []struct {
		name     string
		model    string
		messages []llm.Message
		unsigned bool
		want     string
	}{
		{name: "one side's turns merged, empty ones left out", messages: []llm.Message{llm.Says(llm.User, "a"), llm.Says(llm.User, ""), llm.Says(llm.System, "s"), llm.Says(llm.User, "b")},
			want: `[{"role":"user","parts":[{"text":"a"},{"text":"b"}]}]`},
		{name: "calls and results", messages: append(turn(call("1", "f", `{"a": 1}`, "sig"), call("2", "g", "", "")),
			llm.Message{Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: "1", Text: "r"}}}},
			llm.Message{Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: "2", Name: "g", Text: "no", IsError: true}}}}),
			want: `[` + q + `{"role":"model","parts":[{"functionCall":{"id":"1","name":"f","args":{"a":1}},"thoughtSignature":"sig"},{"functionCall":{"id":"2","name":"g","args":{}}}]},
				{"role":"user","parts":[{"functionResponse":{"id":"1","name":"f","response":{"output":"r"}}},{"functionResponse":{"id":"2","name":"g","response":{"error":"no"}}}]}]`},
		{name: "signatures go back where they were", messages: turn(llm.Part{Thinking: &llm.Thinking{Text: "t", Signature: "s1"}}, llm.Part{Text: "x"}, llm.Part{Thinking: &llm.Thinking{Signature: "s2"}}, llm.Part{Thinking: &llm.Thinking{Text: "unsigned"}}),
			want: `[` + q + `{"role":"model","parts":[{"text":"t","thought":true,"thoughtSignature":"s1"},{"text":"x"},{"text":"","thoughtSignature":"s2"}]}]`},
		{name: "unsigned", unsigned: true, messages: turn(llm.Part{Thinking: &llm.Thinking{Text: "t", Signature: "s1"}}, llm.Part{Text: "x"}, call("1", "f", "[1]", "sig")),
			want: `[` + q + `{"role":"model","parts":[{"text":"x"},{"functionCall":{"id":"1","name":"f","args":{"INVALID_JSON":"[1]"}}}]}]`},
		{name: "another model's calls get a stand-in from Gemini 3 on", model: "gemini-3.8-flash", messages: turn(call("1", "f", "{}", ""), call("2", "g", "{}", "")),
			want: `[` + q + `{"role":"model","parts":[{"functionCall":{"id":"1","name":"f","args":{}},"thoughtSignature":"skip_thought_signature_validator"},{"functionCall":{"id":"2","name":"g","args":{}}}]}]`},
		{name: "its own do not", model: "gemini-3.8-flash", messages: turn(call("1", "f", "{}", "own"), call("2", "g", "{}", "")),
			want: `[` + q + `{"role":"model","parts":[{"functionCall":{"id":"1","name":"f","args":{}},"thoughtSignature":"own"},{"functionCall":{"id":"2","name":"g","args":{}}}]}]`},
		{name: "images", messages: []llm.Message{{Role: llm.User, Parts: []llm.Part{{Image: &llm.Image{Data: []byte("\x89PNG\r\n\x1a\n")}}, {Image: &llm.Image{URL: "https://example.org/a.png", MIME: "image/png"}}}}},
			want: `[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}},{"fileData":{"mimeType":"image/png","fileUri":"https://example.org/a.png"}}]}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			contents, _ := conversation(tt.messages, able(tt.model), tt.unsigned)
			got, err := json.Marshal(contents)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, got, tt.want)
		})
	}
}

func TestModelPath(t *testing.T) {
	for in, want := range map[string]string{
		"gemini-3.8-flash": "models/gemini-3.8-flash", "models/x": "models/x", "tunedModels/a b": "tunedModels/a%20b", "a/../b?key=c": "a/..%2Fb%3Fkey=c",
	} {
		if got := modelPath(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
