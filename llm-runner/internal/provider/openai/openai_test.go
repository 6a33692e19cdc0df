package openai_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/provider/providertest"
)

const key = "sk-unit-51c7"

// open returns a Provider of a fake of the given kind.
func open(t *testing.T, kind string, flavor openai.Flavor, s script.Script) (*openai.Provider, *fake.Server) {
	url, up := providertest.Serve(t, kind, providertest.Scenario{Script: s})
	p := openai.New(openai.Config{URL: url + "/v1/", Key: key, Flavor: flavor})
	t.Cleanup(p.CloseIdle)
	return p, up
}

// raw returns a Provider of a server that answers everything with h.
func raw(t *testing.T, h http.HandlerFunc) *openai.Provider {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	p := openai.New(openai.Config{URL: srv.URL, Key: key, Timeout: 5 * time.Second})
	t.Cleanup(p.CloseIdle)
	return p
}

func ask(p llm.Provider) (llm.Answer, error) {
	return llm.Collect(p.Stream(context.Background(), llm.Request{Model: "m", Messages: []llm.Message{llm.Says(llm.User, "hi")}}))
}

func TestEveryFlavorIsAskedInItsOwnWords(t *testing.T) {
	for flavor, want := range map[openai.Flavor]string{openai.Generic: `"max_tokens":9`, openai.OpenAI: `"max_completion_tokens":9`, openai.Groq: `"max_completion_tokens":9`} {
		p, up := open(t, "openai", flavor, script.Script{})
		req := llm.Request{Model: "m", Messages: []llm.Message{llm.Says(llm.User, "hi")}, MaxTokens: 9}
		if _, err := llm.Collect(p.Stream(t.Context(), req)); err != nil {
			t.Fatal(err)
		}
		body := up.Requests()[0].Body
		for _, want := range []string{want, `"stream":true`, `"stream_options":{"include_usage":true}`} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: %s is not in %s", flavor, want, body)
			}
		}
	}
}

func TestLimitsComeWithTheFirstEventAndNameTheModel(t *testing.T) {
	p, _ := open(t, "groq", openai.Groq, script.Script{Limits: []script.Limit{{Dimension: llm.RequestsPerDay, Max: 1000}, {Dimension: llm.TokensPerMinute, Max: 6000}}})
	a, err := ask(p)
	if err != nil || len(a.Limits) != 2 || a.Limits[0].Dimension != llm.RequestsPerDay || a.Limits[0].Remaining != llm.Known(999) || a.Limits[0].Model != "m" {
		t.Errorf("got %+v, %v", a.Limits, err)
	}
}

func TestGroqsLimitIsMetAndUnderstood(t *testing.T) {
	p, _ := open(t, "groq", openai.Groq, script.Script{Limits: []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 2}}})
	for range 2 {
		if _, err := ask(p); err != nil {
			t.Fatal(err)
		}
	}
	_, err := ask(p)
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Quota || len(e.Limits) != 1 || e.Limits[0].Dimension != llm.RequestsPerMinute || e.Limits[0].Max != llm.Known(2) || e.Limits[0].Model != "m" {
		t.Fatalf("got %+v", err)
	}
	if wait := time.Until(e.Until); wait < 20*time.Second || wait > 31*time.Second {
		t.Errorf("come back in %s; one of two requests a minute is back after 30 s", wait)
	}
}

func TestTheKeyIsNeverRepeated(t *testing.T) {
	p := raw(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.WriteHeader(401)
		io.WriteString(w, `{"error":{"message":"Incorrect API key provided: `+key+`."}}`)
	})
	_, err := ask(p)
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Auth || strings.Contains(e.Error()+string(e.Body)+e.Header.Get("X-Echo"), key) {
		t.Errorf("got %+v", err)
	}
}

func TestStrangeStreams(t *testing.T) {
	const a, end = `data: {"choices":[{"index":0,"delta":{"content":"a"}}]}` + "\n\n", `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
	for _, tt := range []struct {
		name, contentType, body string
		want                    string // the error; "" none
		started                 bool
	}{
		{"[DONE] with spaces", "text/event-stream", a + end + "\n\ndata: [DONE]  \n\ndata: {\"error\":1}\n\n", "", false},
		{"a last event without its empty line", "text/event-stream", a + end, "", false},
		{"a wrong content type", "application/json", a + end + "\n\n", "", false},
		{"no content type and a byte order mark", "", "\xef\xbb\xbf" + a + end + "\n\n", "", false},
		{"a completion in one piece", "application/json", `{"object":"chat.completion","choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}`, "", false},
		{"[DONE] without a finish", "text/event-stream", a + "data: [DONE]\n\n", "broke off", true},
		{"nothing at all", "text/event-stream", "", "broke off", false},
		{"a completion without a finish", "application/json", `{"choices":[{"index":0,"message":{"content":"a"}}]}`, "does not say that it is finished", true},
		{"half a completion", "application/json", `{"choices":[{"index"`, "not of the chat completions dialect", false},
		{"half a chunk at the end", "text/event-stream", a + `data: {"choices":[{"ind`, "broke off", true},
		{"a quota error in band", "text/event-stream", `data: {"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}` + "\n\n", "Rate limit reached", false},
		{"an error event", "text/event-stream", a + "event: error\ndata: {\"error\":{\"message\":\"oh no\",\"code\":500}}\n\n", "oh no", true},
		{"a web page", "text/html", "<html>", "web page", false},
		{"another protocol", "text/plain", "hello\n\n", "broke off", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := raw(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				io.WriteString(w, tt.body)
			})
			got, err := ask(p)
			var e *llm.Error
			switch {
			case tt.want == "" && (err != nil || got.Message.Text() != "a" || got.Finish != llm.FinishStop):
				t.Errorf("got %+v, %v", got, err)
			case tt.want != "" && (!errors.As(err, &e) || !strings.Contains(e.Message, tt.want) || e.Started != tt.started || e.Model != "m"):
				t.Errorf("got %+v", err)
			}
		})
	}
}

func TestEmbeddings(t *testing.T) {
	p, up := open(t, "openai", "", script.Script{Dimensions: 8})
	got, err := p.Embed(t.Context(), llm.EmbedRequest{Model: "e", Texts: []string{"one two", "one two", "three"}})
	if err != nil || len(got.Vectors) != 3 || len(got.Vectors[0]) != 8 || got.Usage.Input != llm.Known(5) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got.Vectors[0][3] != got.Vectors[1][3] || math.Abs(float64(got.Vectors[0][3]-got.Vectors[2][3])) < 1e-9 {
		t.Error("vectors do not depend on the text alone")
	}
	if !strings.Contains(up.Requests()[0].Body, `"encoding_format":"float"`) {
		t.Error(up.Requests()[0].Body)
	}
	if got, err := p.Embed(t.Context(), llm.EmbedRequest{Model: "e"}); err != nil || len(got.Vectors) != 0 {
		t.Errorf("no texts: %+v, %v", got, err)
	}
	p, _ = open(t, "openai", "", script.Script{Models: []string{"other"}})
	if _, err := p.Embed(t.Context(), llm.EmbedRequest{Model: "e", Texts: []string{"x"}}); llm.KindOf(err) != llm.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestModels(t *testing.T) {
	p, _ := open(t, "groq", openai.Groq, script.Script{Key: key, Models: []string{"llama", "nomic-embed-text"}})
	got, err := p.Models(t.Context())
	if err != nil || len(got) != 2 || got[0] != (llm.ModelInfo{Name: "llama", Context: 131072}) || !got[1].Embeds {
		t.Errorf("got %+v, %v", got, err)
	}
	p, _ = open(t, "openai", "", script.Script{Key: "another"})
	if _, err := p.Models(t.Context()); llm.KindOf(err) != llm.Auth {
		t.Errorf("a wrong key: %v", err)
	}
}

func TestForwardPassesBytesAndOnlyWhatIsTheUpstreams(t *testing.T) {
	p, up := open(t, "openai", "", script.Script{Reply: []script.Rule{{Match: "ok", Text: "fine"}, {Fault: &script.Fault{Kind: script.RateLimited, Wait: time.Minute}}}})
	const body = `{"model":"m", "messages":[{"role":"user","content":"ok"}],  "unknown":{"kept":1}}`
	resp, err := p.Forward(t.Context(), "/chat/completions", http.Header{
		"Authorization": {"Bearer client"}, "Cookie": {"c"}, "Connection": {"x-hop"}, "X-Hop": {"1"}, "Accept-Encoding": {"br"}, "X-Request-Id": {"7"}, "User-Agent": {"client/1"},
	}, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	seen := up.Requests()[0]
	if !strings.Contains(string(b), "fine") || seen.Body != body {
		t.Errorf("got %s for %s", b, seen.Body)
	}
	if h := seen.Header; h.Get("Cookie")+h.Get("X-Hop") != "" || h.Get("Accept-Encoding") == "br" || h.Get("X-Request-Id") != "7" || h.Get("User-Agent") != "client/1" {
		t.Errorf("the upstream was sent %v", h)
	}
	_, err = p.Forward(t.Context(), "/chat/completions", nil, []byte(`{"model":"m","messages":[{"role":"user","content":"x"}]}`))
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Quota || e.Status != 429 || e.Header.Get("Retry-After") != "60" || !strings.Contains(string(e.Body), "rate_limit_exceeded") || len(e.Limits) == 0 {
		t.Errorf("got %+v", err)
	}
}

func TestConfigTellsAllItsFaults(t *testing.T) {
	err := openai.Config{URL: "groq", Flavor: "sweet", Timeout: -1}.Validate()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{"url:", "flavor:", "timeout:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in %v", want, err)
		}
	}
	if err := (openai.Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"))
	f.Add([]byte(`{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}`))
	f.Add([]byte("data: {\"error\":{}}\r\n\r\n"))
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(body) }))
	f.Cleanup(srv.Close)
	p := openai.New(openai.Config{URL: srv.URL})
	f.Fuzz(func(t *testing.T, b []byte) {
		body = b
		finishes, failed := 0, false
		for ev, err := range p.Stream(t.Context(), llm.Request{Model: "m"}) {
			if failed {
				t.Fatal("something follows an error")
			}
			failed = err != nil
			if ev.Finish != "" {
				finishes++
			}
		}
		if failed == (finishes == 1) || finishes > 1 {
			t.Fatalf("failed %v and finished %d times", failed, finishes)
		}
	})
}
