package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The processes that share a database count up, each in a row of its own. Who sees a count stand still for deadAfter takes
// over that process's work, so a dead one's jobs go on within fifteen seconds; no clocks are compared. Each start is a new
// process with a new name: no two can ever take each other's work for their own.
const (
	beatEvery = 2 * time.Second
	deadAfter = 10 * time.Second

	sweepEvery = 15 * time.Second
)

// errLost is why the tasks of a process end that the others took for dead: they have been adopted.
var errLost = errors.New("the database did not hear from this process, and another one took over its work")

// An Heir takes over what a process left in the tables of one package. It may be called again for the same process.
type Heir func(ctx context.Context, worker string) error

// workers is the part of this process among those that share a database.
type workers struct {
	handle    *sql.DB
	pool      *pgxpool.Pool
	id, place string
	heirs     []Heir
	log       *slog.Logger
	adopt     func(ctx context.Context, id string) error
	sweep     time.Duration // sweepEvery, but for tests
	patience  time.Duration // deadAfter, but for tests
	cancel    context.CancelFunc
	done      sync.WaitGroup
	stopped   sync.Once

	beating sync.Mutex // held while a beat is written

	mu      sync.Mutex
	last    time.Time // of the last beat that was written
	first   bool      // no other process that lives has a name before ours, as last seen
	tasks   map[int]context.CancelCauseFunc
	ids     map[string]int // how often each task of ours runs here
	entered int
}

// OpenShared opens the engine of one of several processes on a PostgreSQL database. id is its name, which no other process has
// or had; place is its data directory's, which no other process works in. Close closes handle and pool.
func OpenShared(ctx context.Context, handle *sql.DB, pool *pgxpool.Pool, id, place string, c Config) (*Engine, error) {
	if c.Poll == 0 {
		c.Poll = pollShared
	}
	var g *gate
	if c.Tell != nil && c.Hear != nil {
		g = newGate(c.Poll)
		gated, err := g.pool(ctx, pool)
		if err != nil {
			handle.Close()
			return nil, fmt.Errorf("open durable engine: %w", err)
		}
		pool = gated
	}
	e, err := prepare(ctx, c, dbos.Config{SystemDBPool: pool, ExecutorID: id})
	if err == nil {
		err = register(ctx, handle, id, place)
	}
	if err != nil {
		handle.Close()
		pool.Close()
		return nil, err
	}
	e.gate = g
	e.workers = &workers{handle: handle, pool: pool, id: id, place: place, log: e.config.Log, last: time.Now(),
		sweep: sweepEvery, patience: deadAfter, tasks: map[int]context.CancelCauseFunc{}, ids: map[string]int{}, cancel: func() {}}
	e.workers.adopt = e.adopt
	e.clock.share(handle)
	return e, nil
}

// First says that this process is the one of those that share the database that speaks for all, where they cannot talk to each other
// because the database is away: its name was before those of all others when they were seen last. One that is alone always is.
func (e *Engine) First() bool {
	if e.workers == nil {
		return true
	}
	e.workers.mu.Lock()
	defer e.workers.mu.Unlock()
	return e.workers.first
}

// Inherits has f called for each process that died. Call it before Launch.
func (e *Engine) Inherits(f Heir) {
	if e.workers != nil {
		e.workers.heirs = append(e.workers.heirs, f)
	}
}

// adopt takes over what a dead process left.
func (e *Engine) adopt(ctx context.Context, id string) error {
	for _, heir := range e.workers.heirs {
		if err := heir(ctx, id); err != nil {
			return err
		}
	}
	left, err := dbos.ListWorkflows(e.ctx, dbos.WithFilterExecutorIDs(id), dbos.WithFilterStatus(dbos.WorkflowStatusPending),
		dbos.WithFilterLoadInput(false), dbos.WithFilterLoadOutput(false))
	if err != nil {
		return fmt.Errorf("list tasks: %w", err)
	}
	if err := e.resume(left); err != nil {
		return err
	}
	e.config.Log.Info("took over the work of another process", "worker", id, "tasks", len(left))
	return nil
}

// resume has tasks called again, each by a process that has what it needs.
func (e *Engine) resume(left []dbos.WorkflowStatus) error {
	byQueue := map[string][]string{}
	for _, w := range left {
		queue := w.QueueName
		if !strings.HasPrefix(queue, queueName) { // an earlier life was taken over by name only
			queue = queueName
		}
		byQueue[queue] = append(byQueue[queue], w.ID)
	}
	for queue, ids := range byQueue {
		if _, err := dbos.ResumeWorkflows[string](e.ctx, ids, dbos.WithResumeQueue(queue)); err != nil {
			return fmt.Errorf("resume tasks: %w", err)
		}
	}
	return nil
}

func (w *workers) start(e *Engine) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(e.ctx))
	w.cancel = cancel
	w.done.Go(func() { w.run(ctx) })
	w.done.Go(func() { e.sweep(ctx) })
}

// sweep calls tasks again that count as ours and that nobody runs: the database gave us one while the connection broke. It
// looks for those that are so for as long as between two looks at least.
func (e *Engine) sweep(ctx context.Context) {
	tick := time.NewTicker(e.workers.sweep)
	defer tick.Stop()
	idle := map[string]bool{}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		ours, err := dbos.ListWorkflows(e.ctx, dbos.WithFilterExecutorIDs(e.workers.id), dbos.WithFilterStatus(dbos.WorkflowStatusPending),
			dbos.WithFilterLoadInput(false), dbos.WithFilterLoadOutput(false))
		if err != nil {
			continue // a look later again
		}
		next, lost := map[string]bool{}, []dbos.WorkflowStatus(nil)
		for _, w := range ours {
			switch {
			case e.workers.runs(w.ID):
			case idle[w.ID]:
				lost = append(lost, w)
			default:
				next[w.ID] = true
			}
		}
		if idle = next; len(lost) > 0 {
			if err := e.resume(lost); err != nil {
				e.config.Log.Warn("resume tasks", "error", err)
			}
		}
	}
}

func (w *workers) runs(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ids[id] > 0
}

// stop tells the others that this process has ended.
func (w *workers) stop() { w.stopped.Do(w.leave) }

func (w *workers) leave() {
	w.cancel()
	w.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), beatEvery)
	defer cancel()
	if err := retire(ctx, w.handle, w.id); err != nil {
		w.log.Warn("stop worker", "error", err) // the others find out by themselves
	}
	w.handle.Close()
	w.pool.Close()
}

// run beats and looks after the others until ctx ends.
func (w *workers) run(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	seen := watch{}
	for {
		if err := w.round(ctx, &seen); err != nil && ctx.Err() == nil {
			w.log.Warn("look after other processes", "error", err)
			seen = watch{} // who stood still while nobody could look is not dead for that
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *workers) round(ctx context.Context, seen *watch) error {
	bounded, cancel := context.WithTimeout(ctx, deadAfter/2)
	defer cancel()
	if err := w.beat(bounded); err != nil {
		return err
	}
	all, err := beats(bounded, w.handle, w.id)
	if err != nil {
		return err
	}
	first := !slices.ContainsFunc(all, func(b beat) bool { return b.n != stopped && b.id < w.id })
	w.mu.Lock()
	w.first = first
	w.mu.Unlock()
	for _, dead := range seen.look(all, w.place, w.patience, time.Now()) {
		if err := inherit(ctx, w.handle, dead, func() error { return w.adopt(ctx, dead.id) }); err != nil {
			return err
		}
	}
	return nil
}

// beat counts up. Where the row is gone, the others took this process for dead: its tasks end, and it begins anew.
func (w *workers) beat(ctx context.Context) error {
	w.beating.Lock()
	defer w.beating.Unlock()
	missed, err := live(ctx, w.handle, w.id)
	if err != nil {
		return err
	}
	if missed {
		w.mu.Lock()
		for _, end := range w.tasks {
			end(errLost)
		}
		w.mu.Unlock()
		w.log.Warn("this process was silent for so long that another one took over its work", "worker", w.id)
		if err := register(ctx, w.handle, w.id, w.place); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.last = time.Now()
	w.mu.Unlock()
	return nil
}

// enter returns the context of a task, which also ends when the task is lost to another process. A process that has been
// asleep makes sure first that it counts among the living; nil when ctx ends before.
func (w *workers) enter(ctx context.Context, id string) (context.Context, func()) {
	for w.silent(time.Now()) > deadAfter/2 {
		bounded, cancel := context.WithTimeout(ctx, deadAfter/2)
		err := w.beat(bounded)
		cancel()
		if err == nil {
			break
		}
		again := time.NewTimer(time.Second)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, nil
		}
	}
	working, cancel := context.WithCancelCause(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entered++
	n := w.entered
	w.tasks[n] = cancel
	w.ids[id]++
	return working, func() {
		cancel(nil)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.tasks, n)
		if w.ids[id]--; w.ids[id] == 0 {
			delete(w.ids, id)
		}
	}
}

// silent is how long ago the last beat was written. While a machine sleeps only its wall clock goes on.
func (w *workers) silent(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(now.Sub(w.last), now.Round(0).Sub(w.last.Round(0)))
}

// watch is what was seen of other processes: since when each count stands as it does.
type watch map[string]sight

type sight struct {
	n     int64
	since time.Time
}

// look returns those that are dead: they said so, they worked where this process works, or they stood still for patience.
func (w *watch) look(all []beat, place string, patience time.Duration, now time.Time) (dead []beat) {
	next := watch{}
	for _, b := range all {
		s, known := (*w)[b.id]
		if !known || s.n != b.n {
			s = sight{b.n, now}
		}
		next[b.id] = s
		if b.n == stopped || b.place == place || now.Sub(s.since) >= patience {
			dead = append(dead, b)
		}
	}
	*w = next
	return dead
}
