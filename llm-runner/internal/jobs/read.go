package jobs

import (
	"context"
	"iter"
	"time"
)

// A Filter picks jobs for a list. The zero value is the newest 100.
type Filter struct {
	States   []State // empty: all
	WaitsFor string  // held for this provider; "": whatever for
	Delayed  bool    // only those that have a time to go on
	Limit    int     // 0 means 100
}

// Job returns a job as it stands, with its answer.
func (s *Service) Job(ctx context.Context, id int64) (Job, error) {
	j, err := one(ctx, s.db.Read(), id)
	if err != nil {
		return j, err
	}
	j.Steps = len(j.steps())
	finished, err := stepsOf(ctx, s.db.Read(), id)
	if err != nil {
		return j, err
	}
	j.StepsDone = len(finished)
	if j.State == Queued {
		j.Position, err = position(ctx, s.db.Read(), j)
	}
	return j, err
}

// Jobs lists jobs without prompts and answers: those that wait in the order in which they go on, the others newest first.
func (s *Service) Jobs(ctx context.Context, f Filter) ([]Job, error) {
	return list(ctx, s.db.Read(), f)
}

// Counts is how many jobs there are in each state.
func (s *Service) Counts(ctx context.Context) (map[State]int, error) { return counts(ctx, s.db.Read()) }

// Timeline is what happened to a job after a place in its log.
func (s *Service) Timeline(ctx context.Context, id, after int64) ([]Event, error) {
	return timeline(ctx, s.db.Read(), id, after)
}

// stillHere is how often a reader of a silent job is told that the line is open.
const stillHere = 15 * time.Second

// Events yields what happened to a job after a place in its log, then follows it until it has ended. An empty batch every
// 15 seconds says that it is still silent. When ctx ends its cause is yielded.
func (s *Service) Events(ctx context.Context, id, after int64) iter.Seq2[[]Event, error] {
	return func(yield func([]Event, error) bool) {
		quiet := time.NewTimer(stillHere)
		defer quiet.Stop()
		for {
			changed := s.Changed()
			j, err := one(ctx, s.db.Read(), id)
			if err != nil {
				yield(nil, err)
				return
			}
			batch, err := timeline(ctx, s.db.Read(), id, after)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(batch) > 0 {
				after = batch[len(batch)-1].Seq
				if !yield(batch, nil) {
					return
				}
				quiet.Reset(stillHere)
			}
			if j.State.Ended() {
				return
			}
			select {
			case <-changed:
			case <-quiet.C:
				if !yield(nil, nil) {
					return
				}
				quiet.Reset(stillHere)
			case <-ctx.Done():
				yield(nil, context.Cause(ctx))
				return
			}
		}
	}
}
