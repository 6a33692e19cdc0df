package anthropic

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func header(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(kv); i += 2 {
		h.Set(kv[i], kv[i+1])
	}
	return h
}

// Bodies and headers are those of platform.claude.com/docs/en/api/errors and /rate-limits, and of public reports of them.
func TestRefusal(t *testing.T) {
	body := func(kind, message string) string {
		return `{"type":"error","error":{"type":"` + kind + `","message":"` + message + `"},"request_id":"req_011CSHoEeqs5C35K2UUqR7Fy"}`
	}
	for _, tt := range []struct {
		name   string
		status int
		header http.Header
		body   string
		kind   llm.Kind
		until  time.Duration // from now; 0 not told
		says   string
	}{
		{"rate limit", 429, header("retry-after", "12"), body("rate_limit_error", "This request would exceed your organization's rate limit of 50,000 input tokens per minute."), llm.Quota, 12 * time.Second, "50,000 input tokens"},
		{"rate limit without a hint", 429, nil, body("rate_limit_error", "Number of requests has increased too rapidly."), llm.Quota, 0, "too rapidly"},
		{"rate limit without a hint, but with headers", 429, header("anthropic-ratelimit-requests-remaining", "0", "anthropic-ratelimit-requests-reset", "2026-11-22T10:00:40Z"), body("rate_limit_error", "no"), llm.Quota, 40 * time.Second, "no"},
		{"spend cap of the tier", 429, nil, `{"type":"error","error":{"type":"rate_limit_error","message":"Monthly cap reached.","details":{"error_code":"enforced_spend_limit_reached"}}}`, llm.Spend, 0, "Monthly cap reached.; raise the limit"},
		{"own spend limit", 400, nil, body("invalid_request_error", "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."), llm.Spend, 0, "regain access"},
		{"own spend limit of a workspace", 400, nil, body("invalid_request_error", "You have reached your specified workspace API usage limits."), llm.Spend, 0, "billing page"},
		{"pace of a workspace", 429, header("retry-after", "60"), body("rate_limit_error", "You have reached your specified workspace API usage limits."), llm.Quota, time.Minute, "workspace"},
		{"no credit", 400, nil, body("invalid_request_error", "Your credit balance is too low to access the Anthropic API."), llm.Spend, 0, "credit balance"},
		{"billing", 402, nil, body("billing_error", "There is an issue with your billing."), llm.Spend, 0, "billing"},
		{"bad request", 400, nil, body("invalid_request_error", "max_tokens: Field required"), llm.BadRequest, 0, "max_tokens: Field required"},
		{"wrong key", 401, nil, body("authentication_error", "invalid x-api-key"), llm.Auth, 0, "check the key"},
		{"not allowed", 403, nil, body("permission_error", "no"), llm.Auth, 0, "check the key"},
		{"no model", 404, nil, body("not_found_error", "model: claude-9"), llm.NotFound, 0, "model: claude-9"},
		{"too large", 413, nil, body("request_too_large", "Request exceeds the maximum size"), llm.BadRequest, 0, "maximum size"},
		{"a lock", 409, header("x-should-retry", "true"), body("invalid_request_error", "conflict"), llm.Unavailable, 0, "conflict"},
		{"internal", 500, nil, body("api_error", "Internal server error"), llm.Unavailable, 0, "Internal"},
		{"timeout", 504, nil, body("timeout_error", "Request timed out"), llm.Unavailable, 0, "timed out"},
		{"overloaded", 529, header("retry-after", "3"), body("overloaded_error", "Overloaded"), llm.Overload, 3 * time.Second, "Overloaded"},
		{"unavailable", 503, nil, body("api_error", "upstream connect error"), llm.Overload, 0, "upstream connect error"},
		{"a proxy's page", 502, nil, "<html>Bad Gateway</html>", llm.Unavailable, 0, "bad gateway"},
		{"a proxy's refusal", 403, nil, "", llm.Auth, 0, "forbidden"},
		{"a status that nobody knows", 599, nil, "", llm.Unavailable, 0, "no reason given"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.header == nil {
				tt.header = http.Header{}
			}
			e := refusal(tt.status, tt.header, []byte(tt.body), now)
			want := time.Time{}
			if tt.until > 0 {
				want = now.Add(tt.until)
			}
			if e.Kind != tt.kind || !e.Until.Equal(want) || !strings.Contains(e.Message, tt.says) {
				t.Errorf("got %s until %s: %s", e.Kind, e.Until, e.Message)
			}
			if e.Status != tt.status || string(e.Body) != tt.body || e.Header == nil {
				t.Errorf("status, header or body is lost: %+v", e)
			}
			if (e.Kind == llm.Quota) != (len(e.Limits) > 0) {
				t.Errorf("limits %+v", e.Limits)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	h := header(
		"anthropic-ratelimit-requests-limit", "1000", "anthropic-ratelimit-requests-remaining", "999", "anthropic-ratelimit-requests-reset", "2026-11-22T10:00:01Z",
		"anthropic-ratelimit-tokens-limit", "400000", "anthropic-ratelimit-tokens-remaining", "120000", "anthropic-ratelimit-tokens-reset", "2026-11-22T10:00:42Z",
		"anthropic-ratelimit-input-tokens-limit", "2000000", "anthropic-ratelimit-input-tokens-remaining", "1987000", "anthropic-ratelimit-input-tokens-reset", "2026-11-22T11:00:01+01:00",
		"anthropic-ratelimit-output-tokens-limit", "400000", "anthropic-ratelimit-output-tokens-remaining", "120000", "anthropic-ratelimit-output-tokens-reset", "soon",
		"anthropic-priority-input-tokens-limit", "10",
	)
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	want := []llm.Limit{
		{Dimension: llm.RequestsPerMinute, Max: llm.Known(1000), Remaining: llm.Known(999), Reset: at(1)},
		{Dimension: llm.TokensPerMinute, Max: llm.Known(400000), Remaining: llm.Known(120000), Reset: at(42)},
		{Dimension: llm.InputTokensPerMinute, Max: llm.Known(2000000), Remaining: llm.Known(1987000), Reset: at(1)},
		{Dimension: llm.OutputTokensPerMinute, Max: llm.Known(400000), Remaining: llm.Known(120000)},
	}
	for i := range want { // "continuously replenished"; cache reads do not count; tokens-* repeats the tightest
		want[i].Refill, want[i].Counts = llm.Continuous, llm.SkipsCached
	}
	want[1].Counts = llm.Repeats
	if got := Limits(h); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := Limits(http.Header{}); got != nil {
		t.Errorf("no headers tell %+v", got)
	}
	if got := Limits(header("anthropic-ratelimit-requests-limit", "many")); got != nil {
		t.Errorf("rubbish tells %+v", got)
	}
}

func TestExhaustedLimits(t *testing.T) {
	limits := func() []llm.Limit {
		return []llm.Limit{
			{Dimension: llm.RequestsPerMinute, Max: llm.Known(50), Remaining: llm.Known(0), Reset: now.Add(time.Second)},
			{Dimension: llm.InputTokensPerMinute, Max: llm.Known(50000), Remaining: llm.Known(2000), Reset: now.Add(58 * time.Second)},
			{Dimension: llm.OutputTokensPerMinute, Max: llm.Known(8000), Remaining: llm.Known(8000), Reset: now},
		}
	}
	message := "This request would exceed your organization's rate limit of 50,000 input tokens per minute (org: x)."

	got, until := exhausted(limits(), message, now.Add(7*time.Second))
	if !until.Equal(now.Add(7 * time.Second)) {
		t.Errorf("until %s", until)
	}
	for i, want := range []bool{true, true, false} {
		if got[i].Exhausted != want || want && !got[i].Reset.Equal(until) {
			t.Errorf("%+v", got[i])
		}
	}
	if _, until = exhausted(limits(), message, time.Time{}); !until.Equal(now.Add(58 * time.Second)) {
		t.Errorf("not told, until %s, want the latest reset of an exhausted limit", until)
	}
	if got, _ = exhausted(nil, message, time.Time{}); len(got) != 1 || got[0].Dimension != llm.InputTokensPerMinute || got[0].Max != llm.Known(50000) || !got[0].Exhausted {
		t.Errorf("from the message alone: %+v", got)
	}
	if got, _ = exhausted(nil, "no", now.Add(time.Hour)); len(got) != 1 || got[0].Dimension != llm.Overall || !got[0].Reset.Equal(now.Add(time.Hour)) {
		t.Errorf("from nothing: %+v", got)
	}
}
