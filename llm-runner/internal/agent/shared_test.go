//go:build prove

package agent

import (
	"fmt"
	"sync"
	"testing"

	"home.arpa/lab/llm-runner/test/enginetest"
)

// TestOnPostgres runs the tests of agents where their database is PostgreSQL.
func TestOnPostgres(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	for name, test := range map[string]func(*testing.T){
		"delivered": TestARunIsDeliveredToEachPlaceOnce, "away": TestAPlaceThatIsAwayIsTriedAgainAndTheModelIsNot, "overlap": TestRunsOfOneAgentNeverOverlap,
		"paused": TestPausedAgentsRestAndMakeUpForNothing, "dry": TestADryRunDeliversNothing, "busy": TestABusyProviderHoldsARunAndItGoesOn, "fails": TestARunThatFailsForGoodIsTold,
		"briefing": TestABriefingByRulesIsWorthReading, "research": TestResearchSaysWhatIsNew, "calls": TestAgentsCallEachOther, "budget": TestABudgetEndsInTheBestAnswerSoFar,
	} {
		t.Run(name, test)
	}
}

// Two processes look at the same clock: each due time is one run and one post.
func TestProcessesShareAgents(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	a, b := newBench(t, map[string]string{"hello": daily}), newBench(t, map[string]string{"hello": daily})
	b.path, b.vault, b.posts, b.model = a.path, a.vault, a.posts, a.model
	a.start()
	b.start()
	a.settle()
	b.settle()
	for day := 2; day <= 6; day++ {
		now := at(t, fmt.Sprintf("2026-02-%02d 06:00", day))
		a.at(now)
		b.at(now)
		var both sync.WaitGroup
		for _, x := range []*bench{a, b} {
			both.Go(func() {
				for range 5 {
					if _, err := x.pass(t.Context(), now); err != nil {
						t.Error(err)
					}
				}
			})
		}
		both.Wait()
		a.settle()
	}
	all, err := a.History(t.Context(), "", 100)
	if err != nil || len(all) != 5 || len(a.posts.posts()) != 5 || a.model.count() != 5 {
		t.Errorf("%d runs, %d posts, %d questions, %v", len(all), len(a.posts.posts()), a.model.count(), err)
	}
}

// What a dead process had under way, another one takes over.
func TestWhatADeadProcessLeftIsAdopted(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	b := newBench(t, map[string]string{"hello": daily}).start()
	r, err := b.Start(t.Context(), "hello", false, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.change(t.Context(), r.ID, func(_ *transaction, x *Run) error {
		x.State, x.call, x.worker, x.Started = Running, 1, "dead", b.clock()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.Adopt(t.Context(), "dead"); err != nil {
		t.Fatal(err)
	}
	b.settle()
	if x := b.detail(r.ID); x.State != Done || b.model.count() != 1 || len(b.posts.posts()) != 1 {
		t.Errorf("%+v", x.Run)
	}
}
