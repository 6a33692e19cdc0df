//go:build prove

package quota

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// join returns one more process's book in a shared database, which runs until the test ends.
func join(t *testing.T, url string) (*Book, *db.DB) {
	t.Helper()
	d, err := db.OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx) })    //nolint:errcheck // the database may be gone
	running.Go(func() { d.Listen(ctx) }) //nolint:errcheck // it has no errors
	t.Cleanup(func() {
		cancel()
		running.Wait()
		d.Close()
	})
	return b, d
}

func TestProcessesTogetherNeverTakeMoreThanThereIs(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, _ := join(t, url)
	b, _ := join(t, url)
	const most = 60
	a.Learn("p", []llm.Limit{
		{Model: "m", Dimension: llm.RequestsPerDay, Max: llm.Known(most), Remaining: llm.Known(most), Reset: time.Now().Add(time.Hour)},
		{Dimension: llm.TokensPerDay, Max: llm.Known(1_000_000), Remaining: llm.Known(1_000_000), Refill: llm.Rolling},
	}, time.Now())
	var taken, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			book := []*Book{a, b}[i%2]
			for range 20 {
				r, room := book.Reserve("p", "m", Cost{Input: 100}, time.Now())
				if !room.OK {
					if room.Dimension != llm.RequestsPerDay || room.Kind != llm.Quota {
						t.Errorf("%+v", room)
					}
					refused.Add(1)
					continue
				}
				taken.Add(1)
				r.Settle(llm.Usage{Input: llm.Known(100), Output: llm.Known(11)}, nil, time.Now())
			}
		})
	}
	wg.Wait()
	if taken.Load() != most || refused.Load() != 160-most {
		t.Errorf("%d of %d taken, %d refused", taken.Load(), most, refused.Load())
	}
	// A process that joins knows it too, and all know what was used of the tokens.
	c, _ := join(t, url)
	for i, book := range []*Book{a, b, c} {
		if i < 2 {
			book.Reserve("p", "other", Cost{}, time.Now())
		}
		if got := left(book, time.Now()); got[llm.RequestsPerDay] != 0 || got[llm.TokensPerDay] > 1_000_000-most*111 || got[llm.TokensPerDay] < 1_000_000-most*120 {
			t.Errorf("process %d: left %v", i, got)
		}
	}
}

func TestWhatAProviderTellsOneProcessCountsTheOthersRequestsUnderWay(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, _ := join(t, url)
	b, d := join(t, url)
	limit := func(n int64) []llm.Limit {
		return []llm.Limit{{Model: "m", Dimension: llm.RequestsPerDay, Max: llm.Known(100), Remaining: llm.Known(n), Reset: time.Now().Add(time.Hour)}}
	}
	a.Learn("p", limit(100), time.Now())
	for range 10 { // sent, not answered yet
		if _, room := b.Reserve("p", "m", Cost{}, time.Now()); !room.OK {
			t.Fatalf("%+v", room)
		}
	}
	r, _ := a.Reserve("p", "m", Cost{}, time.Now())
	r.Settle(llm.Usage{}, limit(99), time.Now()) // the provider has not seen the other ten
	if got := left(a, time.Now())[llm.RequestsPerDay]; got != 89 {
		t.Errorf("left %d, want 89", got)
	}
	// The process dies with its requests; the provider says what it has counted of them.
	if err := a.Adopt(t.Context(), d.Worker()); err != nil {
		t.Fatal(err)
	}
	r, _ = a.Reserve("p", "m", Cost{}, time.Now())
	r.Settle(llm.Usage{}, limit(95), time.Now())
	if got := left(a, time.Now())[llm.RequestsPerDay]; got != 95 {
		t.Errorf("left %d, want 95", got)
	}
}

func TestARefusalIsHeardByAll(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, _ := join(t, url)
	b, _ := join(t, url)
	// Until b listens nothing can be heard: refuse again until it has.
	held := func(want bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			room := b.Room("p", "m", time.Now())
			if room.OK != want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the other process knows %+v", room)
			}
			if want {
				a.Refused("p", "m", &llm.Error{Kind: llm.Overload, Message: "overloaded"}, time.Now())
			}
		}
	}
	held(true)
	if room := b.Room("p", "m", time.Now()); room.Kind != llm.Overload || room.Reason != "overloaded" {
		t.Errorf("%+v", room)
	}
	a.Succeeded("p", "m")
	held(false)
}

func TestLimitsGoOnWithoutTheDatabaseAndAreNotForgotten(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, _ := join(t, url)
	b, _ := join(t, url)
	a.Learn("p", []llm.Limit{{Model: "m", Dimension: llm.RequestsPerDay, Max: llm.Known(10), Remaining: llm.Known(10), Reset: time.Now().Add(time.Hour)}}, time.Now())
	server.Stop()
	for range 10 {
		if _, room := a.Reserve("p", "m", Cost{}, time.Now()); !room.OK {
			t.Fatalf("%+v", room)
		}
	}
	if _, room := a.Reserve("p", "m", Cost{}, time.Now()); room.OK {
		t.Error("more than there is")
	}
	server.Up()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the other one hears of it by itself
		if room := b.Room("p", "m", time.Now()); !room.OK {
			break
		}
		if time.Now().After(end) {
			t.Fatal("what was used meanwhile is forgotten")
		}
	}
	if _, room := b.Reserve("p", "m", Cost{}, time.Now()); room.OK {
		t.Error("more than there is")
	}
}
