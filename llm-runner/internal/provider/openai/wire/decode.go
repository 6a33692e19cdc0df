package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"home.arpa/lab/llm-runner/internal/llm"
)

// body is an answer or a chunk of one: they differ in choices[].message and choices[].delta.
type body struct {
	Choices []choice        `json:"choices"`
	Usage   *usage          `json:"usage"`
	Groq    *groqExtra      `json:"x_groq"`
	Error   json.RawMessage `json:"error"`
	Object  string          `json:"object"`
}

type choice struct {
	Index   int     `json:"index"`
	Delta   *delta  `json:"delta"`
	Message *delta  `json:"message"`
	Finish  *string `json:"finish_reason"`
}

type delta struct {
	Content   text       `json:"content"`
	Reasoning text       `json:"reasoning_content"`
	Thought   text       `json:"reasoning"` // Groq, OpenRouter
	Refusal   string     `json:"refusal"`
	ToolCalls []toolCall `json:"tool_calls"`
}

type groqExtra struct {
	Usage *usage `json:"usage"`
	Error string `json:"error"` // why the stream stopped early
}

// A Decoder turns the chunks of one stream into events. The zero value is ready.
//
// It repairs what servers get wrong: calls without index or id, ids that change under one index, names repeated in every
// delta, arguments that are not in quotes, "stop" as the finish of an answer that calls tools.
type Decoder struct {
	calls   []started
	events  []llm.Event
	finish  llm.Finish
	refused bool
}

// started is a call of which something has been seen.
type started struct {
	index int // the server's; -1 where it tells none
	id    string
	made  bool // the id is ours
	named bool
	args  string
}

// Add reads the data of one event, or a whole completion. The events are valid until the next Add. An error is an *Error where
// the server says that it failed; anything else is not of this dialect.
func (d *Decoder) Add(data []byte) ([]llm.Event, error) {
	var in body
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("chunk is not of the chat completions dialect: %w", err)
	}
	switch {
	case present(in.Error):
		return nil, ParseError(data)
	case in.Groq != nil && in.Groq.Error != "":
		return nil, &Error{Message: in.Groq.Error, Type: "x_groq", Raw: data}
	case in.Choices == nil && in.Usage == nil && in.Object == "":
		if e := ParseError(data); e != nil {
			return nil, e
		}
	}
	d.events = d.events[:0]
	for _, c := range in.Choices {
		if c.Index != 0 {
			continue // further answers are not ours to mix in
		}
		if m := c.Delta; m != nil {
			d.delta(*m)
		}
		if m := c.Message; m != nil {
			d.delta(*m)
		}
		if c.Finish != nil && *c.Finish != "" {
			finish, err := finishOf(*c.Finish)
			if err != nil {
				return d.events, err
			}
			d.finish = finish
		}
	}
	for _, u := range []*usage{in.Usage, in.Groq.usage()} {
		if u == nil {
			continue
		}
		if words := u.words(); words != (llm.Usage{}) {
			d.events = append(d.events, llm.Event{Usage: &words})
		}
	}
	return d.events, nil
}

func (g *groqExtra) usage() *usage {
	if g == nil {
		return nil
	}
	return g.Usage
}

func finishOf(reason string) (llm.Finish, error) {
	switch reason {
	case "length", "max_tokens", "model_length":
		return llm.FinishLength, nil
	case "tool_calls", "function_call", "tool_use":
		return llm.FinishTools, nil
	case "content_filter", "refusal", "safety":
		return llm.FinishRefusal, nil
	case "error": // OpenRouter, after an error of the provider behind it
		return "", &Error{Message: "the answer ended with an error", Type: "server_error"}
	}
	return llm.FinishStop, nil // "stop", "eos", "end_turn", ...
}

// Finish returns why the answer ended, after its last chunk; "" means that the stream broke off.
func (d *Decoder) Finish() llm.Finish {
	switch {
	case d.finish == llm.FinishStop && len(d.calls) > 0:
		return llm.FinishTools
	case d.finish == llm.FinishStop && d.refused:
		return llm.FinishRefusal
	}
	return d.finish
}

func (d *Decoder) delta(m delta) {
	ev := llm.Event{Thinking: string(m.Reasoning), Text: string(m.Content) + m.Refusal}
	if ev.Thinking == "" { // servers that send both send the same
		ev.Thinking = string(m.Thought)
	}
	d.refused = d.refused || m.Refusal != ""
	if ev.Thinking != "" || ev.Text != "" {
		d.events = append(d.events, ev)
	}
	for _, c := range m.ToolCalls {
		d.events = append(d.events, llm.Event{Call: d.call(c)})
	}
}

// call finds out which call c belongs to.
func (d *Decoder) call(c toolCall) *llm.CallDelta {
	var f function
	if c.Function != nil {
		f = *c.Function
	}
	at := d.find(c, f)
	out := &llm.CallDelta{Index: at, Arguments: string(f.Arguments), Signature: c.signature()}
	if at == len(d.calls) {
		s := started{index: -1, id: c.ID}
		if c.Index != nil {
			s.index = *c.Index
		}
		if s.id == "" {
			s.id, s.made = "call_"+strconv.Itoa(at), true
		}
		d.calls = append(d.calls, s)
		out.ID = s.id
	}
	s := &d.calls[at]
	if !s.named && f.Name != "" {
		s.named, out.Name = true, f.Name
	}
	s.args += string(f.Arguments)
	return out
}

// find returns the place of the call that c continues; len(d.calls) where it begins a new one.
func (d *Decoder) find(c toolCall, f function) int {
	fresh := len(d.calls)
	for at := fresh - 1; at >= 0; at-- {
		s := d.calls[at]
		switch {
		case c.ID != "" && c.ID == s.id:
			return at
		case c.Index != nil && *c.Index == s.index:
			// Some servers give every call the index 0: another id, or another name after whole arguments, is another call.
			if c.ID != "" && !s.made || c.ID == "" && f.Name != "" && s.named && json.Valid([]byte(s.args)) {
				return fresh
			}
			return at
		}
	}
	if c.Index == nil && c.ID == "" && f.Name == "" && fresh > 0 {
		return fresh - 1
	}
	return fresh
}

// ParseResponse reads a whole answer. An error is an *Error where the server says that it failed.
func ParseResponse(b []byte) (llm.Answer, error) {
	var d Decoder
	var a llm.Accumulator
	events, err := d.Add(b)
	for _, ev := range events {
		a.Add(ev)
	}
	switch {
	case err != nil:
		return a.Answer(), err
	case d.Finish() == "":
		return a.Answer(), errors.New("answer has no choices[0].finish_reason")
	}
	a.Add(llm.Event{Finish: d.Finish()})
	return a.Answer(), nil
}
