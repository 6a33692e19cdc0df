package agent

import (
	"fmt"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/quota"
)

// A Target is a model that may answer.
type Target struct{ Provider, Model string }

// leastAnswer is how many tokens an answer must be able to have to be worth asking for.
const leastAnswer = 64

// afford bounds the answer to a request by what is left of the run's money, at the price of the dearest model that may answer: what the
// prompt costs, and as many tokens as the rest is enough for. It refuses where that is no answer. A model without a price is not bound.
func (x *runner) afford(req *llm.Request) error {
	c, most := x.s.config, x.agent.Budget.MicroUSD
	if most <= 0 || c.Cost == nil || c.Targets == nil {
		return nil
	}
	bytes := 0
	for _, m := range req.Messages {
		bytes += len(m.Text())
	}
	left, in, out := most-x.run.MicroUSD, quota.Tokens(bytes), int64(req.MaxTokens)
	for _, t := range c.Targets(*req) {
		cost := func(out int64) (int64, bool) {
			return c.Cost(t.Provider, t.Model, llm.Usage{Input: llm.Known(in), Output: llm.Known(out)}).Get()
		}
		least, known := cost(leastAnswer)
		if !known {
			continue
		}
		if least > left {
			return &llm.Error{Kind: llm.BadRequest, Provider: t.Provider, Model: t.Model, Message: fmt.Sprintf(
				"budget.micro_usd of %d, of which %d are left, is not enough for the prompt of about %d tokens and an answer (%d): raise it, shorten the prompt, or name a cheaper model", most, max(left, 0), in, least)}
		}
		low, high := int64(leastAnswer), max(out, leastAnswer) // low can be paid
		for low < high {
			middle := low + (high-low+1)/2
			if price, _ := cost(middle); price <= left {
				low = middle
			} else {
				high = middle - 1
			}
		}
		out = min(out, low)
	}
	req.MaxTokens = int(out)
	return nil
}

// overspent is the bound of money that the run has gone over, in words; "" none. cut says that its answer was ended by the length that it
// could pay for.
func (x *runner) overspent(cut bool) string {
	if most := x.agent.Budget.MicroUSD; most > 0 && (cut || x.run.MicroUSD > most) {
		return fmt.Sprintf("$%.4f", float64(most)/1e6)
	}
	return ""
}
