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
	// expected says that Run will look for completions by itself before long.
	expected bool
	broken   error // why the last commit failed; nil when it did not
}

type entry struct {
	attempt *Attempt
	end     *End // nil: the row's beginning
	cost    llm.Count
	done    chan struct{} // closed once the beginning is on disk
}

// maxBacklog bounds what is kept in memory while the disk refuses (full, read-only): beyond it the oldest rows are lost.
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
	if e.done != nil || !l.expected {
		l.expected = l.expected || e.end != nil
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// Completions wait for company, for lazy at most or until there are maxLate of them: nobody waits for them, and a
// transaction of its own for each would cost as much as all else that the ledger does. Beginnings never wait.
const (
	lazy    = 100 * time.Millisecond
	maxLate = 256

	settleEvery = time.Minute
)

// Run writes rows until ctx ends, then writes what is left and returns.
func (l *Ledger) Run(ctx context.Context) error {
	w := &writer{db: l.db}
	defer w.close()
	var backlog, late []entry
	due := time.NewTimer(lazy)
	defer due.Stop()
	var settled time.Time
	for {
		all, stopping := false, false
		select {
		case <-l.wake:
		case <-due.C:
			all = true
		case <-ctx.Done():
			all, stopping = true, true
		}
		begun, ended := l.take(all, stopping)
		if len(late) == 0 && len(ended) > 0 {
			due.Reset(lazy)
		}
		late = append(late, ended...)
		batch := append(backlog, begun...)
		if all || len(late) >= maxLate || len(backlog) > 0 { // in order: the end of a row comes behind its beginning
			batch, late = append(batch, late...), late[:0]
		}
		backlog = l.write(w, batch)
		if all && time.Since(settled) > settleEvery && len(backlog) == 0 {
			settled = time.Now()
			settle(context.WithoutCancel(ctx), l.db) //nolint:errcheck // it only spares the next start some looking
		}
		for _, e := range begun {
			close(e.done)
		}
		if stopping {
			return nil
		}
	}
}

// take empties the queue, into beginnings and completions. all says that the completions are written now.
func (l *Ledger) take(all, last bool) (begun, ended []entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = l.stopped || last
	l.expected = l.expected && !all
	for _, e := range l.queue {
		if e.end == nil {
			begun = append(begun, e)
		} else {
			ended = append(ended, e)
		}
	}
	clear(l.queue) // what it points to is not kept alive
	l.queue = l.queue[:0]
	return begun, ended
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
