package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

const (
	lookAfter = time.Minute
	mostWoken = 500 // wakings that are repeated at once: most of those jobs are in line, where none is needed
	keepBatch = 100 // jobs that are deleted in one transaction: a prompt may have megabytes
)

// Run looks after the jobs that nobody works on, once a minute until ctx ends: those that waited longer than their deadline fail, though
// no worker has a place for them; a waking that did not reach the engine is repeated; where there is room for what is held for
// a limit, whatever the clock said when it was held, it goes on. And it deletes jobs that ended longer ago than Config.Keep,
// with their steps and timelines. A job of which the vault does not show yet what became of it stays until it does.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	for {
		if err := s.lookAfter(ctx); err != nil && ctx.Err() == nil && !db.Told(err) {
			s.log.Warn("look after jobs", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Service) lookAfter(ctx context.Context) error {
	if err := s.engine.Look(ctx); err != nil {
		return err
	}
	wrong := []error{s.endOverdue(ctx, time.Now()), s.wake(ctx, mostWoken), s.keepStood(ctx)}
	providers, err := limitsOf(ctx, s.db.Read())
	wrong = append(wrong, err)
	for _, p := range providers {
		wrong = append(wrong, s.Room(ctx, p))
	}
	if s.config.Keep > 0 {
		n, err := s.forgetEnded(ctx, time.Now().Add(-s.config.Keep))
		if wrong = append(wrong, err); n > 0 {
			s.log.Info("deleted old jobs", "jobs", n, "ended_before", s.config.Keep.String()+" ago")
		}
	}
	return errors.Join(wrong...)
}

// endOverdue has the jobs fail that waited longer than their deadline.
func (s *Service) endOverdue(ctx context.Context, now time.Time) error {
	ids, err := overdue(ctx, s.db.Read(), now)
	if err != nil {
		return err
	}
	for _, id := range ids {
		var before Job
		j, err := s.change(ctx, id, func(tx *transaction, j *Job) error {
			if before = *j; !j.overdue(now) {
				return errStale
			}
			return s.expire(ctx, tx, j, now)
		})
		if errors.Is(err, errStale) || errors.Is(err, ErrNotFound) { // it went on, or ended
			continue
		}
		if err != nil {
			return err
		}
		s.traceWait(before, j)
		if err := s.engine.Cancel(j.call()); err != nil { // a call that comes all the same finds that the job has ended
			s.log.Warn("cancel job", "job", id, "error", err)
		}
	}
	return nil
}

// overdue says that the job waits, and has waited for longer than it may.
func (j *Job) overdue(now time.Time) bool {
	return j.State.Waiting() && j.Deadline > 0 && j.waited(now) >= j.Deadline
}

// expire has a job fail that is overdue.
func (s *Service) expire(ctx context.Context, tx *transaction, j *Job, now time.Time) error {
	why := ""
	if j.Reason != "" {
		why = ": " + j.Reason
	}
	j.Reason = fmt.Sprintf("it waited %s, longer than its deadline of %s%s", j.waited(now).Round(time.Millisecond), j.Deadline, why)
	return s.finish(ctx, tx, j, Failed, j.Reason)
}

// forgetEnded deletes the jobs that ended before a moment and returns how many. It writes only where there are any.
func (s *Service) forgetEnded(ctx context.Context, before time.Time) (n int, err error) {
	for {
		old, err := endedBefore(ctx, s.db.Read(), before, keepBatch)
		if err != nil || len(old) == 0 {
			return n, err
		}
		deleted := 0
		err = s.db.Tx(ctx, func(tx *transaction) error {
			deleted, err = remove(ctx, tx, old, before)
			if err != nil || deleted == 0 {
				return err
			}
			return tell(ctx, s.db, tx, "")
		})
		if err != nil || deleted == 0 { // somebody else was faster, or began them once more
			return n, err
		}
		n += deleted
		s.announce()
	}
}
