package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
)

// A bounce is a refusal as a provider sends it, and what becomes of it.
type bounce struct {
	name, kind string
	status     int
	headers    []string
	body       string
	at         time.Duration // since the beginning of the year 2000 in UTC, when it comes

	client  string        // status and code
	after   time.Duration // until the same can be asked again; 0: not told
	closed  string        // the limits that are closed until then
	replace bool          // whether a fallback that is named answers
}

// slack is how much later than told the book opens a limit at most.
const slack = time.Millisecond

const (
	// On 2 April 2000 clocks in California went forward, so that day had 23 hours; this is its 7 o'clock in the morning.
	summerTime = (31+29+31+1)*24*time.Hour + 14*time.Hour
	groqQuota  = `{"error":{"message":"Rate limit reached for model ` + "`m`" + ` in organization ` + "`org_1`" + ` service tier ` + "`on_demand`" + ` on %s. Please try again in %s. Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing","type":"%s","code":"rate_limit_exceeded"}}`
	openAIDay  = `{"error":{"message":"Rate limit reached for m in organization org-1 on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s. Visit https://platform.openai.com/account/rate-limits to learn more.","type":"requests","param":null,"code":"rate_limit_exceeded"}}`
)

func geminiRefusal(code int, status, message, details string) string {
	return fmt.Sprintf(`{"error":{"code":%d,"message":%q,"status":%q%s}}`, code, message, status, details)
}

// geminiQuota is a 429 of Gemini's with violations of quotas (id, metric, value) and a RetryInfo.
func geminiQuota(delay string, violations ...[3]string) string {
	var list []string
	for _, v := range violations {
		list = append(list, fmt.Sprintf(`{"quotaMetric":"generativelanguage.googleapis.com/%s","quotaId":%q,"quotaDimensions":{"location":"global","model":"m"},"quotaValue":%q}`, v[1], v[0], v[2]))
	}
	return geminiRefusal(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details.", fmt.Sprintf(
		`,"details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[%s]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":%q}]`, strings.Join(list, ","), delay))
}

func anthropicRefusal(kind, message, details string) string {
	return fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q%s},"request_id":"req_011CSHoEeqs5C35K2UUqR7Fy"}`, kind, message, details)
}

var (
	geminiDay    = [3]string{"GenerateRequestsPerDayPerProjectPerModel-FreeTier", "generate_content_free_tier_requests", "20"}
	geminiMinute = [3]string{"GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "generate_content_free_tier_requests", "10"}
	geminiTokens = [3]string{"GenerateContentInputTokensPerModelPerMinute-FreeTier", "generate_content_free_tier_input_token_count", "250000"}
)

// Bodies are those of the providers' documentation and of public reports of them: Groq's in one that quotes its answer, Gemini's in the tests of several clients,
// Anthropic's on platform.claude.com ("Errors", "Rate limits"), Ollama's in its source (server/sched.go, server/routes.go).
var bounces = []bounce{
	{name: "tokens of a minute", kind: "groq", status: 429, headers: []string{"retry-after", "6", "x-ratelimit-limit-requests", "14400", "x-ratelimit-remaining-requests", "14370", "x-ratelimit-reset-requests", "2m59.56s",
		"x-ratelimit-limit-tokens", "15000", "x-ratelimit-remaining-tokens", "3028", "x-ratelimit-reset-tokens", "47.888s"},
		body: fmt.Sprintf(groqQuota, "tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351", "5.289s", "tokens"), client: "429 rate_limit_exceeded", after: 6 * time.Second, closed: "tokens/minute", replace: true},
	{name: "requests of a minute, which no header shows", kind: "groq", status: 429, headers: []string{"retry-after", "2"},
		body: fmt.Sprintf(groqQuota, "requests per minute (RPM): Limit 30, Used 30, Requested 1", "2s", "requests"), client: "429 rate_limit_exceeded", after: 2 * time.Second, closed: "requests/minute", replace: true},
	{name: "requests of a day", kind: "groq", status: 429, headers: []string{"retry-after", "87", "x-ratelimit-limit-requests", "1000", "x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "1m26.4s"},
		body: fmt.Sprintf(groqQuota, "requests per day (RPD): Limit 1000, Used 1000, Requested 1", "1m26.4s", "requests"), client: "429 rate_limit_exceeded", after: 87 * time.Second, closed: "requests/day", replace: true},
	{name: "tokens of a day, which no header shows, told as a duration", kind: "groq", status: 429,
		body: fmt.Sprintf(groqQuota, "tokens per day (TPD): Limit 100000, Used 99000, Requested 4000", "43m12.5s", "tokens"), client: "429 rate_limit_exceeded", after: 43*time.Minute + 12500*time.Millisecond, closed: "tokens/day", replace: true},
	{name: "requests of a day, told in headers alone", kind: "groq", status: 429, headers: []string{"x-ratelimit-limit-requests", "1000", "x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "2m59.56s"},
		body: `{"error":{"message":"Too many requests","type":"requests","code":"rate_limit_exceeded"}}`, client: "429 rate_limit_exceeded", after: 179560 * time.Millisecond, closed: "requests/day", replace: true},
	{name: "more than a minute's tokens at once", kind: "groq", status: 413,
		body:   `{"error":{"message":"Request too large for model m in organization org_1 service tier on_demand on tokens per minute (TPM): Limit 6000, Requested 7041, please reduce your message size and try again.","type":"tokens","code":"rate_limit_exceeded"}}`,
		client: "413 rate_limit_exceeded", replace: true},
	{name: "blocked at a spend limit", kind: "groq", status: 400, body: `{"error":{"message":"API access is blocked because your organization has reached its spend limit.","type":"invalid_request_error","code":"blocked_api_access"}}`, client: "402 upstream_spend"},
	{name: "a tool call that the model wrote wrongly", kind: "groq", status: 400, body: `{"error":{"message":"Failed to call a function. Please adjust your prompt.","type":"invalid_request_error","code":"tool_use_failed","failed_generation":"<x>"}}`, client: "502 upstream_broken", replace: true},
	{name: "semantically wrong", kind: "groq", status: 422, body: `{"error":{"message":"unprocessable","type":"invalid_request_error","code":"unprocessable_entity"}}`, client: "422 unprocessable_entity"},
	{name: "a dependency failed", kind: "groq", status: 424, body: `{"error":{"message":"failed dependency","type":"internal_server_error","code":"failed_dependency"}}`, client: "502 upstream_broken", replace: true},
	{name: "flex tier full", kind: "groq", status: 498, body: `{"error":{"message":"Flex tier capacity exceeded. Please try again later.","type":"capacity_exceeded","code":"capacity_exceeded"}}`, client: "503 overloaded", after: 2 * time.Second, replace: true},
	{name: "longer than the context", kind: "groq", status: 400, body: `{"error":{"message":"Please reduce the length of the messages or completion.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, client: "400 context_length_exceeded", replace: true},

	{name: "requests of a minute", kind: "openai", status: 429, headers: []string{"retry-after", "20"},
		body:   `{"error":{"message":"Rate limit reached for m in organization org-1 on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn more.","type":"requests","param":null,"code":"rate_limit_exceeded"}}`,
		client: "429 rate_limit_exceeded", after: 20 * time.Second, closed: "requests/minute", replace: true},
	{name: "requests of a day, with a header that says less", kind: "openai", status: 429, headers: []string{"retry-after", "1"}, body: openAIDay, client: "429 rate_limit_exceeded", after: 432 * time.Second, closed: "requests/day", replace: true},
	{name: "more than a minute's tokens at once", kind: "openai", status: 429, headers: []string{"retry-after", "20"},
		body:   `{"error":{"message":"Request too large for m in organization org-1 on tokens per min (TPM): Limit 30000, Requested 45000. The input or output tokens must be reduced in order to run successfully. Visit https://platform.openai.com/account/rate-limits to learn more.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`,
		client: "400 invalid_request", replace: true},
	{name: "the money is gone", kind: "openai", status: 429, body: `{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`, client: "402 upstream_spend"},
	{name: "wrong key", kind: "openai", status: 401, body: `{"error":{"message":"Incorrect API key provided: sk-secre*****-key.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, client: "502 upstream_auth"},
	{name: "longer than the context", kind: "openai", status: 400, body: `{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9631 tokens. Please reduce the length of the messages.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, client: "400 context_length_exceeded", replace: true},
	{name: "longer than the context of a llama.cpp server", kind: "openai", status: 400, body: `{"error":{"code":400,"message":"request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":4390,"n_ctx":4096}}`, client: "400 400", replace: true},
	{name: "against a content policy", kind: "openai", status: 400, body: `{"error":{"message":"Your request was rejected as a result of our safety system.","type":"invalid_request_error","param":null,"code":"content_policy_violation"}}`, client: "400 content_policy_violation"},

	{name: "requests of a day, with a RetryInfo of 38 s", kind: "gemini", status: 429, body: geminiQuota("38s", geminiDay), client: "429 rate_limit_exceeded", after: 8*time.Hour + 2*time.Second, closed: "requests/day", replace: true},
	{name: "the same on the day on which summer time begins", kind: "gemini", status: 429, at: summerTime, body: geminiQuota("38s", geminiDay), client: "429 rate_limit_exceeded", after: 17*time.Hour + 2*time.Second, closed: "requests/day", replace: true},
	{name: "requests of a minute", kind: "gemini", status: 429, body: geminiQuota("38.2s", geminiMinute), client: "429 rate_limit_exceeded", after: 38200 * time.Millisecond, closed: "requests/minute", replace: true},
	{name: "input tokens of a minute", kind: "gemini", status: 429, body: geminiQuota("12s", geminiTokens), client: "429 rate_limit_exceeded", after: 12 * time.Second, closed: "input_tokens/minute", replace: true},
	{name: "requests of a minute and of the day: the later one counts", kind: "gemini", status: 429, body: geminiQuota("38s", geminiMinute, geminiDay), client: "429 rate_limit_exceeded", after: 8*time.Hour + 2*time.Second, closed: "requests/day requests/minute", replace: true},
	{name: "a quota of zero: the plan does not have the model", kind: "gemini", status: 429, body: geminiRefusal(429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: m", ""), client: "402 upstream_spend"},
	{name: "prepaid credit is gone", kind: "gemini", status: 402, body: geminiRefusal(402, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", ""), client: "402 upstream_spend"},
	{name: "no free tier in this country", kind: "gemini", status: 400, body: geminiRefusal(400, "FAILED_PRECONDITION", "User location is not supported for the API use.", ""), client: "502 upstream_auth"},
	{name: "wrong key, under a 400", kind: "gemini", status: 400, body: geminiRefusal(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", `,"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]`), client: "502 upstream_auth"},
	{name: "overloaded", kind: "gemini", status: 503, body: geminiRefusal(503, "UNAVAILABLE", "The model is overloaded. Please try again later.", ""), client: "503 overloaded", after: 2 * time.Second, replace: true},
	{name: "took too long", kind: "gemini", status: 504, body: geminiRefusal(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.", ""), client: "502 upstream_broken", replace: true},
	{name: "an error as the first event of a stream", kind: "gemini", status: 200, headers: []string{"Content-Type", "text/event-stream"}, body: "data: " + geminiQuota("9s", geminiMinute) + "\r\n\r\n", client: "429 rate_limit_exceeded", after: 9 * time.Second, closed: "requests/minute", replace: true},
	{name: "longer than the context", kind: "gemini", status: 400, body: geminiRefusal(400, "INVALID_ARGUMENT", "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).", ""), client: "400 invalid_request", replace: true},

	{name: "rate limit: input tokens", kind: "anthropic", status: 429, headers: []string{"retry-after", "12", "anthropic-ratelimit-input-tokens-limit", "50000", "anthropic-ratelimit-input-tokens-remaining", "0", "anthropic-ratelimit-input-tokens-reset", "2000-01-01T00:00:40Z",
		"anthropic-ratelimit-requests-limit", "50", "anthropic-ratelimit-requests-remaining", "49", "anthropic-ratelimit-requests-reset", "2000-01-01T00:00:02Z"},
		body:   anthropicRefusal("rate_limit_error", "This request would exceed your organization's rate limit of 50,000 input tokens per minute.", ""),
		client: "429 rate_limit_exceeded", after: 12 * time.Second, closed: "input_tokens/minute", replace: true},
	{name: "rate limit: requests, without retry-after", kind: "anthropic", status: 429, headers: []string{"anthropic-ratelimit-requests-limit", "50", "anthropic-ratelimit-requests-remaining", "0", "anthropic-ratelimit-requests-reset", "2000-01-01T00:00:40Z"},
		body: anthropicRefusal("rate_limit_error", "This request would exceed your organization's rate limit of 50 requests per minute.", ""), client: "429 rate_limit_exceeded", after: 40 * time.Second, closed: "requests/minute", replace: true},
	{name: "acceleration limit", kind: "anthropic", status: 429, body: anthropicRefusal("rate_limit_error", "Number of requests has increased too rapidly. Please scale up gradually to avoid acceleration limits.", ""), client: "429 rate_limit_exceeded", after: 2 * time.Second, replace: true},
	{name: "spend cap: a 429 without retry-after", kind: "anthropic", status: 429, body: anthropicRefusal("rate_limit_error", "Your organization has reached its monthly API usage threshold.", `,"details":{"error_code":"enforced_spend_limit_reached"}`), client: "402 upstream_spend"},
	{name: "own spend limit, under a 400", kind: "anthropic", status: 400, body: anthropicRefusal("invalid_request_error", "You have reached your specified API usage limits. You will regain access on 2000-02-01 at 00:00 UTC.", ""), client: "402 upstream_spend"},
	{name: "billing", kind: "anthropic", status: 402, body: anthropicRefusal("billing_error", "There is an issue with your billing.", ""), client: "402 upstream_spend"},
	{name: "overloaded, which is nobody's quota", kind: "anthropic", status: 529, body: anthropicRefusal("overloaded_error", "Overloaded", ""), client: "503 overloaded", after: 2 * time.Second, replace: true},
	{name: "overloaded, as the first event of a stream", kind: "anthropic", status: 200, headers: []string{"Content-Type", "text/event-stream"}, body: "event: error\ndata: " + anthropicRefusal("overloaded_error", "Overloaded", "") + "\n\n", client: "503 overloaded", after: 2 * time.Second, replace: true},
	{name: "wrong key", kind: "anthropic", status: 401, body: anthropicRefusal("authentication_error", "invalid x-api-key", ""), client: "502 upstream_auth"},
	{name: "not allowed", kind: "anthropic", status: 403, body: anthropicRefusal("permission_error", "Your API key does not have permission to use the specified resource.", ""), client: "502 upstream_auth"},
	{name: "no such model", kind: "anthropic", status: 404, body: anthropicRefusal("not_found_error", "model: m", ""), client: "404 model_not_found"},
	{name: "more than 32 MB", kind: "anthropic", status: 413, body: anthropicRefusal("request_too_large", "Request exceeds the maximum allowed number of bytes.", ""), client: "400 invalid_request"},
	{name: "took too long", kind: "anthropic", status: 504, body: anthropicRefusal("timeout_error", "Request timed out", ""), client: "502 upstream_broken", replace: true},
	{name: "longer than the context", kind: "anthropic", status: 400, body: anthropicRefusal("invalid_request_error", "prompt is too long: 208656 tokens > 200000 maximum", ""), client: "400 invalid_request", replace: true},
	{name: "longer than the context with its answer", kind: "anthropic", status: 400, body: anthropicRefusal("invalid_request_error", "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease input length or `max_tokens` and try again", ""), client: "400 invalid_request", replace: true},

	{name: "queue full", kind: "ollama", status: 503, body: `{"error":"server busy, please try again.  maximum pending requests exceeded"}`, client: "503 overloaded", after: 2 * time.Second, replace: true},
	{name: "model not pulled", kind: "ollama", status: 404, body: `{"error":"model \"m\" not found, try pulling it first"}`, client: "404 model_not_found"},
	{name: "cancelled there", kind: "ollama", status: 499, body: `{"error":"request canceled"}`, client: "502 upstream_broken", replace: true},
	{name: "an error as the first line, under 200", kind: "ollama", status: 200, headers: []string{"Content-Type", "application/x-ndjson"}, body: `{"error":"llama runner process has terminated: exit status 2"}` + "\n", client: "502 upstream_broken", replace: true},
	{name: "the cloud's limit", kind: "ollama", status: 429, headers: []string{"Retry-After", "90"}, body: `{"error":"you have reached your hourly usage limit, upgrade for higher limits: https://ollama.com/upgrade"}`, client: "429 rate_limit_exceeded", after: 90 * time.Second, closed: "overall", replace: true},
	{name: "the cloud's subscription", kind: "ollama", status: 403, body: `{"error":"this model requires a subscription, upgrade for access: https://ollama.com/upgrade"}`, client: "402 upstream_spend"},
	{name: "longer than the context", kind: "ollama", status: 400, body: `{"error":"request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it"}`, client: "400 invalid_request", replace: true},
}

// Each refusal that providers are known to send, to the byte: what the client is told, which limit is closed and until when,
// that nobody is asked again before, and who may stand in.
func TestEveryKnownRefusal(t *testing.T) {
	lines := []string{"| Provider | Refusal | Status | The client | Closed | A named fallback |", "|---|---|---|---|---|---|"}
	t.Run("all", func(t *testing.T) {
		for _, b := range bounces {
			lines = append(lines, b.line())
			t.Run(b.kind+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, b.play)
			})
		}
	})
	if !t.Failed() {
		handbook(t, "Each refusal", lines)
	}
}

func (b bounce) line() string {
	client, closed, fallback := "`"+strings.Replace(b.client, " ", "` `", 1)+"`", "nothing", "does not answer"
	if b.after > 0 {
		client += ", again " + map[bool]string{false: "in " + b.after.String(), true: "after midnight in California"}[b.after > 8*time.Hour]
		closed = "the model"
	}
	if b.closed != "" {
		closed = strings.ReplaceAll(b.closed, " ", ", ")
	}
	if b.replace {
		fallback = "answers"
	}
	return fmt.Sprintf("| %s | %s | %d | %s | %s | %s |", b.kind, b.name, b.status, client, closed, fallback)
}

func (b bounce) play(t *testing.T) {
	time.Sleep(b.at)
	e := &ether{}
	fault := script.Fault{Kind: script.Verbatim, Status: b.status, Body: b.body, Headers: map[string]string{}}
	for i := 0; i < len(b.headers); i += 2 {
		fault.Headers[b.headers[i]] = b.headers[i+1]
	}
	up, f := e.member(t, "up", b.kind, 30*time.Second, script.Script{Reply: []script.Rule{{Match: "break", Fault: &fault}, {Text: faultText}}})
	other, _ := e.member(t, "other", "openai", 30*time.Second, script.Script{Reply: []script.Rule{{Text: spareText}}})
	l := openTown(t, e, []route.Member{up, other}, cover("up", "other"))

	prefer, began := "wait=0", time.Now()
	if b.after == 0 {
		prefer = "wait=60" // and yet nobody waits for what will not pass
	}
	s := readSight(t, l.do(t.Context(), chat, asked("lone", "break it", true), "Prefer", prefer), true)
	if got := fmt.Sprint(s.StatusCode, " ", s.code); got != b.client {
		t.Errorf("the client: %s, want %s: %s", got, b.client, clip(s.body))
	}
	if n := len(f.Requests()); n != 1 || time.Since(began) > 0 {
		t.Errorf("asked %d times in %s", n, time.Since(began))
	}
	b.closes(t, l, s)
	if b.after > 0 {
		b.waits(t, l, f.Requests)
	}
	if g := readSight(t, l.do(t.Context(), chat, asked("lone", "hi", true), "Prefer", "wait=0"), true); g.said != faultText {
		t.Errorf("when it is over: %d %s", g.status(), clip(g.body))
	}
	time.Sleep(49 * time.Hour) // every limit is full again
	before := len(f.Requests())
	g := readSight(t, l.do(t.Context(), chat, asked("covered", "break it", true), "Prefer", "wait=0"), true)
	if g.whole != b.replace || b.replace && g.said != spareText || len(f.Requests()) != before+1 {
		t.Errorf("with a fallback: %d %s", g.status(), clip(g.body))
	}
	b.booked(t, l)
}

// closes checks what the book holds against the provider, and until when.
func (b bounce) closes(t *testing.T, l *town, s sight) {
	if b.after > 0 && (s.at < b.after || s.at > b.after+slack) || b.after == 0 && s.retry != 0 && s.code != "upstream_broken" {
		t.Errorf("come back in %s (Retry-After %s), want %s", s.at, s.retry, b.after)
	}
	var closed []string
	for _, q := range l.book.Standings("up", time.Now()) {
		if q.Exhausted {
			closed = append(closed, q.Dimension)
			if left := time.Until(q.Reset); left > b.after+slack || len(strings.Fields(b.closed)) == 1 && left < b.after {
				t.Errorf("%s is closed for %s, want %s", q.Dimension, left, b.after)
			}
		}
	}
	if got := strings.Join(closed, " "); got != b.closed {
		t.Errorf("closed: %q, want %q", got, b.closed)
	}
}

// waits checks that nobody is asked a moment before the time that was told, and lets it pass.
func (b bounce) waits(t *testing.T, l *town, seen func() []fake.Seen) {
	asked0 := len(seen())
	time.Sleep(b.after - time.Millisecond)
	s := readSight(t, l.do(t.Context(), chat, asked("lone", "hi", false), "Prefer", "wait=0"), false)
	if len(seen()) != asked0 || s.StatusCode == 200 {
		t.Errorf("asked before its time: %d", s.StatusCode)
	}
	time.Sleep(time.Millisecond + slack)
}

// booked checks that the ledger has a row for each attempt, and that what was refused cost nothing.
func (b bounce) booked(t *testing.T, l *town) {
	for _, r := range l.rows() {
		if r.Outcome != "ok" && (r.Usage != (llm.Usage{}) || r.FirstByte != 0 || r.Error == "") {
			t.Errorf("ledger: %+v", r)
		}
		if want := map[bool]string{true: "busy", false: "error"}[b.after > 0]; r.Outcome != "ok" && string(r.Outcome) != want {
			t.Errorf("ledger: %s, want %s", r.Outcome, want)
		}
	}
}

// The models that Ollama sends on to its cloud have a limit; those that run on the machine have none.
func TestTheCloudsLimitClosesNoModelOfTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		home, f := e.member(t, "home", "ollama", 0, script.Script{Reply: []script.Rule{
			{Model: "large-cloud", Fault: &script.Fault{Kind: script.RateLimited, Wait: time.Hour}}, {Text: faultText}}})
		l := openTown(t, e, []route.Member{home})
		for range 2 {
			if g := l.post(chat, asked("home/large-cloud", "hi", false)); g.StatusCode != 429 || g.Header.Get("Retry-After") != "3600" {
				t.Errorf("the cloud's: %d %s", g.status(), g.body)
			}
		}
		if g := l.post(chat, asked("home/small", "hi", false)); g.StatusCode != 200 {
			t.Errorf("the machine's own: %d %s", g.status(), g.body)
		}
		if n := len(f.Requests()); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}
