package route

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/usage"
)

// A Member is a provider as the router knows it.
type Member struct {
	Name string
	Kind string // ollama, openai, gemini, anthropic, scripted, vault
	// Cloud says that the provider has rate limits and no health to watch; the others are machines at home.
	Cloud bool
	// Found says that nobody configured this provider: it counts only while it answers, and its models become rows of
	// the table by themselves.
	Found bool
	// Concurrency is how many requests it may have at once; 0 is unlimited. The others wait in line.
	Concurrency int
	// Prefer are models that make a good default, best first; used where nobody configured a default.
	Prefer []string
	// Probe asks whether the machine is up; nil means there is nothing to ask.
	Probe    func(ctx context.Context) error
	Provider llm.Provider
}

// A Router is a Provider made of Providers.
type Router struct {
	table  atomic.Pointer[Table]
	base   Table // as configured
	auto   bool  // nobody configured a default: the best that is found is it, or otherwise
	other  Target
	order  []*member
	member map[string]*member
	ledger *usage.Ledger
	book   *quota.Book
	log    *slog.Logger
	notify func(Change)

	rebuilding sync.Mutex
}

// A Change is a local machine going down or coming back. Since is when the state before it began.
type Change struct {
	Provider string
	Up       bool
	Reason   string
	Since    time.Time
}

// A Config is what a Router is made of. The table's Cloud map is filled from the members.
type Config struct {
	Table Table
	// Otherwise is the default where the table has none and nothing is found that could be it.
	Otherwise Target
	Members   []Member
	Ledger    *usage.Ledger
	Book      *quota.Book
	Log       *slog.Logger
	// Notify is told when a local machine goes down or comes back; nil: nobody is. It must not block.
	Notify func(Change)
}

// New returns a router. Health and discovery begin with Run; until then every machine counts as ready.
func New(c Config) *Router {
	r := &Router{base: c.Table, member: map[string]*member{}, other: c.Otherwise,
		ledger: c.Ledger, book: c.Book, log: c.Log, notify: c.Notify}
	r.auto = c.Table.Default == Target{}
	r.base.Cloud = map[string]bool{}
	for _, m := range c.Members {
		x := &member{Member: m, changed: make(chan struct{}, 1)}
		if m.Concurrency > 0 {
			x.slots = make(chan struct{}, m.Concurrency)
		}
		r.order = append(r.order, x)
		r.member[m.Name] = x
		r.base.Cloud[m.Name] = m.Cloud
	}
	r.rebuild()
	return r
}

// Table returns the table in force: the configured rows and those of providers that were found.
func (r *Router) Table() *Table { return r.table.Load() }

// Decide says who would answer now.
func (r *Router) Decide(ask Ask) Decision { return Decide(r.table.Load(), ask, r.ready) }

func (r *Router) ready(t Target) Readiness {
	m := r.member[t.Provider]
	if m == nil {
		return Readiness{Kind: llm.Unavailable, Reason: fmt.Sprintf("there is no provider %q", t.Provider)}
	}
	if room := r.book.Room(t.Provider, t.Model, time.Now()); !room.OK {
		return Readiness{Kind: room.Kind, Reason: t.Provider + ": " + room.Reason, Until: room.Until}
	}
	if h := m.health(); h.Status == Down && m.Probe != nil {
		return Readiness{Kind: llm.Unavailable, Reason: fmt.Sprintf("%s is down since %s: %s", t.Provider,
			h.Since.Local().Format("15:04:05"), h.Error)}
	}
	return Readiness{Ready: true}
}

// An Attempt is one try to have a target answer. Whoever makes it reports what comes.
type Attempt struct {
	Decision Decision
	Target   Target
	Provider llm.Provider
	row      *usage.Attempt
	first    time.Time
	usage    llm.Usage
	started  bool
	finished bool
	router   *Router
	kind     string
	room     *quota.Reservation
}

// Kind is the configured kind of the attempt's provider.
func (a *Attempt) Kind() string { return a.kind }

// Route is the target and its reason, for the first Event and the response's headers.
func (a *Attempt) Route() *llm.Route {
	return &llm.Route{Provider: a.Target.Provider, Model: a.Target.Model, Rule: a.Decision.Rule, Why: a.Decision.Why}
}

// First reports the first byte of an answer: from here on, no other target is tried.
func (a *Attempt) First() {
	if a.first.IsZero() {
		a.first = time.Now()
	}
	a.started = true
}

// Used reports tokens; the last report counts.
func (a *Attempt) Used(u llm.Usage) { a.usage = u }

// Finished reports that the answer came to its proper end. An attempt that ends without this and without an error has
// been abandoned by its caller.
func (a *Attempt) Finished() { a.finished = true }

// Learn reports what a response told of rate limits.
func (a *Attempt) Learn(limits []llm.Limit) {
	a.room.Learn(limits, time.Now())
}

// Do decides and calls try for one target after another, until one has begun to answer or cannot be replaced. Around
// each call stand: a place in the provider's line, room taken from its rate limits, a ledger row on disk before, its completion after. Errors of kind
// Quota, Overload and Unavailable before the first byte come back as *llm.BusyError unless a named fallback answers.
func (r *Router) Do(ctx context.Context, ask Ask, purpose string, try func(context.Context, *Attempt) error) error {
	d := r.Decide(ask)
	if d.Hold != nil {
		if ask.Requires != "" && r.member[ask.Requires] == nil { // waiting would not help
			return &llm.Error{Kind: llm.BadRequest, Model: ask.Model, Message: fmt.Sprintf("there is no provider %q to require; see llm-runner models", ask.Requires)}
		}
		return busy(d)
	}
	var err error
	for i, target := range d.Targets {
		if i > 0 {
			d.Rule, d.Why = RuleFallback, fmt.Sprintf("%s; %v, so its fallback %s answers", d.Why, err, target)
		}
		a := &Attempt{Decision: d, Target: target, router: r}
		if err = r.attempt(ctx, a, ask, purpose, try); err == nil || a.started || !temporary(err) {
			return err
		}
	}
	return err
}

func temporary(err error) bool {
	switch llm.KindOf(err) {
	case llm.Quota, llm.Overload, llm.Unavailable:
		return true
	}
	return false
}

func busy(d Decision) error {
	b := &llm.BusyError{Reason: d.Hold.Reason, Kind: d.Hold.Kind}
	if d.Hold.Until != nil {
		b.Until = *d.Hold.Until
	}
	if len(d.Targets) > 0 {
		b.Provider, b.Model = d.Targets[0].Provider, d.Targets[0].Model
	}
	return b
}

func (r *Router) attempt(ctx context.Context, a *Attempt, ask Ask, purpose string, try func(context.Context, *Attempt) error) error {
	m := r.member[a.Target.Provider]
	if err := m.enter(ctx); err != nil {
		return &llm.Error{Kind: llm.Cancelled, Provider: m.Name, Message: "gave up waiting in line", Err: err}
	}
	defer m.leave()
	a.Provider, a.kind = m.Provider, m.Kind
	var room quota.Room
	if a.room, room = r.book.Reserve(m.Name, a.Target.Model, ask.Cost, time.Now()); !room.OK {
		return &llm.BusyError{Provider: m.Name, Model: a.Target.Model, Kind: room.Kind, Until: room.Until, Reason: m.Name + ": " + room.Reason}
	}
	row, err := r.ledger.Begin(ctx, usage.Start{Purpose: purpose, Asked: ask.Model, Rule: a.Decision.Rule,
		Provider: a.Target.Provider, Model: a.Target.Model})
	if err != nil {
		a.room.Release(time.Now())
		return &llm.Error{Kind: llm.Cancelled, Provider: m.Name, Message: "no ledger row", Err: err}
	}
	a.row = row
	ended := false
	defer func() {
		if !ended { // try panicked
			a.room.Settle(a.usage, nil, time.Now())
			row.Close(usage.End{Outcome: usage.Failed, Err: errors.New("internal fault"), Total: time.Since(row.At)})
		}
	}()
	err = try(ctx, a)
	ended = true
	return r.conclude(ctx, m, a, err)
}

// conclude settles what was reserved, completes the ledger row, lets quota and health learn from the outcome, and turns a refusal that will pass
// into a *llm.BusyError.
func (r *Router) conclude(ctx context.Context, m *member, a *Attempt, err error) error {
	end := usage.End{Outcome: usage.OK, Err: err, Usage: a.usage, Total: time.Since(a.row.At)}
	if !a.first.IsZero() {
		end.FirstByte = a.first.Sub(a.row.At)
	}
	var e *llm.Error
	errors.As(err, &e)
	if e != nil && !a.started && uncounted(e.Kind) {
		a.room.Release(time.Now())
	} else {
		a.room.Settle(a.usage, nil, time.Now())
	}
	switch {
	case err == nil && !a.finished, err != nil && (llm.KindOf(err) == llm.Cancelled || ctx.Err() != nil):
		end.Outcome = usage.Cancelled
	case err == nil:
		r.book.Succeeded(m.Name, a.Target.Model)
		m.heard(nil)
	case e != nil && !a.started && (e.Kind == llm.Quota || e.Kind == llm.Overload):
		end.Outcome = usage.Busy
		until := r.book.Refused(m.Name, a.Target.Model, e, time.Now())
		err = &llm.BusyError{Provider: m.Name, Model: a.Target.Model, Kind: e.Kind, Until: until, Reason: m.Name + ": " + e.Message, Err: e}
		m.heard(nil)
	case e != nil && !a.started && e.Kind == llm.Unavailable:
		end.Outcome = usage.Failed
		m.heard(err)
		err = &llm.BusyError{Provider: m.Name, Model: a.Target.Model, Kind: e.Kind, Reason: e.Error(), Err: e}
	default:
		end.Outcome = usage.Failed
		if e != nil && (e.Kind == llm.Auth || e.Kind == llm.Spend || e.Kind == llm.Unavailable) {
			m.heard(err)
		}
	}
	a.row.Close(end)
	return err
}

// uncounted says that a provider that refuses so has not counted the request. What fails otherwise counts (Gemini: 400 and
// 500 "count against quota").
func uncounted(k llm.Kind) bool {
	switch k {
	case llm.Quota, llm.Overload, llm.Auth, llm.Spend, llm.NotFound:
		return true
	}
	return false
}

// Stream implements llm.Provider. The first Event carries the Route.
func (r *Router) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		ask := Ask{Model: req.Model, Project: req.Project, Requires: req.Requires, Cost: costOf(&req)}
		stopped := false
		err := r.Do(ctx, ask, req.Purpose, func(ctx context.Context, a *Attempt) error {
			upstream := req
			upstream.Model = a.Target.Model
			for ev, err := range a.Provider.Stream(ctx, upstream) {
				if err != nil {
					return err
				}
				a.Learn(ev.Limits)
				if !a.started && (ev.Text != "" || ev.Thinking != "" || ev.Call != nil || ev.Finish != "" || ev.Citations != nil) {
					a.First()
					ev.Route = a.Route()
				}
				if ev.Usage != nil {
					a.Used(*ev.Usage)
				}
				if ev.Finish != "" {
					a.Finished()
				}
				if !a.started {
					continue // nothing to show yet, and another target may still answer
				}
				if !yield(ev, nil) {
					stopped = true
					return nil
				}
			}
			if !a.finished {
				return &llm.Error{Kind: llm.Unavailable, Provider: a.Target.Provider, Model: a.Target.Model,
					Message: "the answer ended without saying why", Started: a.started}
			}
			return nil
		})
		if err != nil && !stopped {
			yield(llm.Event{}, err)
		}
	}
}

// Embed implements llm.Embedder.
func (r *Router) Embed(ctx context.Context, req llm.EmbedRequest) (out llm.Embeddings, err error) {
	cost := quota.Cost{}
	for _, text := range req.Texts {
		cost.Input += quota.Tokens(len(text))
	}
	err = r.Do(ctx, Ask{Model: req.Model, Cost: cost}, req.Purpose, func(ctx context.Context, a *Attempt) error {
		e, ok := a.Provider.(llm.Embedder)
		if !ok {
			return &llm.Error{Kind: llm.BadRequest, Provider: a.Target.Provider, Message: "this provider makes no embeddings: name a model of one that does"}
		}
		upstream := req
		upstream.Model = a.Target.Model
		out, err = e.Embed(ctx, upstream)
		if err != nil {
			return err
		}
		a.First()
		a.Finished()
		a.Used(out.Usage)
		a.Learn(out.Limits)
		return nil
	})
	return out, err
}
