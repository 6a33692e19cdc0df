package jobs

import (
	"path/filepath"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
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
