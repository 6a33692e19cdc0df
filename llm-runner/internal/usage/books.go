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

	well   int64 // attempts that ended well
	wellUS int64 // microseconds of their whole answers
}

// Mean is how many milliseconds a whole answer took on average, over attempts that ended well.
func (t Totals) Mean() llm.Count {
	if t.well == 0 {
		return llm.Count{}
	}
	return llm.Known(t.wellUS / t.well / 1000)
}

// MarshalJSON adds the cost in dollars, and the mean.
func (t Totals) MarshalJSON() ([]byte, error) {
	type plain Totals
	return json.Marshal(struct {
		plain
		CostUSD float64   `json:"cost_usd"`
		Mean    llm.Count `json:"mean_ms"`
	}{plain(t), float64(t.CostMicroUSD) / 1e6, t.Mean()})
}

func (t *Totals) add(e End, cost llm.Count) {
	t.Requests++
	switch e.Outcome {
	case OK:
		t.well++
		t.wellUS += e.Total.Microseconds()
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
	since map[Series]Tally  // since the process started
}

// A Series is what metrics are told apart by.
type Series struct{ Provider, Model string }

// mostSeries is how many series are told apart; a caller may name any model of a provider. Beyond them all are of the model otherModel.
const (
	mostSeries = 200
	otherModel = "(other)"
)

// A Tally is what metrics tell of a series.
type Tally struct {
	Totals
	Kinds map[llm.Kind]int64 // of errors and of refusals that pass
	Total Histogram          // of whole answers
	First Histogram          // until the first byte
}

// Bounds are the upper bounds of a Histogram's buckets, in seconds.
var Bounds = [...]float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}

// A Histogram counts durations.
type Histogram struct {
	Count   uint64
	Seconds float64             // the sum
	Upto    [len(Bounds)]uint64 // those of at most each of Bounds
}

func (h *Histogram) add(d time.Duration) {
	if d <= 0 {
		return
	}
	h.Count++
	h.Seconds += d.Seconds()
	for i, bound := range Bounds {
		if d.Seconds() <= bound {
			h.Upto[i]++
		}
	}
}

func (t *Tally) add(e End, cost llm.Count) {
	t.Totals.add(e, cost)
	t.First.add(e.FirstByte)
	switch e.Outcome {
	case OK:
		t.Total.add(e.Total)
	case Failed, Busy:
		t.Kinds = maps.Clone(t.Kinds) // readers have the other one
		if t.Kinds == nil {
			t.Kinds = map[llm.Kind]int64{}
		}
		t.Kinds[llm.KindOf(e.Err)]++
	}
}

func day(t time.Time) string { return t.Local().Format(time.DateOnly) }

// totals sums the local day of now by provider, as it stands in the ledger.
func totals(ctx context.Context, d *db.DB, now time.Time) (map[string]Totals, error) {
	y, m, dd := now.Local().Date()
	days, err := Days(ctx, d, time.Date(y, m, dd, 0, 0, 0, 0, now.Local().Location()))
	all := map[string]Totals{}
	for _, x := range days {
		all[x.Provider] = x.Totals
	}
	return all, err
}

func (b *books) load(ctx context.Context, d *db.DB, now time.Time) error {
	today, err := totals(ctx, d, now)
	b.since = map[Series]Tally{}
	b.replace(today, now)
	return err
}

func (b *books) replace(today map[string]Totals, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.day, b.today = day(now), today
}

func (b *books) add(s Start, e End, cost llm.Count) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(time.Now())
	t := b.today[s.Provider]
	t.add(e, cost)
	b.today[s.Provider] = t
	k := Series{s.Provider, s.Model}
	tally, known := b.since[k]
	if !known && len(b.since) >= mostSeries {
		k.Model = otherModel
		tally = b.since[k]
	}
	tally.add(e, cost)
	b.since[k] = tally
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
func (l *Ledger) Since() map[Series]Tally {
	l.books.mu.Lock()
	defer l.books.mu.Unlock()
	return maps.Clone(l.books.since)
}
