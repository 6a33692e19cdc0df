package loop

import (
	"net/http/httptest"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/anthropic"
	"home.arpa/lab/llm-runner/internal/provider/gemini"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/openai"
)

// TestEveryDialectCallsToolsSideBySideAndTakesTheirResults runs the loop against faithful fakes, which refuse what the real ones
// refuse: results without their calls, calls without their results, schemas that they do not read.
func TestEveryDialectCallsToolsSideBySideAndTakesTheirResults(t *testing.T) {
	sc := script.Script{Reply: []script.Rule{
		{Match: "No more tools", Text: "All is there."},
		{Text: "I look.", Calls: []script.Call{{Name: "look", Arguments: `{"text":"one"}`}, {Name: "look", Arguments: `{"text":"two"}`}}},
	}}
	for kind, make := range map[string]func(url string) llm.Provider{
		"openai": func(url string) llm.Provider {
			return openai.New(openai.Config{Name: "openai", URL: url + "/v1", Key: "k"})
		},
		"groq": func(url string) llm.Provider {
			return openai.New(openai.Config{Name: "groq", URL: url + "/v1", Key: "k", Flavor: openai.Groq})
		},
		"gemini":    func(url string) llm.Provider { return gemini.New(gemini.Config{URL: url, Key: "k"}) },
		"anthropic": func(url string) llm.Provider { return anthropic.New(anthropic.Config{URL: url, Key: "k"}) },
		"ollama":    func(url string) llm.Provider { return ollama.New(ollama.Config{URL: url}) },
	} {
		t.Run(kind, func(t *testing.T) {
			f, err := fake.New(kind, sc)
			if err != nil {
				t.Fatal(err)
			}
			up := httptest.NewServer(f)
			defer up.Close()
			defer up.CloseClientConnections()
			b := newBench(t)
			req := ask("turn-1")
			req.Model = map[string]string{"gemini": "gemini-2.5-flash", "anthropic": "claude-haiku-4-5"}[kind]
			if req.Model == "" {
				req.Model = "m"
			}
			a, err := llm.Collect(New(make(up.URL), b.box, Limits{Steps: 3}).Stream(t.Context(), req))
			if err != nil {
				t.Fatal(err)
			}
			if got := a.Message.Text(); !strings.HasPrefix(got, "I look.") || !strings.HasSuffix(got, "All is there.") || a.Finish != llm.FinishStop {
				t.Errorf("got %q, %s", got, a.Finish)
			}
			all, err := b.box.OfRun(t.Context(), "turn-1")
			if err != nil || len(all) != 4 || !strings.Contains(all[3].Result, "look has two") {
				t.Errorf("%+v, %v", all, err)
			}
		})
	}
}
