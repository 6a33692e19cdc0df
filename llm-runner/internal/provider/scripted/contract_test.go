package scripted_test

import (
	"testing"

	"home.arpa/lab/llm-runner/internal/provider/providertest"
	"home.arpa/lab/llm-runner/internal/provider/scripted"
)

func TestScriptedKeepsTheContract(t *testing.T) {
	providertest.Run(t, providertest.Suite{
		Lacks: []providertest.Feature{providertest.HTTP, providertest.Keys},
		Open: func(t *testing.T, sc providertest.Scenario) providertest.Subject {
			p, err := scripted.From(scripted.Config{Timeout: sc.Silence}, sc.Script)
			if err != nil {
				t.Fatal(err)
			}
			return providertest.Subject{Provider: p}
		},
	})
}
