package anthropic

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// An errorBody is {"type":"error","error":{"type","message","details"},"request_id"}.
type errorBody struct {
	Error apiError `json:"error"`
}

type apiError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Details struct {
		ErrorCode string `json:"error_code"`
	} `json:"details"`
}

// refusal reads a response that is not an answer (platform.claude.com, "Errors" and "Rate limits"). now is when it came.
//
// Three refusals look like a rate limit. A rate limit is a 429 with retry-after: earlier retries fail. A tier's spend cap
// is a 429 without one, and with the error code enforced_spend_limit_reached: it lasts until the next month. A spend limit
// of the account's own is a 400 that says so. A 529 is the API's load, and nobody's quota.
func refusal(status int, h http.Header, body []byte, now time.Time) *llm.Error {
	var b errorBody
	if err := json.Unmarshal(body, &b); err != nil {
		b = errorBody{} // a proxy's page
	}
	e := &llm.Error{Kind: kindOf(status, b.Error), Message: b.Error.words(status), Status: status, Header: h, Body: body, Limits: Limits(h)}
	if h.Get("X-Should-Retry") == "true" && e.Kind == llm.BadRequest {
		e.Kind = llm.Unavailable // the API knows better (409 of a lock, 408)
	}
	if wait := upstream.RetryAfter(h, now); wait > 0 && !e.Kind.Permanent() {
		e.Until = now.Add(wait).UTC()
	}
	// "prompt is too long: 200251 tokens > 200000 maximum"; "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000"
	e.TooLong = e.Kind == llm.BadRequest && (strings.Contains(b.Error.Message, "prompt is too long") || strings.Contains(b.Error.Message, "exceed context limit"))
	if e.Kind == llm.Quota {
		e.Limits, e.Until = exhausted(e.Limits, b.Error.Message, e.Until)
	}
	return e
}

// kindOf tells the kind of an error. In a stream there is no status (0) and the type must do.
func kindOf(status int, e apiError) llm.Kind {
	switch {
	case e.Details.ErrorCode == "enforced_spend_limit_reached",
		e.Type == "billing_error",
		status == http.StatusPaymentRequired,
		strings.Contains(e.Message, "credit balance is too low"),
		// "You have reached your specified API usage limits", or "... specified workspace API usage limits". With a 429
		// it is a workspace's own pace, which passes.
		status != http.StatusTooManyRequests && strings.Contains(e.Message, "You have reached your specified") && strings.Contains(e.Message, "usage limits"):
		return llm.Spend
	}
	if status == 529 || status == http.StatusServiceUnavailable || e.Type == "overloaded_error" {
		return llm.Overload
	}
	switch e.Type {
	case "rate_limit_error":
		return llm.Quota
	case "authentication_error", "permission_error":
		return llm.Auth
	case "not_found_error":
		return llm.NotFound
	case "api_error", "timeout_error":
		return llm.Unavailable
	case "invalid_request_error", "request_too_large":
		return llm.BadRequest
	}
	if status == http.StatusConflict {
		return llm.Unavailable
	}
	return upstream.KindOf(status)
}

// words returns the error in words for people, with the cure where a person must act.
func (e apiError) words(status int) string {
	s := strings.TrimSpace(e.Message)
	if s == "" {
		s = e.Type
	}
	if s == "" {
		if s = strings.ToLower(http.StatusText(status)); s == "" {
			s = "no reason given"
		}
	}
	switch kindOf(status, e) {
	case llm.Auth:
		s += "; check the key in the Claude Console"
	case llm.Spend:
		s += "; raise the limit or add credit on the Claude Console's billing page"
	}
	return s
}

// refusedFor finds the limit that a 429 names: "This request would exceed your organization's rate limit of 50,000 input
// tokens per minute".
var refusedFor = regexp.MustCompile(`rate limit of ([\d,]+) (input tokens|output tokens|requests|tokens) per minute`)

var named = map[string]string{
	"requests": llm.RequestsPerMinute, "tokens": llm.TokensPerMinute,
	"input tokens": llm.InputTokensPerMinute, "output tokens": llm.OutputTokensPerMinute,
}

// exhausted marks the limits that refused: those with nothing left, and the one that the message names (a large request is
// refused while some tokens are left). Their Reset becomes until, where the API told it, which is earlier and exact; where
// it did not, the latest of their resets is returned as until.
func exhausted(limits []llm.Limit, message string, until time.Time) ([]llm.Limit, time.Time) {
	name := ""
	if m := refusedFor.FindStringSubmatch(message); m != nil {
		name = named[m[2]]
		most, err := strconv.ParseInt(strings.ReplaceAll(m[1], ",", ""), 10, 64)
		known := false
		for _, l := range limits {
			known = known || l.Dimension == name
		}
		if !known && err == nil {
			limits = append(limits, llm.Limit{Dimension: name, Max: llm.Known(most), Refill: llm.Continuous, Counts: llm.SkipsCached})
		}
	}
	some, told := false, !until.IsZero()
	for i := range limits {
		l := &limits[i]
		if l.Dimension != name && l.Remaining.Or(1) > 0 {
			continue
		}
		l.Exhausted, some = true, true
		if told {
			l.Reset = until
		} else if l.Reset.After(until) {
			until = l.Reset
		}
	}
	if !some {
		limits = append(limits, llm.Limit{Dimension: llm.Overall, Reset: until, Exhausted: true})
	}
	return limits, until
}

// Limits reads the anthropic-ratelimit-* headers, which come with every answer; nil without them. The limits are of one
// class of models, which the headers do not name: Model stays "".
//
// The API's buckets fill continuously. Reset is the time at which one is full again, not the first moment at which
// something fits: an upper bound. Token counts are rounded to the thousand. The tokens limit shows the most restrictive
// of the limits in force, so it repeats another one (platform.claude.com, "Rate limits", response headers). Input read from
// the cache does not count, and only output that was really made does.
func Limits(h http.Header) []llm.Limit {
	var limits []llm.Limit
	for _, x := range []struct{ name, dimension string }{
		{"Requests", llm.RequestsPerMinute},
		{"Tokens", llm.TokensPerMinute},
		{"Input-Tokens", llm.InputTokensPerMinute},
		{"Output-Tokens", llm.OutputTokensPerMinute},
	} {
		prefix := "Anthropic-Ratelimit-" + x.name
		l := llm.Limit{Dimension: x.dimension, Refill: llm.Continuous, Counts: llm.SkipsCached, Max: number(h.Get(prefix + "-Limit")), Remaining: number(h.Get(prefix + "-Remaining"))}
		if x.dimension == llm.TokensPerMinute {
			l.Counts = llm.Repeats
		}
		if t, err := time.Parse(time.RFC3339, h.Get(prefix+"-Reset")); err == nil {
			l.Reset = t.UTC()
		}
		if l.Max.Ptr() != nil || l.Remaining.Ptr() != nil {
			limits = append(limits, l)
		}
	}
	return limits
}

func number(s string) llm.Count {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return llm.Count{}
	}
	return llm.Known(n)
}
