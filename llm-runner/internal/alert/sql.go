package alert

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// transaction is a write under way, which the exported functions are handed or own.
type transaction = sql.Tx

// insert writes an alert, or that an open incident was heard of once more, and its end where it has one, and sets its ID. What
// was over in its grace is left out.
func insert(ctx context.Context, tx *transaction, a *Alert) error {
	if a.Key != "" {
		err := tx.QueryRowContext(ctx, `UPDATE alerts SET seen_at = ? WHERE key = ? AND ended_at IS NULL RETURNING id`, a.seen.UnixMilli(), a.Key).Scan(&a.ID)
		if err == nil {
			if err = markAll(ctx, tx, a); err == nil && !a.Ended.IsZero() {
				err = end(ctx, tx, a.Key, a.Over, a.Ended)
			}
			return err
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("write alert: %w", err)
		}
	}
	if a.passed() {
		return nil
	}
	due := a.due
	if a.Key != "" && a.most() == Untold {
		var before int // told, or due while they lasted: their message may be on its way
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM alerts WHERE key = ? AND ended_at > ? AND (told > 0 OR due_at <= ended_at)`, a.Key,
			a.Began.Add(-often).UnixMilli()).Scan(&before); err != nil {
			return fmt.Errorf("write alert: %w", err)
		}
		if before > 0 {
			due = a.Began.Add(max(a.grace, steady))
		}
	}
	err := tx.QueryRowContext(ctx, `INSERT INTO alerts (key, provider, while_held, text, began_at, due_at, seen_at, ended_at, over, told)
		VALUES (?,?,?,?,?,?,?,?,?,?) RETURNING id`, a.Key, a.Provider, flag(a.whileHeld), a.Text, a.Began.UnixMilli(), due.UnixMilli(),
		a.seen.UnixMilli(), db.Millis(a.Ended), a.Over, Untold).Scan(&a.ID)
	if err != nil {
		return fmt.Errorf("write alert: %w", err)
	}
	return markAll(ctx, tx, a)
}

// markAll writes what was told of an alert while it was in memory.
func markAll(ctx context.Context, tx *transaction, a *Alert) error {
	for sink, told := range a.tellings {
		if err := mark(ctx, tx, sink, a.ID, told); err != nil {
			return err
		}
	}
	return nil
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// end ends what is open under a key; what nobody was told of, and need not be, is forgotten.
func end(ctx context.Context, tx *transaction, key, over string, at time.Time) error {
	for _, q := range []struct {
		text string
		args []any
	}{
		{`DELETE FROM alerts WHERE key = ? AND ended_at IS NULL AND told = 0 AND due_at > ?`, []any{key, at.UnixMilli()}},
		{`UPDATE alerts SET ended_at = ?, over = ? WHERE key = ? AND ended_at IS NULL`, []any{at.UnixMilli(), over, key}},
	} {
		if _, err := tx.ExecContext(ctx, q.text, q.args...); err != nil {
			return fmt.Errorf("end alert %s: %w", key, err)
		}
	}
	return nil
}

func hold(ctx context.Context, tx *transaction, provider string, job int64, now time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO alert_jobs (alert, job, since) SELECT id, CAST(? AS BIGINT), CAST(? AS BIGINT) FROM alerts WHERE ended_at IS NULL AND provider = ?
		ON CONFLICT (alert, job) DO NOTHING`, job, now.UnixMilli(), provider)
	if err != nil {
		return fmt.Errorf("count job %d with what it is held for: %w", job, err)
	}
	return nil
}

// mark writes what a sink has told. An alert that was forgotten meanwhile has none.
func mark(ctx context.Context, tx *transaction, sink string, id int64, told Telling) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO alert_tellings (sink, alert, told) SELECT ?, a.id, CAST(? AS BIGINT) FROM alerts a WHERE a.id = ?
		ON CONFLICT (sink, alert) DO UPDATE SET told = excluded.told WHERE excluded.told > alert_tellings.told`, sink, told, id); err != nil {
		return fmt.Errorf("mark alert %d as told by %s: %w", id, sink, err)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE alerts SET told = ? WHERE id = ? AND told < ?`, told, id, told); err != nil {
		return fmt.Errorf("mark alert %d as told: %w", id, err)
	}
	return nil
}

// enlist writes down who passes alerts on. One that is new is not told what was before it; where nobody else works on the database, the
// sender's places are free, and who is not configured any more is forgotten.
func enlist(ctx context.Context, d *db.DB, names []string, alone bool) error {
	return d.Tx(ctx, func(tx *transaction) error {
		if alone {
			known, err := sinks(ctx, tx)
			if err != nil {
				return err
			}
			for _, name := range known {
				if slices.Contains(names, name) {
					continue
				}
				for _, q := range []string{`DELETE FROM alert_tellings WHERE sink = ?`, `DELETE FROM alert_sinks WHERE name = ?`} {
					if _, err := tx.ExecContext(ctx, q, name); err != nil {
						return fmt.Errorf("forget sink %s: %w", name, err)
					}
				}
			}
			if _, err := tx.ExecContext(ctx, `UPDATE alert_sinks SET until = 0 WHERE until <> 0`); err != nil {
				return err
			}
		}
		for _, name := range names {
			if _, err := tx.ExecContext(ctx, `INSERT INTO alert_sinks (name, after_id) SELECT ?, coalesce(max(id), 0) FROM alerts WHERE true
				ON CONFLICT (name) DO NOTHING`, name); err != nil {
				return fmt.Errorf("write sink %s: %w", name, err)
			}
		}
		return nil
	})
}

func sinks(ctx context.Context, q db.Querier) ([]string, error) {
	return db.All(ctx, q, "read sinks", db.Column[string], `SELECT name FROM alert_sinks ORDER BY name`)
}

// lease takes or keeps a sink's sender's place until a time; false where another process has it.
func lease(ctx context.Context, d *db.DB, sink, me string, now, until time.Time) (mine bool, err error) {
	err = d.Tx(ctx, func(tx *transaction) error {
		r, err := tx.ExecContext(ctx, `UPDATE alert_sinks SET holder = ?, until = ? WHERE name = ? AND (holder = ? OR until < ?)`,
			me, until.UnixMilli(), sink, me, now.UnixMilli())
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		mine = n > 0
		return err
	})
	return mine, err
}

// untoldBy says that a sink has something to tell of an alert: it is not told at all, or only that it began, and it is over.
const untoldBy = `a.id > s.after_id AND NOT EXISTS (SELECT 1 FROM alert_tellings t WHERE t.sink = s.name AND t.alert = a.id
	AND (t.told = 2 OR t.told = 1 AND a.ended_at IS NULL))`

// forget deletes what is over and old, and told by all; or so old that it is no use to tell it. Sinks need not look at what they
// have told of all.
func forget(ctx context.Context, d *db.DB, before, longBefore time.Time) error {
	return d.Tx(ctx, func(tx *transaction) error {
		for _, q := range []struct {
			text string
			args []any
		}{
			{`DELETE FROM alerts WHERE ended_at < ? AND (ended_at < ? OR NOT EXISTS (SELECT 1 FROM alerts a, alert_sinks s WHERE a.id = alerts.id AND ` + untoldBy + `))`,
				[]any{before.UnixMilli(), longBefore.UnixMilli()}},
			{`UPDATE alert_sinks SET after_id = coalesce((SELECT min(a.id) - 1 FROM alerts a WHERE a.id > alert_sinks.after_id AND NOT EXISTS
				(SELECT 1 FROM alert_tellings t WHERE t.sink = alert_sinks.name AND t.alert = a.id AND t.told = 2)),
				(SELECT max(a.id) FROM alerts a), after_id)`, nil},
			{`DELETE FROM alert_tellings WHERE alert <= (SELECT s.after_id FROM alert_sinks s WHERE s.name = alert_tellings.sink)`, nil},
		} {
			if _, err := tx.ExecContext(ctx, q.text, q.args...); err != nil {
				return fmt.Errorf("forget alerts: %w", err)
			}
		}
		return nil
	})
}

// counts is how much each sink has to tell.
func counts(ctx context.Context, q db.Querier) (map[string]int, error) {
	return db.Map(ctx, q, "count alerts", func(row *sql.Rows) (name string, n int, err error) {
		err = row.Scan(&name, &n)
		return name, n, err
	}, `SELECT s.name, count(*) FROM alert_sinks s JOIN alerts a ON `+untoldBy+` GROUP BY s.name`)
}

// Which alerts a list has, and in which order.
const (
	newest   = `1=1 ORDER BY a.id DESC`
	openOnly = `a.ended_at IS NULL AND a.key <> '' ORDER BY a.id`
	untold   = `EXISTS (SELECT 1 FROM alert_sinks s WHERE s.name = ? AND ` + untoldBy + `) ORDER BY a.id`
)

// toldBy is what a sink s has told of an alert.
const toldBy = `CASE WHEN a.id <= s.after_id THEN 2 ELSE coalesce((SELECT t.told FROM alert_tellings t WHERE t.sink = s.name AND t.alert = a.id), 0) END`

// list reads alerts; args are those of which. With a sink, Told is what that one has told, else what all have.
func list(ctx context.Context, q db.Querier, sink, which string, limit int, args ...any) ([]Alert, error) {
	return db.All(ctx, q, "read alerts", func(row *sql.Rows) (a Alert, err error) {
		var held int
		var missing string
		var began, due, seen int64
		var ended, first sql.NullInt64
		err = row.Scan(&a.ID, &a.Key, &a.Provider, &held, &a.Text, &began, &due, &seen, &ended, &a.Over, &a.Told, &missing, &a.Jobs, &first)
		a.whileHeld, a.Began, a.due, a.seen, a.Ended = held != 0, time.UnixMilli(began), time.UnixMilli(due), time.UnixMilli(seen), db.Moment(ended)
		a.Missing = strings.Fields(missing)
		slices.Sort(a.Missing)
		if first.Valid && ended.Valid {
			a.Longest = max(0, ended.Int64-first.Int64)
		}
		return a, err
	}, `SELECT a.id, a.key, a.provider, a.while_held, a.text, a.began_at, a.due_at, a.seen_at, a.ended_at, a.over,
		coalesce((SELECT min(`+toldBy+`) FROM alert_sinks s WHERE ? IN ('', s.name)), 2),
		coalesce((SELECT string_agg(s.name, ' ') FROM alert_sinks s WHERE `+toldBy+` = 0), ''),
		(SELECT count(*) FROM alert_jobs h WHERE h.alert = a.id), (SELECT min(h.since) FROM alert_jobs h WHERE h.alert = a.id)
		FROM alerts a WHERE `+which+` LIMIT ?`, append(append([]any{sink}, args...), limit)...)
}
