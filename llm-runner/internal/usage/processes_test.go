//go:build prove

package usage

import (
	"slices"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

func TestProcessesShareTheBooks(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	join := func() (*db.DB, *Ledger, func()) {
		d, err := db.OpenPostgres(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return run(t, d)
	}
	day := time.Now().Format(time.DateOnly)
	d, a, stopA := join()
	e, b, stopB := join()
	const each = 200
	ids := make([][]int64, 2)
	var wg sync.WaitGroup
	for i, l := range []*Ledger{a, b} {
		wg.Go(func() {
			for n := range each {
				x, err := l.Begin(t.Context(), Start{Purpose: "job", Asked: "m\x00", Rule: "table", Provider: "groq", Model: "llama"})
				if err != nil {
					t.Error(err)
					return
				}
				ids[i] = append(ids[i], x.ID())
				x.Close(End{Outcome: OK, Total: time.Duration(n+1) * time.Millisecond, Usage: llm.Usage{Input: llm.Known(2), Output: llm.Known(1)}})
			}
		})
	}
	wg.Wait()
	left, err := b.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
	if err != nil {
		t.Fatal(err)
	}

	// A process that joins, or dies, leaves the others' open rows alone; only what is adopted is closed.
	_, c, stopC := join()
	if got := c.Today()["groq"]; got.Requests < each {
		t.Errorf("the one that joins knows of %d requests", got.Requests)
	}
	if err := a.Adopt(t.Context(), "somebody else"); err != nil {
		t.Fatal(err)
	}
	stopC()
	stopA()
	rows, err := Recent(t.Context(), d, 1)
	if err != nil || rows[0].ID != left.ID() || rows[0].Outcome != Unfinished {
		t.Errorf("%+v, %v", rows, err)
	}
	stopB()
	if err := a.Adopt(t.Context(), e.Worker()); err != nil {
		t.Fatal(err)
	}
	rows, err = Recent(t.Context(), d, 2*each+10)
	if err != nil || len(rows) != 2*each+1 || rows[0].Outcome != Interrupted {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	seen := map[int64]bool{}
	for _, r := range rows[1:] {
		if seen[r.ID] = true; r.Outcome != OK || r.Cost != llm.Known(4) {
			t.Fatalf("%+v", r)
		}
	}
	if all := slices.Concat(ids...); len(seen) != len(all) {
		t.Errorf("%d ids of %d", len(seen), len(all))
	}
	now := time.Now()
	days, err := Days(t.Context(), d, now.AddDate(0, 0, -3))
	if now.Format(time.DateOnly) != day {
		t.Skip("midnight came meanwhile")
	}
	if err != nil || len(days) != 1 || days[0].Day != now.Format(time.DateOnly) {
		t.Fatalf("%+v, %v", days, err)
	}
	if x := days[0]; x.Totals.Requests != 2*each+1 || x.Totals.InputTokens != 4*each || x.P50 != llm.Known(each/2) || x.P95 != llm.Known(each*95/100) {
		t.Errorf("%+v", x)
	}
}

func TestTheBooksWaitForADatabaseThatIsGone(t *testing.T) {
	server := postgrestest.Start(t)
	d, err := db.OpenPostgres(t.Context(), server.New())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, l, stop := run(t, d)
	server.Stop()
	a, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"})
	if err != nil || l.Broken() == nil {
		t.Fatalf("%v; broken: %v", err, l.Broken())
	}
	a.Close(End{Outcome: OK})
	server.Up()
	if _, err := l.Begin(t.Context(), Start{Provider: "groq", Model: "llama"}); err != nil || l.Broken() != nil {
		t.Errorf("after it is back: %v, %v", err, l.Broken())
	}
	stop()
	rows, err := Recent(t.Context(), d, 10)
	if err != nil || len(rows) != 2 || rows[1].Outcome != OK {
		t.Errorf("%+v, %v", rows, err)
	}
}
