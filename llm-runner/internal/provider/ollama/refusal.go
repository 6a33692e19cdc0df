package ollama

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// refusal reads an error response: {"error":"..."}. A machine of one's own has no limits; 401, 403 and 429 come from Ollama's
// cloud or from a proxy.
func refusal(status int, h http.Header, body []byte, now time.Time) *llm.Error {
	var in struct{ Error string }
	_ = json.Unmarshal(body, &in)
	e := &llm.Error{Kind: kindOf(status, in.Error), Message: in.Error, Status: status, Header: h, Body: body}
	if e.Message == "" {
		e.Message = "refused: " + string(e.Kind)
	}
	if wait := upstream.RetryAfter(h, now); wait > 0 && !e.Kind.Permanent() {
		e.Until = now.Add(wait).UTC()
	}
	// Mostly Ollama drops the beginning in silence; models that llama.cpp prepares refuse with "... exceeds the available context size ...".
	e.TooLong = e.Kind == llm.BadRequest && (strings.Contains(in.Error, "context size") || strings.Contains(in.Error, "context length"))
	if e.Kind == llm.Quota {
		e.Limits = []llm.Limit{{Dimension: llm.Overall, Exhausted: true, Reset: e.Until}}
	}
	return e
}

func kindOf(status int, message string) llm.Kind {
	if status == http.StatusForbidden && strings.Contains(message, "subscription") { // "this model requires a subscription"
		return llm.Spend
	}
	return upstream.KindOf(status) // 503: "server busy, please try again.  maximum pending requests exceeded"
}

// inBand reads an error that came under status 200.
func inBand(message string) *llm.Error {
	e := &llm.Error{Kind: llm.Unavailable, Status: http.StatusOK, Message: message}
	if strings.HasPrefix(message, "server busy") {
		e.Kind = llm.Overload
	}
	return e
}
