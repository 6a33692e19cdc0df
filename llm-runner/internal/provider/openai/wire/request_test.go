package wire_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
)

func ptr[T any](v T) *T { return &v }

// full uses every field of a Request that the dialect can carry.
var full = llm.Request{
	Model: "m",
	Messages: []llm.Message{
		llm.Says(llm.System, "Be brief & <kind>."),
		{Role: llm.User, Parts: []llm.Part{{Text: "What is this?"}, {Image: &llm.Image{MIME: "image/png", Data: []byte{1, 2, 3}}}, {Image: &llm.Image{URL: "https://example.org/a.png"}}}},
		{Role: llm.Assistant, Parts: []llm.Part{{Text: "Let me look."}, {Call: &llm.ToolCall{ID: "call_1", Name: "look", Arguments: `{"at":"a"}`, Signature: "seal"}}, {Call: &llm.ToolCall{ID: "call_2", Name: "now", Arguments: "{}"}}}},
		{Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: "call_1", Name: "look", Text: "a cat"}}}},
		{Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: "call_2", Name: "now", Text: ""}}}},
		llm.Says(llm.User, "So?"),
	},
	Tools:           []llm.ToolSpec{{Name: "look", Description: "Looks.", Schema: json.RawMessage(`{"type":"object"}`), Strict: true}},
	ToolChoice:      llm.ToolChoice{Mode: "tool", Name: "look"},
	NoParallelTools: true,
	Format:          &llm.Format{Name: "animal", Schema: json.RawMessage(`{"type":"object"}`), Strict: true},
	MaxTokens:       100, Temperature: ptr(0.0), TopP: ptr(0.5), Seed: ptr(int64(-1)), Stop: []string{"a", "b"}, Effort: "low",
}

func TestARequestIsReadBackAsItWasWritten(t *testing.T) {
	b, err := wire.MarshalRequest(full, true)
	if err != nil {
		t.Fatal(err)
	}
	got, opts, err := wire.ParseRequest(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, full) {
		t.Errorf("got  %+v\nwant %+v\nwritten as %s", got, full, b)
	}
	if want := (wire.Options{Stream: true, IncludeUsage: true, N: 1}); opts != want {
		t.Errorf("options %+v", opts)
	}
}

func TestParseRequestTakesWhatClientsSend(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       llm.Request
	}{
		{"the smallest", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`,
			llm.Request{Model: "m", Messages: []llm.Message{llm.Says(llm.User, "hi")}}},
		{"developer, one stop, old limit, unknown fields", `{"model":"m","messages":[{"role":"developer","content":[{"type":"text","text":"x"}]}],"stop":"END","max_tokens":5,"logit_bias":{},"store":true}`,
			llm.Request{Model: "m", Messages: []llm.Message{llm.Says(llm.System, "x")}, Stop: []string{"END"}, MaxTokens: 5}},
		{"nulls", `{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}],"stop":null,"tools":null,"tool_choice":null,"temperature":null,"response_format":null,"n":null,"stream_options":null}`,
			llm.Request{Model: "m", Messages: []llm.Message{{Role: llm.Assistant, Parts: []llm.Part{{Call: &llm.ToolCall{ID: "c", Name: "f", Arguments: "{}"}}}}}}},
		{"reasoning", `{"model":"m","messages":[{"role":"assistant","reasoning_content":"hm","content":"yes"}]}`,
			llm.Request{Model: "m", Messages: []llm.Message{{Role: llm.Assistant, Parts: []llm.Part{{Thinking: &llm.Thinking{Text: "hm"}}, {Text: "yes"}}}}}},
		{"json_object and choices", `{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"},"tool_choice":"required"}`,
			llm.Request{Model: "m", Messages: []llm.Message{llm.Says(llm.User, "x")}, Format: &llm.Format{}, ToolChoice: llm.ToolChoice{Mode: "required"}}},
	} {
		got, _, err := wire.ParseRequest([]byte(tt.body))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestParseRequestNamesTheFieldAtFault(t *testing.T) {
	const user = `"messages":[{"role":"user","content":"x"}]`
	for body, want := range map[string]string{
		`{`:                                "body: is not valid JSON",
		`{"messages":[]}`:                  "model: is missing",
		`{"model":"m"}`:                    "messages: must hold",
		`{"model":7,` + user + `}`:         "model: must not be a number",
		`{"model":"m","messages":["x"]}`:   "messages: must not be a string",
		`{"model":"m",` + user + `,"n":0}`: "n: must be at least 1",
		`{"model":"m",` + user + `,"max_tokens":-1}`:                                                                   "max_tokens: must not be negative",
		`{"model":"m",` + user + `,"functions":[]}`:                                                                    "functions: is no longer supported; use tools",
		`{"model":"m",` + user + `,"temperature":"hot"}`:                                                               "temperature: must not be a string",
		`{"model":"m",` + user + `,"tool_choice":"any"}`:                                                               `tool_choice: "any" is not one of`,
		`{"model":"m",` + user + `,"tool_choice":{}}`:                                                                  "tool_choice: must be",
		`{"model":"m",` + user + `,"tools":[{"type":"web_search"}]}`:                                                   `tools[0].type: "web_search"`,
		`{"model":"m",` + user + `,"tools":[{"type":"function"}]}`:                                                     "tools[0].function.name: is missing",
		`{"model":"m",` + user + `,"response_format":{"type":"xml"}}`:                                                  `response_format.type: "xml"`,
		`{"model":"m",` + user + `,"response_format":{"type":"json_schema"}}`:                                          "response_format.json_schema.schema: is missing",
		`{"model":"m","messages":[{"role":"robot"}]}`:                                                                  `messages[0].role: "robot"`,
		`{"model":"m","messages":[{"role":"tool","content":"x"}]}`:                                                     "messages[0].tool_call_id: is missing",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio"}]}]}`:                                `messages[0].content[0].type: "input_audio"`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///x"}}]}]}`:  "messages[0].content[0].image_url.url: must be an http",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:x,%20"}}]}]}`: "must be in base64",
		`{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"c"}]}]}`:                                    "messages[0].tool_calls[0].function.name: is missing",
	} {
		if _, _, err := wire.ParseRequest([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", body, err, want)
		}
	}
}

func TestMarshalRequestWritesWhatServersWant(t *testing.T) {
	req := llm.Request{Model: "m", Messages: []llm.Message{
		{Role: llm.Assistant, Parts: []llm.Part{{Thinking: &llm.Thinking{Text: "secret thought"}}, {Text: "a"}, {Text: "b"}}},
		{Role: llm.Assistant, Parts: []llm.Part{{Call: &llm.ToolCall{ID: "c", Name: "f"}}}},
		{Role: llm.User, Parts: []llm.Part{{Result: &llm.ToolResult{ID: "c", Text: "r"}}, {Text: "and?"}}},
	}, Tools: []llm.ToolSpec{{Name: "f"}}}
	b, err := wire.MarshalRequest(req, false)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"model":"m","messages":[{"role":"assistant","content":"ab"},` +
		`{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},` +
		`{"role":"tool","content":"r","tool_call_id":"c"},{"role":"user","content":"and?"}],` +
		`"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	for _, bad := range []llm.Request{
		{Tools: []llm.ToolSpec{{Name: "f", Schema: json.RawMessage("{")}}},
		{Format: &llm.Format{Schema: json.RawMessage("{")}},
	} {
		if _, err := wire.MarshalRequest(bad, false); err == nil || !strings.Contains(err.Error(), "not valid JSON") {
			t.Errorf("a broken schema: %v", err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	b, _ := wire.MarshalRequest(full, true)
	f.Add(b)
	f.Add([]byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"stop":"a"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		req, opts, err := wire.ParseRequest(b)
		if err != nil {
			return
		}
		again, err := wire.MarshalRequest(req, opts.Stream)
		if err != nil {
			t.Fatalf("read but cannot be written: %v", err)
		}
		if _, _, err := wire.ParseRequest(again); err != nil {
			t.Fatalf("%s was written as %s, which cannot be read: %v", b, again, err)
		}
	})
}
