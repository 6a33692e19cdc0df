package quota

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

const columns = `provider, model, dimension, refill, counts, most, used, uses, at, reset_at, closed, seen, configured`

// load reads all buckets.
func load(ctx context.Context, d *db.DB) ([]*bucket, error) {
	return query(ctx, d.Read(), `SELECT `+columns+`, 0 FROM quota_buckets`)
}

// loadShared reads the buckets of a provider, or of all for "", with what others than a process have reserved of them since a
// time.
func loadShared(ctx context.Context, q db.Querier, provider, worker string, since int64) ([]*bucket, error) {
	return query(ctx, q, `SELECT `+columns+`, coalesce((SELECT sum(r.amount) FROM quota_reserved r WHERE r.provider = b.provider AND
		r.model = b.model AND r.dimension = b.dimension AND r.worker <> ? AND r.at > ?), 0) FROM quota_buckets b WHERE ? IN ('', provider)`,
		worker, since, provider)
}

func query(ctx context.Context, q db.Querier, query string, args ...any) ([]*bucket, error) {
	return db.All(ctx, q, "read quota", func(row *sql.Rows) (*bucket, error) {
		var provider, model, dimension, uses string
		var most, configured sql.NullInt64
		x := &bucket{}
		if err := row.Scan(&provider, &model, &dimension, &x.refill, &x.counts, &most, &x.used, &uses, &x.at, &x.reset, &x.closed,
			&x.seen, &configured, &x.others); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(uses), &x.uses); err != nil {
			return nil, fmt.Errorf("%s: %w", provider, err)
		}
		b := newBucket(provider, model, dimension)
		b.refill, b.counts, b.most, b.known = x.refill, x.counts, most.Int64, most.Valid
		b.used, b.uses, b.at, b.reset, b.closed, b.seen, b.others = x.used, x.uses, x.at, x.reset, x.closed, x.seen, x.others
		b.configured = db.Count(configured)
		return b, nil
	}, query, args...)
}

// save writes buckets in one transaction.
func save(ctx context.Context, d *db.DB, all []bucket) error {
	return d.Tx(ctx, func(tx *sql.Tx) error {
		for i := range all {
			if err := saveBucket(ctx, tx, &all[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func saveBucket(ctx context.Context, tx *sql.Tx, b *bucket) error {
	uses, err := json.Marshal(b.uses)
	if err != nil {
		return fmt.Errorf("write quota: %w", err)
	}
	most := llm.Count{}
	if b.known {
		most = llm.Known(b.most)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO quota_buckets (`+columns+`) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (provider, model, dimension) DO UPDATE SET refill = excluded.refill, counts = excluded.counts, most = excluded.most,
		used = excluded.used, uses = excluded.uses, at = excluded.at, reset_at = excluded.reset_at, closed = excluded.closed, seen = excluded.seen,
		configured = excluded.configured`,
		b.provider, b.model, b.dimension, b.refill, b.counts, most.Ptr(), b.used, string(uses), b.at, b.reset, b.closed, int64(b.seen), b.configured.Ptr()); err != nil { //nolint:gosec // a time
		return fmt.Errorf("write quota: %w", err)
	}
	return nil
}

// saveReserved tells the other processes what requests under way of this one have reserved of a bucket.
func saveReserved(ctx context.Context, tx *sql.Tx, b *bucket, worker string, t int64) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO quota_reserved (provider, model, dimension, worker, amount, at) VALUES (?,?,?,?,?,?)
		ON CONFLICT (provider, model, dimension, worker) DO UPDATE SET amount = excluded.amount, at = excluded.at`,
		b.provider, b.model, b.dimension, worker, b.pending+b.owed, t); err != nil {
		return fmt.Errorf("write quota: %w", err)
	}
	return nil
}

// forgetReserved removes what a process has reserved, and what others have before a time.
func forgetReserved(ctx context.Context, d *db.DB, worker string, before int64) error {
	if _, err := d.Writer().ExecContext(ctx, `DELETE FROM quota_reserved WHERE worker = ? OR at <= ?`, worker, before); err != nil {
		return fmt.Errorf("write quota: %w", err)
	}
	return nil
}

// databaseClock is the time of a shared database's server in unix nanoseconds.
func databaseClock(ctx context.Context, q db.Querier) (t int64, err error) {
	if err := q.QueryRowContext(ctx, `SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) * 1000`).Scan(&t); err != nil {
		return 0, fmt.Errorf("read the database's clock: %w", err)
	}
	return t, nil
}

// readPlaces reads who uses places of a provider or waits for one, and has said so since a time.
func readPlaces(ctx context.Context, q db.Querier, provider string, since int64) ([]stand, error) {
	return db.All(ctx, q, "read places", func(row *sql.Rows) (s stand, err error) {
		err = row.Scan(&s.worker, &s.taken, &s.waiting, &s.since)
		return s, err
	}, `SELECT worker, taken, waiting, since FROM quota_places WHERE provider = ? AND at > ?`, provider, since)
}

// savePlaces writes the row of a process, or removes it where it has nothing, and removes those that were written before a time.
func savePlaces(ctx context.Context, tx *sql.Tx, provider string, s stand, now, before int64) (err error) {
	if s.taken+s.waiting > 0 {
		_, err = tx.ExecContext(ctx, `INSERT INTO quota_places (provider, worker, taken, waiting, since, at) VALUES (?,?,?,?,?,?)
			ON CONFLICT (provider, worker) DO UPDATE SET taken = excluded.taken, waiting = excluded.waiting, since = excluded.since, at = excluded.at`,
			provider, s.worker, s.taken, s.waiting, s.since, now)
		s.worker = ""
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, `DELETE FROM quota_places WHERE provider = ? AND (worker = ? OR at <= ?)`, provider, s.worker, before)
	}
	if err != nil {
		return fmt.Errorf("write places: %w", err)
	}
	return nil
}

// forgetPlaces removes what a process has of all providers.
func forgetPlaces(ctx context.Context, d *db.DB, worker string) error {
	if _, err := d.Writer().ExecContext(ctx, `DELETE FROM quota_places WHERE worker = ?`, worker); err != nil {
		return fmt.Errorf("write places: %w", err)
	}
	return nil
}
