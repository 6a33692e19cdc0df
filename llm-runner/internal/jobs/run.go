package jobs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
)

// vault is the model that answers from the owner's notes.
const vault = "vault"

// errCancelled is why the context of a running job ends when a person cancels it.
var errCancelled = errors.New("cancelled by a person")

// call is the id of the engine's call for the job's present run.
func (j *Job) call() string { return fmt.Sprintf("job-%d-%d", j.ID, j.Run) }

// key is what the engine tells the call: the job and its run.
func (j *Job) key() string { return fmt.Sprintf("%d/%d", j.ID, j.Run) }

// start has the engine call the job again, after a delay. The caller saves j.
func (s *Service) start(tx *transaction, j *Job, delay time.Duration) error {
	j.Run++
	return s.engine.Start(tx, task, j.call(), j.key(), engine.Options{Priority: j.Priority, Delay: delay})
}

// call works on a job for the engine. It returns nil once what became of the run is on disk.
func (s *Service) call(ctx context.Context, key string) error {
	a, b, _ := strings.Cut(key, "/")
	id, err1 := strconv.ParseInt(a, 10, 64)
	run, err2 := strconv.Atoi(b)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("read key of job %q: %w", key, err)
	}
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.running[key] = cancel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.running, key)
		s.mu.Unlock()
	}()
	j, err := s.begin(ctx, id, run)
	if err != nil || j.State != Running || j.Run != run {
		return err
	}
	err = s.work(working, &j)
	if ctx.Err() != nil {
		return context.Cause(ctx) // the program ends; the next one calls again
	}
	return s.conclude(ctx, id, run, err)
}

// errStale says that a call is not the job's any more.
var errStale = errors.New("the job went another way")

// begin has the job running, unless it went another way or waited too long.
func (s *Service) begin(ctx context.Context, id int64, run int) (Job, error) {
	return s.persist(ctx, id, func(tx *transaction, j *Job) error {
		if j.Run != run || !j.State.Waiting() {
			return errStale
		}
		now := time.Now()
		if j.Deadline > 0 && j.waited(now) >= j.Deadline {
			why := ""
			if j.Reason != "" {
				why = ": " + j.Reason
			}
			j.Reason = fmt.Sprintf("it waited %s, longer than its deadline of %s%s", j.waited(now).Round(time.Millisecond), j.Deadline, why)
			j.Ended = now
			return move(ctx, tx, j, Failed, j.Reason)
		}
		note := "a worker took it"
		if j.State == Held {
			note = "its time has come"
		}
		if j.Started.IsZero() {
			j.Started = now
		}
		j.Reason, j.WaitsFor, j.ResumeAt = "", "", time.Time{}
		return move(ctx, tx, j, Running, note)
	})
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
		req := llm.Request{Model: j.Asked, Requires: j.Requires, Project: j.Project, Purpose: "job",
			Messages: []llm.Message{llm.Says(llm.User, prompt)}}
		if j.Type == Research {
			req.Model = vault
		}
		a, err := llm.Collect(s.provider.Stream(ctx, req))
		if err != nil {
			return err
		}
		step := step{N: n, Output: a.Message.Text(), Citations: a.Citations, Finish: a.Finish, Usage: a.Usage}
		if a.Route != nil {
			step.Route = *a.Route
		}
		if strings.TrimSpace(step.Output) == "" {
			return &llm.Error{Kind: llm.Unavailable, Provider: step.Route.Provider, Model: step.Route.Model, Message: "the model ended its answer without a word"}
		}
		if s.config.Cost != nil {
			step.Cost = s.config.Cost(step.Route.Provider, step.Route.Model, a.Usage)
		}
		if _, err := s.persist(ctx, j.ID, func(tx *transaction, now *Job) error {
			if now.State != Running || now.Run != j.Run {
				return errStale
			}
			now.Attempts, now.Holds = 0, 0 // they are counted for each step
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

// conclude writes down what became of a run: the answer, a hold, or the failure.
func (s *Service) conclude(ctx context.Context, id int64, run int, err error) error {
	_, perr := s.persist(ctx, id, func(tx *transaction, j *Job) error {
		if j.State != Running || j.Run != run {
			return errStale
		}
		now := time.Now()
		var busy *llm.BusyError
		isBusy := errors.As(err, &busy)
		switch {
		case err == nil:
			if err := j.add(ctx, tx); err != nil {
				return err
			}
			j.Ended, j.Reason = now, ""
			return move(ctx, tx, j, Done, "the answer is complete")
		case isBusy && (busy.Err == nil || busy.Kind != llm.Unavailable):
			j.Holds++
			j.Reason, j.WaitsFor = busy.Reason, busy.Provider
			return s.hold(ctx, tx, j, holdUntil(busy, j.Holds, now))
		case llm.KindOf(err).Permanent():
			j.Ended, j.Reason = now, err.Error()
			return move(ctx, tx, j, Failed, j.Reason)
		}
		j.Attempts++
		j.Reason = err.Error()
		if isBusy {
			j.WaitsFor, j.Reason = busy.Provider, busy.Reason
		}
		if j.Attempts >= j.MaxAttempts {
			j.Ended, j.Reason = now, fmt.Sprintf("attempt %d of %d: %s", j.Attempts, j.MaxAttempts, j.Reason)
			return move(ctx, tx, j, Failed, j.Reason)
		}
		j.Reason = fmt.Sprintf("attempt %d of %d: %s", j.Attempts, j.MaxAttempts, j.Reason)
		return s.hold(ctx, tx, j, now.Add(backoff(s.config.Backoff, j.Attempts)))
	})
	return perr
}

// hold has the job wait until a time, or until its deadline where that is earlier.
func (s *Service) hold(ctx context.Context, tx *transaction, j *Job, until time.Time) error {
	now := time.Now()
	if j.Deadline > 0 {
		if last := now.Add(max(j.Deadline-j.Waited, 0)); until.After(last) {
			until = last
		}
	}
	j.ResumeAt = until
	if err := move(ctx, tx, j, Held, j.Reason); err != nil {
		return err
	}
	return s.start(tx, j, max(until.Sub(now), time.Millisecond))
}

const (
	firstLook  = time.Minute      // when nobody knows how long a hold lasts: how soon somebody looks
	lastLook   = 15 * time.Minute // and how often at most it is looked
	maxBackoff = 10 * time.Minute
	spread     = time.Second // holds that end at one moment are woken over this long, so that they do not come as a storm
)

// holdUntil is when a held job goes on: when the provider said, a little spread; after a growing while where nobody knows.
func holdUntil(b *llm.BusyError, holds int, now time.Time) time.Time {
	until := b.Until
	if until.IsZero() {
		until = now.Add(min(firstLook<<min(holds-1, 10), lastLook))
	}
	if until.Before(now) {
		until = now
	}
	return until.Add(time.Duration(rand.Int64N(int64(spread)))) //nolint:gosec // not a secret
}

// backoff is the wait after a number of faults in a row: four times as long each time, up to half of it more or less.
func backoff(first time.Duration, attempts int) time.Duration {
	d := min(first<<min(2*(attempts-1), 30), maxBackoff)
	return d/2 + time.Duration(rand.Int64N(int64(d))) //nolint:gosec // not a secret
}

// change reads a job, changes it and writes it back, in one transaction.
func (s *Service) change(ctx context.Context, id int64, f func(tx *transaction, j *Job) error) (j Job, err error) {
	err = s.db.Tx(ctx, func(tx *transaction) error {
		if j, err = one(ctx, tx, id); err != nil {
			return err
		}
		if err := f(tx, &j); err != nil {
			return err
		}
		return save(ctx, tx, &j)
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
		s.log.Error("write job", "job", id, "error", err)
		again := time.NewTimer(time.Second)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
}
