package openai

import (
	"net/http"
	"strconv"
	"strings"
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
		l := llm.Limit{Dimension: d.dimension, Counts: counts(flavor)}
		l.Max = number(h.Get("X-Ratelimit-Limit-" + d.suffix))
		l.Remaining = number(h.Get("X-Ratelimit-Remaining-" + d.suffix))
		if l.Max == (llm.Count{}) && l.Remaining == (llm.Count{}) {
			continue
		}
		if wait, ok := duration(h.Get("X-Ratelimit-Reset-" + d.suffix)); ok {
			l.Reset = now.Add(wait).UTC()
			l.Refill = refill(l.Max.Or(0), l.Max.Or(0)-l.Remaining.Or(0), l.Dimension, wait, llm.Window)
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

// counts is what this dialect counts: input, and max_tokens as soon as the request is sent. Of Groq's limits it is
// documented that cached input does not count.
func counts(flavor Flavor) llm.Counting {
	if flavor == Groq {
		return llm.TakesMax | llm.SkipsCached
	}
	return llm.TakesMax
}

// refill infers from a told wait how a limit's room comes back, since no page says it. Where the wait is what the missing
// room takes at an even pace, the limit fills continuously: 30 of Groq's 14400 requests/day used, "2m59.56s" (its example
// of the headers); 1323 of 15000 tokens/minute too many, "5.289s" (a public report of Groq's refusal). Any other wait is otherwise's.
func refill(most, missing int64, dimension string, wait time.Duration, otherwise llm.Refill) llm.Refill {
	per := time.Minute
	if strings.HasSuffix(dimension, "/day") {
		per = 24 * time.Hour
	}
	if most <= 0 || missing < 0 {
		return otherwise
	}
	even := time.Duration(float64(missing) / float64(most) * float64(per))
	if off := (wait - even).Abs(); off <= max(even/50, min(per/time.Duration(most), time.Second))+10*time.Millisecond {
		return llm.Continuous
	}
	return otherwise
}
