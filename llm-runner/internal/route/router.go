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
	"home.arpa/lab/llm-runner/internal/trace"
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
	// Outside says that a model of a machine at home is answered elsewhere (ollama.com); nil: none is.
	Outside func(model string) bool
	// Probe asks whether the machine is up; nil means there is nothing to ask.
	Probe    func(ctx context.Context) error
	Provider llm.Provider
}

// A Router is a Provider made of Providers.
type Router struct {
	table   atomic.Pointer[Table]
	base    Table // as configured
	auto    bool  // nobody configured a default: the best that is found is it, or otherwise
	other   Target
	order   []*member
	member  map[string]*member
	ledger  *usage.Ledger
	book    *quota.Book
	log     *slog.Logger
	notify  func(Change)
	refused func(string, *llm.Error)
	settled func(string)
	traces  *trace.Tracer

	rebuilding sync.Mutex
}

// A Change is a local machine going down or coming back, or what is heard of it first after the start. Since is when the state
// before it began; zero: nothing had been heard.
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
	// Refused is told when a provider begins to refuse requests for its key or for money, and with nil when it takes one
	// of the same model again, or the first since the start; nil: nobody is. It must not block.
	Refused func(provider string, e *llm.Error)
	// Settled is told when a request of a provider has ended: its limits may have more room than was thought; nil: nobody is. It
	// must not block.
	Settled func(provider string)
	// Traces tells of each attempt, below what it is made for where that is traced; nil: nobody is told.
	Traces *trace.Tracer
}

// New returns a router. Health and discovery begin with Run; until then every machine counts as ready.
func New(c Config) *Router {
	r := &Router{base: c.Table, member: map[string]*member{}, other: c.Otherwise,
		ledger: c.Ledger, book: c.Book, log: c.Log, notify: c.Notify, refused: c.Refused, settled: c.Settled, traces: c.Traces}
	r.auto = c.Table.Default == Target{}
	r.base.Cloud = map[string]bool{}
	for _, m := range c.Members {
		x := &member{Member: m, changed: make(chan struct{}, 1)}
		if m.Concurrency > 0 {
			x.line = newLine(m.Concurrency)
			if shared := c.Book.Share(m.Name, m.Concurrency, x.line.hear); shared != nil {
				x.line.share = shared.Use
			}
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

// Turn is when a request for a provider's model can have its turn that has ahead others like it before it in line.
func (r *Router) Turn(provider, model string, bytes, ahead int) time.Time {
	return r.book.Turn(provider, model, quota.Cost{Input: quota.Tokens(bytes)}, ahead, time.Now())
}

// Lane is the provider that would answer a request now, or that it would wait for; "" where there is none.
func (r *Router) Lane(req llm.Request) string {
	d := r.Decide(Ask{Model: req.Model, Project: req.Project, Requires: req.Requires})
	switch {
	case d.Hold != nil:
		return d.Hold.Target.Provider
	case len(d.Targets) == 0:
		return ""
	}
	return d.Targets[0].Provider
}

// Targets are who may answer a request, fallbacks included, or who it would wait for.
func (r *Router) Targets(req llm.Request) []Target {
	d := r.Decide(Ask{Model: req.Model, Project: req.Project, Requires: req.Requires})
	if d.Hold != nil {
		return []Target{d.Hold.Target}
	}
	return d.Targets
}

// Places is how many requests a provider has at once at most; 0 is unlimited.
func (r *Router) Places(provider string) int {
	if m := r.member[provider]; m != nil {
		return m.Concurrency
	}
	return 0
}

func (r *Router) ready(t Target) Readiness {
	m := r.member[t.Provider]
	if m == nil {
		return Readiness{Kind: llm.Unavailable, Reason: fmt.Sprintf("there is no provider %q", t.Provider)}
	}
	if room := r.book.Room(t.Provider, t.Model, time.Now()); !room.OK {
		return Readiness{Kind: room.Kind, Reason: t.Provider + ": " + room.Reason, Until: room.Until, Dimension: room.Dimension}
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
	withheld int // parts of the request that this target may not see
	room     *quota.Reservation
	span     *trace.Span
	scout    *scout // waits to hear of this attempt; nil: it has heard, or there is none
}

// report tells the scout what became of the attempt; only the first report counts.
func (a *Attempt) report(r report) {
	if a.scout != nil {
		a.scout.heard(r)
		a.scout = nil
	}
}

// Kind is the configured kind of the attempt's provider.
func (a *Attempt) Kind() string { return a.kind }

// Route is the target and its reason, for the first Event and the response's headers.
func (a *Attempt) Route() *llm.Route {
	return &llm.Route{Provider: a.Target.Provider, Model: a.Target.Model, Rule: a.Decision.Rule, Why: a.Decision.Why, Withheld: a.withheld}
}

// First reports the first byte of an answer: from here on, no other target is tried.
func (a *Attempt) First() {
	if a.first.IsZero() {
		a.first = time.Now()
	}
	a.started = true
}

// Used reports tokens; the last report counts. Those of a model that answers for the vault are in that attempt's own row.
func (a *Attempt) Used(u llm.Usage) {
	if a.kind == vaultKind {
		u = llm.Usage{Input: llm.Known(0), Output: llm.Known(0)}
	}
	a.usage = u
}

// vaultKind is the kind of the member that may ask the router itself, for a model to write its answer.
const vaultKind = "vault"

// Finished reports that the answer came to its proper end. An attempt that ends without this and without an error has
// been abandoned by its caller.
func (a *Attempt) Finished() { a.finished = true }

// Learn reports what a response told of rate limits.
func (a *Attempt) Learn(limits []llm.Limit) {
	a.room.Learn(limits, time.Now())
	a.report(answered)
}

// Do decides and calls try for one target after another, until one has begun to answer or cannot be replaced. A target that
// had a hiccup is tried once more, where somebody waits for the answer. Around each call stand: a place in the provider's line, room taken from its rate limits, a ledger row on disk before, its completion after. Errors of kind
// Quota, Overload and Unavailable before the first byte come back as *llm.BusyError unless a named fallback answers; of several,
// the one that ends first. What a fallback fails at is not the last word while another target only has to be waited for. A
// fallback does not answer for a target whose limit has room again within a moment that the caller waits for.
func (r *Router) Do(ctx context.Context, ask Ask, purpose string, try func(context.Context, *Attempt) error) error {
	d := r.Decide(ask)
	waited := d.Hold == nil && d.Rule == RuleFallback && d.passed[0].Until != nil && roomSoon(ctx, ask, d.passed[0].Kind, *d.passed[0].Until)
	if waited {
		d = r.Decide(ask)
	}
	if d.Hold != nil {
		if ask.Requires != "" && r.member[ask.Requires] == nil { // waiting would not help
			return &llm.Error{Kind: llm.BadRequest, Model: ask.Model, Message: fmt.Sprintf("there is no provider %q to require; see llm-runner models", ask.Requires)}
		}
		return busy(*d.Hold)
	}
	o := outcome{}
	for _, h := range d.passed {
		o.add(busy(h))
	}
	for i, target := range d.Targets {
		if i > 0 {
			d.Rule, d.Why = RuleFallback, fmt.Sprintf("%s; %v, so its fallback %s answers", d.Why, o.last, target)
		}
		a := &Attempt{Decision: d, Target: target, router: r}
		err := r.attempt(ctx, a, ask, purpose, try)
		again := waitedFor[purpose] && hiccup(err) && !a.started && aMoment(ctx)
		if !again && !waited && d.Rule != RuleFallback && len(d.Targets) > 1 && !a.started {
			again = roomSoon(ctx, ask, llm.KindOf(err), told(err))
		}
		if again {
			a = &Attempt{Decision: d, Target: target, router: r}
			err = r.attempt(ctx, a, ask, purpose, try)
		}
		if err == nil || a.started || llm.KindOf(err) == llm.Cancelled || d.Rule != RuleFallback && !replaceable(err) {
			return err
		}
		o.add(err)
	}
	return o.err()
}

// waitedFor are the purposes of requests whose answer somebody waits for now.
var waitedFor = map[string]bool{"chat": true, "ask": true, "api": true, "search": true}

func (r *Router) attempt(ctx context.Context, a *Attempt, ask Ask, purpose string, try func(context.Context, *Attempt) error) (err error) {
	m := r.member[a.Target.Provider]
	ctx, a.span = r.traced(ctx, m, a, ask, purpose)
	defer func() { a.span.Done(err) }()
	came, patience := time.Now(), llm.PatienceOf(ctx)
	placed := patience.Wait(m.Name)
	defer placed()
	if err := m.enter(ctx, a.Target.Model, !waitedFor[purpose]); err != nil {
		return &llm.Error{Kind: llm.Cancelled, Provider: m.Name, Message: "gave up waiting in line", Err: err}
	}
	defer m.leave()
	a.span.SetSeconds(trace.Line, time.Since(came))
	a.Provider, a.kind = m.Provider, m.Kind
	if s := m.scout(a.Target.Model); s != nil {
		if err := s.enter(ctx, func() bool { return r.book.Knows(m.Name, a.Target.Model) }); err != nil {
			return &llm.Error{Kind: llm.Cancelled, Provider: m.Name, Message: "gave up waiting for what the first answer tells", Err: err}
		}
		a.scout = s
		defer a.report(nothing)
	}
	if placed(); m.Kind != vaultKind { // that one asks the router itself
		defer patience.Work()()
	}
	var room quota.Room
	now := time.Now() // of the reservation and of the row: by it a killed process's requests are counted again, see quota.Recount
	if a.room, room = r.book.Reserve(m.Name, a.Target.Model, ask.Cost, now); !room.OK {
		return &llm.BusyError{Provider: m.Name, Model: a.Target.Model, Kind: room.Kind, Until: room.Until, Reason: m.Name + ": " + room.Reason, Dimension: room.Dimension}
	}
	row, err := r.ledger.Begin(ctx, usage.Start{At: now, Purpose: purpose, Asked: ask.Model, Rule: a.Decision.Rule,
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
	defer func() { a.told(end) }()
	var e *llm.Error
	errors.As(err, &e)
	var nested *llm.BusyError
	if m.Kind == vaultKind && (errors.As(err, &nested) || e != nil && e.Provider != m.Name) {
		// It is the writer's fault, which has a row of its own and has been learned from.
		a.room.Release(time.Now())
		end.Outcome = usage.Failed
		switch {
		case nested != nil:
			end.Outcome = usage.Busy
		case e.Kind == llm.Cancelled || ctx.Err() != nil:
			end.Outcome = usage.Cancelled
		}
		a.row.Close(end)
		return err
	}
	if e != nil && e.Kind != llm.Quota && e.Kind != llm.Overload && e.Kind != llm.Cancelled {
		defer a.report(failed)
	} else if err == nil && a.finished {
		defer a.report(answered)
	}
	refused := e != nil && !a.started && (e.Kind == llm.Quota || e.Kind == llm.Overload) && ctx.Err() == nil
	oversized := false
	if refused && e.Kind == llm.Quota {
		var l llm.Limit
		if l, oversized = a.room.Oversized(e.Limits); oversized { // however long it waits
			e = &llm.Error{Kind: llm.BadRequest, Provider: m.Name, Model: a.Target.Model, Status: e.Status, TooLong: true, Err: err,
				Message: fmt.Sprintf("the request asks for more at once than the whole limit of %d %s; no wait makes room for it: shorten it, or give its row a fallback", l.Max.Or(0), l.Dimension)}
			err, end.Err, refused = e, e, false
		}
	}
	var until time.Time
	switch {
	case oversized:
		a.room.Release(time.Now())
	case refused:
		until = a.room.Refused(e, time.Now())
	case e != nil && !a.started && uncounted(e.Kind):
		a.room.Release(time.Now())
	default:
		var told []llm.Limit
		if e != nil {
			told = e.Limits
		}
		a.room.Settle(a.usage, told, time.Now())
	}
	switch {
	case err == nil && !a.finished, err != nil && (llm.KindOf(err) == llm.Cancelled || ctx.Err() != nil):
		end.Outcome = usage.Cancelled
	case err == nil:
		r.book.Succeeded(m.Name, a.Target.Model)
		m.heard(nil)
		r.judged(m, a.Target.Model, nil)
	case refused:
		end.Outcome = usage.Busy
		busy := &llm.BusyError{Provider: m.Name, Model: a.Target.Model, Kind: e.Kind, Until: until, Reason: m.Name + ": " + e.Message, Err: e}
		for _, l := range e.Limits {
			if l.Exhausted {
				busy.Dimension = l.Dimension
			}
		}
		err = busy
		m.heard(nil)
	case e != nil && !a.started && e.Kind == llm.Unavailable:
		end.Outcome = usage.Failed
		m.heard(err)
		err = &llm.BusyError{Provider: m.Name, Model: a.Target.Model, Kind: e.Kind, Until: e.Until, Reason: e.Error(), Err: e}
	default:
		end.Outcome = usage.Failed
		if e != nil && (e.Kind == llm.Auth || e.Kind == llm.Spend || e.Kind == llm.Unavailable) {
			m.heard(err)
			r.judged(m, a.Target.Model, e)
		}
	}
	a.row.Close(end)
	if r.settled != nil {
		r.settled(m.Name)
	}
	return err
}

// uncounted says that a provider that refuses so has not counted the request, or has told the count. What fails otherwise
// counts (Gemini: 400 and 500 "count against quota").
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
		ask := Ask{Model: req.Model, Project: req.Project, Requires: req.Requires, Cost: CostOf(&req)}
		if waitedFor[req.Purpose] {
			ask.Wait = moment
		}
		stopped := false
		err := r.Do(ctx, ask, req.Purpose, func(ctx context.Context, a *Attempt) error {
			upstream := req
			upstream.Model = a.Target.Model
			if r.Outside(a.Target) {
				var err error
				if upstream.Messages, a.withheld, err = public(req.Messages, a.Target); err != nil {
					return err
				}
			}
			told := a.span.Record(upstream.Messages)
			for ev, err := range a.Provider.Stream(ctx, upstream) {
				if err != nil {
					return err
				}
				told.Add(ev)
				a.Learn(ev.Limits)
				if !a.started && (ev.Says() || ev.Finish != "" || ev.Citations != nil) {
					a.First()
					ev.Route = a.through(ev.Route)
				} else if ev.Route != nil {
					ev.Route = a.through(ev.Route)
				}
				if ev.Usage != nil {
					a.Used(*ev.Usage)
				}
				if ev.Finish != "" {
					a.span.SetFinish(ev.Finish)
					told.Done(ev.Finish)
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
	err = r.Do(ctx, Ask{Model: req.Model, Cost: cost, Embeds: true}, req.Purpose, func(ctx context.Context, a *Attempt) error {
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
