package gemini

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // days end at midnight in California, on machines without time zones too

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// A status is a google.rpc.Status in JSON (googleapis/google/rpc/error_details.proto): code repeats the HTTP status.
type status struct {
	Code    int      `json:"code"`
	Message string   `json:"message"`
	Status  string   `json:"status"`
	Details []detail `json:"details"`
}

// A detail is one of many types; the fields of those that tell something here are put together.
type detail struct {
	Type       string      `json:"@type"`
	Reason     string      `json:"reason"`     // ErrorInfo
	Violations []violation `json:"violations"` // QuotaFailure
	RetryDelay string      `json:"retryDelay"` // RetryInfo
}

// A violation is a quota that has run out.
type violation struct {
	Metric     string            `json:"quotaMetric"`
	ID         string            `json:"quotaId"`
	Dimensions map[string]string `json:"quotaDimensions"`
	Value      string            `json:"quotaValue"` // int64s are strings in protocol buffers' JSON
}

// refusal reads a response that is not an answer. now is when it came.
//
// A 429 names the quotas that have run out, and a time to wait that is meaningless for some of them: a daily quota is
// empty until midnight in California, whatever retryDelay says. Until is the latest reset among them.
func refusal(code int, h http.Header, body []byte, now time.Time) *llm.Error {
	e := parseStatus(code, body).refusal(h, now)
	e.Status, e.Header, e.Body = code, h, body
	return e
}

// refusal reads what a status says by itself, and what the headers add.
func (s status) refusal(h http.Header, now time.Time) *llm.Error {
	e := &llm.Error{Kind: kindOf(s)}
	e.Message = s.words(e.Kind)
	wait := retryDelay(s)
	if wait == 0 {
		wait = upstream.RetryAfter(h, now)
	}
	if wait > 0 && !e.Kind.Permanent() {
		e.Until = now.Add(wait).UTC()
	}
	// "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."
	e.TooLong = e.Kind == llm.BadRequest && strings.Contains(s.Message, "input token count") && strings.Contains(s.Message, "exceeds the maximum")
	if e.Kind == llm.Quota {
		e.Limits, e.Until = exhausted(s, e.Until, now)
	}
	return e
}

// parseStatus reads {"error":{...}}, or the array of one such object that streams without alt=sse send. Of anything else
// (a proxy's page) only the HTTP status is known.
func parseStatus(code int, body []byte) status {
	var b struct {
		Error status `json:"error"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		list := []*struct {
			Error *status `json:"error"`
		}{{&b.Error}}
		_ = json.Unmarshal(body, &list) // anything else leaves b empty
	}
	if b.Error.Code == 0 {
		b.Error.Code = code
	}
	return b.Error
}

// kindOf tells the kind of an error (ai.google.dev, "Troubleshooting" and "Rate limits").
func kindOf(s status) llm.Kind {
	switch {
	case s.reason("API_KEY_INVALID"), strings.Contains(s.Message, "API key not valid"), strings.Contains(s.Message, "API key expired"):
		return llm.Auth // under a 400
	case s.Status == "FAILED_PRECONDITION" && s.Code == http.StatusBadRequest:
		return llm.Auth // the free tier is not offered in this country
	case s.Code == http.StatusTooManyRequests && neverAny.MatchString(s.Message):
		return llm.Spend // no amount of waiting helps: the plan has no such quota
	}
	return upstream.KindOf(s.Code)
}

// neverAny finds a quota of zero, which models have that a plan does not include: "Quota exceeded for metric:
// generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: gemini-3.1-pro".
var neverAny = regexp.MustCompile(`limit: 0\b`)

func (s status) reason(want string) bool {
	for _, d := range s.Details {
		if d.Reason == want {
			return true
		}
	}
	return false
}

// words returns the error in words for people, with the cure where a person must act.
func (s status) words(kind llm.Kind) string {
	text := strings.TrimSpace(s.Message)
	if text == "" {
		text = strings.ToLower(strings.ReplaceAll(s.Status, "_", " "))
	}
	if text == "" {
		if text = strings.ToLower(http.StatusText(s.Code)); text == "" {
			text = "no reason given"
		}
	}
	switch {
	case kind == llm.Auth && s.Status == "FAILED_PRECONDITION":
		text += "; enable billing for the key's project in AI Studio"
	case kind == llm.Auth:
		text += "; check the key in AI Studio"
	case kind == llm.Spend && s.Code == http.StatusTooManyRequests:
		text += "; this plan has no quota for the model: enable billing in AI Studio or use another model"
	case kind == llm.Spend:
		text += "; add credit to the key's project in AI Studio"
	}
	return text
}

// retryDelay returns what RetryInfo says, a duration of protocol buffers in JSON ("38s", "38.2s"); zero where it says
// nothing sensible. The message's "Please retry in 38.2s." is the same and stands in for it.
func retryDelay(s status) time.Duration {
	for _, d := range s.Details {
		if wait, err := time.ParseDuration(d.RetryDelay); err == nil && wait > 0 {
			return min(wait, upstream.MaxWait)
		}
	}
	if m := retryIn.FindStringSubmatch(s.Message); m != nil {
		if wait, err := time.ParseDuration(m[1]); err == nil && wait > 0 {
			return min(wait, upstream.MaxWait)
		}
	}
	return 0
}

var retryIn = regexp.MustCompile(`Please retry in ([0-9.]+m?s)`)

// exhausted returns the quotas that a 429 names, and when the last of them has room again: at midnight in California for
// daily ones, else at until, or after one of their windows where the refusal does not tell until.
func exhausted(s status, until, now time.Time) ([]llm.Limit, time.Time) {
	var limits []llm.Limit
	var latest time.Time
	for _, d := range s.Details {
		for _, v := range d.Violations {
			l := v.limit()
			switch {
			case strings.HasSuffix(l.Dimension, "/day"):
				l.Reset = llm.NextPacificDay(now)
			case !until.IsZero():
				l.Reset = until
			case strings.HasSuffix(l.Dimension, "/minute"):
				l.Reset = now.Add(time.Minute).UTC()
			}
			if l.Reset.After(latest) {
				latest = l.Reset
			}
			limits = append(limits, l)
		}
	}
	if limits == nil {
		return []llm.Limit{{Dimension: llm.Overall, Reset: until, Exhausted: true}}, until
	}
	return limits, latest
}

// limit reads which quota was violated. quotaId says over which time ("GenerateRequestsPerDayPerProjectPerModel-FreeTier",
// "GenerateContentInputTokensPerModelPerMinute-FreeTier"), quotaMetric of what (".../generate_content_free_tier_requests",
// ".../generate_content_free_tier_input_token_count").
func (v violation) limit() llm.Limit {
	l := llm.Limit{Dimension: llm.Overall, Remaining: llm.Known(0), Exhausted: true, Model: v.Dimensions["model"]}
	if n, err := strconv.ParseInt(v.Value, 10, 64); err == nil {
		l.Max = llm.Known(n)
	}
	tokens := strings.Contains(v.Metric, "token_count") || strings.Contains(v.ID, "Tokens")
	switch {
	case strings.Contains(v.ID, "PerDay") && tokens:
		l.Dimension, l.Refill = llm.TokensPerDay, llm.PacificDay
	case strings.Contains(v.ID, "PerDay"):
		l.Dimension, l.Refill = llm.RequestsPerDay, llm.PacificDay // "reset at midnight Pacific time" (ai.google.dev, "Rate limits")
	case strings.Contains(v.ID, "PerMinute") && tokens:
		l.Dimension, l.Refill = llm.InputTokensPerMinute, llm.Rolling // only the input counts
	case strings.Contains(v.ID, "PerMinute"):
		l.Dimension, l.Refill = llm.RequestsPerMinute, llm.Rolling
	}
	return l
}
