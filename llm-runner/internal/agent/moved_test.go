package agent

import (
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/test/enginetest"
)

func TestARunWaitsAsLongAsItWasWhenTheClockIsSet(t *testing.T) {
	clock, before := &enginetest.Clock{}, database
	database = func(t testing.TB, path string, c engine.Config) (*db.DB, *engine.Engine) {
		c.Steady = clock.Steady
		return before(t, path, c)
	}
	defer func() { database = before }()
	b := newBench(t, map[string]string{"hello": daily}).start()
	b.at(time.Now().Round(time.Millisecond))
	b.heldUntil(b.clock().Add(40 * time.Minute))
	r := b.ask("hello", false)
	if r.State != Waiting {
		t.Fatalf("%+v", r)
	}
	for _, by := range []time.Duration{time.Hour, -time.Hour, -time.Hour} {
		clock.Set(t, b.db, by, map[string][]string{"agent_runs": {"next_at"}})
		if err := b.engine.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.settle()
		if now := b.detail(r.ID); now.State != Waiting || now.NextAt.Sub(r.NextAt).Abs() > time.Second || b.model.count() != 1 {
			t.Errorf("after %s: %s until %v, not %v; asked %d times", by, now.State, now.NextAt, r.NextAt, b.model.count())
		}
	}
}
