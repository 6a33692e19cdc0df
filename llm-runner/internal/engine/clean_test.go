package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"

	"home.arpa/lab/llm-runner/internal/db"
)

// calls are the ids of the calls that the engine has, with their states.
func calls(t *testing.T, e *Engine) map[string]dbos.WorkflowStatusType {
	t.Helper()
	all, err := dbos.ListWorkflows(e.ctx)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]dbos.WorkflowStatusType{}
	for _, w := range all {
		states[w.ID] = w.Status
	}
	return states
}

func TestCallsThatEndedAreDeletedAndNoOthers(t *testing.T) {
	ran, release := make(chan string, 2000), make(chan struct{})
	defer close(release)
	e, d := open(t, filepath.Join(t.TempDir(), db.Name), map[string]Task{"t": func(_ context.Context, key string) error {
		ran <- key
		switch key {
		case "running":
			<-release
		case "failing":
			return Final(errors.New("no"))
		}
		return nil
	}})
	const n = cleanBatch + 20
	for i := range n {
		start(t, e, d, fmt.Sprint("ended-", i), "ended", Options{Lane: "a"})
	}
	start(t, e, d, "failed", "failing", Options{Lane: "b"})
	start(t, e, d, "running", "running", Options{Lane: "c"})
	start(t, e, d, "held", "held", Options{Delay: time.Hour})
	start(t, e, d, "cancelled", "cancelled", Options{Delay: time.Hour})
	if err := e.Cancel("cancelled"); err != nil {
		t.Fatal(err)
	}
	for range n + 2 {
		<-ran
	}
	if got, err := e.clean(t.Context(), time.Now().Add(-keptFor)); err != nil || got != 0 {
		t.Errorf("%d deleted that ended just now, %v", got, err)
	}
	deleted := 0
	for deadline := time.Now().Add(30 * time.Second); deleted < n+2 && time.Now().Before(deadline); { // the engine writes ends a moment after they came
		got, err := e.clean(t.Context(), time.Now().Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		deleted += got
	}
	left := calls(t, e)
	if deleted != n+2 || len(left) != 2 || left["running"] != dbos.WorkflowStatusPending || left["held"] != dbos.WorkflowStatusDelayed {
		t.Errorf("%d of %d deleted, left are %v", deleted, n+2, left)
	}
}

func TestARunningTaskHasSomeTimeWhenTheEngineCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		working, done := linger(ctx, 10*time.Second)
		defer done()
		why := errors.New("the program stops")
		stop(why)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if working.Err() != nil {
			t.Fatal("it had no time")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if context.Cause(working) != why {
			t.Errorf("it ended because of %v", context.Cause(working))
		}
	})
}

// The engine may not get to write that the first one ended: then it is called again, as Task says.
func TestATaskEndsAndStartsAnotherWhileTheEngineCloses(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	d, err := db.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	handle, err := d.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(t.Context(), handle, Config{Poll: 10 * time.Millisecond, Grace: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	began, closing := make(chan struct{}), make(chan struct{})
	e.Register("t", func(ctx context.Context, key string) error {
		close(began)
		<-closing
		start(t, e, d, "next", "next", Options{Delay: time.Millisecond})
		return ctx.Err()
	})
	if err := e.Launch(); err != nil {
		t.Fatal(err)
	}
	start(t, e, d, "first", "first", Options{})
	<-began
	context.AfterFunc(e.ctx, func() { close(closing) })
	if err := e.Close(time.Minute); err != nil {
		t.Fatal(err)
	}
	d.Close()
	ran := make(chan string, 10)
	open(t, path, map[string]Task{"t": func(_ context.Context, key string) error {
		ran <- key
		return nil
	}})
	for limit := time.After(20 * time.Second); ; {
		select {
		case key := <-ran:
			if key == "next" {
				return
			}
		case <-limit:
			t.Fatal("what was started while the engine closed did not run")
		}
	}
}
