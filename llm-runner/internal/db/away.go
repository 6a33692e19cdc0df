package db

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Away is the fault of a shared database whose server does not answer.
const Away Fault = "away"

// A cutError is why a transaction was not made whose connection broke.
type cutError struct{ error }

func (e cutError) Unwrap() error { return e.error }

// cut marks why a transaction of a shared database was not made, where its connection is to blame: none could be had, or it takes no
// rollback any more. Of a commit that breaks nobody knows whether it was made: it is not marked.
func (d *DB) cut(ctx context.Context, err error, tx *sql.Tx) error {
	if d.shared == nil || ctx.Err() != nil {
		return err
	}
	if tx != nil {
		if back := tx.Rollback(); back == nil || errors.Is(back, sql.ErrTxDone) {
			return err
		}
	}
	return cutError{err}
}

// away says that an error comes of a server that does not answer: it cannot be connected to, or the connection of a transaction broke.
func away(err error) bool {
	var cut cutError
	var failed *pgconn.ConnectError
	return errors.As(err, &cut) || errors.As(err, &failed)
}

// Away is why and since when the server of a shared database does not answer; nil where it does, and in SQLite. Listen is who notices.
func (d *DB) Away() *Trouble {
	if d.shared == nil {
		return nil
	}
	return d.shared.away.Load()
}

// missed notes that the server does not answer.
func (d *DB) missed(err error) {
	d.shared.away.CompareAndSwap(nil, &Trouble{Fault: Away, Since: time.Now(), Path: d.path, Err: plain(err)})
}

// heard notes that it does.
func (d *DB) heard() { d.shared.away.Store(nil) }
