// Package usage keeps the books: one ledger row per attempt to have a provider answer, written before the first byte
// goes out and completed when the attempt has ended.
package usage

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// An Outcome says how an attempt ended.
type Outcome string

const (
	Unfinished  Outcome = "open"        // still under way
	OK          Outcome = "ok"          // the whole answer came
	Failed      Outcome = "error"       // the provider refused or broke off
	Busy        Outcome = "busy"        // nobody started: quota or overload
	Cancelled   Outcome = "cancelled"   // the caller went away or pressed stop
	Interrupted Outcome = "interrupted" // this process died meanwhile
)

// A Start is what is known of an attempt before it is made.
type Start struct {
	At       time.Time
	Purpose  string // chat, api, ask, embed, ...
	Asked    string // the model name that was asked for
	Rule     string // the rule of the routing decision
	Provider string
	Model    string // the model asked of the provider
}

// An End is what is known of an attempt after it.
type End struct {
	Outcome   Outcome
	Err       error
	Usage     llm.Usage
	FirstByte time.Duration // since Start.At; 0: nothing came
	Total     time.Duration
}

// An Attempt is an open row of the ledger.
type Attempt struct {
	Start
	id     int64
	ledger *Ledger
	ended  atomic.Bool
}

// ID is the row's primary key.
func (a *Attempt) ID() int64 { return a.id }

// Close completes the row. Only the first call counts; it does not wait for the disk.
func (a *Attempt) Close(e End) {
	if a.ended.Swap(true) {
		return
	}
	cost := a.ledger.prices.Cost(a.Provider, a.Model, e.Usage)
	a.ledger.books.add(a.Start, e, cost)
	a.ledger.post(entry{attempt: a, end: &e, cost: cost})
}

// A Ledger writes attempts with one writer that commits whatever has gathered while it was busy (group commit).
type Ledger struct {
	db     *db.DB
	prices Prices
	books  books
	nextID atomic.Int64

	mu      sync.Mutex
	queue   []entry
	wake    chan struct{} // capacity 1
	stopped bool
	broken  error // why the last commit failed; nil when it did not
}

type entry struct {
	attempt *Attempt
	end     *End // nil: the row's beginning
	cost    llm.Count
	done    chan struct{} // closed once the beginning is on disk
}

// maxBacklog bounds what is kept in memory while the disk refuses (full, read-only): later rows are lost, and counted.
const maxBacklog = 20_000

// Open returns the ledger in d and closes the rows that a dead process left open. Rows are written while Run runs.
func Open(ctx context.Context, d *db.DB, prices Prices) (*Ledger, error) {
	l := &Ledger{db: d, prices: prices, wake: make(chan struct{}, 1)}
	next, err := recoverRows(ctx, d)
	if err != nil {
		return nil, err
	}
	l.nextID.Store(next)
	if err := l.books.load(ctx, d, time.Now()); err != nil {
		return nil, err
	}
	return l, nil
}

// Begin writes the row of an attempt and returns once it is on disk. While the disk refuses, it returns at once and the
// row waits in memory: answering goes on, and Broken says why the books do not.
func (l *Ledger) Begin(ctx context.Context, s Start) (*Attempt, error) {
	if s.At.IsZero() {
		s.At = time.Now()
	}
	a := &Attempt{Start: s, id: l.nextID.Add(1), ledger: l}
	done := make(chan struct{})
	if !l.post(entry{attempt: a, done: done}) {
		return nil, errors.New("ledger is closed")
	}
	select {
	case <-done:
		return a, nil
	case <-ctx.Done():
		a.Close(End{Outcome: Cancelled, Err: ctx.Err()})
		return nil, ctx.Err()
	}
}

// Broken returns why rows cannot be written at present, or nil.
func (l *Ledger) Broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

func (l *Ledger) post(e entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.queue = append(l.queue, e)
	if e.done != nil || len(l.queue) == 1 {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// lazy is how long the completion of a row may wait for company. Beginnings never wait.
const lazy = 100 * time.Millisecond

// Run writes rows until ctx ends, then writes what is left and returns.
func (l *Ledger) Run(ctx context.Context) error {
	w := &writer{db: l.db}
	defer w.close()
	var backlog []entry
	for {
		stopping := false
		select {
		case <-l.wake:
		case <-ctx.Done():
			stopping = true
		}
		batch, urgent := l.take(stopping)
		if !urgent && !stopping {
			pause(ctx, l.wake, lazy)
			more, _ := l.take(false)
			batch = append(batch, more...)
		}
		backlog = l.write(w, append(backlog, batch...))
		for _, e := range batch {
			if e.done != nil {
				close(e.done)
			}
		}
		if stopping {
			return nil
		}
	}
}

// pause waits until wake is signalled, d has passed or ctx ends.
func pause(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	case <-ctx.Done():
	}
}

func (l *Ledger) take(last bool) (batch []entry, urgent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch, l.queue = l.queue, nil
	l.stopped = l.stopped || last
	for _, e := range batch {
		if e.done != nil {
			return batch, true
		}
	}
	return batch, false
}

// write commits the batch and returns what must be tried again.
func (l *Ledger) write(w *writer, batch []entry) []entry {
	if len(batch) == 0 {
		return nil
	}
	err := w.commit(batch)
	l.mu.Lock()
	l.broken = err
	l.mu.Unlock()
	if err == nil {
		return nil
	}
	return batch[max(0, len(batch)-maxBacklog):]
}
