package embed

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// A cached vector covers the first so many bytes of its text.
type cached struct {
	vector []float32
	covers int
}

// day is how finely the cache knows when a vector was used: once a day it is worth a write.
func day(t time.Time) int64 { return t.Unix() / 86400 }

// lookUp returns what the cache holds, by key, and has those that are found count as used today.
func lookUp(ctx context.Context, d *db.DB, keys []string, today int64) (map[string]cached, error) {
	found := map[string]cached{}
	if len(keys) == 0 {
		return found, nil
	}
	var stale []string
	marks, args := db.In(keys)
	err := db.Each(ctx, d.Read(), "read embeddings", func(row *sql.Rows) error {
		var key string
		var vector sql.RawBytes
		var c cached
		var used int64
		if err := row.Scan(&key, &vector, &c.covers, &used); err != nil {
			return err
		}
		if c.vector = unpacked(vector); len(c.vector) > 0 {
			found[key] = c
		}
		if used != today {
			stale = append(stale, key)
		}
		return nil
	}, `SELECT hash, vector, covers, used_day FROM embeddings WHERE hash IN (`+marks+`)`, args...)
	if err != nil {
		return nil, err
	}
	if len(stale) == 0 {
		return found, nil
	}
	slices.Sort(stale)
	err = d.Tx(ctx, func(tx *sql.Tx) error {
		for _, key := range stale { // one by one, in order: two processes that do the same must not lock each other out
			if _, err := tx.ExecContext(ctx, `UPDATE embeddings SET used_day = ? WHERE hash = ?`, today, key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("write embeddings: %w", err)
	}
	return found, nil
}

// keep puts vectors into the cache.
func keep(ctx context.Context, d *db.DB, all map[string]cached, today int64) error {
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		for _, key := range slices.Sorted(maps.Keys(all)) { // in order, see lookUp
			c := all[key]
			if _, err := tx.ExecContext(ctx, `INSERT INTO embeddings (hash, vector, covers, used_day) VALUES (?, ?, ?, ?)
				ON CONFLICT (hash) DO UPDATE SET vector = excluded.vector, covers = excluded.covers, used_day = excluded.used_day`,
				key, packed(c.vector), c.covers, today); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write embeddings: %w", err)
	}
	return nil
}

// prune removes what was not used since a day.
func prune(ctx context.Context, d *db.DB, since int64) (n int64, err error) {
	err = d.Tx(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `DELETE FROM embeddings WHERE used_day < ?`, since)
		if err != nil {
			return err
		}
		n, err = r.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("prune embeddings: %w", err)
	}
	return n, nil
}
