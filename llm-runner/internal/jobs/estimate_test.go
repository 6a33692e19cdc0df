package jobs

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

func TestTheLineTakesPlacesInOrder(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ask := func(model string) routed { return routed{kind: Text, asked: model} }
	e := estimate{now: now, paces: map[routed]Pace{}, lanes: map[string]*lane{}, wanted: map[int64]*Job{},
		pace: func(r llm.Request) Pace {
			switch r.Model {
			case "home":
				return Pace{Provider: "contabo", Model: "home", Places: 1, Each: time.Minute}
			case "cloud":
				return Pace{Provider: "groq", Model: "cloud", Each: 10 * time.Second}
			case researcher:
				return Pace{Provider: researcher, Model: researcher, Each: time.Second}
			}
			return Pace{Provider: "davas", Model: r.Model, Places: 1}
		},
		turn: func(_, model string, _, ahead int) time.Time {
			if model == "cloud" && ahead > 1 {
				return now.Add(time.Hour)
			}
			return now
		}}
	rows := []inLine{
		{id: 1, state: Running, since: now.Add(-20 * time.Second), steps: 1, request: ask("home")},
		{id: 2, state: Queued, steps: 1, request: ask("home")},
		{id: 3, state: Queued, steps: 3, request: ask("home")}, // a chain
		{id: 4, state: Queued, steps: 1, request: ask("cloud")},
		{id: 5, state: Queued, steps: 1, request: ask("cloud")},
		{id: 6, state: Queued, steps: 1, request: ask("cloud")},
		{id: 7, state: Queued, steps: 1, request: ask("new")},
		{id: 8, state: Queued, steps: 1, request: routed{kind: Research}},
	}
	all := make([]Job, len(rows)+1)
	for i, x := range rows {
		e.wanted[x.id] = &all[x.id]
		e.take(rows[i])
	}
	for id, want := range map[int64]struct {
		place int
		in    time.Duration // 0: nobody knows
	}{
		2: {1, 100 * time.Second}, 3: {2, 280 * time.Second}, 4: {1, 10 * time.Second}, 5: {2, 10 * time.Second},
		6: {3, time.Hour + 10*time.Second}, 7: {1, 0}, 8: {1, time.Second},
	} {
		j := all[id]
		if j.Position != want.place || (j.ETA == nil) != (want.in == 0) || j.ETA != nil && j.ETA.Sub(now) != want.in {
			t.Errorf("job %d: place %d, at %v; want %d, in %s", id, j.Position, j.ETA, want.place, want.in)
		}
	}
}

func TestAHeldJobIsEstimatedWhereItsTimeIsKnown(t *testing.T) {
	var busy *llm.BusyError
	p := &answers{answer: func(context.Context, llm.Request, int) (string, error) { return "", busy }}
	s := open(t, filepath.Join(t.TempDir(), db.Name), p)
	s.config.Pace = func(llm.Request) Pace { return Pace{Provider: "groq", Model: "m", Each: time.Minute} }
	busy = &llm.BusyError{Provider: "groq", Kind: llm.Quota, Reason: "used up", Dimension: "requests/day", Until: time.Now().Add(time.Hour)}
	j := reach(t, s, submit(t, s, Spec{Prompt: "x"}).ID, Held)
	if j.ETA == nil || j.ETA.Sub(j.ResumeAt) != time.Minute {
		t.Errorf("goes on at %s, estimated %v", j.ResumeAt, j.ETA)
	}
	chain := reach(t, s, submit(t, s, Spec{Type: Chain, Prompt: "## A\na\n## B\nb"}).ID, Held)
	if chain.ETA == nil || chain.ETA.Sub(chain.ResumeAt) != 2*time.Minute {
		t.Errorf("goes on at %s, estimated %v", chain.ResumeAt, chain.ETA)
	}
	if all, err := s.Jobs(t.Context(), Filter{States: []State{Held}}); err != nil || len(all) != 2 || all[0].ETA == nil {
		t.Errorf("%v, %v", all, err)
	}
	p.mu.Lock()
	busy = &llm.BusyError{Provider: "davas", Kind: llm.Unavailable, Reason: "davas is down"}
	p.mu.Unlock()
	if j = reach(t, s, submit(t, s, Spec{Prompt: "y"}).ID, Held); j.ETA != nil {
		t.Errorf("nobody knows when davas is back, estimated %v", j.ETA)
	}
}

func TestAChainInLineCountsTheStepsThatAreLeft(t *testing.T) {
	words := make(slowly)
	s := open(t, filepath.Join(t.TempDir(), db.Name), words)
	j := submit(t, s, Spec{Type: Chain, Prompt: "## A\na\n## B\nb\n## C\nc\n### not one"})
	rows, err := line(t.Context(), s.db.Read())
	if err != nil || len(rows) != 1 || rows[0].steps != 3 || rows[0].request.kind != Chain {
		t.Errorf("%+v, %v", rows, err)
	}
	close(words)
	reach(t, s, j.ID, Held, Failed) // it answered without a word
	if rows, err := line(t.Context(), s.db.Read()); err != nil || len(rows) > 1 {
		t.Errorf("%+v, %v", rows, err)
	}
}
