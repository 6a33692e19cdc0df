package anthropic

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// An event is one event of a stream, all types in one; the whole answer of a request that was not streamed has the same
// shape as the message of a message_start, with content and stop_reason filled in.
type event struct {
	Type         string       `json:"type"`
	Index        int          `json:"index"`
	Message      *whole       `json:"message"`
	ContentBlock contentBlock `json:"content_block"`
	Delta        delta        `json:"delta"`
	Usage        *usage       `json:"usage"`
}

type whole struct {
	Type       string         `json:"type"`
	Content    []contentBlock `json:"content"`
	StopReason string         `json:"stop_reason"`
	Usage      *usage         `json:"usage"`
}

type contentBlock struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	Thinking  string          `json:"thinking"`
	Signature string          `json:"signature"`
	Data      string          `json:"data"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
}

type delta struct {
	Type        string `json:"type"`
	Text        string `json:"text"`
	PartialJSON string `json:"partial_json"`
	Thinking    string `json:"thinking"`
	Signature   string `json:"signature"`
	StopReason  string `json:"stop_reason"`
}

// usage counts tokens; what is not told is nil. input_tokens leaves out what was read from or written to the cache.
type usage struct {
	Input         *int64 `json:"input_tokens"`
	CacheCreation *int64 `json:"cache_creation_input_tokens"`
	CacheRead     *int64 `json:"cache_read_input_tokens"`
	Output        *int64 `json:"output_tokens"`
	Details       *struct {
		Thinking *int64 `json:"thinking_tokens"`
	} `json:"output_tokens_details"`
}

// A decoder turns the events of one stream into ours. The zero value is ready.
//
// The finish is kept until message_stop (or a stream that ends after it was told, see finish), so that it is the last
// that is said.
type decoder struct {
	usage  usage
	blocks map[int]*open
	calls  int // seen so far
	stop   string
	done   bool // message_stop has come
}

// open is a content block that has begun.
type open struct {
	call      int // index of the tool call; -1 for other blocks
	input     json.RawMessage
	told      bool // input_json_deltas have come
	signature string
}

// add takes the data of one event. name is the event field, for data without a type. said is false where the event says
// nothing: pings, types that are not known yet, the ends of most blocks. An error event becomes an error.
func (d *decoder) add(name string, data []byte) (ev llm.Event, said bool, err error) {
	if len(data) == 0 || name == "ping" {
		return ev, false, nil
	}
	var in event
	if err := json.Unmarshal(data, &in); err != nil {
		return ev, false, fmt.Errorf("the answer broke off: an event is not JSON: %w", err)
	}
	if in.Type == "" {
		in.Type = name
	}
	switch in.Type {
	case "error":
		return ev, false, inStream(data)
	case "message_start":
		if in.Message == nil || in.Message.Usage == nil {
			return ev, false, nil
		}
		d.usage = *in.Message.Usage
		d.usage.Output = nil // of the first token alone; message_delta tells the real count
		ev.Usage = d.usage.total()
		return ev, true, nil
	case "content_block_start":
		ev, said = d.start(in.Index, in.ContentBlock)
	case "content_block_delta":
		ev, said = d.delta(in.Index, in.Delta)
	case "content_block_stop":
		ev, said = d.end(in.Index)
	case "message_delta":
		if in.Delta.StopReason != "" {
			d.stop = in.Delta.StopReason
		}
		if in.Usage != nil {
			d.usage.update(*in.Usage)
			ev.Usage = d.usage.total()
		}
		return ev, ev.Usage != nil, nil
	case "message_stop":
		d.done = true
	}
	return ev, said, nil
}

func (d *decoder) start(index int, b contentBlock) (ev llm.Event, said bool) {
	o := &open{call: -1}
	if d.blocks == nil {
		d.blocks = map[int]*open{}
	}
	d.blocks[index] = o
	switch b.Type {
	case "text":
		ev.Text = b.Text
	case "thinking":
		ev.Thinking, o.signature = b.Thinking, b.Signature
	case "redacted_thinking":
		ev.Redacted = b.Data
	case "tool_use":
		o.call, o.input = d.calls, b.Input
		d.calls++
		ev.Call = &llm.CallDelta{Index: o.call, ID: b.ID, Name: b.Name}
	}
	return ev, ev.Says()
}

func (d *decoder) delta(index int, x delta) (ev llm.Event, said bool) {
	o := d.blocks[index]
	switch x.Type {
	case "text_delta":
		ev.Text = x.Text
	case "thinking_delta":
		ev.Thinking = x.Thinking
	case "signature_delta":
		if o != nil {
			o.signature += x.Signature // told as a whole when the block ends, for it seals the block
		}
	case "input_json_delta":
		if o != nil && o.call >= 0 && x.PartialJSON != "" {
			o.told = true
			ev.Call = &llm.CallDelta{Index: o.call, Arguments: x.PartialJSON}
		}
	}
	return ev, ev.Says()
}

func (d *decoder) end(index int) (ev llm.Event, said bool) {
	o := d.blocks[index]
	delete(d.blocks, index)
	switch {
	case o == nil:
	case o.call >= 0 && !o.told: // a tool without arguments, or a server that tells them at the start
		args := string(o.input)
		if args == "" || args == "null" {
			args = "{}"
		}
		ev.Call = &llm.CallDelta{Index: o.call, Arguments: args}
	default:
		ev.Signature = o.signature
	}
	return ev, ev.Call != nil || ev.Signature != ""
}

// finish returns why the answer ended; "" where the stream never said it and so broke off.
func (d *decoder) finish() llm.Finish { return finish(d.stop) }

// finish maps a stop reason. A reason that is not known yet is still an end that the API calls one.
func finish(stop string) llm.Finish {
	switch stop {
	case "":
		return ""
	case "max_tokens", "model_context_window_exceeded":
		return llm.FinishLength
	case "tool_use":
		return llm.FinishTools
	case "refusal":
		return llm.FinishRefusal
	}
	return llm.FinishStop // end_turn, stop_sequence, pause_turn
}

// update takes the counts of a message_delta, which are cumulative; some servers repeat only some of them.
func (u *usage) update(v usage) {
	for _, f := range []struct{ to, from **int64 }{{&u.Input, &v.Input}, {&u.CacheCreation, &v.CacheCreation}, {&u.CacheRead, &v.CacheRead}, {&u.Output, &v.Output}} {
		if *f.from != nil {
			*f.to = *f.from
		}
	}
	if v.Details != nil {
		u.Details = v.Details
	}
}

// total returns u in our terms, where the input includes the cached input.
func (u *usage) total() *llm.Usage {
	var out llm.Usage
	if u.Input != nil {
		n := *u.Input
		for _, part := range []*int64{u.CacheCreation, u.CacheRead} {
			if part != nil {
				n += *part
			}
		}
		out.Input = llm.Known(n)
	}
	out.Output, out.CachedInput, out.CacheWrite = count(u.Output), count(u.CacheRead), count(u.CacheCreation)
	if u.Details != nil {
		out.Thinking = count(u.Details.Thinking)
	}
	return &out
}

func count(n *int64) llm.Count {
	if n == nil {
		return llm.Count{}
	}
	return llm.Known(*n)
}

// unfold turns an answer that came in one piece, although a stream was asked for, into the events of a stream.
func unfold(body []byte) ([]llm.Event, error) {
	var m whole
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoMessage, err)
	}
	if m.Type == "error" || m.StopReason == "" {
		return nil, inStream(body)
	}
	var d decoder
	var events []llm.Event
	add := func(ev llm.Event, said bool) {
		if said {
			events = append(events, ev)
		}
	}
	for i, b := range m.Content {
		add(d.start(i, b))
		add(d.end(i))
	}
	last := llm.Event{Finish: finish(m.StopReason)}
	if m.Usage != nil {
		last.Usage = m.Usage.total()
	}
	return append(events, last), nil
}

var errNoMessage = errors.New("the answer is neither a stream nor a message")

// inStream reads an error that came under a status of 200.
func inStream(data []byte) error {
	var b errorBody
	if err := json.Unmarshal(data, &b); err != nil || b.Error.Type == "" && b.Error.Message == "" {
		return errNoMessage
	}
	e := refusal(0, nil, bytes.Clone(data), time.Now())
	e.Status = http.StatusOK
	return e
}
