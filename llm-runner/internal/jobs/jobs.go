// Package jobs gets work done that may wait: a job is acknowledged once it is on disk, and then it ends, whatever happens
// to this program, to the machines that answer and to their limits. What nobody can answer yet is held, without a goroutine
// or a worker's place, until its time has come or what it waits for is back.
//
// A job's whole life is in our own tables; the engine only keeps the call that works on it. Each call has the number of its
// run: a call whose number is not the job's any more does nothing, so a job ends once however often it is called.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/trace"
)

// A Type says how a job's prompt becomes an answer.
type Type string

const (
	Text     Type = "text"     // one prompt, one answer
	Chain    Type = "chain"    // level-2 headings split the steps; each sees the answer before
	Research Type = "research" // sources and the web answer in sections, each statement checked against what it quotes
)

// Types that there are.
var Types = []Type{Text, Chain, Research}

// A Spec is a job as it is asked for. The zero value of everything but Prompt or Request works.
type Spec struct {
	Type        Type   `json:"type"`         // "" is text
	Title       string `json:"title"`        // "" is the prompt's first words
	Prompt      string `json:"prompt"`       //
	Model       string `json:"model"`        // "" the route table's default
	Requires    string `json:"requires"`     // a provider that must answer; "" any
	Project     bool   `json:"project"`      // project mode
	Priority    int    `json:"priority"`     // 1 first ... 9 last; 0 is 5
	Deadline    string `json:"deadline"`     // how long it may wait in all, as a duration (90m, 12h); "" as long as it takes
	MaxAttempts int    `json:"max_attempts"` // 0 is 5
	// Tools names the tools of this program that the model may call, "*" all that there are; none where it is empty.
	Tools []string `json:"tools,omitempty"`
	// Plan has research wait until a person has seen its plan ("ask"); "" and "auto" go on without.
	Plan   string `json:"plan,omitempty"`
	Notify Notify `json:"notify"` // whether a person is told of the end; "" nobody is
	Output string `json:"output"` // where the answer goes, a path below the vault; "" nowhere but for jobs that came as a file
	// Request is a whole chat request of OpenAI's API (messages, tools, images), instead of Type, Prompt and Model.
	Request json.RawMessage `json:"request,omitempty"`
}

// Notify says which ends of a job a person is told of.
type Notify string

const (
	NotifyNever   Notify = ""
	NotifyAlways  Notify = "always"
	NotifySuccess Notify = "success"
	NotifyFailure Notify = "failure"
)

// A Job is one piece of work.
type Job struct {
	ID          int64         `json:"id"`
	Type        Type          `json:"type"`
	Title       string        `json:"title"`
	Prompt      string        `json:"prompt,omitempty"` // left out of lists
	Asked       string        `json:"asked_model"`      // "" none named
	Requires    string        `json:"requires,omitempty"`
	Project     bool          `json:"project,omitempty"`
	Priority    int           `json:"priority"`
	Deadline    time.Duration `json:"-"` // of waiting in all; 0 none
	MaxAttempts int           `json:"max_attempts"`
	Tools       []string      `json:"tools,omitempty"`
	Plan        string        `json:"plan,omitempty"` // see Spec
	Notify      Notify        `json:"notify,omitempty"`
	Output      string        `json:"output,omitempty"` // where the answer was asked to go
	ord         int64         // who is first in line, see order

	State      State         `json:"state"`
	Since      time.Time     `json:"since"`
	Waited     time.Duration `json:"-"` // queued and held, up to Since
	Run        int           `json:"-"`
	begun      int           // how often the present step was begun, and neither ended nor was put down by a process that stops
	worker     string        // which of the processes that share the database runs it, or ran it last
	Attempts   int           `json:"attempts"`              // faults so far that may pass
	Holds      int           `json:"holds,omitempty"`       // in a row
	Reason     string        `json:"reason,omitempty"`      // why it is held, or how it failed
	WaitsFor   string        `json:"waits_for,omitempty"`   // the provider it is held for
	WaitsModel string        `json:"waits_model,omitempty"` // that provider's model
	Dimension  string        `json:"dimension,omitempty"`   // the limit that is used up; "" where it is none
	ResumeAt   time.Time     `json:"resume_at,omitzero"`
	Created    time.Time     `json:"created"`
	Started    time.Time     `json:"started,omitzero"` // for the first time
	Ended      time.Time     `json:"ended,omitzero"`

	Dropped string `json:"dropped,omitempty"` // the name of the file that it came from; "" it came another way
	File    string `json:"file,omitempty"`    // where that lies, below the vault; "" nowhere any more
	Note    string `json:"note,omitempty"`    // where the answer is, below the vault; "" not (yet) written
	next    string // where the file is moved to
	hash    string // of the file as it was dropped; only when it is submitted
	due     int64  // when it became due to be shown in the vault, unix milliseconds; 0 it is

	Steps     int             `json:"steps"`              // that there are; 1 but for a chain
	StepsDone int             `json:"steps_done"`         //
	Position  int             `json:"position,omitempty"` // in the line for its provider, from 1; see Estimate
	ETA       *time.Time      `json:"eta"`                // when the answer is there; nil: nobody knows, or it has ended
	Arrived   string          `json:"arrived,omitempty"`  // of the answer to the present step, where this process runs it; left out of lists
	Answer    string          `json:"answer,omitempty"`   // left out of lists
	Request   json.RawMessage `json:"request,omitempty"`  // left out of lists
	Response  json.RawMessage `json:"response,omitempty"` // to a Request, in the form of OpenAI's API; left out of lists
	Citations []llm.Citation  `json:"citations,omitempty"`
	Finish    llm.Finish      `json:"finish,omitempty"`
	Route     llm.Route       `json:"route,omitzero"`
	Usage     llm.Usage       `json:"usage"` // of all steps
	Cost      llm.Count       `json:"cost_micro_usd"`
	Key       string          `json:"-"`

	trace     string // its root span, as a traceparent; "" it is not traced
	traceFrom string // the span above that, or of another trace what it was tried again from
}

// An Event is one entry of a job's timeline.
type Event struct {
	Seq  int64     `json:"seq"`
	At   time.Time `json:"at"`
	From State     `json:"from,omitempty"` // "": it began
	To   State     `json:"to"`
	Note string    `json:"note"`
}

var (
	ErrNotFound = errors.New("there is no such job")
	ErrKeyUsed  = errors.New("this Idempotency-Key was sent before with another job: use a new key for new work")
)

// Config is what a Service may be told. The zero value works.
type Config struct {
	// Cost prices an answer in micro-USD; nil: no cost is known.
	Cost func(provider, model string, u llm.Usage) llm.Count
	// Lane names who would answer a request now: jobs for one provider do not wait for places that those for another one
	// have. nil: all are in one lane.
	Lane func(req llm.Request) string
	// Turn is when a job of so many bytes can have its turn at a provider's limits that has others ahead of it in line; nil:
	// when the provider said, for all of them.
	Turn func(provider, model string, bytes, ahead int) time.Time
	Log  *slog.Logger // nil: slog.Default()
	// Backoff is the wait after the first fault that may pass; it grows by four each time. 0 means 2 s.
	Backoff time.Duration
	// Pace is how fast a request is answered; nil: nothing is estimated.
	Pace func(req llm.Request) Pace
	// Keep is how long a job is kept after it ended; 0: for ever. See Run.
	Keep time.Duration
	// Folders are where jobs come and go as files, see Inbox; nil: nowhere.
	Folders *Folders
	// Report is the note of a research job that is done: lines for its frontmatter, and what stands below it. The key is the name of its run
	// (llm.Request.Run). nil, or ok false: the answer is the note.
	Report func(ctx context.Context, key string) (front, body string, ok bool, err error)
	// Asks says whether a person still has to decide about something of a run, by its name or what begins with its name and a dash. What was
	// decided before its job was held woke nobody; nil: such a job looks for itself, in a minute.
	Asks func(ctx context.Context, run string) (bool, error)
	// Alerts is told of the ends that somebody wants to hear of, and of what jobs are held for; nil: nobody is.
	Alerts *alert.Service
	// Traces tells of each job, as one trace through all its lives; nil: nobody is told.
	Traces *trace.Tracer
}

// A Service owns the jobs in one database. It is safe for concurrent use.
type Service struct {
	db       *db.DB
	engine   *engine.Engine
	provider llm.Provider
	config   Config
	log      *slog.Logger

	mu      sync.Mutex
	running map[string]context.CancelCauseFunc // by Job.key
	inLines map[string]*standing               // of those that run, by Job.key
	changed chan struct{}                      // closed at the next change of any job
	drafts  map[int64]*draft                   // answers that are arriving, by job
	drafted int                                // how many there were
}

// task is the name under which the engine calls us.
const task = "job"

// New returns the service of d's jobs, answered by p, and has e call it. Jobs that a dead process left running are queued
// again (in a shared database by Adopt); they go on once e is launched.
func New(ctx context.Context, d *db.DB, e *engine.Engine, p llm.Provider, c Config) (*Service, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Backoff == 0 {
		c.Backoff = 2 * time.Second
	}
	s := &Service{db: d, engine: e, provider: p, config: c, log: c.Log,
		running: map[string]context.CancelCauseFunc{}, inLines: map[string]*standing{}, changed: make(chan struct{}),
		drafts: map[int64]*draft{}}
	e.Register(task, s.call)
	e.Inherits(s.Adopt)
	e.Moves(s.moved)
	d.Hear(topic, s.hear)
	if d.Shared() {
		return s, nil
	}
	return s, s.recover(ctx)
}

// recover queues again what was running, and repeats wakings that may not have reached the engine.
func (s *Service) recover(ctx context.Context) error {
	left, err := list(ctx, s.db.Read(), Filter{States: []State{Running}, Limit: 1 << 30})
	if err != nil {
		return err
	}
	for _, j := range left {
		if _, err := s.change(ctx, j.ID, func(tx *transaction, j *Job) error {
			if done, err := s.deadly(ctx, tx, j); done || err != nil {
				return err
			}
			return move(ctx, tx, j, Queued, "the program ended while it ran; it is taken up again")
		}); err != nil {
			return err
		}
	}
	return s.wake(ctx, 1<<30)
}

// A job goes on at once after so many deaths of the program in one of its steps, and after so many it fails.
const (
	freeDeaths = 3
	mostDeaths = 8
)

// deadly sees to a job in which the program ended again and again: it may be what ends it. It goes on after a growing wait, so that
// jobs that only ran beside it come to their ends without it, and in the end it fails, and a person is told.
func (s *Service) deadly(ctx context.Context, tx *transaction, j *Job) (done bool, err error) {
	if j.begun <= freeDeaths {
		return false, nil
	}
	j.free()
	j.Reason = fmt.Sprintf("the program ended %d times while it ran, as if that were what ends it: look into the program's log", j.begun)
	if j.begun < mostDeaths {
		return true, s.hold(ctx, tx, j, time.Now().Add(backoff(s.config.Backoff, j.begun-freeDeaths)), j.Reason)
	}
	if err := s.finish(ctx, tx, j, Failed, j.Reason); err != nil || j.Notify.of(Failed) {
		return true, err
	}
	return true, s.config.Alerts.News(ctx, tx, j.news())
}

// wake repeats wakings that may not have reached the engine, the first ones in line.
func (s *Service) wake(ctx context.Context, most int) error {
	woken, err := list(ctx, s.db.Read(), Filter{States: []State{Queued}, Delayed: true, Limit: most})
	if err != nil {
		return err
	}
	for _, j := range woken {
		if err := s.engine.Wake(j.call(), j.ResumeAt); err != nil {
			return err
		}
	}
	return nil
}

// Adopt queues again what another process left running; it is dead. Each job gets a new run, so that a process that was only
// asleep finds its own to be stale.
func (s *Service) Adopt(ctx context.Context, worker string) error {
	left, err := list(ctx, s.db.Read(), Filter{States: []State{Running}, worker: worker, Limit: 1 << 30})
	if err != nil {
		return err
	}
	for _, j := range left {
		_, err := s.change(ctx, j.ID, func(tx *transaction, j *Job) error {
			if j.State != Running || j.worker != worker {
				return errStale
			}
			if done, err := s.deadly(ctx, tx, j); done || err != nil {
				return err
			}
			if err := move(ctx, tx, j, Queued, "the process that ran it died; another one takes it up"); err != nil {
				return err
			}
			return s.start(tx, j, 0)
		})
		if err != nil && !errors.Is(err, errStale) && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return s.wake(ctx, 1<<30)
}

// hear takes what other processes tell about jobs.
func (s *Service) hear(text string) {
	if key, ok := strings.CutPrefix(text, cancelWord); ok {
		s.end(key)
	}
	s.announce()
}

// end has the call of a key end, if it is this process's.
func (s *Service) end(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stop := s.running[key]; stop != nil {
		stop(errCancelled)
	}
}

// announce wakes readers.
func (s *Service) announce() {
	s.mu.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
}

// Changed returns a channel that is closed at the next change of any job.
func (s *Service) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
