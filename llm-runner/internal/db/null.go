package db

import (
	"database/sql"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// OrNull returns x for a column, NULL where x is its type's zero.
func OrNull[T comparable](x T) any {
	var zero T
	if x == zero {
		return nil
	}
	return x
}

// Millis returns t as unix milliseconds for a column, NULL for the zero time.
func Millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// Moment reads what Millis wrote.
func Moment(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64)
}

// Count reads a count of which NULL means unknown.
func Count(n sql.NullInt64) llm.Count {
	if !n.Valid {
		return llm.Count{}
	}
	return llm.Known(n.Int64)
}
