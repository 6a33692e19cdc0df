package quota

import (
	"path/filepath"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// What was found out of a day's shape is known after a restart: the day that comes back in one piece, and the one that does not.
func TestTheShapeOfADayIsKept(t *testing.T) {
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	start := time.Date(2026, 11, 20, 18, 0, 0, 0, time.UTC)
	refuse := func(b *Book, provider string, used int64, now, until time.Time) {
		if used > 0 {
			r, room := b.Reserve(provider, "m", Cost{Input: used}, now.Add(-time.Minute))
			if !room.OK {
				t.Fatalf("%+v", room)
			}
			r.Settle(llm.Usage{Input: llm.Known(used), Output: llm.Known(0)}, nil, now.Add(-time.Minute))
		}
		b.Refused(provider, "m", &llm.Error{Kind: llm.Quota, Until: until, Limits: []llm.Limit{{Model: "m", Dimension: llm.TokensPerDay, Refill: llm.Rolling,
			Max: llm.Known(1000), Exhausted: true, Reset: until}}}, now)
	}
	b, err := Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	midnight := start.Truncate(24 * time.Hour).Add(24 * time.Hour)
	refuse(b, "whole", 0, start, midnight)
	refuse(b, "rolls", 0, start, midnight)
	refuse(b, "rolls", 10, midnight.Add(time.Hour), midnight.Add(3*time.Hour)) // early in its window: it was none
	if err := b.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err = Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	morning := midnight.Add(4 * time.Hour)
	if _, room := b.Reserve("whole", "m", Cost{Input: 900}, morning); !room.OK {
		t.Errorf("the day has not come back in one piece: %+v", room)
	}
	if _, room := b.Reserve("rolls", "m", Cost{Input: 900}, morning); room.OK {
		t.Error("what rolls came back in one piece")
	}
	refuse(b, "rolls", 0, morning, morning.Add(5*time.Hour))
	if _, room := b.Reserve("rolls", "m", Cost{Input: 900}, morning.Add(6*time.Hour)); room.OK {
		t.Error("what was found out was forgotten")
	}
}
