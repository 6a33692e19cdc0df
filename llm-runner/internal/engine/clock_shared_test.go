//go:build prove

package engine

import (
	"context"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/test/postgrestest"
)

// Each of several processes sees that the database's clock was set; what waits is moved once.
func TestAMoveOfASharedClockIsToldOnceAmongProcesses(t *testing.T) {
	url := postgrestest.Start(t).New()
	var mu sync.Mutex
	var moves []time.Duration
	var members []*member
	behind := time.Duration(0)
	for range 3 {
		m := join(t, url, "", func(context.Context, string) error { return nil })
		m.clock.steady = func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Since(begun) + 100*time.Hour - behind
		}
		m.clock.known, m.clock.begun = false, 0
		m.Moves(func(_ context.Context, by time.Duration) error {
			mu.Lock()
			defer mu.Unlock()
			moves = append(moves, by.Round(time.Second))
			return nil
		})
		members = append(members, m)
	}
	for range 2 {
		for _, m := range members {
			if err := m.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, by := range []time.Duration{time.Hour, -time.Hour} {
		mu.Lock()
		behind += by
		mu.Unlock()
		var all sync.WaitGroup
		for _, m := range members {
			all.Go(func() {
				for range 3 {
					if err := m.Look(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if len(moves) != i+1 || moves[i] != by {
			t.Fatalf("told %v after %s", moves, by)
		}
	}
}
