package jobs

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

func TestOldJobsAreDeletedWithAllThatBelongsToThem(t *testing.T) {
	s, p := newService(t, echo)
	done := submit(t, s, Spec{Type: Chain, Prompt: "## A\na\n## B\nb"})
	reach(t, s, done.ID, Done)
	p.mu.Lock()
	p.answer = hold
	p.mu.Unlock()
	held := reach(t, s, submit(t, s, Spec{Prompt: "held"}).ID, Held)
	cancelled := reach(t, s, submit(t, s, Spec{Prompt: "cancelled"}).ID, Held)
	if _, err := s.Cancel(t.Context(), cancelled.ID); err != nil {
		t.Fatal(err)
	}
	for since, want := range map[time.Time]int{done.Created: 2, time.Now().Add(time.Hour): 0} {
		if all, err := s.Jobs(t.Context(), Filter{States: []State{Done, Cancelled}, Since: since}); err != nil || len(all) != want || want > 0 && all[0].ID != cancelled.ID {
			t.Errorf("since %v: %v, %v", since, all, err)
		}
	}
	if n, err := s.forgetEnded(t.Context(), time.Now().Add(-time.Hour)); err != nil || n != 0 {
		t.Errorf("%d jobs deleted that ended just now, %v", n, err)
	}
	if n, err := s.forgetEnded(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 2 {
		t.Errorf("%d jobs deleted, %v", n, err)
	}
	if all, err := s.Jobs(t.Context(), Filter{}); err != nil || len(all) != 1 || all[0].ID != held.ID {
		t.Errorf("left are %v, %v", all, err)
	}
	for _, id := range []int64{done.ID, cancelled.ID} {
		steps, err1 := stepsOf(t.Context(), s.db.Read(), id)
		events, err2 := timeline(t.Context(), s.db.Read(), id, 0)
		if err1 != nil || err2 != nil || len(steps)+len(events) != 0 {
			t.Errorf("of job %d are left %v and %v, %v, %v", id, steps, events, err1, err2)
		}
	}
}

func TestAJobWhoseNoteIsNotInTheVaultIsKept(t *testing.T) {
	p := &answers{answer: echo}
	s := open(t, filepath.Join(t.TempDir(), db.Name), p)
	s.config.Folders = &DefaultFolders // with nobody who writes notes
	j := reach(t, s, submit(t, s, Spec{Prompt: "x", Output: "answers/x.md"}).ID, Done)
	if n, err := s.forgetEnded(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 0 {
		t.Errorf("%d jobs deleted, %v", n, err)
	}
	if err := s.db.Tx(t.Context(), func(tx *transaction) error {
		now, err := one(t.Context(), tx, j.ID)
		if err != nil {
			return err
		}
		return settle(t.Context(), tx, &now)
	}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.forgetEnded(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 1 {
		t.Errorf("%d jobs deleted, %v", n, err)
	}
}

func TestAJobWhoseDeadlinePassesFailsThoughNoWorkerIsFree(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	s, _ := newService(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
		if req.Messages[0].Text() == "held" {
			return hold(ctx, req, n)
		}
		<-end
		return echo(ctx, req, n)
	})
	held := reach(t, s, submit(t, s, Spec{Prompt: "held", Deadline: "1h"}).ID, Held)
	for range mostPlaces {
		reach(t, s, submit(t, s, Spec{Prompt: "block"}).ID, Running)
	}
	late, patient := submit(t, s, Spec{Prompt: "late", Deadline: "1h"}), submit(t, s, Spec{Prompt: "patient"})
	if err := s.endOverdue(t.Context(), time.Now().Add(59*time.Minute)); err != nil {
		t.Fatal(err)
	}
	reach(t, s, late.ID, Queued)
	if err := s.endOverdue(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []int64{late.ID, held.ID} {
		if j := reach(t, s, id, Failed); !strings.Contains(j.Reason, "longer than its deadline of 1h0m0s") {
			t.Error(j.Reason)
		}
	}
	reach(t, s, patient.ID, Queued)
}

// As if the process, or the connection, had ended between the commit of a release and the engine's hearing of it.
func TestAWakingThatWasLostIsRepeatedAtItsTime(t *testing.T) {
	s, p := newService(t, hold)
	now, later := reach(t, s, submit(t, s, Spec{Prompt: "now"}).ID, Held), reach(t, s, submit(t, s, Spec{Prompt: "later"}).ID, Held)
	p.mu.Lock()
	p.answer = echo
	p.mu.Unlock()
	for id, at := range map[int64]time.Time{now.ID: time.Now(), later.ID: time.Now().Add(time.Hour)} {
		if _, err := s.change(t.Context(), id, func(tx *transaction, j *Job) error {
			j.ResumeAt = at
			return move(t.Context(), tx, j, Queued, "back")
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.lookAfter(t.Context()); err != nil {
		t.Fatal(err)
	}
	reach(t, s, now.ID, Done)
	reach(t, s, later.ID, Queued)
}

func TestThoseThatWaitForAMachineLookOneAfterTheOther(t *testing.T) {
	s, _ := newService(t, func(context.Context, llm.Request, int) (string, error) {
		return "", &llm.BusyError{Provider: "davas", Kind: llm.Unavailable, Reason: "davas is down"}
	})
	var last time.Time
	for n := range 10 {
		j := reach(t, s, submit(t, s, Spec{Prompt: "x"}).ID, Held)
		if n > 0 && j.ResumeAt.Sub(last) < looksApart-spread {
			t.Errorf("number %d looks %s after the one before", n, j.ResumeAt.Sub(last))
		}
		last = j.ResumeAt
	}
}
