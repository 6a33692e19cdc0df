package openai

import (
	"net/http"
	"strconv"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Limits reads the x-ratelimit-* headers of a response. Their limits are of the model that was asked, which no header
// names: the caller fills Model in.
//
// OpenAI's -requests and -tokens are both per minute (https://platform.openai.com/docs/guides/rate-limits), Groq's -requests
// are per day (https://console.groq.com/docs/rate-limits). Which of the two it is, the Flavor says, or Groq's own header
// x-groq-region. Cerebras spells the window out.
func (p *Provider) Limits(h http.Header) []llm.Limit {
	return limits(p.flavor, h, time.Now())
}

// limits is Limits at one moment. Resets are counted from now.
func limits(flavor Flavor, h http.Header, now time.Time) []llm.Limit {
	requests := llm.RequestsPerMinute
	if flavor == Groq || h.Get("X-Groq-Region") != "" {
		requests = llm.RequestsPerDay
	}
	var out []llm.Limit
	for _, d := range []struct{ suffix, dimension string }{
		{"Requests", requests},
		{"Tokens", llm.TokensPerMinute},
		{"Requests-Minute", llm.RequestsPerMinute},
		{"Requests-Day", llm.RequestsPerDay},
		{"Tokens-Minute", llm.TokensPerMinute},
		{"Tokens-Day", llm.TokensPerDay},
	} {
		l := llm.Limit{Dimension: d.dimension}
		l.Max = number(h.Get("X-Ratelimit-Limit-" + d.suffix))
		l.Remaining = number(h.Get("X-Ratelimit-Remaining-" + d.suffix))
		if l.Max == (llm.Count{}) && l.Remaining == (llm.Count{}) {
			continue
		}
		if wait, ok := duration(h.Get("X-Ratelimit-Reset-" + d.suffix)); ok {
			l.Reset = now.Add(wait).UTC()
		}
		out = append(out, l)
	}
	return out
}

func number(s string) llm.Count {
	if s == "" { // most headers are absent, and an error of ParseInt costs an allocation
		return llm.Count{}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return llm.Count{}
	}
	return llm.Known(n)
}

// duration reads "2m59.56s", "577.5ms", or plain seconds.
func duration(s string) (time.Duration, bool) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, true
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil && n >= 0 && n < 1e8 {
		return time.Duration(n * float64(time.Second)), true
	}
	return 0, false
}
