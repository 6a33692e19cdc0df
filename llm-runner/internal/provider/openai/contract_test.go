package openai_test

import (
	"testing"

	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/provider/providertest"
)

func TestOpenAIKeepsTheContract(t *testing.T) { contract(t, "openai", openai.OpenAI) }

func TestGroqKeepsTheContract(t *testing.T) { contract(t, "groq", openai.Groq) }

func contract(t *testing.T, kind string, flavor openai.Flavor) {
	providertest.Run(t, providertest.Suite{
		Open: func(t *testing.T, sc providertest.Scenario) providertest.Subject {
			url, up := providertest.Serve(t, kind, sc)
			p := openai.New(openai.Config{Name: kind, URL: url + "/v1", Key: providertest.Key, Timeout: sc.Silence, Flavor: flavor})
			t.Cleanup(p.CloseIdle)
			return providertest.Subject{Provider: p, Upstream: up}
		},
	})
}
