package agent

import (
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Ten micro-USD for a token of the prompt, a hundred for one of the answer; local models cost nothing, and one has no price.
func priced(provider, _ string, u llm.Usage) llm.Count {
	switch provider {
	case "davas":
		return llm.Known(0)
	case "unpriced":
		return llm.Count{}
	}
	return llm.Known(u.Input.Or(0)*10 + u.Output.Or(0)*100)
}

func TestMoneyBoundsAPromptWithoutTools(t *testing.T) {
	long := strings.Repeat("many words ", 4000) // about 11,000 tokens
	for _, c := range []struct {
		name, budget, prompt string
		targets              []Target
		max                  int // tokens that the answer is asked to have at most; 0: nobody is asked
		state                State
		over                 string
	}{
		{"no bound", "{}", "Hello.", []Target{{"groq", "m"}}, 16_000, Done, ""},
		{"enough", "{micro_usd: 2000000}", "Hello.", []Target{{"groq", "m"}}, 16_000, Done, ""},
		{"too little for the longest answer", "{micro_usd: 20000}", "Hello.", []Target{{"groq", "m"}}, 193, Done, ""},
		{"a dearer fallback", "{micro_usd: 20000}", "Hello.", []Target{{"davas", "m"}, {"groq", "m"}}, 193, Done, ""},
		{"a machine at home", "{micro_usd: 1}", "Hello.", []Target{{"davas", "m"}}, 16_000, Done, ""},
		{"a model without a price", "{micro_usd: 1}", "Hello.", []Target{{"unpriced", "m"}}, 16_000, Done, ""},
		{"too little for the prompt", "{micro_usd: 100000}", long, []Target{{"groq", "m"}}, 0, Failed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, map[string]string{"money": "---\nbudget: " + c.budget + "\n---\n" + c.prompt + "\n"})
			b.config.Targets = func(llm.Request) []Target { return c.targets }
			b.config.Cost = func(provider, model string, u llm.Usage) llm.Count {
				if u.Output.Or(0) == 10 { // what the model says that it has used, whoever it was
					provider = c.targets[0].Provider
				}
				return priced(provider, model, u)
			}
			b.start()
			x := b.ask("money", false)
			if x.State != c.state || x.Over != c.over {
				t.Errorf("%+v", x.Run)
			}
			if c.max == 0 {
				if b.model.count() != 0 || !strings.Contains(x.Reason, "budget.micro_usd of 100000") {
					t.Errorf("asked %d times; %s", b.model.count(), x.Reason)
				}
				return
			}
			if got := b.model.asked[0].MaxTokens; got > c.max+20 || got < c.max-20 {
				t.Errorf("an answer of %d tokens is asked for, not %d", got, c.max)
			}
		})
	}
}

// The provider counts more than was thought: it was paid for, and the run says so.
func TestAnAnswerThatCostMoreThanItsBudgetSaysSo(t *testing.T) {
	b := newBench(t, map[string]string{"money": "---\nbudget: {micro_usd: 8000}\n---\nHi.\n"})
	calls := 0
	b.config.Targets = func(llm.Request) []Target { return []Target{{"groq", "m"}} }
	b.config.Cost = func(_, _ string, u llm.Usage) llm.Count {
		calls++
		if u.Input.Or(0) == 100 { // what the model says that it has used
			return llm.Known(9000)
		}
		return llm.Known(100)
	}
	b.start()
	x := b.ask("money", false)
	if x.State != Done || x.Over != "$0.0080" || x.MicroUSD != 9000 {
		t.Errorf("%+v after %d prices", x.Run, calls)
	}
	contains(t, x.Output.Text, "All is quiet.", "*Its budget ended it here: $0.0080.*")
}
