package jobs

import (
	"context"
	"slices"
	"time"
)

// A Filter picks jobs for a list. The zero value is the newest 100.
type Filter struct {
	States   []State   // empty: all
	WaitsFor string    // held for this provider; "": whatever for
	Delayed  bool      // only those that have a time to go on
	Since    time.Time // only those that are as they are since then or later, the last first; zero: all
	Limit    int       // 0 means 100
	worker   string    // run by this process; "": by any
}

// Job returns a job as it stands, with its answer.
func (s *Service) Job(ctx context.Context, id int64) (Job, error) {
	j, err := s.read(ctx, id)
	if err != nil {
		return j, err
	}
	one := []Job{j}
	err = s.Estimate(ctx, one)
	return one[0], err
}

// read is Job without an estimate, which looks at the whole line.
func (s *Service) read(ctx context.Context, id int64) (Job, error) {
	j, err := one(ctx, s.db.Read(), id)
	if err != nil {
		return j, err
	}
	j.Steps = len(j.steps())
	finished, err := stepsOf(ctx, s.db.Read(), id)
	if err != nil {
		return j, err
	}
	if j.StepsDone = len(finished); j.State == Done && j.StepsDone > 0 {
		j.Response = finished[j.StepsDone-1].Response
	}
	if j.State == Running {
		j.Arrived = s.draftOf(id)
	}
	return j, nil
}

// Jobs lists jobs without prompts and answers: those that wait in the order in which they go on, the others newest first.
func (s *Service) Jobs(ctx context.Context, f Filter) ([]Job, error) {
	all, err := list(ctx, s.db.Read(), f)
	if err != nil {
		return nil, err
	}
	return all, s.Estimate(ctx, all)
}

// Counts is how many jobs there are in each state.
func (s *Service) Counts(ctx context.Context) (map[State]int, error) { return counts(ctx, s.db.Read()) }

// Timeline is what happened to a job after a place in its log.
func (s *Service) Timeline(ctx context.Context, id, after int64) ([]Event, error) {
	return timeline(ctx, s.db.Read(), id, after)
}

// A Depth is how many jobs are in a state, and since when the oldest is.
type Depth struct {
	State    State
	WaitsFor string // the provider that held ones wait for
	Jobs     int
	Oldest   time.Time
}

// Depths counts the jobs that have not ended; states in which there is none are there with 0.
func (s *Service) Depths(ctx context.Context) ([]Depth, error) {
	all, err := depths(ctx, s.db.Read())
	for _, state := range []State{Queued, Running, Held} {
		if !slices.ContainsFunc(all, func(d Depth) bool { return d.State == state }) {
			all = append(all, Depth{State: state})
		}
	}
	return all, err
}
