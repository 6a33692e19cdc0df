//go:build prove

package jobs

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/enginetest"
)

// TestOnPostgres runs the tests of jobs where their database is PostgreSQL.
func TestOnPostgres(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	for name, test := range map[string]func(*testing.T){
		"traced": TestEveryWayOfAJobIsInItsTrace,
		"text":   TestATextIsAnsweredAndTheBooksAreKept, "chain": TestAChainPassesItsAnswersOn, "research": TestResearchAsksTheNotes,
		"held": TestWhatNobodyCanAnswerIsHeldAndGoesOnByItself, "released": TestAHeldJobGoesOnEarlyWhenItIsReleasedOrTheMachineIsBack,
		"faults": TestFaultsThatMayPassAreTriedAgainAndOthersAreNot, "deadline": TestTheDeadlineCountsWaitingOnly,
		"cancel": TestCancellingStopsWhereverTheJobIs, "key": TestAKeyMakesOneJob, "readers": TestReadersFollowAJobFromWhereTheyWere,
		"lanes": TestALineGoesByPriorityAndLanesDoNotWaitForEachOther, "first": TestRoomThatComesBackIsForTheFirstInLineNotForWhoAsksFirst,
		"turns":   TestALineComesBackAtItsTurnsInItsOrder,
		"dropped": TestADroppedFileBecomesAJobAndItsAnswerANote, "same name": TestTheSameNameTwiceLosesNothing, "conflict": TestSyncthingConflictsLoseNothing,
		"fixed": TestAFixedFileGoesOnWithoutItsOldReason, "retried": TestARetriedJobsFileIsActiveWhileItRuns,
		"told": TestWhoAsksIsToldOfTheEndInItsTransaction, "incident": TestAUsedUpLimitIsOneIncidentForAllJobs,
	} {
		t.Run(name, test)
	}
}

func TestProcessesShareJobs(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	p := &answers{answer: echo}
	a, b := open(t, "shared", p), open(t, "shared", p)
	const n = 100
	keys := make([]int64, 2)
	var ids []int64
	for i := range n {
		s := []*Service{a, b}[i%2]
		ids = append(ids, submit(t, s, Spec{Prompt: "work", Priority: 1 + i%9}).ID)
	}
	var wg sync.WaitGroup
	for i, s := range []*Service{a, b} {
		wg.Go(func() {
			j, _, err := s.Submit(t.Context(), Spec{Prompt: "once"}, "the same key")
			if err != nil {
				t.Error(err)
			}
			keys[i] = j.ID
		})
	}
	wg.Wait()
	if keys[0] != keys[1] {
		t.Errorf("two jobs of one key: %v", keys)
	}
	workers := map[string]int{}
	for _, id := range append(ids, keys[0]) {
		reach(t, b, id, Done)
		if got := course(t, a, id); got != "queued running done" {
			t.Errorf("job %d: %s", id, got)
		}
		j, err := one(t.Context(), a.db.Read(), id)
		if err != nil {
			t.Fatal(err)
		}
		workers[j.worker]++
	}
	if got := len(p.prompts()); got != n+1 {
		t.Errorf("asked %d times for %d jobs", got, n+1)
	}
	t.Logf("shared as %v", workers)
}

func TestAJobOfAnotherProcessIsFollowedAndCancelled(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	began := make(chan string, 2)
	runner := func(name string) *answers {
		return &answers{answer: func(ctx context.Context, _ llm.Request, _ int) (string, error) {
			began <- name
			<-ctx.Done()
			return "", &llm.Error{Kind: llm.Cancelled, Err: ctx.Err()}
		}}
	}
	services := map[string]*Service{"a": open(t, "shared", runner("a")), "b": open(t, "shared", runner("b"))}
	j := submit(t, services["a"], Spec{Prompt: "long"})
	other := services["b"]
	if <-began == "b" {
		other = services["a"]
	}
	var states []State
	ended := make(chan struct{})
	go func() {
		for news, err := range other.Events(t.Context(), j.ID, 0) {
			if err != nil {
				t.Error(err)
			}
			for _, e := range news.Events {
				states = append(states, e.To)
			}
		}
		close(ended)
	}()
	if _, err := other.Cancel(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	select { // how fast one process hears another, internal/chat measures
	case <-ended:
	case <-time.After(60 * time.Second):
		t.Fatal("the end was not told")
	}
	if !slices.Equal(states, []State{Queued, Running, Cancelled}) {
		t.Errorf("followed %v", states)
	}
	for _, s := range services { // the call itself ended too
		deadline := time.Now().Add(60 * time.Second)
		for {
			s.mu.Lock()
			n := len(s.running)
			s.mu.Unlock()
			if n == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("it still runs")
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func TestADeadProcessesJobsAreQueuedAgainAndItsLateAnswersAreNotTaken(t *testing.T) {
	enginetest.OnPostgres(t, &database)
	began, late := make(chan struct{}, 10), make(chan struct{})
	a := open(t, "shared", &answers{answer: func(_ context.Context, _ llm.Request, n int) (string, error) {
		began <- struct{}{}
		<-late
		return "too late", nil
	}})
	j := submit(t, a, Spec{Prompt: "adopted"})
	<-began
	b := open(t, "shared", &answers{answer: func(context.Context, llm.Request, int) (string, error) { return "in time", nil }})
	if err := b.Adopt(t.Context(), "somebody else"); err != nil {
		t.Fatal(err)
	}
	if got := course(t, b, j.ID); got != "queued running" {
		t.Errorf("a living process's job: %s", got)
	}
	if err := b.Adopt(t.Context(), a.db.Worker()); err != nil {
		t.Fatal(err)
	}
	// Whoever takes it up: the first call's answer does not count.
	for {
		changed := b.Changed()
		now, err := b.Job(t.Context(), j.ID)
		if err != nil {
			t.Fatal(err)
		}
		if now.State == Done || len(began) > 0 {
			break
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond): // the other process's call is no change of a job
		}
	}
	close(late)
	done := reach(t, b, j.ID, Done)
	if got := course(t, b, j.ID); got != "queued running queued running done" || done.Run != 2 {
		t.Errorf("%s, run %d, %q", got, done.Run, done.Answer)
	}
}

// Against a PostgreSQL of this machine, with the times of a server at work.
func TestAnIdleServiceOnPostgresBeginsAJobAtOnce(t *testing.T) {
	enginetest.Served(t, &database)
	beginsAtOnce(t)
}

func BenchmarkSubmitToStartOnPostgres(b *testing.B) {
	enginetest.Served(b, &database)
	BenchmarkSubmitToStart(b)
}

// What a service at rest asks of the server: transactions of its database, as the server counts them. A connection that is idle
// tells its own after ten seconds at the latest.
func BenchmarkAtRestOnPostgres(b *testing.B) {
	enginetest.Served(b, &database)
	s, _ := newService(b, echo)
	count := func() (n float64) {
		time.Sleep(12 * time.Second)
		if err := s.db.Read().QueryRowContext(b.Context(), `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()`).Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n
	}
	for b.Loop() {
		began, since := count(), time.Now()
		time.Sleep(20 * time.Second)
		b.ReportMetric((count()-began)/time.Since(since).Seconds(), "transactions/s")
	}
}
