package jobs

import (
	"context"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

func TestAJobInWhichProcessesDieIsNotBegunForEver(t *testing.T) {
	asked := make(chan struct{}, 10)
	var well atomic.Bool
	s := withAlerts(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
		if well.Load() {
			return echo(ctx, req, n)
		}
		asked <- struct{}{}
		<-ctx.Done()
		return "", ctx.Err()
	})
	j := submit(t, s, Spec{Prompt: "poison", MaxAttempts: 1})
	die := func() { // what the next process finds
		t.Helper()
		select {
		case <-asked:
		case <-time.After(30 * time.Second):
			t.Fatal("it is not asked")
		}
		if err := s.recover(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range freeDeaths {
		die()
		now := reach(t, s, j.ID, Queued)
		go s.call(t.Context(), now.key()) //nolint:errcheck // as the next process's engine does
	}
	for range mostDeaths - freeDeaths {
		die()
	}
	if j = reach(t, s, j.ID, Failed); !strings.Contains(j.Reason, "the program ended 8 times while it ran") {
		t.Error(j.Reason)
	}
	if got := course(t, s, j.ID); got != "queued running"+strings.Repeat(" queued running", freeDeaths)+strings.Repeat(" held running", mostDeaths-freeDeaths-1)+" failed" {
		t.Error(got)
	}
	if all := told(t, s); len(all) != 1 || !strings.Contains(all[0].Text, "the program ended 8 times") || !strings.Contains(all[0].Text, "job retry") {
		t.Errorf("told %+v", all)
	}
	well.Store(true)
	if _, err := s.Retry(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	if j = reach(t, s, j.ID, Done); j.begun != 0 {
		t.Errorf("%+v", j)
	}
}

func TestAProcessThatStopsDidNotDieOfItsJobs(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	asked := make(chan struct{}, 10)
	p := &answers{answer: func(ctx context.Context, _ llm.Request, _ int) (string, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return "", ctx.Err()
	}}
	var id int64
	for n := range mostDeaths + 1 {
		s := open(t, path, p)
		if n == 0 {
			id = submit(t, s, Spec{Prompt: "long", MaxAttempts: 1}).ID
		}
		<-asked
		if err := s.engine.Close(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		if err := s.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p.mu.Lock()
	p.answer = echo
	p.mu.Unlock()
	reach(t, open(t, path, p), id, Done)
}

func TestNobodyReadsThePromptsOfALine(t *testing.T) {
	s, _ := newService(t, echo)
	rows, err := s.db.Read().Query("EXPLAIN QUERY PLAN " + inOrder)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if len(plan) == 0 || !strings.Contains(plan[0], "USING COVERING INDEX jobs_ahead") {
		t.Errorf("%q", plan)
	}
}
