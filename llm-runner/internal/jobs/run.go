package jobs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
	"home.arpa/lab/llm-runner/internal/trace"
	"home.arpa/lab/llm-runner/internal/usage"
)

// researcher is the model that answers from the owner's sources, step by step.
const researcher = "research"

// errCancelled is why the context of a running job ends when a person cancels it.
var errCancelled = errors.New("cancelled by a person")

// WorkName is the name of a job in the ledger.
func WorkName(job int64) string { return fmt.Sprintf("job-%d", job) }

// RunName is the name under which whoever answers a step of a job keeps what it did for it; steps count from 0.
func RunName(job int64, step int) string { return fmt.Sprintf("job-%d-%d", job, step) }

// call is the id of the engine's call for the job's present run.
func (j *Job) call() string { return fmt.Sprintf("job-%d-%d", j.ID, j.Run) }

// key is what the engine tells the call: the job and its run.
func (j *Job) key() string { return fmt.Sprintf("%d/%d", j.ID, j.Run) }

// start has the engine call the job again, after a delay, in the lane of who would answer it now. The caller saves j.
func (s *Service) start(tx *transaction, j *Job, delay time.Duration) error {
	j.Run++
	lane := ""
	if s.config.Lane != nil {
		lane = s.config.Lane(s.request(j, ""))
	}
	return s.engine.Start(tx, task, j.call(), j.key(), engine.Options{Lane: lane, Order: (j.ord - epoch) / 1000, Delay: delay})
}

const (
	// overtaking is how much later than a job of one priority a job of the next one above may come and still go first. So a
	// job is overtaken only by those that come within eight times this after it (priority 1 and priority 9): two hours. It
	// never starves.
	overtaking = 15 * time.Minute
	epoch      = 1767225600000 // 2026-01-01 in unix milliseconds: the engine's order has room for 68 years after it
)

// order is the place of a job in every line, lowest first: when it came, and overtaking for each step of its priority.
func order(created time.Time, priority int) int64 {
	return created.Add(time.Duration(priority-1) * overtaking).UnixMilli()
}

// size is about how many bytes the job asks with.
func (j *Job) size() int { return max(len(j.Prompt), len(j.Request)) }

// request is what a provider is asked for a job.
func (s *Service) request(j *Job, prompt string) llm.Request {
	req := llm.Request{Messages: []llm.Message{llm.Says(llm.User, prompt)}}
	if len(j.Request) > 0 {
		req, _ = parse(j.Request) // it was checked when the job was submitted
	}
	req.Model, req.Requires, req.Project, req.Purpose = j.Asked, j.Requires, j.Project, "job"
	if j.Type == Research {
		req.Model, req.Plan = researcher, j.Plan
	}
	return req
}

// call works on a job for the engine. It returns nil once what became of the run is on disk.
func (s *Service) call(ctx context.Context, key string) error {
	a, b, _ := strings.Cut(key, "/")
	id, err1 := strconv.ParseInt(a, 10, 64)
	run, err2 := strconv.Atoi(b)
	if err := errors.Join(err1, err2); err != nil {
		return engine.Final(fmt.Errorf("read key of job %q: %w", key, err))
	}
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.running[key] = cancel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.running, key)
		delete(s.inLines, key)
		s.mu.Unlock()
	}()
	j, err := s.begin(ctx, id, run)
	if err != nil || j.State != Running || j.Run != run {
		return err
	}
	s.log.Info("job runs", "job", id, "title", j.Title)
	working, line := s.stand(working, &j)
	defer line.stop()
	working, span := trace.Start(s.config.Traces.Within(working, j.trace), trace.Run, "")
	span.SetInt(trace.RunN, int64(run))
	err = s.work(usage.For(working, WorkName(id)), &j)
	span.Done(err)
	defer s.forgetDraft(&j)
	if ctx.Err() != nil {
		s.putDown(&j, line)
		return context.Cause(ctx) // the program ends; the next one calls again
	}
	return s.conclude(ctx, id, run, err, line)
}

// putDown notes that a process stops in the midst of a job, and did not die of it.
func (s *Service) putDown(j *Job, line *standing) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := s.change(ctx, j.ID, func(_ *transaction, now *Job) error {
		if now.State != Running || now.Run != j.Run || now.worker != j.worker {
			return errStale
		}
		now.begun = max(now.begun-1, 0)
		line.count(now)
		return nil
	}); err != nil && !errors.Is(err, errStale) && !errors.Is(err, ErrNotFound) {
		s.log.Warn("put down job", "job", j.ID, "error", err)
	}
}

// errStale says that a call is not the job's any more.
var errStale = errors.New("the job went another way")

// begin has the job running, unless it went another way or waited too long.
func (s *Service) begin(ctx context.Context, id int64, run int) (Job, error) {
	var first Job // one that goes first, as it waited
	tries := 0
	var before Job // as it waited
	j, err := s.persist(ctx, id, func(tx *transaction, j *Job) error {
		first = Job{}
		if tries++; tries == 1 || j.State.Waiting() {
			before = *j
		}
		if tries > 1 && j.Run == run && j.State == Running && j.worker == s.db.Worker() {
			return nil // it was written, though the connection broke before we heard of it
		}
		if j.Run != run || !j.State.Waiting() {
			return errStale
		}
		now := time.Now()
		if j.overdue(now) {
			return s.expire(ctx, tx, j, now)
		}
		if done, err := s.giveWay(ctx, tx, j, &first); done || err != nil {
			return err
		}
		note := "a worker took it"
		if j.State == Held {
			note = "its time has come"
		}
		if j.Started.IsZero() {
			j.Started = now
		}
		j.free()
		j.worker = s.db.Worker()
		j.begun++
		return move(ctx, tx, j, Running, note)
	})
	s.traceWait(before, j)
	if err == nil && first.ID != 0 {
		let := first
		let.State = Queued
		s.traceWait(first, let)
		err = s.engine.Wake(first.call(), time.Now())
	}
	return j, err
}

// free forgets what the job was held for.
func (j *Job) free() {
	j.Reason, j.WaitsFor, j.WaitsModel, j.Dimension, j.ResumeAt = "", "", "", "", time.Time{}
}

// mostInVain is how often a job may come at its turn and find that smaller ones have used the room that it needs. Then nobody
// of its line goes before it any more, and the room grows until it is enough: it does not starve. A limit that comes back as a
// whole (at midnight) never gets there, so what is left of it may be used by those that it is enough for.
const mostInVain = 3

// giveWay lets a job go first that is held for a limit, came before j in line, and could have its turn now, or had it in vain
// too often: j takes its place among the held. So room that came back is not taken by those who happen to ask first. A job that
// a person released, or that was let go first, gives way to nobody.
func (s *Service) giveWay(ctx context.Context, tx *transaction, j *Job, let *Job) (done bool, err error) {
	if s.config.Turn == nil || s.config.Lane == nil || j.State == Queued && !j.ResumeAt.IsZero() {
		return false, nil
	}
	provider := s.config.Lane(s.request(j, ""))
	if id, err := comesFirst(ctx, tx, j, provider); err != nil || id != 0 {
		if err != nil {
			return false, err
		}
		j.Reason, j.WaitsFor = fmt.Sprintf("job %d goes first: it came before it in line, and often in vain", id), provider
		return true, s.hold(ctx, tx, j, time.Now().Add(spread), j.Reason)
	}
	first, err := foremost(ctx, s.db, tx, j, provider)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	turn, now := s.config.Turn(first.WaitsFor, first.WaitsModel, first.size(), 0), time.Now()
	if turn.After(now) && first.Holds <= mostInVain {
		return false, nil
	}
	j.Reason, j.WaitsFor, j.WaitsModel, j.Dimension = first.Reason, first.WaitsFor, first.WaitsModel, first.Dimension
	if turn.After(now) {
		until, err := s.holdUntil(ctx, tx, j, &llm.BusyError{Provider: first.WaitsFor, Model: first.WaitsModel, Dimension: first.Dimension, Until: first.ResumeAt}, now)
		if err != nil {
			return false, err
		}
		return true, s.hold(ctx, tx, j, until, fmt.Sprintf("job %d goes first: it came before it in line, and came %d times in vain", first.ID, first.Holds-1))
	}
	held, until := first, first.ResumeAt
	first.ResumeAt = now
	if err := move(ctx, tx, &first, Queued, "there is room, and it is first in line"); err != nil {
		return false, err
	}
	if err := save(ctx, tx, &first); err != nil {
		return false, err
	}
	*let = held
	return true, s.hold(ctx, tx, j, until, fmt.Sprintf("job %d goes first: it came before it in line", first.ID))
}

// lookForWord has a job that was held for a person's word go on where that came while it was not held yet.
func (s *Service) lookForWord(ctx context.Context, id int64) {
	asks, err := s.config.Asks(ctx, fmt.Sprintf("job-%d", id))
	if err == nil && !asks {
		_, err = s.release(ctx, id, "you have decided", time.Now())
	}
	var other *StateError
	if err != nil && !errors.As(err, &other) { // it went on or ended meanwhile
		s.log.Warn("look for a decision", "job", id, "error", err) // it looks for itself before long
	}
}

// GoesOn is when a held job is tried again by itself; zero where it waits for a person's word, which is only looked for then.
func (j Job) GoesOn() time.Time {
	if j.WaitsFor == loop.Approval {
		return time.Time{}
	}
	return j.ResumeAt
}

// waited is how long the job has been queued and held in all.
func (j *Job) waited(now time.Time) time.Duration {
	if j.State.Waiting() {
		return j.Waited + max(now.Sub(j.Since), 0)
	}
	return j.Waited
}

// work asks for the steps that are not finished yet. A provider that panics fails its own job only.
func (s *Service) work(ctx context.Context, j *Job) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("provider panicked", "job", j.ID, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal fault while answering: %v", p)
		}
	}()
	finished, err := stepsOf(ctx, s.db.Read(), j.ID)
	if err != nil {
		return err
	}
	prompts := j.steps()
	for n := len(finished); n < len(prompts); n++ {
		prompt := prompts[n]
		if j.Type == Chain {
			before := ""
			if n > 0 {
				before = finished[n-1].Output
			}
			prompt = fill(prompt, before)
		}
		req := s.request(j, prompt)
		req.Run = RunName(j.ID, n)
		if j.Type == Chain && n > 0 && finished[n-1].Private {
			req.Messages[0].Parts[0].Private = true // it has the answer before in it
		}
		if req.Use = j.Tools; len(j.Tools) > 0 && n > 0 {
			req.Own = []string{j.Prompt} // the answer of the step before is not what the person wrote
		}
		a, err := s.answer(ctx, j, n, req)
		if err != nil {
			return err
		}
		step := step{N: n, Output: a.Message.Text(), Citations: a.Citations, Finish: a.Finish, Usage: a.Usage, Private: a.Private || j.Type == Chain && n > 0 && finished[n-1].Private}
		if a.Route != nil {
			step.Route = *a.Route
		}
		if len(j.Request) > 0 {
			step.Response = respond(j, a)
		}
		if strings.TrimSpace(step.Output) == "" && !slices.ContainsFunc(a.Message.Parts, func(p llm.Part) bool { return p.Call != nil }) {
			return &llm.Error{Kind: llm.Unavailable, Provider: step.Route.Provider, Model: step.Route.Model, Message: "the model ended its answer without a word"}
		}
		if s.config.Cost != nil {
			step.Cost = s.config.Cost(step.Route.Provider, step.Route.Model, a.Usage)
		}
		if _, err := s.persist(ctx, j.ID, func(tx *transaction, now *Job) error {
			if now.State != Running || now.Run != j.Run {
				return errStale
			}
			now.Attempts, now.Holds, now.begun = 0, 0, 1 // they are counted for each step
			if err := insertStep(ctx, tx, j.ID, step); err != nil {
				return err
			}
			if len(prompts) == 1 {
				return nil
			}
			return note(ctx, tx, now, fmt.Sprintf("step %d of %d is finished", n+1, len(prompts)))
		}); err != nil {
			return err
		}
		finished = append(finished, step)
	}
	return nil
}

// answer has a step answered.
func (s *Service) answer(ctx context.Context, j *Job, n int, req llm.Request) (a llm.Answer, err error) {
	ctx, span := trace.Start(ctx, trace.Step, "")
	span.SetInt(trace.StepN, int64(n+1))
	a, err = s.collect(j, s.provider.Stream(ctx, req))
	span.Done(err)
	return a, err
}

// conclude writes down what became of a run: the answer, a hold, or the failure.
func (s *Service) conclude(ctx context.Context, id int64, run int, err error, line *standing) error {
	after, perr := s.persist(ctx, id, func(tx *transaction, j *Job) error {
		if j.State != Running || j.Run != run {
			return errStale
		}
		j.begun = 0
		where := line.count(j)
		now := time.Now()
		var busy *llm.BusyError
		isBusy := errors.As(err, &busy)
		switch {
		case err == nil:
			if err := j.add(ctx, tx); err != nil {
				return err
			}
			j.Reason = ""
			return s.finish(ctx, tx, j, Done, "the answer is complete")
		case j.Deadline > 0 && j.Waited >= j.Deadline:
			if j.Reason = err.Error(); where != "" {
				j.Reason = "it stood in the line of " + where
			}
			return s.expire(ctx, tx, j, now)
		case isBusy && (busy.Err == nil || busy.Kind != llm.Unavailable):
			j.Holds++
			j.Reason, j.WaitsFor, j.WaitsModel, j.Dimension = busy.Reason, busy.Provider, busy.Model, busy.Dimension
			until, err := s.holdUntil(ctx, tx, j, busy, now)
			if err != nil {
				return err
			}
			if err := s.exhausted(ctx, tx, busy); err != nil {
				return err
			}
			return s.hold(ctx, tx, j, until, j.Reason)
		case llm.KindOf(err).Permanent():
			j.Reason = err.Error()
			return s.finish(ctx, tx, j, Failed, j.Reason)
		}
		j.Attempts++
		j.Reason = err.Error()
		if isBusy {
			j.WaitsFor, j.Reason = busy.Provider, busy.Reason
		}
		if j.Attempts >= j.MaxAttempts {
			j.Reason = fmt.Sprintf("attempt %d of %d: %s", j.Attempts, j.MaxAttempts, j.Reason)
			return s.finish(ctx, tx, j, Failed, j.Reason)
		}
		j.Reason = fmt.Sprintf("attempt %d of %d: %s", j.Attempts, j.MaxAttempts, j.Reason)
		again := now.Add(backoff(s.config.Backoff, j.Attempts))
		if isBusy && busy.Until.After(again) {
			again = busy.Until
		}
		return s.hold(ctx, tx, j, again, j.Reason)
	})
	if perr == nil && after.ID != 0 {
		s.traceEnd(after)
		s.log.Info("job is "+string(after.State), "job", id, "reason", after.Reason)
		if after.State == Held && after.WaitsFor == loop.Approval && s.config.Asks != nil {
			s.lookForWord(ctx, id)
		}
	}
	return perr
}

// hold has the job wait until a time, or until its deadline where that is earlier.
func (s *Service) hold(ctx context.Context, tx *transaction, j *Job, until time.Time, text string) error {
	now := time.Now()
	if j.Deadline > 0 {
		if last := now.Add(max(j.Deadline-j.waited(now), 0)); until.After(last) {
			until = last
		}
	}
	j.ResumeAt = until
	tell := move
	if j.State == Held { // still
		tell = func(ctx context.Context, tx *transaction, j *Job, _ State, text string) error {
			return note(ctx, tx, j, text)
		}
	}
	if err := tell(ctx, tx, j, Held, text); err != nil {
		return err
	}
	if err := s.config.Alerts.Holds(ctx, tx, j.WaitsFor, j.ID); err != nil {
		return err
	}
	return s.start(tx, j, max(until.Sub(now), time.Millisecond))
}

const (
	firstLook  = time.Minute      // when nobody knows how long a hold lasts: how soon somebody looks
	lastLook   = 15 * time.Minute // and how often at most it is looked
	looksApart = 15 * time.Second // how much later the next in line looks whether a machine is back, which somebody else watches
	maxBackoff = 10 * time.Minute
	spread     = time.Second // holds that end at one moment are woken over this long, so that they do not come as a storm
)

// holdUntil is when a held job goes on: at its turn where it waits for a limit, so that a line comes back as fast as the limit
// lets it through; else when the provider said, a little spread; after a growing while where nobody knows, or where somebody else may be well again
// before that. Those that wait for a machine look one after the other, for they all would see the same, and hear when it is back.
func (s *Service) holdUntil(ctx context.Context, tx *transaction, j *Job, b *llm.BusyError, now time.Time) (time.Time, error) {
	until, look := b.Until, now.Add(min(firstLook<<min(max(j.Holds, 1)-1, 10), lastLook))
	if until.IsZero() {
		until = look
	}
	if b.Until.IsZero() && b.Kind == llm.Unavailable {
		n, err := aheadFor(ctx, tx, j)
		if err != nil {
			return until, err
		}
		until = until.Add(time.Duration(n) * looksApart)
	}
	apart := spread
	if b.Dimension != "" && s.config.Turn != nil {
		n, err := ahead(ctx, tx, j)
		if err != nil {
			return until, err
		}
		apart = spread / 10
		if turn := s.config.Turn(b.Provider, b.Model, j.size(), n); turn.After(until) {
			until = turn
		}
	}
	if b.Broken && until.After(look) {
		until = look
	}
	if until.Before(now) {
		until = now
	}
	return until.Add(time.Duration(rand.Int64N(int64(apart)))), nil //nolint:gosec // not a secret
}

// backoff is the wait after a number of faults in a row: four times as long each time, up to half of it more or less.
func backoff(first time.Duration, attempts int) time.Duration {
	d := min(first<<min(2*(attempts-1), 30), maxBackoff)
	return d/2 + time.Duration(rand.Int64N(int64(d))) //nolint:gosec // not a secret
}

// change reads a job, changes it and writes it back, in one transaction.
func (s *Service) change(ctx context.Context, id int64, f func(tx *transaction, j *Job) error) (j Job, err error) {
	err = s.db.Tx(ctx, func(tx *transaction) error {
		if j, err = locked(ctx, s.db, tx, id); err != nil {
			return err
		}
		if err := f(tx, &j); err != nil {
			return err
		}
		if err := save(ctx, tx, &j); err != nil {
			return err
		}
		return tell(ctx, s.db, tx, "")
	})
	if err == nil {
		s.announce()
	}
	return j, err
}

// persist is change for a call: while the disk refuses it tries again. A stale call gets the job as it is.
func (s *Service) persist(ctx context.Context, id int64, f func(tx *transaction, j *Job) error) (Job, error) {
	for {
		j, err := s.change(ctx, id, f)
		switch {
		case errors.Is(err, errStale), errors.Is(err, ErrNotFound):
			return Job{}, nil
		case err == nil:
			return j, nil
		case ctx.Err() != nil:
			return Job{}, context.Cause(ctx)
		}
		if !db.Told(err) { // that one is told of once, not every second for every job
			s.log.Error("write job", "job", id, "error", err)
		}
		again := time.NewTimer(time.Second)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
}
