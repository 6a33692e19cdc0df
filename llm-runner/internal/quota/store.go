package quota

import (
	"context"
	"slices"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// saveEvery is how often what was counted is written. What a process counted after that and before it was killed is in the
// ledger (see Recount); a limit that nobody knew is written at once.
const saveEvery = 250 * time.Millisecond

// Open returns the Book that is kept in d. What was counted before is still counted: used room comes back while nothing
// runs, too. Changes are written while Run runs; in a shared database at once, and Run keeps up with those of others.
func Open(ctx context.Context, d *db.DB) (*Book, error) {
	if d.Shared() {
		b := &Book{db: d, common: &common{db: d}}
		d.Hear(topic, b.hear)
		all, err := loadShared(ctx, d.Read(), "", d.Worker(), time.Now().UnixNano()-underWay)
		b.take(all, b.time(time.Now()))
		return b, err
	}
	all, err := load(ctx, d)
	if err != nil {
		return nil, err
	}
	b := &Book{db: d, urgent: make(chan struct{}, 1)}
	b.restore(all, time.Now())
	return b, nil
}

// A Use is a request that was sent.
type Use struct {
	Provider, Model string
	At              time.Time
	Input, Output   llm.Count // tokens
}

// Recount counts requests that a process sent and may not have lived to write down. Those that it had written already are
// known by their time. In a shared database nothing is lost, and nothing is done.
func (b *Book) Recount(sent []Use, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.common != nil {
		return
	}
	t := b.steady(now)
	for _, u := range sent {
		at := u.At.UnixNano()
		l := b.lane(u.Provider, u.Model)
		for _, x := range l.buckets {
			// What was sent in the millisecond of the last writing may stand there already: better twice than not at all.
			if x.written == 0 || at < x.written/1e6*1e6 {
				continue
			}
			all, _ := x.of(1, u.Input.Or(0), u.Output.Or(int64(l.output)))
			x.refresh(t)
			x.take(t, max(all, 0))
		}
	}
	b.hasten() // should this process be killed soon too, the next one begins here
}

// restore takes buckets that another process left. Between the two only the wall clock is common, and it may have been
// set: nothing comes back later than it could have if it had been used this moment.
func (b *Book) restore(all []*bucket, now time.Time) {
	t := b.steady(now)
	for _, x := range all {
		x.written = x.at
		x.at, x.seen = min(x.at, t), 0
		x.closed = min(x.closed, t+x.bound(25*time.Hour))
		switch x.refill {
		case llm.Rolling:
			for i := range x.uses {
				x.uses[i].Back = min(x.uses[i].Back, x.back(t))
			}
			if x.reset > 0 {
				x.reset = min(x.reset, t+x.per)
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
			if b.common != nil {
				b.refresh(ctx)
				continue
			}
			b.flush(ctx) //nolint:errcheck // what could not be written is written a second later
		case <-b.urgent:
			b.flush(ctx) //nolint:errcheck // what could not be written is written a second later
		case <-ctx.Done():
			if b.common != nil {
				return b.forget(context.WithoutCancel(ctx), b.db.Worker()) // its places it gives back as its requests end
			}
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
