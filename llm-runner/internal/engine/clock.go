package engine

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"
)

// What waits for a time is written down by a clock that may be set. The engine holds that clock (the machine's; where processes share a
// database, the database's, by which delayed tasks are called) against one that nobody sets, and tells the owners of what waits by how much it
// was moved: a wait of ten minutes stays one of ten minutes. Before each call it looks first, so that an hour forward calls nobody early.

const (
	lookEvery = 5 * time.Second
	leastMove = 2 * time.Second        // below it, a clock that is kept in step by the network, and a slow answer of the database, look alike
	slowLook  = 500 * time.Millisecond // an answer that took longer tells nothing
	// mostForward is how far a clock may be set forward: further, and the machine has been paused in a way that no clock of its own shows, or
	// has begun without the time. Then what waits has waited.
	mostForward = 2 * time.Hour
	// settling is how long after the start a clock that goes forward is one that is set for the first time: what waits since before the
	// start was written by the right one.
	settling = 10 * time.Minute
	// mostMoving bounds how long the owners may take to move what waits.
	mostMoving = time.Minute
)

// A Mover moves the times of what waits in the tables of one package: the clock was set forward, or (negative) back.
type Mover func(ctx context.Context, by time.Duration) error

// clock is what was seen of the time.
type clock struct {
	steady func() time.Duration // since whenever, by a clock that nobody sets and that goes on while the machine sleeps
	read   func(ctx context.Context) (now time.Time, moved time.Duration, err error)
	// claim calls f, once among all processes, for a move of the clock that was at moved; false: another one has.
	claim func(ctx context.Context, moved, by time.Duration, f func()) (mine bool, err error)

	mu     sync.Mutex
	begun  time.Duration
	known  bool
	off    time.Duration // the time less the steady one, at the last look
	moved  time.Duration // by how much it had been moved in all, as all processes know
	movers []Mover
	owed   []time.Duration // by mover: what it has yet to be told
}

func newClock(c Config) *clock {
	k := &clock{steady: c.Steady}
	if k.steady == nil {
		k.steady = steady
	}
	total := time.Duration(0)
	k.read = func(context.Context) (time.Time, time.Duration, error) { return time.Now(), total, nil }
	k.claim = func(_ context.Context, moved, by time.Duration, f func()) (bool, error) {
		f()
		total = moved + by
		return true, nil
	}
	k.begun = k.steady()
	return k
}

// share has the clock be the database's, and what it was moved by known to all processes.
func (c *clock) share(handle *sql.DB) {
	c.read = func(ctx context.Context) (time.Time, time.Duration, error) { return databaseClock(ctx, handle) }
	c.claim = func(ctx context.Context, moved, by time.Duration, f func()) (bool, error) {
		return claimMove(ctx, handle, moved, by, f)
	}
}

// Moves has f called when the clock was set. Call it before Launch.
func (e *Engine) Moves(f Mover) {
	e.clock.movers, e.clock.owed = append(e.clock.movers, f), append(e.clock.owed, 0)
}

// Look sees whether the clock was set, and returns once what waits has been moved with it. Whoever acts on a time that was written
// down earlier calls it first.
func (e *Engine) Look(ctx context.Context) error {
	by, err := e.clock.look(ctx)
	if by != 0 {
		e.config.Log.Info("the clock was set: what waits is moved with it", "by", by.Round(time.Millisecond).String())
	}
	return err
}

func (c *clock) look(ctx context.Context) (by time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		before := c.steady()
		now, moved, err := c.read(ctx)
		after := c.steady()
		if err != nil {
			return 0, err
		}
		if after-before > slowLook {
			return 0, c.pay(ctx)
		}
		off := time.Duration(now.UnixNano()) - before - (after-before)/2
		seen := off - c.off
		by = seen - (moved - c.moved)
		switch {
		// Of a move that others made and that is not seen here there is nothing to undo: it was taken for something else here, or came before.
		case !c.known, seen.Abs() < leastMove, by.Abs() < leastMove, by > mostForward, by > 0 && after-c.begun < settling:
			c.known, c.off, c.moved = true, off, moved
			return 0, c.pay(ctx)
		}
		// A task that is cancelled meanwhile leaves nothing half done: what its claim has told the owners, the next one would tell them again.
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), mostMoving)
		var told error
		mine, err := c.claim(whole, moved, by, func() {
			for i := range c.owed {
				c.owed[i] += by
			}
			c.off, c.moved = off, moved+by
			told = c.pay(whole)
		})
		cancel()
		if mine || err != nil {
			return by, errors.Join(err, told)
		}
		// Another process was faster: what is left to be done is seen by looking again.
	}
}

// pay tells each mover what it has yet to be told.
func (c *clock) pay(ctx context.Context) error {
	var wrong []error
	for i, f := range c.movers {
		if c.owed[i] == 0 {
			continue
		}
		if err := f(ctx, c.owed[i]); err != nil {
			wrong = append(wrong, err) // the next look tells it again
			continue
		}
		c.owed[i] = 0
	}
	return errors.Join(wrong...)
}
