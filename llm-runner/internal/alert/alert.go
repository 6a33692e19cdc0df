// Package alert tells a person what happens, without losing anything and without saying it twice: one message when an
// incident begins, one when it is over, and the news that somebody asked for. Everything is written down before it is told,
// in the transaction of what it tells of where there is one. One background sender groups what is due, keeps to the limits
// of whoever passes it on, and tries for as long as it takes. While the database cannot be written, alerts are told from
// memory and written down afterwards.
//
// Several may pass alerts on. Each is told everything, in its own time: one that is away delays no other, and nobody is told twice because of it.
//
// Between the moment in which Discord keeps a message and the one in which that is written down, some milliseconds, a death
// of the process has it told twice: a webhook has no key by which it would know a message again. The same holds for a
// message whose answer is lost. It is never told less than once.
package alert

import (
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// A Sink passes messages on to a person. *discord.Webhook, *ntfy.Topic and *webhook.Hook are some.
type Sink interface {
	Name() string // as a person calls it; no two of a Service have the same
	Max() int     // how long a message may be, in UTF-16 units
	// Send passes one message on and returns once it is safe there. With an error, again is how long to wait before the
	// next attempt; 0 means that this message will never be taken, unless the error has Gone() true: then it is the sink
	// itself that needs a person, and the message waits.
	Send(ctx context.Context, text string) (again time.Duration, err error)
}

// Pass sends a message by a sink. Where that has a way for it, whoever receives it knows by key that it is the same when it comes again.
func Pass(ctx context.Context, s Sink, key, text string) (again time.Duration, err error) {
	if keyed, ok := s.(interface {
		SendKeyed(ctx context.Context, key, text string) (time.Duration, error)
	}); ok {
		return keyed.SendKeyed(ctx, key, text)
	}
	return s.Send(ctx, text)
}

// An Incident is something that begins and is over some time. Its Key says what it is about: while one is open, another
// with the same key is the same.
type Incident struct {
	Key      string
	Text     string        // what a person is told, in whole sentences
	Provider string        // jobs that are held for it are counted; "" none
	Grace    time.Duration // what is over by then is not told
	// WhileHeld says that it is over once no job is held for Provider any more. Otherwise End ends it.
	WhileHeld bool
	Over      string // with WhileHeld: what is told of the end, without a full stop
}

// An Alert is an incident or a piece of news as it was written down.
type Alert struct {
	ID        int64     `json:"id"`
	Key       string    `json:"key,omitempty"` // "": news
	Provider  string    `json:"provider,omitempty"`
	Text      string    `json:"text"`
	Began     time.Time `json:"began"`
	Ended     time.Time `json:"ended,omitzero"` // zero: it lasts
	Over      string    `json:"over,omitempty"` // what is told of the end, without a full stop
	Jobs      int       `json:"jobs_held,omitempty"`
	Longest   int64     `json:"longest_hold_ms,omitempty"`
	Told      Telling   `json:"told"`                  // by all who pass alerts on
	Missing   []string  `json:"not_told_by,omitempty"` // those who have not told of it at all
	whileHeld bool
	due, seen time.Time
	endOnly   bool // in memory: of whatever is open under Key
	grace     time.Duration
	tellings  map[string]Telling // in memory: by sink
	origin    *Alert             // of a copy: the one in memory
}

// A Telling is how much of an alert has been passed on.
type Telling int

const (
	Untold    Telling = iota
	Beginning         // that it began
	All
)

// MarshalText is the Telling for programs.
func (t Telling) MarshalText() ([]byte, error) {
	return []byte([]string{"nothing", "beginning", "all"}[t]), nil
}

// Config is what a Service may be told. The zero value works: alerts are written down and shown, and nobody is told.
type Config struct {
	Sinks []Sink // none: nobody is told
	// Held returns jobs that are held for a provider, at most so many, and since when; nil: none are.
	Held func(ctx context.Context, provider string, most int) (map[int64]time.Time, error)
	// Hide are secrets that no alert may hold, whatever those say who raise it.
	Hide []string
	// Runbooks is where the pages are that say what to do, ending in a slash or not; "" means DefaultRunbooks.
	Runbooks string
	// Gather is how long news wait for company; 0 means 2 s. Pause is the time between two messages; 0 means 3 s, which is
	// within Discord's limits for a webhook (5 in 2 s, 30 in a minute). Look is how often the database is looked at; 0 means 1 s.
	Gather, Pause, Look time.Duration
	// Linger is how long nobody must have been held for an incident with WhileHeld until it is over; 0 means 5 s.
	Linger time.Duration
	// Shared says that other processes work on the same database.
	Shared bool
	Log    *slog.Logger // nil: slog.Default()
}

const (
	// steady is how long an incident must last that comes again within often: a machine that comes and goes is told of
	// once, not each time.
	steady = time.Minute
	often  = 10 * time.Minute

	keep      = 30 * 24 * time.Hour // what is over and told is forgotten
	mostFresh = 1000                // in memory, while the database refuses
)

// A Service keeps the alerts of one database. It is safe for concurrent use. A nil Service takes everything and does nothing.
type Service struct {
	db     *db.DB
	config Config
	log    *slog.Logger
	me     string // this process, among those that share the database

	wake    chan struct{} // capacity 1
	tellers []*teller     // one for each sink

	// disk is held while something goes from memory to the disk, and to read by who looks at both: nothing is in neither, or in both.
	disk sync.RWMutex

	mu     sync.Mutex
	fresh  []*Alert                     // not on disk yet, in order
	marks  map[string]map[int64]Telling // by sink: told, but that is not on disk yet
	open   []Alert                      // as last read
	untold map[string]int               // by sink, as last read
	faults map[string]Fault             // by sink: why nothing could be passed on of late
}

// A Fault is why a sink does not take what it is told.
type Fault struct {
	Err   error
	Since time.Time
}

// Open returns the alerts of d. What another process left untold is told while Run runs.
func Open(ctx context.Context, d *db.DB, c Config) (*Service, error) {
	if c.Gather == 0 {
		c.Gather = 2 * time.Second
	}
	if c.Pause == 0 {
		c.Pause = 3 * time.Second
	}
	if c.Look == 0 {
		c.Look = time.Second
	}
	if c.Linger == 0 {
		c.Linger = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	s := &Service{db: d, config: c, log: c.Log, me: rand.Text(), wake: make(chan struct{}, 1), marks: map[string]map[int64]Telling{}, untold: map[string]int{}, faults: map[string]Fault{}}
	var names []string
	for _, sink := range c.Sinks {
		names = append(names, sink.Name())
		s.tellers = append(s.tellers, &teller{sink: sink, wake: make(chan struct{}, 1)})
		s.marks[sink.Name()] = map[int64]Telling{}
	}
	if err := enlist(ctx, d, names, !c.Shared); err != nil {
		return nil, err
	}
	all, err := list(ctx, d.Read(), "", openOnly, 1000)
	s.open = all
	return s, err
}

// SetHeld sets Config.Held, for whoever is made after the Service. It must be called before Run.
func (s *Service) SetHeld(held func(ctx context.Context, provider string, most int) (map[int64]time.Time, error)) {
	s.config.Held = held
}

// Raise begins an incident, unless it is open already. It neither waits nor fails.
func (s *Service) Raise(i Incident) {
	if s == nil {
		return
	}
	s.add(s.alert(i))
}

// RaiseIn is Raise in a transaction: with its commit the incident is certain to be told.
func (s *Service) RaiseIn(ctx context.Context, tx *transaction, i Incident) error {
	if s == nil {
		return nil
	}
	return insert(ctx, tx, s.alert(i))
}

func (s *Service) alert(i Incident) *Alert {
	now := time.Now()
	return &Alert{Key: i.Key, Provider: i.Provider, Text: s.clean(i.Text), Over: s.clean(i.Over), Began: now, seen: now,
		due: now.Add(i.Grace), whileHeld: i.WhileHeld, grace: i.Grace}
}

// End says that an incident is over, and how: "davas is back". Where none is open it does nothing. It neither waits nor fails.
func (s *Service) End(key, over string) {
	if s == nil {
		return
	}
	s.add(&Alert{Key: key, Ended: time.Now(), Over: s.clean(over), endOnly: true})
}

// News tells of something once, in the transaction of what it tells of.
func (s *Service) News(ctx context.Context, tx *transaction, text string) error {
	if s == nil {
		return nil
	}
	now := time.Now()
	return insert(ctx, tx, &Alert{Text: s.clean(text), Began: now, Ended: now, due: now, seen: now})
}

// Holds counts a held job with the incidents that are open for a provider.
func (s *Service) Holds(ctx context.Context, tx *transaction, provider string, job int64) error {
	if s == nil || provider == "" {
		return nil
	}
	return hold(ctx, tx, provider, job, time.Now())
}

// add takes an alert that is not on disk yet.
func (s *Service) add(a *Alert) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = fold(append(s.fresh, a))
	if len(s.fresh) > mostFresh {
		s.fresh = s.fresh[1:]
	}
	signal(s.wake)
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// passed says that an incident was over in its grace, before anybody was told.
func (a *Alert) passed() bool {
	return a.Key != "" && a.most() == Untold && !a.Ended.IsZero() && a.Ended.Before(a.due)
}

// most is what has been told of it at all.
func (a *Alert) most() Telling {
	most := a.Told
	for _, t := range a.tellings {
		most = max(most, t)
	}
	return most
}

// fold puts together what belongs to one incident: its repetitions and its end.
func fold(all []*Alert) (out []*Alert) {
	for _, a := range all {
		i := slices.IndexFunc(out, func(x *Alert) bool { return a.Key != "" && x.Key == a.Key && x.Ended.IsZero() })
		switch {
		case i < 0:
			out = append(out, a)
		case a.endOnly:
			out[i].Ended, out[i].Over = a.Ended, a.Over
		default:
			out[i].seen = a.seen
		}
	}
	return out
}

// clean takes secrets out of a text that somebody else wrote, and what would break a line.
func (s *Service) clean(text string) string {
	for _, secret := range s.config.Hide {
		if len(secret) >= 4 {
			text = strings.ReplaceAll(text, secret, "(hidden)")
		}
	}
	return strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " ")
}

// Open returns the incidents that last, oldest first, from memory.
func (s *Service) Open() []Alert {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	ended := map[string]bool{}
	for _, x := range s.fresh {
		ended[x.Key] = x.endOnly
	}
	var all []Alert
	for _, x := range s.open {
		if !ended[x.Key] && !x.due.After(now) {
			all = append(all, x)
		}
	}
	for _, x := range s.fresh {
		if !x.endOnly && x.Ended.IsZero() && !x.due.After(now) && x.Key != "" {
			all = append(all, *x)
		}
	}
	return all
}

// Faults are why sinks could not pass on anything of late, by name; those that could are not there.
func (s *Service) Faults() map[string]Fault {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.faults)
}

// Undelivered is how many alerts each sink has not told as far as there is something to tell, as last read.
func (s *Service) Undelivered() map[string]int {
	all := map[string]int{}
	if s == nil {
		return all
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tellers {
		all[t.sink.Name()] = s.untold[t.sink.Name()]
	}
	return all
}

// List returns the newest alerts, newest first.
func List(ctx context.Context, d *db.DB, n int) ([]Alert, error) {
	return list(ctx, d.Read(), "", newest, n)
}
