package usage

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// open returns a running ledger and a function that stops it and waits until all is written.
func open(t testing.TB, path string) (*db.DB, *Ledger, func()) {
	t.Helper()
	d, err := db.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, d)
}

// run opens the ledger in d as open does.
func run(t testing.TB, d *db.DB) (*db.DB, *Ledger, func()) {
	t.Helper()
	l, err := Open(context.Background(), d, Prices{"groq": {Input: 1, Output: 2}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	return d, l, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAnAttemptIsOnDiskBeforeItBeginsAndCompletedAfter(t *testing.T) {
	d, l, stop := open(t, filepath.Join(t.TempDir(), db.Name))
	defer d.Close()
	a, err := l.Begin(t.Context(), Start{Purpose: "chat", Asked: "m", Rule: "table", Provider: "groq", Model: "llama"})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := Recent(t.Context(), d, 10)
	if err != nil || len(rows) != 1 || rows[0].Outcome != Unfinished || rows[0].ID != a.ID() {
		t.Fatalf("before the answer: %+v, %v", rows, err)
	}
	a.Close(End{Outcome: OK, FirstByte: 2 * time.Millisecond, Total: 5 * time.Millisecond,
		Usage: llm.Usage{Input: llm.Known(1000), Output: llm.Known(500)}})
	a.Close(End{Outcome: Failed}) // only the first counts
	stop()
	rows, err = Recent(t.Context(), d, 10)
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	r := rows[0]
	if r.Outcome != OK || r.Usage.Input != llm.Known(1000) || r.Usage.CachedInput != (llm.Count{}) ||
		r.Cost != llm.Known(2000) || r.FirstByte != 2*time.Millisecond {
		t.Errorf("after the answer: %+v", r)
	}
	got := l.Today()["groq"]
	if got.Requests != 1 || got.Errors != 0 || got.CostMicroUSD != 2000 {
		t.Errorf("today: %+v", got)
	}
}

func TestTheMeanOfTheDaySurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	d, l, stop := open(t, path)
	if mean := l.Today()["groq"].Mean(); mean != (llm.Count{}) {
		t.Errorf("of nothing: %v", mean)
	}
	for outcome, took := range map[Outcome]time.Duration{OK: 2 * time.Second, Busy: time.Hour, Failed: time.Hour} {
		a, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
		if err != nil {
			t.Fatal(err)
		}
		a.Close(End{Outcome: outcome, Total: took})
	}
	a, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
	if err != nil {
		t.Fatal(err)
	}
	a.Close(End{Outcome: OK, Total: time.Second})
	stop()
	before := l.Today()["groq"]
	d.Close()
	d, l, stop = open(t, path)
	defer d.Close()
	defer stop()
	if after := l.Today()["groq"]; after != before || after.Mean() != llm.Known(1500) || after.Busy != 1 {
		t.Errorf("%+v, after a restart %+v", before, after)
	}
}

func TestUnknownTokensStayUnknown(t *testing.T) {
	d, l, stop := open(t, filepath.Join(t.TempDir(), db.Name))
	defer d.Close()
	a, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
	if err != nil {
		t.Fatal(err)
	}
	a.Close(End{Outcome: OK})
	stop()
	rows, err := Recent(t.Context(), d, 1)
	if err != nil || rows[0].Usage.Input != (llm.Count{}) || rows[0].Cost != (llm.Count{}) {
		t.Errorf("%+v, %v", rows, err)
	}
}

func TestRowsOfADeadProcessAreMarked(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	d, l, stop := open(t, path)
	a, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
	if err != nil {
		t.Fatal(err)
	}
	stop() // the row is never closed
	d.Close()
	d, l, stop = open(t, path)
	defer d.Close()
	defer stop()
	rows, err := Recent(t.Context(), d, 1)
	if err != nil || rows[0].Outcome != Interrupted {
		t.Errorf("%+v, %v", rows, err)
	}
	b, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
	if err != nil || b.ID() <= a.ID() {
		t.Errorf("id %d after %d, %v", b.ID(), a.ID(), err)
	}
}

func TestAnsweringGoesOnWhileTheDiskRefuses(t *testing.T) {
	d, l, stop := open(t, filepath.Join(t.TempDir(), db.Name))
	defer d.Close()
	if _, err := d.Writer().Exec("ALTER TABLE attempts RENAME TO gone"); err != nil {
		t.Fatal(err)
	}
	a, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
	if err != nil {
		t.Fatal(err)
	}
	if l.Broken() == nil {
		t.Error("the ledger does not say that it cannot write")
	}
	if _, err := d.Writer().Exec("ALTER TABLE gone RENAME TO attempts"); err != nil {
		t.Fatal(err)
	}
	a.Close(End{Outcome: OK})
	if _, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"}); err != nil || l.Broken() != nil {
		t.Errorf("after the cure: %v, %v", err, l.Broken())
	}
	stop()
	rows, err := Recent(t.Context(), d, 10)
	if err != nil || len(rows) != 2 || rows[1].Outcome != OK {
		t.Errorf("the row that waited in memory: %+v, %v", rows, err)
	}
}

func TestWhatTheDiskRefusedIsWrittenWithoutAnotherAttempt(t *testing.T) {
	d, l, stop := open(t, filepath.Join(t.TempDir(), db.Name))
	defer d.Close()
	defer stop()
	if _, err := d.Writer().Exec("PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	a, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
	if err != nil {
		t.Fatal(err)
	}
	a.Close(End{Outcome: OK})
	if x := d.Trouble(); x == nil || x.Fault != db.ReadOnly {
		t.Errorf("%+v", x)
	}
	if _, err := d.Writer().Exec("PRAGMA query_only = 0"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		rows, err := Recent(t.Context(), d, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 1 && rows[0].Outcome == OK && l.Broken() == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v, %v", rows, l.Broken())
		}
	}
}

func TestDaysSumAndRank(t *testing.T) {
	day := time.Now().Format(time.DateOnly)
	d, l, stop := open(t, filepath.Join(t.TempDir(), db.Name))
	defer d.Close()
	for i := range 100 {
		a, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
		if err != nil {
			t.Fatal(err)
		}
		e := End{Outcome: OK, Total: time.Duration(i+1) * time.Millisecond, Usage: llm.Usage{Input: llm.Known(1), Output: llm.Known(1)}}
		a.Close(e)
	}
	a, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
	if err != nil {
		t.Fatal(err)
	}
	a.Close(End{Outcome: Failed, Err: &llm.Error{Kind: llm.Overload, Message: "full"}, Total: time.Hour})
	stop()
	days, err := Days(t.Context(), d, time.Now().Add(-time.Hour))
	if time.Now().Format(time.DateOnly) != day {
		t.Skip("midnight came meanwhile")
	}
	if err != nil || len(days) != 1 {
		t.Fatal(days, err)
	}
	x := days[0]
	if x.Totals.Requests != 101 || x.Totals.Errors != 1 || x.Totals.InputTokens != 100 || x.P50 != llm.Known(50) || x.P95 != llm.Known(95) {
		t.Errorf("%+v", x)
	}
	rows, err := Recent(t.Context(), d, 1)
	if err != nil || rows[0].Error != "overload: full" {
		t.Errorf("%+v, %v", rows, err)
	}
}

func TestBeginEndsWithItsCaller(t *testing.T) {
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := Open(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.writing.Lock() // another writes, and does not come to an end
	if _, err := l.Begin(ctx, Start{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkAttempt(b *testing.B) {
	for _, parallel := range []int{1, 64} {
		b.Run("concurrency="+strconv.Itoa(parallel), func(b *testing.B) {
			d, l, stop := open(b, filepath.Join(b.TempDir(), db.Name))
			defer d.Close()
			defer stop()
			b.SetParallelism(parallel)
			if parallel == 1 {
				for b.Loop() {
					attempt(b, l)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					attempt(b, l)
				}
			})
		})
	}
}

func attempt(b *testing.B, l *Ledger) {
	a, err := l.Begin(context.Background(), Start{Purpose: "api", Asked: "m", Rule: "table", Provider: "groq", Model: "llama"})
	if err != nil {
		b.Fatal(err)
	}
	a.Close(End{Outcome: OK, Total: time.Millisecond, Usage: llm.Usage{Input: llm.Known(10), Output: llm.Known(5)}})
}

func TestTypicalIsTheMedianOfWhatEndedWell(t *testing.T) {
	d, l, stop := open(t, filepath.Join(t.TempDir(), db.Name))
	defer d.Close()
	for _, x := range []struct {
		model, purpose string
		outcome        Outcome
		took           time.Duration
	}{
		{"a", "job", OK, 9 * time.Second}, {"a", "chat", OK, 2 * time.Second}, {"a", "job", OK, 3 * time.Second},
		{"a", "job", Failed, time.Millisecond}, {"a", "embed", OK, time.Millisecond}, {"a", "embed", OK, time.Millisecond},
		{"seldom", "job", OK, time.Second}, {"seldom", "job", OK, time.Second},
	} {
		a, err := l.Begin(t.Context(), Start{Purpose: x.purpose, Provider: "p", Model: x.model})
		if err != nil {
			t.Fatal(err)
		}
		a.Close(End{Outcome: x.outcome, Total: x.took})
	}
	stop()
	all, err := Typical(t.Context(), d)
	if err != nil || len(all) != 1 || all[Target{"p", "a"}] != 3*time.Second {
		t.Errorf("%v, %v", all, err)
	}
}

func TestMetricsOfALedgerAreBounded(t *testing.T) {
	var b books
	b.since, b.today = map[Series]Tally{}, map[string]Totals{}
	for i := range 2 * mostSeries {
		b.add(Start{Provider: "p", Model: strconv.Itoa(i)}, End{Outcome: Failed, Err: &llm.Error{Kind: llm.NotFound}, FirstByte: 2 * time.Second}, llm.Count{})
	}
	other := b.since[Series{"p", otherModel}]
	if len(b.since) != mostSeries+1 || other.Requests != mostSeries || other.Kinds[llm.NotFound] != mostSeries {
		t.Errorf("%d series; the others have %+v", len(b.since), other)
	}
	if h := other.First; h.Count != mostSeries || h.Upto[3] != 0 || h.Upto[4] != mostSeries || other.Total.Count != 0 {
		t.Errorf("%+v", h)
	}
}

func TestTheAttemptsOfAJobAreFoundByItsName(t *testing.T) {
	d, l, stop := open(t, filepath.Join(t.TempDir(), db.Name))
	defer d.Close()
	began := time.Now().Add(-time.Hour)
	for i, work := range []string{"", "job-7", "job-71", "job-7", "job-7"} {
		a, err := l.Begin(For(t.Context(), work), Start{At: began.Add(time.Duration(i) * 20 * time.Minute), Purpose: "job", Provider: "p", Model: "m"})
		if err != nil {
			t.Fatal(err)
		}
		a.Close(End{Outcome: OK})
	}
	stop()
	rows, err := Made(t.Context(), d, "job-7", began, began.Add(time.Hour))
	if err != nil || len(rows) != 2 || rows[0].ID != 2 || rows[1].ID != 4 {
		t.Errorf("%+v, %v", rows, err)
	}
}
