// Package loop has a model use tools: it asks, runs what the model calls, hands back what came of it, and asks again, until there
// is an answer. It is a Provider made of a Provider, so whoever asks notices nothing but that answers know more.
//
// Every answer of the model is kept as soon as it is whole, and every call before it runs (see toolbox). A request that is sent
// again under the name of its run goes on from there: no call of the model that was paid is paid again, and no tool with effects
// runs twice. Where a person has to be asked, the stream ends with a *llm.BusyError: whoever asked waits as for a machine, and
// asks again once the person has decided.
package loop

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

// Approval is the provider that a *llm.BusyError names where a person has to decide about a call.
const Approval = "your approval"

// Limits bound one run. Zero values are replaced by the defaults.
type Limits struct {
	Steps  int           // answers of the model; default 16
	Tokens int64         // input and output of all steps; default 400,000
	Time   time.Duration // since the stream began; default 15 minutes
	Calls  int           // of tools within one step; default 8
	Total  int           // calls of tools of all steps; 0 as many as the steps allow
	// MicroUSD bounds what the steps cost, by Cost; 0, or a Cost of nil, does not.
	MicroUSD int64
	Cost     func(provider, model string, u llm.Usage) llm.Count
}

// A Provider asks inner, with the tools of a box.
type Provider struct {
	inner  llm.Provider
	box    *toolbox.Box
	limits Limits

	mu      sync.Mutex
	without map[string]bool // models that cannot call tools
	ended   map[string]string
}

// New returns a Provider. Requests that use no tools go to inner as they are.
func New(inner llm.Provider, box *toolbox.Box, l Limits) *Provider {
	def := func(p *int, n int) {
		if *p == 0 {
			*p = n
		}
	}
	def(&l.Steps, 16)
	def(&l.Calls, 8)
	if l.Tokens == 0 {
		l.Tokens = 400_000
	}
	if l.Time == 0 {
		l.Time = 15 * time.Minute
	}
	return &Provider{inner: inner, box: box, limits: l, without: map[string]bool{}, ended: map[string]string{}}
}

// end remembers why a run ends early, as long as somebody asks for it before long.
func (p *Provider) end(run, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if run != "" && len(p.ended) < 100 {
		p.ended[run] = why
	}
}

// Ended says which limit had the last answer of a named run end early, and forgets it; "" none.
func (p *Provider) Ended(run string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer delete(p.ended, run)
	return p.ended[run]
}

// Stream answers a request, with tools where it uses some.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	if len(req.Use) == 0 || len(req.Tools) > 0 { // a caller that brings tools of its own runs them itself
		return p.inner.Stream(ctx, req)
	}
	return func(yield func(llm.Event, error) bool) {
		r := &run{p: p, ctx: ctx, req: req, began: time.Now(), name: req.Run, yield: yield}
		if r.name == "" {
			r.name = "once-" + rand.Text()
		}
		if err := r.answer(); err != nil && !errors.Is(err, errLeft) {
			yield(llm.Event{}, err)
		}
	}
}

// errLeft says that whoever ranged over the stream does no longer.
var errLeft = errors.New("the reader has left")

// A run is one answer in the making.
type run struct {
	p     *Provider
	ctx   context.Context
	req   llm.Request
	name  string
	began time.Time
	yield func(llm.Event, error) bool

	specs    []llm.ToolSpec
	messages []llm.Message
	scope    toolbox.Scope
	used     llm.Usage // of the steps before
	spent    int64     // tokens of them, guessed where a step did not tell
	steps    int
	calls    int   // of tools
	cost     int64 // micro-USD
	text     bool  // some of the answer has been told
	routed   bool
}

func (r *run) tell(ev llm.Event) error {
	if !r.yield(ev, nil) {
		return errLeft
	}
	return nil
}

func (r *run) answer() (err error) {
	if r.specs, err = r.p.box.Specs(r.ctx, r.req.Chat, r.req.Use); err != nil {
		return err
	}
	if err := r.known(); err != nil {
		return err
	}
	kept, err := r.p.box.Steps(r.ctx, r.name)
	if err != nil {
		return err
	}
	r.messages = cautioned(r.req.Messages)
	r.scope = scopeOf(r.req, r.name)
	for ; ; r.steps++ {
		var s toolbox.Step
		if r.steps < len(kept) {
			s = kept[r.steps]
			err = r.repeat(s)
		} else {
			s, err = r.ask()
		}
		if err != nil {
			return err
		}
		r.used = sum(r.used, s.Usage, r.steps == 0)
		r.spent += s.Usage.Input.Or(guess(r.messages...)) + s.Usage.Output.Or(guess(s.Message))
		if r.p.limits.Cost != nil {
			r.cost += r.p.limits.Cost(s.Route.Provider, s.Route.Model, s.Usage).Or(0)
		}
		calls := callsOf(s.Message)
		r.calls += len(calls)
		if len(calls) == 0 {
			return r.tell(llm.Event{Usage: &r.used, Finish: s.Finish})
		}
		results, err := r.work(calls)
		if err != nil {
			return err
		}
		r.messages = append(r.messages, s.Message, llm.Message{Role: llm.Tool, Parts: results})
	}
}

// known refuses a request for tools that there are not.
func (r *run) known() error {
	all, err := r.p.box.Entries(r.ctx, r.req.Chat)
	if err != nil {
		return err
	}
	for _, name := range r.req.Use {
		if name != "*" && !slices.ContainsFunc(all, func(e toolbox.Entry) bool { return e.Name == name }) {
			return &llm.Error{Kind: llm.BadRequest, Model: r.req.Model, Message: fmt.Sprintf("there is no tool %q: the Tools page lists those that there are", name)}
		}
	}
	return nil
}

// repeat tells of a step that an earlier stream of the run has made.
func (r *run) repeat(s toolbox.Step) error {
	ev := llm.Event{}
	if !r.routed && s.Route.Provider != "" {
		ev.Route, r.routed = &s.Route, true
	}
	for _, part := range s.Message.Parts {
		if part.Thinking != nil {
			ev.Thinking += part.Thinking.Text
		}
		ev.Text += part.Text
	}
	ev.Text, ev.Citations, ev.Private = r.apart(ev.Text), s.Citations, s.Private
	return r.tell(ev)
}

// apart returns what a step says as it stands in the whole answer: text of two steps is two paragraphs.
func (r *run) apart(text string) string {
	if text == "" {
		return ""
	}
	if r.text && r.steps > 0 {
		text = "\n\n" + text
	}
	r.text = true
	return text
}

// over is the limit that the run has reached, in words; "" none.
func (r *run) over() string {
	l := r.p.limits
	switch {
	case r.steps >= l.Steps-1:
		return fmt.Sprintf("%d steps", l.Steps)
	case r.spent >= l.Tokens:
		return fmt.Sprintf("%d tokens", l.Tokens)
	case time.Since(r.began) >= l.Time:
		return l.Time.String()
	case l.Total > 0 && r.calls >= l.Total:
		return fmt.Sprintf("%d calls of tools", l.Total)
	case l.MicroUSD > 0 && r.cost >= l.MicroUSD:
		return fmt.Sprintf("$%.4f", float64(l.MicroUSD)/1e6)
	}
	return ""
}

// ask has the model make the next step and keeps it.
func (r *run) ask() (toolbox.Step, error) {
	limit := r.over() // as it was when the model was asked: what is reached meanwhile ends the next step
	s, err := r.once(r.p.prompted(r.req.Model), limit)
	var refused *llm.Error
	if errors.As(err, &refused) && !refused.Started && len(r.specs) > 0 && toolless(refused) && !r.p.prompted(r.req.Model) {
		r.p.remember(r.req.Model)
		s, err = r.once(true, limit)
	}
	if err != nil {
		return s, err
	}
	if limit != "" && len(callsOf(s.Message)) > 0 {
		s.Message = withoutCalls(s.Message)
		s.Finish = llm.FinishLength
		if strings.TrimSpace(s.Message.Text()) == "" && !r.text {
			return s, &llm.Error{Kind: llm.Unavailable, Model: r.req.Model, Message: "the model called tools until its limit and gave no answer"}
		}
	}
	// The answer is there: it is kept whatever has become of whoever asked.
	lasting, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), 10*time.Second)
	defer cancel()
	return s, r.p.box.Keep(lasting, r.name, r.steps, s)
}

// once streams one step; prompted asks a model that cannot call tools for its wish as text. With a limit that is reached the model must answer
// now, with what it has.
func (r *run) once(prompted bool, limit string) (s toolbox.Step, err error) {
	req := r.req
	req.Use, req.Run, req.Own = nil, "", nil
	req.Messages, req.Tools = r.messages, r.specs
	if len(r.specs) > 0 && limit != "" {
		r.p.end(r.req.Run, limit)
		req.ToolChoice = llm.ToolChoice{Mode: "none"}
		req.Messages = append(req.Messages[:len(req.Messages):len(req.Messages)],
			llm.Says(llm.User, "No more tools can be called. Answer now with what you have, and say what is missing."))
	}
	if prompted && len(r.specs) > 0 {
		req = asText(req, limit != "")
	}
	var a llm.Accumulator
	begun := false
	for ev, err := range r.p.inner.Stream(r.ctx, req) {
		if err != nil {
			return s, err
		}
		a.Add(ev)
		out := ev
		out.Call, out.Finish, out.Usage = nil, "", nil
		if ev.Route != nil {
			s.Route = *ev.Route
			if r.routed {
				out.Route = nil
			}
			r.routed = true
		}
		if prompted && len(r.specs) > 0 {
			out.Text = "" // it is a form to be read whole
		} else if out.Text != "" && !begun {
			begun, out.Text = true, r.apart(out.Text)
		}
		if ev.Call != nil && ev.Call.Name != "" && limit == "" {
			out.Tool = &llm.ToolNews{Name: ev.Call.Name, State: "writing"}
		}
		if ev.Usage != nil {
			all := sum(r.used, *ev.Usage, r.steps == 0)
			out.Usage = &all
		}
		if !empty(out) {
			if err := r.tell(out); err != nil {
				return s, err
			}
		}
	}
	answer := a.Answer()
	s.Message, s.Usage, s.Finish, s.Citations, s.Private = answer.Message, answer.Usage, answer.Finish, answer.Citations, answer.Private
	for i, part := range s.Message.Parts { // it goes back to a model with the next step
		s.Message.Parts[i].Private = part.Private || s.Private && part.Call == nil
	}
	if prompted && len(r.specs) > 0 {
		return s, r.fromText(&s, limit != "")
	}
	for i := range s.Message.Parts { // Ollama and Gemini may leave it out, and a result is matched by it
		if c := s.Message.Parts[i].Call; c != nil && c.ID == "" {
			c.ID = "call_" + rand.Text()[:16]
		}
	}
	return s, nil
}

// empty says that an event has nothing to say.
func empty(ev llm.Event) bool {
	return ev.Route == nil && ev.Limits == nil && ev.Text == "" && ev.Thinking == "" && ev.Signature == "" && ev.Redacted == "" && ev.Tool == nil &&
		len(ev.Citations) == 0 && ev.Usage == nil
}

func callsOf(m llm.Message) []llm.ToolCall {
	var all []llm.ToolCall
	for _, p := range m.Parts {
		if p.Call != nil {
			all = append(all, *p.Call)
		}
	}
	return all
}

func withoutCalls(m llm.Message) llm.Message {
	out := llm.Message{Role: m.Role}
	for _, p := range m.Parts {
		if p.Call == nil {
			out.Parts = append(out.Parts, p)
		}
	}
	return out
}

// sum adds up usages; what one step did not tell is not known of all of them.
func sum(a, b llm.Usage, first bool) llm.Usage {
	if first {
		return b
	}
	add := func(x, y llm.Count) llm.Count {
		n, known := x.Get()
		m, too := y.Get()
		if !known || !too {
			return llm.Count{}
		}
		return llm.Known(n + m)
	}
	return llm.Usage{Input: add(a.Input, b.Input), Output: add(a.Output, b.Output), CachedInput: add(a.CachedInput, b.CachedInput),
		CacheWrite: add(a.CacheWrite, b.CacheWrite), Thinking: add(a.Thinking, b.Thinking)}
}

// guess is how many tokens messages have at most times: four bytes are one.
func guess(all ...llm.Message) (n int64) {
	for _, m := range all {
		for _, p := range m.Parts {
			bytes := len(p.Text)
			if p.Call != nil {
				bytes += len(p.Call.Arguments)
			}
			if p.Result != nil {
				bytes += len(p.Result.Text)
			}
			n += int64(bytes+3) / 4
		}
	}
	return n
}

// cautioned are the messages with a word about results among what the system says.
func cautioned(all []llm.Message) []llm.Message {
	out := make([]llm.Message, 0, len(all)+4)
	if len(all) > 0 && all[0].Role == llm.System {
		out = append(out, further(all[0], toolbox.Caution))
		return append(out, all[1:]...)
	}
	return append(append(out, llm.Says(llm.System, toolbox.Caution)), all...)
}

// further is a message with another paragraph; what is private in it stays so.
func further(m llm.Message, text string) llm.Message {
	m.Parts = append(m.Parts[:len(m.Parts):len(m.Parts)], llm.Part{Text: "\n\n" + text})
	return m
}

// scopeOf says what a run may take for the person's own words. Earlier answers may have been led by what was read for them.
func scopeOf(req llm.Request, name string) toolbox.Scope {
	s := toolbox.Scope{Run: name, Source: req.Purpose, Chat: req.Chat, Words: req.Own, Tainted: req.Own != nil}
	for _, m := range req.Messages {
		switch {
		case m.Role == llm.Assistant || m.Role == llm.Tool:
			s.Tainted = true
		case req.Own == nil:
			s.Words = append(s.Words, m.Text())
		}
	}
	return s
}
