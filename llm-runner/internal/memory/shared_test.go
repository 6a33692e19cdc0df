//go:build prove

package memory

import (
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// TestFactsInPostgreSQL learns the seeded conversations on PostgreSQL, then changes and forgets as a person does.
func TestFactsInPostgreSQL(t *testing.T) {
	d, err := db.OpenPostgres(t.Context(), postgrestest.Start(t).New())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	c := loadCorpus(t)
	w := worldOn(t, d, c.answers)
	c.tell(w)
	r := w.learn()
	c.check(t, w)
	if whole, err := w.Whole(t.Context(), "test", r); err != nil || whole.Sentence() != r.Sentence() {
		t.Errorf("%s in the tables, %s reported, %v", whole.Sentence(), r.Sentence(), err)
	}
	open, err := w.Conflicts(t.Context())
	if err != nil || len(open) != 2 {
		t.Fatalf("%+v, %v", open, err)
	}
	if err := w.Resolve(t.Context(), open[0].ID, HoldsNewer); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Undo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	twin, err := w.Add(t.Context(), "The user is allergic to all peanuts, and drives to work")
	if err != nil {
		t.Fatal(err)
	}
	w.learn()
	if _, err := w.settleCompared(t.Context(), twin, []int64{open[0].Older.ID}, open[1].Older, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := w.Forget(t.Context(), twin.ID); err != nil {
		t.Fatal(err)
	}
	f, err := w.Edit(t.Context(), open[1].Newer.ID, "Der Nutzer mag schwarze Oliven")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Forget(t.Context(), f.ID); err != nil {
		t.Fatal(err)
	}
	w.lost = 250
	if n, err := w.Conversation(t.Context()); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	w.said[80] = nil
	w.says(80, "I'm still allergic to peanuts, by the way.", true)
	w.learn()
	w.said[80][0].Private = true
	if err := w.conceal(t.Context(), w.said[80][0].ID); err != nil {
		t.Error(err)
	}
}
