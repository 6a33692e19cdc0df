// Package jobs gets work done that may wait: a job is acknowledged once it is on disk, and then it ends, whatever happens
// to this program, to the machines that answer and to their limits. What nobody can answer yet is held, without a goroutine
// or a worker's place, until its time has come or what it waits for is back.
//
// A job's whole life is in our own tables; the engine only keeps the call that works on it. Each call has the number of its
// run: a call whose number is not the job's any more does nothing, so a job ends once however often it is called.
package jobs

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A Type says how a job's prompt becomes an answer.
type Type string

const (
	Text     Type = "text"     // one prompt, one answer
	Chain    Type = "chain"    // level-2 headings split the steps; each sees the answer before
	Research Type = "research" // the owner's notes answer, with citations
)

// Types that there are.
var Types = []Type{Text, Chain, Research}

// A Spec is a job as it is asked for. The zero value of everything but Prompt works.
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
}

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

	State    State         `json:"state"`
	Since    time.Time     `json:"since"`
	Waited   time.Duration `json:"-"` // queued and held, up to Since
	Run      int           `json:"-"`
	Attempts int           `json:"attempts"`            // faults so far that may pass
	Holds    int           `json:"holds,omitempty"`     // in a row
	Reason   string        `json:"reason,omitempty"`    // why it is held, or how it failed
	WaitsFor string        `json:"waits_for,omitempty"` // the provider it is held for
	ResumeAt time.Time     `json:"resume_at,omitzero"`
	Created  time.Time     `json:"created"`
	Started  time.Time     `json:"started,omitzero"` // for the first time
	Ended    time.Time     `json:"ended,omitzero"`

	Steps     int            `json:"steps"`      // that there are; 1 but for a chain
	StepsDone int            `json:"steps_done"` //
	Position  int            `json:"position,omitempty"`
	Answer    string         `json:"answer,omitempty"` // left out of lists
	Citations []llm.Citation `json:"citations,omitempty"`
	Finish    llm.Finish     `json:"finish,omitempty"`
	Route     llm.Route      `json:"route,omitzero"`
	Usage     llm.Usage      `json:"usage"` // of all steps
	Cost      llm.Count      `json:"cost_micro_usd"`
	Key       string         `json:"-"`
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
	Log  *slog.Logger // nil: slog.Default()
	// Backoff is the wait after the first fault that may pass; it grows by four each time. 0 means 2 s.
	Backoff time.Duration
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
	changed chan struct{}                      // closed at the next change of any job
}

// task is the name under which the engine calls us.
const task = "job"

// New returns the service of d's jobs, answered by p, and has e call it. Jobs that a dead process left running are queued
// again; they go on once e is launched.
func New(ctx context.Context, d *db.DB, e *engine.Engine, p llm.Provider, c Config) (*Service, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Backoff == 0 {
		c.Backoff = 2 * time.Second
	}
	s := &Service{db: d, engine: e, provider: p, config: c, log: c.Log,
		running: map[string]context.CancelCauseFunc{}, changed: make(chan struct{})}
	e.Register(task, s.call)
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
			return move(ctx, tx, j, Queued, "the program ended while it ran; it is taken up again")
		}); err != nil {
			return err
		}
	}
	woken, err := list(ctx, s.db.Read(), Filter{States: []State{Queued}, Delayed: true, Limit: 1 << 30})
	if err != nil {
		return err
	}
	for _, j := range woken {
		if err := s.engine.Wake(j.call(), time.Now()); err != nil {
			return err
		}
	}
	return nil
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
