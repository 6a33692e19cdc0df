// Package agent has work done on schedules: a briefing of the day, research on chosen topics, facts learnt from conversations, and whatever a
// person writes into a file. An agent is a Markdown file; a run of it is a row that is made once for each due time, worked on by the durable
// engine, and told to each place by a delivery of its own.
//
// A run's steps are written down as they end: a run that is taken up after a crash goes on behind the last one, and asks no model twice for
// what it has. A call that was under way when the process died is made again. Runs of one agent never overlap. A place that cannot be reached
// is tried again by itself: the work behind it is not done again.
//
// A note is written once however often it is tried. A post is marked before it is sent and after it was taken; a death of the process between
// the two, some milliseconds, has it posted twice where the place has no key by which it would know it again: Discord and plain webhooks have
// none. It is never posted less than once.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/trace"
)

// A Folder holds agents' files.
type Folder struct {
	Path  string // for people
	FS    fs.FS
	Vault bool // it is in the vault
}

// Spent is what some work has cost.
type Spent struct {
	Tokens   int64 `json:"tokens"`
	MicroUSD int64 `json:"micro_usd"`
}

// Config is what a Service may be told. The zero value works: no agents, and nowhere to tell anything.
type Config struct {
	BuiltIn fs.FS    // agents' files of the program itself; nil none
	On      []string // those of them that run by themselves without a person having said so
	Folders []Folder // agents' files of the person; later folders count more
	Zone    *time.Location

	Vault  string // the folder of notes; "": nothing is written there
	Notes  string // where notes of agents go, below Vault; "" Agent notes
	Daily  string // the daily note, below Vault, with YYYY, MM and DD; "" Daily/YYYY-MM-DD.md
	Topics string // the note of topics to research, below Vault; "" Research topics.md
	// Sinks are where messages go, by the names that files use: discord, ...
	Sinks map[string]alert.Sink
	// Hide takes secrets out of a text that is shown or posted; nil: there are none.
	Hide func(string) string

	// Ask answers requests: the router. Box holds the tools that agents may use; nil: none. Cost prices an answer in micro-USD; nil: unknown.
	Ask  llm.Provider
	Box  *toolbox.Box
	Cost func(provider, model string, u llm.Usage) llm.Count
	// Asks says whether a person still has to decide about something of a run, by its name. What was decided before the run waited woke
	// nobody; nil: such a run looks for itself.
	Asks func(ctx context.Context, run string) (bool, error)
	// OfVault says that a tool works on the vault; nil: none does.
	OfVault func(tool string) bool
	// Lane names the provider that a request would go to first, or wait for; nil: nobody knows.
	Lane func(req llm.Request) string
	// Targets are the models that a request may be answered by, fallbacks included; nil: nobody knows.
	Targets func(req llm.Request) []Target
	// Writer says that a model is connected which could write; nil: always.
	Writer func() bool

	Facts Sources
	Desk  Desk
	// Learn learns facts about the person from conversations; nil: memory is not set up.
	Learn func(ctx context.Context, run string) (report string, cost Spent, err error)

	Alerts *alert.Service // is told of runs that fail; nil: nobody is
	Traces *trace.Tracer  // is told of runs; nil: nobody is
	Keep   time.Duration  // how long a run is kept after it ended; 0 for ever
	Now    func() time.Time
	Log    *slog.Logger // nil: slog.Default()
}

var (
	ErrNotFound = errors.New("there is no such agent; llm-runner agent list shows those that there are")
	ErrNoRun    = errors.New("there is no such run of an agent")
)

// A Service runs the agents of one database. It is safe for concurrent use.
type Service struct {
	db     *db.DB
	engine *engine.Engine
	config Config
	log    *slog.Logger
	nudged chan struct{} // capacity 1

	mu       sync.Mutex
	changed  chan struct{} // closed at the next change of any run
	told     string        // the faults of files that were logged last
	passing  sync.Mutex
	toolLock sync.Mutex
	tools    []string                          // agents that are in the box as tools
	working  map[int64]context.CancelCauseFunc // by run

	reached func(step string) // for tests: told of each point at which a process may die
}

const (
	task     = "agent"
	postTask = "agent-post"
)

// New returns the agents of d and has e call them. Nothing is due until Run.
func New(ctx context.Context, d *db.DB, e *engine.Engine, c Config) (*Service, error) {
	if c.Zone == nil {
		c.Zone = time.Local
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Hide == nil {
		c.Hide = func(s string) string { return s }
	}
	if c.Writer == nil {
		c.Writer = func() bool { return true }
	}
	c.Notes, c.Daily, c.Topics = cmp.Or(c.Notes, "Agent notes"), cmp.Or(c.Daily, "Daily/YYYY-MM-DD.md"), cmp.Or(c.Topics, "Research topics.md")
	s := &Service{db: d, engine: e, config: c, log: c.Log, nudged: make(chan struct{}, 1), changed: make(chan struct{}), working: map[int64]context.CancelCauseFunc{}, reached: func(string) {}}
	e.Register(task, s.call)
	e.Register(postTask, s.post)
	e.Inherits(s.Adopt)
	e.Moves(func(ctx context.Context, by time.Duration) error { return moveTimes(ctx, s.db, by) })
	d.Hear(topic, func(text string) {
		if id, err := strconv.ParseInt(strings.TrimPrefix(text, cancelWord), 10, 64); err == nil {
			s.end(id)
		}
		s.announce()
	})
	if c.Vault != "" || !d.Shared() {
		e.Has(vault)
	} else {
		s.log.Info("this process has no vault: runs of agents that need it, and what is delivered into it, are left to those that have it")
	}
	s.offer()
	return s, nil
}

// topic is under which processes tell each other of changes.
const topic = "agent"

// announce wakes readers and the one who looks for what is due.
func (s *Service) announce() {
	s.mu.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	select {
	case s.nudged <- struct{}{}:
	default:
	}
}

// Changed returns a channel that is closed at the next change of any run.
func (s *Service) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// lookEvery is how often it is looked for files that have changed, and for what other processes have written.
const lookEvery = 20 * time.Second

// Run starts what is due until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	cleaned := time.Time{}
	for {
		select {
		case <-timer.C:
		case <-s.nudged:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.engine.Look(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("look whether the clock was set", "error", err)
		}
		now := s.config.Now()
		next, err := s.pass(ctx, now)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("look for agents that are due", "error", err) // the next look tries again
		}
		if s.config.Keep > 0 && now.Sub(cleaned) > time.Hour {
			cleaned = now
			if err := clean(ctx, s.db, now.Add(-s.config.Keep)); err != nil && ctx.Err() == nil {
				s.log.Warn("delete old runs of agents", "error", err)
			}
		}
		wait := lookEvery
		if !next.IsZero() {
			wait = min(wait, max(next.Sub(s.config.Now()), 50*time.Millisecond))
		}
		timer.Reset(wait)
	}
}

// pass makes the runs that are due, and has the engine call what can go on. It returns when the next thing is due, as far as that is known.
func (s *Service) pass(ctx context.Context, now time.Time) (next time.Time, err error) {
	s.passing.Lock()
	defer s.passing.Unlock()
	all, faults := s.Load()
	s.complain(faults)
	s.offerAll(all)
	memories, err := remembered(ctx, s.db)
	if err != nil {
		return next, err
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, a := range all {
		m, known := memories[a.Name]
		as := a.Schedule.text + " " + a.Schedule.zone.String()
		if !known || m.schedule != as {
			if err := s.see(ctx, a.Name, as, now, nil); err != nil {
				return next, err
			}
			m.seen = now
		}
		if s.paused(a, m) || a.Schedule.Zero() {
			continue
		}
		if at := a.Schedule.Next(m.seen); at.IsZero() || at.After(now) {
			sooner(at)
			continue
		}
		if err := s.see(ctx, a.Name, as, now, Due(a.Schedule, m.seen, now, a.Missed)); err != nil {
			return next, err
		}
		sooner(a.Schedule.Next(now))
	}
	if err := s.drop(ctx, all, memories, now); err != nil {
		return next, err
	}
	started, at, err := s.startDue(ctx, now)
	if sooner(at); started {
		s.tellReaders()
	}
	return next, err
}

// drop ends planned runs that will not begin: those of agents that a person has paused since, and those that were overtaken by time while the
// run before them went on, as missed says of it; with Each none is.
func (s *Service) drop(ctx context.Context, all []Agent, memories map[string]memory, now time.Time) error {
	planned, err := runs(ctx, s.db, `WHERE ended_at IS NULL AND state = 'planned' AND cause = 'schedule' ORDER BY due_at, id`)
	if err != nil || len(planned) == 0 {
		return err
	}
	for _, a := range all {
		var mine, gone []Run
		for _, r := range planned {
			if r.Agent == a.Name {
				mine = append(mine, r)
			}
		}
		if len(mine) == 0 {
			continue
		}
		why, last := "", int64(0)
		switch {
		case s.paused(a, memories[a.Name]):
			gone, why = mine, "the agent was paused before it began"
		case a.Missed == Skip:
			for _, r := range mine {
				if now.Sub(r.Due) > late {
					gone = append(gone, r)
				}
			}
			why = "it was missed while the run before it went on"
		case a.Missed == Once:
			last = mine[len(mine)-1].ID
			gone, why = mine[:len(mine)-1], fmt.Sprintf("it was missed while the run before it went on; run %d is for it as well", last)
		}
		if err := s.dropRuns(ctx, gone, last, why, now); err != nil {
			return err
		}
	}
	return nil
}

// tellReaders is announce without another look.
func (s *Service) tellReaders() {
	s.mu.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
}

func (s *Service) complain(faults []FileFault) {
	text := fmt.Sprint(faults)
	s.mu.Lock()
	same := s.told == text
	s.told = text
	s.mu.Unlock()
	if same {
		return
	}
	for _, f := range faults {
		s.log.Warn("an agent's file is wrong; the others go on", "file", f.Path, "faults", f.Faults.Error())
	}
}

// paused says that an agent does not run by itself.
func (s *Service) paused(a Agent, m memory) bool {
	if m.said {
		return m.paused
	}
	return a.BuiltIn && !slices.Contains(s.config.On, a.Name)
}

func (s *Service) sinkNames() []string {
	all := []string{"daily", "vault", "discord", "ntfy", "webhook"}
	for _, name := range slices.Sorted(maps.Keys(s.config.Sinks)) {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// A Listed is an agent as lists show it.
type Listed struct {
	Agent
	Cron   string    `json:"schedule"`
	Says   string    `json:"schedule_says"`
	Zone   string    `json:"timezone"`
	Paused bool      `json:"paused"`
	Next   time.Time `json:"next_due,omitzero"` // zero: not by itself
	Last   *Run      `json:"last_run"`          // that was not a dry one; nil none
}

// List returns all agents, and what is wrong with files.
func (s *Service) List(ctx context.Context) ([]Listed, []FileFault, error) {
	all, faults := s.Load()
	memories, err := remembered(ctx, s.db)
	if err != nil {
		return nil, nil, err
	}
	out := make([]Listed, len(all))
	for i, a := range all {
		if out[i], err = s.listed(ctx, a, memories[a.Name]); err != nil {
			return nil, nil, err
		}
	}
	if faults == nil {
		faults = []FileFault{}
	}
	return out, faults, nil
}

// Show returns one agent.
func (s *Service) Show(ctx context.Context, name string) (Listed, error) {
	a, err := s.Find(name)
	if err != nil {
		return Listed{}, err
	}
	memories, err := remembered(ctx, s.db)
	if err != nil {
		return Listed{}, err
	}
	return s.listed(ctx, a, memories[name])
}

// A Standing says how well an agent keeps up with its schedule.
type Standing struct {
	Agent   string
	Done    time.Time     // when its last run ended well that was not a dry one; zero: none is known
	Overdue time.Duration // how long ago the oldest time was due that nothing has come of yet; 0: it keeps up, or rests
}

// Standings are those of all agents that have a schedule.
func (s *Service) Standings(ctx context.Context) (out []Standing, err error) {
	all, _ := s.Load()
	memories, err := remembered(ctx, s.db)
	if err != nil {
		return nil, err
	}
	open, err := runs(ctx, s.db, `WHERE ended_at IS NULL AND cause = 'schedule'`)
	if err != nil {
		return nil, err
	}
	done, err := lastDones(ctx, s.db)
	if err != nil {
		return nil, err
	}
	now := s.config.Now()
	for _, a := range all {
		if a.Schedule.Zero() {
			continue
		}
		x := Standing{Agent: a.Name}
		for _, r := range done {
			if r.Agent == a.Name {
				x.Done = r.Ended
			}
		}
		if m, known := memories[a.Name]; known && !s.paused(a, m) {
			x.Overdue = max(now.Sub(a.Schedule.Next(m.seen)), 0) // nobody looks
		}
		for _, r := range open {
			if r.Agent == a.Name {
				x.Overdue = max(x.Overdue, now.Sub(r.Due)) // or something is in its way
			}
		}
		out = append(out, x)
	}
	return out, nil
}

func (s *Service) listed(ctx context.Context, a Agent, m memory) (Listed, error) {
	l := Listed{Agent: a, Cron: a.Schedule.String(), Says: a.Schedule.Says(), Zone: a.Schedule.zone.String(), Paused: s.paused(a, m)}
	if !l.Paused {
		l.Next = a.Schedule.Next(s.config.Now())
	}
	last, err := runs(ctx, s.db, `WHERE agent = ? AND cause <> 'dry' ORDER BY id DESC LIMIT 1`, a.Name)
	if len(last) > 0 {
		l.Last = &last[0]
	}
	return l, err
}

// Pause has an agent rest, or run by itself again. What is due while it rests is not made up for.
func (s *Service) Pause(ctx context.Context, name string, paused bool) (Listed, error) {
	a, err := s.Find(name)
	if err != nil {
		return Listed{}, err
	}
	if err := setPaused(ctx, s.db, name, a.Schedule.text+" "+a.Schedule.zone.String(), paused, s.config.Now()); err != nil {
		return Listed{}, err
	}
	s.announce()
	return s.Show(ctx, name)
}

// Start has an agent run now; dry: it says what it would, and delivers nothing. key, if not empty, makes the same request the same run.
func (s *Service) Start(ctx context.Context, name string, dry bool, key string) (Run, error) {
	if _, err := s.Find(name); err != nil {
		return Run{}, err
	}
	r := Run{Agent: name, Cause: ByPerson, Due: s.config.Now(), Covers: 1, State: Planned}
	if dry {
		r.Cause = Dry
	}
	r.key = fmt.Sprintf("%s/%s/%s", r.Cause, name, cmp.Or(key, unique()))
	return s.plan(ctx, r)
}

// Await returns a run once it has ended.
func (s *Service) Await(ctx context.Context, id int64) (Run, error) {
	for {
		changed := s.Changed()
		r, err := s.Run1(ctx, id)
		if err != nil || r.State.Ended() {
			return r, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

// History returns the newest runs, at most n, of one agent or ("") of all, newest first, without what they say.
func (s *Service) History(ctx context.Context, name string, n int) ([]Run, error) {
	where, args := `ORDER BY id DESC LIMIT ?`, []any{n}
	if name != "" {
		where, args = `WHERE agent = ? `+where, []any{name, n}
	}
	all, err := runs(ctx, s.db, where, args...)
	for i := range all {
		all[i].Output = Output{}
	}
	return all, err
}
