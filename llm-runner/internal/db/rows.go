package db

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// A Querier reads: a transaction, or the pool that Read returns.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Each hands the rows of a query to f, one by one, until one of them is an error. Here as below, what says what is read ("read jobs") and stands
// before every error, also before one of f; where it is "", the caller says that. f gets the rows themselves: scanning through an interface
// would allocate for each row.
func Each(ctx context.Context, q Querier, what string, f func(row *sql.Rows) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return because(what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return because(what, err)
		}
	}
	return because(what, rows.Err())
}

func because(what string, err error) error {
	if err == nil || what == "" {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// All returns what scan makes of the rows of a query, in their order: an empty list where there are none, not nil, so that JSON has [].
func All[T any](ctx context.Context, q Querier, what string, scan func(row *sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	all := []T{}
	err := Each(ctx, q, what, func(row *sql.Rows) error {
		x, err := scan(row)
		if err == nil {
			all = append(all, x)
		}
		return err
	}, query, args...)
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Map returns what scan makes of the rows of a query, each under its key; the last of those with one key.
func Map[K comparable, V any](ctx context.Context, q Querier, what string, scan func(row *sql.Rows) (K, V, error), query string, args ...any) (map[K]V, error) {
	all := map[K]V{}
	err := Each(ctx, q, what, func(row *sql.Rows) error {
		k, v, err := scan(row)
		if err == nil {
			all[k] = v
		}
		return err
	}, query, args...)
	if err != nil {
		return nil, err
	}
	return all, nil
}

// One returns what scan makes of the first row of a query; sql.ErrNoRows where there is none.
func One[T any](ctx context.Context, q Querier, what string, scan func(row *sql.Rows) (T, error), query string, args ...any) (x T, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return x, because(what, err)
	}
	defer rows.Close()
	if rows.Next() {
		x, err = scan(rows)
	} else if err = rows.Err(); err == nil {
		err = sql.ErrNoRows
	}
	if err == nil {
		err = rows.Close()
	}
	return x, because(what, err)
}

// Column scans rows of one column.
func Column[T any](row *sql.Rows) (x T, err error) {
	err = row.Scan(&x)
	return x, err
}

// In returns the parameters of IN (...) for values, and the arguments that belong to them.
func In[T any](values []T) (marks string, args []any) {
	args = make([]any, len(values))
	for i, x := range values {
		args[i] = x
	}
	return strings.TrimSuffix(strings.Repeat("?,", len(values)), ","), args
}
