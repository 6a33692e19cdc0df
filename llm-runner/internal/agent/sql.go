package agent

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// transaction is what writes go through.
type transaction = sql.Tx

// A memory is what is known of an agent beside its file.
type memory struct {
	paused, said bool
	schedule     string
	seen         time.Time
}

func remembered(ctx context.Context, d *db.DB) (map[string]memory, error) {
	return db.Map(ctx, d.Read(), "read agents", func(row *sql.Rows) (name string, m memory, err error) {
		var paused sql.NullInt64
		var seen int64
		err = row.Scan(&name, &paused, &m.schedule, &seen)
		m.said, m.paused, m.seen = paused.Valid, paused.Int64 == 1, time.UnixMilli(seen)
		return name, m, err
	}, `SELECT name, paused, schedule, seen FROM agents`)
}

func setPaused(ctx context.Context, d *db.DB, name, schedule string, paused bool, now time.Time) error {
	flag := 0
	if paused {
		flag = 1
	}
	err := d.Tx(ctx, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO agents (name, paused, schedule, seen) VALUES (?,?,?,?)
			ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, schedule = excluded.schedule, seen = excluded.seen`, name, flag, schedule, now.UnixMilli())
		return err
	})
	if err != nil {
		return fmt.Errorf("write agent %s: %w", name, err)
	}
	return nil
}

// see writes in one transaction that an agent's due times up to now are seen to, and the runs that they become.
func (s *Service) see(ctx context.Context, name, schedule string, now time.Time, due []Time) error {
	err := s.db.Tx(ctx, func(tx *transaction) error {
		for _, t := range due {
			r := Run{Agent: name, Cause: BySchedule, Due: t.At, Covers: t.Covers, State: Planned, Created: now, key: fmt.Sprintf("%s/%s", name, t.At.UTC().Format(time.RFC3339))}
			if _, err := insertRun(ctx, tx, r); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO agents (name, schedule, seen) VALUES (?,?,?)
			ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule, seen = CASE WHEN agents.schedule = excluded.schedule AND agents.seen > excluded.seen THEN agents.seen ELSE excluded.seen END`, name, schedule, now.UnixMilli())
		return err
	})
	if err != nil {
		return fmt.Errorf("plan runs of %s: %w", name, err)
	}
	s.reached("seen " + name)
	return nil
}

// insertRun returns the run of a key, made if it was not there.
func insertRun(ctx context.Context, tx *transaction, r Run) (Run, error) {
	if _, err := tx.ExecContext(ctx, `INSERT INTO agent_runs (agent, key, cause, due_at, covers, parent, depth, task, state, created_at) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key) DO NOTHING`,
		r.Agent, r.key, r.Cause, r.Due.UnixMilli(), r.Covers, db.OrNull(r.Parent), r.Depth, r.Task, r.State, r.Created.UnixMilli()); err != nil {
		return r, err
	}
	return db.One(ctx, tx, "", scanRun, `SELECT `+runColumns+` FROM agent_runs WHERE key = ?`, r.key)
}

// plan writes a run down, or returns the one that its key has already. ErrEnded says that the run that called it has ended: whoever ends one ends
// those below it, and would not see this one.
func (s *Service) plan(ctx context.Context, r Run) (made Run, err error) {
	r.Created = s.config.Now()
	err = s.db.Tx(ctx, func(tx *transaction) (err error) {
		if r.Parent != 0 {
			above, err := db.One(ctx, tx, "", scanRun, `SELECT `+runColumns+` FROM agent_runs WHERE id = ?`+s.db.Lock(), r.Parent)
			if err != nil {
				return err
			}
			if above.State.Ended() {
				return ErrEnded
			}
		}
		if made, err = insertRun(ctx, tx, r); err != nil {
			return err
		}
		return s.db.Tell(ctx, tx, topic, "")
	})
	if err != nil {
		return made, fmt.Errorf("plan run of %s: %w", r.Agent, err)
	}
	s.announce()
	return made, nil
}

const runColumns = `id, agent, key, cause, due_at, covers, parent, depth, task, state, call, worker, attempts, next_at, waits_for, reason, output, over, provider, model,
	tokens, micro_usd, work_ms, created_at, started_at, ended_at`

func scanRun(row *sql.Rows) (r Run, err error) {
	var due, created int64
	var parent, next, started, ended sql.NullInt64
	var output string
	if err := row.Scan(&r.ID, &r.Agent, &r.key, &r.Cause, &due, &r.Covers, &parent, &r.Depth, &r.Task, &r.State, &r.call, &r.worker, &r.attempts, &next, &r.Waits, &r.Reason,
		&output, &r.Over, &r.By, &r.Model, &r.Tokens, &r.MicroUSD, &r.Work, &created, &started, &ended); err != nil {
		return r, err
	}
	r.Due, r.Created, r.Parent = time.UnixMilli(due), time.UnixMilli(created), parent.Int64
	r.NextAt, r.Started, r.Ended = db.Moment(next), db.Moment(started), db.Moment(ended)
	if output != "" {
		err = json.Unmarshal([]byte(output), &r.Output)
	}
	return r, err
}

func runs(ctx context.Context, d *db.DB, where string, args ...any) ([]Run, error) {
	return db.All(ctx, d.Read(), "read runs of agents", scanRun, `SELECT `+runColumns+` FROM agent_runs `+where, args...)
}

// Run1 returns a run, ErrNoRun where there is none.
func (s *Service) Run1(ctx context.Context, id int64) (Run, error) {
	all, err := runs(ctx, s.db, `WHERE id = ?`, id)
	if err == nil && len(all) == 0 {
		err = ErrNoRun
	}
	if err != nil {
		return Run{}, err
	}
	return all[0], nil
}

// Detail returns all that is known of a run.
func (s *Service) Detail(ctx context.Context, id int64) (x Detail, err error) {
	if x.Run, err = s.Run1(ctx, id); err != nil {
		return x, err
	}
	if x.Steps, err = stepsOf(ctx, s.db, id); err != nil {
		return x, err
	}
	if x.Deliveries, err = deliveries(ctx, s.db.Read(), `WHERE run = ? ORDER BY sink, part`, id); err != nil {
		return x, err
	}
	x.Children, err = runs(ctx, s.db, `WHERE parent = ? ORDER BY id`, id)
	return x, err
}

func stepsOf(ctx context.Context, d *db.DB, run int64) ([]Step, error) {
	return db.All(ctx, d.Read(), fmt.Sprintf("read steps of run %d", run), func(row *sql.Rows) (x Step, err error) {
		var began int64
		var ended sql.NullInt64
		err = row.Scan(&x.Name, &x.Note, &x.Output, &began, &ended)
		x.Began, x.Ended = time.UnixMilli(began), db.Moment(ended)
		return x, err
	}, `SELECT name, note, output, began_at, ended_at FROM agent_steps WHERE run = ? ORDER BY began_at, name`, run)
}

// stepBefore returns what a step said in the agent's last run before this one that has it, "" where none has.
func stepBefore(ctx context.Context, d *db.DB, r *Run, name string) (output string, when time.Time, err error) {
	var due int64
	err = d.Read().QueryRowContext(ctx, `SELECT s.output, r.due_at FROM agent_steps s JOIN agent_runs r ON r.id = s.run
		WHERE r.agent = ? AND r.id < ? AND s.name = ? AND s.ended_at IS NOT NULL AND r.cause <> 'dry' ORDER BY r.id DESC LIMIT 1`, r.Agent, r.ID, name).Scan(&output, &due)
	if errors.Is(err, sql.ErrNoRows) {
		return "", when, nil
	}
	if err != nil {
		return "", when, fmt.Errorf("read step %s before run %d: %w", name, r.ID, err)
	}
	return output, time.UnixMilli(due), nil
}

// lastDone is when the agent's last run that was not a dry one was due, before this one; zero where there is none.
func lastDone(ctx context.Context, d *db.DB, r *Run) (time.Time, error) {
	all, err := runs(ctx, d, `WHERE agent = ? AND id < ? AND cause IN ('schedule', 'person') AND state IN ('done', 'delivering') ORDER BY id DESC LIMIT 1`, r.Agent, r.ID)
	if err != nil || len(all) == 0 {
		return time.Time{}, err
	}
	return all[0].Due, nil
}

// lastDones are the last runs of all agents that ended well and were not dry ones.
func lastDones(ctx context.Context, d *db.DB) ([]Run, error) {
	return runs(ctx, d, `WHERE id IN (SELECT max(id) FROM agent_runs WHERE state = 'done' AND cause IN ('schedule', 'person') GROUP BY agent)`)
}

// step returns what a step of a run said, if it has ended, and notes that it has begun otherwise.
func (s *Service) beginStep(ctx context.Context, run int64, name string) (output string, done bool, err error) {
	err = s.db.Tx(ctx, func(tx *transaction) error {
		var ended sql.NullInt64
		err := tx.QueryRowContext(ctx, `SELECT output, ended_at FROM agent_steps WHERE run = ? AND name = ?`, run, name).Scan(&output, &ended)
		if err == nil && ended.Valid {
			done = true
			return nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO agent_steps (run, name, began_at) VALUES (?,?,?) ON CONFLICT (run, name) DO UPDATE SET began_at = excluded.began_at`,
			run, name, s.config.Now().UnixMilli())
		return err
	})
	if err != nil {
		return "", false, fmt.Errorf("begin step %s of run %d: %w", name, run, err)
	}
	return output, done, nil
}

// endStep writes what a step said and what the run has spent with it.
func (s *Service) endStep(ctx context.Context, r *Run, name, output, note string) error {
	err := s.db.Tx(ctx, func(tx *transaction) error {
		if _, err := tx.ExecContext(ctx, `UPDATE agent_steps SET output = ?, note = ?, ended_at = ? WHERE run = ? AND name = ?`, output, note, s.config.Now().UnixMilli(), r.ID, name); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE agent_runs SET tokens = ?, micro_usd = ?, provider = ?, model = ?, over = ? WHERE id = ?`, r.Tokens, r.MicroUSD, r.By, r.Model, r.Over, r.ID)
		return err
	})
	if err != nil {
		return fmt.Errorf("end step %s of run %d: %w", name, r.ID, err)
	}
	return nil
}

func saveRun(ctx context.Context, tx *transaction, r *Run) error {
	output := ""
	if b, err := json.Marshal(r.Output); err != nil {
		return err
	} else if string(b) != "{}" {
		output = string(b)
	}
	_, err := tx.ExecContext(ctx, `UPDATE agent_runs SET state=?, call=?, worker=?, attempts=?, next_at=?, waits_for=?, reason=?, output=?, over=?, provider=?, model=?, tokens=?, micro_usd=?,
		work_ms=?, started_at=?, ended_at=? WHERE id=?`, r.State, r.call, r.worker, r.attempts, db.Millis(r.NextAt), r.Waits, r.Reason, output, r.Over, r.By, r.Model, r.Tokens, r.MicroUSD,
		r.Work, db.Millis(r.Started), db.Millis(r.Ended), r.ID)
	return err
}

// change reads a run, has f change it, and writes it, in one transaction.
func (s *Service) change(ctx context.Context, id int64, f func(tx *transaction, r *Run) error) (r Run, err error) {
	err = s.db.Tx(ctx, func(tx *transaction) error {
		if r, err = db.One(ctx, tx, "", scanRun, `SELECT `+runColumns+` FROM agent_runs WHERE id = ?`+s.db.Lock(), id); err != nil {
			return err
		}
		if err := f(tx, &r); err != nil {
			return err
		}
		if err := saveRun(ctx, tx, &r); err != nil {
			return err
		}
		return s.db.Tell(ctx, tx, topic, "")
	})
	if errors.Is(err, errStale) {
		return r, err
	}
	if err != nil {
		return r, fmt.Errorf("write run %d: %w", id, err)
	}
	s.announce()
	return r, nil
}

// startDue has the engine call what can go on, and returns whether anything can and when the next thing can.
func (s *Service) startDue(ctx context.Context, now time.Time) (started bool, next time.Time, err error) {
	open, err := runs(ctx, s.db, `WHERE ended_at IS NULL ORDER BY id`)
	if err != nil {
		return false, next, err
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	busy := map[string]bool{}
	for _, r := range open {
		if r.alone() && (r.State == Queued || r.State == Running || r.State == Waiting) || r.Cause == ByAgent && r.State == Running {
			busy[r.Agent] = true
		}
	}
	for _, r := range open {
		switch {
		case r.State == Planned && r.Cause == ByAgent: // whoever called it works on it
			continue
		case r.State == Planned && (!r.alone() || !busy[r.Agent]):
		case r.State == Waiting && r.NextAt.After(now):
			sooner(r.NextAt)
			continue
		case r.State == Waiting && r.Cause == ByAgent:
			continue
		case r.State == Waiting:
		default:
			continue
		}
		busy[r.Agent] = busy[r.Agent] || r.alone()
		options := s.options(r.Agent)
		_, err := s.changeQuietly(ctx, r, func(tx *transaction, x *Run) error {
			x.call++
			x.State, x.NextAt, x.Waits, x.Reason = Queued, time.Time{}, "", ""
			return s.engine.Start(tx, task, fmt.Sprintf("agent-%d-%d", x.ID, x.call), fmt.Sprintf("%d/%d", x.ID, x.call), options)
		})
		if err != nil {
			return started, next, err
		}
		started = true
		s.reached("queued")
	}
	waiting, err := deliveries(ctx, s.db.Read(), `WHERE ended_at IS NULL AND state = 'waiting' ORDER BY run, sink, part`)
	if err != nil {
		return started, next, err
	}
	seen := map[string]bool{}
	for _, x := range waiting {
		at := fmt.Sprintf("%d/%s", x.Run, x.Sink)
		if x.NextAt.After(now) {
			sooner(x.NextAt)
			seen[at] = true // the first part that waits holds up those behind it
		}
		if seen[at] {
			continue
		}
		seen[at] = true
		if err := s.startPost(ctx, x.Run, x.Sink); err != nil {
			return started, next, err
		}
		started = true
	}
	return started, next, nil
}

// moveTimes moves the times at which runs and deliveries go on that wait, by a clock that was set; due times are the wall clock's and stay.
func moveTimes(ctx context.Context, d *db.DB, by time.Duration) error {
	return d.Tx(ctx, func(tx *transaction) error {
		for _, table := range []string{"agent_runs", "agent_deliveries"} {
			if _, err := tx.ExecContext(ctx, `UPDATE `+table+` SET next_at = next_at + ? WHERE state = 'waiting'`, by.Milliseconds()); err != nil {
				return fmt.Errorf("move the times of agents: %w", err)
			}
		}
		return nil
	})
}

// dropRuns ends runs that are planned still; the run into, if not 0, is for their due times as well.
func (s *Service) dropRuns(ctx context.Context, gone []Run, into int64, why string, now time.Time) error {
	if len(gone) == 0 {
		return nil
	}
	err := s.db.Tx(ctx, func(tx *transaction) error {
		covers := 0
		for _, r := range gone {
			done, err := tx.ExecContext(ctx, `UPDATE agent_runs SET state = 'cancelled', reason = ?, ended_at = ? WHERE id = ? AND state = 'planned'`, why, now.UnixMilli(), r.ID)
			if err != nil {
				return err
			}
			if n, err := done.RowsAffected(); err != nil {
				return err
			} else if n == 1 {
				covers += r.Covers
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE agent_runs SET covers = covers + ? WHERE id = ?`, covers, into)
		return err
	})
	if err != nil {
		return fmt.Errorf("end planned runs of %s: %w", gone[0].Agent, err)
	}
	s.tellReaders()
	return nil
}

// alone says that no other run of the agent may be under way beside it.
func (r *Run) alone() bool { return r.Cause == BySchedule || r.Cause == ByPerson }

// changeQuietly changes a run as it was read, and nothing where another process has changed it; readers are told by the caller.
func (s *Service) changeQuietly(ctx context.Context, seen Run, f func(tx *transaction, r *Run) error) (done bool, err error) {
	err = s.db.Tx(ctx, func(tx *transaction) error {
		r, err := db.One(ctx, tx, "", scanRun, `SELECT `+runColumns+` FROM agent_runs WHERE id = ?`+s.db.Lock(), seen.ID)
		if err != nil || r.State != seen.State || r.call != seen.call {
			return err
		}
		if err := f(tx, &r); err != nil {
			return err
		}
		done = true
		return saveRun(ctx, tx, &r)
	})
	if err != nil {
		return false, fmt.Errorf("write run %d: %w", seen.ID, err)
	}
	return done, nil
}

func deliveries(ctx context.Context, q db.Querier, where string, args ...any) ([]Delivery, error) {
	return db.All(ctx, q, "read deliveries", func(row *sql.Rows) (x Delivery, err error) {
		var next, ended sql.NullInt64
		var made int64
		err = row.Scan(&x.Run, &x.Sink, &x.Part, &x.Name, &x.Text, &x.State, &x.call, &x.Attempts, &next, &x.Place, &x.Reason, &made, &ended)
		x.NextAt, x.Ended, x.Made = db.Moment(next), db.Moment(ended), time.UnixMilli(made)
		return x, err
	}, `SELECT run, sink, part, name, text, state, call, attempts, next_at, place, reason, made_at, ended_at FROM agent_deliveries `+where, args...)
}

func insertDelivery(ctx context.Context, tx *transaction, x Delivery) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO agent_deliveries (run, sink, part, name, text, state, next_at, reason, made_at, ended_at) VALUES (?,?,?,?,?,?,?,?,?,?)`,
		x.Run, x.Sink, x.Part, x.Name, x.Text, x.State, db.Millis(x.NextAt), x.Reason, x.Made.UnixMilli(), db.Millis(x.Ended))
	return err
}

func saveDelivery(ctx context.Context, tx *transaction, x *Delivery) error {
	_, err := tx.ExecContext(ctx, `UPDATE agent_deliveries SET state=?, call=?, attempts=?, next_at=?, place=?, reason=?, ended_at=? WHERE run=? AND sink=? AND part=?`,
		x.State, x.call, x.Attempts, db.Millis(x.NextAt), x.Place, x.Reason, db.Millis(x.Ended), x.Run, x.Sink, x.Part)
	return err
}

// startPost has the engine deliver to one place what waits for it.
func (s *Service) startPost(ctx context.Context, run int64, sink string) error {
	err := s.db.Tx(ctx, func(tx *transaction) error {
		all, err := deliveries(ctx, tx, `WHERE run = ? AND sink = ? ORDER BY part`+s.db.Lock(), run, sink)
		if err != nil {
			return err
		}
		call, any := 0, false
		for _, x := range all {
			call = max(call, x.call)
			any = any || x.State == "waiting"
		}
		if !any {
			return nil
		}
		call++
		for _, x := range all {
			if x.State != "waiting" {
				continue
			}
			x.State, x.call, x.NextAt = "queued", call, time.Time{}
			if err := saveDelivery(ctx, tx, &x); err != nil {
				return err
			}
		}
		return s.engine.Start(tx, postTask, fmt.Sprintf("agent-post-%d-%s-%d", run, sink, call), fmt.Sprintf("%d/%s/%d", run, sink, call), postOptions(sink))
	})
	if err != nil {
		return fmt.Errorf("start delivery of run %d to %s: %w", run, sink, err)
	}
	return nil
}

// lockRun has others wait who end a delivery of the same run: of two that ended at once neither would see that it was the last.
func (s *Service) lockRun(ctx context.Context, tx *transaction, run int64) error {
	_, err := db.One(ctx, tx, "", func(row *sql.Rows) (id int64, err error) {
		err = row.Scan(&id)
		return id, err
	}, `SELECT id FROM agent_runs WHERE id = ?`+s.db.Lock(), run)
	if err != nil {
		return fmt.Errorf("read run %d: %w", run, err)
	}
	return nil
}

// settle ends a run all of whose deliveries have ended.
func settle(ctx context.Context, tx *transaction, run int64, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE agent_runs SET state = 'done', ended_at = ? WHERE id = ? AND state = 'delivering'
		AND NOT EXISTS (SELECT 1 FROM agent_deliveries d WHERE d.run = agent_runs.id AND d.ended_at IS NULL)`, now.UnixMilli(), run)
	return err
}

// withdraw ends the deliveries of a run that have not been made.
func withdraw(ctx context.Context, tx *transaction, run int64, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE agent_deliveries SET state = 'skipped', reason = 'the run was cancelled', next_at = NULL, ended_at = ? WHERE run = ? AND ended_at IS NULL`, now.UnixMilli(), run)
	return err
}

// clean deletes the runs that ended before a time, but for the last one of each agent.
func clean(ctx context.Context, d *db.DB, before time.Time) error {
	err := d.Tx(ctx, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM agent_runs WHERE ended_at < ? AND id NOT IN (SELECT max(id) FROM agent_runs GROUP BY agent)`, before.UnixMilli())
		return err
	})
	if err != nil {
		return fmt.Errorf("delete old runs of agents: %w", err)
	}
	return nil
}

// endChildren ends the runs below a run, however deep, that have not ended: nobody waits for them any more.
func endChildren(ctx context.Context, tx *transaction, run int64, now time.Time) error {
	_, err := tx.ExecContext(ctx, `WITH RECURSIVE below (id) AS (SELECT id FROM agent_runs WHERE parent = ? UNION ALL SELECT r.id FROM agent_runs r JOIN below b ON r.parent = b.id)
		UPDATE agent_runs SET state = 'failed', reason = 'the run that called it has ended', ended_at = ? WHERE id IN (SELECT id FROM below) AND ended_at IS NULL`, run, now.UnixMilli())
	return err
}

// failedElsewhere says that another part of a run's delivery to the same place has failed.
func failedElsewhere(ctx context.Context, tx *transaction, d *Delivery) (bool, error) {
	n := 0
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM agent_deliveries WHERE run = ? AND sink = ? AND part <> ? AND state = 'failed'`, d.Run, d.Sink, d.Part).Scan(&n)
	return n > 0, err
}
