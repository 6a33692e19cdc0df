package fake

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// anthropic renders the Messages API (https://platform.claude.com/docs/en/api/messages): POST /v1/messages,
// POST /v1/messages/count_tokens, GET /v1/models. Like the real one it refuses fields that it does not know, requests
// without max_tokens or anthropic-version, empty texts, and tool results that answer no call.
type anthropic struct{}

func (anthropic) key(r *http.Request) string {
	if key := r.Header.Get("X-Api-Key"); key != "" {
		return key
	}
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func (anthropic) streamType(ask) string { return "text/event-stream; charset=utf-8" }

// window: "The API uses the token bucket algorithm to do rate limiting: your capacity is continuously replenished".
func (anthropic) window(script.Limit) window { return continuous }

const anthropicID = "011CSHoEeqs5C35K2UUqR7Fy"

// anthropicStops are the API's words for finishes.
var anthropicStops = map[llm.Finish]string{
	llm.FinishStop: "end_turn", llm.FinishLength: "max_tokens", llm.FinishTools: "tool_use", llm.FinishRefusal: "refusal",
}

// anthropicUsage renders a usage object; "" where nothing is told. Input leaves the cached part out.
func anthropicUsage(u llm.Usage, output int64) string {
	in, ok := u.Input.Get()
	if !ok {
		return ""
	}
	cached := u.CachedInput.Or(0)
	s := fmt.Sprintf(`{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":%d,"output_tokens":%d`, in-cached, cached, output)
	if n, ok := u.Thinking.Get(); ok {
		s += fmt.Sprintf(`,"output_tokens_details":{"thinking_tokens":%d}`, n)
	}
	return s + "}"
}

// anthropicSignature seals thinking where the script has no signature of its own.
const anthropicSignature = "EqQBCgIYAhIkZmFrZS1zaWduYXR1cmU="

// anthropicContent renders the blocks of an answer: each as it begins in a stream, its deltas, and as a whole.
func anthropicContent(r script.Rule) (blocks []anthropicPiece) {
	signature := r.Signature
	if signature == "" {
		signature = anthropicSignature
	}
	if r.Thinking != "" {
		b := anthropicPiece{start: `{"type":"thinking","thinking":"","signature":""}`}
		for _, s := range script.Pieces(r.Thinking, r.ChunkSize) {
			b.deltas = append(b.deltas, `{"type":"thinking_delta","thinking":`+q(s)+`}`)
		}
		b.deltas = append(b.deltas, `{"type":"signature_delta","signature":`+q(signature)+`}`)
		b.whole = `{"type":"thinking","thinking":` + q(r.Thinking) + `,"signature":` + q(signature) + `}`
		blocks = append(blocks, b)
	}
	if r.Text != "" {
		b := anthropicPiece{start: `{"type":"text","text":""}`, whole: `{"type":"text","text":` + q(r.Text) + `}`}
		for _, s := range script.Pieces(r.Text, r.ChunkSize) {
			b.deltas = append(b.deltas, `{"type":"text_delta","text":`+q(s)+`}`)
		}
		blocks = append(blocks, b)
	}
	for _, c := range r.Calls {
		head := `{"type":"tool_use","id":` + q(c.ID) + `,"name":` + q(c.Name) + `,"input":`
		b := anthropicPiece{start: head + `{}}`, whole: head + object(c.Arguments) + `}`}
		b.deltas = append(b.deltas, `{"type":"input_json_delta","partial_json":""}`)
		if object(c.Arguments) != "{}" {
			for _, s := range script.Chars(c.Arguments, 7) {
				b.deltas = append(b.deltas, `{"type":"input_json_delta","partial_json":`+q(s)+`}`)
			}
		}
		blocks = append(blocks, b)
	}
	return blocks
}

type anthropicPiece struct {
	start, whole string
	deltas       []string
}

// object returns arguments where they are a JSON object, and an empty one where they are not.
func object(arguments string) string {
	if s := strings.TrimSpace(arguments); strings.HasPrefix(s, "{") && json.Valid([]byte(s)) {
		return s
	}
	return "{}"
}

func (anthropic) answer(a ask, r script.Rule) []byte {
	var content []string
	for _, b := range anthropicContent(r) {
		content = append(content, b.whole)
	}
	told := r.Told(a.prompt)
	usage := anthropicUsage(told, told.Output.Or(0))
	if usage != "" {
		usage = `,"usage":` + usage
	}
	return fmt.Appendf(nil, `{"id":"msg_%s","type":"message","role":"assistant","model":%s,"content":[%s],"stop_reason":%q,"stop_sequence":null%s}`+"\n",
		anthropicID, q(a.model), strings.Join(content, ","), anthropicStops[r.Finish], usage)
}

func (anthropic) stream(a ask, r script.Rule) []frame {
	told := r.Told(a.prompt)
	var frames []frame
	event := func(p part, name, fields string) {
		frames = append(frames, frame{fmt.Appendf(nil, "event: %s\ndata: {\"type\":%q%s}\n\n", name, name, fields), p})
	}
	first := anthropicUsage(llm.Usage{Input: told.Input, CachedInput: told.CachedInput}, 1)
	last := anthropicUsage(told, told.Output.Or(0))
	if first != "" {
		first, last = `,"usage":`+first, `,"usage":`+last
	}
	event(partBody, "message_start", fmt.Sprintf(`,"message":{"id":"msg_%s","type":"message","role":"assistant","model":%s,"content":[],"stop_reason":null,"stop_sequence":null%s}`, anthropicID, q(a.model), first))
	for i, b := range anthropicContent(r) {
		event(partBody, "content_block_start", fmt.Sprintf(`,"index":%d,"content_block":%s`, i, b.start))
		if i == 0 {
			event(partBody, "ping", "")
		}
		for _, d := range b.deltas {
			event(partBody, "content_block_delta", fmt.Sprintf(`,"index":%d,"delta":%s`, i, d))
		}
		event(partBody, "content_block_stop", fmt.Sprintf(`,"index":%d`, i))
	}
	event(partFinish, "message_delta", fmt.Sprintf(`,"delta":{"stop_reason":%q,"stop_sequence":null}%s`, anthropicStops[r.Finish], last))
	event(partDone, "message_stop", "")
	return frames
}

// embeddings is never asked for: the API has none.
func (anthropic) embeddings(ask, [][]float32) []byte { return nil }

func (anthropic) tooLong(_, _ int64) string { return "" }

func (anthropic) models(names []string) []byte {
	var list []string
	for _, n := range names {
		list = append(list, fmt.Sprintf(`{"type":"model","id":%s,"display_name":%s,"created_at":"2025-01-01T00:00:00Z","max_input_tokens":200000,"max_tokens":64000}`, q(n), q(n)))
	}
	first, last := "null", "null"
	if len(names) > 0 {
		first, last = q(names[0]), q(names[len(names)-1])
	}
	return fmt.Appendf(nil, `{"data":[%s],"has_more":false,"first_id":%s,"last_id":%s}`+"\n", strings.Join(list, ","), first, last)
}

// anthropicUnits are the names of dimensions in headers.
var anthropicUnits = map[string]string{
	llm.RequestsPerMinute: "requests", llm.TokensPerMinute: "tokens",
	llm.InputTokensPerMinute: "input-tokens", llm.OutputTokensPerMinute: "output-tokens",
}

// tell writes anthropic-ratelimit-*: what is left, in whole thousands of tokens, and when the bucket is full again. The
// tokens header shows the most restrictive of the token limits.
func (anthropic) tell(h http.Header, levels []level) {
	h.Set("request-id", "req_"+anthropicID)
	var tightest *level
	for i, l := range levels {
		unit, ok := anthropicUnits[l.Dimension]
		if !ok {
			continue
		}
		tellAnthropic(h, unit, l)
		if unit != "requests" && (tightest == nil || l.remaining() < tightest.remaining()) {
			tightest = &levels[i]
		}
	}
	if tightest != nil {
		tellAnthropic(h, "tokens", *tightest)
	}
}

func tellAnthropic(h http.Header, unit string, l level) {
	remaining := l.remaining()
	if unit != "requests" {
		remaining = (remaining + 500) / 1000 * 1000
	}
	prefix := "anthropic-ratelimit-" + unit
	h.Set(prefix+"-limit", strconv.FormatInt(l.Max, 10))
	h.Set(prefix+"-remaining", strconv.FormatInt(remaining, 10))
	h.Set(prefix+"-reset", l.full.Add(time.Second-1).UTC().Truncate(time.Second).Format(time.RFC3339))
}

// anthropicFaults are the API's words. The message of a 404 names the model.
var anthropicFaults = map[script.FaultKind]struct{ kind, message string }{
	script.RateLimited:      {"rate_limit_error", "This request would exceed your account's rate limit. Please try again later."},
	script.RateNoHint:       {"rate_limit_error", "Number of requests has increased too rapidly. Please scale up gradually to avoid acceleration limits."},
	script.RateWrongHint:    {"rate_limit_error", "This request would exceed your account's rate limit. Please try again later."},
	script.Spend:            {"rate_limit_error", "Your organization has reached its monthly API usage threshold."},
	script.BadRequest:       {"invalid_request_error", "messages: roles must alternate between \"user\" and \"assistant\""},
	script.BadKey:           {"authentication_error", "invalid x-api-key"},
	script.Forbidden:        {"permission_error", "Your API key does not have permission to use the specified resource."},
	script.TooLarge:         {"request_too_large", "Request exceeds the maximum allowed number of bytes."},
	script.CapacityExceeded: {"overloaded_error", "Overloaded"},
	script.Internal:         {"api_error", "Internal server error"},
	script.BadGateway:       {"api_error", "Bad gateway"},
	script.Busy:             {"api_error", "Service unavailable"},
	script.GatewayTimeout:   {"timeout_error", "Request timed out"},
	script.Overloaded:       {"overloaded_error", "Overloaded"},
}

func (anthropic) refuse(a ask, f refusal, h http.Header) (int, []byte) {
	status := f.kind.Status()
	w := anthropicFaults[f.kind]
	details := ""
	switch f.kind {
	case script.NoModel:
		w.kind, w.message = "not_found_error", "model: "+a.model
	case script.Spend: // platform.claude.com, "Errors": no retry-after
		status, details = http.StatusTooManyRequests, `,"details":{"error_code":"enforced_spend_limit_reached"}`
	case script.RateWrongHint:
		h.Set("retry-after", "1")
	case script.RateLimited, script.Busy, script.Overloaded:
		if f.wait > 0 {
			h.Set("retry-after", strconv.Itoa(int(math.Ceil(f.wait.Seconds()))))
		}
	}
	if f.level != nil {
		unit, _, _ := f.level.Window()
		w.message = fmt.Sprintf("This request would exceed your organization's rate limit of %s %s per minute (org: 00000000-0000-4000-8000-000000000000, model: %s). For details, refer to: https://docs.claude.com/en/api/rate-limits.",
			thousands(f.level.Max), strings.ReplaceAll(unit, "_", " "), a.model)
	}
	if f.message != "" {
		w.message = f.message
	}
	h.Set("request-id", "req_"+anthropicID)
	return status, fmt.Appendf(nil, `{"type":"error","error":{"type":%q,"message":%s%s},"request_id":"req_%s"}`+"\n", w.kind, q(w.message), details, anthropicID)
}

// thousands writes n with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (d anthropic) inBand(a ask, f refusal) []byte {
	_, body := d.refuse(a, f, http.Header{})
	return []byte("event: error\ndata: " + strings.TrimSuffix(string(body), "\n") + "\n\n")
}
