package graph

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A run that has no key is gone on with by nobody, unless it is a fork: what ends it ends it for good.
func TestARunThatNobodyAsksForAgainEnds(t *testing.T) {
	st, d := newStore(t)
	busy := &llm.BusyError{Provider: "m", Kind: llm.Unavailable}
	e := &echo{fail: busy}
	g := sample(t, e)
	run, _, err := g.Run(t.Context(), st, Ask[state]{})
	if kept, _ := st.Run(t.Context(), run.ID); !errors.Is(err, busy) || kept.Status != Failed || kept.Ended.IsZero() {
		t.Errorf("its machine was busy: %+v, %v", kept, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	g.nodes[0].Run = func(*Step, *state) error { cancel(); return gone.Err() }
	run, _, _ = g.Run(gone, st, Ask[state]{}) // the program that asked is gone
	if kept, err := st.Run(t.Context(), run.ID); err != nil || kept.Status != Failed {
		t.Errorf("whoever asked is gone: %+v, %v", kept, err)
	}

	g = sample(t, e)
	fork, err := g.Fork(t.Context(), st, run.ID, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.Proceed(t.Context(), st, fork.ID, Budget{}, nil); !errors.Is(err, busy) {
		t.Fatal(err)
	}
	open, err := NewStore(d).Open(t.Context())
	if err != nil || len(open) != 1 || open[0].ID != fork.ID {
		t.Errorf("a fork waits for its machine: %+v, %v", open, err)
	}
	e.fail = errors.New("no route")
	if kept, _, err := g.Proceed(t.Context(), st, fork.ID, Budget{}, nil); err == nil || kept.Status != Failed {
		t.Errorf("what is wrong with a fork is said once: %+v, %v", kept, err)
	}
	if _, _, err := g.Proceed(t.Context(), st, fork.ID, Budget{}, nil); err == nil || !strings.Contains(err.Error(), "fork it") {
		t.Error(err)
	}
}

// What is left behind of the work of others ends once that work has ended, and goes on when it is asked for again.
func TestARunIsLeftWhoseWorkHasEnded(t *testing.T) {
	st, _ := newStore(t)
	e := &echo{fail: &llm.BusyError{Provider: "m", Kind: llm.Unavailable}}
	g := sample(t, e)
	run, _, err := g.Run(t.Context(), st, Ask[state]{Key: "k", Chat: 7})
	if err == nil || run.Status != Running {
		t.Fatalf("%+v, %v", run, err)
	}
	if err := st.Withdraw(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if kept, err := st.Run(t.Context(), run.ID); err != nil || kept.Status != Failed {
		t.Errorf("%+v, %v", kept, err)
	}
	e.fail = nil
	if run, _, err = g.Run(t.Context(), st, Ask[state]{Key: "k"}); err != nil || run.Status != Done {
		t.Errorf("%+v, %v", run, err)
	}
	if err := st.Withdraw(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if kept, _ := st.Run(t.Context(), run.ID); kept.Status != Done {
		t.Errorf("what is done was taken back: %+v", kept)
	}
	fork, err := g.Fork(t.Context(), st, run.ID, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Forget(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	for _, id := range []int64{run.ID, fork.ID} {
		if _, err := st.Run(t.Context(), id); !errors.Is(err, ErrNotFound) {
			t.Errorf("run %d of a deleted conversation: %v", id, err)
		}
	}
}

// Two who go on with the same run go on with it once.
func TestARunOfItsOwnIsRunOnce(t *testing.T) {
	st, _ := newStore(t)
	e := &echo{}
	g := sample(t, e)
	run, _, err := g.Run(t.Context(), st, Ask[state]{})
	if err != nil {
		t.Fatal(err)
	}
	fork, err := g.Fork(t.Context(), st, run.ID, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.asked = nil
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if _, _, err := g.Proceed(t.Context(), st, fork.ID, Budget{}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(e.asked) != len(whole) {
		t.Errorf("asked %q", e.asked)
	}
}

func TestAForkTakesAStateOfItsGraphOnly(t *testing.T) {
	st, _ := newStore(t)
	g := sample(t, &echo{})
	run, _, err := g.Run(t.Context(), st, Ask[state]{})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{`{`, `[]`, `{"Words": "one"}`, `{"Wrds": []}`} {
		if _, err := g.Fork(t.Context(), st, run.ID, 0, json.RawMessage(bad)); err == nil || !strings.Contains(err.Error(), "sample") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	// One that was kept by another version, and does not fit any more, ends instead of being tried for ever.
	fork, err := st.Fork(t.Context(), run.ID, 0, json.RawMessage(`{"Words": "one"}`))
	if err != nil {
		t.Fatal(err)
	}
	if kept, _, err := g.Proceed(t.Context(), st, fork.ID, Budget{}, nil); err == nil || kept.Status != Failed {
		t.Errorf("%+v, %v", kept, err)
	}
}

func TestADecisionIsTakenOnce(t *testing.T) {
	st, d := newStore(t)
	g := sample(t, &echo{})
	g.nodes[0].Run = func(s *Step, _ *state) error { _, err := s.Decide("which one?"); return err }
	run, _, _ := g.Run(t.Context(), st, Ask[state]{Key: "k"})
	taken := make(chan error, 4)
	for range cap(taken) {
		go func() { taken <- NewStore(d).Answer(t.Context(), run.ID, "yes") }()
	}
	n := 0
	for range cap(taken) {
		if err := <-taken; err == nil {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it was taken %d times", n)
	}
}

func TestWhatIsForgottenStandsInNoRun(t *testing.T) {
	st, d := newStore(t)
	g := sample(t, &echo{})
	g.nodes[0].Run = func(s *Step, _ *state) error { _, err := s.Decide("Is the cellar damp?"); return err }
	run, _, _ := g.Run(t.Context(), st, Ask[state]{Key: "k", Title: "the cellar is damp", State: state{Words: []string{"damp"}}})
	if err := st.Answer(t.Context(), run.ID, "it is damp"); err != nil {
		t.Fatal(err)
	}
	if err := st.Blank(t.Context(), "damp"); err != nil {
		t.Fatal(err)
	}
	kept, err := NewStore(d).Run(t.Context(), run.ID)
	if all := kept.Title + string(kept.Input) + kept.Question + kept.Decision; err != nil || strings.Contains(all, "damp") || !strings.Contains(all, "cellar") {
		t.Errorf("%q, %v", all, err)
	}
	if err := st.Clean(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Run(t.Context(), run.ID); err != nil {
		t.Errorf("a run goes on that somebody wants: %v", err)
	}
}
