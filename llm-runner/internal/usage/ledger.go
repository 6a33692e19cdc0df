// Package usage keeps the books: one ledger row per attempt to have a provider answer, written before the first byte
// goes out and completed when the attempt has ended.
package usage

import (
	"context"
	"errors"
	"fmt"
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
	Work     string // what it is made for; "" what For says of the context
}

type workKey struct{}

// For returns a context in which attempts are made for some work, such as job-7: Made finds them by it.
func For(ctx context.Context, work string) context.Context {
	return context.WithValue(ctx, workKey{}, work)
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

// Cost is what the attempt costs if it has used u, in micro-USD.
func (a *Attempt) Cost(u llm.Usage) llm.Count { return a.ledger.prices.Cost(a.Provider, a.Model, u) }

// Close completes the row. Only the first call counts; it does not wait for the disk.
func (a *Attempt) Close(e End) {
	if a.ended.Swap(true) {
		return
	}
	cost := a.ledger.prices.Cost(a.Provider, a.Model, e.Usage)
	a.ledger.books.add(a.Start, e, cost)
	a.ledger.post(entry{attempt: a, end: &e, cost: cost})
}

// A Ledger writes attempts, and commits whatever has gathered in one transaction (group commit). Whoever begins an attempt
// while nobody writes does the writing; the others find their rows written for them.
type Ledger struct {
	db     *db.DB
	prices Prices
	books  books
	ids    ids

	mu      sync.Mutex
	queue   []entry // in the order in which they came
	begun   int     // beginnings in the queue
	timed   bool    // completions will be asked for before long
	stopped bool
	broken  error         // why the last commit failed; nil when it did not
	wake    chan struct{} // capacity 1: a beginning waits
	due     chan struct{} // capacity 1: completions have waited long enough

	slow    atomic.Bool // the last commit was sluggish: Run makes the next one
	writing sync.Mutex  // held by the one who writes
	writer  writer
	backlog []entry // refused by the disk so far
	late    []entry // completions that wait for company
}

type entry struct {
	attempt *Attempt
	end     *End // nil: the row's beginning
	cost    llm.Count
	done    chan struct{} // closed once the beginning is on disk
}

// maxBacklog bounds what is kept in memory while the disk refuses (full, read-only): beyond it the oldest rows are lost.
const maxBacklog = 20_000

// Open returns the ledger in d and closes the rows that a dead process left open (in a shared database Adopt does). Rows are
// written while Run runs.
func Open(ctx context.Context, d *db.DB, prices Prices) (*Ledger, error) {
	l := &Ledger{db: d, prices: prices, wake: make(chan struct{}, 1), due: make(chan struct{}, 1), writer: writer{db: d}}
	next, err := recoverRows(ctx, d)
	if err != nil {
		return nil, err
	}
	if l.ids.last.Store(next); d.Shared() {
		process, err := number(ctx, d)
		if err != nil {
			return nil, err
		}
		l.ids.share(process)
	}
	if err := l.books.load(ctx, d, time.Now()); err != nil {
		return nil, err
	}
	return l, nil
}

// Begin writes the row of an attempt and returns once it is on disk. While the disk refuses, it returns at once, and when
// it hangs, after patience; the row waits in memory: answering goes on, and Broken says why the books do not.
func (l *Ledger) Begin(ctx context.Context, s Start) (*Attempt, error) {
	if s.At.IsZero() {
		s.At = time.Now()
	}
	if s.Work == "" {
		s.Work, _ = ctx.Value(workKey{}).(string)
	}
	a := &Attempt{Start: s, id: l.ids.next(time.Now()), ledger: l}
	done := make(chan struct{})
	if !l.post(entry{attempt: a, done: done}) {
		return nil, errors.New("ledger is closed")
	}
	if !l.slow.Load() && l.writing.TryLock() {
		l.write(false)
		l.writing.Unlock()
	}
	l.rouse() // for what came while the lock was held, by us or by another
	select {
	case <-done:
		return a, nil
	default:
	}
	hangs := time.NewTimer(patience)
	defer hangs.Stop()
	select {
	case <-done:
		return a, nil
	case <-hangs.C:
		l.mu.Lock()
		l.broken = errHangs
		l.mu.Unlock()
		return a, nil
	case <-ctx.Done():
		a.Close(End{Outcome: Cancelled, Err: ctx.Err()})
		return nil, ctx.Err()
	}
}

// patience is how long an attempt waits for a disk that hangs, and sluggish how long a commit may take until nobody who wants
// to begin makes one himself: a checkpoint on a disk whose syncs take a second takes some of them.
const (
	patience = 2 * time.Second
	sluggish = 250 * time.Millisecond
)

var errHangs = fmt.Errorf("write ledger: the disk has not answered for %s", patience)

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
	if e.end == nil {
		l.begun++
	} else if !l.timed {
		l.timed = true
		time.AfterFunc(lazy, func() { signal(l.due) })
	}
	return true
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// rouse has Run write if a beginning waits that nobody is going to write.
func (l *Ledger) rouse() {
	l.mu.Lock()
	waits := l.begun > 0
	l.mu.Unlock()
	if waits {
		signal(l.wake)
	}
}

// Completions wait for company, for lazy at most or until there are maxLate of them: nobody waits for them, and a
// transaction of its own for each would cost as much as all else that the ledger does. Beginnings never wait.
const (
	lazy    = 100 * time.Millisecond
	maxLate = 256

	settleEvery = time.Minute
	again       = time.Second // until a disk that refused is asked once more, where nobody else writes before
)

// Run writes what Begin leaves over until ctx ends, then writes what is left and returns.
func (l *Ledger) Run(ctx context.Context) error {
	var settled time.Time
	if l.db.Shared() {
		var others sync.WaitGroup
		others.Go(func() { l.refresh(ctx) })
		defer others.Wait()
	}
	for {
		all := false
		select {
		case <-l.wake:
		case <-l.due:
			all = true
		case <-ctx.Done():
			l.mu.Lock()
			l.stopped = true
			l.mu.Unlock()
			l.writing.Lock()
			defer l.writing.Unlock()
			l.write(true)
			l.writer.close()
			return nil
		}
		l.writing.Lock()
		wrote := l.write(all)
		if wrote && all && time.Since(settled) > settleEvery {
			settled = time.Now()
			settle(context.WithoutCancel(ctx), l.db) //nolint:errcheck // it only spares the next start some looking
		}
		l.writing.Unlock()
	}
}

// write commits the beginnings that wait, and the completions too when all is set, when there are many, or when the disk
// refused before. It says whether anything was written. The caller holds writing.
func (l *Ledger) write(all bool) bool {
	l.mu.Lock()
	queue := l.queue
	l.queue, l.begun, l.timed = nil, 0, l.timed && !all
	l.mu.Unlock()
	batch := l.backlog
	first := len(batch)
	for _, e := range queue {
		if e.end == nil {
			batch = append(batch, e)
		} else {
			l.late = append(l.late, e)
		}
	}
	begun := batch[first:]
	if all || len(l.late) >= maxLate || first > 0 { // in order: the end of a row comes behind its beginning
		batch, l.late = append(batch, l.late...), nil
	}
	if len(batch) == 0 {
		return false
	}
	began := time.Now()
	err := l.writer.commit(batch)
	l.slow.Store(time.Since(began) > sluggish)
	l.mu.Lock()
	l.broken = err
	l.mu.Unlock()
	l.backlog = nil
	if err != nil {
		l.backlog = batch[max(0, len(batch)-maxBacklog):]
		time.AfterFunc(again, func() { signal(l.due) })
	}
	for _, e := range begun {
		close(e.done)
	}
	return err == nil
}
