package fake

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

func discordAt(t *testing.T, s script.Script) (*Discord, func(method, path, body string) (*http.Response, string)) {
	t.Helper()
	d, err := NewDiscord(s)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(d)
	t.Cleanup(srv.Close)
	return d, func(method, path, body string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp, string(text)
	}
}

func TestDiscordTakesFiveMessagesInTwoSeconds(t *testing.T) {
	d, ask := discordAt(t, script.Script{Key: "tok"})
	now := noon
	d.Now = func() time.Time { return now }
	for i := range discordBurst {
		path, want := "/api/webhooks/1/tok", 204
		if i == 1 {
			path, want = "/api/v10/webhooks/1/tok?wait=true", 200
		}
		if resp, body := ask("POST", path, `{"content":"x"}`); resp.StatusCode != want {
			t.Fatalf("%d: %s", resp.StatusCode, body)
		}
	}
	resp, body := ask("POST", "/api/webhooks/1/tok", `{"content":"x"}`)
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "2" || resp.Header.Get("X-RateLimit-Remaining") != "0" || !strings.Contains(body, `"retry_after":2`) {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	now = now.Add(discordWindow)
	if resp, _ := ask("POST", "/api/webhooks/1/tok", `{"content":"x"}`); resp.StatusCode != 204 {
		t.Error("there is no room after two seconds")
	}
	if n := len(d.Messages()); n != 6 {
		t.Errorf("%d messages were kept", n)
	}
}

func TestWhatDiscordRefuses(t *testing.T) {
	d, ask := discordAt(t, script.Script{Key: "tok"})
	for _, tt := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/api/webhooks/1/tok", "", 200, `"name":"Captain Hook"`},
		{"GET", "/api/webhooks/1/other", "", 401, `50027`},
		{"GET", "/nowhere", "", 404, `Not Found`},
		{"POST", "/api/webhooks/1/tok", `{"content":"` + strings.Repeat("x", 2001) + `"}`, 400, "2000 or fewer"},
		{"POST", "/api/webhooks/1/tok", `{"content":" "}`, 400, "empty message"},
		{"POST", "/api/webhooks/1/tok", `content`, 400, "invalid JSON"},
		{"PUT", "/api/webhooks/1/tok", ``, 405, "Not Allowed"},
	} {
		if resp, body := ask(tt.method, tt.path, tt.body); resp == nil || resp.StatusCode != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s %s: %v %s", tt.method, tt.path, resp, body)
		}
	}
	if len(d.Messages()) != 0 {
		t.Error("something was kept")
	}
}

func TestDiscordsFaults(t *testing.T) {
	d, ask := discordAt(t, script.Script{Faults: []script.Fault{{Kind: "404", On: []int{1}}, {Kind: "429", On: []int{2}, Wait: 7e9},
		{Kind: "503", On: []int{3}}, {Kind: "reset_before_headers", On: []int{4}}, {Kind: "reset_after_finish", On: []int{5}}}})
	for i, want := range []string{`10015`, `"retry_after":7`, `503`, "EOF", "EOF", `"content":"x"`} {
		if _, body := ask("POST", "/api/webhooks/1/t?wait=true", `{"content":"x"}`); !strings.Contains(body, want) {
			t.Errorf("post %d: %s", i+1, body)
		}
	}
	if n := len(d.Messages()); n != 2 {
		t.Errorf("%d messages were kept, not those of the last two posts", n)
	}
	if !d.Await(t.Context(), func(all []Message) bool { return len(all) == 2 }) {
		t.Error("nothing to wait for")
	}
}
