package quota

import (
	"path/filepath"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

func remaining(t *testing.T, b *Book, now time.Time) int64 {
	t.Helper()
	all := b.Standings("p", now)
	if len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	return all[0].Remaining.Or(-1)
}

func TestWhatAKilledProcessSentIsCountedFromTheLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	d, err := db.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	limit := llm.Limit{Dimension: llm.RequestsPerMinute, Refill: llm.Rolling, Max: llm.Known(10)}
	b.Configure("p", []llm.Limit{limit}, now)
	select {
	case <-b.urgent: // it is written before anything is sent
	default:
		t.Error("a new limit is not urgent")
	}
	var sent []Use
	send := func(after time.Duration) {
		at := now.Add(after)
		if _, room := b.Reserve("p", "m", Cost{}, at); !room.OK {
			t.Fatal(room)
		}
		sent = append(sent, Use{Provider: "p", Model: "m", At: at})
	}
	for i := range 3 {
		send(time.Duration(i) * 10 * time.Millisecond)
	}
	if err := b.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 4 { // and the process is killed before it writes these
		send(time.Duration(100+i*10) * time.Millisecond)
	}
	d.Close()

	if d, err = db.Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	now = now.Add(time.Second)
	if b, err = Open(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if n := remaining(t, b, now); n != 7 {
		t.Errorf("%d are left by what was written", n)
	}
	b.Recount(append(sent, Use{Provider: "other", Model: "m", At: now}), now)
	if n := remaining(t, b, now); n < 2 || n > 3 { // the one that was written last may be counted twice
		t.Errorf("%d are left", n)
	}
}

func TestAConfiguredLimitBeginsTheCountAndIsCorrected(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	b := &Book{}
	b.Configure("p", []llm.Limit{{Dimension: llm.RequestsPerMinute, Model: "m", Refill: llm.Rolling, Max: llm.Known(2)}}, now)
	for range 2 {
		if _, room := b.Reserve("p", "m", Cost{}, now); !room.OK {
			t.Fatal(room)
		}
	}
	if _, room := b.Reserve("p", "m", Cost{}, now); room.OK || room.Dimension != llm.RequestsPerMinute {
		t.Errorf("%+v", room)
	}
	told := []llm.Limit{{Dimension: llm.RequestsPerMinute, Model: "m", Refill: llm.Continuous, Max: llm.Known(60), Remaining: llm.Known(58), Reset: now.Add(2 * time.Second)}}
	b.Learn("p", told, now)
	if _, room := b.Reserve("p", "m", Cost{}, now); !room.OK {
		t.Errorf("%+v", room)
	}
}

func TestWhatWasLearnedIsKeptUntilTheOperatorSaysSomethingElse(t *testing.T) {
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	now := time.Now()
	for _, start := range []struct{ configured, most int64 }{{2, 2}, {2, 60}, {2, 60}, {30, 30}, {30, 60}, {2, 2}} {
		b, err := Open(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		b.Configure("p", []llm.Limit{{Dimension: llm.RequestsPerMinute, Model: "m", Refill: llm.Rolling, Max: llm.Known(start.configured)}}, now)
		if s := b.Standings("p", now); len(s) != 1 || s[0].Max.Or(0) != start.most {
			t.Errorf("configured as %d: %+v, want %d", start.configured, s, start.most)
		}
		// The provider tells of another size and of another way in which room comes back.
		b.Learn("p", []llm.Limit{{Dimension: llm.RequestsPerMinute, Model: "m", Refill: llm.Continuous, Max: llm.Known(60), Remaining: llm.Known(58), Reset: now.Add(2 * time.Second)}}, now)
		if s := b.Standings("p", now); s[0].Refill != llm.Continuous || s[0].Max.Or(0) != 60 {
			t.Errorf("learned %+v", s)
		}
		if err := b.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
