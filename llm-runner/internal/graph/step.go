package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Step is what a node works with. Its methods may be called from several goroutines of one node at once.
type Step struct {
	ctx    context.Context
	store  *Store
	run    *RunRow
	row    *StepRow
	budget Budget
	heard  *heard

	withheld bool
}

// heard is who hears of an answer in the making, and whether anybody did.
type heard struct {
	tell func(llm.Event) bool // nil: nobody
	any  bool
}

// Context ends when the run is cancelled or the program stops.
func (s *Step) Context() context.Context { return s.ctx }

// Note says in a few words what the step found, for those who watch.
func (s *Step) Note(format string, args ...any) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.row.Note = fmt.Sprintf(format, args...)
}

// Withheld says that a model which the step asked was not shown all of a request: it may not see what is private.
func (s *Step) Withheld() bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.withheld
}

// Over is the bound of the budget that the run has reached, in words; "" none.
func (s *Step) Over() string {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.run.Over
}

// A pause ends a node until a person has decided.
type pause struct{ question string }

func (p *pause) Error() string { return "waits for a person: " + p.question }

// Decide returns what a person decided when the run asked this question, and pauses the run until then: the node returns the error as it is.
func (s *Step) Decide(question string) (string, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if s.run.Decision != "" {
		return s.run.Decision, nil
	}
	return "", &pause{question}
}

// Ask has p answer a request, once: the answer is written down under a name of the node's own, and a run that goes on after a crash gets it
// from there. What the process died in the middle of is asked again.
func (s *Step) Ask(p llm.Provider, name string, req llm.Request) (llm.Answer, error) {
	return llm.Collect(s.Listen(p, name, req))
}

// Listen is Ask as the words come. An answer is written down when all of it has come, and from then on comes in one piece.
func (s *Step) Listen(p llm.Provider, name string, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		if had, ok, err := s.kept(name); err != nil || ok {
			s.saw(had.Route)
			if err != nil {
				yield(llm.Event{}, err)
				return
			}
			yield(llm.Event{Route: had.Route, Text: had.Message.Text(), Usage: &had.Usage, Finish: had.Finish}, nil)
			return
		}
		if s.spent() {
			yield(llm.Event{}, ErrBudget)
			return
		}
		ctx, cancel := s.bounded()
		defer cancel()
		began := time.Now()
		var a llm.Accumulator
		for ev, err := range p.Stream(ctx, req) {
			if err != nil {
				if errors.Is(context.Cause(ctx), ErrBudget) && s.ctx.Err() == nil && s.spent() { // it took longer than there was time
					err = ErrBudget
				}
				yield(llm.Event{}, err)
				return
			}
			s.saw(ev.Route)
			a.Add(ev)
			ev.Finish = "" // that comes when the answer is kept
			if !yield(ev, nil) {
				return
			}
		}
		answer := a.Answer()
		if err := s.keep(name, req, answer, time.Since(began)); err != nil {
			yield(llm.Event{}, err)
			return
		}
		yield(llm.Event{Usage: &answer.Usage, Finish: answer.Finish}, nil)
	}
}

// kept is the answer that a process before this one got under a name.
func (s *Step) kept(name string) (a llm.Answer, ok bool, err error) {
	if s.run.lost {
		return a, false, nil
	}
	return s.store.call(s.ctx, s.row.Run, s.row.N, name)
}

// keep writes an answer down, and what the run has spent with it.
func (s *Step) keep(name string, req llm.Request, a llm.Answer, took time.Duration) error {
	c := CallRow{Name: name, Asked: said(req), Answered: a.Message.Text(), Took: took, finish: a.Finish}
	c.Input, c.Output = a.Usage.Input.Or(0), a.Usage.Output.Or(0)
	if a.Route != nil {
		c.Provider, c.Model, c.Withheld = a.Route.Provider, a.Route.Model, a.Route.Withheld
	}
	if s.store.Cost != nil {
		cost, _ := s.store.Cost(c.Provider, c.Model, a.Usage).Get()
		c.MicroUSD = cost
	}
	s.store.mu.Lock()
	s.run.Spent.Calls++
	s.run.Spent.Tokens += c.Input + c.Output
	s.run.Spent.MicroUSD += c.MicroUSD
	spent := s.run.Spent
	s.store.mu.Unlock()
	// A person may cancel, or the program stop, while this is written: it was paid for.
	return s.run.spared(s.ctx, func() error { return s.store.keep(context.WithoutCancel(s.ctx), s.row.Run, s.row.N, c, spent) })
}

// Tell shows a part of the answer to who asked, while the step runs; false: the reader went away, and the node returns ErrLeft. Told says that something was.
func (s *Step) Tell(ev llm.Event) bool {
	s.heard.any = true
	return s.heard.tell == nil || s.heard.tell(ev)
}

// Told says that this process has told something of the answer.
func (s *Step) Told() bool { return s.heard.any }

// Way says which way the run goes, for lists.
func (s *Step) Way(way string) { s.run.Way = way }

// spent says whether the budget is used up, and notes which bound of it.
func (s *Step) spent() bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	used := s.run.Spent
	used.Time += time.Since(s.row.Began)
	over := s.budget.over(used)
	if over != "" {
		s.run.Over = over
	}
	return over != ""
}

// bounded is a context that ends when the time of the budget is used up.
func (s *Step) bounded() (context.Context, context.CancelFunc) {
	if s.budget.Time <= 0 {
		return s.ctx, func() {}
	}
	s.store.mu.Lock()
	left := s.budget.Time - s.run.Spent.Time - time.Since(s.row.Began)
	s.store.mu.Unlock()
	return context.WithTimeoutCause(s.ctx, left, ErrBudget)
}

func (s *Step) saw(r *llm.Route) {
	s.store.mu.Lock()
	s.withheld = s.withheld || r != nil && r.Withheld > 0
	s.store.mu.Unlock()
}

// Fill has p answer with JSON that fits schema, and decodes it into out. Small models miss the form now and then: it is asked a second time with
// what was wrong, and then it is an error of kind Unavailable.
func (s *Step) Fill(p llm.Provider, name string, req llm.Request, schema json.RawMessage, out any) error {
	req.Format = &llm.Format{Name: "answer", Schema: schema, Strict: true}
	var wrong error
	for _, try := range []string{name, name + " again"} {
		if wrong != nil {
			req.Messages = append(req.Messages[:len(req.Messages):len(req.Messages)],
				llm.Says(llm.User, "That was not the JSON that is asked for ("+wrong.Error()+"). Answer with the JSON object only."))
		}
		a, err := s.Ask(p, try, req)
		if err != nil {
			return err
		}
		if wrong = json.Unmarshal([]byte(object(a.Message.Text())), out); wrong == nil {
			return nil
		}
	}
	return &llm.Error{Kind: llm.Unavailable, Model: req.Model, Message: "the model does not answer in the form that is asked for: " + wrong.Error()}
}

// IsForm says that a model did not answer in the form that it was asked for; a node may do without.
func IsForm(err error) bool {
	var syntax *llm.Error
	return errors.As(err, &syntax) && strings.HasPrefix(syntax.Message, "the model does not answer in the form")
}

// object cuts the JSON object out of what a model said around it.
func object(text string) string {
	from, to := strings.IndexByte(text, '{'), strings.LastIndexByte(text, '}')
	if from < 0 || to < from {
		return text
	}
	return text[from : to+1]
}

// said is what a request asks, for people.
func said(req llm.Request) string {
	var b strings.Builder
	for i, m := range req.Messages {
		if i > 0 {
			b.WriteString("\n\n")
		}
		b.WriteString(string(m.Role) + ": " + m.Text())
	}
	return b.String()
}
