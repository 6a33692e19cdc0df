package engine

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

func open(t *testing.T, path string, tasks map[string]Task) (*Engine, *db.DB) {
	t.Helper()
	d, err := db.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	handle, err := d.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(t.Context(), handle, Config{Poll: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for name, task := range tasks {
		e.Register(name, task)
	}
	if err := e.Launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(time.Second) }) //nolint:errcheck // closed twice in some tests
	return e, d
}

func start(t *testing.T, e *Engine, d *db.DB, id, key string, o Options) {
	t.Helper()
	if err := d.Tx(t.Context(), func(tx *sql.Tx) error { return e.Start(tx, "t", id, key, o) }); err != nil {
		t.Fatal(err)
	}
}

func TestATaskRunsOnceItsTransactionIsCommitted(t *testing.T) {
	ran := make(chan string, 10)
	e, d := open(t, filepath.Join(t.TempDir(), db.Name), map[string]Task{"t": func(_ context.Context, key string) error {
		ran <- key
		return nil
	}})
	err := d.Tx(t.Context(), func(tx *sql.Tx) error {
		if err := e.Start(tx, "t", "never", "never", Options{}); err != nil {
			return err
		}
		return errors.New("rolled back")
	})
	if err == nil {
		t.Fatal("committed")
	}
	start(t, e, d, "a", "once", Options{})
	if key := <-ran; key != "once" {
		t.Errorf("ran %q", key)
	}
	start(t, e, d, "a", "once", Options{}) // the same id: nothing new
	start(t, e, d, "b", "next", Options{})
	if key := <-ran; key != "next" {
		t.Errorf("ran %q", key)
	}
}

// What a task could not write down it writes down when it is called again; a fault that no call can mend is the end.
func TestATaskThatFailsIsCalledAgain(t *testing.T) {
	ran := make(chan string, 10)
	calls := map[string]int{}
	e, d := open(t, filepath.Join(t.TempDir(), db.Name), map[string]Task{"t": func(_ context.Context, key string) error {
		calls[key]++ // they follow each other
		ran <- key
		switch {
		case key == "senseless":
			return Final(errors.New("no such thing"))
		case calls[key] < 3:
			return errors.New("the disk refuses")
		}
		return nil
	}})
	start(t, e, d, "a", "senseless", Options{})
	if key := <-ran; key != "senseless" {
		t.Errorf("ran %q", key)
	}
	start(t, e, d, "b", "refused", Options{})
	for range 3 {
		if key := <-ran; key != "refused" {
			t.Errorf("ran %q", key)
		}
	}
	start(t, e, d, "c", "last", Options{})
	for range 3 {
		if key := <-ran; key != "last" {
			t.Errorf("ran %q", key)
		}
	}
	if calls["senseless"] != 1 || calls["refused"] != 3 {
		t.Errorf("called %v", calls)
	}
}

func TestADelayedTaskIsWokenEarlyOrCancelled(t *testing.T) {
	ran := make(chan string, 10)
	e, d := open(t, filepath.Join(t.TempDir(), db.Name), map[string]Task{"t": func(_ context.Context, key string) error {
		ran <- key
		return nil
	}})
	start(t, e, d, "gone", "gone", Options{Delay: time.Hour})
	start(t, e, d, "woken", "woken", Options{Delay: time.Hour})
	if err := e.Cancel("gone"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"gone", "woken"} {
		if err := e.Wake(id, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if key := <-ran; key != "woken" {
		t.Errorf("ran %q", key)
	}
	t.Logf("woken after %s", time.Since(began))
}

func TestTheNextProcessTakesUpWhatThisOneLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	began := make(chan string, 10)
	e, d := open(t, path, map[string]Task{"t": func(ctx context.Context, key string) error {
		began <- key
		<-ctx.Done()
		return ctx.Err()
	}})
	start(t, e, d, "a", "unfinished", Options{})
	<-began
	if err := e.Close(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	d.Close()
	ran := make(chan string, 10)
	open(t, path, map[string]Task{"t": func(_ context.Context, key string) error {
		ran <- key
		return nil
	}})
	if key := <-ran; key != "unfinished" {
		t.Errorf("ran %q", key)
	}
}

func TestTheExecutorKeepsItsName(t *testing.T) {
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	a, err := Identity(t.Context(), d.Writer())
	if err != nil || a == "" {
		t.Fatal(a, err)
	}
	if b, err := Identity(t.Context(), d.Writer()); err != nil || b != a {
		t.Errorf("%q, then %q, %v", a, b, err)
	}
}
