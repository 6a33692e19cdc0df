package usage

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Where several processes share the books, each makes the ids of its rows by itself, so that no attempt waits for a number:
// microseconds since epoch, then nodeBits that tell processes apart. They order rows of all processes by time, as far as
// their machines' clocks agree, and last until 2097. Processes are numbered as they open the books, so two have the same nodeBits only where
// 4,095 have begun between them, and then they would have to ask within the same microsecond.
const nodeBits = 12

var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// ids makes ids. The zero value counts 1, 2, 3, ...
type ids struct {
	last   atomic.Int64
	shared bool
	node   int64
}

func (x *ids) share(process int64) { x.shared, x.node = true, process&(1<<nodeBits-1) }

func (x *ids) next(now time.Time) int64 {
	if !x.shared {
		return x.last.Add(1)
	}
	for {
		last := x.last.Load()
		id := max(idAt(now)|x.node, last+1<<nodeBits)
		if x.last.CompareAndSwap(last, id) {
			return id
		}
	}
}

// idAt is the first id of a moment in shared books.
func idAt(t time.Time) int64 { return max(t.Sub(epoch).Microseconds(), 0) << nodeBits }

// dayOf is SQL for the local day of started_at, 2026-11-22, for rows since a moment. The zone is this process's, whatever
// the database's is.
func dayOf(since, now time.Time) string {
	y, m, d := since.Local().Date()
	edge := func(n int) time.Time { return time.Date(y, m, d+n, 0, 0, 0, 0, time.Local) }
	days := 0
	for edge(days + 1).Before(now) {
		days++
	}
	text := "CASE"
	for n := days; n > 0; n-- {
		text += fmt.Sprintf(" WHEN started_at >= %d THEN '%s'", edge(n).UnixMilli(), edge(n).Format(time.DateOnly))
	}
	return text + fmt.Sprintf(" WHEN true THEN '%s' END", edge(0).Format(time.DateOnly))
}

// refreshEvery is how old the sums of the day may be of what other processes asked.
const refreshEvery = 5 * time.Second

// refresh takes into the day's sums what other processes have asked.
func (l *Ledger) refresh(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if today, err := totals(ctx, l.db, time.Now()); err == nil { // else the sums stay as they are
				l.books.replace(today, time.Now())
			}
		case <-ctx.Done():
			return
		}
	}
}

// Adopt closes the rows that another process left open; it is dead.
func (l *Ledger) Adopt(ctx context.Context, worker string) error { return adopt(ctx, l.db, worker) }
