package graph

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/trace"
)

// A Status says how a run stands.
type Status string

const (
	Running   Status = "running"   // or to be gone on with, by whoever began it
	Paused    Status = "paused"    // a person has to decide
	Done      Status = "done"      // its state is final
	Failed    Status = "failed"    // for good
	Cancelled Status = "cancelled" // a person did not want it any more
)

// A Budget bounds a run; zero fields do not.
type Budget struct {
	Steps    int           // nodes that are run
	Calls    int           // questions to models
	Tokens   int64         // in and out
	MicroUSD int64         // millionths of a dollar
	Time     time.Duration // of work; what it waits does not count
}

// Spent is what a run has used.
type Spent struct {
	Steps    int           `json:"steps"`
	Calls    int           `json:"calls"`
	Tokens   int64         `json:"tokens"`
	MicroUSD int64         `json:"micro_usd"`
	Time     time.Duration `json:"time_ns"`
}

// over says which of its bounds s has reached; "" none.
func (b Budget) over(s Spent) string {
	switch {
	case b.Steps > 0 && s.Steps >= b.Steps:
		return fmt.Sprintf("%d steps", b.Steps)
	case b.Calls > 0 && s.Calls >= b.Calls:
		return fmt.Sprintf("%d questions to models", b.Calls)
	case b.Tokens > 0 && s.Tokens >= b.Tokens:
		return fmt.Sprintf("%d tokens", b.Tokens)
	case b.MicroUSD > 0 && s.MicroUSD >= b.MicroUSD:
		return fmt.Sprintf("$%.4f", float64(b.MicroUSD)/1e6)
	case b.Time > 0 && s.Time >= b.Time:
		return b.Time.String()
	}
	return ""
}

// ErrBudget is what a Step answers once the budget is used up. A node that returns it ends there; the run goes on at the last node.
var ErrBudget = errors.New("the budget is used up")

// maxState is how large a state may become, in bytes of JSON: it is kept after each step.
const maxState = 1 << 20

// A PausedError says that a run waits for a person.
type PausedError struct {
	Run      int64
	Question string
}

func (e *PausedError) Error() string {
	return fmt.Sprintf("run %d waits for a decision: %s", e.Run, e.Question)
}

// An Ask is what a run is begun with.
type Ask[S any] struct {
	// Key names the work that the run is part of: the same key goes on with the same run. "" is a run of its own each time.
	Key    string
	Chat   int64  // the conversation that it belongs to; 0 none
	Title  string // what it is about, for lists
	State  S      // it begins with; what a run with that key has already counts more
	Budget Budget
	// As is the name that it is kept under; "" that of the graph.
	As string
	// Tell is what Step.Tell calls; nil: nobody hears.
	Tell func(llm.Event) bool
	// Fleeting runs go on in memory where the store refuses to write, and are then not kept: somebody waits for the answer.
	Fleeting bool
	// Watch is told of each step when it begins and when it has ended; nil: nobody is.
	Watch func(StepRow)
}

// Run runs a until its end, or goes on with the run that has its key, and returns the final state. An error that passes leaves the run to
// be gone on with; so does the end of ctx.
func (g *Graph[S]) Run(ctx context.Context, st *Store, a Ask[S]) (run RunRow, state S, err error) {
	if a.Key != "" {
		unlock := st.hold(a.Key)
		defer unlock()
	}
	input, err := encode(a.State)
	if err != nil {
		return run, state, err
	}
	run = RunRow{Graph: cmp.Or(a.As, g.name), Key: a.Key, Chat: a.Chat, Title: a.Title, Status: Running, Input: input, Began: time.Now(), fleeting: a.Fleeting}
	if err = run.spared(ctx, func() (err error) {
		begun, err := st.begin(ctx, run)
		if err == nil {
			run, run.fleeting = begun, a.Fleeting
		}
		return err
	}); err != nil {
		return run, state, err
	}
	return g.proceed(ctx, st, run, a)
}

// Proceed goes on with a run that was forked, or whose pause a person has ended.
func (g *Graph[S]) Proceed(ctx context.Context, st *Store, id int64, budget Budget, watch func(StepRow)) (RunRow, S, error) {
	var none S
	run, err := st.Run(ctx, id)
	if err != nil {
		return run, none, err
	}
	unlock := st.hold(cmp.Or(run.Key, fmt.Sprintf("run %d", id)))
	defer unlock()
	if run, err = st.Run(ctx, id); err != nil { // who had it before may have ended it
		return run, none, err
	}
	if run.Status == Failed && run.Key == "" {
		return run, none, fmt.Errorf("run %d has failed: fork it to go on", id)
	}
	return g.proceed(ctx, st, run, Ask[S]{Budget: budget, Watch: watch})
}

func (g *Graph[S]) proceed(ctx context.Context, st *Store, run RunRow, a Ask[S]) (_ RunRow, state S, err error) {
	ctx, span := st.Traces.Begin(ctx, trace.Graph, g.name)
	defer func() { span.Done(err) }()
	span.SetInt(trace.GraphRun, run.ID)
	if run.Key == "" && !run.lost {
		release, err := st.claim(ctx, run.ID)
		if err != nil {
			return run, state, err
		}
		defer release()
	}
	var steps []StepRow
	if !run.lost {
		if steps, err = st.Steps(ctx, run.ID); err != nil {
			return run, state, err
		}
	}
	node, current, taken := g.nodes[0].Name, run.Input, map[string]int{}
	for _, s := range steps {
		if s.Ended.IsZero() {
			break
		}
		node, current = s.Next, s.State
		taken[way(s.Node, s.Next)]++
	}
	if err = json.Unmarshal(current, &state); err != nil && run.Status != Done {
		return g.fail(ctx, st, run, state, g.broken(fmt.Errorf("read the state of run %d: %w", run.ID, err)))
	}
	switch run.Status {
	case Done:
		return run, state, err
	case Failed: // whoever asks again has mended what was wrong
		run.Status, run.Error, run.Ended = Running, "", time.Time{}
		if err := st.end(ctx, &run); err != nil {
			return run, state, err
		}
	case Cancelled:
		return run, state, &llm.Error{Kind: llm.BadRequest, Provider: run.Graph, Message: fmt.Sprintf("run %d was cancelled by a person: fork it to go on", run.ID)}
	case Paused:
		return run, state, &PausedError{run.ID, run.Question}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !run.lost {
		defer st.running(run.ID, cancel)()
	}
	listener := &heard{tell: a.Tell}
	finished := len(steps)
	if finished > 0 && steps[finished-1].Ended.IsZero() {
		finished--
	}
	for n := finished; node != End; n++ {
		if _, known := g.at[node]; !known {
			return g.fail(ctx, st, run, state, g.broken(fmt.Errorf("run %d: there is no node %q in this version of %s: fork it from an earlier step", run.ID, node, g.name)))
		}
		if why := a.Budget.over(run.Spent); why != "" && !g.ending(node) {
			taken[way("", g.last)]++
			node = g.last
			run.Over = why
		}
		var next string
		if run, next, err = g.step(ctx, st, run, n, node, &state, taken, a, listener); err != nil {
			return g.fail(ctx, st, run, state, err)
		}
		taken[way(node, next)]++
		node = next
	}
	run.Status, run.Ended = Done, time.Now()
	return run, state, run.spared(ctx, func() error { return st.end(ctx, &run) })
}

// spared has write write something down of r. Where the store refuses, a fleeting run goes on without; nothing of it is written from then on.
func (r *RunRow) spared(ctx context.Context, write func() error) error {
	if r.lost {
		return nil
	}
	err := write()
	if err != nil && r.fleeting && ctx.Err() == nil && !errors.Is(err, errCancelled) {
		r.lost, err = true, nil
	}
	return err
}

// ending says that a node is the one for used-up budgets, or comes after it.
func (g *Graph[S]) ending(node string) bool {
	return g.reach(g.last, func(Edge[S]) bool { return true })[node]
}

// step runs one node and writes down what became of it.
func (g *Graph[S]) step(ctx context.Context, st *Store, run RunRow, n int, node string, state *S, taken map[string]int, a Ask[S], listener *heard) (_ RunRow, _ string, err error) {
	ctx, span := trace.Start(ctx, trace.Node, node)
	defer func() { span.Done(err) }()
	span.SetInt(trace.StepN, int64(n))
	row := StepRow{Run: run.ID, N: n, Node: node, Says: g.nodes[g.at[node]].Says, Began: time.Now()}
	if err := run.spared(ctx, func() error { return st.beginStep(ctx, &row) }); err != nil {
		return run, "", err
	}
	tell(a.Watch, row)
	s := &Step{ctx: ctx, store: st, run: &run, row: &row, budget: a.Budget, heard: listener}
	before, err := encode(*state)
	if err != nil {
		return run, "", err
	}
	err = g.call(s, node, state)
	next := ""
	var paused *pause
	switch {
	case errors.Is(err, ErrBudget) && node != g.last:
		next, row.Note = g.last, "the budget is used up: "+run.Over
		var fresh S // the node may have changed what the state points to
		if err := json.Unmarshal(before, &fresh); err != nil {
			return run, "", fmt.Errorf("read the state of run %d: %w", run.ID, err)
		}
		*state = fresh
	case errors.As(err, &paused):
		run.Status, run.Question = Paused, paused.question
		if err := st.pause(ctx, &run); err != nil {
			return run, "", err
		}
		return run, "", &PausedError{run.ID, paused.question}
	case err != nil:
		return run, "", err
	default:
		next = g.next(node, state, taken)
	}
	if row.State, err = encode(*state); err != nil {
		return run, "", err
	}
	row.Next, row.Ended = next, time.Now()
	run.Spent.Steps++
	run.Spent.Time += row.Ended.Sub(row.Began)
	run.Decision = ""
	if err := run.spared(ctx, func() error { return st.endStep(ctx, &run, &row) }); err != nil {
		return run, "", err
	}
	tell(a.Watch, row)
	return run, next, nil
}

// call runs a node; one that panics fails its own run only.
func (g *Graph[S]) call(s *Step, node string, state *S) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("node %s: internal fault: %v", node, p)
		}
	}()
	return g.nodes[g.at[node]].Run(s, state)
}

// broken is an error of a run that no further try mends.
func (g *Graph[S]) broken(err error) error {
	return &llm.Error{Kind: llm.BadRequest, Provider: g.name, Message: err.Error(), Err: err}
}

// Fork begins another run as Store.Fork does; an edited state must be one of this graph.
func (g *Graph[S]) Fork(ctx context.Context, st *Store, id int64, step int, state json.RawMessage) (RunRow, error) {
	if state != nil {
		var fits S
		d := json.NewDecoder(bytes.NewReader(state))
		d.DisallowUnknownFields()
		if err := d.Decode(&fits); err != nil {
			return RunRow{}, fmt.Errorf("fork run %d: the state is not one of %s: %w", id, g.name, err)
		}
	}
	return st.Fork(ctx, id, step, state)
}

// fail ends a run for good, unless what went wrong passes and somebody asks again: who asked with a key, or, for a fork, this program. What it passes
// for a fork is that its machine is busy, or that the program stops.
func (g *Graph[S]) fail(ctx context.Context, st *Store, run RunRow, state S, err error) (RunRow, S, error) {
	var busy *llm.BusyError
	var paused *PausedError
	switch {
	case errors.Is(context.Cause(ctx), errCancelled), errors.Is(err, errCancelled):
		run.Status, run.Error, run.Ended = Cancelled, "cancelled by a person", time.Now()
		err = errors.Join(&llm.Error{Kind: llm.Cancelled, Provider: run.Graph, Message: "the run was cancelled"}, run.spared(context.WithoutCancel(ctx), func() error { return st.end(context.WithoutCancel(ctx), &run) }))
	case errors.As(err, &paused):
	case run.Key != "" && (ctx.Err() != nil || errors.As(err, &busy) || !llm.KindOf(err).Permanent()), run.ForkedFrom > 0 && (ctx.Err() != nil || errors.As(err, &busy)):
		// It goes on when it is asked for again.
	default:
		run.Status, run.Error, run.Ended = Failed, err.Error(), time.Now()
		if werr := run.spared(context.WithoutCancel(ctx), func() error { return st.end(context.WithoutCancel(ctx), &run) }); werr != nil {
			err = errors.Join(err, werr)
		}
	}
	return run, state, err
}

func tell(watch func(StepRow), row StepRow) {
	if watch != nil {
		watch(row)
	}
}

func encode(state any) (json.RawMessage, error) {
	b, err := json.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	if len(b) > maxState {
		return nil, &llm.Error{Kind: llm.BadRequest, Message: fmt.Sprintf("the run's state has grown to %d bytes; %d are the most", len(b), maxState)}
	}
	return b, nil
}

// errCancelled is why the context of a run ends that a person cancels.
var errCancelled = errors.New("cancelled by a person")

// locks lets one run of a key go on at a time.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	mu   sync.Mutex
	uses int
}

func (l *locks) hold(key string) (unlock func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	x := l.held[key]
	if x == nil {
		x = &lock{}
		l.held[key] = x
	}
	x.uses++
	l.mu.Unlock()
	x.mu.Lock()
	return func() {
		x.mu.Unlock()
		l.mu.Lock()
		if x.uses--; x.uses == 0 {
			delete(l.held, key)
		}
		l.mu.Unlock()
	}
}
