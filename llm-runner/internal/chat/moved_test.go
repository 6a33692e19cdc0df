package chat

import (
	"path/filepath"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/enginetest"
)

func TestATurnIsHeldAsLongAsItWasWhenTheClockIsSet(t *testing.T) {
	clock, times := &enginetest.Clock{}, map[string][]string{"turns": {"retry_at", "started_at", "ended_at"}}
	s, p, d, _ := openWith(t, filepath.Join(t.TempDir(), db.Name), func(d *db.DB) *engine.Engine {
		return enginetest.On(t, d, engine.Config{Poll: 10 * time.Millisecond, Log: quiet(), Steady: clock.Steady})
	})
	// One whose machine tells when it is back, and one of which nobody knows.
	told := send(t, s, 0, 0, "a")
	w := watch(t, s, told.ID)
	p.next(t).say <- error(&llm.BusyError{Provider: "davas", Kind: llm.Unavailable, Reason: "davas is down", Until: time.Now().Add(8 * time.Second)})
	w.until(t, Held)
	unknown := send(t, s, 0, 0, "b")
	w2 := watch(t, s, unknown.ID)
	p.next(t).say <- error(&llm.BusyError{Provider: "davas", Kind: llm.Unavailable, Reason: "davas is down"})
	w2.until(t, Held)
	was := map[int64]Turn{}
	for _, id := range []int64{told.ID, unknown.ID} {
		turn, err := s.Turn(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		was[id] = turn
	}
	for _, by := range []time.Duration{time.Hour, -time.Hour, -time.Hour} {
		clock.Set(t, d, by, times)
		if err := s.config.Engine.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		for id, before := range was {
			turn, err := s.Turn(t.Context(), id)
			if err != nil || turn.State != Held || !turn.Due || turn.RetryAt.Sub(before.RetryAt).Abs() > time.Second || turn.Ended.Sub(before.Ended).Abs() > time.Second {
				t.Errorf("after %s: %s until %v, not %v; %v", by, turn.State, turn.RetryAt, before.RetryAt, err)
			}
		}
		if len(p.asked) != 0 {
			t.Fatalf("after %s it was asked", by)
		}
	}
	x := p.next(t) // at its time, not an hour later
	x.text("yes")
	x.done()
	w.end(t, "yes")
}
