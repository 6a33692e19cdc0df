package fake

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

func generate(s *Server, contents string) *httptest.ResponseRecorder {
	return do(s, "/v1beta/models/gemini-2.5-flash:generateContent", `{"contents":[`+contents+`]}`)
}

const geminiHi = `{"role":"user","parts":[{"text":"hi"}]}`

func TestGeminisMinuteRolls(t *testing.T) {
	srv, c := start(t, "gemini", script.Script{Limits: []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 2}}})
	for _, step := range []struct {
		at    float64 // seconds
		delay string  // "": answered
	}{
		{0, ""}, {30, ""}, {39.5, "20.5s"}, {59, "1s"}, {60, ""}, {61, "29s"}, {90, ""},
	} {
		c.Time = noon.Add(time.Duration(step.at * float64(time.Second)))
		w := generate(srv, geminiHi)
		if step.delay == "" {
			if w.Code != 200 {
				t.Errorf("at %vs: %d %s", step.at, w.Code, w.Body)
			}
			continue
		}
		for _, want := range []string{`"retryDelay":"` + step.delay + `"`, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", `"quotaValue":"2"`, "RESOURCE_EXHAUSTED"} {
			if w.Code != 429 || !strings.Contains(w.Body.String(), want) {
				t.Errorf("at %vs: %d %s, want %s", step.at, w.Code, w.Body, want)
			}
		}
	}
}

func TestGeminisDayEndsAtMidnightInCalifornia(t *testing.T) {
	srv, c := start(t, "gemini", script.Script{Limits: []script.Limit{{Dimension: llm.RequestsPerDay, Max: 1}}})
	for _, step := range []struct {
		at   string
		code int
	}{
		{"2026-10-31T12:00:00Z", 200}, {"2026-11-01T06:59:59Z", 429}, // the last day of summer time
		{"2026-11-01T07:00:00Z", 200}, {"2026-11-02T07:59:59Z", 429}, // 25 hours
		{"2026-11-02T08:00:00Z", 200}, {"2026-11-02T08:00:38Z", 429},
	} {
		c.Time, _ = time.Parse(time.RFC3339, step.at)
		w := generate(srv, geminiHi)
		if w.Code != step.code || step.code == 429 && (!strings.Contains(w.Body.String(), "RequestsPerDay") || !strings.Contains(w.Body.String(), `"retryDelay":"38s"`)) {
			t.Errorf("at %s: %d %s", step.at, w.Code, w.Body)
		}
	}
}

func TestGeminiRefusesWhatTheAPIRefuses(t *testing.T) {
	srv, _ := start(t, "gemini", script.Script{})
	const call = `{"role":"model","parts":[{"functionCall":{"name":"f","args":{}}}]}`
	const result = `{"role":"user","parts":[{"functionResponse":{"name":"f","response":{"output":"x"}}}]}`
	for _, tt := range []struct{ model, body, says string }{
		{"gemini-2.5-flash", `{"contents":[` + geminiHi + `]}`, ""},
		{"gemini-2.5-flash", `{"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"thinkingConfig":{"thinkingBudget":0}}}`, ""},
		{"gemini-2.5-flash", `{"contents":[` + geminiHi + `,` + call + `,` + result + `]}`, ""},
		{"gemini-2.5-flash", `{"contents":[` + geminiHi + `],"max_tokens":1}`, `Unknown name \"max_tokens\"`},
		{"gemini-2.5-flash", `{"contents":[` + geminiHi + `],"generationConfig":{"maxTokens":1}}`, `Unknown name \"maxTokens\"`},
		{"gemini-2.5-flash", `{"contents":[`, "Invalid JSON payload"},
		{"gemini-2.5-flash", `{"contents":[]}`, "contents is not specified"},
		{"gemini-2.5-flash", `{"contents":[{"role":"user","parts":[]}]}`, "must not be empty"},
		{"gemini-2.5-flash", `{"contents":[{"role":"assistant","parts":[{"text":"x"}]}]}`, "valid role"},
		{"gemini-2.5-flash", `{"contents":[` + geminiHi + `,` + call + `,` + geminiHi + `]}`, "function response parts is equal"},
		{"gemini-2.5-flash", `{"contents":[` + geminiHi + `,` + result + `]}`, "function response parts is equal"},
		{"gemini-2.5-flash", `{"contents":[` + geminiHi + `,` + call + `,{"role":"user","parts":[{"functionResponse":{"response":{"output":"x"}}}]}]}`, "Name cannot be empty"},
		{"gemini-2.5-flash", `{"contents":[` + geminiHi + `],"generationConfig":{"thinkingConfig":{"thinkingBudget":1,"thinkingLevel":"LOW"}}}`, "only one of thinking budget"},
		{"gemini-2.5-flash", `{"contents":[` + geminiHi + `],"generationConfig":{"responseJsonSchema":{}}}`, "responseMimeType"},
		{"gemini-3.8-flash", `{"contents":[` + geminiHi + `,` + call + `,` + result + `]}`, "missing a thought_signature"},
	} {
		w := do(srv, "/v1beta/models/"+tt.model+":generateContent", tt.body)
		if want := map[bool]int{true: 200, false: 400}[tt.says == ""]; w.Code != want || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s\ngot %d: %s\nwant %q", tt.body, w.Code, w.Body, tt.says)
		}
	}
	for _, path := range []string{"/v1beta/models/x:predict", "/v1beta/files", "/v1beta/models/:generateContent"} {
		if w := do(srv, path, `{}`); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestGeminiStreamsEventsOrAnArray(t *testing.T) {
	srv, _ := start(t, "gemini", script.Script{Reply: []script.Rule{{Text: "one two three", Thinking: "hm"}}})
	path := "/v1beta/models/gemini-3.8-flash:streamGenerateContent"
	w := do(srv, path+"?alt=sse", `{"contents":[`+geminiHi+`]}`)
	events := strings.Split(strings.TrimSuffix(w.Body.String(), "\r\n\r\n"), "\r\n\r\n")
	var chunks []json.RawMessage
	for _, ev := range events {
		chunks = append(chunks, json.RawMessage(strings.TrimPrefix(ev, "data: ")))
		if !json.Valid(chunks[len(chunks)-1]) {
			t.Errorf("event %q", ev)
		}
	}
	w = do(srv, path, `{"contents":[`+geminiHi+`]}`)
	var list []json.RawMessage
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list) != len(chunks) || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		t.Fatalf("%v, %d chunks in an array and %d events: %s", err, len(list), len(chunks), w.Body)
	}
	for i := range list {
		if string(list[i]) != string(chunks[i]) {
			t.Errorf("chunk %d differs: %s and %s", i, list[i], chunks[i])
		}
	}
	last := string(list[len(list)-1])
	if !strings.Contains(last, `"thoughtSignature":"`+geminiSignature+`"`) || !strings.Contains(last, `"finishReason":"STOP"`) || !strings.Contains(last, "candidatesTokenCount") {
		t.Errorf("the last chunk is %s", last)
	}
}

func TestAnErrorEndsGeminisArray(t *testing.T) {
	srv, _ := start(t, "gemini", script.Script{Reply: []script.Rule{{Text: "one two three four"}}, Faults: []script.Fault{{Kind: script.ErrorMidStream}}})
	w := do(srv, "/v1beta/models/m:streamGenerateContent", `{"contents":[`+geminiHi+`]}`)
	var list []struct {
		Error *struct{ Code int } `json:"error"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || list[len(list)-1].Error == nil || list[len(list)-1].Error.Code != 500 {
		t.Errorf("%v in %s", err, w.Body)
	}
}

func TestGeminisOtherAnswers(t *testing.T) {
	srv, _ := start(t, "gemini", script.Script{Key: "k", Models: []string{"gemini-2.5-flash", "gemini-embedding-001"}, Dimensions: 3})
	if w := do(srv, "/v1beta/models/gemini-2.5-flash:countTokens?key=k", `{"contents":[`+geminiHi+`]}`); strings.TrimSpace(w.Body.String()) != `{"totalTokens":1}` {
		t.Errorf("counted %s", w.Body)
	}
	var list struct {
		Models []struct {
			Name    string
			Methods []string `json:"supportedGenerationMethods"`
		}
	}
	w := do(srv, "/v1beta/models?pageSize=1000", "", "X-Goog-Api-Key", "k")
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Models) != 2 || list.Models[1].Name != "models/gemini-embedding-001" || list.Models[1].Methods[0] != "embedContent" {
		t.Errorf("%v: models %s", err, w.Body)
	}
	if w := do(srv, "/v1beta/models/gemini-2.5-flash", "", "X-Goog-Api-Key", "k"); !strings.Contains(w.Body.String(), `"name":"models/gemini-2.5-flash"`) {
		t.Errorf("model %s", w.Body)
	}
	if w := do(srv, "/v1beta/models", "", "X-Goog-Api-Key", "wrong"); w.Code != 400 || !strings.Contains(w.Body.String(), "API_KEY_INVALID") {
		t.Errorf("a wrong key: %d %s", w.Code, w.Body)
	}
	embed := func(model, requests string) *httptest.ResponseRecorder {
		return do(srv, "/v1beta/models/"+model+":batchEmbedContents", `{"requests":[`+requests+`]}`, "X-Goog-Api-Key", "k")
	}
	const one = `{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"a"}]},"outputDimensionality":2}`
	if w := embed("gemini-embedding-001", one+`,`+one); strings.Count(w.Body.String(), `"values":[`) != 2 || !json.Valid(w.Body.Bytes()) {
		t.Errorf("embeddings %s", w.Body)
	}
	for requests, says := range map[string]string{
		"": "not specified", strings.Repeat(one+",", 100) + one: "at most 100", strings.Replace(one, "001", "002", 1): "must match", `{"input":"x"}`: "Unknown name",
	} {
		if w := embed("gemini-embedding-001", requests); w.Code != 400 || !strings.Contains(w.Body.String(), says) {
			t.Errorf("want %q, got %d %s", says, w.Code, w.Body)
		}
	}
}
