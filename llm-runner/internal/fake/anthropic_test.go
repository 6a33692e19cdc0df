package fake

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A clock is a time that tests set.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

// noon is on a Sunday in winter: four in the morning in California.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func start(t *testing.T, kind string, s script.Script) (*Server, *clock) {
	t.Helper()
	srv, err := New(kind, s)
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{noon}
	srv.Now = c.now
	return srv, c
}

// do sends a request; body "" means GET.
func do(s *Server, path, body string, header ...string) *httptest.ResponseRecorder {
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func message(s *Server, body string) *httptest.ResponseRecorder {
	return do(s, "/v1/messages", body, "Anthropic-Version", "2023-06-01")
}

// words returns n words.
func words(n int) string { return strings.TrimSpace(strings.Repeat("word ", n)) }

func TestAnthropicRefusesWhatTheAPIRefuses(t *testing.T) {
	srv, _ := start(t, "anthropic", script.Script{})
	const ok = `"model":"claude-sonnet-4-5","max_tokens":9,"messages":[{"role":"user","content":"hi"}]`
	const newest = `"model":"claude-opus-5-5","max_tokens":9,"messages":[{"role":"user","content":"hi"}]`
	for _, tt := range []struct{ body, says string }{
		{`{` + ok + `}`, ""},
		{`{` + ok + `,"temperature":0.5,"top_k":3,"metadata":{"user_id":"x"}}`, ""},
		{`{` + ok + `,"seed":1}`, "seed: Extra inputs are not permitted"},
		{`{` + ok, "not valid JSON"},
		{`{"model":"m","messages":[{"role":"user","content":"hi"}]}`, "max_tokens: Field required"},
		{`{"max_tokens":9,"messages":[]}`, "model: Field required"},
		{`{"model":"m","max_tokens":9,"messages":[]}`, "at least one message"},
		{`{"model":"m","max_tokens":9,"messages":[{"role":"assistant","content":"hi"}]}`, "first message"},
		{`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"},{"role":"tool","content":"x"}]}`, "messages.1"},
		{`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"text","text":" "}]}]}`, "must be non-empty"},
		{`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64"}}]}]}`, "image.source"},
		{`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"thinking","thinking":"t"}]}]}`, "signature: Field required"},
		{`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a"}]}]}`, "unexpected `tool_use_id`"},
		{`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]},{"role":"user","content":"so?"}]}`, "without `tool_result` blocks"},
		{`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":"x"}]}]}`, "valid dictionary"},
		{`{` + ok + `,"temperature":2}`, "range: 0..1"},
		{`{` + ok + `,"thinking":{"type":"enabled","budget_tokens":100}}`, "1024"},
		{`{` + ok + `,"thinking":{"type":"enabled","budget_tokens":2000}}`, "must be greater than"},
		{`{` + newest + `,"temperature":1}`, "deprecated for this model"},
		{`{` + newest + `,"thinking":{"type":"enabled","budget_tokens":2000}}`, "thinking.type.enabled"},
		{`{` + newest + `,"thinking":{"type":"disabled"}}`, "thinking.type.disabled"},
		{`{` + newest + `,"tool_choice":{"type":"any"}}`, "forced tool use"},
	} {
		w := message(srv, tt.body)
		if want := map[bool]int{true: 200, false: 400}[tt.says == ""]; w.Code != want || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s\ngot %d: %s\nwant %q", tt.body, w.Code, w.Body, tt.says)
		}
	}
	if w := do(srv, "/v1/messages", `{`+ok+`}`); w.Code != 400 || !strings.Contains(w.Body.String(), "anthropic-version") {
		t.Errorf("without a version: %d %s", w.Code, w.Body)
	}
	if w := do(srv, "/v1/complete", `{}`, "Anthropic-Version", "2023-06-01"); w.Code != 404 {
		t.Errorf("an unknown path: %d %s", w.Code, w.Body)
	}
}

func TestAnthropicsBucketFillsContinuously(t *testing.T) {
	srv, c := start(t, "anthropic", script.Script{
		Reply:  []script.Rule{{Text: "a"}},
		Limits: []script.Limit{{Dimension: llm.InputTokensPerMinute, Max: 6000}, {Dimension: llm.RequestsPerMinute, Max: 50}},
	})
	ask := func(n int) *httptest.ResponseRecorder {
		return message(srv, `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"`+words(n)+`"}]}`)
	}
	w := ask(3400) // 100 a second: full again in 34 s
	for name, want := range map[string]string{
		"anthropic-ratelimit-input-tokens-limit": "6000", "anthropic-ratelimit-input-tokens-remaining": "3000", "anthropic-ratelimit-input-tokens-reset": "2026-11-22T12:00:34Z",
		"anthropic-ratelimit-tokens-limit": "6000", "anthropic-ratelimit-tokens-remaining": "3000",
		"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49", "anthropic-ratelimit-requests-reset": "2026-11-22T12:00:02Z", "retry-after": "",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	w = ask(3601) // 2,600 are left; the missing 1,001 come in a little more than 10 s
	if w.Code != 429 || w.Header().Get("retry-after") != "11" || !strings.Contains(w.Body.String(), "rate limit of 6,000 input tokens per minute") {
		t.Fatalf("got %d, retry-after %q: %s", w.Code, w.Header().Get("retry-after"), w.Body)
	}
	c.Time = noon.Add(10 * time.Second)
	if w = ask(3601); w.Code != 429 || w.Header().Get("retry-after") != "1" {
		t.Errorf("earlier: %d, retry-after %q", w.Code, w.Header().Get("retry-after"))
	}
	c.Time = noon.Add(11 * time.Second)
	if w = ask(3601); w.Code != 200 {
		t.Errorf("in time: %d %s", w.Code, w.Body)
	}
}

func TestAnthropicsSpendCapHasNoRetryAfter(t *testing.T) {
	srv, _ := start(t, "anthropic", script.Script{Faults: []script.Fault{{Kind: script.Spend}}})
	w := message(srv, `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`)
	if w.Code != 429 || w.Header().Get("retry-after") != "" || !strings.Contains(w.Body.String(), `"error_code":"enforced_spend_limit_reached"`) {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestAnthropicsOtherAnswers(t *testing.T) {
	srv, _ := start(t, "anthropic", script.Script{Key: "k", Models: []string{"a", "b"}})
	version := []string{"Anthropic-Version", "2023-06-01", "X-Api-Key", "k"}
	if w := do(srv, "/v1/messages/count_tokens", `{"model":"a","system":"be brief","messages":[{"role":"user","content":"one two three"}]}`, version...); strings.TrimSpace(w.Body.String()) != `{"input_tokens":5}` {
		t.Errorf("counted %s", w.Body)
	}
	if w := do(srv, "/v1/models?limit=1000", "", version...); !strings.Contains(w.Body.String(), `"id":"b"`) || !json.Valid(w.Body.Bytes()) {
		t.Errorf("models %s", w.Body)
	}
	if w := do(srv, "/v1/models", "", "Anthropic-Version", "2023-06-01", "Authorization", "Bearer wrong"); w.Code != 401 || !strings.Contains(w.Body.String(), "authentication_error") {
		t.Errorf("a wrong key: %d %s", w.Code, w.Body)
	}
	if w := do(srv, "/v1/messages", `{"model":"c","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`, version...); w.Code != 404 || !strings.Contains(w.Body.String(), "model: c") {
		t.Errorf("an unknown model: %d %s", w.Code, w.Body)
	}
}

func TestAnthropicsStreamIsWellFormed(t *testing.T) {
	srv, _ := start(t, "anthropic", script.Script{Reply: []script.Rule{{Thinking: "hm", Text: "so it is", Calls: []script.Call{{Name: "f", Arguments: `{"a":1}`}}, Usage: &script.Usage{Input: new(int64(9)), Cached: new(int64(4)), Output: new(int64(7)), Thinking: new(int64(2))}}}})
	w := message(srv, `{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}`)
	var names []string
	for block := range bytes.SplitSeq(bytes.TrimSpace(w.Body.Bytes()), []byte("\n\n")) {
		name, data, _ := bytes.Cut(block, []byte("\ndata: "))
		names = append(names, strings.TrimPrefix(string(name), "event: "))
		var ev struct{ Type string }
		if err := json.Unmarshal(data, &ev); err != nil || ev.Type != names[len(names)-1] {
			t.Errorf("event %s: %v", block, err)
		}
	}
	want := "message_start content_block_start ping content_block_delta content_block_delta content_block_stop" + // thinking, signature
		" content_block_start content_block_delta content_block_delta content_block_delta content_block_stop" + // text
		" content_block_start content_block_delta content_block_delta content_block_stop message_delta message_stop"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, want := range []string{`"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":7,"output_tokens_details":{"thinking_tokens":2}`, `"stop_reason":"tool_use"`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s is missing in %s", want, w.Body)
		}
	}
}
