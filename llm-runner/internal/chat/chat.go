// Package chat keeps conversations. A conversation is a tree of messages; the making of an answer is a turn, and turns
// belong to the server: whoever asked may go away, come back, open a second window or meet a restarted server, and finds
// what there is. What a turn says is appended to its log, and readers follow the log from wherever they were.
package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/trace"
)

// A State is where a turn stands.
type State string

const (
	Waiting     State = "waiting"     // asked; nothing has come yet
	Streaming   State = "streaming"   // the answer is arriving
	Finished    State = "finished"    // the whole answer came
	Stopped     State = "stopped"     // a person stopped it; what had come is kept
	Broken      State = "broken"      // the provider failed midway; what had come is kept
	Held        State = "held"        // nobody can answer now; what was asked is kept
	Failed      State = "failed"      // refused before anything came
	Interrupted State = "interrupted" // this program ended meanwhile; what had come is kept
)

// Running says that more may come.
func (s State) Running() bool { return s == Waiting || s == Streaming }

// Retryable says that asking again is the natural next step.
func (s State) Retryable() bool {
	return s == Held || s == Failed || s == Broken || s == Interrupted || s == Stopped
}

// A Chat is a conversation without its messages.
type Chat struct {
	ID      int64     `json:"id"`
	Title   string    `json:"title"`
	Leaf    int64     `json:"leaf"`    // the last message of the branch that is shown; 0: no message
	Model   string    `json:"model"`   // as it was last asked for; "" none named
	Project bool      `json:"project"` // as it was last asked for
	Tools   bool      `json:"tools"`   // as it was last asked for
	Memory  bool      `json:"memory"`  // as it was last asked for
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	// Snippet is, in the results of a search, the text around the hits; each hit stands between \x02 and \x03.
	Snippet string `json:"-"`
}

// A Message is a question or an answer. An answer has a Turn with the same ID.
type Message struct {
	ID       int64     `json:"id"`
	Parent   int64     `json:"parent"` // 0: begins the conversation
	Role     llm.Role  `json:"role"`
	Text     string    `json:"text"` // of a running turn: what has come so far
	Created  time.Time `json:"created"`
	Siblings []int64   `json:"-"` // the alternatives at this place in order of age, this message included
	Turn     *Turn     `json:"turn,omitempty"`
}

// A Turn is what is known of the making of an answer, besides its text.
type Turn struct {
	ID        int64          `json:"-"`
	Chat      int64          `json:"-"`
	State     State          `json:"state"`
	Seq       int64          `json:"-"`       // of the last event in its log
	Asked     string         `json:"asked"`   // the model that was asked for; "" none named
	Project   bool           `json:"project"` // project mode was asked for
	Tools     bool           `json:"tools"`   // the model may have tools run
	plan      string         // as it was asked with; not kept: research knows it once it has begun
	Memory    bool           `json:"memory"` // the model may know what is remembered about the person
	Run       int64          `json:"-"`      // the turn whose work with tools it goes on with: the first that was asked, or itself
	Route     llm.Route      `json:"route"`  // who answers and why; zero until known
	Started   time.Time      `json:"started"`
	First     time.Duration  `json:"first_token_ns"` // from Started to the first token; 0: none came
	Ended     time.Time      `json:"ended,omitzero"`
	Usage     llm.Usage      `json:"usage"`
	Cost      llm.Count      `json:"cost_micro_usd"`
	Thinking  string         `json:"thinking,omitempty"`
	Citations []llm.Citation `json:"citations,omitempty"`
	Private   bool           `json:"private,omitempty"` // it rests on notes that no cloud provider may see
	// Remembered are the facts that the model was told with the question.
	Remembered []Remembered `json:"remembered,omitempty"`
	Finish     llm.Finish   `json:"finish,omitempty"`
	Error      string       `json:"error,omitempty"` // one sentence for people; for Held: what is waited for
	RetryAt    time.Time    `json:"retry_at,omitzero"`
	Due        bool         `json:"due,omitempty"` // it is asked again by itself
	Holds      int          `json:"-"`             // how often in a row it was held
	Resumes    int          `json:"-"`             // how often it was asked again because a process ended
}

// RunName is what the work of this turn is called: one that is asked again goes on with it.
func (t *Turn) RunName() string {
	return fmt.Sprintf("turn-%d", t.Run)
}

// Over says that nothing more will come of the turn, unless a person asks again.
func (t *Turn) Over() bool { return !t.State.Running() && !t.Due }

// Options are what a question asks for beside its text.
type Options struct {
	Model   string // "" none named: the router's default
	Project bool   // project mode
	Tools   bool   // the model may have tools run
	Memory  bool   // the model may know what is remembered about the person
	Plan    string // of research, see llm.Request
	// Key, if not empty, makes sending idempotent: a second Send with the same key returns the first one's turn.
	Key string
}

var (
	ErrNotFound = errors.New("there is no such conversation or message")
	ErrEmpty    = errors.New("the question is empty")
	ErrRunning  = errors.New("the answer before is still arriving: stop it, or wait until it has ended")
	ErrClosed   = errors.New("the server is stopping: ask again in a moment")
)

// Config is what a Service may be told. The zero value works.
type Config struct {
	// Cost prices an answer in micro-USD; nil: no cost is known.
	Cost func(provider, model string, u llm.Usage) llm.Count
	// Grace is how long running turns may go on once Run is told to stop; 0 means 3 seconds.
	Grace time.Duration
	// Recall returns what is remembered that belongs to a request's last question; nil: nothing is.
	Recall func(ctx context.Context, req llm.Request) ([]Remembered, error)
	// Deleted is told of a conversation that is gone, after it is; nil: nobody is.
	Deleted func(chat int64)
	// Lane names who would answer a request now, or who it would wait for; nil: nobody knows.
	Lane func(req llm.Request) string
	// Busy is told of what a turn is held for, after that is on disk; nil: nobody is. It must not block.
	Busy func(b *llm.BusyError)
	// Asks says whether a person still has to decide about something of a run, by its name. What was decided before its turn was held woke
	// nobody; nil: such a turn looks for itself, in a minute.
	Asks func(ctx context.Context, run string) (bool, error)
	// Engine asks turns again by themselves that were held or interrupted; nil: a person does. It is launched after New.
	Engine *engine.Engine
	// Traces tells of each turn; nil: nobody is told.
	Traces *trace.Tracer
	Log    *slog.Logger // nil: slog.Default()
}

// A Service owns the conversations in one database. It is safe for concurrent use.
type Service struct {
	db       *db.DB
	provider llm.Provider
	config   Config
	log      *slog.Logger

	ctx    context.Context // of all turns; no request's
	cancel context.CancelCauseFunc

	refuge refuge

	mu       sync.Mutex
	live     map[int64]*live         // by turn
	watchers map[int64]chan struct{} // of turns that do not run here; closed at the next change
	closed   bool
	missed   atomic.Bool // there may be turns that are due and that the engine does not know of
	turns    sync.WaitGroup
}

// The causes with which a turn's context ends.
var (
	errStop    = errors.New("stopped by a person")
	errDelete  = errors.New("the conversation was deleted")
	errRestart = errors.New("the server stopped while this answer was arriving")
	errLost    = errors.New("the database did not hear from this server, and another one took this answer over")
)

// New returns the service of d's conversations, answered by p. Turns that a dead process left running are marked
// Interrupted with what had come of them (in a shared database by Adopt); ctx bounds that work only.
func New(ctx context.Context, d *db.DB, p llm.Provider, c Config) (*Service, error) {
	if c.Grace == 0 {
		c.Grace = 3 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	s := &Service{db: d, provider: p, config: c, log: c.Log, live: map[int64]*live{}, watchers: map[int64]chan struct{}{}}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if !d.Shared() {
		if err := adopt(ctx, d, "", s.dueOf(dueAll)); err != nil {
			return nil, err
		}
	}
	if c.Engine != nil {
		c.Engine.Register(task, s.call)
		c.Engine.Moves(s.moved)
		c.Engine.Inherits(s.Adopt)
		s.missed.Store(true)
	}
	d.Hear(topic, s.hear)
	return s, nil
}

// Reader returns a service that reads d's conversations beside the one that owns them. It asks nothing and changes nothing.
func Reader(d *db.DB) *Service {
	s := &Service{db: d, log: slog.New(slog.DiscardHandler), live: map[int64]*live{}, watchers: map[int64]chan struct{}{}, closed: true}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// Run has the turns go on that are due, until ctx ends. Then it takes no more questions, gives running turns the grace to
// finish, and marks those that did not Interrupted. When it returns, everything that came is on disk.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		if s.db.Trouble() == nil {
			s.settle(context.WithoutCancel(ctx)) //nolint:errcheck // the disk refuses still: the next round tries again
			if s.missed.Swap(false) {
				s.scheduleAll(context.WithoutCancel(ctx))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	grace := time.AfterFunc(s.config.Grace, func() { s.cancel(errRestart) })
	defer grace.Stop()
	s.turns.Wait()
	s.cancel(errRestart)
	if err := s.settle(context.WithoutCancel(ctx)); err != nil {
		s.log.Error("conversations that were kept in memory are lost: the disk refuses still", "error", err)
		return fmt.Errorf("write conversations that were kept in memory: %w", err)
	}
	return nil
}

// Running is the number of turns under way.
func (s *Service) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

// enter reserves a place for one turn, so that Run waits for it; nil once the service is closed.
func (s *Service) enter() (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.turns.Add(1)
	return s.turns.Done
}

func (s *Service) running(turn int64) *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[turn]
}
