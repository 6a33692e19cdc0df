package usage

import (
	"context"
	"encoding/json"
	"maps"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// Totals are sums over attempts that have ended. Attempts whose tokens or cost are unknown add nothing to those sums.
type Totals struct {
	Requests     int64 `json:"requests"`
	Errors       int64 `json:"errors"`
	Busy         int64 `json:"busy"`
	Cancelled    int64 `json:"cancelled"`
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	CostMicroUSD int64 `json:"-"`
}

// MarshalJSON adds the cost in dollars.
func (t Totals) MarshalJSON() ([]byte, error) {
	type plain Totals
	return json.Marshal(struct {
		plain
		CostUSD float64 `json:"cost_usd"`
	}{plain(t), float64(t.CostMicroUSD) / 1e6})
}

func (t *Totals) add(e End, cost llm.Count) {
	t.Requests++
	switch e.Outcome {
	case Failed:
		t.Errors++
	case Busy:
		t.Busy++
	case Cancelled:
		t.Cancelled++
	}
	t.InputTokens += e.Usage.Input.Or(0)
	t.OutputTokens += e.Usage.Output.Or(0)
	t.CostMicroUSD += cost.Or(0)
}

// books are the sums of the current day, kept in memory so that /health and /metrics never ask the disk.
type books struct {
	mu    sync.Mutex
	day   string
	today map[string]Totals // by provider
	since map[Series]Totals // since the process started
}

// A Series is what metrics are told apart by.
type Series struct{ Provider, Model string }

func day(t time.Time) string { return t.Local().Format(time.DateOnly) }

func (b *books) load(ctx context.Context, d *db.DB, now time.Time) error {
	y, m, dd := now.Local().Date()
	days, err := Days(ctx, d, time.Date(y, m, dd, 0, 0, 0, 0, now.Local().Location()))
	if err != nil {
		return err
	}
	b.day, b.today, b.since = day(now), map[string]Totals{}, map[Series]Totals{}
	for _, x := range days {
		b.today[x.Provider] = x.Totals
	}
	return nil
}

func (b *books) add(s Start, e End, cost llm.Count) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(time.Now())
	t := b.today[s.Provider]
	t.add(e, cost)
	b.today[s.Provider] = t
	k := Series{s.Provider, s.Model}
	t = b.since[k]
	t.add(e, cost)
	b.since[k] = t
}

// turn begins a new page at midnight.
func (b *books) turn(now time.Time) {
	if today := day(now); today != b.day {
		b.day, b.today = today, map[string]Totals{}
	}
}

// Today returns the sums of the current local day by provider.
func (l *Ledger) Today() map[string]Totals {
	l.books.mu.Lock()
	defer l.books.mu.Unlock()
	l.books.turn(time.Now())
	return maps.Clone(l.books.today)
}

// Since returns the sums since the ledger was opened, by provider and model.
func (l *Ledger) Since() map[Series]Totals {
	l.books.mu.Lock()
	defer l.books.mu.Unlock()
	return maps.Clone(l.books.since)
}
