package fake_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/docs"
	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// serveAtNoon starts a fake whose clock stands at noon.
func serveAtNoon(t testing.TB, kind string, s script.Script) (*httptest.Server, *fake.Server) {
	t.Helper()
	f, err := fake.New(kind, s)
	if err != nil {
		t.Fatal(err)
	}
	f.Now = func() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return srv, f
}

// send posts body, or gets where it is empty, and returns the response and its body.
func send(t testing.TB, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello there"}]}`

func TestOpenAIAnswers(t *testing.T) {
	srv, _ := serveAtNoon(t, "openai", script.Script{})
	resp, body := send(t, srv.URL+"/v1/chat/completions", hello)
	const want = `{"id":"chatcmpl-000000000000000000000000000","object":"chat.completion","created":1735689600,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"You said: hello there"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":4,"total_tokens":6}}`
	if strings.TrimSpace(body) != want || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got  %s\nwant %s", body, want)
	}
}

func TestOpenAIStreams(t *testing.T) {
	srv, _ := serveAtNoon(t, "openai", script.Script{Reply: []script.Rule{{Text: "one two"}}})
	resp, body := send(t, srv.URL+"/v1/chat/completions", strings.Replace(hello, "{", `{"stream":true,"stream_options":{"include_usage":true},`, 1))
	const head = `data: {"id":"chatcmpl-000000000000000000000000000","object":"chat.completion.chunk","created":1735689600,"model":"m","system_fingerprint":"fp_fake","choices":[`
	want := strings.Join([]string{
		head + `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}`,
		head + `{"index":0,"delta":{"content":"one"},"logprobs":null,"finish_reason":null}],"usage":null}`,
		head + `{"index":0,"delta":{"content":" two"},"logprobs":null,"finish_reason":null}],"usage":null}`,
		head + `{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}`,
		head + `],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4}}`,
		"data: [DONE]", "",
	}, "\n\n")
	if body != want || resp.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("got\n%s\nwant\n%s", body, want)
	}
}

func TestOpenAITellsUsageOnlyWhenAsked(t *testing.T) {
	srv, _ := serveAtNoon(t, "openai", script.Script{})
	if _, body := send(t, srv.URL+"/v1/chat/completions", strings.Replace(hello, "{", `{"stream":true,`, 1)); strings.Contains(body, "usage") {
		t.Error(body)
	}
}

func TestGroqTellsLimitsAndUsageItsOwnWay(t *testing.T) {
	srv, _ := serveAtNoon(t, "groq", script.Script{Limits: []script.Limit{
		{Dimension: llm.RequestsPerDay, Max: 14400}, {Dimension: llm.TokensPerMinute, Max: 6000}, {Dimension: llm.RequestsPerMinute, Max: 30},
	}})
	resp, body := send(t, srv.URL+"/openai/v1/chat/completions", strings.Replace(hello, "{", `{"stream":true,`, 1))
	for name, want := range map[string]string{
		"x-ratelimit-limit-requests": "14400", "x-ratelimit-remaining-requests": "14399", "x-ratelimit-reset-requests": "6s",
		"x-ratelimit-limit-tokens": "6000", "x-ratelimit-remaining-tokens": "5994", "x-ratelimit-reset-tokens": "60ms", "retry-after": "",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(body, `"finish_reason":"stop"}],"x_groq":{"id":"req_00000000000000000000000000","usage":{"prompt_tokens":2,"completion_tokens":4,"total_tokens":6,"queue_time"`) {
		t.Error(body)
	}
}

func TestRefusalsReadAsDocumented(t *testing.T) {
	for _, tt := range []struct {
		kind       string
		script     script.Script
		status     int
		retryAfter string
		want       string
	}{
		{"groq", script.Script{Limits: []script.Limit{{Dimension: llm.TokensPerMinute, Max: 9}}}, 429, "21",
			"{\"error\":{\"message\":\"Rate limit reached for model `m` in organization `org_fake` service tier `on_demand` on tokens per minute (TPM): Limit 9, Used 6, Requested 6. Please try again in 20.001s. Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}"},
		{"groq", script.Script{Limits: []script.Limit{{Dimension: llm.TokensPerMinute, Max: 5}}}, 413, "",
			"{\"error\":{\"message\":\"Request too large for model `m` in organization `org_fake` service tier `on_demand` on tokens per minute (TPM): Limit 5, Requested 6, please reduce your message size and try again.\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}"},
		{"openai", script.Script{Limits: []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 1}}}, 429, "61",
			`{"error":{"message":"Rate limit reached for m in organization org-fake on requests per min (RPM): Limit 1, Used 1, Requested 1. Please try again in 1m0.001s. Visit https://platform.openai.com/account/rate-limits to learn more.","type":"requests","param":null,"code":"rate_limit_exceeded"}}`},
		{"openai", script.Script{Faults: []script.Fault{{Kind: script.Spend}}}, 429, "",
			`{"error":{"message":"You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`},
		{"openai", script.Script{Faults: []script.Fault{{Kind: script.RateWrongHint, Wait: time.Hour}}}, 429, "1", ""},
		{"openai", script.Script{Faults: []script.Fault{{Kind: script.RateNoHint}}}, 429, "", ""},
		{"openai", script.Script{Faults: []script.Fault{{Kind: script.Busy, Wait: 1500 * time.Millisecond}}}, 503, "2", ""},
		{"groq", script.Script{Key: "right"}, 401, "", `{"error":{"message":"Invalid API Key","type":"invalid_request_error","code":"invalid_api_key"}}`},
		{"groq", script.Script{Models: []string{"x"}}, 404, "", "{\"error\":{\"message\":\"The model `m` does not exist or you do not have access to it.\",\"type\":\"invalid_request_error\",\"code\":\"model_not_found\"}}"},
		{"groq", script.Script{Faults: []script.Fault{{Kind: script.CapacityExceeded, Message: "full"}}}, 498, "", `{"error":{"message":"full","type":"capacity_exceeded","code":"capacity_exceeded"}}`},
		{"ollama", script.Script{Faults: []script.Fault{{Kind: script.Busy}}}, 503, "", `{"error":"server busy, please try again.  maximum pending requests exceeded"}`},
		{"ollama", script.Script{Models: []string{"x"}}, 404, "", `{"error":"model \"m\" not found, try pulling it first"}`},
		{"ollama", script.Script{Faults: []script.Fault{{Kind: script.RateLimited, Wait: time.Minute}}}, 429, "60", ""},
	} {
		srv, _ := serveAtNoon(t, tt.kind, tt.script)
		path := map[string]string{"openai": "/v1/chat/completions", "groq": "/openai/v1/chat/completions", "ollama": "/api/chat"}[tt.kind]
		var resp *http.Response
		var body string
		for range 2 { // limits refuse the second request
			resp, body = send(t, srv.URL+path, hello, "Authorization", "Bearer wrong")
		}
		if resp.StatusCode != tt.status || resp.Header.Get("Retry-After") != tt.retryAfter || tt.want != "" && strings.TrimSpace(body) != tt.want {
			t.Errorf("%s: %d, Retry-After %q\ngot  %s\nwant %s", tt.kind, resp.StatusCode, resp.Header.Get("Retry-After"), body, tt.want)
		}
	}
}

func TestBadRequestsAreRefusedAsOpenAIDoes(t *testing.T) {
	srv, _ := serveAtNoon(t, "openai", script.Script{})
	for _, tt := range []struct {
		path, body string
		status     int
	}{
		{"/v1/chat/completions", "{", 400}, {"/v1/chat/completions", `{"messages":[]}`, 400}, {"/v1/chat/completions", `{"model":"m","messages":[]}`, 400},
		{"/v1/embeddings", `{"model":"m"}`, 400}, {"/v1/embeddings", `{"input":"x"}`, 400}, {"/v1/elsewhere", "{}", 404},
	} {
		if resp, body := send(t, srv.URL+tt.path, tt.body); resp.StatusCode != tt.status || !json.Valid([]byte(body)) {
			t.Errorf("%s %s: %d %s", tt.path, tt.body, resp.StatusCode, body)
		}
	}
}

func TestOllamaStreamsByDefault(t *testing.T) {
	srv, _ := serveAtNoon(t, "ollama", script.Script{Reply: []script.Rule{{Text: "one two"}}})
	_, body := send(t, srv.URL+"/api/chat", hello)
	const head = `{"model":"m","created_at":"2025-01-01T00:00:00Z","message":{"role":"assistant","content":`
	want := head + `"one"},"done":false}` + "\n" + head + `" two"},"done":false}` + "\n" +
		head + `""},"done_reason":"stop","done":true,"total_duration":20000000,"load_duration":5000000,"prompt_eval_count":2,"prompt_eval_duration":1000000,"eval_count":2,"eval_duration":10000000}` + "\n"
	if body != want {
		t.Errorf("got\n%s\nwant\n%s", body, want)
	}
	if _, body := send(t, srv.URL+"/", ""); body != "Ollama is running" {
		t.Error(body)
	}
}

func TestTheServerShowsWhatItSaw(t *testing.T) {
	srv, f := serveAtNoon(t, "openai", script.Script{})
	send(t, srv.URL+"/v1/chat/completions", hello, "Authorization", "Bearer secret", "X-Request-Id", "7")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen, ok := f.Await(ctx, func(s fake.Seen) bool { return !s.Done.IsZero() })
	if !ok || seen.Status != 200 || seen.Body != hello || seen.Model != "m" || seen.Header.Get("X-Request-Id") != "7" || seen.Number != 1 || !seen.Cancelled.IsZero() {
		t.Errorf("saw %+v", seen)
	}
	_, page := send(t, srv.URL+"/_fake/requests", "")
	var shown []fake.Seen
	if err := json.Unmarshal([]byte(page), &shown); err != nil || len(shown) != 1 || shown[0].Path != "/v1/chat/completions" || strings.Contains(page, "secret") {
		t.Errorf("the page shows %s, %v", page, err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, ok := f.Await(ended, func(fake.Seen) bool { return false }); ok {
		t.Error("found what is not there")
	}
}

func TestTheJournalIsBounded(t *testing.T) {
	f, err := fake.New("openai", script.Script{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2*fake.MaxSeen + 1 {
		f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/models", nil))
	}
	seen := f.Requests()
	if len(seen) > fake.MaxSeen || seen[len(seen)-1].Number != 2*fake.MaxSeen+1 {
		t.Errorf("%d remembered, the last is %d", len(seen), seen[len(seen)-1].Number)
	}
}

func TestNewRefusesWhatItCannotImitate(t *testing.T) {
	if _, err := fake.New("bard", script.Script{}); err == nil || !strings.Contains(err.Error(), "groq, ollama, openai") {
		t.Errorf("got %v", err)
	}
	if _, err := fake.New("openai", script.Script{Dimensions: -1}); err == nil {
		t.Error("took a bad script")
	}
}

// BenchmarkServer measures the handler alone; the fakes stand behind benchmarks of everything else.
func BenchmarkServer(b *testing.B) {
	for name, body := range map[string]string{"whole": hello, "stream": strings.Replace(hello, "{", `{"stream":true,`, 1)} {
		b.Run(name, func(b *testing.B) {
			f, err := fake.New("openai", script.Script{Reply: []script.Rule{{Text: strings.Repeat("word ", 50)}}})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body)))
			}
		})
	}
}

func TestAResponseIsSentAsItIsWritten(t *testing.T) {
	srv, _ := serveAtNoon(t, "gemini", script.Script{Faults: []script.Fault{{Kind: script.Verbatim, On: []int{1}, Status: 307,
		Headers: map[string]string{"Location": "/elsewhere", "Content-Type": "text/plain"}, Body: " as it is\n"}}})
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Post(srv.URL+"/v1beta/models/m:generateContent", "application/json", strings.NewReader(`{"contents":[{"parts":[{"text":"a"}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 307 || string(b) != " as it is\n" || resp.Header.Get("Location") != "/elsewhere" || resp.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("%d %v %q", resp.StatusCode, resp.Header, b)
	}
}

// The headers are there long before the answer: an answer that never came would fail in another way.
func TestTheFirstTokenCanBeLate(t *testing.T) {
	srv, _ := serveAtNoon(t, "openai", script.Script{Faults: []script.Fault{{Kind: script.SlowFirstToken, Wait: time.Hour}}})
	for _, body := range []string{hello, strings.Replace(hello, "{", `{"stream":true,`, 1)} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/chat/completions", strings.NewReader(body))
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("no headers: %v", err)
		}
		cancel()
		if b, err := io.ReadAll(resp.Body); err == nil || len(b) > 0 {
			t.Errorf("got %q, %v", b, err)
		}
		resp.Body.Close()
	}
}

func TestAnOrderlyCloseIsNoEnd(t *testing.T) {
	srv, _ := serveAtNoon(t, "openai", script.Script{Faults: []script.Fault{{Kind: script.CloseMidStream}}})
	for _, body := range []string{hello, strings.Replace(hello, "{", `{"stream":true,`, 1)} {
		resp, err := http.Post(srv.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) || len(b) == 0 {
			t.Errorf("got %q, %v", b, err)
		}
	}
}

func TestEveryFaultIsInTheHandbook(t *testing.T) {
	page, err := docs.FS.ReadFile("fakes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range script.FaultKinds() {
		if !strings.Contains(string(page), "`"+string(k)+"`") && !strings.Contains(string(page), "`\""+string(k)+"\"`") {
			t.Errorf("docs/fakes.md does not tell of %s", k)
		}
	}
}
