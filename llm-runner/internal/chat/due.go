package chat

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A turn that is due is asked again by itself: one that was held when there is room or its machine is back, one that a dead
// or stopped process left unfinished at the next start. What is due is in the turns themselves; the engine only keeps the
// call that asks. A call has the place in the turn's log at which it was made: once the turn has gone another way the place
// is another one, and the call does nothing. So a turn is asked once, however often it is called.

// task is the name under which the engine calls us.
const task = "turn"

const (
	// mostResumes is how often a turn is asked again because a process ended: if its question is what ends them, a person
	// has to decide.
	mostResumes = 3

	firstLook = time.Minute      // when nobody knows how long a hold lasts: how soon it is asked again
	lastLook  = 15 * time.Minute // and how long at most it waits in between
	spread    = time.Second      // turns that wait for one moment are asked over this long
	apart     = 20 * time.Millisecond
)

// errStale says that a call is not the turn's any more.
var errStale = errors.New("the turn went another way")

// markDue says whether a turn that has just ended is asked again by itself.
func (s *Service) markDue(t *Turn) {
	t.Due = s.config.Engine != nil && (t.State == Held || t.State == Interrupted && t.Resumes < mostResumes)
	if t.State == Held {
		t.Holds++
	}
}

// taskID names the engine's call for a turn as it stands.
func (t *Turn) taskID() string { return fmt.Sprintf("turn-%d-%d", t.ID, t.Seq) }

// at is when a turn that is due is asked again.
func (t *Turn) at(now time.Time) time.Time {
	switch {
	case t.State != Held:
		return now
	case t.RetryAt.IsZero():
		return t.Ended.Add(min(firstLook<<min(max(t.Holds-1, 0), 10), lastLook))
	}
	return t.RetryAt.Add(rand.N(spread)) //nolint:gosec // not a secret
}

// schedule has the engine call turns that are due. One that it knows of already is left alone. What it cannot be told now it is
// told by Run.
func (s *Service) schedule(ctx context.Context, all ...Turn) {
	if s.config.Engine == nil || len(all) == 0 {
		return
	}
	err := errors.New("the disk refuses")
	if s.db.Trouble() == nil {
		err = s.db.Tx(ctx, func(tx *transaction) error {
			now := time.Now()
			for _, t := range all {
				o := engine.Options{Lane: "turns " + t.Route.Provider, Delay: max(t.at(now).Sub(now), 0)}
				if err := s.config.Engine.Start(tx, task, t.taskID(), fmt.Sprintf("%d/%d", t.ID, t.Seq), o); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		s.log.Debug("schedule turns", "turns", len(all), "error", err)
		s.missed.Store(true)
	}
}

// moved has the turns that are held go on by a clock that was set: each wait is as long as it was. Their places in their logs are others
// then, so that a call that came early, by the new clock, does nothing.
func (s *Service) moved(ctx context.Context, by time.Duration) error {
	var all []Turn
	err := s.db.Tx(ctx, func(tx *transaction) error {
		all = nil
		due, err := dueTurns(ctx, tx)
		if err != nil {
			return err
		}
		for _, t := range due {
			if t, err = lockedTurn(ctx, s.db, tx, t.ID); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			if err != nil || !t.Due || t.State != Held {
				continue
			}
			t.Seq++
			t.Started, t.Ended = t.Started.Add(by), t.Ended.Add(by)
			if !t.RetryAt.IsZero() {
				t.RetryAt = t.RetryAt.Add(by)
			}
			if err := errors.Join(updateTurn(ctx, tx, t), tell(ctx, s.db, tx, t.ID)); err != nil {
				return err
			}
			all = append(all, t)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.schedule(ctx, all...)
	for _, t := range all {
		s.changed(t.ID)
	}
	return nil
}

// scheduleAll schedules every turn that is due.
func (s *Service) scheduleAll(ctx context.Context) {
	all, err := dueTurns(ctx, s.db.Read())
	if err != nil {
		s.log.Warn("read turns that wait", "error", err)
		s.missed.Store(true)
		return
	}
	s.schedule(ctx, all...)
}

// Back has the turns go on that are held for a provider that has come back, or until its fallback has room, a little apart.
func (s *Service) Back(ctx context.Context, provider string) error {
	if s.config.Engine == nil {
		return nil
	}
	all, err := dueTurns(ctx, s.db.Read())
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(t Turn) bool {
		return t.State != Held || t.Route.Provider != provider && (t.RetryAt.IsZero() || s.config.Lane == nil ||
			s.config.Lane(llm.Request{Model: t.Asked, Project: t.Project}) != provider)
	})
	for i, t := range all {
		if err := s.config.Engine.Wake(t.taskID(), time.Now().Add(time.Duration(i)*apart)); err != nil {
			return err
		}
	}
	return nil
}

// Waits says whether a turn that goes on by itself is held for a provider.
func (s *Service) Waits(ctx context.Context, provider string) (bool, error) {
	all, err := dueTurns(ctx, s.db.Read())
	return slices.ContainsFunc(all, func(t Turn) bool { return t.State == Held && t.Route.Provider == provider }), err
}

// Decided has the turn go on that is held because a person had to decide about a call of its run (see Turn.RunName).
func (s *Service) Decided(ctx context.Context, run string) error {
	number, ok := strings.CutPrefix(run, "turn-")
	id, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || s.config.Engine == nil {
		return nil //nolint:nilerr // a run of somebody else
	}
	all, err := turnsOfRun(ctx, s.db.Read(), id, "t.due AND t.state = 'held' AND")
	if err != nil {
		return err
	}
	for _, t := range all {
		if err := s.config.Engine.Wake(t.taskID(), time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// lookForWord has a turn that was held for a person's word go on where that came while it was not held yet.
func (s *Service) lookForWord(ctx context.Context, t *Turn) {
	asks, err := s.config.Asks(ctx, t.RunName())
	if err == nil && !asks {
		err = s.Decided(ctx, t.RunName())
	}
	if err != nil {
		s.log.Warn("look for a decision", "turn", t.ID, "error", err) // it looks for itself before long
	}
}

// Goes says whether something may still come of a run (see Turn.RunName).
func (s *Service) Goes(ctx context.Context, run string) (bool, error) {
	id, err := strconv.ParseInt(strings.TrimPrefix(run, "turn-"), 10, 64)
	if err != nil {
		return false, nil //nolint:nilerr // a run of somebody else
	}
	all, err := turnsOfRun(ctx, s.db.Read(), id, "")
	return slices.ContainsFunc(all, func(t Turn) bool { return !t.Over() }), err
}

// call asks a turn again for the engine and waits until the answer has ended. It returns an error only when ctx ends: then
// the next process is called.
func (s *Service) call(ctx context.Context, key string) error {
	a, b, _ := strings.Cut(key, "/")
	turn, err1 := strconv.ParseInt(a, 10, 64)
	seq, err2 := strconv.ParseInt(b, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return engine.Final(fmt.Errorf("read key of turn %q: %w", key, err))
	}
	for {
		t, err := s.resume(ctx, turn, seq)
		switch {
		case err == nil:
			return s.await(ctx, t.ID)
		case errors.Is(err, errStale), errors.Is(err, ErrNotFound), errors.Is(err, ErrRunning):
			return nil
		case errors.Is(err, ErrClosed):
			<-ctx.Done()
		case ctx.Err() == nil:
			s.log.Warn("ask again", "turn", turn, "error", err)
		}
		again := time.NewTimer(time.Second)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return context.Cause(ctx)
		}
	}
}

// await waits until a turn of this process has ended.
func (s *Service) await(ctx context.Context, turn int64) error {
	l := s.running(turn)
	if l == nil {
		return nil
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// resume asks a turn again that is due and stands at a place in its log; else errStale.
func (s *Service) resume(ctx context.Context, turn, seq int64) (Turn, error) {
	t, err := s.askOf(ctx, turn, func(tx *transaction, t Turn, now time.Time) (Turn, error) {
		if !t.Due || t.Seq != seq {
			return Turn{}, errStale
		}
		next := t
		if t.State == Interrupted {
			next.Resumes++
		}
		next, err := s.askAgain(ctx, tx, next, now)
		if err != nil {
			return Turn{}, err
		}
		return next, moveLeaf(ctx, tx, t.Chat, t.ID, next.ID)
	})
	if err == nil {
		s.changed(turn)
	}
	return t, err
}

// askAgain asks what a turn asked, in its place where it has no text, beside it otherwise, so that nothing that came is lost.
// Holds and Resumes are taken over.
func (s *Service) askAgain(ctx context.Context, tx *transaction, t Turn, now time.Time) (Turn, error) {
	m, _, err := oneMessage(ctx, tx, t.ID)
	if err != nil {
		return Turn{}, err
	}
	next := Turn{ID: t.ID, Chat: t.Chat, State: Waiting, Seq: t.Seq, Asked: t.Asked, Project: t.Project, Started: now, Holds: t.Holds, Resumes: t.Resumes,
		Tools: t.Tools, Memory: t.Memory, Run: t.Run}
	if m.Text == "" || t.State == Held { // what a held turn has said it says again: the run has kept it
		if err := forgetText(ctx, tx, t.ID); err != nil {
			return Turn{}, err
		}
		return next, errors.Join(updateTurn(ctx, tx, next), take(ctx, tx, t.ID, s.db.Worker()), tell(ctx, s.db, tx, t.ID))
	}
	if err := s.drop(ctx, tx, t); err != nil {
		return Turn{}, err
	}
	return s.insertTurn(ctx, tx, next, m.Parent)
}

// drop has a turn wait no longer, where it did: another one is asked instead.
func (s *Service) drop(ctx context.Context, tx *transaction, t Turn) error {
	if !t.Due {
		return nil
	}
	return errors.Join(undue(ctx, tx, t.ID), tell(ctx, s.db, tx, t.ID))
}

// stopWaiting has a turn that is due wait no longer; false where it was not due any more.
func (s *Service) stopWaiting(ctx context.Context, t Turn) (stopped bool, err error) {
	err = s.write(ctx, t.Chat, func(tx *transaction) error {
		stopped = false
		t, err := lockedTurn(ctx, s.db, tx, t.ID)
		if err != nil || !t.Due {
			return err
		}
		stopped = true
		t.State, t.Due, t.Error, t.RetryAt, t.Seq = Stopped, false, "", time.Time{}, t.Seq+1
		return errors.Join(updateTurn(ctx, tx, t), tell(ctx, s.db, tx, t.ID))
	})
	if err == nil {
		s.changed(t.ID)
	}
	return stopped, err
}
