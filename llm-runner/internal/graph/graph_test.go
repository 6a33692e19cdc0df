package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// state is what the tests' graphs work on.
type state struct {
	Words []string
	Tries int
	Over  string
}

// echo answers with what it is asked, counts, and fails as long as it is told to.
type echo struct {
	mu    sync.Mutex
	asked []string
	fail  error
}

func (e *echo) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		text := req.Messages[len(req.Messages)-1].Text()
		e.mu.Lock()
		err := e.fail
		if err == nil {
			e.asked = append(e.asked, text)
		}
		e.mu.Unlock()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(llm.Event{}, err)
			return
		}
		yield(llm.Event{Text: "re: " + text, Usage: &llm.Usage{Input: llm.Known(3), Output: llm.Known(4)}}, nil)
		yield(llm.Event{Finish: llm.FinishStop}, nil)
	}
}

func asks(e *echo, names ...string) func(*Step, *state) error {
	return func(s *Step, st *state) error {
		for _, name := range names {
			a, err := s.Ask(e, name, llm.Request{Messages: []llm.Message{llm.Says(llm.User, name)}})
			if err != nil {
				return err
			}
			st.Words = append(st.Words, a.Message.Text())
		}
		return nil
	}
}

// sample is a graph with a loop, whose nodes ask five questions in all.
func sample(t testing.TB, e *echo) *Graph[state] {
	t.Helper()
	g, err := New("sample", "sum",
		Node[state]{Name: "plan", Run: asks(e, "plan"), To: []Edge[state]{{To: "work"}}},
		Node[state]{Name: "work", Run: func(s *Step, st *state) error {
			st.Tries++
			return asks(e, fmt.Sprintf("work %d", st.Tries))(s, st)
		}, To: []Edge[state]{{To: "work", Most: 1, When: func(st *state) bool { return st.Tries < 9 }}, {To: "sum"}}},
		Node[state]{Name: "sum", Run: func(s *Step, st *state) error {
			st.Over = s.Over()
			s.Note("%d words", len(st.Words))
			if st.Over != "" {
				return nil
			}
			return asks(e, "sum a", "sum b")(s, st)
		}, To: []Edge[state]{{To: End}}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func newStore(t testing.TB) (*Store, *db.DB) {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), "runner.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return NewStore(d), d
}

var whole = []string{"plan", "work 1", "work 2", "sum a", "sum b"}

func TestAGraphWithAFaultIsNotBuilt(t *testing.T) {
	ok := func(*Step, *state) error { return nil }
	to := func(names ...string) (all []Edge[state]) {
		for _, n := range names {
			all = append(all, Edge[state]{To: n})
		}
		return all
	}
	for want, nodes := range map[string][]Node[state]{
		"it has no node":                              {},
		`the name "a" is empty or taken`:              {{Name: "a", Run: ok, To: to(End)}, {Name: "a", Run: ok, To: to(End)}},
		"node a does nothing":                         {{Name: "a", To: to(End)}},
		`node a leads to "b", which is no node`:       {{Name: "a", Run: ok, To: to("b", End)}},
		"node a: its last edge must always hold":      {{Name: "a", Run: ok, To: []Edge[state]{{To: End, Most: 1}}}},
		"node b cannot be reached":                    {{Name: "a", Run: ok, To: to(End)}, {Name: "b", Run: ok, To: to(End)}},
		"node a never comes to an end":                {{Name: "a", Run: ok, To: to("b")}, {Name: "b", Run: ok, To: to("a")}},
		"node a comes back to itself without an edge": {{Name: "a", Run: ok, To: to("a", End)}},
		"node b comes back to itself without an edge": {{Name: "a", Run: ok, To: to("b")}, {Name: "b", Run: ok, To: to("c", End)}, {Name: "c", Run: ok, To: to("b")}},
	} {
		last := "a"
		if _, err := New("x", last, nodes...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := New("x", "z", Node[state]{Name: "a", Run: ok, To: to(End)}); err == nil || !strings.Contains(err.Error(), `there is no node "z"`) {
		t.Error(err)
	}
	if got := sample(t, &echo{}).String(); got != "plan -> work\nwork -> work | sum\nsum -> end\n" {
		t.Errorf("%q", got)
	}
}

func TestARunIsWrittenDownStepByStep(t *testing.T) {
	st, _ := newStore(t)
	st.Cost = func(string, string, llm.Usage) llm.Count { return llm.Known(10) }
	e := &echo{}
	var seen []string
	run, got, err := sample(t, e).Run(t.Context(), st, Ask[state]{Title: "a question", Watch: func(r StepRow) {
		what := "begins "
		if !r.Ended.IsZero() {
			what = "ends "
		}
		seen = append(seen, what+r.Node)
	}})
	if err != nil || !slices.Equal(e.asked, whole) || len(got.Words) != 5 || got.Words[4] != "re: sum b" {
		t.Fatalf("%+v, %v; asked %q", got, err, e.asked)
	}
	if want := "begins plan ends plan begins work ends work begins work ends work begins sum ends sum"; strings.Join(seen, " ") != want {
		t.Errorf("%q", seen)
	}
	kept, err := st.Run(t.Context(), run.ID)
	if err != nil || kept.Status != Done || kept.Title != "a question" || kept.Ended.IsZero() || kept.Spent.Steps != 4 || kept.Spent.Calls != 5 || kept.Spent.Tokens != 35 || kept.Spent.MicroUSD != 50 {
		t.Errorf("%+v, %v", kept, err)
	}
	steps, err := st.Steps(t.Context(), run.ID)
	if err != nil || len(steps) != 4 || steps[3].Note != "3 words" || steps[0].Next != "work" || !json.Valid(steps[2].State) {
		t.Errorf("%+v, %v", steps, err)
	}
	calls, err := st.Calls(t.Context(), run.ID)
	if err != nil || len(calls) != 5 || calls[0].Asked != "user: plan" || calls[0].Answered != "re: plan" {
		t.Errorf("%+v, %v", calls, err)
	}
}

// Wherever the process dies, the next one goes on with what is on disk: the same answer, and nothing is asked twice.
func TestARunThatWasCutOffGoesOnWhereItWas(t *testing.T) {
	_, complete, err := func() (RunRow, state, error) {
		st, _ := newStore(t)
		return sample(t, &echo{}).Run(t.Context(), st, Ask[state]{})
	}()
	if err != nil {
		t.Fatal(err)
	}
	for cut := range 8 { // four steps begin and end
		st, d := newStore(t)
		e := &echo{}
		ctx, die := context.WithCancel(t.Context())
		n := 0
		watch := func(StepRow) {
			if n++; n > cut {
				die()
			}
		}
		_, _, err := sample(t, e).Run(ctx, st, Ask[state]{Key: "turn-1", Watch: watch})
		if cut < 7 && err == nil {
			t.Fatalf("cut %d did not cut", cut)
		}
		run, got, err := sample(t, e).Run(t.Context(), NewStore(d), Ask[state]{Key: "turn-1", State: state{Words: []string{"another"}}})
		if err != nil || !slices.Equal(got.Words, complete.Words) || run.Status != Done {
			t.Errorf("cut %d: %+v, %v", cut, got, err)
		}
		if !slices.Equal(e.asked, whole) {
			t.Errorf("cut %d: asked %q", cut, e.asked)
		}
	}
}

func TestWithinANodeNoAnswerIsAskedForAgain(t *testing.T) {
	st, d := newStore(t)
	e := &echo{}
	g := sample(t, e)
	fail := false
	g.nodes[2].Run = func(s *Step, x *state) error {
		if err := asks(e, "sum a")(s, x); err != nil {
			return err
		}
		if !fail {
			fail = true
			return &llm.BusyError{Provider: "p", Reason: "used up", Until: time.Now().Add(time.Hour)}
		}
		return asks(e, "sum b")(s, x)
	}
	_, _, err := g.Run(t.Context(), st, Ask[state]{Key: "k"})
	var busy *llm.BusyError
	if !errors.As(err, &busy) {
		t.Fatal(err)
	}
	run, got, err := g.Run(t.Context(), NewStore(d), Ask[state]{Key: "k"})
	if err != nil || !slices.Equal(e.asked, whole) || len(got.Words) != 5 || run.Spent.Calls != 5 {
		t.Errorf("%+v %+v, %v; asked %q", run, got, err, e.asked)
	}
	_, again, err := g.Run(t.Context(), st, Ask[state]{Key: "k"}) // it has ended: its answer is there
	if err != nil || len(again.Words) != 5 || len(e.asked) != 5 {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestARefusalForGoodEndsTheRun(t *testing.T) {
	st, _ := newStore(t)
	e := &echo{fail: &llm.Error{Kind: llm.Spend, Message: "the money is gone"}}
	run, _, err := sample(t, e).Run(t.Context(), st, Ask[state]{Key: "k"})
	if err == nil || run.Status != Failed {
		t.Fatalf("%+v, %v", run, err)
	}
	e.fail = nil
	again, got, err := sample(t, e).Run(t.Context(), st, Ask[state]{Key: "k"}) // whoever asks again has mended it
	if err != nil || again.ID != run.ID || again.Status != Done || again.Error != "" || len(got.Words) != 5 {
		t.Errorf("%+v %+v, %v", again, got, err)
	}
}

func TestAUsedUpBudgetEndsInTheBestThereIs(t *testing.T) {
	for want, b := range map[string]Budget{"2 steps": {Steps: 2}, "1 questions to models": {Calls: 1}, "10 tokens": {Tokens: 10}, "$0.0000": {MicroUSD: 1}} {
		st, _ := newStore(t)
		st.Cost = func(string, string, llm.Usage) llm.Count { return llm.Known(10) }
		run, got, err := sample(t, &echo{}).Run(t.Context(), st, Ask[state]{Budget: b})
		if err != nil || got.Over != want || run.Status != Done || run.Over != want || len(got.Words) == 0 || len(got.Words) > 2 {
			t.Errorf("%s: %+v %+v, %v", want, run, got, err)
		}
	}
}

func TestAPersonDecides(t *testing.T) {
	st, d := newStore(t)
	e := &echo{}
	g := sample(t, e)
	g.nodes[1].Run = func(s *Step, x *state) error {
		x.Tries++
		word, err := s.Decide("which one?")
		x.Words = append(x.Words, word)
		return err
	}
	var paused *PausedError
	run, _, err := g.Run(t.Context(), st, Ask[state]{Key: "k"})
	if !errors.As(err, &paused) || paused.Question != "which one?" || run.Status != Paused {
		t.Fatalf("%+v, %v", run, err)
	}
	if err := st.Answer(t.Context(), run.ID, ""); err == nil {
		t.Error("an empty decision was taken")
	}
	for _, word := range []string{"left", "right"} { // the node comes twice, and asks each time
		if err := NewStore(d).Answer(t.Context(), run.ID, word); err != nil {
			t.Fatal(err)
		}
		_, got, err := g.Run(t.Context(), st, Ask[state]{Key: "k"})
		if word == "left" {
			if !errors.As(err, &paused) {
				t.Fatal(err)
			}
			continue
		}
		if err != nil || !slices.Equal(got.Words, []string{"re: plan", "left", "right", "re: sum a", "re: sum b"}) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if err := st.Answer(t.Context(), run.ID, "late"); err == nil {
		t.Error("a run that has ended took a decision")
	}
}

func TestARunIsCancelled(t *testing.T) {
	st, d := newStore(t)
	g := sample(t, &echo{})
	for name, other := range map[string]*Store{"here": st, "by another process": NewStore(d)} {
		g.nodes[1].Run = func(s *Step, x *state) error {
			if err := other.Cancel(s.Context(), s.row.Run); err != nil {
				return err
			}
			if other == st {
				<-s.Context().Done()
				return s.Context().Err()
			}
			return nil
		}
		run, _, err := g.Run(t.Context(), st, Ask[state]{Key: name})
		if llm.KindOf(err) != llm.Cancelled {
			t.Errorf("%s: %v", name, err)
		}
		if kept, err := st.Run(t.Context(), run.ID); err != nil || kept.Status != Cancelled {
			t.Errorf("%s: %+v, %v", name, kept, err)
		}
		if err := st.Cancel(t.Context(), run.ID); err == nil {
			t.Errorf("%s: it was cancelled twice", name)
		}
	}
}

func TestAForkGoesOnFromAStepWithAnotherState(t *testing.T) {
	st, _ := newStore(t)
	e := &echo{}
	g := sample(t, e)
	run, _, err := g.Run(t.Context(), st, Ask[state]{})
	if err != nil {
		t.Fatal(err)
	}
	e.asked = nil
	fork, err := st.Fork(t.Context(), run.ID, 1, json.RawMessage(`{"Words": ["mine"], "Tries": 9}`))
	if err != nil {
		t.Fatal(err)
	}
	forked, got, err := g.Proceed(t.Context(), st, fork.ID, Budget{}, nil)
	if err != nil || !slices.Equal(got.Words, []string{"mine", "re: work 10", "re: sum a", "re: sum b"}) || forked.ForkedFrom != run.ID || forked.ForkedStep != 1 {
		t.Errorf("%+v %+v, %v", forked, got, err)
	}
	if !slices.Equal(e.asked, []string{"work 10", "sum a", "sum b"}) {
		t.Errorf("asked %q", e.asked)
	}
	if again, err := st.Fork(t.Context(), run.ID, -1, nil); err != nil || string(again.Input) == "" {
		t.Error(again, err)
	}
	for _, bad := range []int{-2, 4} {
		if _, err := st.Fork(t.Context(), run.ID, bad, nil); err == nil {
			t.Errorf("forked from step %d", bad)
		}
	}
	if _, err := st.Fork(t.Context(), run.ID, 0, json.RawMessage(`{`)); err == nil {
		t.Error("forked with a state that is no JSON")
	}
	if _, err := st.Fork(t.Context(), 99, 0, nil); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestAPanicAndAStateThatGrewEndTheirOwnRunOnly(t *testing.T) {
	st, _ := newStore(t)
	g := sample(t, &echo{})
	g.nodes[0].Run = func(*Step, *state) error { panic("boom") }
	if _, _, err := g.Run(t.Context(), st, Ask[state]{}); err == nil || !strings.Contains(err.Error(), "internal fault: boom") {
		t.Error(err)
	}
	g.nodes[0].Run = func(_ *Step, x *state) error {
		x.Words = []string{strings.Repeat("x", maxState)}
		return nil
	}
	if run, _, err := g.Run(t.Context(), st, Ask[state]{}); err == nil || run.Status != Failed {
		t.Errorf("%+v, %v", run, err)
	}
}

func TestAFormIsAskedForTwiceAndReadOutOfProse(t *testing.T) {
	st, _ := newStore(t)
	answers := []string{"I think\n```json\n{\"n\": 4}\n```", "no idea", `{"n": 5}`, "no", "no"}
	p := provider(func(llm.Request) string {
		a := answers[0]
		answers = answers[1:]
		return a
	})
	var got []int
	var last error
	g, err := New("x", "a", Node[state]{Name: "a", Run: func(s *Step, _ *state) error {
		for _, name := range []string{"1", "2", "3"} {
			var out struct{ N int }
			if last = s.Fill(p, name, llm.Request{Messages: []llm.Message{llm.Says(llm.User, name)}}, json.RawMessage(`{"type":"object"}`), &out); last == nil {
				got = append(got, out.N)
			}
		}
		return nil
	}, To: []Edge[state]{{To: End}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.Run(t.Context(), st, Ask[state]{}); err != nil || !slices.Equal(got, []int{4, 5}) || !IsForm(last) {
		t.Errorf("%v, %v, %v", got, last, err)
	}
}

type provider func(llm.Request) string

func (p provider) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		_ = yield(llm.Event{Text: p(req)}, nil) && yield(llm.Event{Finish: llm.FinishStop}, nil)
	}
}

func TestOldRunsAreDeletedWhole(t *testing.T) {
	st, d := newStore(t)
	run, _, err := sample(t, &echo{}).Run(t.Context(), st, Ask[state]{})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Clean(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Run(t.Context(), run.ID); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	var left int
	if err := d.Read().QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM graph_steps) + (SELECT count(*) FROM graph_calls)").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows left, %v", left, err)
	}
}

func BenchmarkOverheadPerNode(b *testing.B) {
	st, _ := newStore(b)
	g, err := New("x", "z", Node[state]{Name: "a", Run: func(_ *Step, x *state) error { x.Tries++; return nil },
		To: []Edge[state]{{To: "a", Most: 9}, {To: End}}}, Node[state]{Name: "z", Run: func(*Step, *state) error { return nil }, To: []Edge[state]{{To: End}}})
	if err != nil {
		b.Fatal(err)
	}
	for name, size := range map[string]int{"little": 0, "100kB": 100_000} {
		start := state{Words: []string{strings.Repeat("x", size)}}
		b.Run(name, func(b *testing.B) {
			for b.Loop() { // ten nodes each
				if _, _, err := g.Run(b.Context(), st, Ask[state]{State: start}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/10, "µs/node")
		})
	}
}
