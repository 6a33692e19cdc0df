// Package enginetest opens databases with the engine on them for tests, in SQLite and in a real PostgreSQL.
package enginetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// An Opener opens the database that a path stands for, with its engine. The caller closes both.
type Opener func(t testing.TB, path string, c engine.Config) (*db.DB, *engine.Engine)

// Open is the Opener of SQLite files.
func Open(t testing.TB, path string, c engine.Config) (*db.DB, *engine.Engine) {
	t.Helper()
	d, err := db.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return d, On(t, d, c)
}

// On opens the engine of a database. The caller closes it before the database.
func On(t testing.TB, d *db.DB, c engine.Config) *engine.Engine {
	t.Helper()
	e, err := on(d, c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func on(d *db.DB, c engine.Config) (*engine.Engine, error) {
	ctx := context.Background()
	handle, err := d.NewWriter()
	if err != nil {
		return nil, err
	}
	if !d.Shared() {
		return engine.Open(ctx, handle, c)
	}
	pool, err := d.NewPool(ctx)
	if err != nil {
		return nil, err
	}
	c.Tell, c.Hear = d.Tell, d.Hear
	return engine.OpenShared(ctx, handle, pool, d.Worker(), d.Worker(), c)
}

// OnPostgres has open, until the test ends, open databases of one PostgreSQL server, one for each path. Each call is one more process on it, that
// hears the others until its own test ends.
func OnPostgres(t testing.TB, open *Opener) {
	t.Helper()
	onPostgres(t, open, 20*time.Millisecond)
}

// Served is OnPostgres with the times of a server at work, for those who measure.
func Served(t testing.TB, open *Opener) {
	t.Helper()
	onPostgres(t, open, 0)
}

func onPostgres(t testing.TB, open *Opener, poll time.Duration) {
	t.Helper()
	server, before, urls := postgrestest.Start(t), *open, map[string]string{}
	*open = func(t testing.TB, path string, c engine.Config) (*db.DB, *engine.Engine) {
		t.Helper()
		if urls[path] == "" {
			urls[path] = server.New()
		}
		d, err := db.OpenPostgres(context.Background(), urls[path])
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		var listening sync.WaitGroup
		listening.Go(func() { d.Listen(ctx) }) //nolint:errcheck // it has no errors
		t.Cleanup(func() {
			stop()
			listening.Wait()
		})
		c.Poll = poll
		return d, On(t, d, c)
	}
	t.Cleanup(func() { *open = before })
}
