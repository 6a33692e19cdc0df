package ollama_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/providertest"
)

func open(t *testing.T, s script.Script) (*ollama.Provider, *fake.Server) {
	url, up := providertest.Serve(t, "ollama", providertest.Scenario{Script: s})
	p := ollama.New(ollama.Config{URL: url, Context: 8192})
	t.Cleanup(p.CloseIdle)
	return p, up
}

// raw returns a Provider of a server that answers everything with h.
func raw(t *testing.T, h http.HandlerFunc) *ollama.Provider {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	p := ollama.New(ollama.Config{URL: srv.URL, Timeout: 5 * time.Second})
	t.Cleanup(p.CloseIdle)
	return p
}

func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }
}

func ask(p llm.Provider, req llm.Request) (llm.Answer, error) {
	return llm.Collect(p.Stream(context.Background(), req))
}

func hi(model string) llm.Request {
	return llm.Request{Model: model, Messages: []llm.Message{llm.Says(llm.User, "hi")}}
}

func ptr[T any](v T) *T { return &v }

func TestARequestIsWrittenInOllamasWords(t *testing.T) {
	p, up := open(t, script.Script{})
	req := llm.Request{
		Model: "m",
		Messages: []llm.Message{
			llm.Says(llm.System, "Be <brief>."),
			{Role: llm.User, Parts: []llm.Part{{Text: "What is this?"}, {Image: &llm.Image{MIME: "image/png", Data: []byte{1, 2, 3}}}}},
			{Role: llm.Assistant, Parts: []llm.Part{{Thinking: &llm.Thinking{Text: "hm"}}, {Call: &llm.ToolCall{ID: "call_0", Name: "look", Arguments: `{"at":1}`}}, {Call: &llm.ToolCall{ID: "call_1", Name: "look", Arguments: `{"at"`}}}},
			{Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: "call_0", Name: "look", Text: "a cat"}}}},
		},
		Tools:      []llm.ToolSpec{{Name: "look"}, {Name: "other"}},
		ToolChoice: llm.ToolChoice{Mode: "tool", Name: "look"},
		Format:     &llm.Format{Schema: json.RawMessage(`{"type":"object"}`)},
		MaxTokens:  9, Temperature: ptr(0.0), TopP: ptr(0.5), Seed: ptr(int64(3)), Stop: []string{"END"}, Effort: "none",
	}
	if _, err := ask(p, req); err != nil {
		t.Fatal(err)
	}
	const want = `{"model":"m","messages":[{"role":"system","content":"Be <brief>."},{"role":"user","content":"What is this?","images":["AQID"]},` +
		`{"role":"assistant","content":"","thinking":"hm","tool_calls":[{"id":"call_0","function":{"name":"look","arguments":{"at":1}}},{"id":"call_1","function":{"name":"look","arguments":{"invalid":"{\"at\""}}}]},` +
		`{"role":"tool","content":"a cat","tool_name":"look","tool_call_id":"call_0"}],` +
		`"tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object","properties":{}}}}],` +
		`"format":{"type":"object"},"think":false,"options":{"num_ctx":8192,"num_predict":9,"seed":3,"stop":["END"],"temperature":0,"top_p":0.5},"stream":true}`
	if got := strings.TrimSpace(up.Requests()[0].Body); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAnImageByAddressIsRefusedWithTheCure(t *testing.T) {
	p, up := open(t, script.Script{})
	req := llm.Request{Model: "m", Messages: []llm.Message{{Role: llm.User, Parts: []llm.Part{{Image: &llm.Image{URL: "https://example.org/a.png"}}}}}}
	_, err := ask(p, req)
	if llm.KindOf(err) != llm.BadRequest || !strings.Contains(err.Error(), "send the image's data") || len(up.Requests()) > 0 {
		t.Errorf("got %v", err)
	}
}

func TestThinkingIsAskedForAsTheModelUnderstands(t *testing.T) {
	for _, tt := range []struct{ model, effort, want string }{
		{"qwen3", "", ""}, {"qwen3", "low", `"think":true`}, {"qwen3", "none", `"think":false`},
		{"gpt-oss:20b", "high", `"think":"high"`}, {"gpt-oss:20b", "none", `"think":"low"`},
	} {
		p, up := open(t, script.Script{})
		req := hi(tt.model)
		req.Effort = tt.effort
		if _, err := ask(p, req); err != nil {
			t.Fatal(err)
		}
		if body := up.Requests()[0].Body; !strings.Contains(body, tt.want) || strings.Contains(body, "think") != (tt.want != "") {
			t.Errorf("%+v: %s", tt, body)
		}
	}
	p, up := open(t, script.Script{Faults: []script.Fault{{Kind: script.BadRequest, On: []int{1}, Message: `"m" does not support thinking`}}})
	req := hi("m")
	req.Effort = "high"
	if a, err := ask(p, req); err != nil || a.Message.Text() != "You said: hi" || len(up.Requests()) != 2 {
		t.Errorf("a model that cannot think: %+v, %v", a, err)
	}
}

const done = `{"message":{"content":""},"done":true,"done_reason":"stop"}`

func TestLinesAreReadHoweverTheyCome(t *testing.T) {
	call := func(fields string) string { return `{"message":{"tool_calls":[{` + fields + `}]},"done":false}` + "\n" }
	for _, tt := range []struct {
		name, body string
		parts      []llm.Part
		finish     llm.Finish
		usage      llm.Usage
	}{
		{"a cached prompt has no count", `{"message":{"content":"a"}}` + "\n" + `{"done":true,"done_reason":"stop","eval_count":3}`, []llm.Part{{Text: "a"}}, llm.FinishStop, llm.Usage{Output: llm.Known(3)}},
		{"no counts at all", `{"message":{"content":"a"},"done":true}`, []llm.Part{{Text: "a"}}, llm.FinishStop, llm.Usage{}},
		{"cut off", `{"message":{"content":"a"},"done":true,"done_reason":"length"}`, []llm.Part{{Text: "a"}}, llm.FinishLength, llm.Usage{}},
		{"only loaded", `{"message":{"content":""},"done":true,"done_reason":"load"}`, nil, llm.FinishStop, llm.Usage{}},
		{"empty lines and CRLF", "\r\n" + `{"message":{"thinking":"t"}}` + "\r\n\r\n" + `{"message":{"content":"a"}}` + "\r\n" + done, []llm.Part{{Thinking: &llm.Thinking{Text: "t"}}, {Text: "a"}}, llm.FinishStop, llm.Usage{}},
		{"calls over several lines", call(`"function":{"name":"f","arguments":{"a":1}}`) + call(`"function":{"name":"f","arguments":null}`) + call(`"id":"own","function":{"name":"g","arguments":"{}"}`) + done,
			[]llm.Part{{Call: &llm.ToolCall{ID: "call_0", Name: "f", Arguments: `{"a":1}`}}, {Call: &llm.ToolCall{ID: "call_1", Name: "f", Arguments: "{}"}}, {Call: &llm.ToolCall{ID: "own", Name: "g", Arguments: "{}"}}},
			llm.FinishTools, llm.Usage{}},
		{"a line of 2 MiB", `{"message":{"content":"` + strings.Repeat("x", 2<<20) + `"}}` + "\n" + done, []llm.Part{{Text: strings.Repeat("x", 2<<20)}}, llm.FinishStop, llm.Usage{}},
	} {
		a, err := ask(raw(t, says(tt.body)), hi("m"))
		if err != nil || !reflect.DeepEqual(a.Message.Parts, tt.parts) || a.Finish != tt.finish || a.Usage != tt.usage {
			t.Errorf("%s: got %.300v, %q, %+v, %v", tt.name, a.Message.Parts, a.Finish, a.Usage, err)
		}
	}
}

func TestCallsOfLaterTurnsGetOtherIDs(t *testing.T) {
	req := hi("m")
	req.Messages = append(req.Messages, llm.Message{Role: llm.Assistant, Parts: []llm.Part{{Call: &llm.ToolCall{ID: "call_0", Name: "f"}}}})
	a, err := ask(raw(t, says(`{"message":{"tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":true}`)), req)
	if err != nil || a.Message.Parts[0].Call.ID != "call_1" {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestBrokenAnswersAreErrors(t *testing.T) {
	const a = `{"message":{"content":"a"}}` + "\n"
	for _, tt := range []struct {
		name, body, want string
		kind             llm.Kind
		started          bool
	}{
		{"no last line", a, "broke off", llm.Unavailable, true},
		{"nothing", "", "broke off", llm.Unavailable, false},
		{"half a line", a + `{"message":{"con`, "broke off", llm.Unavailable, true},
		{"a line that is not JSON", a + "oops\n" + done, "not Ollama's", llm.Unavailable, true},
		{"an error in the middle", a + `{"error":"runner died"}`, "runner died", llm.Unavailable, true},
		{"an error at once", `{"error":"server busy, please try again.  maximum pending requests exceeded"}`, "server busy", llm.Overload, false},
		{"a web page", "<html>", "web page", llm.Unavailable, false},
	} {
		_, err := ask(raw(t, says(tt.body)), hi("m"))
		var e *llm.Error
		if !errors.As(err, &e) || !strings.Contains(e.Message, tt.want) || e.Kind != tt.kind || e.Started != tt.started || e.Model != "m" {
			t.Errorf("%s: got %+v", tt.name, err)
		}
	}
}

func TestRefusalsCarryTheCure(t *testing.T) {
	p, _ := open(t, script.Script{Models: []string{"other"}})
	if _, err := ask(p, hi("llama9")); llm.KindOf(err) != llm.NotFound || !strings.Contains(err.Error(), "run: ollama pull llama9") {
		t.Errorf("got %v", err)
	}
	p, _ = open(t, script.Script{Faults: []script.Fault{{Kind: script.Busy}}})
	if _, err := ask(p, hi("m")); llm.KindOf(err) != llm.Overload {
		t.Errorf("got %v", err)
	}
}

func TestModelsVersionAndEmbeddings(t *testing.T) {
	p, _ := open(t, script.Script{Models: []string{"llama3.2:3b", "nomic-embed-text"}, Dimensions: 4})
	models, err := p.Models(t.Context())
	if err != nil || len(models) != 2 || models[0].Embeds || models[0].Bytes == 0 || !models[1].Embeds {
		t.Errorf("got %+v, %v", models, err)
	}
	if v, err := p.Version(t.Context()); err != nil || v == "" {
		t.Errorf("version %q, %v", v, err)
	}
	got, err := p.Embed(t.Context(), llm.EmbedRequest{Model: "nomic-embed-text", Texts: []string{"a b", "c"}})
	if err != nil || len(got.Vectors) != 2 || len(got.Vectors[1]) != 4 || got.Usage.Input != llm.Known(3) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := p.Embed(t.Context(), llm.EmbedRequest{}); err != nil || got.Vectors != nil {
		t.Errorf("no texts: %+v, %v", got, err)
	}
	for body, want := range map[string]string{
		`{"embeddings":[[1]]}`: "1 vectors came for 2 texts", `{"error":"no"}`: "no", `<html>`: "is the address right?",
	} {
		if _, err := raw(t, says(body)).Embed(t.Context(), llm.EmbedRequest{Texts: []string{"a", "b"}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", body, err)
		}
	}
}

func TestOlderServersTellEmbeddingModelsByFamily(t *testing.T) {
	p := raw(t, says(`{"models":[{"name":"bge-m3","details":{"families":["bert"]}},{"name":"x","details":{"family":"nomic-bert"}},{"name":"mxbai-embed","details":{"families":null}},{"name":"y","details":{"family":"qwen"}},{"name":"embed-chat","capabilities":["completion"]}]}`))
	models, err := p.Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []bool
	for _, m := range models {
		got = append(got, m.Embeds)
	}
	if !reflect.DeepEqual(got, []bool{true, true, true, false, false}) {
		t.Errorf("got %v", got)
	}
}

func TestConfigTellsAllItsFaults(t *testing.T) {
	err := ollama.Config{URL: "http://x/v1", Timeout: -1, Context: -1}.Validate()
	for _, want := range []string{"leave that out", "timeout:", "context:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in %v", want, err)
		}
	}
	if err := (ollama.Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}
