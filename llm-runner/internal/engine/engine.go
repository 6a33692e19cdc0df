// Package engine runs work that must survive this process: a task that was started in a transaction is called until it
// returns, also by the next process after this one was killed. It is DBOS Transact on our own database; nothing else in this
// program sees DBOS. Where several processes share a PostgreSQL database, a living one takes over what a dead one left.
package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	_ "github.com/dbos-inc/dbos-transact-golang/dbos/driver/sqlite" // DBOS on the driver that db uses
)

const (
	// appVersion is a constant: DBOS calls unfinished work of its own version only, so the default, the binary's hash,
	// would strand whatever waits across an upgrade. Tasks stay compatible by keeping their state in our tables.
	appVersion = "1"
	appName    = "llm-runner"
	queueName  = "lanes"
	workflow   = "task"

	// recoveries bounds how often an interrupted task is called again; DBOS gives up after 100 by default, we do not.
	recoveries = 1 << 30
)

// Config is what an Engine may be told. The zero value works.
type Config struct {
	Workers int           // tasks that run at once in each lane; 0 means 8
	Poll    time.Duration // how often the queue is looked at; 0 means pollAlone, or pollShared where others look too
	Grace   time.Duration // how long running tasks may go on once Close is called; 0 means they end at once
	Log     *slog.Logger  // nil: slog.Default()

	// Tell and Hear are how processes that share a database hear of each other, see db.DB: with them, a task that starts wakes
	// all, and Poll is for what nobody told. Alone they are not used.
	Tell func(ctx context.Context, tx *sql.Tx, topic, text string) error
	Hear func(topic string, f func(text string))
	// Steady is a clock that nobody sets; nil: the machine's own.
	Steady func() time.Duration
}

const (
	pollAlone  = 40 * time.Millisecond
	pollShared = 100 * time.Millisecond // each look is a query on the server, for each process
)

// A Task does the work called key. It may be called again after the process died in it, so it looks first at what is done
// already. Whoever needs the outcome has the task write it down: an error only says that it could not, and has it called
// again, after one second, two, and so on up to a minute; one that is Final ends it. ctx ends when the engine closes, or
// Config.Grace later; a task that returns ctx's error then is called again by the next process.
type Task func(ctx context.Context, key string) error

const firstPause, mostPause = time.Second, time.Minute

type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// Final marks the error of a task that no further call can mend, such as a key that nobody can read.
func Final(err error) error { return finalError{err} }

// An Engine owns the unfinished work of one data directory, or shares that of one PostgreSQL database.
type Engine struct {
	ctx     dbos.Context
	tasks   map[string]Task
	config  Config
	workers *workers // nil: no others
	gate    *gate    // nil: queues are looked at every Poll
	clock   *clock
	has     []string // what tasks may need that this process has; see Options
}

// call is what DBOS keeps of a started task.
type call struct {
	Task string
	Key  string
}

// Open opens the engine on a writing handle of the database, which Close closes. Nothing runs until Launch.
func Open(ctx context.Context, handle *sql.DB, c Config) (*Engine, error) {
	executor, err := Identity(ctx, handle)
	if err != nil {
		handle.Close()
		return nil, err
	}
	e, err := prepare(ctx, c, dbos.Config{SQLiteSystemDB: handle, ExecutorID: executor})
	if err != nil {
		handle.Close()
	}
	return e, err
}

func prepare(ctx context.Context, c Config, d dbos.Config) (_ *Engine, err error) {
	if c.Workers == 0 {
		c.Workers = 8
	}
	if c.Poll == 0 {
		c.Poll = pollAlone
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	e := &Engine{tasks: map[string]Task{}, config: c, clock: newClock(c)}
	d.AppName, d.ApplicationVersion, d.Logger = appName, appVersion, slog.New(quieter{c.Log.Handler()})
	if e.ctx, err = dbos.NewContext(context.WithoutCancel(ctx), d); err != nil {
		return nil, fmt.Errorf("open durable engine: %w", err)
	}
	dbos.RegisterWorkflow(e.ctx, e.run, dbos.WithWorkflowName(workflow), dbos.WithMaxRecoveryAttempts(recoveries))
	return e, nil
}

// Register names a task. Call it before Launch.
func (e *Engine) Register(name string, t Task) { e.tasks[name] = t }

// Has says that this process has what some tasks need. Call it before Launch. A process that is the only one is called for all.
func (e *Engine) Has(what string) { e.has = append(e.has, what) }

// queueOf is the queue of the tasks that need something; "" those that need nothing. A process that is alone has one queue: each is looked at
// all the time.
func (e *Engine) queueOf(needs string) string {
	if needs == "" || e.workers == nil {
		return queueName
	}
	return queueName + " " + needs
}

// Launch takes up what an earlier process left unfinished and begins to run tasks.
func (e *Engine) Launch() error {
	poll := e.config.Poll
	if e.gate != nil {
		poll = min(poll, pollAlone)
		e.config.Hear(topic, e.gate.wake)
	}
	queues := []string{queueName}
	for _, what := range e.has {
		if name := e.queueOf(what); !slices.Contains(queues, name) {
			queues = append(queues, name)
		}
	}
	for _, name := range queues {
		if _, err := dbos.RegisterQueue(e.ctx, name, dbos.WithPartitionWorkerConcurrency(e.config.Workers),
			dbos.WithQueueBasePollingInterval(poll), dbos.WithQueueOnConflict(dbos.QueueConflictAlwaysUpdate)); err != nil {
			return fmt.Errorf("open queue: %w", err)
		}
	}
	dbos.ListenQueues(e.ctx, queues...)
	if err := e.Look(e.ctx); err != nil {
		return err
	}
	if err := dbos.Launch(e.ctx); err != nil {
		return fmt.Errorf("launch durable engine: %w", err)
	}
	if e.workers != nil {
		e.workers.start(e)
	}
	return nil
}

func (e *Engine) run(ctx dbos.Context, c call) (string, error) {
	t, ok := e.tasks[c.Task]
	if !ok {
		return "", fmt.Errorf("there is no task %q", c.Task)
	}
	working, drained := linger(ctx, e.config.Grace)
	defer drained()
	if e.workers != nil {
		id, err := dbos.GetWorkflowID(ctx)
		if err != nil {
			return "", err
		}
		var done func()
		if working, done = e.workers.enter(working, id); working == nil {
			return "", context.Cause(ctx)
		}
		defer done()
	}
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		err := e.Look(working) // it may be called early, by a clock that was set
		if err == nil {
			err = t(working, c.Key)
		}
		var final finalError
		switch {
		case errors.Is(context.Cause(working), errLost):
			return "", nil // what it is worth, the one that took it over says
		case err == nil:
			return "", nil
		case working.Err() != nil, errors.Is(err, context.Canceled):
			return "", err
		case errors.As(err, &final):
			e.config.Log.Error("task ended", "task", c.Task, "key", c.Key, "error", err)
			return "", err
		}
		e.config.Log.Error("task failed, and is called again", "task", c.Task, "key", c.Key, "after", pause, "error", err)
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-working.Done():
			again.Stop()
			return "", context.Cause(working)
		}
	}
}

// linger returns a context that ends some time after ctx.
func linger(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	if grace <= 0 {
		return ctx, func() {}
	}
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		end := time.AfterFunc(grace, func() { cancel(context.Cause(ctx)) })
		context.AfterFunc(longer, func() { end.Stop() })
	})
	return longer, func() {
		stop()
		cancel(nil)
	}
}

// Options say when a started task runs.
type Options struct {
	Lane  string        // tasks of one lane wait for each other's places, not for those of other lanes; "" is a lane too
	Order int64         // the lowest of its lane first; from 0 to 1<<31-1
	Delay time.Duration // how long it waits first, without a goroutine or a worker's place
	Needs string        // only a process that has it is called, see Has; "" any
}

// Start starts a task under an id of its own, in the caller's transaction: with its commit the task is certain to be called.
func (e *Engine) Start(tx *sql.Tx, task, id, key string, o Options) error {
	opts := []dbos.EnqueueOption{dbos.WithEnqueueWorkflowID(id), dbos.WithEnqueuePriority(uint(min(max(o.Order, 0), math.MaxInt32))),
		dbos.WithEnqueueQueuePartitionKey("lane " + o.Lane), dbos.WithEnqueueTransaction(tx)}
	if o.Delay > 0 {
		opts = append(opts, dbos.WithEnqueueDelay(o.Delay))
	}
	// While the engine closes, a task that has its grace still may be held, and so start its next call.
	ctx, queue := dbos.WithoutCancel(e.ctx), e.queueOf(o.Needs)
	if _, err := dbos.Enqueue[string](ctx, queue, workflow, call{task, key}, opts...); err != nil {
		return fmt.Errorf("start task %s: %w", id, err)
	}
	if e.gate == nil || o.Delay > 0 {
		return nil
	}
	return e.config.Tell(ctx, tx, topic, queue)
}

// Wake has a delayed task run at another time; one in the past means now. A task that does not wait is left alone.
func (e *Engine) Wake(id string, at time.Time) error {
	if err := dbos.SetWorkflowDelay(e.ctx, id, dbos.WithDelayUntil(at)); err != nil {
		return fmt.Errorf("wake task %s: %w", id, err)
	}
	return nil
}

// Cancel forgets a task that has not begun.
func (e *Engine) Cancel(id string) error {
	if err := dbos.CancelWorkflow(e.ctx, id); err != nil {
		return fmt.Errorf("cancel task %s: %w", id, err)
	}
	return nil
}

// Close begins no task any more, ends the context of running ones after their grace, waits for them as long as timeout (longer
// than the grace, so that they can write what became of them), and stops. What has not returned is called again by the next
// process.
func (e *Engine) Close(timeout time.Duration) error {
	err := dbos.Shutdown(e.ctx, timeout)
	if e.workers != nil {
		e.workers.stop()
	}
	if err != nil {
		return fmt.Errorf("close durable engine: %w", err)
	}
	return nil
}

// quieter passes on DBOS's warnings and errors; its news are about itself.
type quieter struct{ slog.Handler }

func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

func (q quieter) WithAttrs(a []slog.Attr) slog.Handler { return quieter{q.Handler.WithAttrs(a)} }
func (q quieter) WithGroup(n string) slog.Handler      { return quieter{q.Handler.WithGroup(n)} }
