package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

func TestAWholeAnswerPassesByteForByte(t *testing.T) {
	url, requests := serveRaw(t, func(r *raw) {
		r.say(strings.Replace(sized(answer), "\r\n\r\n", "\r\nX-Request-Id: req_7\r\nX-RateLimit-Remaining-Requests: 9\r\nOpenai-Processing-Ms: 5\r\n"+
			"Set-Cookie: a=b\r\nServer: up\r\nStrict-Transport-Security: max-age=1\r\nX-Frame-Options: SAMEORIGIN\r\nKeep-Alive: timeout=5\r\n\r\n", 1))
	})
	l := openLab(t, []route.Member{remote("up", url)})
	body := "{ \"messages\":[],\t\"future\": 1.0e0,\n\"model\":\"up\" }"
	g := l.post(chat, body, "Authorization", "Bearer ours", "Cookie", "c=d", "X-Runner-Requires", "", "Openai-Organization", "theirs", "Openai-Beta", "x=1", "Connection", "X-Hop", "X-Hop", "1",
		"Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if g.err != nil || g.StatusCode != 200 || g.body != answer {
		t.Fatalf("status %d, error %v, body %s", g.status(), g.err, g.body)
	}
	for k, want := range map[string]string{"X-Request-Id": "req_7", "X-Ratelimit-Remaining-Requests": "9", "Openai-Processing-Ms": "5",
		"X-Runner-Provider": "up", "X-Runner-Model": "m", "X-Runner-Rule": "cloud", "Content-Length": strconv.Itoa(len(answer)),
		"Set-Cookie": "", "Server": "", "Strict-Transport-Security": "", "X-Frame-Options": "", "Keep-Alive": "", "Content-Type": "application/json"} {
		if got := g.Header.Get(k); got != want {
			t.Errorf("%s: %q, want %q", k, got, want)
		}
	}
	r := wait(t, "request", requests)
	if want := strings.Replace(body, `"up"`, `"m"`, 1); string(r.body) != want || r.req.URL.Path != "/chat/completions" {
		t.Errorf("sent %s to %s, want %s", r.body, r.req.URL.Path, want)
	}
	for k, want := range map[string]string{"Authorization": "Bearer sk-test", "Cookie": "", "Openai-Organization": "", "Openai-Beta": "x=1", "X-Hop": "", "X-Runner-Requires": "", "Traceparent": ""} {
		if got := r.req.Header.Get(k); got != want {
			t.Errorf("sent %s: %q, want %q", k, got, want)
		}
	}
	if row := l.rows()[0]; row.Outcome != usage.OK || row.Usage != told || row.Purpose != "api" || row.Asked != "up" {
		t.Errorf("ledger: %+v", row)
	}
}

func TestAWholeAnswerIsNeverHalf(t *testing.T) {
	for name, answer := range map[string]func(*raw){
		"shorter than its length": func(r *raw) { r.say(sized(answer)[:200]) },
		"cut off in a chunk": func(r *raw) {
			r.say(strings.Replace(eventHead, "text/event-stream", "application/json", 1))
			r.chunk(answer[:50])
		},
		"proper end in the middle":     func(r *raw) { r.say(sized(answer[:60])) },
		"no length, connection closed": func(r *raw) { r.say(jsonHead, "\r\n", answer[:60]) },
		"reset":                        func(r *raw) { r.say(sized(answer)[:200]); r.reset() },
		"silence":                      func(r *raw) { r.say(sized(answer)[:200]); <-r.gone },
		"two answers":                  func(r *raw) { r.say(sized(answer + answer)) },
		"no choices":                   func(r *raw) { r.say(sized(`{"object":"chat.completion"}`)) },
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := serveRaw(t, answer)
			l := openLab(t, []route.Member{tolerant(name, "up", url)})
			g := l.post(chat, whole)
			if g.err != nil || g.StatusCode != http.StatusBadGateway || !strings.Contains(g.body, `"code":"upstream_broken"`) {
				t.Fatalf("status %d, error %v, body %s", g.status(), g.err, g.body)
			}
			if got := l.outcome(); got != usage.Failed {
				t.Errorf("ledger: %s", got)
			}
		})
	}
}

func TestAHugeAnswerStreamsAndStillCannotBeHalf(t *testing.T) {
	huge := `{"choices":[{"message":{"content":"` + strings.Repeat("x", 9<<20) + `"},"finish_reason":"stop"}]}`
	for _, cut := range []int{0, 1 << 20} {
		url, _ := serveRaw(t, func(r *raw) {
			text := sized(huge)
			r.say(text[:len(text)-cut])
		})
		l := openLab(t, []route.Member{remote("up", url)})
		g := l.post(chat, whole)
		if cut == 0 && (g.err != nil || g.body != huge) || cut > 0 && g.err == nil {
			t.Errorf("%d bytes missing: error %v, %d bytes came", cut, g.err, len(g.body))
		}
		if got, want := l.outcome(), map[bool]usage.Outcome{true: usage.OK, false: usage.Failed}[cut == 0]; got != want {
			t.Errorf("ledger: %s, want %s", got, want)
		}
	}
}

func TestBadRequestsSayWhatIsWrong(t *testing.T) {
	l := openLab(t, []route.Member{says("up")}, func(c *gateway.Config, _ *route.Config) { c.MaxBody = 1000 })
	for _, c := range []struct {
		path, body string
		status     int
		says       string
		header     []string
	}{
		{path: chat, body: `{"model":"up",}`, status: 400, says: "byte 14"},
		{path: chat, body: ``, status: 400, says: "empty"},
		{path: chat, body: `[1]`, status: 400, says: "JSON object"},
		{path: chat, body: strings.Repeat(" ", 1001), status: 413, says: "larger than 1000 bytes"},
		{path: chat, body: `{}`, status: 415, says: "gzip", header: []string{"Content-Encoding", "gzip"}},
		{path: chat, body: `{"messages":[]}`, status: 400, says: "messages"},
		{path: chat, body: `{"messages":[{"role":"user","content":"x"}],"n":2}`, status: 400, says: "n: up cannot do this"},
		{path: chat, body: `{"messages":[{"role":"user","content":"x"}],"logprobs":true}`, status: 400, says: "logprobs: "},
		{path: chat, body: `{"messages":[{"role":"user","content":"x"}],"modalities":["text","audio"]}`, status: 400, says: "modalities: "},
		{path: "/v1/embeddings", body: `{"input":"x"}`, status: 400, says: "makes no embeddings"},
		{path: "/v1/completions", body: `{}`, status: 404, says: "there is no POST /v1/completions"},
		{path: chat, body: `{"messages":[{"role":"user","content":"x"}]}`, status: 400, says: "there is no provider", header: []string{"X-Runner-Requires", "nobody"}},
	} {
		if c.header != nil && c.header[0] == "X-Runner-Requires" {
			c.body = strings.Replace(c.body, `{`, `{"model":"up",`, 1)
		}
		g := l.post(c.path, c.body, c.header...)
		var e struct {
			Error struct{ Message, Type, Code string }
		}
		if err := json.Unmarshal([]byte(g.body), &e); err != nil || g.StatusCode != c.status || !strings.Contains(e.Error.Message, c.says) || e.Error.Type == "" {
			t.Errorf("%s %s: status %d, body %s; want %d and %q", c.path, c.body, g.status(), g.body, c.status, c.says)
		}
	}
	// The length is not announced: still bounded.
	req, _ := http.NewRequest(http.MethodPost, l.url+chat, io.MultiReader(strings.NewReader(strings.Repeat(" ", 2000))))
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || resp.StatusCode != 413 {
		t.Errorf("chunked: %v, %v", resp, err)
	}
	resp.Body.Close()
	if resp, err := http.Get(l.url + chat); err != nil || resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %v, %v", resp, err)
	}
}

func TestRefusalsTellWhenToComeBack(t *testing.T) {
	soon := time.Now().Add(90 * time.Second)
	for _, c := range []struct {
		name   string
		err    error
		status int
		kind   string
		retry  func(seconds int) bool
		at     bool
	}{
		{"quota", &llm.Error{Kind: llm.Quota, Message: "slow down", Until: soon}, 429, "rate_limit_exceeded", func(s int) bool { return s >= 85 && s <= 90 }, true},
		{"quota, nearly over", &llm.Error{Kind: llm.Quota, Until: time.Now().Add(time.Millisecond)}, 429, "rate_limit_exceeded", func(s int) bool { return s >= 1 && s <= 2 }, true},
		{"overload", &llm.Error{Kind: llm.Overload, Until: soon}, 503, "overloaded", func(s int) bool { return s > 80 }, true},
		{"unavailable", &llm.Error{Kind: llm.Unavailable}, 503, "unavailable", func(s int) bool { return s == 5 }, false},
		{"busy", &llm.BusyError{Kind: llm.Unavailable, Reason: "the machine is down"}, 503, "unavailable", func(s int) bool { return s == 5 }, false},
		{"spend", &llm.Error{Kind: llm.Spend}, 402, "insufficient_quota", nil, false},
		{"auth", &llm.Error{Kind: llm.Auth}, 502, "upstream_error", nil, false},
		{"not found", &llm.Error{Kind: llm.NotFound}, 404, "invalid_request_error", nil, false},
		{"bad request", &llm.Error{Kind: llm.BadRequest, Status: 418, Body: []byte(`{"x":1}`)}, 400, "invalid_request_error", nil, false},
	} {
		for _, body := range []string{streamed, whole} {
			t.Run(c.name, func(t *testing.T) {
				l := openLab(t, []route.Member{fails("up", c.err)})
				g := l.post(chat, body)
				var e struct {
					Error struct {
						Type    string
						RetryAt *time.Time `json:"retry_at"`
					}
				}
				if err := json.Unmarshal([]byte(g.body), &e); err != nil || g.StatusCode != c.status || e.Error.Type != c.kind || (e.Error.RetryAt != nil) != c.at {
					t.Errorf("status %d, body %s", g.status(), g.body)
				}
				retry, err := strconv.Atoi(g.Header.Get("Retry-After"))
				if c.retry == nil && g.Header.Get("Retry-After") != "" || c.retry != nil && (err != nil || !c.retry(retry)) {
					t.Errorf("Retry-After %q", g.Header.Get("Retry-After"))
				}
				if g.Header.Get("X-Runner-Provider") != "up" {
					t.Errorf("headers %v", g.Header)
				}
			})
		}
	}
}

func TestAHoldSaysWhoIsWaitedFor(t *testing.T) {
	l := openLab(t, []route.Member{fails("up", &llm.Error{Kind: llm.Quota, Until: time.Now().Add(time.Hour)})})
	l.post(chat, whole)
	g := l.post(chat, whole) // is not sent any more
	if g.StatusCode != 429 || g.Header.Get("X-Runner-Provider") != "up" || g.Header.Get("X-Runner-Model") != "m" || g.Header.Get("X-Runner-Rule") != "default" {
		t.Errorf("status %d, headers %v, body %s", g.status(), g.Header, g.body)
	}
	if rows := l.rows(); len(rows) != 1 {
		t.Errorf("%d attempts, want 1", len(rows))
	}
}

func TestRoutingHeaders(t *testing.T) {
	l := openLab(t, []route.Member{says("up", llm.Event{Text: "a", Finish: llm.FinishStop}), says("gpu", llm.Event{Text: "b", Finish: llm.FinishStop})},
		func(_ *gateway.Config, rc *route.Config) { rc.Table.Project = "gpu" })
	body := strings.Replace(whole, `"x"`, `"up"`, 1)
	for _, c := range []struct{ key, value, provider, rule string }{
		{"X-Nothing", "", "up", "local"},
		{"X-Runner-Project", "true", "gpu", "project"},
		{"X-Runner-Project", "false", "up", "local"},
		{"X-Runner-Requires", "gpu", "gpu", "requires"},
	} {
		if g := l.post(chat, body, c.key, c.value); g.Header.Get("X-Runner-Provider") != c.provider || g.Header.Get("X-Runner-Rule") != c.rule {
			t.Errorf("%s: %s: headers %v", c.key, c.value, g.Header)
		}
	}
}

func TestModels(t *testing.T) {
	l := openLab(t, []route.Member{says("up"), says("vault")}, func(_ *gateway.Config, rc *route.Config) {
		rc.Table.Models["qwen/qwen3"] = route.Entry{Target: route.Target{Provider: "up", Model: "q"}}
	})
	get := func(path string) (int, string) {
		resp, err := http.Get(l.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	var list struct {
		Object string
		Data   []struct {
			ID, Object string
			OwnedBy    string `json:"owned_by"`
			Created    int64
		}
	}
	status, body := get("/v1/models")
	if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 || list.Object != "list" || len(list.Data) != 3 {
		t.Fatalf("status %d, body %s", status, body)
	}
	for i, want := range []string{"qwen/qwen3", "up", "vault"} {
		m := list.Data[i]
		if m.ID != want || m.Object != "model" || m.Created == 0 || m.OwnedBy != strings.Replace(want, "qwen/qwen3", "up", 1) {
			t.Errorf("%+v, want %s", m, want)
		}
	}
	if status, body := get("/v1/models/qwen/qwen3"); status != 200 || !strings.Contains(body, `"id":"qwen/qwen3"`) {
		t.Errorf("status %d, body %s", status, body)
	}
	if status, body := get("/v1/models/none"); status != 404 || !strings.Contains(body, "model_not_found") {
		t.Errorf("status %d, body %s", status, body)
	}
}

type embedder struct{ source }

func (embedder) Embed(_ context.Context, req llm.EmbedRequest) (llm.Embeddings, error) {
	out := llm.Embeddings{Usage: llm.Usage{Input: llm.Known(7)}}
	for _, text := range req.Texts {
		out.Vectors = append(out.Vectors, []float32{float32(len(text)), float32(req.Dimensions)})
	}
	return out, nil
}

func TestEmbeddings(t *testing.T) {
	const vectors = `{"object":"list","data":[{"embedding":[1.50,2]}],"usage":{"prompt_tokens":7,"total_tokens":7}}`
	url, requests := serveRaw(t, func(r *raw) { r.say(sized(vectors)) })
	l := openLab(t, []route.Member{remote("up", url), {Name: "home", Kind: "ollama", Provider: embedder{}}})
	g := l.post("/v1/embeddings", `{"model":"up","input":[1,2,3],"future":1}`)
	if g.StatusCode != 200 || g.body != vectors {
		t.Errorf("status %d, body %s", g.status(), g.body)
	}
	if r := wait(t, "request", requests); string(r.body) != `{"model":"m","input":[1,2,3],"future":1}` || r.req.URL.Path != "/embeddings" {
		t.Errorf("sent %s to %s", r.body, r.req.URL.Path)
	}
	g = l.post("/v1/embeddings", `{"model":"home","input":["a","bcd"],"dimensions":2}`)
	for _, want := range []string{`"embedding":[1,2]`, `"embedding":[3,2]`, `"model":"m"`, `"prompt_tokens":7`} {
		if g.StatusCode != 200 || !strings.Contains(g.body, want) {
			t.Errorf("status %d, %s is missing in %s", g.status(), want, g.body)
		}
	}
	if g := l.post("/v1/embeddings", `{"model":"home","input":[1,2]}`); g.StatusCode != 400 || !strings.Contains(g.body, "input: ") {
		t.Errorf("status %d, body %s", g.status(), g.body)
	}
	for _, row := range l.rows() {
		if row.Outcome == usage.OK && row.Usage.Input != llm.Known(7) {
			t.Errorf("ledger: %+v", row)
		}
	}
}

func TestTheUpstreamsOwnErrorBodyIsPassedOn(t *testing.T) {
	const body = `{ "error": {"message":"bad tool","type":"invalid_request_error","param":"tools[0]","code":null,"extra":[1.0]} }`
	url, _ := serveRaw(t, func(r *raw) {
		r.say(fmt.Sprintf("HTTP/1.1 422 No\r\nContent-Type: application/json\r\nConnection: close\r\nX-Request-Id: r9\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	})
	l := openLab(t, []route.Member{remote("up", url)})
	if g := l.post(chat, streamed); g.StatusCode != 422 || g.body != body || g.Header.Get("X-Request-Id") != "r9" {
		t.Errorf("status %d, headers %v, body %s", g.status(), g.Header, g.body)
	}
}

func TestAPanicOfAProviderIsNoCleanEnd(t *testing.T) {
	l := openLab(t, []route.Member{{Name: "up", Provider: source(nil)}})
	if g := l.post(chat, streamed); g.err == nil {
		t.Errorf("status %d, body %s", g.status(), g.body)
	}
	if got := l.outcome(); got != usage.Failed {
		t.Errorf("ledger: %s", got)
	}
}
