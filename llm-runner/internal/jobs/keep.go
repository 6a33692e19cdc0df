package jobs

import (
	"context"
	"time"
)

const (
	keepLook  = time.Minute
	keepBatch = 100 // jobs that are deleted in one transaction: a prompt may have megabytes
)

// Run deletes jobs that ended longer ago than Config.Keep, with their steps and timelines, until ctx ends. A job of which the
// vault does not show yet what became of it stays until it does.
func (s *Service) Run(ctx context.Context) error {
	if s.config.Keep <= 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(keepLook)
	defer tick.Stop()
	for {
		n, err := s.forgetEnded(ctx, time.Now().Add(-s.config.Keep))
		if n > 0 {
			s.log.Info("deleted old jobs", "jobs", n, "ended_before", s.config.Keep.String()+" ago")
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("delete old jobs", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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
