package engine

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Identity returns the name of a data directory, made at the first start: it is kept in the SQLite file there.
func Identity(ctx context.Context, handle *sql.DB) (name string, err error) {
	err = handle.QueryRowContext(ctx, `SELECT executor FROM engine_identity`).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		name = rand.Text()
		_, err = handle.ExecContext(ctx, `INSERT INTO engine_identity (executor) VALUES (?)`, name)
	}
	if err != nil {
		return "", fmt.Errorf("read engine identity: %w", err)
	}
	return name, nil
}

// A beat is the row of one process.
type beat struct {
	id, place string
	n         int64 // stopped: it has ended
}

// stopped instead of a count says that a process has ended.
const stopped = -1

// register writes the row of this process, where it is not there.
func register(ctx context.Context, handle *sql.DB, id, place string) error {
	_, err := handle.ExecContext(ctx, `INSERT INTO engine_workers (id, place, beat) VALUES (?,?,0) ON CONFLICT (id) DO NOTHING`, id, place)
	if err != nil {
		return fmt.Errorf("register worker: %w", err)
	}
	return nil
}

// live counts up; missed says that there is no row to count in: others took this process for dead.
func live(ctx context.Context, handle *sql.DB, id string) (missed bool, err error) {
	r, err := handle.ExecContext(ctx, `UPDATE engine_workers SET beat = beat + 1 WHERE id = ?`, id)
	if err != nil {
		return false, fmt.Errorf("write heartbeat: %w", err)
	}
	n, err := r.RowsAffected()
	return n == 0, err
}

// retire says that this process has ended.
func retire(ctx context.Context, handle *sql.DB, id string) error {
	if _, err := handle.ExecContext(ctx, `UPDATE engine_workers SET beat = ? WHERE id = ?`, stopped, id); err != nil {
		return fmt.Errorf("retire worker: %w", err)
	}
	return nil
}

// beats reads the rows of the other processes.
func beats(ctx context.Context, handle *sql.DB, id string) ([]beat, error) {
	rows, err := handle.QueryContext(ctx, `SELECT id, place, beat FROM engine_workers WHERE id <> ?`, id)
	if err != nil {
		return nil, fmt.Errorf("read heartbeats: %w", err)
	}
	defer rows.Close()
	var all []beat
	for rows.Next() {
		var b beat
		if err := rows.Scan(&b.id, &b.place, &b.n); err != nil {
			return nil, fmt.Errorf("read heartbeats: %w", err)
		}
		all = append(all, b)
	}
	return all, rows.Err()
}

// inherit calls f while nobody else may, and removes the row of a process whose heart stands still at b. It does nothing where
// the heart beats again, or where another process is at it.
func inherit(ctx context.Context, handle *sql.DB, b beat, f func() error) error {
	tx, err := handle.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("adopt %s: %w", b.id, err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing; before it, the error is what counts
	var id string
	err = tx.QueryRowContext(ctx, `SELECT id FROM engine_workers WHERE id = ? AND beat = ? FOR UPDATE SKIP LOCKED`, b.id, b.n).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = f()
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, `DELETE FROM engine_workers WHERE id = ?`, b.id)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return fmt.Errorf("adopt %s: %w", b.id, err)
	}
	return nil
}

// databaseClock is the time of a shared database's server, and by how much its clock was moved in all, as the processes know.
func databaseClock(ctx context.Context, handle *sql.DB) (now time.Time, moved time.Duration, err error) {
	var micros, millis int64
	err = handle.QueryRowContext(ctx, `SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT), coalesce((SELECT max(moved_ms) FROM engine_clock), 0)`).Scan(&micros, &millis)
	if err != nil {
		return now, 0, fmt.Errorf("read the database's clock: %w", err)
	}
	return time.UnixMicro(micros), time.Duration(millis) * time.Millisecond, nil
}

// claimMove calls f where no other process does for the same move of the clock; they wait until it has returned.
func claimMove(ctx context.Context, handle *sql.DB, moved, by time.Duration, f func()) (mine bool, err error) {
	tx, err := handle.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("note that the clock was set: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing; before it, the error is what counts
	if _, err := tx.ExecContext(ctx, `INSERT INTO engine_clock (id, moved_ms) VALUES (1, 0) ON CONFLICT (id) DO NOTHING`); err != nil {
		return false, fmt.Errorf("note that the clock was set: %w", err)
	}
	r, err := tx.ExecContext(ctx, `UPDATE engine_clock SET moved_ms = ? WHERE id = 1 AND moved_ms = ?`, (moved + by).Milliseconds(), moved.Milliseconds())
	if err != nil {
		return false, fmt.Errorf("note that the clock was set: %w", err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	f()
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("note that the clock was set: %w", err)
	}
	return true, nil
}
