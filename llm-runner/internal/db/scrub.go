package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// scrubPatience is how long Scrub waits for readers that hold the log.
const scrubPatience = 5 * time.Second

// Scrub has the files hold nothing any more of what was deleted before: in SQLite the database is written anew and its log emptied, in
// PostgreSQL the tables are written anew (its own log goes its own way). Copies that were made before are as they were. It is slow, and
// others who write wait for it; it fails where somebody reads for long, and can be tried again.
func (d *DB) Scrub(ctx context.Context, tables ...string) error {
	if d.shared != nil {
		for _, t := range tables {
			if _, err := d.w.ExecContext(ctx, "VACUUM (FULL) "+pgx.Identifier{t}.Sanitize()); err != nil {
				return fmt.Errorf("write table %s anew: %w", t, err)
			}
		}
		return nil
	}
	return d.scrub(ctx) // not Noted: where the copy does not fit, everything else may be written still
}

func (d *DB) scrub(ctx context.Context) error {
	c, err := d.w.Conn(ctx)
	if err != nil {
		return fmt.Errorf("write database anew: %w", err)
	}
	defer c.Close() //nolint:errcheck // it goes back to the pool
	// The copy is made in a file, however large it is; what else is temporary stays in memory.
	if _, err := c.ExecContext(ctx, "PRAGMA temp_store = file"); err != nil {
		return fmt.Errorf("write database anew: %w", err)
	}
	_, err = c.ExecContext(ctx, "VACUUM")
	_, back := c.ExecContext(context.WithoutCancel(ctx), "PRAGMA temp_store = memory")
	if err := errors.Join(err, back); err != nil {
		return fmt.Errorf("write database anew: %w", err)
	}
	return emptyLog(ctx, c)
}

// emptyLog folds the log into the file and cuts it off, once nobody reads from it any more.
func emptyLog(ctx context.Context, c *sql.Conn) error {
	for deadline := time.Now().Add(scrubPatience); ; {
		var busy, pages, moved int
		if err := c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved); err != nil {
			return fmt.Errorf("empty the database's log: %w", err)
		}
		if busy == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("empty the database's log: somebody reads from it; it is tried again")
		}
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
	}
}
