package usage

import "home.arpa/lab/llm-runner/internal/llm"

// A Price is what a provider takes, in US dollars per million tokens (which is micro-dollars per token).
type Price struct {
	Input       float64 `yaml:"input"`
	Output      float64 `yaml:"output"`
	CachedInput float64 `yaml:"cached_input"` // 0: as Input
}

// Prices maps "provider/model", or "provider" for all its models, to a price. What is not in it costs an unknown amount:
// prices change too often to be compiled in, so the operator's configuration names those that matter.
type Prices map[string]Price

// Cost returns the price of u in micro-USD, or unknown where the price or the tokens are.
func (p Prices) Cost(provider, model string, u llm.Usage) llm.Count {
	price, ok := p[provider+"/"+model]
	if !ok {
		if price, ok = p[provider]; !ok {
			return llm.Count{}
		}
	}
	in, knownIn := u.Input.Get()
	out, knownOut := u.Output.Get()
	if !knownIn || !knownOut {
		return llm.Count{}
	}
	cached := u.CachedInput.Or(0)
	cachedPrice := price.CachedInput
	if cachedPrice == 0 {
		cachedPrice = price.Input
	}
	return llm.Known(int64(float64(in-cached)*price.Input + float64(cached)*cachedPrice + float64(out)*price.Output + 0.5))
}
