package gemini

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A response is a GenerateContentResponse: a whole answer, or one chunk of a stream.
type response struct {
	Candidates     []candidate    `json:"candidates"`
	PromptFeedback feedback       `json:"promptFeedback"`
	Usage          *usageMetadata `json:"usageMetadata"`
	Error          *status        `json:"error"`
}

type candidate struct {
	Index         int     `json:"index"`
	Content       content `json:"content"`
	FinishReason  string  `json:"finishReason"`
	FinishMessage string  `json:"finishMessage"`
}

type feedback struct {
	BlockReason string `json:"blockReason"`
}

// usageMetadata counts tokens; what is not told is nil, and zeros are never told (protocol buffers leave them out).
// candidatesTokenCount leaves the thoughts out; promptTokenCount includes the cached content.
type usageMetadata struct {
	Prompt     *int64 `json:"promptTokenCount"`
	Candidates *int64 `json:"candidatesTokenCount"`
	Thoughts   *int64 `json:"thoughtsTokenCount"`
	Cached     *int64 `json:"cachedContentTokenCount"`
	ToolPrompt *int64 `json:"toolUsePromptTokenCount"`
}

// A decoder turns the chunks of one stream into events. The zero value is ready.
//
// The finish is kept until the stream's end, for usage and signatures may follow it. There is no other mark of the end.
type decoder struct {
	calls  int // seen so far
	reason string
	usage  *usageMetadata
}

// add takes one chunk and returns what it says.
func (d *decoder) add(data []byte) ([]llm.Event, error) {
	var in response
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("the answer broke off: a chunk is not JSON: %w", err)
	}
	if in.Error != nil {
		return nil, inStream(*in.Error, data)
	}
	var events []llm.Event
	for _, c := range in.Candidates {
		if c.Index != 0 {
			continue // one candidate is asked for
		}
		for _, p := range c.Content.Parts {
			events = d.part(events, p)
		}
		if c.FinishReason != "" && c.FinishReason != "FINISH_REASON_UNSPECIFIED" {
			if broken := brokenFinish[c.FinishReason]; broken != "" {
				if c.FinishMessage != "" {
					broken = strings.TrimSpace(c.FinishMessage)
				}
				return events, fmt.Errorf("the answer broke off: %s (%s)", broken, c.FinishReason)
			}
			d.reason = c.FinishReason
		}
	}
	if b := in.PromptFeedback.BlockReason; b != "" && b != "BLOCK_REASON_UNSPECIFIED" {
		d.reason = "SAFETY" // whichever it is: the question was refused, and no candidate comes
	}
	if in.Usage != nil {
		d.usage = in.Usage
		if n := len(events); n > 0 {
			events[n-1].Usage = d.usage.total() // so that an answer that breaks off has cost something
		}
	}
	return events, nil
}

func (d *decoder) part(events []llm.Event, p part) []llm.Event {
	text := ""
	if p.Text != nil {
		text = *p.Text
	}
	switch {
	case p.FunctionCall != nil:
		c := p.FunctionCall
		call := &llm.CallDelta{Index: d.calls, ID: c.ID, Name: c.Name, Arguments: string(c.Args), Signature: p.ThoughtSignature}
		if call.ID == "" {
			call.ID = "call_" + rand.Text()[:20] // unique in the conversation, for other dialects match results by it
		}
		if call.Arguments == "" || call.Arguments == "null" {
			call.Arguments = "{}"
		}
		d.calls++
		return append(events, llm.Event{Call: call})
	case p.Thought && text != "":
		events = append(events, llm.Event{Thinking: text})
	case text != "":
		events = append(events, llm.Event{Text: text})
	}
	if p.ThoughtSignature != "" {
		// After the text and not with it: it would seal the thinking before the text.
		events = append(events, llm.Event{Signature: p.ThoughtSignature})
	}
	return events
}

// brokenFinish are the finishes that are no ends: what came cannot be used, or not known to be whole.
var brokenFinish = map[string]string{
	"MALFORMED_FUNCTION_CALL":   "the model wrote a call that cannot be read",
	"MALFORMED_RESPONSE":        "the model wrote an answer that cannot be read",
	"UNEXPECTED_TOOL_CALL":      "the model called a tool that it was not given",
	"TOO_MANY_TOOL_CALLS":       "the model called too many tools in a row",
	"MISSING_THOUGHT_SIGNATURE": "a signature of an earlier turn is missing",
	"OTHER":                     "no reason given",
}

// refusedFinish are the finishes by which the provider refuses.
var refusedFinish = map[string]bool{
	"SAFETY": true, "RECITATION": true, "LANGUAGE": true, "BLOCKLIST": true, "PROHIBITED_CONTENT": true, "SPII": true,
	"IMAGE_SAFETY": true, "IMAGE_PROHIBITED_CONTENT": true, "IMAGE_RECITATION": true, "IMAGE_OTHER": true, "NO_IMAGE": true,
}

// end returns the last event; ok is false where no finish has come, and so the stream broke off.
func (d *decoder) end() (ev llm.Event, ok bool) {
	if d.reason == "" {
		return ev, false
	}
	if d.usage != nil {
		ev.Usage = d.usage.total()
	}
	switch {
	case d.reason == "MAX_TOKENS":
		ev.Finish = llm.FinishLength
	case refusedFinish[d.reason]:
		ev.Finish = llm.FinishRefusal
	case d.calls > 0:
		ev.Finish = llm.FinishTools // the API says STOP
	default:
		ev.Finish = llm.FinishStop
	}
	return ev, true
}

// total returns u in our terms, where the output includes the thoughts.
func (u *usageMetadata) total() *llm.Usage {
	return &llm.Usage{
		Input: sum(u.Prompt, u.ToolPrompt), Output: sum(u.Candidates, u.Thoughts),
		CachedInput: sum(u.Cached), Thinking: sum(u.Thoughts),
	}
}

// sum adds up counts; unknown where all of them are.
func sum(counts ...*int64) llm.Count {
	var n int64
	known := false
	for _, c := range counts {
		if c != nil {
			n, known = n+*c, true
		}
	}
	if !known {
		return llm.Count{}
	}
	return llm.Known(n)
}

// inStream reads an error that came under a status of 200.
func inStream(s status, data []byte) *llm.Error {
	e := s.refusal(nil, time.Now())
	e.Status, e.Body = http.StatusOK, bytes.Clone(data)
	return e
}
