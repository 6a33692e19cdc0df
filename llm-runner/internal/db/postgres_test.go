//go:build prove

package db_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

func openPostgres(t *testing.T, url string) *db.DB {
	t.Helper()
	d, err := db.OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestPostgres(t *testing.T) {
	server := postgrestest.Start(t)
	t.Run("processes that start together migrate once", func(t *testing.T) {
		url := server.New()
		var wg sync.WaitGroup
		applied := make([]int, 6)
		for i := range applied {
			wg.Go(func() {
				d, err := db.OpenPostgres(t.Context(), url)
				if err != nil {
					t.Error(err)
					return
				}
				defer d.Close()
				applied[i] = len(d.Applied)
			})
		}
		wg.Wait()
		sum := 0
		for _, n := range applied {
			sum += n
			if n != 0 && n < 6 {
				t.Errorf("part of the migrations: %v", applied)
			}
		}
		if d := openPostgres(t, url); sum == 0 || len(d.Applied) != 0 {
			t.Errorf("applied %v, then %v", applied, d.Applied)
		}
	})

	t.Run("a newer database is refused untouched", func(t *testing.T) {
		url := server.New()
		d := openPostgres(t, url)
		if _, err := d.Writer().Exec("UPDATE schema_version SET version = ?", 9999); err != nil {
			t.Fatal(err)
		}
		if _, err := db.OpenPostgres(t.Context(), url); err == nil || !strings.Contains(err.Error(), "newer version") {
			t.Errorf("%v", err)
		}
	})

	t.Run("a database that is not there is named without its password", func(t *testing.T) {
		_, err := db.OpenPostgres(t.Context(), server.URL("nobody"))
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("%v", err)
		}
		if _, err := db.OpenPostgresRead(t.Context(), server.New()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an empty database: %v", err)
		}
	})

	t.Run("a transaction that fails leaves nothing", func(t *testing.T) {
		d := openPostgres(t, server.New())
		err := d.Tx(t.Context(), func(tx *sql.Tx) error {
			if _, err := tx.Exec("INSERT INTO chats (title, created_at, updated_at) VALUES (?,?,?)", "NUL \x00 and \xff", 1, 1); err != nil {
				return err
			}
			return errors.New("no")
		})
		var n int
		if err2 := d.Read().QueryRow("SELECT count(*) FROM chats").Scan(&n); err.Error() != "no" || err2 != nil || n != 0 {
			t.Errorf("%v, %v, %d rows", err, err2, n)
		}
	})

	t.Run("one waits for the other where a name is locked", func(t *testing.T) {
		url := server.New()
		a, b := openPostgres(t, url), openPostgres(t, url)
		var order []string
		locked, done := make(chan struct{}), make(chan error, 1)
		var mu sync.Mutex
		note := func(what string) { mu.Lock(); order = append(order, what); mu.Unlock() }
		go func() {
			done <- a.Tx(t.Context(), func(tx *sql.Tx) error {
				if err := a.LockName(t.Context(), tx, "x"); err != nil {
					return err
				}
				close(locked)
				if _, err := tx.Exec("SELECT pg_sleep(0.3)"); err != nil {
					return err
				}
				note("first")
				return nil
			})
		}()
		<-locked
		err := b.Tx(t.Context(), func(tx *sql.Tx) error {
			err := b.LockName(t.Context(), tx, "x")
			note("second")
			return err
		})
		if err := errors.Join(err, <-done); err != nil || strings.Join(order, " ") != "first second" {
			t.Errorf("%v, %v", order, err)
		}
	})

	t.Run("a key that is taken is told from other failures", func(t *testing.T) {
		d := openPostgres(t, server.New())
		insert := "INSERT INTO engine_workers (id, place, beat) VALUES ('a', '', 0)"
		if _, err := d.Writer().Exec(insert); err != nil || db.Taken(err) {
			t.Fatal(err)
		}
		if _, err := d.Writer().Exec(insert); !db.Taken(err) {
			t.Errorf("%v", err)
		}
	})
}

func TestWhatOneProcessTellsTheOthersHear(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, b := openPostgres(t, url), openPostgres(t, url)
	heard := make(chan string, 100)
	b.Hear("jobs", func(text string) { heard <- text })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Listen(ctx) }()
	next := func() string {
		select {
		case text := <-heard:
			return text
		case <-time.After(20 * time.Second):
			t.Fatal("nothing was heard")
			return ""
		}
	}
	tell := func(topic, text string, end error) {
		err := a.Tx(t.Context(), func(tx *sql.Tx) error {
			if err := a.Tell(t.Context(), tx, topic, text); err != nil {
				return err
			}
			return end
		})
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
	}
	if text := next(); text != "" {
		t.Errorf("at first %q", text)
	}
	tell("jobs", "rolled back", errors.New("no"))
	tell("other", "not ours", nil)
	tell("jobs", "12 done", nil)
	if text := next(); text != "12 done" {
		t.Errorf("heard %q", text)
	}
	server.Stop()
	server.Up()
	if text := next(); text != "" {
		t.Errorf("after the server was gone, heard %q", text)
	}
	tell("jobs", "again", nil)
	if text := next(); text != "again" {
		t.Errorf("heard %q", text)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
