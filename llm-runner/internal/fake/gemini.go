package fake

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// gemini renders the Gemini API (https://ai.google.dev/api): generateContent, streamGenerateContent with alt=sse and as a
// JSON array, countTokens, batchEmbedContents and the list of models, under /v1beta and /v1. Like the real one it refuses
// fields that it does not know, function responses that do not fit the calls, and, for Gemini 3, calls without a signature.
type gemini struct{}

func (gemini) key(r *http.Request) string {
	if key := r.Header.Get("X-Goog-Api-Key"); key != "" {
		return key
	}
	return r.URL.Query().Get("key")
}

func (gemini) streamType(a ask) string {
	if a.array {
		return "application/json; charset=UTF-8"
	}
	return "text/event-stream"
}

// window: a minute's quota rolls, a day's begins at midnight in California.
func (gemini) window(l script.Limit) window {
	if _, length, _ := l.Window(); length > time.Minute {
		return pacificDay
	}
	return rolling
}

// geminiFinishes are the API's words for finishes. A call does not have one of its own.
var geminiFinishes = map[llm.Finish]string{
	llm.FinishStop: "STOP", llm.FinishTools: "STOP", llm.FinishLength: "MAX_TOKENS", llm.FinishRefusal: "SAFETY",
}

// geminiUsage renders usageMetadata with the comma before it; "" where nothing is told. In the middle of a stream the
// output is not told yet.
func geminiUsage(u llm.Usage, whole bool) string {
	in, ok := u.Input.Get()
	if !ok {
		return ""
	}
	s, total := fmt.Sprintf(`,"usageMetadata":{"promptTokenCount":%d`, in), in
	if n := u.CachedInput.Or(0); n > 0 {
		s += fmt.Sprintf(`,"cachedContentTokenCount":%d`, n)
	}
	if out, ok := u.Output.Get(); ok && whole {
		thoughts := u.Thinking.Or(0)
		total += out
		s += fmt.Sprintf(`,"candidatesTokenCount":%d`, out-thoughts)
		if thoughts > 0 {
			s += fmt.Sprintf(`,"thoughtsTokenCount":%d`, thoughts)
		}
	}
	return s + fmt.Sprintf(`,"totalTokenCount":%d,"promptTokensDetails":[{"modality":"TEXT","tokenCount":%d}]}`, total, in)
}

// geminiSignature seals an answer where the script has no signature of its own.
const geminiSignature = "CiQBZmFrZS1zaWduYXR1cmU="

// geminiParts renders an answer's parts in pieces, and its signature where that stands by itself: on the last chunk, unless
// the first call has it.
func geminiParts(a ask, r script.Rule) (parts []string, seal string) {
	signature := r.Signature
	if signature == "" && (r.Thinking != "" || strings.HasPrefix(a.model, "gemini-3")) {
		signature = geminiSignature
	}
	for _, s := range script.Pieces(r.Thinking, r.ChunkSize) {
		parts = append(parts, `{"text":`+q(s)+`,"thought":true}`)
	}
	for _, s := range script.Pieces(r.Text, r.ChunkSize) {
		parts = append(parts, `{"text":`+q(s)+`}`)
	}
	for _, c := range r.Calls {
		p := `{"functionCall":{"name":` + q(c.Name) + `,"args":` + object(c.Arguments) + `}`
		if signature != "" {
			p += `,"thoughtSignature":` + q(signature)
			signature = ""
		}
		parts = append(parts, p+`}`)
	}
	return parts, signature
}

// geminiChunk renders one response of these parts; finish "" while it goes on.
func geminiChunk(a ask, parts, finish, usage string) string {
	if finish != "" {
		finish = fmt.Sprintf(`,"finishReason":%q`, finish)
	}
	return fmt.Sprintf(`{"candidates":[{"content":{"parts":[%s],"role":"model"}%s,"index":0}]%s,"modelVersion":%s,"responseId":"fake0000000000000000000"}`, parts, finish, usage, q(a.model))
}

func (gemini) answer(a ask, r script.Rule) []byte {
	r.ChunkSize = 1 << 30 // each part in one piece
	parts, seal := geminiParts(a, r)
	if seal != "" {
		parts = append(parts, `{"text":"","thoughtSignature":`+q(seal)+`}`)
	}
	return []byte(geminiChunk(a, strings.Join(parts, ","), geminiFinishes[r.Finish], geminiUsage(r.Told(a.prompt), true)) + "\n")
}

func (gemini) stream(a ask, r script.Rule) []frame {
	told := r.Told(a.prompt)
	var frames []frame
	chunk := func(p part, json string) {
		head, tail := "data: ", "\r\n\r\n" // Google's front ends write CRLF
		if a.array {
			head, tail = ",\r\n", ""
			if len(frames) == 0 {
				head = "["
			}
		}
		frames = append(frames, frame{[]byte(head + json + tail), p})
	}
	parts, seal := geminiParts(a, r)
	for _, p := range parts {
		chunk(partBody, geminiChunk(a, p, "", geminiUsage(told, false)))
	}
	last := `{"text":""}`
	if seal != "" {
		last = `{"text":"","thoughtSignature":` + q(seal) + `}`
	}
	chunk(partFinish, geminiChunk(a, last, geminiFinishes[r.Finish], geminiUsage(told, true)))
	if a.array {
		frames = append(frames, frame{[]byte("]\r\n"), partDone})
	}
	return frames
}

func (gemini) embeddings(a ask, vectors [][]float32) []byte {
	b := []byte(`{"embeddings":[`)
	for i, v := range vectors {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendFloats(append(b, `{"values":`...), v), '}')
	}
	return append(b, "]}\n"...)
}

// tooLong is never asked for: texts are cut silently.
func (gemini) tooLong(_, _ int64) string { return "" }

func geminiModel(name string) string {
	methods := `["generateContent","countTokens","createCachedContent","batchGenerateContent"]`
	if strings.Contains(name, "embed") {
		methods = `["embedContent","countTextTokens","countTokens","asyncBatchEmbedContent"]`
	}
	return fmt.Sprintf(`{"name":%s,"version":"001","displayName":%s,"inputTokenLimit":1048576,"outputTokenLimit":65536,"supportedGenerationMethods":%s}`, q("models/"+name), q(name), methods)
}

func (gemini) models(names []string) []byte {
	var list []string
	for _, n := range names {
		list = append(list, geminiModel(n))
	}
	return []byte(`{"models":[` + strings.Join(list, ",") + "]}\n")
}

// tell writes nothing: the API has no rate-limit headers.
func (gemini) tell(http.Header, []level) {}

// geminiFaults are the API's words. A key that is wrong is a 400 there.
var geminiFaults = map[script.FaultKind]struct{ status, message string }{
	script.Spend:            {"RESOURCE_EXHAUSTED", "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your project and billing."},
	script.BadRequest:       {"INVALID_ARGUMENT", "Request contains an invalid argument."},
	script.BadKey:           {"INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."},
	script.Forbidden:        {"PERMISSION_DENIED", "Generative Language API has not been used in project 0 before or it is disabled."},
	script.TooLarge:         {"INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes."},
	script.CapacityExceeded: {"UNAVAILABLE", "The model is overloaded. Please try again later."},
	script.Internal:         {"INTERNAL", "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting"},
	script.BadGateway:       {"UNAVAILABLE", "Bad gateway"},
	script.Busy:             {"UNAVAILABLE", "The model is overloaded. Please try again later."},
	script.GatewayTimeout:   {"DEADLINE_EXCEEDED", "Deadline expired before operation could complete."},
	script.Overloaded:       {"UNAVAILABLE", "The model is overloaded. Please try again later."},
}

func (gemini) refuse(a ask, f refusal, h http.Header) (int, []byte) {
	code := f.kind.Status()
	w := geminiFaults[f.kind]
	details := ""
	switch f.kind {
	case script.RateLimited, script.RateWrongHint:
		w.status = "RESOURCE_EXHAUSTED"
		w.message, details = geminiQuota(a, f)
		if f.kind == script.RateWrongHint {
			h.Set("Retry-After", "1")
		}
	case script.RateNoHint:
		w.status, w.message = "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."
	case script.Spend:
		code = http.StatusPaymentRequired
	case script.NoModel:
		w.status, w.message = "NOT_FOUND", fmt.Sprintf("models/%s is not found for API version v1beta, or is not supported for generateContent. Call ListModels to see the list of available models and their supported methods.", a.model)
	case script.BadKey:
		code = http.StatusBadRequest
		details = `,"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com","metadata":{"service":"generativelanguage.googleapis.com"}}]`
	case script.Overloaded, script.CapacityExceeded:
		code = http.StatusServiceUnavailable
	}
	if f.message != "" {
		w.message = f.message
	}
	return code, fmt.Appendf(nil, `{"error":{"code":%d,"message":%s,"status":%q%s}}`+"\n", code, q(w.message), w.status, details)
}

// geminiQuotas are the quotas' names.
var geminiQuotas = map[string]struct{ id, metric string }{
	llm.RequestsPerMinute:    {"GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "generate_content_free_tier_requests"},
	llm.RequestsPerDay:       {"GenerateRequestsPerDayPerProjectPerModel-FreeTier", "generate_content_free_tier_requests"},
	llm.InputTokensPerMinute: {"GenerateContentInputTokensPerModelPerMinute-FreeTier", "generate_content_free_tier_input_token_count"},
	llm.TokensPerMinute:      {"GenerateContentInputTokensPerModelPerMinute-FreeTier", "generate_content_free_tier_input_token_count"},
	llm.TokensPerDay:         {"GenerateContentInputTokensPerModelPerDay-FreeTier", "generate_content_free_tier_input_token_count"},
}

// geminiQuota renders the refusal of a quota. retryDelay is right for a quota of a minute. For one of a day it is the trap
// that the real API lays: some seconds, although the quota is empty until midnight in California.
func geminiQuota(a ask, f refusal) (message, details string) {
	l := script.Limit{Dimension: llm.RequestsPerMinute, Max: 10}
	if f.level != nil {
		l = f.level.Limit
	}
	delay := strconv.FormatFloat(f.wait.Seconds(), 'f', -1, 64) + "s"
	if strings.HasSuffix(l.Dimension, "/day") {
		delay = "38s"
	}
	quota, metric := geminiQuotas[l.Dimension], ""
	if quota.id != "" {
		metric = "generativelanguage.googleapis.com/" + quota.metric
	}
	message = fmt.Sprintf("You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n* Quota exceeded for metric: %s, limit: %d, model: %s\nPlease retry in %s.", metric, l.Max, a.model, delay)
	details = fmt.Sprintf(`,"details":[{"@type":"type.googleapis.com/google.rpc.Help","links":[{"description":"Learn more about Gemini API quotas","url":"https://ai.google.dev/gemini-api/docs/rate-limits"}]},`+
		`{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":%s,"quotaId":%s,"quotaDimensions":{"location":"global","model":%s},"quotaValue":"%d"}]},`+
		`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":%q}]`, q(metric), q(quota.id), q(a.model), l.Max, delay)
	return message, details
}

func (d gemini) inBand(a ask, f refusal) []byte {
	_, body := d.refuse(a, f, http.Header{})
	text := strings.TrimSuffix(string(body), "\n")
	if a.array {
		return []byte(",\r\n" + text + "]\r\n")
	}
	return []byte("data: " + text + "\r\n\r\n")
}
