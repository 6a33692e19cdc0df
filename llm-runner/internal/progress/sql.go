package progress

import (
	"context"
	"database/sql"
	"fmt"

	"home.arpa/lab/llm-runner/internal/db"
)

// A Day is what a project had on a day, as it was seen last then.
type Day struct {
	Day   string `json:"day"` // YYYY-MM-DD, local
	Done  int    `json:"done"`
	Total int    `json:"total"`
	From  Source `json:"from"`
}

// A Source says how it is known what a project had on a day.
type Source string

const (
	FromSeen    Source = "seen"    // the program saw it
	FromCommits Source = "commits" // as the note was in the last commit of that day
	FromDates   Source = "dates"   // by the dates that people wrote into tasks
)

// remember writes the numbers of a day over those that were written for it before.
func remember(ctx context.Context, d *db.DB, days map[string]Day) error {
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		for path, x := range days {
			if _, err := tx.ExecContext(ctx, `INSERT INTO progress_days (path, day, done, total) VALUES (?,?,?,?)
				ON CONFLICT (path, day) DO UPDATE SET done = excluded.done, total = excluded.total`, path, x.Day, x.Done, x.Total); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write progress: %w", err)
	}
	return nil
}

// history returns the days of a project from a day on, oldest first.
func history(ctx context.Context, d *db.DB, path, from string) ([]Day, error) {
	return db.All(ctx, d.Read(), "read progress", func(row *sql.Rows) (x Day, err error) {
		x.From = FromSeen
		err = row.Scan(&x.Day, &x.Done, &x.Total)
		return x, err
	}, `SELECT day, done, total FROM progress_days WHERE path = ? AND day >= ? ORDER BY day`, path, from)
}
