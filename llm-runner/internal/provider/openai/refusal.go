package openai

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// refusal reads an error response. The statuses are those of https://platform.openai.com/docs/guides/error-codes and
// https://console.groq.com/docs/errors.
func refusal(flavor Flavor, status int, h http.Header, body []byte, now time.Time) *llm.Error {
	said := wire.ParseError(body)
	if said == nil {
		said = &wire.Error{Message: plainText(body)}
	}
	e := &llm.Error{Kind: kindOf(status, said), Message: said.Message, Status: status, Header: h, Body: body}
	if e.Message == "" {
		e.Message = "refused: " + string(e.Kind)
	}
	e.Limits = limits(flavor, h, now) // a request that failed may have been counted all the same
	if (e.Kind == llm.Quota || e.Kind == llm.BadRequest) && oversized(said.Message) {
		if e.TooLong = true; e.Kind == llm.Quota { // under a status that says to come back, which would not help
			e.Kind, e.Body = llm.BadRequest, nil
			e.Message += "; no wait makes room for it: shorten it, or give its row a fallback"
		}
		return e
	}
	switch e.Kind {
	case llm.BadRequest: // the code is OpenAI's and Groq's; imitations have only the words (vLLM)
		e.TooLong = said.Code == "context_length_exceeded" || strings.Contains(said.Message, "maximum context length") || said.Type == "exceed_context_size_error" // llama.cpp
	case llm.Quota:
		e.Limits, e.Until = exhausted(flavor, limits(flavor, h, now), said.Message, upstream.RetryAfter(h, now), now)
	case llm.Overload, llm.Unavailable:
		if wait := upstream.RetryAfter(h, now); wait > 0 {
			e.Until = now.Add(wait).UTC()
		}
	}
	return e
}

// inBand reads an error that came where an answer was due, under status 200.
func inBand(said *wire.Error, now time.Time) *llm.Error {
	status, _ := strconv.Atoi(said.Code) // OpenRouter repeats the status as the code
	e := &llm.Error{Kind: kindOf(status, said), Status: http.StatusOK, Message: said.Message, Body: said.Raw, Err: said}
	if e.Kind == llm.Quota {
		e.Limits, e.Until = exhausted(Generic, nil, said.Message, 0, now)
	}
	return e
}

// kindOf says what a refusal means. The code goes before the status: OpenAI says 429 when money is gone, Groq 400.
func kindOf(status int, said *wire.Error) llm.Kind {
	for _, name := range []string{said.Code, said.Type} {
		switch name {
		case "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "blocked_api_access":
			return llm.Spend
		case "tool_use_failed", "json_validate_failed": // Groq's 400 for what the model wrote, not for what was asked
			return llm.Unavailable
		case "capacity_exceeded", "overloaded_error", "engine_overloaded":
			return llm.Overload
		}
	}
	switch status {
	case http.StatusGone:
		return llm.NotFound
	case 498:
		return llm.Overload
	case http.StatusConflict, http.StatusFailedDependency, http.StatusTooEarly:
		return llm.Unavailable // the moment was wrong, not the request
	}
	switch {
	case status >= 300: // also a redirect
		return upstream.KindOf(status)
	case said.Code == "rate_limit_exceeded" || said.Type == "rate_limit_error":
		return llm.Quota
	case said.Code == "invalid_api_key":
		return llm.Auth
	case said.Code == "model_not_found":
		return llm.NotFound
	}
	return llm.Unavailable
}

var (
	// "on tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351." (Groq), "on requests per min (RPM): Limit 3, Used 3,
	// Requested 1." (OpenAI).
	limitText = regexp.MustCompile(`on ([a-z_ ]+?) per (min|minute|day)\b[^:]*: Limit:? ([0-9]+)(?:, Used:? ([0-9]+))?(?:, Requested:? ([0-9]+))?`)
	// "Please try again in 5.289s.", "in 2m59.56s.", "in 577.5ms".
	waitText = regexp.MustCompile(`try again in ((?:[0-9]+(?:\.[0-9]+)?(?:ms|µs|us|ns|h|m|s))+)`)
)

// exhausted returns the limits that the headers of a refusal told (known), with those marked that are used up, and when to
// come back: the latest reset of the limits that are used up, zero where nothing tells. The limit that the text names, or else
// the only one of which nothing remains, is the one that wait and the text's own wait are about. Where these two disagree
// the longer is believed: coming too early only earns the next refusal.
func exhausted(flavor Flavor, known []llm.Limit, message string, wait time.Duration, now time.Time) (all []llm.Limit, until time.Time) {
	if m := waitText.FindStringSubmatch(message); m != nil {
		if d, err := time.ParseDuration(m[1]); err == nil {
			wait = max(wait, min(d, upstream.MaxWait))
		}
	}
	empty, last := 0, 0
	for i := range known {
		if known[i].Remaining == llm.Known(0) {
			known[i].Exhausted = true
			empty, last = empty+1, i
		}
	}
	hit, missing := named(message)
	hit.Counts, hit.Refill = counts(flavor), llm.Rolling // of a shape that nobody told, the strictest
	switch i := slices.IndexFunc(known, func(l llm.Limit) bool { return l.Dimension == hit.Dimension }); {
	case i >= 0:
		hit.Reset, hit.Refill = known[i].Reset, known[i].Refill
		known[i] = hit
		last = i
	case hit.Dimension == llm.Overall && empty == 1:
	default:
		known = append(known, hit)
		last = len(known) - 1
	}
	if wait > 0 {
		known[last].Reset = now.Add(wait).UTC()
		if missing > 0 {
			known[last].Refill = refill(hit.Max.Or(0), missing, hit.Dimension, wait, known[last].Refill)
		}
	}
	for _, l := range known {
		if l.Exhausted && l.Reset.After(until) {
			until = l.Reset
		}
	}
	return known, until
}

// named returns the limit that the text of a refusal names, and how much room was missing; Overall where it names none.
func named(message string) (l llm.Limit, missing int64) {
	l = llm.Limit{Dimension: llm.Overall, Exhausted: true}
	m := limitText.FindStringSubmatch(message)
	if m == nil {
		return l, 0
	}
	l.Dimension = dimension(m[1], m[2])
	limit, err := strconv.ParseInt(m[3], 10, 64)
	if err != nil {
		return l, 0
	}
	l.Max = llm.Known(limit)
	used, err := strconv.ParseInt(m[4], 10, 64)
	if err != nil {
		return l, 0
	}
	l.Remaining = llm.Known(max(0, limit-used))
	if requested, err := strconv.ParseInt(m[5], 10, 64); err == nil && l.Dimension != llm.Overall {
		missing = used + requested - limit
	}
	return l, missing
}

// oversized says that the text of a refusal is about a request that asks for more than the whole of a limit: "Request too large
// for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 45000."
func oversized(message string) bool {
	m := limitText.FindStringSubmatch(message)
	if m == nil {
		return false
	}
	limit, err1 := strconv.ParseInt(m[3], 10, 64)
	requested, err2 := strconv.ParseInt(m[5], 10, 64)
	return err1 == nil && err2 == nil && requested > limit
}

func dimension(unit, per string) string {
	if per == "min" {
		per = "minute"
	}
	switch name := strings.ReplaceAll(unit, " ", "_") + "/" + per; name {
	case llm.RequestsPerMinute, llm.RequestsPerDay, llm.TokensPerMinute, llm.TokensPerDay, llm.InputTokensPerMinute, llm.OutputTokensPerMinute:
		return name
	}
	return llm.Overall
}

// plainText makes a sentence of an error body that is not JSON.
func plainText(body []byte) string {
	s := strings.TrimSpace(string(body))
	if s == "" || s[0] == '<' {
		return "" // a proxy's web page says less than the status
	}
	return strings.ToValidUTF8(s[:min(len(s), 300)], "")
}
