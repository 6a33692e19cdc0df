package gemini

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC) // two in the morning in California

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

// quota renders a 429 as the API does.
func quota(message, retry string, violations ...string) string {
	details := `{"@type":"type.googleapis.com/google.rpc.Help","links":[{"description":"Learn more about Gemini API quotas","url":"https://ai.google.dev/gemini-api/docs/rate-limits"}]}`
	if len(violations) > 0 {
		details += `,{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[` + strings.Join(violations, ",") + `]}`
	}
	if retry != "" {
		details += `,{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"` + retry + `"}`
	}
	return `{"error":{"code":429,"message":"` + message + `","status":"RESOURCE_EXHAUSTED","details":[` + details + `]}}`
}

const (
	perDay    = `{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaDimensions":{"location":"global","model":"gemini-2.5-flash"},"quotaValue":"20"}`
	perMinute = `{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier","quotaDimensions":{"model":"gemini-2.5-flash","location":"global"},"quotaValue":"10"}`
	tokens    = `{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_input_token_count","quotaId":"GenerateContentInputTokensPerModelPerMinute-FreeTier","quotaDimensions":{"model":"gemini-2.5-flash"},"quotaValue":"250000"}`
	other     = `{"quotaMetric":"generativelanguage.googleapis.com/spend","quotaId":"SpendPerTenMinutes"}`
)

func TestQuotas(t *testing.T) {
	said := "You exceeded your current quota, please check your plan and billing details."
	for _, tt := range []struct {
		name   string
		now    time.Time
		header http.Header
		body   string
		until  time.Time
		limits []llm.Limit
	}{
		{"a minute of requests", now, nil, quota(said, "38.2s", perMinute), now.Add(38200 * time.Millisecond),
			[]llm.Limit{{Dimension: llm.RequestsPerMinute, Max: llm.Known(10), Reset: now.Add(38200 * time.Millisecond)}}},
		{"a minute of tokens", now, nil, quota(said, "7s", tokens), now.Add(7 * time.Second),
			[]llm.Limit{{Dimension: llm.InputTokensPerMinute, Max: llm.Known(250000), Reset: now.Add(7 * time.Second)}}},
		{"a minute, and no hint", now, nil, quota(said, "", perMinute), now.Add(time.Minute),
			[]llm.Limit{{Dimension: llm.RequestsPerMinute, Max: llm.Known(10), Reset: now.Add(time.Minute)}}},
		{"a day, whatever the hint says", now, nil, quota(said, "38s", perDay), at("2026-11-23T08:00:00Z"),
			[]llm.Limit{{Dimension: llm.RequestsPerDay, Max: llm.Known(20), Reset: at("2026-11-23T08:00:00Z")}}},
		{"a day in summer", at("2026-07-01T06:59:59Z"), nil, quota(said, "38s", perDay), at("2026-07-01T07:00:00Z"),
			[]llm.Limit{{Dimension: llm.RequestsPerDay, Max: llm.Known(20), Reset: at("2026-07-01T07:00:00Z")}}},
		{"both: the later one counts", now, nil, quota(said, "38s", perDay, perMinute), at("2026-11-23T08:00:00Z"),
			[]llm.Limit{{Dimension: llm.RequestsPerDay, Max: llm.Known(20), Reset: at("2026-11-23T08:00:00Z")}, {Dimension: llm.RequestsPerMinute, Max: llm.Known(10), Reset: now.Add(38 * time.Second)}}},
		{"another quota", now, nil, quota(said, "3600s", other), now.Add(time.Hour), []llm.Limit{{Dimension: llm.Overall, Reset: now.Add(time.Hour)}}},
		{"the hint in the words alone", now, nil, `{"error":{"code":429,"message":"Quota exceeded.\nPlease retry in 12.5s.","status":"RESOURCE_EXHAUSTED"}}`, now.Add(12500 * time.Millisecond),
			[]llm.Limit{{Dimension: llm.Overall, Reset: now.Add(12500 * time.Millisecond)}}},
		{"the hint in a header alone", now, http.Header{"Retry-After": {"5"}}, quota("Resource has been exhausted (e.g. check quota).", ""), now.Add(5 * time.Second),
			[]llm.Limit{{Dimension: llm.Overall, Reset: now.Add(5 * time.Second)}}},
		{"no hint", now, nil, quota("Resource has been exhausted (e.g. check quota).", ""), time.Time{}, []llm.Limit{{Dimension: llm.Overall}}},
		{"as an array", now, nil, "[" + quota(said, "2s", perMinute) + "]", now.Add(2 * time.Second), []llm.Limit{{Dimension: llm.RequestsPerMinute, Max: llm.Known(10), Reset: now.Add(2 * time.Second)}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := refusal(429, tt.header, []byte(tt.body), tt.now)
			if e.Kind != llm.Quota || !e.Until.Equal(tt.until) || len(e.Limits) != len(tt.limits) {
				t.Fatalf("got %s until %s with %+v", e.Kind, e.Until, e.Limits)
			}
			for i, want := range tt.limits {
				got := e.Limits[i]
				if got.Dimension != want.Dimension || got.Max != want.Max || !got.Reset.Equal(want.Reset) || !got.Exhausted {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
		})
	}
	if e := refusal(429, nil, []byte(quota(said, "2s", perMinute)), now); e.Limits[0].Model != "gemini-2.5-flash" {
		t.Errorf("the limit's model is %q", e.Limits[0].Model)
	}
}

func TestNextDay(t *testing.T) {
	for in, want := range map[string]string{
		"2026-11-22T10:00:00Z": "2026-11-23T08:00:00Z", // winter: UTC-8
		"2026-11-22T07:59:59Z": "2026-11-22T08:00:00Z",
		"2026-11-22T08:00:00Z": "2026-11-23T08:00:00Z",
		"2026-07-01T12:00:00Z": "2026-07-02T07:00:00Z", // summer: UTC-7
		"2026-03-08T09:00:00Z": "2026-03-09T07:00:00Z", // the clock goes forward: a day of 23 hours
		"2026-11-01T08:00:00Z": "2026-11-02T08:00:00Z", // and back: 25 hours
		"2026-12-31T20:00:00Z": "2027-01-01T08:00:00Z",
	} {
		if got := llm.NextPacificDay(at(in)); !got.Equal(at(want)) {
			t.Errorf("after %s comes %s, want %s", in, got, want)
		}
	}
}

// Bodies are those of ai.google.dev/gemini-api/docs/troubleshooting and of public reports.
func TestRefusal(t *testing.T) {
	body := func(message, status, details string) string {
		return `{"error":{"message":"` + message + `","status":"` + status + `","details":[` + details + `]}}`
	}
	const reason = `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}`
	for _, tt := range []struct {
		name   string
		status int
		body   string
		kind   llm.Kind
		says   string
	}{
		{"wrong key", 400, body("API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", reason), llm.Auth, "check the key"},
		{"expired key", 400, body("API key expired. Please renew the API key.", "INVALID_ARGUMENT", ""), llm.Auth, "check the key"},
		{"country", 400, body("User location is not supported for the API use.", "FAILED_PRECONDITION", ""), llm.Auth, "enable billing"},
		{"leaked key", 403, body("Your API key was reported as leaked. Please use another API key.", "PERMISSION_DENIED", ""), llm.Auth, "leaked"},
		{"unauthenticated", 401, body("Request had invalid authentication credentials.", "UNAUTHENTICATED", ""), llm.Auth, "invalid"},
		{"bad request", 400, body("Please use a valid role: user, model.", "INVALID_ARGUMENT", ""), llm.BadRequest, "valid role"},
		{"no credit", 402, body("Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED", ""), llm.Spend, "add credit"},
		{"a model that the plan leaves out", 429, quota(`Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: gemini-3.1-pro\nPlease retry in 38s.`, "38s", `{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}`), llm.Spend, "enable billing"},
		{"no model", 404, body("models/x is not found for API version v1beta", "NOT_FOUND", ""), llm.NotFound, "models/x"},
		{"internal", 500, body("An internal error has occurred.", "INTERNAL", ""), llm.Unavailable, "internal"},
		{"overloaded", 503, body("The model is overloaded. Please try again later.", "UNAVAILABLE", ""), llm.Overload, "overloaded"},
		{"too long", 504, body("Deadline expired before operation could complete.", "DEADLINE_EXCEEDED", ""), llm.Unavailable, "Deadline"},
		{"cancelled there", 499, body("The operation was cancelled.", "CANCELLED", ""), llm.Unavailable, "cancelled"},
		{"too large", 413, "<html>413</html>", llm.BadRequest, "too large"},
		{"a proxy's page", 502, "<html>502</html>", llm.Unavailable, "bad gateway"},
		{"a status without words", 409, body("", "ABORTED", ""), llm.BadRequest, "aborted"},
		{"nothing", 599, "", llm.Unavailable, "no reason given"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := refusal(tt.status, http.Header{}, []byte(tt.body), now)
			if e.Kind != tt.kind || !strings.Contains(e.Message, tt.says) || e.Status != tt.status || string(e.Body) != tt.body {
				t.Errorf("got %+v", e)
			}
			if e.Kind.Permanent() && !e.Until.IsZero() {
				t.Errorf("come back at %s, although waiting does not help", e.Until)
			}
		})
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add(429, []byte(quota("said", "38s", perDay, perMinute)))
	f.Add(400, []byte(`[{"error":{"code":400}}]`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := refusal(status, http.Header{}, body, now)
		if e.Kind == "" || e.Message == "" {
			t.Fatalf("got %+v", e)
		}
	})
}
