//go:build prove

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/test/enginetest"
)

// TestOnPostgres runs the tests of agents where their database is PostgreSQL.
func TestOnPostgres(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	for name, test := range map[string]func(*testing.T){
		"delivered": TestARunIsDeliveredToEachPlaceOnce, "away": TestAPlaceThatIsAwayIsTriedAgainAndTheModelIsNot, "overlap": TestRunsOfOneAgentNeverOverlap,
		"paused": TestPausedAgentsRestAndMakeUpForNothing, "dry": TestADryRunDeliversNothing, "busy": TestABusyProviderHoldsARunAndItGoesOn, "fails": TestARunThatFailsForGoodIsTold,
		"briefing": TestABriefingByRulesIsWorthReading, "research": TestResearchSaysWhatIsNew, "calls": TestAgentsCallEachOther, "budget": TestABudgetEndsInTheBestAnswerSoFar,
		"called": TestAnAgentThatIsCalledWaitsForItsOwnRun, "own run": TestAnAgentsOwnRunWaitsUntilItHasWorkedForAnother, "circle": TestAgentsThatCallEachOtherAtOnceDoNotWaitForEver,
		"over": TestACallThatIsOverLeavesItsAgentFree, "too late": TestARunThatComesToBeginTooLateWaitsAgain,
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

// One process has no vault: it plans runs that need it and leaves them, and their notes, to the one that has.
func TestAProcessWithoutTheVaultLeavesWhatNeedsIt(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	files := map[string]string{"hello": daily, "asks": "---\ntools: [vault_read]\n---\nAsk.\n", "boss": "---\ntools: [agent_asks]\n---\nBoss.\n",
		"free": "---\ndeliver: [discord]\n---\nFree.\n"}
	a, b := newBench(t, files), newBench(t, files)
	b.path, b.vault, b.posts, b.model = a.path, "", a.posts, a.model
	for _, x := range []*bench{a, b} {
		x.box = true
		x.tools = []toolbox.Tool{{Name: "vault_read", Policy: toolbox.Allow, Schema: []byte(`{"type":"object"}`), Run: func(context.Context, toolbox.Call) (toolbox.Result, error) { return toolbox.Result{}, nil }}}
		x.config.OfVault = func(tool string) bool { return strings.HasPrefix(tool, "vault_") }
	}
	b.start()
	var early []Run
	for _, name := range []string{"hello", "asks", "boss", "free"} {
		r, err := b.Start(t.Context(), name, false, "")
		if err != nil {
			t.Fatal(err)
		}
		early = append(early, r)
	}
	done := func(id int64) {
		t.Helper()
		for limit := time.Now().Add(30 * time.Second); b.detail(id).State != Done; time.Sleep(10 * time.Millisecond) {
			if _, err := b.pass(t.Context(), b.clock()); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(limit) {
				t.Fatalf("%+v", b.detail(id))
			}
		}
	}
	done(early[3].ID) // what needs no vault does not wait for one
	for _, r := range early[:3] {
		if now := b.detail(r.ID); now.State != Queued {
			t.Errorf("%s is %s where nobody has the vault: %s", r.Agent, now.State, now.Reason)
		}
	}
	a.start()
	for range 8 { // whoever plans it
		r, err := b.Start(t.Context(), "hello", false, "")
		if err != nil {
			t.Fatal(err)
		}
		early = append(early, r)
	}
	for _, r := range early {
		done(r.ID)
	}
	for _, r := range early {
		now := a.detail(r.ID)
		if now.State != Done || r.Agent != "free" && now.worker != a.db.Worker() {
			t.Errorf("%s is %s, by %s: %s", r.Agent, now.State, now.worker, now.Reason)
		}
		for _, d := range now.Deliveries {
			if d.State != "done" {
				t.Errorf("%s: %s is %s: %s", r.Agent, d.Sink, d.State, d.Reason)
			}
		}
	}
	contains(t, a.read("Daily/2026-02-01.md"), "All is quiet.")
}

// Two places that take a run's text at the same moment end it together.
func TestDeliveriesThatEndAtOnceEndTheirRun(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	b := newBench(t, map[string]string{"hello": daily}).start()
	for n := range 30 {
		x := b.ask("hello", false)
		if len(x.Deliveries) != 2 {
			t.Fatalf("%d deliveries", len(x.Deliveries))
		}
		if err := b.db.Tx(t.Context(), func(tx *transaction) error { // as they were before the last step of both
			if _, err := tx.ExecContext(t.Context(), `UPDATE agent_deliveries SET ended_at = NULL, state = 'sending' WHERE run = ?`, x.ID); err != nil {
				return err
			}
			_, err := tx.ExecContext(t.Context(), `UPDATE agent_runs SET ended_at = NULL, state = 'delivering' WHERE id = ?`, x.ID)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		for i := range x.Deliveries {
			both.Go(func() {
				if err := b.keepDelivery(t.Context(), "hello", &x.Deliveries[i]); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if x = b.detail(x.ID); x.State != Done {
			t.Fatalf("round %d: the run is %s", n, x.State)
		}
	}
}

// One process is about to begin an agent's own run, another one the same agent's work for somebody: one of them waits.
func TestProcessesBeginNoTwoRunsOfOneAgent(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	files := map[string]string{"boss": "---\ntools: [agent_clerk]\n---\nBoss.\n", "clerk": "---\n---\nClerk.\n"}
	a, b := newBench(t, files), newBench(t, files)
	b.path = a.path
	a.start()
	b.start()
	made := func(r Run, state State) Run {
		t.Helper()
		r, err := a.plan(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if r, err = a.change(t.Context(), r.ID, func(_ *transaction, x *Run) error {
			x.State, x.call = state, 1
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	boss := made(Run{Agent: "boss", Cause: ByPerson, Due: a.clock(), Covers: 1, State: Planned, key: "boss"}, Running)
	for n := range 40 {
		own := made(Run{Agent: "clerk", Cause: ByPerson, Due: a.clock(), Covers: 1, State: Planned, key: fmt.Sprint("own ", n)}, Queued)
		called := made(Run{Agent: "clerk", Cause: ByAgent, Parent: boss.ID, Depth: 1, Due: a.clock(), Covers: 1, State: Planned, key: fmt.Sprint("called ", n)}, Planned)
		var both sync.WaitGroup
		begun := make(chan string, 2)
		both.Go(func() {
			if _, err := a.begin(t.Context(), own.ID, own.call); err == nil {
				begun <- "its own run"
			} else if !errors.Is(err, errStale) {
				t.Error(err)
			}
		})
		both.Go(func() {
			if _, _, err := b.take(t.Context(), called.ID, map[string]bool{"boss": true}, b.clock()); err == nil {
				begun <- "the one that was called"
			} else if !errors.Is(err, errAtWork) {
				t.Error(err)
			}
		})
		both.Wait()
		if len(begun) != 1 {
			t.Fatalf("round %d: %d have begun", n, len(begun))
		}
		for _, r := range []Run{own, called} {
			if _, err := a.change(t.Context(), r.ID, func(_ *transaction, x *Run) error {
				x.State, x.Ended = Cancelled, a.clock()
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
