package agent

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// Runs of one agent never overlap, whether it is due, a person wants it, or another agent has called it. A run has begun once it has worked,
// and until its work is done; dry ones have no effects and do not count.
const begun = `cause <> 'dry' AND ended_at IS NULL AND (state IN ('running', 'waiting') OR state = 'queued' AND started_at IS NOT NULL)`

// atWork is the run of an agent that has begun, other than one of its own; sql.ErrNoRows where there is none. Nobody else begins one before
// the transaction ends.
func atWork(ctx context.Context, tx *transaction, agent string, but int64) (Run, error) {
	if _, err := tx.ExecContext(ctx, `INSERT INTO agents (name, seen) VALUES (?, 0) ON CONFLICT (name) DO UPDATE SET name = excluded.name`, agent); err != nil {
		return Run{}, fmt.Errorf("hold agent %s: %w", agent, err)
	}
	return db.One(ctx, tx, "", scanRun, `SELECT `+runColumns+` FROM agent_runs WHERE agent = ? AND id <> ? AND `+begun+` ORDER BY id LIMIT 1`, agent, but)
}

// waitsFor says whether anything that a run has called, however deep, waits for an agent of the list to end a run, or for one that does.
func waitsFor(ctx context.Context, tx *transaction, run int64, agents map[string]bool) (bool, error) {
	seen, look := map[int64]bool{}, []int64{run}
	for len(look) > 0 {
		id := look[0]
		if look = look[1:]; seen[id] {
			continue
		}
		seen[id] = true
		called, err := db.All(ctx, tx, "read runs", scanRun, `SELECT `+runColumns+` FROM agent_runs WHERE parent = ? AND ended_at IS NULL`, id)
		if err != nil {
			return false, err
		}
		for _, r := range called {
			if look = append(look, r.ID); r.State != Planned {
				continue
			}
			if agents[r.Agent] {
				return true, nil
			}
			others, err := db.All(ctx, tx, "read runs", scanRun, `SELECT `+runColumns+` FROM agent_runs WHERE agent = ? AND id <> ? AND `+begun, r.Agent, r.ID)
			if err != nil {
				return false, err
			}
			for _, o := range others {
				look = append(look, o.ID)
			}
		}
	}
	return false, nil
}

// errAtWork says that another run of the agent goes on.
var errAtWork = errors.New("another run of this agent goes on")

// take has a run that another agent has called begin, unless the agent is at work: then it is told whose end has to be waited for. ErrEnded says
// that the run has ended before, or with the one that called it.
func (s *Service) take(ctx context.Context, id int64, above map[string]bool, now time.Time) (r, other Run, err error) {
	r, err = s.change(ctx, id, func(tx *transaction, x *Run) (err error) {
		if x.State.Ended() {
			return ErrEnded
		}
		other, err = atWork(ctx, tx, x.Agent, x.ID)
		switch {
		case err == nil && other.State == Waiting:
			return errAtWork
		case err == nil:
			circle, err := waitsFor(ctx, tx, other.ID, above)
			if err != nil {
				return err
			}
			if circle {
				return errCycle
			}
			return errAtWork
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		x.call++
		x.State, x.worker, x.NextAt = Running, s.db.Worker(), now
		if x.Started.IsZero() {
			x.Started = now
		}
		return nil
	})
	return r, other, err
}

// yield has a run wait for its turn again that is about to begin while its agent is at work for another one.
func yield(ctx context.Context, tx *transaction, r *Run) (yielded bool, err error) {
	if r.Cause == Dry || r.State != Queued || !r.Started.IsZero() {
		return false, nil
	}
	if _, err := atWork(ctx, tx, r.Agent, r.ID); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return false, err
	}
	r.State = Planned
	return true, nil
}
