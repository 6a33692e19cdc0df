//go:build prove

package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// A member is one of several processes on a database, here within one.
type member struct {
	*Engine
	db    *db.DB
	ran   chan string // keys of tasks that began
	heirs chan string // who was adopted
}

func join(t *testing.T, url, place string, task Task) *member {
	return joinWith(t, url, place, task, 0, deadAfter, 0)
}

// joinWith is join with so many places, and with what the others tell where poll says how often the queue is looked at otherwise.
func joinWith(t *testing.T, url, place string, task Task, places int, patience, poll time.Duration) *member {
	t.Helper()
	d, err := db.OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	handle, err := d.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := d.NewPool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Poll: 20 * time.Millisecond, Workers: places}
	if poll > 0 {
		c.Poll, c.Tell, c.Hear = poll, d.Tell, d.Hear
	}
	e, err := OpenShared(t.Context(), handle, pool, d.Worker(), place, c)
	if err != nil {
		t.Fatal(err)
	}
	e.workers.sweep, e.workers.patience = 200*time.Millisecond, patience
	m := &member{e, d, make(chan string, 1000), make(chan string, 10)}
	e.Register("t", func(ctx context.Context, key string) error {
		m.ran <- key
		return task(ctx, key)
	})
	e.Inherits(func(_ context.Context, worker string) error {
		m.heirs <- worker
		return nil
	})
	if err := e.Launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close(time.Second) //nolint:errcheck // closed twice in some tests
		d.Close()
	})
	return m
}

// sleep has the heart of a member stand still.
func (m *member) sleep() {
	m.workers.cancel()
	m.workers.done.Wait()
}

// die has a member do nothing any more, as if its process had been killed.
func (m *member) die() {
	m.sleep()
	dbos.Shutdown(m.ctx, time.Second) //nolint:errcheck // its tasks need not end in time
}

func wait[T any](t *testing.T, from <-chan T, atMost time.Duration) T {
	t.Helper()
	select {
	case x := <-from:
		return x
	case <-time.After(atMost):
		t.Fatalf("nothing came in %s", atMost)
		panic("")
	}
}

func finish(context.Context, string) error { return nil }

// hang works until it is told to stop.
func hang(ctx context.Context, _ string) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestSharedTasksRunOnceEach(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, b := join(t, url, "a", finish), join(t, url, "b", finish)
	err := a.db.Tx(t.Context(), func(tx *sql.Tx) error {
		return errors.Join(a.Start(tx, "t", "never", "never", Options{}), errors.New("rolled back"))
	})
	if err == nil {
		t.Fatal("committed")
	}
	const n = 100
	for i := range n {
		start(t, []*Engine{a.Engine, b.Engine}[i%2], a.db, fmt.Sprint(i), fmt.Sprint(i), Options{Lane: fmt.Sprint(i % 3)})
	}
	start(t, b.Engine, b.db, "woken", "woken", Options{Delay: time.Hour})
	start(t, b.Engine, b.db, "gone", "gone", Options{Delay: time.Hour})
	if err := errors.Join(a.Cancel("gone"), a.Wake("woken", time.Now()), a.Wake("gone", time.Now())); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for range n + 1 {
		select {
		case key := <-a.ran:
			keys = append(keys, key)
		case key := <-b.ran:
			keys = append(keys, key)
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of %d ran", len(keys), n+1)
		}
	}
	slices.Sort(keys)
	if got := len(slices.Compact(slices.Clone(keys))); got != n+1 || slices.Contains(keys, "never") || slices.Contains(keys, "gone") {
		t.Errorf("%d different of %d: %v", got, len(keys), keys)
	}
}

func TestALivingProcessTakesOverFromADeadOne(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a := join(t, url, "a", hang)
	start(t, a.Engine, a.db, "x", "unfinished", Options{Lane: "gpu"})
	wait(t, a.ran, time.Minute)
	a.die()
	b, c := join(t, url, "b", finish), join(t, url, "c", finish)
	began := time.Now()
	both := make(chan string, 2)
	var pumps sync.WaitGroup
	stop := make(chan struct{})
	for _, m := range []*member{b, c} {
		pumps.Go(func() {
			for {
				select {
				case key := <-m.ran:
					both <- key
				case <-stop:
					return
				}
			}
		})
	}
	if key := wait(t, both, time.Minute); key != "unfinished" {
		t.Errorf("ran %q", key)
	}
	t.Logf("adopted and running after %s", time.Since(began).Round(time.Millisecond))
	close(stop)
	pumps.Wait()
	if len(b.heirs)+len(c.heirs) != 1 || len(both) != 0 {
		t.Errorf("%d and %d took over, it ran %d times more", len(b.heirs), len(c.heirs), len(both))
	}
}

func TestWhoEndsOrStartsAnewIsInheritedAtOnce(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a := join(t, url, "here", hang)
	start(t, a.Engine, a.db, "x", "unfinished", Options{})
	wait(t, a.ran, time.Minute)
	a.die()                       // killed, and started anew in the same data directory
	const standsStill = time.Hour // nobody is taken for dead because of that
	b := joinWith(t, url, "here", hang, 0, standsStill, 0)
	wait(t, b.ran, time.Minute)
	c := joinWith(t, url, "there", finish, 0, standsStill, 0)
	if err := b.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	wait(t, c.ran, time.Minute)
}

func TestAProcessThatWasAsleepLosesItsTasksAndGoesOn(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	causes := make(chan error, 10)
	a := joinWith(t, url, "a", func(ctx context.Context, key string) error {
		if key == "lost" {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return context.Cause(ctx)
		}
		return nil
	}, 1, deadAfter, 0)
	start(t, a.Engine, a.db, "x", "lost", Options{})
	wait(t, a.ran, time.Minute)
	a.sleep()                                           // its only place is taken, so it takes nothing else
	b := joinWith(t, url, "b", finish, 1, deadAfter, 0) // places are the queue's, the same for all
	if key := wait(t, b.ran, time.Minute); key != "lost" {
		t.Errorf("ran %q", key)
	}
	a.workers.start(a.Engine) // it wakes up
	if err := wait(t, causes, time.Minute); !errors.Is(err, errLost) {
		t.Errorf("the task ended because %v", err)
	}
	if err := b.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	start(t, a.Engine, a.db, "y", "next", Options{})
	if key := wait(t, a.ran, time.Minute); key != "next" {
		t.Errorf("ran %q", key)
	}
}

func TestSharedTasksGoOnWhenTheDatabaseIsBack(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	release := make(chan struct{})
	a := join(t, url, "a", func(ctx context.Context, key string) error {
		if key == "first" {
			<-release
		}
		return nil
	})
	b := join(t, url, "b", finish)
	start(t, a.Engine, a.db, "x", "second", Options{Delay: time.Second})
	both := func() string {
		select {
		case key := <-a.ran:
			return key
		case key := <-b.ran:
			return key
		case <-time.After(60 * time.Second):
			t.Fatal("nothing ran")
			return ""
		}
	}
	server.Stop()
	server.Up()
	if key := both(); key != "second" {
		t.Errorf("ran %q", key)
	}
	close(release)
	if len(a.heirs)+len(b.heirs) != 0 {
		t.Error("a living process was taken for dead")
	}
}

func TestATaskThatWasGivenOutUnheardIsCalledAgain(t *testing.T) {
	server := postgrestest.Start(t)
	hung := make(chan struct{})
	a := join(t, server.New(), "a", func(_ context.Context, key string) error {
		if key == "long" {
			<-hung
		}
		return nil
	})
	defer close(hung)
	start(t, a.Engine, a.db, "x", "long", Options{}) // one that runs is left alone, however long it does
	wait(t, a.ran, time.Minute)
	start(t, a.Engine, a.db, "y", "unheard", Options{Delay: time.Hour})
	// As if the connection had broken between the queue's commit and its answer.
	r, err := a.db.Writer().Exec(`UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = ? WHERE workflow_uuid = 'y'`, a.workers.id)
	if n, _ := r.RowsAffected(); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if key := wait(t, a.ran, time.Minute); key != "unheard" {
		t.Errorf("ran %q", key)
	}
	time.Sleep(time.Second) // five sweeps
	if len(a.ran) != 0 {
		t.Errorf("also ran %q", <-a.ran)
	}
}

// Whoever starts a task wakes all, so that nobody has to look often: with an hour between looks a task begins.
func TestSharedTasksBeginAtOnceThoughNobodyLooksOften(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	hour := func(place string) *member { return joinWith(t, url, place, finish, 0, deadAfter, time.Hour) }
	a, b := hour("a"), hour("b")
	for _, m := range []*member{a, b} {
		ctx, stop := context.WithCancel(t.Context())
		var listening sync.WaitGroup
		listening.Go(func() { m.db.Listen(ctx) }) //nolint:errcheck // it has no errors
		t.Cleanup(func() {
			stop()
			listening.Wait()
		})
	}
	for i := range 20 {
		key := fmt.Sprint(i)
		start(t, a.Engine, a.db, key, key, Options{Lane: key})
		select {
		case got := <-a.ran:
			if got != key {
				t.Fatalf("ran %s, want %s", got, key)
			}
		case got := <-b.ran:
			if got != key {
				t.Fatalf("ran %s, want %s", got, key)
			}
		case <-time.After(time.Minute):
			t.Fatalf("task %d did not begin", i)
		}
	}
	for _, m := range []*member{a, b} {
		m.gate.mu.Lock()
		if n := m.gate.looks; n == 0 || n > 30 { // the first, one for each task, and what Listen may have missed
			t.Errorf("%d looks passed the gate: 0 says that this DBOS looks otherwise than the gate knows", n)
		}
		m.gate.mu.Unlock()
	}
}

// Of the processes that live one speaks for all; when it has ended, another one does.
func TestOneOfTheSharedSpeaksForAll(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	all := map[string]*member{}
	for _, place := range []string{"a", "b", "c"} {
		m := join(t, url, place, finish)
		all[m.workers.id] = m
	}
	for range 2 {
		names := slices.Sorted(maps.Keys(all))
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			var first []string
			for id, m := range all {
				if m.First() {
					first = append(first, id)
				}
			}
			if slices.Equal(first, names[:1]) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v speak for %v", first, names)
			}
		}
		all[names[0]].Close(time.Second) //nolint:errcheck // it has nothing to do
		delete(all, names[0])
	}
}
