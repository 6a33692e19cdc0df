package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/internal/port"
	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
)

// An ear is an upstream that keeps every byte it is sent.
type ear struct {
	url string

	mu    sync.Mutex
	heard bytes.Buffer
	calls int
}

func listen(t *testing.T, kind string, s script.Script) *ear {
	t.Helper()
	f, err := fake.New(kind, s)
	if err != nil {
		t.Fatal(err)
	}
	e := &ear{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all, err := httputil.DumpRequest(r, true)
		if err != nil {
			t.Error(err)
		}
		e.mu.Lock()
		e.heard.Write(all)
		if r.Method == http.MethodPost {
			e.calls++
		}
		e.mu.Unlock()
		f.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	e.url = server.URL
	return e
}

func (e *ear) hears(what string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return bytes.Contains(bytes.ToLower(e.heard.Bytes()), []byte(what))
}

func (e *ear) asked() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls
}

// A canary is a word of a note that is never sent. Each stands in another place: path, title, heading, text, and the text of a document.
var canaries = []string{"kanarienordner", "kanarientitel", "kanarienkapitel", "kanarientext", "kanarienupload"}

// TestNoCloudProviderHearsWhatIsNeverSent asks in every way there is, of every kind of cloud provider, and looks through all that they heard.
func TestNoCloudProviderHearsWhatIsNeverSent(t *testing.T) {
	vault := t.TempDir()
	for name, text := range map[string]string{
		"Private/kanarienordner/heating.md": "# Kanarientitel\n\n## Kanarienkapitel\n\nThe heating of the house has the code kanarientext.\n",
		"Public/heating.md":                 "# Heating\n\nThe heating of the house is a heat pump in the garden shed.\n",
	} {
		file := filepath.Join(vault, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	echo := script.Script{Models: []string{"m"}} // what it is asked comes back, and so into what is asked next
	clouds := map[string]*ear{"groq": listen(t, "openai", echo), "gemini": listen(t, "gemini", echo), "anthropic": listen(t, "anthropic", echo)}
	home := listen(t, "ollama", echo)
	down := httptest.NewServer(nil)
	down.Close()

	config := filepath.Join(t.TempDir(), "runner.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
vault: {path: %q, never_send: [private, "uploads:secret*"]}
providers:
  groq: {kind: openai, url: %s/v1, key: env:CANARY_KEY}
  gemini: {kind: gemini, url: %s, key: env:CANARY_KEY}
  anthropic: {kind: anthropic, url: %s, key: env:CANARY_KEY}
  home: {kind: ollama, url: %s}
  gone: {kind: ollama, url: %s}
library: {embed: groq/m, rerank: one}
routes:
  default: {provider: groq, model: m}
  models:
    one: {provider: gemini, model: m}
    two: {provider: anthropic, model: m}
    own: {provider: home, model: m}
    away: {provider: gone, model: m, fallback: one}
`, vault, clouds["groq"].url, clouds["gemini"].url, clouds["anthropic"].url, home.url, down.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CANARY_KEY", "sk-canary-0123456789")

	for _, writer := range []string{"", "one", "two", "away", "own"} {
		t.Run("written by "+writer, func(t *testing.T) {
			c, err := Load(Options{Config: config, Data: t.TempDir(), Listen: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			c.Vault.Model = writer
			at := served(t, c)
			at.asks(t)
		})
	}
	for name, e := range clouds {
		if e.asked() < 4 {
			t.Errorf("%s was asked %d times only", name, e.asked())
		}
		for _, canary := range canaries {
			if e.hears(canary) {
				t.Errorf("%s heard %q", name, canary)
			}
		}
		if !e.hears("heat pump in the garden shed") {
			t.Errorf("%s did not hear what is public", name)
		}
	}
	for _, canary := range canaries {
		if !home.hears(canary) {
			t.Errorf("the machine at home did not hear %q, so this test proves nothing of it", canary)
		}
	}
}

// served runs the whole server in this process and returns its address.
func served(t *testing.T, c *Config) site {
	t.Helper()
	free, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	c.Listen = fmt.Sprintf("127.0.0.1:%d", free)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- (&call{stdout: io.Discard, stderr: io.Discard}).serve(ctx, c, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s := site("http://" + c.Listen)
	s.until(t, "/api/library", func(b []byte) bool { // words, and vectors that a cloud provider makes
		return bytes.Contains(b, []byte(`"notes": 2`)) && bytes.Contains(b, []byte(`"state": "ready"`))
	})
	return s
}

type site string

// until asks for a page until it is as it should be.
func (s site) until(t *testing.T, path string, is func([]byte) bool) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		b, err := s.ask(ctx, http.MethodGet, path, "", nil)
		if err == nil && is(b) {
			return b
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s is still %s, %v", path, b, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s site) ask(ctx context.Context, method, path, kind string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, string(s)+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", kind)
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if to := resp.Header.Get("Location"); resp.StatusCode == http.StatusSeeOther {
		return []byte(to), err
	}
	if resp.StatusCode >= 300 {
		return b, fmt.Errorf("%s %s: %s %s", method, path, resp.Status, b)
	}
	return b, err
}

const canaryQuestion = "what is the code of the heating of the house, and how was it measured"

// asks asks the notes by chat, API and jobs, and goes on with what they said in a cloud.
func (s site) asks(t *testing.T) {
	t.Helper()
	do := func(method, path, kind string, body []byte) []byte {
		t.Helper()
		b, err := s.ask(t.Context(), method, path, kind, body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	form := func(path string, values url.Values) string {
		t.Helper()
		return string(do(http.MethodPost, path, "application/x-www-form-urlencoded", []byte(values.Encode())))
	}
	do(http.MethodPost, "/api/library/documents?name=secret-heating.md", "text/markdown", []byte("The heating of the house was measured: kanarienupload.\n"))

	// A chat: the notes, then a cloud provider that is told what was said before, then the notes again.
	chat := form("/chats", url.Values{"text": {canaryQuestion}, "model": {"vault"}, "key": {"a"}})
	chat, _, _ = strings.Cut(chat, "#")
	for i, model := range []string{"one", "vault", "two"} {
		leaf := s.answered(t, chat)
		form(chat+"/messages", url.Values{"text": {"and what else of the heating of the house"}, "model": {model}, "parent": {fmt.Sprint(leaf)}, "key": {fmt.Sprint("b", i)}})
	}
	s.answered(t, chat)

	// The gateway, whole and streamed.
	for _, stream := range []bool{false, true} {
		b := do(http.MethodPost, "/v1/chat/completions", "application/json", fmt.Appendf(nil, `{"model":"vault","stream":%v,"messages":[{"role":"user","content":%q}]}`, stream, canaryQuestion))
		if !bytes.Contains(b, []byte("heating")) {
			t.Errorf("the gateway answers %s", b)
		}
	}

	// Jobs: research, and a chain whose second step sees what a private note said, which is all that the first one finds.
	for _, job := range []map[string]any{
		{"type": "research", "prompt": canaryQuestion},
		{"type": "chain", "model": "vault", "prompt": "## One\nWhich code is it?\n## Two\nWhat is the heating of the house? {{output}}"},
	} {
		body, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		var made struct{ ID int64 }
		if err := json.Unmarshal(do(http.MethodPost, "/api/jobs", "application/json", body), &made); err != nil || made.ID == 0 {
			t.Fatal(made, err)
		}
		s.until(t, fmt.Sprintf("/api/jobs/%d", made.ID), func(b []byte) bool {
			return bytes.Contains(b, []byte(`"state": "done"`)) || bytes.Contains(b, []byte(`"state":"done"`))
		})
	}
}

// answered waits for the last answer of a chat, and returns its number.
func (s site) answered(t *testing.T, chat string) int64 {
	t.Helper()
	var x struct {
		Messages []struct {
			ID   int64
			Turn *struct{ State, Error string }
		}
	}
	s.until(t, chat+"/export.json", func(b []byte) bool {
		x.Messages = nil
		if err := json.Unmarshal(b, &x); err != nil || len(x.Messages) == 0 {
			return false
		}
		last := x.Messages[len(x.Messages)-1]
		return last.Turn != nil && last.Turn.State == "finished"
	})
	return x.Messages[len(x.Messages)-1].ID
}

// TestToolsHandNoModelWhatIsNeverSent has a cloud model ask for private notes by every tool that reads notes.
func TestToolsHandNoModelWhatIsNeverSent(t *testing.T) {
	vault := t.TempDir()
	for name, text := range map[string]string{"Private/heating.md": "# Heating\n\nThe heating has the code kanarientext.\n", "heating.md": "# Heating\n\nA heat pump.\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(vault, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(vault, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cloud := listen(t, "openai", script.Script{Models: []string{"m"}, Reply: []script.Rule{
		{Match: "heating", Calls: []script.Call{
			{Name: "vault_read", Arguments: `{"path":"Private/heating.md"}`}, {Name: "vault_read", Arguments: `{"path":"private/Heating.md"}`},
			{Name: "vault_search", Arguments: `{"text":"heating"}`}, {Name: "vault_search", Arguments: `{"text":"kanarien","folder":"Private"}`},
			{Name: "memory_recall", Arguments: `{"query":"heating"}`}, {Name: "library_search", Arguments: `{"query":"heating code"}`},
			{Name: "vault_read", Arguments: `{"path":"heating.md"}`}}},
	}})
	config := filepath.Join(t.TempDir(), "runner.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "vault: {path: %q, never_send: [private]}\nproviders:\n  cloud: {kind: openai, url: %s/v1, key: env:CANARY_KEY}\nlibrary: {embed: cloud/m}\nroutes:\n  default: {provider: cloud, model: m}\n", vault, cloud.url), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CANARY_KEY", "sk-canary-0123456789")
	c, err := Load(Options{Config: config, Data: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	at := served(t, c)
	if _, err := at.ask(t.Context(), http.MethodPost, "/api/jobs", "application/json", []byte(`{"prompt":"what of the heating","tools":["*"]}`)); err != nil {
		t.Fatal(err)
	}
	at.until(t, "/api/jobs/1", func(b []byte) bool { return bytes.Contains(b, []byte(`"state": "done"`)) })
	if cloud.hears("kanarientext") {
		t.Error("the cloud heard the code")
	}
	if !cloud.hears("never sent to models (vault.never_send)") || !cloud.hears("a heat pump") {
		t.Error("the model was not told why, or not what is public")
	}
}
