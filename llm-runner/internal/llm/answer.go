package llm

import "iter"

// An Answer is a whole stream, added up.
type Answer struct {
	Route     *Route
	Message   Message // thinking, text and calls, in the order in which they began
	Usage     Usage
	Citations []Citation
	Finish    Finish
	Limits    []Limit
	Private   bool // see Event.Private
}

// Collect ranges over a stream until its end and adds it up. On an error it returns what had come so far with it.
func Collect(stream iter.Seq2[Event, error]) (Answer, error) {
	var a Accumulator
	for ev, err := range stream {
		if err != nil {
			return a.Answer(), err
		}
		a.Add(ev)
	}
	return a.Answer(), nil
}

// An Accumulator adds up events. The zero value is ready.
type Accumulator struct {
	answer Answer
	calls  map[int]int // CallDelta.Index -> index in Parts
}

// Add takes one more event.
func (a *Accumulator) Add(ev Event) {
	m := &a.answer.Message
	m.Role = Assistant
	if ev.Route != nil {
		a.answer.Route = ev.Route
	}
	if ev.Limits != nil {
		a.answer.Limits = ev.Limits
	}
	if ev.Redacted != "" {
		m.Parts = append(m.Parts, Part{Thinking: &Thinking{Redacted: ev.Redacted}})
	}
	if ev.Thinking != "" || ev.Signature != "" {
		t := a.thinking()
		t.Text += ev.Thinking
		t.Signature += ev.Signature
	}
	if ev.Text != "" {
		if last := a.last(); last != nil && last.Text != "" {
			last.Text += ev.Text
		} else {
			m.Parts = append(m.Parts, Part{Text: ev.Text})
		}
	}
	if ev.Call != nil {
		c := a.call(ev.Call.Index)
		c.ID += ev.Call.ID
		c.Name += ev.Call.Name
		c.Arguments += ev.Call.Arguments
		c.Signature += ev.Call.Signature
	}
	a.answer.Private = a.answer.Private || ev.Private
	a.answer.Citations = append(a.answer.Citations, ev.Citations...)
	if ev.Usage != nil {
		a.answer.Usage = *ev.Usage
	}
	if ev.Finish != "" {
		a.answer.Finish = ev.Finish
	}
}

// Answer returns what has been added so far.
func (a *Accumulator) Answer() Answer { return a.answer }

func (a *Accumulator) last() *Part {
	parts := a.answer.Message.Parts
	if len(parts) == 0 {
		return nil
	}
	return &parts[len(parts)-1]
}

func (a *Accumulator) thinking() *Thinking {
	if last := a.last(); last != nil && last.Thinking != nil && last.Thinking.Signature == "" && last.Thinking.Redacted == "" {
		return last.Thinking
	}
	t := &Thinking{}
	a.answer.Message.Parts = append(a.answer.Message.Parts, Part{Thinking: t})
	return t
}

func (a *Accumulator) call(index int) *ToolCall {
	if a.calls == nil {
		a.calls = map[int]int{}
	}
	at, ok := a.calls[index]
	if !ok {
		at = len(a.answer.Message.Parts)
		a.calls[index] = at
		a.answer.Message.Parts = append(a.answer.Message.Parts, Part{Call: &ToolCall{}})
	}
	return a.answer.Message.Parts[at].Call
}
