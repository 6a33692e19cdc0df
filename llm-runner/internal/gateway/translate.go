package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
)

// beyond are fields that change the answer and that only an upstream of OpenAI's dialect could honour: refused with their
// cure, never dropped in silence.
var beyond = map[string]string{
	"n":                  "one answer is made per request: ask several times",
	"logprobs":           "leave it out",
	"top_logprobs":       "leave it out",
	"logit_bias":         "leave it out",
	"presence_penalty":   "leave it out",
	"frequency_penalty":  "leave it out",
	"modalities":         `only ["text"] can be answered`,
	"audio":              "leave it out: answers are text",
	"prediction":         "leave it out",
	"web_search_options": "leave it out",
	"function_call":      "use tool_choice",
}

// idleValues are the values of such fields that change nothing.
func idleValue(field string, v []byte) bool {
	switch string(v) {
	case "null", "false", "{}", "[]", "0", "0.0", "-0":
		return true
	case "1":
		return field == "n"
	}
	if field == "modalities" {
		var list []string
		return json.Unmarshal(v, &list) == nil && len(list) == 1 && list[0] == "text"
	}
	return false
}

// beyondField returns the first such field of a request and its cure; "" where there is none.
func beyondField(body []byte) (field, cure string) {
	c := cursor{text: body}
	for more := c.enter('{'); more; more = c.next('}') {
		key := c.key()
		v := c.value().of(body)
		if cure, ok := beyond[string(key)]; ok && !idleValue(string(key), v) {
			return string(key), cure
		}
	}
	return "", ""
}

func refuseBeyond(body []byte, a *route.Attempt) error {
	if field, cure := beyondField(body); field != "" {
		return invalid(a, field+": "+a.Target.Provider+" cannot do this; "+cure+
			", or name a model of a provider that speaks OpenAI's API itself")
	}
	return nil
}

func invalid(a *route.Attempt, message string) error {
	return &llm.Error{Kind: llm.BadRequest, Provider: a.Target.Provider, Model: a.Target.Model, Message: message}
}

// translate has a provider of another dialect answer.
func (c *call) translate(ctx context.Context, a *route.Attempt) error {
	req, usage, err := c.tongue.request(c.head.rewrite(c.body, a.Target.Model, false), a)
	if err != nil {
		var told *llm.Error
		if errors.As(err, &told) {
			return err
		}
		return invalid(a, err.Error())
	}
	req.Model = a.Target.Model // also where the body has a "MODEL", which encoding/json takes for it
	req.Purpose, req.Project, req.Requires = "api", c.ask.Project, c.ask.Requires
	if !c.head.stream {
		return c.translateWhole(ctx, a, req)
	}
	s := c.newSpeaker(a, usage)
	s.back = c.heldBack(a)
	finished := false
	for ev, err := range a.Provider.Stream(ctx, req) {
		if err != nil {
			return err
		}
		a.Learn(ev.Limits)
		if ev.Usage != nil {
			a.Used(*ev.Usage)
		}
		if err := s.say(ev); err != nil {
			return err
		}
		finished = finished || ev.Finish != ""
	}
	if !finished {
		return c.unfinished(ctx, a)
	}
	return s.finish()
}

func (c *call) translateWhole(ctx context.Context, a *route.Attempt, req llm.Request) error {
	var sum llm.Accumulator
	for ev, err := range a.Provider.Stream(ctx, req) {
		if err != nil {
			return err
		}
		a.Learn(ev.Limits)
		if ev.Usage != nil {
			a.Used(*ev.Usage)
		}
		sum.Add(ev)
	}
	answer := sum.Answer()
	if answer.Finish == "" {
		return c.unfinished(ctx, a)
	}
	return c.answer(a, c.tongue.whole(answer, a))
}

// answer sends an answer in one piece.
func (c *call) answer(a *route.Attempt, body []byte) error {
	a.First()
	c.out.hurry()
	c.out.begin(nil, int64(len(body)))
	if err := c.out.write(body); err != nil {
		return err
	}
	a.Finished()
	return nil
}

// unfinished is the error of a stream that stopped without saying why.
func (c *call) unfinished(ctx context.Context, a *route.Attempt) error {
	e := &llm.Error{Kind: llm.Unavailable, Provider: a.Target.Provider, Model: a.Target.Model, Status: 200,
		Message: "the answer stopped in the middle"}
	if ctx.Err() != nil {
		e.Kind, e.Status, e.Err = llm.Cancelled, 0, ctx.Err()
	}
	return e
}

// A speaker writes events to the client as its door's tongue does.
type speaker struct {
	out     *reply
	attempt *route.Attempt
	header  http.Header // of the upstream's response
	scribe  scribe
	buf     [][]byte
	begun   bool // the client has seen a part of it
	store        // what is held back
}

func (c *call) newSpeaker(a *route.Attempt, usage bool) *speaker {
	return &speaker{out: &c.out, attempt: a, scribe: c.tongue.stream(a, usage)}
}

// say writes and flushes one event, unless it is held back, or the client's dialect shows nothing of it.
func (s *speaker) say(ev llm.Event) error {
	s.buf = s.scribe.Append(s.buf[:0], ev)
	return s.send()
}

// finish ends the stream properly.
func (s *speaker) finish() error {
	s.buf = s.scribe.End(s.buf[:0])
	if s.back = false; len(s.buf) == 0 { // what was held back has to go out all the same
		if err := errors.Join(s.begin(), s.out.flush()); err != nil {
			return err
		}
	}
	if err := s.send(); err != nil {
		return err
	}
	s.attempt.Finished()
	return nil
}

// begin shows the client the answer: from here on no other target may answer.
func (s *speaker) begin() error {
	if s.begun {
		return nil
	}
	s.begun = true
	s.attempt.First()
	if err := s.out.beginStream(s.attempt, s.header); err != nil {
		return err
	}
	s.out.hurry()
	return s.out.write(s.release())
}

func (s *speaker) send() error {
	if len(s.buf) == 0 {
		return nil
	}
	for _, piece := range s.buf {
		if s.keep(piece) {
			continue // comments may be written beside this
		}
		if err := s.begin(); err != nil {
			return err
		}
		s.out.hurry()
		if err := s.out.write(piece); err != nil {
			return err
		}
	}
	if !s.begun {
		return nil
	}
	return s.out.flush()
}

// cite adds the field citations to a JSON object.
func cite(object []byte, citations []llm.Citation) []byte {
	if len(citations) == 0 {
		return object
	}
	list, _ := json.Marshal(citations) // plain strings and numbers
	object = append(bytes.TrimSuffix(object, []byte("}")), `,"citations":`...)
	return append(append(object, list...), '}')
}

// events takes a whole answer apart again, in the order in which a stream would tell it.
func events(a llm.Answer) []llm.Event {
	var all []llm.Event
	calls := 0
	for _, p := range a.Message.Parts {
		switch {
		case p.Thinking != nil:
			all = append(all, llm.Event{Thinking: p.Thinking.Text, Signature: p.Thinking.Signature, Redacted: p.Thinking.Redacted})
		case p.Call != nil:
			all = append(all, llm.Event{Call: &llm.CallDelta{Index: calls, ID: p.Call.ID, Name: p.Call.Name,
				Arguments: p.Call.Arguments, Signature: p.Call.Signature}})
			calls++
		default:
			all = append(all, llm.Event{Text: p.Text})
		}
	}
	usage := a.Usage
	return append(all, llm.Event{Citations: a.Citations, Usage: &usage, Finish: a.Finish})
}
