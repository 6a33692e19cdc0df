package fake

import (
	"encoding/base64"
	"encoding/binary"
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

// openai renders the chat completions interface (https://platform.openai.com/docs/api-reference/chat), and Groq's variety
// of it (https://console.groq.com/docs/api-reference).
type openai struct{ groq bool }

func (openai) key(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func (openai) streamType(ask) string { return "text/event-stream; charset=utf-8" }

// window: both providers document a bucket that refills continuously; their reset headers tell when it is full.
func (openai) window(script.Limit) window { return continuous }

func (openai) read(r *http.Request, body []byte) (ask, *refusal) {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/openai"), "/v1")
	switch {
	case r.Method == http.MethodGet && path == "/models":
		return ask{op: opModels}, nil
	case r.Method == http.MethodPost && path == "/chat/completions":
		return readOpenAIChat(body)
	case r.Method == http.MethodPost && path == "/embeddings":
		return readOpenAIEmbed(body)
	}
	return ask{}, &refusal{kind: script.NoModel, message: fmt.Sprintf("Invalid URL (%s %s)", r.Method, r.URL.Path)}
}

func readOpenAIChat(body []byte) (ask, *refusal) {
	var in struct {
		Model    string
		Stream   bool
		Options  struct{ Include_usage bool } `json:"stream_options"`
		Messages []struct {
			Role    string
			Content json.RawMessage
		}
		Format *struct{ Type string } `json:"response_format"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return ask{}, &refusal{kind: script.BadRequest, message: "We could not parse the JSON body of your request."}
	}
	a := ask{model: in.Model, stream: in.Stream, usage: in.Options.Include_usage, json: in.Format != nil && in.Format.Type != "text"}
	switch {
	case in.Model == "":
		return a, &refusal{kind: script.BadRequest, message: "you must provide a model parameter"}
	case len(in.Messages) == 0:
		return a, &refusal{kind: script.BadRequest, message: "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."}
	}
	var all strings.Builder
	for _, m := range in.Messages {
		text := openAIText(m.Content)
		all.WriteString(text + "\n")
		if m.Role == "user" {
			a.input = text
		}
	}
	a.prompt = all.String()
	return a, nil
}

// openAIText reads message content: a string, or a list of parts.
func openAIText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var parts []struct{ Text string }
	_ = json.Unmarshal(raw, &parts)
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
	}
	return b.String()
}

func readOpenAIEmbed(body []byte) (ask, *refusal) {
	var in struct {
		Model      string
		Input      json.RawMessage
		Format     string `json:"encoding_format"`
		Dimensions int
	}
	if err := json.Unmarshal(body, &in); err != nil || in.Model == "" {
		return ask{}, &refusal{kind: script.BadRequest, message: "you must provide a model parameter"}
	}
	a := ask{op: opEmbed, model: in.Model, dims: in.Dimensions, base64: in.Format == "base64"}
	var one string
	if json.Unmarshal(in.Input, &one) == nil {
		a.texts = []string{one}
	} else if json.Unmarshal(in.Input, &a.texts) != nil || len(a.texts) == 0 {
		return a, &refusal{kind: script.BadRequest, message: "'$.input' is invalid. Please check the API reference."}
	}
	a.prompt = strings.Join(a.texts, "\n")
	return a, nil
}

// q writes s as JSON.
func q(s string) string {
	b, _ := json.Marshal(s) // strings always can be
	return string(b)
}

const created = 1735689600 // 2025-01-01, so that answers are the same every time

func (d openai) id(prefix string) string {
	if d.groq {
		return prefix + "-00000000-0000-4000-8000-000000000000"
	}
	return prefix + "-000000000000000000000000000"
}

// reasoning is the field in which thinking is told: Groq's own name, and the one that DeepSeek, vLLM and most others use.
func (d openai) reasoning() string {
	if d.groq {
		return "reasoning"
	}
	return "reasoning_content"
}

// usage renders a usage object; "" where nothing is told.
func (d openai) usage(u llm.Usage) string {
	in, ok := u.Input.Get()
	if !ok {
		return ""
	}
	out := u.Output.Or(0)
	s := fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d`, in, out, in+out)
	if n, ok := u.CachedInput.Get(); ok {
		s += fmt.Sprintf(`,"prompt_tokens_details":{"cached_tokens":%d}`, n)
	}
	if n, ok := u.Thinking.Get(); ok {
		s += fmt.Sprintf(`,"completion_tokens_details":{"reasoning_tokens":%d}`, n)
	}
	if d.groq {
		s += `,"queue_time":0.001,"prompt_time":0.002,"completion_time":0.01,"total_time":0.012`
	}
	return s + "}"
}

func (d openai) answer(a ask, r script.Rule) []byte {
	msg := `{"role":"assistant","content":` + q(r.Text)
	if r.Text == "" && len(r.Calls) > 0 {
		msg = `{"role":"assistant","content":null`
	}
	if r.Thinking != "" {
		msg += `,"` + d.reasoning() + `":` + q(r.Thinking)
	}
	if len(r.Calls) > 0 {
		var calls []string
		for _, c := range r.Calls {
			calls = append(calls, fmt.Sprintf(`{"id":%s,"type":"function","function":{"name":%s,"arguments":%s}}`, q(c.ID), q(c.Name), q(c.Arguments)))
		}
		msg += `,"tool_calls":[` + strings.Join(calls, ",") + `]`
	}
	tail := ""
	if u := d.usage(r.Told(a.prompt)); u != "" {
		tail = `,"usage":` + u
	}
	if d.groq {
		tail += `,"x_groq":{"id":"req_00000000000000000000000000"}`
	}
	return fmt.Appendf(nil, `{"id":%q,"object":"chat.completion","created":%d,"model":%s,"choices":[{"index":0,"message":%s},"logprobs":null,"finish_reason":%q}]%s}`+"\n",
		d.id("chatcmpl"), created, q(a.model), msg, r.Finish, tail)
}

func (d openai) stream(a ask, r script.Rule) []frame {
	head := fmt.Sprintf(`data: {"id":%q,"object":"chat.completion.chunk","created":%d,"model":%s,"system_fingerprint":"fp_fake"`, d.id("chatcmpl"), created, q(a.model))
	null := ""
	if a.usage && !d.groq {
		null = `,"usage":null`
	}
	var frames []frame
	chunk := func(p part, delta, finish, extra string) {
		if finish == "" {
			finish = "null"
		}
		frames = append(frames, frame{fmt.Appendf(nil, `%s,"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]%s%s}`+"\n\n", head, delta, finish, null, extra), p})
	}
	first := ""
	if d.groq {
		first = `,"x_groq":{"id":"req_00000000000000000000000000"}`
	}
	chunk(partBody, `{"role":"assistant","content":""}`, "", first)
	for _, s := range script.Pieces(r.Thinking, r.ChunkSize) {
		chunk(partBody, `{"`+d.reasoning()+`":`+q(s)+`}`, "", "")
	}
	for _, s := range script.Pieces(r.Text, r.ChunkSize) {
		chunk(partBody, `{"content":`+q(s)+`}`, "", "")
	}
	for i, c := range r.Calls {
		chunk(partBody, fmt.Sprintf(`{"tool_calls":[{"index":%d,"id":%s,"type":"function","function":{"name":%s,"arguments":""}}]}`, i, q(c.ID), q(c.Name)), "", "")
		for _, s := range script.Chars(c.Arguments, 7) {
			chunk(partBody, fmt.Sprintf(`{"tool_calls":[{"index":%d,"function":{"arguments":%s}}]}`, i, q(s)), "", "")
		}
	}
	usage := d.usage(r.Told(a.prompt))
	last := ""
	if d.groq && usage != "" {
		last = `,"x_groq":{"id":"req_00000000000000000000000000","usage":` + usage + `}`
	}
	chunk(partFinish, `{}`, q(string(r.Finish)), last)
	if a.usage && !d.groq && usage != "" {
		frames = append(frames, frame{fmt.Appendf(nil, `%s,"choices":[],"usage":%s}`+"\n\n", head, usage), partUsage})
	}
	return append(frames, frame{[]byte("data: [DONE]\n\n"), partDone})
}

func (d openai) embeddings(a ask, vectors [][]float32) []byte {
	b := []byte(`{"object":"list","data":[`)
	for i, v := range vectors {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"object":"embedding","index":%d,"embedding":`, i)
		if a.base64 {
			raw := make([]byte, 0, 4*len(v))
			for _, x := range v {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
			}
			b = append(b, q(base64.StdEncoding.EncodeToString(raw))...)
		} else {
			b = appendFloats(b, v)
		}
		b = append(b, '}')
	}
	n := script.Tokens(a.prompt)
	return fmt.Appendf(b, `],"model":%s,"usage":{"prompt_tokens":%d,"total_tokens":%d}}`+"\n", q(a.model), n, n)
}

func (openai) tooLong(tokens, context int64) string {
	return fmt.Sprintf("This model's maximum context length is %d tokens, however you requested %d tokens (%d in your prompt; 0 for the completion). Please reduce your prompt; or completion length.", context, tokens, tokens)
}

func appendFloats(b []byte, v []float32) []byte {
	b = append(b, '[')
	for i, x := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(x), 'g', -1, 32)
	}
	return append(b, ']')
}

func (d openai) models(names []string) []byte {
	owner := "system"
	if d.groq {
		owner = "Meta"
	}
	var list []string
	for _, n := range names {
		extra := ""
		if d.groq {
			extra = `,"active":true,"context_window":131072`
		}
		list = append(list, fmt.Sprintf(`{"id":%s,"object":"model","created":%d,"owned_by":%q%s}`, q(n), created, owner, extra))
	}
	return []byte(`{"object":"list","data":[` + strings.Join(list, ",") + `]}` + "\n")
}

// tell writes x-ratelimit-*: requests and tokens per minute at OpenAI, requests per day and tokens per minute at Groq, which
// tells its other limits in no header.
func (d openai) tell(h http.Header, levels []level) {
	if d.groq {
		h.Set("x-groq-region", "fake")
	}
	requests := llm.RequestsPerMinute
	if d.groq {
		requests = llm.RequestsPerDay
	}
	for _, l := range levels {
		unit := ""
		switch l.Dimension {
		case requests:
			unit = "requests"
		case llm.TokensPerMinute:
			unit = "tokens"
		default:
			continue
		}
		h.Set("x-ratelimit-limit-"+unit, strconv.FormatInt(l.Max, 10))
		h.Set("x-ratelimit-remaining-"+unit, strconv.FormatInt(l.remaining(), 10))
		h.Set("x-ratelimit-reset-"+unit, l.resetIn.Round(time.Millisecond).String())
	}
}

// periods are the names of dimensions in refusals.
var periods = map[string]string{
	llm.RequestsPerMinute: "requests per min%s (RPM)", llm.RequestsPerDay: "requests per day (RPD)",
	llm.TokensPerMinute: "tokens per min%s (TPM)", llm.TokensPerDay: "tokens per day (TPD)",
}

// rateLimited returns the words, the type and the status of a 429, which name the limit and the wait.
func (d openai) rateLimited(a ask, f refusal) (message, kind string, status int) {
	lv := f.level
	requested := f.tokens
	if lv == nil { // a script's fault: numbers that fit its wait
		lv = &level{Limit: script.Limit{Dimension: llm.TokensPerMinute, Max: 15000}, used: 11972}
		if f.wait > time.Minute {
			lv = &level{Limit: script.Limit{Dimension: llm.TokensPerDay, Max: 100000}, used: 99000}
		}
		requested = 4351
	}
	unit, _, _ := lv.Window()
	if unit == "requests" {
		requested = 1
	}
	period, _ := periods[lv.Dimension]
	if strings.Contains(period, "%s") {
		minute := ""
		if d.groq {
			minute = "ute"
		}
		period = fmt.Sprintf(period, minute)
	}
	where := fmt.Sprintf("%s in organization org-fake", a.model)
	if d.groq {
		where = fmt.Sprintf("model `%s` in organization `org_fake` service tier `on_demand`", a.model)
	}
	if requested > lv.Max {
		status = http.StatusTooManyRequests
		if d.groq {
			status = http.StatusRequestEntityTooLarge
		}
		return fmt.Sprintf("Request too large for %s on %s: Limit %d, Requested %d, please reduce your message size and try again.", where, period, lv.Max, requested), unit, status
	}
	message = fmt.Sprintf("Rate limit reached for %s on %s: Limit %d, Used %d, Requested %d.", where, period, lv.Max, lv.used, requested)
	if f.kind != script.RateNoHint {
		message += fmt.Sprintf(" Please try again in %s.", f.wait)
	}
	if d.groq {
		return message + " Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing", unit, http.StatusTooManyRequests
	}
	return message + " Visit https://platform.openai.com/account/rate-limits to learn more.", unit, http.StatusTooManyRequests
}

func (d openai) refuse(a ask, f refusal, h http.Header) (int, []byte) {
	switch f.kind {
	case script.RateLimited, script.RateNoHint, script.RateWrongHint:
		message, kind, status := d.rateLimited(a, f)
		switch {
		case status != http.StatusTooManyRequests || f.kind == script.RateNoHint:
		case f.kind == script.RateWrongHint:
			h.Set("Retry-After", "1")
		default:
			h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.wait.Seconds()))))
			if !d.groq {
				h.Set("Retry-After-Ms", strconv.FormatInt(f.wait.Milliseconds(), 10))
			}
		}
		return status, d.fault(f, message, kind, "rate_limit_exceeded")
	case script.Spend:
		if d.groq { // https://console.groq.com/docs/spend-limits
			return http.StatusBadRequest, d.fault(f, "API access is blocked because your organization has reached its spend limit.", "invalid_request_error", "blocked_api_access")
		}
		return http.StatusTooManyRequests, d.fault(f, "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.", "insufficient_quota", "insufficient_quota")
	case script.BadKey:
		message := "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys."
		if d.groq {
			message = "Invalid API Key"
		}
		return http.StatusUnauthorized, d.fault(f, message, "invalid_request_error", "invalid_api_key")
	case script.Forbidden:
		return http.StatusForbidden, d.fault(f, "Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory")
	case script.NoModel:
		return http.StatusNotFound, d.fault(f, fmt.Sprintf("The model `%s` does not exist or you do not have access to it.", a.model), "invalid_request_error", "model_not_found")
	case script.TooLarge:
		return http.StatusRequestEntityTooLarge, d.fault(f, "Request Entity Too Large", "invalid_request_error", "request_too_large")
	case script.BadRequest:
		return http.StatusBadRequest, d.fault(f, "'messages.0' : for 'role:user' the following must be satisfied", "invalid_request_error", "")
	case script.CapacityExceeded:
		return 498, d.fault(f, "Flex tier capacity exceeded. Please try again later.", "capacity_exceeded", "capacity_exceeded")
	case script.Busy, script.Overloaded:
		if f.wait > 0 {
			h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.wait.Seconds()))))
		}
		return f.kind.Status(), d.fault(f, "The engine is currently overloaded, please try again later", "server_error", "")
	}
	return f.kind.Status(), d.fault(f, "The server had an error while processing your request. Sorry about that!", "server_error", "")
}

// fault renders an error object; code "" is null.
func (d openai) fault(f refusal, message, kind, code string) []byte {
	if f.message != "" {
		message = f.message
	}
	coded := "null"
	if code != "" {
		coded = q(code)
	}
	if d.groq {
		return fmt.Appendf(nil, `{"error":{"message":%s,"type":%q,"code":%s}}`+"\n", q(message), kind, coded)
	}
	return fmt.Appendf(nil, `{"error":{"message":%s,"type":%q,"param":null,"code":%s}}`+"\n", q(message), kind, coded)
}

func (d openai) inBand(a ask, f refusal) []byte {
	_, body := d.refuse(a, f, http.Header{})
	return []byte("data: " + strings.TrimSuffix(string(body), "\n") + "\n\n")
}
