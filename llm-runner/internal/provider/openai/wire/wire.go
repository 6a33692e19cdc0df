// Package wire is OpenAI's chat completions dialect as bytes: requests, answers, stream chunks and errors, read and
// written by pure functions. Package openai speaks it to upstreams, the gateway to clients. Reading is tolerant, because
// dozens of servers speak the dialect with small mistakes; writing is strict.
//
// Sources: https://platform.openai.com/docs/api-reference/chat, https://console.groq.com/docs/api-reference; the name
// reasoning_content is DeepSeek's (https://api-docs.deepseek.com/guides/reasoning_model), reasoning is Groq's and OpenRouter's.
package wire

import (
	"bytes"
	"encoding/json"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Done is the data of the event that ends a stream.
const Done = "[DONE]"

// text is message content: a string, null, or a list of parts, of which the texts count.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '[' {
		return json.Unmarshal(b, (*string)(t))
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	for _, p := range parts {
		*t += text(p.Text)
	}
	return nil
}

// arguments are a call's arguments: a string of JSON text, or, from servers that forget the quotes, the JSON itself.
type arguments string

func (a *arguments) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"', 'n':
		return json.Unmarshal(b, (*string)(a))
	}
	*a = arguments(b)
	return nil
}

// toolCall is a call, whole or a delta of one.
type toolCall struct {
	Index    *int      `json:"index,omitempty"`
	ID       string    `json:"id,omitempty"`
	Type     string    `json:"type,omitempty"`
	Function *function `json:"function,omitempty"`
	// Extra carries Gemini's thought signature, which a client must send back with the call
	// (https://ai.google.dev/gemini-api/docs/thought-signatures).
	Extra *extra `json:"extra_content,omitempty"`
}

type function struct {
	Name      string    `json:"name,omitempty"`
	Arguments arguments `json:"arguments"`
}

type extra struct {
	Google struct {
		Signature string `json:"thought_signature,omitempty"`
	} `json:"google"`
}

func (c toolCall) signature() string {
	if c.Extra == nil {
		return ""
	}
	return c.Extra.Google.Signature
}

func sealed(signature string) *extra {
	if signature == "" {
		return nil
	}
	e := new(extra)
	e.Google.Signature = signature
	return e
}

// usage is what an answer cost. Counts that are not told are absent.
type usage struct {
	Prompt     *int64 `json:"prompt_tokens,omitempty"`
	Completion *int64 `json:"completion_tokens,omitempty"`
	Total      *int64 `json:"total_tokens,omitempty"`

	PromptDetails     *promptDetails     `json:"prompt_tokens_details,omitempty"`
	CompletionDetails *completionDetails `json:"completion_tokens_details,omitempty"`
}

type promptDetails struct {
	Cached *int64 `json:"cached_tokens,omitempty"`
}

type completionDetails struct {
	Reasoning *int64 `json:"reasoning_tokens,omitempty"`
}

func (u *usage) words() llm.Usage {
	out := llm.Usage{Input: count(u.Prompt), Output: count(u.Completion)}
	if u.PromptDetails != nil {
		out.CachedInput = count(u.PromptDetails.Cached)
	}
	if u.CompletionDetails != nil {
		out.Thinking = count(u.CompletionDetails.Reasoning)
	}
	return out
}

func count(n *int64) llm.Count {
	if n == nil {
		return llm.Count{}
	}
	return llm.Known(*n)
}

// told returns u as it is written; nil where nothing is known.
func told(u llm.Usage) *usage {
	if u == (llm.Usage{}) {
		return nil
	}
	out := &usage{Prompt: u.Input.Ptr(), Completion: u.Output.Ptr()}
	if in, ok := u.Input.Get(); ok {
		if n, ok := u.Output.Get(); ok {
			n += in
			out.Total = &n
		}
	}
	if n := u.CachedInput.Ptr(); n != nil {
		out.PromptDetails = &promptDetails{n}
	}
	if n := u.Thinking.Ptr(); n != nil {
		out.CompletionDetails = &completionDetails{n}
	}
	return out
}

// An Error is what a server says instead of an answer: {"error": {...}}.
type Error struct {
	Message string
	Type    string // "invalid_request_error", "tokens", "insufficient_quota", ...
	Code    string // "rate_limit_exceeded", ...; "" none
	Param   string // the field at fault; "" none
	Raw     []byte // the body it was read from
}

func (e *Error) Error() string { return e.Message }

// ParseError reads an error body in the forms that are met: {"error": {...}}, {"error": "text"}, {"message": ...} and
// {"detail": ...}. It returns nil where b is none of these.
func ParseError(b []byte) *Error {
	var in struct {
		Error   json.RawMessage `json:"error"`
		Message json.RawMessage `json:"message"`
		Detail  json.RawMessage `json:"detail"`
	}
	if json.Unmarshal(b, &in) != nil {
		return nil //nolint:nilerr // no JSON, so none of these
	}
	e := &Error{Raw: bytes.Clone(b)}
	switch {
	case present(in.Error):
		var o struct {
			Message json.RawMessage `json:"message"`
			Type    json.RawMessage `json:"type"`
			Code    json.RawMessage `json:"code"`
			Param   json.RawMessage `json:"param"`
		}
		if json.Unmarshal(in.Error, &o) == nil {
			e.Message, e.Type, e.Code, e.Param = plain(o.Message), plain(o.Type), plain(o.Code), plain(o.Param)
		}
		if e.Message == "" {
			e.Message = plain(in.Error)
		}
	case present(in.Message):
		e.Message = plain(in.Message)
	case present(in.Detail):
		e.Message = plain(in.Detail)
	default:
		return nil
	}
	return e
}

func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// plain returns a JSON string's content, and any other JSON as it is written; "" for null.
func plain(raw json.RawMessage) string {
	var s string
	if !present(raw) || json.Unmarshal(raw, &s) == nil {
		return s
	}
	return strings.TrimSpace(string(raw))
}

// AppendError appends e as an error body.
func AppendError(dst []byte, e Error) []byte {
	null := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	type object struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	return llm.AppendJSON(dst, struct {
		Error object `json:"error"`
	}{object{e.Message, e.Type, null(e.Param), null(e.Code)}})
}
