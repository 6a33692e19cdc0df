//go:build prove

package db_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// Whenever the server goes, what cannot be written says that it is away; Watch tells it once, and once that it is back. An error of a
// statement is no such thing.
func TestPostgresThatGoesIsAway(t *testing.T) {
	server := postgrestest.Start(t)
	d := openPostgres(t, server.New())
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	told := make(chan *db.Trouble, 10)
	running.Go(func() { d.Listen(ctx) })                                   //nolint:errcheck // it has no errors
	running.Go(func() { d.Watch(ctx, func(x *db.Trouble) { told <- x }) }) //nolint:errcheck // it ends with ctx
	defer running.Wait()
	defer stop()
	ask := func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), `SELECT 1`)
		return err
	}
	next := func() *db.Trouble {
		t.Helper()
		select {
		case x := <-told:
			return x
		case <-time.After(time.Minute):
			t.Fatal("nothing was told for a minute")
			return nil
		}
	}
	if err := d.Tx(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	wrong := d.Tx(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), `SELECT nothing`)
		return err
	})
	own := errors.New("not today")
	if err := d.Tx(t.Context(), func(*sql.Tx) error { return own }); wrong == nil || db.FaultOf(wrong) != "" || db.FaultOf(err) != "" || !errors.Is(err, own) {
		t.Errorf("%v and %v count as %q and %q", wrong, err, db.FaultOf(wrong), db.FaultOf(err))
	}
	for round := range 2 {
		err := d.Tx(t.Context(), func(tx *sql.Tx) error {
			server.Stop()
			return ask(tx)
		})
		if err == nil || db.FaultOf(err) != db.Away || db.Told(err) {
			t.Errorf("in a transaction: %v is %q", err, db.FaultOf(err))
		}
		for range 10 { // connections of the pool, then none
			if err := d.Tx(t.Context(), ask); err == nil || db.FaultOf(err) != db.Away {
				t.Errorf("before one: %v is %q", err, db.FaultOf(err))
			}
		}
		if x := next(); x == nil || x.Fault != db.Away || !strings.HasPrefix(x.Says(), "PostgreSQL at 127.0.0.1:") || x != d.Away() {
			t.Errorf("round %d: told %+v", round, x)
		}
		server.Up()
		if x := next(); x != nil || d.Away() != nil {
			t.Errorf("round %d: told %+v of its end", round, x)
		}
		if err := d.Tx(t.Context(), ask); err != nil {
			t.Error(err)
		}
	}
}
