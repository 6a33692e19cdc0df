package quota

import (
	"context"
	"slices"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// saveEvery is how much of what was counted a death of the process can lose.
const saveEvery = time.Second

// Open returns the Book that is kept in d. What was counted before is still counted: used room comes back while nothing
// runs, too. Changes are written while Run runs.
func Open(ctx context.Context, d *db.DB) (*Book, error) {
	all, err := load(ctx, d)
	if err != nil {
		return nil, err
	}
	b := &Book{db: d}
	b.restore(all, time.Now())
	return b, nil
}

// restore takes buckets that another process left. Between the two only the wall clock is common, and it may have been
// set: nothing comes back later than it could have if it had been used this moment.
func (b *Book) restore(all []*bucket, now time.Time) {
	t := b.steady(now)
	for _, x := range all {
		x.at = min(x.at, t)
		x.closed = min(x.closed, t+x.bound(25*time.Hour))
		switch x.refill {
		case llm.Rolling:
			for i := range x.uses {
				x.uses[i].Back = min(x.uses[i].Back, x.back(t))
			}
		case llm.Window:
			if x.reset != 0 {
				x.reset = min(x.reset, t+x.bound(25*time.Hour))
			}
		case llm.PacificDay:
			if x.reset > t {
				x.reset = min(x.reset, llm.NextPacificDay(time.Unix(0, t)).UnixNano()+int64(afterMidnight))
			}
		}
		b.add(x)
	}
}

// Run writes what changes, about once a second and at the end, until ctx ends. A disk that refuses is asked again.
func (b *Book) Run(ctx context.Context) error {
	if b.db == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.flush(ctx) //nolint:errcheck // what could not be written is written a second later
		case <-ctx.Done():
			return b.flush(context.WithoutCancel(ctx))
		}
	}
}

func (b *Book) flush(ctx context.Context) error {
	b.mu.Lock()
	var copies []bucket
	var from []*bucket
	for _, all := range b.accounts {
		for _, x := range all {
			if x.dirty {
				x.dirty = false
				c := *x
				c.uses = slices.Clone(x.uses)
				copies, from = append(copies, c), append(from, x)
			}
		}
	}
	b.mu.Unlock()
	if len(copies) == 0 {
		return nil
	}
	err := save(ctx, b.db, copies)
	if err != nil {
		b.mu.Lock()
		for _, x := range from {
			x.dirty = true
		}
		b.mu.Unlock()
	}
	return err
}
