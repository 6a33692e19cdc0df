package agent

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
	"home.arpa/lab/llm-runner/internal/trace"
)

// errStale says that a call is not the run's any more.
var errStale = errors.New("the run went another way")

// A waitError ends a call: the run goes on at a time.
type waitError struct {
	until time.Time
	why   string
	on    string // the provider that is waited for; "" none
}

func (e *waitError) Error() string { return e.why }

const (
	mostAttempts = 5 // faults that may pass
	firstBackoff = 30 * time.Second
	unknownWait  = 5 * time.Minute // for a machine of which nobody knows when it is back; Back tells earlier
	mostText     = 256 << 10       // bytes of what a run says
)

// backoff is the wait after the n-th fault, from 1.
func backoff(n int) time.Duration { return firstBackoff << min(2*(n-1), 12) }

// call works on a run for the engine. It returns nil once what became of it is on disk.
func (s *Service) call(ctx context.Context, key string) error {
	a, b, _ := strings.Cut(key, "/")
	id, err1 := strconv.ParseInt(a, 10, 64)
	n, err2 := strconv.Atoi(b)
	if err := errors.Join(err1, err2); err != nil {
		return engine.Final(fmt.Errorf("read key of a run %q: %w", key, err))
	}
	r, err := s.begin(ctx, id, n)
	if errors.Is(err, errStale) || errors.Is(err, sql.ErrNoRows) { // or deleted meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	s.reached("begun")
	working, rest := s.holding(ctx, id)
	defer rest()
	out, err := s.work(working, &r)
	if ctx.Err() != nil {
		return context.Cause(ctx) // the program ends; the next one calls again
	}
	s.reached("worked")
	return s.conclude(ctx, &r, out, err)
}

// holding is a context for the work on a run: it ends where a person cancels the run.
func (s *Service) holding(ctx context.Context, id int64) (working context.Context, rest func()) {
	working, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	s.working[id] = cancel
	s.mu.Unlock()
	return working, func() {
		s.mu.Lock()
		delete(s.working, id)
		s.mu.Unlock()
		cancel(nil)
	}
}

// begin marks a run as running. errStale says that the call is not its own any more.
func (s *Service) begin(ctx context.Context, id int64, n int) (Run, error) {
	yielded := false
	r, err := s.change(ctx, id, func(tx *transaction, r *Run) (err error) {
		if r.call != n || r.State != Queued && r.State != Running {
			return errStale
		}
		if yielded, err = yield(ctx, tx, r); yielded || err != nil {
			return err
		}
		r.State, r.worker = Running, s.db.Worker()
		if r.Started.IsZero() {
			r.Started = s.config.Now()
		}
		return nil
	})
	if err == nil && yielded {
		err = errStale
	}
	return r, err
}

// errCancelled is why the context of a run ends that a person cancels.
var errCancelled = errors.New("cancelled by a person")

// cancelWord begins what processes tell each other of a run that is cancelled.
const cancelWord = "cancel "

// ErrEnded says that nothing more happens to a run.
var ErrEnded = errors.New("this run has ended")

// Cancel ends a run that has not ended, with what it has called; what is not delivered yet never is.
func (s *Service) Cancel(ctx context.Context, id int64) (Run, error) {
	if _, err := s.Run1(ctx, id); err != nil {
		return Run{}, err
	}
	ended := false
	r, err := s.change(ctx, id, func(tx *transaction, x *Run) error {
		if ended = x.State.Ended(); ended {
			return errStale
		}
		now := s.config.Now()
		x.State, x.Reason, x.Ended, x.NextAt, x.Waits = Cancelled, errCancelled.Error(), now, time.Time{}, ""
		if err := withdraw(ctx, tx, id, now); err != nil {
			return err
		}
		if err := endChildren(ctx, tx, x.ID, now); err != nil {
			return err
		}
		return s.db.Tell(ctx, tx, topic, cancelWord+strconv.FormatInt(id, 10))
	})
	if ended {
		return r, ErrEnded
	}
	if err == nil {
		s.end(id)
	}
	return r, err
}

// end has the call of a run end, if it is this process's.
func (s *Service) end(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stop := s.working[id]; stop != nil {
		stop(errCancelled)
	}
}

// Adopt has the runs go on that another process left; it is dead.
func (s *Service) Adopt(ctx context.Context, worker string) error {
	left, err := runs(ctx, s.db, `WHERE ended_at IS NULL AND state = 'running' AND worker = ? AND cause <> 'agent'`, worker)
	if err != nil {
		return err
	}
	for _, r := range left {
		options := s.options(r.Agent)
		if _, err := s.changeQuietly(ctx, r, func(tx *transaction, x *Run) error {
			x.call++
			x.State = Queued
			return s.engine.Start(tx, task, fmt.Sprintf("agent-%d-%d", x.ID, x.call), fmt.Sprintf("%d/%d", x.ID, x.call), options)
		}); err != nil {
			return err
		}
	}
	return nil
}

// Back has the runs go on that wait for a provider, or for a person's word, or for the limit of the provider's fallback: it is there.
func (s *Service) Back(ctx context.Context, provider string) error {
	left, err := runs(ctx, s.db, `WHERE ended_at IS NULL AND state = 'waiting' AND waits_for <> ''`)
	if err != nil {
		return err
	}
	left = slices.DeleteFunc(left, func(r Run) bool {
		if r.Waits == provider || r.Waits == loop.Approval || s.config.Lane == nil {
			return r.Waits != provider
		}
		a, err := s.Find(r.Agent)
		return err != nil || s.config.Lane(llm.Request{Model: a.Model}) != provider
	})
	for _, r := range left {
		if _, err := s.changeQuietly(ctx, r, func(_ *transaction, x *Run) error {
			x.NextAt = s.config.Now()
			return nil
		}); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		s.announce()
	}
	return nil
}

// A runner is a run at work.
type runner struct {
	s     *Service
	ctx   context.Context
	run   *Run
	agent Agent
	began time.Time // this call
}

// work does what the run's agent does. One that panics fails its own run only.
func (s *Service) work(ctx context.Context, r *Run) (out Output, err error) {
	began := s.config.Now()
	ctx, span := s.config.Traces.Begin(ctx, trace.Agent, r.Agent)
	defer func() { traced(span, r, err) }()
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("an agent's run panicked", "run", r.ID, "panic", p, "stack", string(debug.Stack()))
			err = &llm.Error{Kind: llm.BadRequest, Message: fmt.Sprintf("internal fault: %v", p)}
		}
		r.Work += max(s.config.Now().Sub(began), 0).Milliseconds()
	}()
	a, err := s.Find(r.Agent)
	if err != nil {
		return out, err // its file may be back in a while: a folder that is synchronised, or somebody at work on it
	}
	x := &runner{s: s, ctx: ctx, run: r, agent: a, began: began}
	switch a.Kind {
	case Briefing:
		out, err = x.briefing()
	case Research:
		out, err = x.research()
	case Memory:
		out, err = x.memory()
	default:
		out, err = x.prompt()
	}
	out.Text, out.Outside = tidy(s.config.Hide(out.Text)), tidy(s.config.Hide(out.Outside))
	for i := range out.Notes {
		out.Notes[i].Text = tidy(s.config.Hide(out.Notes[i].Text))
	}
	if r.Covers > 1 {
		out.Remarks = append(out.Remarks, fmt.Sprintf("this run is for %d due times, of which the others were missed", r.Covers))
	}
	return out, err
}

// traced ends the span of a run's life with what is known of the run.
func traced(span *trace.Span, r *Run, err error) {
	if span.On() {
		span.Set(trace.AgentName, r.Agent)
		span.SetInt(trace.AgentRun, r.ID)
		span.Set(trace.Name, r.By)
		span.Set(trace.Answered, r.Model)
		if r.MicroUSD > 0 {
			span.SetCost(llm.Known(r.MicroUSD))
		}
	}
	var wait *waitError
	if errors.As(err, &wait) {
		err = nil // it goes on at another time
	}
	span.Done(err)
}

// tidy bounds a text and takes out what could end a section of a note early, or hide text from people.
func tidy(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.NewReplacer("<!--", "&lt;!--", "\x00", "").Replace(text)
	if len(text) > mostText {
		text = strings.ToValidUTF8(text[:mostText], "") + "\n\n(cut: it was longer)"
	}
	return strings.TrimSpace(text)
}

// step does a piece of work once: what it says is kept, and a run that is taken up again gets it from there.
func (x *runner) step(name string, f func() (output, note string, err error)) (string, error) {
	output, done, err := x.s.beginStep(x.ctx, x.run.ID, name)
	if err != nil || done {
		return output, err
	}
	x.s.reached("step " + name)
	output, note, err := f()
	if err != nil {
		return "", err
	}
	x.s.reached("made " + name)
	// It is there, and perhaps paid for: it is kept whatever has become of whoever asked.
	lasting, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), 10*time.Second)
	defer cancel()
	if err := x.s.endStep(lasting, x.run, name, output, note); err != nil {
		return "", err
	}
	x.s.reached("kept " + name)
	return output, nil
}

// stepJSON is step for what is not text.
func stepJSON[T any](x *runner, name string, f func() (T, string, error)) (v T, err error) {
	text, err := x.step(name, func() (string, string, error) {
		v, note, err := f()
		if err != nil {
			return "", "", err
		}
		b, err := json.Marshal(v)
		return string(b), note, err
	})
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return v, fmt.Errorf("read step %s of run %d: %w", name, x.run.ID, err)
	}
	return v, nil
}

// spend adds what an answer has cost to the run.
func (x *runner) spend(a llm.Answer) {
	x.run.Tokens += a.Usage.Input.Or(0) + a.Usage.Output.Or(0)
	if a.Route == nil {
		return
	}
	x.run.By, x.run.Model = a.Route.Provider, a.Route.Model
	if x.s.config.Cost != nil {
		x.run.MicroUSD += x.s.config.Cost(a.Route.Provider, a.Route.Model, a.Usage).Or(0)
	}
}

// conclude writes down what became of a run's work.
func (s *Service) conclude(ctx context.Context, r *Run, out Output, err error) error {
	var wait *waitError
	var busy *llm.BusyError
	now := s.config.Now()
	_, werr := s.change(ctx, r.ID, func(tx *transaction, x *Run) error {
		if x.call != r.call || x.State != Running {
			return errStale
		}
		x.Tokens, x.MicroUSD, x.By, x.Model, x.Work, x.Over = r.Tokens, r.MicroUSD, r.By, r.Model, r.Work, r.Over
		switch {
		case err == nil:
			return s.finish(ctx, tx, x, out, now)
		case errors.As(err, &wait):
			x.State, x.NextAt, x.Reason, x.Waits = Waiting, wait.until, wait.why, wait.on
			return nil
		case errors.As(err, &busy):
			x.State, x.NextAt, x.Reason, x.Waits = Waiting, busy.Until, busy.Reason, busy.Provider
			if !x.NextAt.After(now) {
				x.NextAt = now.Add(unknownWait)
			}
			return nil
		case !llm.KindOf(err).Permanent() && x.attempts+1 < mostAttempts:
			x.attempts++
			x.State, x.NextAt, x.Reason = Waiting, now.Add(backoff(x.attempts)), err.Error()
			return nil
		}
		return s.failRun(ctx, tx, x, err, now)
	})
	if errors.Is(werr, errStale) {
		return nil
	}
	s.reached("concluded")
	if werr == nil && errors.As(err, &busy) && busy.Provider == loop.Approval && s.config.Asks != nil {
		s.lookForWord(ctx, r)
	}
	return werr
}

// lookForWord has a run that waits for a person's word go on where that came while it did not wait yet.
func (s *Service) lookForWord(ctx context.Context, r *Run) {
	asks, err := s.config.Asks(ctx, fmt.Sprintf("agent-%d", r.ID))
	if err == nil && !asks {
		_, err = s.change(ctx, r.ID, func(_ *transaction, x *Run) error {
			if x.State == Waiting && x.Waits == loop.Approval {
				x.NextAt = s.config.Now()
			}
			return nil
		})
		s.announce()
	}
	if err != nil {
		s.log.Warn("look for a decision", "run", r.ID, "error", err) // it looks for itself before long
	}
}

func (s *Service) failRun(ctx context.Context, tx *transaction, x *Run, err error, now time.Time) error {
	x.State, x.Reason, x.Ended, x.NextAt, x.Waits = Failed, s.config.Hide(err.Error()), now, time.Time{}, ""
	s.log.Warn("an agent's run failed", "agent", x.Agent, "run", x.ID, "error", x.Reason)
	if x.alone() {
		if err := s.config.Alerts.News(ctx, tx, fmt.Sprintf("The agent %s failed: %s. llm-runner agent history %s has its runs.", x.Agent, strings.TrimRight(x.Reason, "."), x.Agent)); err != nil {
			return err
		}
	}
	return endChildren(ctx, tx, x.ID, now)
}

// finish ends a run's work: what it says is kept, and a delivery for each place.
func (s *Service) finish(ctx context.Context, tx *transaction, x *Run, out Output, now time.Time) error {
	x.Output, x.Reason, x.Waits, x.NextAt = out, "", "", time.Time{}
	x.State, x.Ended = Done, now
	if err := endChildren(ctx, tx, x.ID, now); err != nil {
		return err
	}
	if !x.alone() {
		return nil
	}
	a, gone := s.Find(x.Agent)
	if gone != nil { // its file was taken away while it ran
		x.Output.Remarks = append(x.Output.Remarks, "it was not delivered: "+gone.Error())
	}
	for _, d := range s.deliveriesOf(a, x, now) {
		if err := insertDelivery(ctx, tx, d); err != nil {
			return err
		}
		if d.Ended.IsZero() {
			x.State, x.Ended = Delivering, time.Time{}
		}
	}
	return nil
}

// memory has facts about the person learnt.
func (x *runner) memory() (Output, error) {
	title := x.agent.Title + ", " + x.day()
	if x.s.config.Learn == nil {
		return Output{Title: title, Text: "Memory is not set up here, so nothing was learnt."}, nil
	}
	if dry, err := x.dry(); err != nil || dry {
		return Output{Title: title, Text: "A dry run learns nothing: what would be remembered is only known once conversations have been read."}, err
	}
	if !x.s.config.Writer() {
		return Output{Title: title, Text: "No model is connected, so nothing was learnt: the conversations wait."}, nil
	}
	text, err := x.step("learn", func() (string, string, error) {
		report, cost, err := x.s.config.Learn(x.ctx, fmt.Sprintf("agent-%d", x.run.ID))
		x.run.Tokens += cost.Tokens
		x.run.MicroUSD += cost.MicroUSD
		return report, "conversations read", err
	})
	// What was learnt about a person is theirs alone.
	return Output{Title: title, Text: text, Outside: "Facts were looked for in your conversations; the note in the vault and the run's page have them."}, err
}

// dry says that the run, or the one on whose behalf it works, has no effects.
func (x *runner) dry() (bool, error) {
	for r := *x.run; ; {
		if r.Cause == Dry {
			return true, nil
		}
		if r.Parent == 0 {
			return false, nil
		}
		var err error
		if r, err = x.s.Run1(x.ctx, r.Parent); err != nil {
			return false, err
		}
	}
}

// day is the day that the run is for, in its agent's zone.
func (x *runner) day() string { return x.due().Format(time.DateOnly) }

func (x *runner) due() time.Time { return x.run.Due.In(x.agent.Schedule.zone) }
