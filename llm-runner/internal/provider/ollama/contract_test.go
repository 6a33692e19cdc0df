package ollama_test

import (
	"testing"

	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/providertest"
)

func TestOllamaKeepsTheContract(t *testing.T) {
	providertest.Run(t, providertest.Suite{
		Open: func(t *testing.T, sc providertest.Scenario) providertest.Subject {
			url, up := providertest.Serve(t, "ollama", sc)
			p := ollama.New(ollama.Config{URL: url, Key: providertest.Key, Timeout: sc.Silence})
			t.Cleanup(p.CloseIdle)
			return providertest.Subject{Provider: p, Upstream: up}
		},
	})
}
