package jobs

import (
	"context"
	"errors"
	"time"
)

// moved has what waits go on by a clock that was set: each wait is as long as it was, and so is what a job has waited. A held job gets a new
// run, so that a call that came early, by the new clock, finds that it is not the job's any more.
func (s *Service) moved(ctx context.Context, by time.Duration) error {
	err := s.db.Tx(ctx, func(tx *transaction) error {
		ids, err := moveTimes(ctx, tx, by)
		if err != nil {
			return err
		}
		now := time.Now()
		for _, id := range ids {
			j, err := locked(ctx, s.db, tx, id)
			if errors.Is(err, ErrNotFound) || err == nil && j.State != Held {
				continue
			}
			if err != nil {
				return err
			}
			if err := s.start(tx, &j, max(j.ResumeAt.Sub(now), time.Millisecond)); err != nil {
				return err
			}
			if err := save(ctx, tx, &j); err != nil {
				return err
			}
		}
		return tell(ctx, s.db, tx, "")
	})
	if err == nil {
		s.announce()
	}
	return err
}
