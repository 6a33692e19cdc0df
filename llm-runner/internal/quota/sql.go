package quota

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// load reads all buckets.
func load(ctx context.Context, d *db.DB) ([]*bucket, error) {
	rows, err := d.Read().QueryContext(ctx, `SELECT provider, model, dimension, refill, counts, most, used, uses, at, reset_at, closed
		FROM quota_buckets`)
	if err != nil {
		return nil, fmt.Errorf("read quota: %w", err)
	}
	defer rows.Close()
	var all []*bucket
	for rows.Next() {
		var provider, model, dimension, uses string
		var most sql.NullInt64
		x := &bucket{}
		if err := rows.Scan(&provider, &model, &dimension, &x.refill, &x.counts, &most, &x.used, &uses, &x.at, &x.reset, &x.closed); err != nil {
			return nil, fmt.Errorf("read quota: %w", err)
		}
		if err := json.Unmarshal([]byte(uses), &x.uses); err != nil {
			return nil, fmt.Errorf("read quota of %s: %w", provider, err)
		}
		b := newBucket(provider, model, dimension)
		b.refill, b.counts, b.most, b.known = x.refill, x.counts, most.Int64, most.Valid
		b.used, b.uses, b.at, b.reset, b.closed = x.used, x.uses, x.at, x.reset, x.closed
		all = append(all, b)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read quota: %w", err)
	}
	return all, nil
}

// save writes buckets in one transaction.
func save(ctx context.Context, d *db.DB, all []bucket) error {
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		for i := range all {
			b := &all[i]
			uses, err := json.Marshal(b.uses)
			if err != nil {
				return err
			}
			most := llm.Count{}
			if b.known {
				most = llm.Known(b.most)
			}
			if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO quota_buckets
				(provider, model, dimension, refill, counts, most, used, uses, at, reset_at, closed) VALUES (?,?,?,?,?,?,?,?,?,?,?)`,
				b.provider, b.model, b.dimension, b.refill, b.counts, most.Ptr(), b.used, string(uses), b.at, b.reset, b.closed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write quota: %w", err)
	}
	return nil
}
