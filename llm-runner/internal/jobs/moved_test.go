package jobs

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/enginetest"
)

// times are the columns of jobs that an earlier clock wrote.
func times() map[string][]string { return map[string][]string{"jobs": {"since", "resume_at"}} }

// clocked is a service with a clock that the test sets. The machine that it asks is down, and back at a time.
func clocked(t *testing.T, back func() time.Time) (*Service, *answers, *enginetest.Clock) {
	t.Helper()
	clock, p, before := &enginetest.Clock{}, &answers{}, database
	p.answer = func(ctx context.Context, req llm.Request, n int) (string, error) {
		if at := back(); time.Now().Before(at) {
			return "", &llm.BusyError{Provider: "davas", Model: "m", Kind: llm.Unavailable, Reason: "davas is down", Until: at}
		}
		return echo(ctx, req, n)
	}
	database = func(t testing.TB, path string, c engine.Config) (*db.DB, *engine.Engine) {
		c.Steady, c.Log = clock.Steady, slog.New(slog.NewTextHandler(io.Discard, nil))
		return before(t, path, c)
	}
	defer func() { database = before }()
	return open(t, filepath.Join(t.TempDir(), db.Name), p), p, clock
}

func TestAClockThatIsSetForwardWakesNoHeldJobEarly(t *testing.T) {
	back := time.Now().Add(40 * time.Minute)
	s, p, clock := clocked(t, func() time.Time { return back })
	var all []Job
	for range 30 {
		all = append(all, reach(t, s, submit(t, s, Spec{Prompt: "x", Deadline: "50m"}).ID, Held))
	}
	clock.Set(t, s.db, time.Hour, times())
	if err := s.lookAfter(t.Context()); err != nil { // whatever comes first: this, or the calls whose time seems to have come
		t.Fatal(err)
	}
	reach(t, s, submit(t, s, Spec{Prompt: "after it", Requires: "other"}).ID, Held, Done) // the engine has called those that it had to
	if n := len(p.prompts()); n != len(all)+1 {
		t.Errorf("%d questions were asked for %d jobs", n, len(all)+1)
	}
	for _, was := range all {
		j, err := s.Job(t.Context(), was.ID)
		if err != nil || j.State != Held || j.ResumeAt.Sub(was.ResumeAt).Abs() > 2*time.Second || j.waited(time.Now()) > 10*time.Minute {
			t.Errorf("%s until %v, not %v; waited %v; %v", j.State, j.ResumeAt, was.ResumeAt, j.waited(time.Now()), err)
		}
	}
}

func TestAClockThatIsSetBackWakesNoHeldJobLate(t *testing.T) {
	back := sync.OnceValue(func() time.Time { return time.Now().Add(3 * time.Second) }) // since it is asked: to open a database takes its time
	s, p, clock := clocked(t, back)
	j := reach(t, s, submit(t, s, Spec{Prompt: "x", Deadline: "2h"}).ID, Held)
	clock.Set(t, s.db, -time.Hour, times())
	if late, err := s.Job(t.Context(), j.ID); err != nil || late.ResumeAt.Before(time.Now().Add(50*time.Minute)) {
		t.Fatalf("the clock was not set: %v, %v", late.ResumeAt, err)
	}
	if err := s.lookAfter(t.Context()); err != nil {
		t.Fatal(err)
	}
	j = reach(t, s, j.ID, Done)
	if n := len(p.prompts()); n != 2 || j.Waited > time.Minute {
		t.Errorf("%d questions, waited %s", n, j.Waited)
	}
}

func TestAClockThatIsSetToAndFroLeavesAHoldAsLongAsItWas(t *testing.T) {
	back := time.Now().Add(30 * time.Minute)
	s, p, clock := clocked(t, func() time.Time { return back })
	was := reach(t, s, submit(t, s, Spec{Prompt: "x"}).ID, Held)
	for _, by := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
		clock.Set(t, s.db, by, times())
		if err := s.engine.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if j, err := s.Job(t.Context(), was.ID); err != nil || j.State != Held || j.ResumeAt.Sub(was.ResumeAt).Abs() > 2*time.Second {
			t.Errorf("after %s: %s until %v, not %v; %v", by, j.State, j.ResumeAt, was.ResumeAt, err)
		}
	}
	if n := len(p.prompts()); n != 1 {
		t.Errorf("%d questions", n)
	}
}
