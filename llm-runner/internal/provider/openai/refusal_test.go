package openai

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// headers makes a Header of names and values.
func headers(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(kv); i += 2 {
		h.Set(kv[i], kv[i+1])
	}
	return h
}

// groqLimit is Groq's documented refusal.
const groqLimit = `{"error":{"message":"Rate limit reached for model ` + "`M`" + ` in organization ` + "`org_x`" + ` service tier ` + "`on_demand`" + ` on tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351. Please try again in 5.289s. Visit https://console.groq.com/docs/rate-limits for more information.","type":"tokens","code":"rate_limit_exceeded"}}`

func TestRefusalsAreTyped(t *testing.T) {
	in := func(d time.Duration) time.Time { return noon.Add(d) }
	for _, tt := range []struct {
		name   string
		flavor Flavor
		status int
		header http.Header
		body   string
		kind   llm.Kind
		until  time.Time
		limits []llm.Limit
		long   bool // another model may take it
	}{
		{name: "Groq's tokens per minute", flavor: Groq, status: 429, body: groqLimit,
			header: headers("retry-after", "6", "x-ratelimit-limit-requests", "14400", "x-ratelimit-remaining-requests", "14370", "x-ratelimit-reset-requests", "2m59.56s",
				"x-ratelimit-limit-tokens", "15000", "x-ratelimit-remaining-tokens", "3028", "x-ratelimit-reset-tokens", "47.888s"),
			kind: llm.Quota, until: in(6 * time.Second), limits: []llm.Limit{
				{Dimension: llm.RequestsPerDay, Max: llm.Known(14400), Remaining: llm.Known(14370), Reset: in(2*time.Minute + 59560*time.Millisecond)},
				{Dimension: llm.TokensPerMinute, Max: llm.Known(15000), Remaining: llm.Known(3028), Reset: in(6 * time.Second), Exhausted: true},
			}},
		{name: "Groq's tokens per day, which no header shows", flavor: Groq, status: 429, header: headers("retry-after", "1"),
			body: `{"error":{"message":"Rate limit reached for model M on tokens per day (TPD): Limit 100000, Used 99000, Requested 4000. Please try again in 43m12s. Need more tokens?","type":"tokens","code":"rate_limit_exceeded"}}`,
			kind: llm.Quota, until: in(43*time.Minute + 12*time.Second), limits: []llm.Limit{
				{Dimension: llm.TokensPerDay, Max: llm.Known(100000), Remaining: llm.Known(1000), Reset: in(43*time.Minute + 12*time.Second), Exhausted: true},
			}},
		{name: "Groq's day is over although the text says nothing", flavor: Groq, status: 429, body: "",
			header: headers("x-ratelimit-limit-requests", "1000", "x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "1h2m", "x-ratelimit-limit-tokens", "6000", "x-ratelimit-remaining-tokens", "5000", "x-ratelimit-reset-tokens", "10s"),
			kind:   llm.Quota, until: in(62 * time.Minute), limits: []llm.Limit{
				{Dimension: llm.RequestsPerDay, Max: llm.Known(1000), Remaining: llm.Known(0), Reset: in(62 * time.Minute), Exhausted: true},
				{Dimension: llm.TokensPerMinute, Max: llm.Known(6000), Remaining: llm.Known(5000), Reset: in(10 * time.Second)},
			}},
		{name: "two limits are used up: the later counts", flavor: Groq, status: 429,
			header: headers("retry-after", "5", "x-ratelimit-limit-requests", "1000", "x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "1h2m", "x-ratelimit-limit-tokens", "6000", "x-ratelimit-remaining-tokens", "0", "x-ratelimit-reset-tokens", "60s"),
			body:   `{"error":{"message":"Rate limit reached on tokens per minute (TPM): Limit 6000, Used 6000, Requested 500. Please try again in 5s."}}`,
			kind:   llm.Quota, until: in(62 * time.Minute), limits: []llm.Limit{
				{Dimension: llm.RequestsPerDay, Max: llm.Known(1000), Remaining: llm.Known(0), Reset: in(62 * time.Minute), Exhausted: true},
				{Dimension: llm.TokensPerMinute, Max: llm.Known(6000), Remaining: llm.Known(0), Reset: in(5 * time.Second), Exhausted: true},
			}},
		{name: "OpenAI's requests per minute", flavor: OpenAI, status: 429, header: headers("retry-after-ms", "20500", "retry-after", "21"),
			body: `{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn more.","type":"requests","param":null,"code":"rate_limit_exceeded"}}`,
			kind: llm.Quota, until: in(20500 * time.Millisecond), limits: []llm.Limit{
				{Dimension: llm.RequestsPerMinute, Max: llm.Known(3), Remaining: llm.Known(0), Reset: in(20500 * time.Millisecond), Exhausted: true},
			}},
		{name: "a wait as a date", status: 429, header: headers("retry-after", "Sun, 22 Nov 2026 12:01:30 GMT"), body: `{"error":{"message":"slow down"}}`,
			kind: llm.Quota, until: in(90 * time.Second), limits: []llm.Limit{{Dimension: llm.Overall, Reset: in(90 * time.Second), Exhausted: true}}},
		{name: "no word of when", status: 429, body: `{"error":{"message":"slow down"}}`, kind: llm.Quota, limits: []llm.Limit{{Dimension: llm.Overall, Exhausted: true}}},
		{name: "a number too large to be a limit", status: 429, body: `{"error":{"message":"on tokens per day (TPD): Limit 99999999999999999999999. Please try again in 99999999999h."}}`,
			kind: llm.Quota, limits: []llm.Limit{{Dimension: llm.TokensPerDay, Exhausted: true}}},
		{name: "OpenAI's money", flavor: OpenAI, status: 429, header: headers("retry-after", "1"), kind: llm.Spend,
			body: `{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`},
		{name: "Groq's money", flavor: Groq, status: 400, body: `{"error":{"message":"spend limit","type":"invalid_request_error","code":"blocked_api_access"}}`, kind: llm.Spend},
		{name: "money", status: 402, body: `{"error":{"message":"Insufficient credits","code":402}}`, kind: llm.Spend},
		{name: "no key", status: 401, body: `{"error":{"message":"Incorrect API key provided: sk-abc***xyz.","code":"invalid_api_key"}}`, kind: llm.Auth},
		{name: "forbidden", status: 403, body: `{"error":{"message":"Country, region, or territory not supported"}}`, kind: llm.Auth},
		{name: "no such model", status: 404, body: `{"error":{"message":"The model does not exist","code":"model_not_found"}}`, kind: llm.NotFound},
		{name: "a bad request", status: 400, body: `{"error":{"message":"messages: too short"}}`, kind: llm.BadRequest},
		{name: "Groq's model wrote a bad call", flavor: Groq, status: 400, body: `{"error":{"message":"Failed to call a function.","code":"tool_use_failed","failed_generation":"<f"}}`, kind: llm.Unavailable},
		{name: "too large", flavor: Groq, status: 413, body: `{"error":{"message":"Request too large on tokens per minute (TPM): Limit 6000, Requested 7000","code":"rate_limit_exceeded"}}`, kind: llm.BadRequest, long: true},
		{name: "OpenAI's too large, under a status that says to come back", flavor: OpenAI, status: 429, header: headers("retry-after", "20"), kind: llm.BadRequest, long: true,
			body: `{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 45000. The input or output tokens must be reduced in order to run successfully.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`},
		{name: "the same with what is used", flavor: OpenAI, status: 429, header: headers("retry-after", "20"), kind: llm.BadRequest, long: true,
			body: `{"error":{"message":"Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 10, Requested 45000. Please try again in 20s.","type":"tokens","code":"rate_limit_exceeded"}}`},
		{name: "FastAPI's complaint", status: 422, body: `{"detail":[{"loc":["body","x"],"msg":"field required"}]}`, kind: llm.BadRequest},
		{name: "Groq's flex tier", flavor: Groq, status: 498, body: `{"error":{"message":"capacity","code":"capacity_exceeded"}}`, kind: llm.Overload},
		{name: "busy, with a wait", status: 503, header: headers("retry-after", "3"), body: `{"error":{"message":"overloaded"}}`, kind: llm.Overload, until: in(3 * time.Second)},
		{name: "overloaded", status: 529, kind: llm.Overload},
		{name: "broken", status: 500, kind: llm.Unavailable},
		{name: "a proxy's page", status: 502, body: "<html>Bad Gateway</html>", kind: llm.Unavailable},
		{name: "too slow", status: 504, body: "upstream timed out", kind: llm.Unavailable},
		{name: "a redirect", status: 307, kind: llm.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := refusal(tt.flavor, tt.status, tt.header, []byte(tt.body), noon)
			if e.Kind != tt.kind || !e.Until.Equal(tt.until) || e.Status != tt.status || e.Started || e.TooLong != tt.long {
				t.Errorf("got kind %s, until %s, status %d, too long %t", e.Kind, e.Until, e.Status, e.TooLong)
			}
			if !reflect.DeepEqual(told(e.Limits), tt.limits) {
				t.Errorf("limits\ngot  %+v\nwant %+v", e.Limits, tt.limits)
			}
			if e.Message == "" || e.Message[0] == '<' {
				t.Errorf("message %q", e.Message)
			}
		})
	}
}

func TestLimitsAreReadByFlavor(t *testing.T) {
	h := headers("x-ratelimit-limit-requests", "60", "x-ratelimit-remaining-requests", "59", "x-ratelimit-reset-requests", "1s",
		"x-ratelimit-limit-tokens", "150000", "x-ratelimit-remaining-tokens", "149984", "x-ratelimit-reset-tokens", "6m0s")
	openAI := []llm.Limit{
		{Dimension: llm.RequestsPerMinute, Max: llm.Known(60), Remaining: llm.Known(59), Reset: noon.Add(time.Second)},
		{Dimension: llm.TokensPerMinute, Max: llm.Known(150000), Remaining: llm.Known(149984), Reset: noon.Add(6 * time.Minute)},
	}
	groq := []llm.Limit{openAI[0], openAI[1]}
	groq[0].Dimension = llm.RequestsPerDay
	region := h.Clone()
	region.Set("x-groq-region", "us-west-1")
	for _, tt := range []struct {
		name   string
		flavor Flavor
		header http.Header
		want   []llm.Limit
	}{
		{"OpenAI", OpenAI, h, openAI},
		{"unknown", Generic, h, openAI},
		{"Groq", Groq, h, groq},
		{"Groq behind a proxy", Generic, region, groq},
		{"milliseconds", Groq, headers("x-ratelimit-remaining-tokens", "5", "x-ratelimit-reset-tokens", "577.5ms"),
			[]llm.Limit{{Dimension: llm.TokensPerMinute, Remaining: llm.Known(5), Reset: noon.Add(577500 * time.Microsecond)}}},
		{"Cerebras", Generic, headers("x-ratelimit-limit-requests-day", "14400", "x-ratelimit-remaining-requests-day", "14399", "x-ratelimit-reset-requests-day", "33011.5"),
			[]llm.Limit{{Dimension: llm.RequestsPerDay, Max: llm.Known(14400), Remaining: llm.Known(14399), Reset: noon.Add(33011500 * time.Millisecond)}}},
		{"nonsense", OpenAI, headers("x-ratelimit-limit-requests", "many", "x-ratelimit-remaining-tokens", "-1", "x-ratelimit-reset-tokens", "soon"), nil},
		{"none", OpenAI, nil, nil},
	} {
		if got := told(limits(tt.flavor, tt.header, noon)); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

func TestTheFlavorIsKnownByTheHost(t *testing.T) {
	for _, tt := range []struct {
		config Config
		want   Flavor
	}{
		{Config{}, OpenAI},
		{Config{URL: "https://api.groq.com/openai/v1"}, Groq},
		{Config{URL: "http://127.0.0.1:8080/v1"}, Generic},
		{Config{URL: "http://127.0.0.1:8080/v1", Flavor: Groq}, Groq},
		{Config{URL: "https://api.groq.com.example.org/v1"}, Generic},
	} {
		if got := tt.config.flavor(); got != tt.want {
			t.Errorf("%+v: %s", tt.config, got)
		}
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add(429, groqLimit, "6", "1h2m")
	f.Fuzz(func(t *testing.T, status int, body, retryAfter, reset string) {
		h := http.Header{"Retry-After": {retryAfter}, "X-Ratelimit-Reset-Requests": {reset}, "X-Ratelimit-Remaining-Requests": {"0"}}
		e := refusal(Groq, status, h, []byte(body), noon)
		if e.Kind == llm.Quota && !e.Until.IsZero() && (e.Until.Before(noon) || e.Until.After(noon.AddDate(5, 0, 0))) {
			t.Fatalf("come back at %s", e.Until)
		}
	})
}

// told leaves out what is inferred; TestHowRoomComesBackIsReadFromTheNumbers looks at that.
func told(limits []llm.Limit) []llm.Limit {
	for i := range limits {
		limits[i].Refill, limits[i].Counts = 0, 0
	}
	return limits
}

func TestHowRoomComesBackIsReadFromTheNumbers(t *testing.T) {
	header := func(kind, most, left, reset string) http.Header {
		return headers("x-ratelimit-limit-"+kind, most, "x-ratelimit-remaining-"+kind, left, "x-ratelimit-reset-"+kind, reset)
	}
	for _, tt := range []struct {
		name string
		got  []llm.Limit
		want llm.Refill
	}{
		{"Groq's example: 30 of 14400 a day", limits(Groq, header("requests", "14400", "14370", "2m59.56s"), noon), llm.Continuous},
		{"a second of a minute", limits(OpenAI, header("requests", "60", "59", "1s"), noon), llm.Continuous},
		{"half a day's requests back in an hour", limits(Groq, header("requests", "14400", "7200", "1h"), noon), llm.Window},
		{"a minute's window", limits(Generic, header("tokens", "6000", "0", "31s"), noon), llm.Window},
		{"a minute's tokens, filling", limits(Generic, header("tokens", "6000", "0", "59.9s"), noon), llm.Continuous},
		{"a public report of Groq's refusal", refusal(Groq, 429, nil, []byte(`{"error":{"message":"Rate limit reached on tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351. Please try again in 5.289s."}}`), noon).Limits, llm.Continuous},
		{"a refusal of another shape", refusal(Groq, 429, nil, []byte(`{"error":{"message":"Rate limit reached on requests per minute (RPM): Limit 30, Used 30, Requested 1. Please try again in 41s."}}`), noon).Limits, llm.Rolling},
	} {
		if len(tt.got) != 1 || tt.got[0].Refill != tt.want || tt.got[0].Counts&llm.TakesMax == 0 {
			t.Errorf("%s: %+v", tt.name, tt.got)
		}
	}
}
