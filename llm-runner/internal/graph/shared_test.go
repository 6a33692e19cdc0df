//go:build prove

package graph

import (
	"errors"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// Of the processes that share a database one works on a fork, and another one goes on with it when that one is dead.
func TestAForkIsRunByOneProcess(t *testing.T) {
	url := postgrestest.Start(t).New()
	open := func() (*Store, *db.DB) {
		d, err := db.OpenPostgres(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return NewStore(d), d
	}
	a, first := open()
	b, _ := open()
	e := &echo{fail: &llm.BusyError{Provider: "m", Kind: llm.Unavailable}}
	g := sample(t, e)
	run, _, err := g.Run(t.Context(), a, Ask[state]{Chat: 7})
	if err == nil || run.Status != Failed {
		t.Fatalf("%+v, %v", run, err)
	}
	fork, err := g.Fork(t.Context(), a, run.ID, -1, nil)
	if err != nil || fork.Chat != 7 {
		t.Fatal(fork, err)
	}
	left := func(st *Store) int {
		t.Helper()
		all, err := st.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := left(b); n != 1 {
		t.Errorf("%d forks are there for anybody", n)
	}
	if _, err := a.claim(t.Context(), fork.ID); err != nil { // and then it dies
		t.Fatal(err)
	}
	if n := left(b); n != 0 {
		t.Errorf("another process works on it, and %d are there", n)
	}
	if _, _, err := g.Proceed(t.Context(), b, fork.ID, Budget{}, nil); !errors.Is(err, errElsewhere) {
		t.Errorf("both work on it: %v", err)
	}
	if err := b.Adopt(t.Context(), first.Worker()); err != nil {
		t.Fatal(err)
	}
	e.fail = nil
	if kept, _, err := g.Proceed(t.Context(), b, fork.ID, Budget{}, nil); err != nil || kept.Status != Done || left(b) != 0 {
		t.Errorf("%+v, %v", kept, err)
	}
	for range 2 { // a decision is read under its lock
		if err := b.Answer(t.Context(), fork.ID, "yes"); err == nil {
			t.Error("a run that has ended took a decision")
		}
	}
}
