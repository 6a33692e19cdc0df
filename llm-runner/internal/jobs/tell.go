package jobs

import (
	"context"
	"fmt"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/llm"
)

// finish has a job end by itself, and tells whoever wants to hear of it.
func (s *Service) finish(ctx context.Context, tx *transaction, j *Job, to State, note string) error {
	j.Ended = time.Now()
	if err := move(ctx, tx, j, to, note); err != nil {
		return err
	}
	if !j.Notify.of(to) {
		return nil
	}
	return s.config.Alerts.News(ctx, tx, j.news())
}

// of says whether a person is told of an end.
func (n Notify) of(end State) bool {
	return n == NotifyAlways || n == NotifySuccess && end == Done || n == NotifyFailure && end == Failed
}

// news is the end of a job as a sentence.
func (j *Job) news() string {
	if j.State == Failed {
		return fmt.Sprintf("Job %d (%s) has failed: %s. Try it again with: llm-runner job retry %d", j.ID, j.Title, j.Reason, j.ID)
	}
	return fmt.Sprintf("Job %d (%s) is done, answered by %s, %s after it was handed in.", j.ID, j.Title, llm.On(j.Route.Model, j.Route.Provider),
		j.Ended.Sub(j.Created).Round(time.Second))
}

// exhausted tells once that jobs are held since a provider's limit is used up, or since it is overloaded.
func (s *Service) exhausted(ctx context.Context, tx *transaction, b *llm.BusyError) error {
	i, ok := alert.Exhausted(b)
	if !ok {
		return nil
	}
	return s.config.Alerts.RaiseIn(ctx, tx, i)
}

// Held returns jobs that are held for a provider, at most so many, and since when.
func (s *Service) Held(ctx context.Context, provider string, most int) (map[int64]time.Time, error) {
	all, err := list(ctx, s.db.Read(), Filter{States: []State{Held}, WaitsFor: provider, Limit: most})
	held := make(map[int64]time.Time, len(all))
	for _, j := range all {
		held[j.ID] = j.Since
	}
	return held, err
}
