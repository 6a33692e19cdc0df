// Package memory remembers facts about the person, each with its source: the words of one of their own messages, quoted byte for byte.
//
//	messages of the person -> a question to a model, bound to a schema -> checks that believe no model -> facts -> the library's collection
//
// A model only proposes. What is kept is decided by rules that can be read: the quote stands in the message, it is the person who says it
// and it is said of them, what the fact names is named there, nothing in it is a secret. A fact is kept once. Two that cannot both be true
// stand side by side until the person says which holds, unless they said so themselves ("no longer Berlin"). What is undone or replaced is
// kept as history; what is forgotten is gone, from every file.
package memory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A State is where a fact stands.
type State string

const (
	Current    State = "current"    // it holds
	Superseded State = "superseded" // another one took its place; it is history
	Undone     State = "undone"     // it was taken back
	forgetting State = "forgetting" // it is on its way out: nobody sees it any more
)

// An Origin is how a fact came to be.
type Origin string

const (
	Learned Origin = "learned" // from a conversation, by Learn
	Told    Origin = "told"    // in a conversation, by the tool remember
	Added   Origin = "added"   // by hand
)

// A Fact is one thing that is remembered about the person.
type Fact struct {
	ID           int64     `json:"id"`
	Text         string    `json:"text"`
	State        State     `json:"state"`
	Origin       Origin    `json:"origin"`
	Confidence   float64   `json:"confidence"` // 0 to 1, as the model said
	Private      bool      `json:"private"`    // it comes from what no cloud provider may see
	SupersededBy int64     `json:"superseded_by,omitempty"`
	Supersedes   []int64   `json:"supersedes"`
	Created      time.Time `json:"created"`
	Changed      time.Time `json:"changed"`
	Sources      []Source  `json:"sources"` // the first one said first; none of what was added by hand
	// Conflict is the open contradiction that the fact stands in; 0 none.
	Conflict int64 `json:"conflict,omitempty"`

	norm string
	rev  int64
}

// A Source is the words that a fact rests on: the bytes [Start, Start+len(Quote)) of a message of the person.
type Source struct {
	Chat    int64     `json:"chat"`
	Message int64     `json:"message"`
	Quote   string    `json:"quote"`
	Start   int       `json:"start"`
	Private bool      `json:"private"`
	Said    time.Time `json:"said"`
}

// A Conflict is two facts that cannot both be true.
type Conflict struct {
	ID     int64     `json:"id"`
	Older  Fact      `json:"older"`
	Newer  Fact      `json:"newer"`
	Opened time.Time `json:"opened"`
}

// A Message is what the person wrote.
type Message struct {
	ID      int64
	Chat    int64
	Text    string
	At      time.Time
	Private bool // it stands in a part of a conversation that no cloud provider may see
	// Open says that its answer is still on the way, so that Private may not be the last word.
	Open bool
}

// A Conversation is one that there is, and when it changed last.
type Conversation struct {
	ID      int64
	Changed time.Time
}

// An Entry is a fact as it stands in the index.
type Entry struct {
	Name string // see Name
	Text string
	Said time.Time
}

// Config is what a Service is made of. DB is required; what is nil is not done.
type Config struct {
	DB       *db.DB
	Provider llm.Provider // asked by Learn
	// Cost prices an answer in micro-USD; nil: unknown.
	Cost func(provider, model string, u llm.Usage) llm.Count
	// Model names who is asked. For private messages it must be a model of a machine of the person's own; ErrNoModel where there is none.
	Model         func(private bool) (string, error)
	Conversations func(ctx context.Context) ([]Conversation, error)
	Said          func(ctx context.Context, chat int64) ([]Message, error)            // what the person wrote in one, oldest first
	There         func(ctx context.Context, messages []int64) (map[int64]bool, error) // which of them there still are

	// Put, Erase and Search are the index. Erase returns when nothing of the entries is left in it.
	Put    func(ctx context.Context, all ...Entry) error
	Erase  func(ctx context.Context, names ...string) error
	Search func(ctx context.Context, query string, most int, private bool) (names []string, err error)
	// Blank removes words from what others have written down: the log of tools.
	Blank func(ctx context.Context, words ...string) error
	// Scrub has the databases' files hold nothing any more of what was deleted.
	Scrub func(ctx context.Context) error

	Off bool         // nothing is learned or recalled by itself
	Log *slog.Logger // nil: slog.Default()
}

var (
	ErrNotFound = errors.New("there is no such fact")
	ErrNoModel  = errors.New("no model of a machine of your own can read them")
	// ErrNothing says that there is nothing to undo.
	ErrNothing = errors.New("there is nothing to undo")
)

// A RefusedError says why a fact is not taken.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

func refused(format string, a ...any) error { return &RefusedError{fmt.Sprintf(format, a...)} }

// A Service owns the facts in one database. It is safe for concurrent use.
type Service struct {
	Config
	log *slog.Logger

	learning  sync.Mutex    // held while messages are read: a model may take its time
	changing  sync.Mutex    // held while facts are written
	unsettled chan struct{} // capacity 1: Run is to finish what could not be finished

	hook func(point string) // of tests: called between two effects
}

// New returns the service of the facts in c.DB.
func New(c Config) *Service {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Service{Config: c, log: c.Log, unsettled: make(chan struct{}, 1)}
}

// passed tells tests where the work stands.
func (s *Service) passed(point string) {
	if s.hook != nil {
		s.hook(point)
	}
}

// Name is what a fact is called in the index. Those of private ones begin with privateFolder, which the library never sends.
func (f Fact) Name() string {
	if f.Private {
		return fmt.Sprintf("%s%d", privateFolder, f.ID)
	}
	return fmt.Sprint(f.ID)
}

const privateFolder = "private/"

// both are the names that a fact may have had.
func (f Fact) both() []string {
	return []string{fmt.Sprint(f.ID), fmt.Sprintf("%s%d", privateFolder, f.ID)}
}

// longest is how many bytes a fact may have.
const longest = 300

// check says why a text cannot be a fact.
func check(text string) error {
	switch {
	case strings.TrimSpace(text) == "":
		return refused("the fact is empty: write one sentence")
	case len(text) > longest:
		return refused("the fact has %d bytes, and may have %d: write one short sentence", len(text), longest)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Cf, r)
	}):
		return refused("the fact has line breaks or invisible characters: write one sentence on one line")
	case strings.Contains(text, "://"):
		return refused("the fact holds an address of the web: leave it out")
	case len(secrets(text)) > 0:
		return refused("the fact looks like a secret (a key, password, card number, IBAN or code), and secrets are never kept here: use a password manager")
	case normal(text) == "":
		return refused("the fact says nothing: write one sentence")
	}
	return nil
}

// List returns the facts in a state, the newest first; "" all.
func (s *Service) List(ctx context.Context, state State) ([]Fact, error) {
	return s.facts(ctx, s.DB.Read(), filter{state: state})
}

// One returns a fact.
func (s *Service) One(ctx context.Context, id int64) (Fact, error) {
	all, err := s.facts(ctx, s.DB.Read(), filter{ids: []int64{id}})
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Fact{}, err
	}
	return all[0], nil
}

// Some returns those of facts that there still are, by number.
func (s *Service) Some(ctx context.Context, ids []int64) (map[int64]Fact, error) {
	found := map[int64]Fact{}
	if len(ids) == 0 {
		return found, nil
	}
	all, err := s.facts(ctx, s.DB.Read(), filter{ids: ids})
	for _, f := range all {
		found[f.ID] = f
	}
	return found, err
}

// Conflicts returns the open contradictions, the oldest first.
func (s *Service) Conflicts(ctx context.Context) ([]Conflict, error) {
	return s.conflicts(ctx)
}

// Add keeps a fact that a person wrote.
func (s *Service) Add(ctx context.Context, text string) (Fact, error) {
	text = strings.TrimSpace(text)
	if err := check(text); err != nil {
		return Fact{}, err
	}
	return s.keep(ctx, Fact{Text: text, Origin: Added, Confidence: 1, norm: normal(text)}, "")
}

// Remember keeps a fact that a model proposes in a conversation, whose messages of the person are said. The quote must stand in one of them.
func (s *Service) Remember(ctx context.Context, text, quote, run string, said []Message) (Fact, error) {
	text, quote = strings.TrimSpace(text), strings.TrimSpace(quote)
	if err := check(text); err != nil {
		return Fact{}, err
	}
	why := refused("the quote %q does not stand in any message of the person here: quote their own words exactly", quote)
	for i := len(said) - 1; i >= 0; i-- {
		m := said[i]
		x := read(m.Text)
		c := candidate{Fact: text, Quote: quote, About: aboutUser, Lasting: true, Confidence: 1}
		switch drop := x.judge(&c); drop {
		case "":
			f := Fact{Text: text, Origin: Told, Confidence: 1, norm: normal(text), Private: m.Private,
				Sources: []Source{{Chat: m.Chat, Message: m.ID, Quote: c.Quote, Start: c.Start, Private: m.Private, Said: m.At}}}
			return s.keep(ctx, f, run)
		case dropQuote:
		default:
			return Fact{}, refused("that is not kept: %s", drop.says())
		}
	}
	return Fact{}, why
}

// keep writes a fact, or adds its sources to the one that says the same.
func (s *Service) keep(ctx context.Context, f Fact, run string) (Fact, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if same, err := s.facts(ctx, s.DB.Read(), filter{norm: f.norm, state: Current}); err != nil {
		return Fact{}, err
	} else if len(same) > 0 && f.Origin == Added {
		return Fact{}, refused("that is remembered already: fact %d, %q", same[0].ID, same[0].Text)
	}
	var id int64
	err := s.DB.Tx(ctx, func(tx *transaction) (err error) {
		id, _, err = s.write(ctx, tx, placed{fact: f}, run, time.Now())
		return err
	})
	if err != nil {
		return Fact{}, err
	}
	if err := s.index(ctx); err != nil {
		return Fact{}, err
	}
	return s.One(ctx, id)
}

// Edit gives a fact another text. Its quotes stay.
func (s *Service) Edit(ctx context.Context, id int64, text string) (Fact, error) {
	text = strings.TrimSpace(text)
	if err := check(text); err != nil {
		return Fact{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	f, err := s.One(ctx, id)
	if err != nil {
		return Fact{}, err
	}
	if f.State != Current {
		return Fact{}, refused("fact %d is %s, and only current ones can be changed", id, f.State)
	}
	if f.Text == text {
		return f, nil
	}
	if err := s.free(ctx, normal(text), id); err != nil {
		return Fact{}, err
	}
	err = s.DB.Tx(ctx, func(tx *transaction) error { return s.rewrite(ctx, tx, f, text, time.Now()) })
	if err == nil {
		err = s.index(ctx)
	}
	if err != nil {
		return Fact{}, err
	}
	return s.One(ctx, id)
}

// free says that no other current fact says the same.
func (s *Service) free(ctx context.Context, norm string, but int64) error {
	same, err := s.facts(ctx, s.DB.Read(), filter{norm: norm, state: Current})
	if err != nil {
		return err
	}
	for _, f := range same {
		if f.ID != but {
			return refused("that is remembered already: fact %d, %q", f.ID, f.Text)
		}
	}
	return nil
}

// The outcomes of a contradiction.
const (
	HoldsOlder = "older"
	HoldsNewer = "newer"
	HoldsBoth  = "both"
)

// Resolve says which side of a contradiction holds. The other one is history.
func (s *Service) Resolve(ctx context.Context, conflict int64, holds string) error {
	if holds != HoldsOlder && holds != HoldsNewer && holds != HoldsBoth {
		return refused("%q is no outcome: say %s, %s or %s", holds, HoldsOlder, HoldsNewer, HoldsBoth)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	err := s.DB.Tx(ctx, func(tx *transaction) error { return s.resolve(ctx, tx, conflict, holds, time.Now()) })
	if err != nil {
		return err
	}
	return s.index(ctx)
}

// An Undoing says what was undone.
type Undoing struct {
	Kind string `json:"kind"` // made, edited or resolved
	Fact Fact   `json:"fact"` // as it is now
}

// Undo takes back the last change: of a fact, or (0) of all. What was learned or added counts no longer, what was edited reads as before,
// a contradiction that was resolved is open again.
func (s *Service) Undo(ctx context.Context, fact int64) (Undoing, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if fact != 0 {
		if _, err := s.One(ctx, fact); err != nil {
			return Undoing{}, err
		}
	}
	u := Undoing{}
	err := s.DB.Tx(ctx, func(tx *transaction) (err error) {
		u.Kind, fact, err = s.undo(ctx, tx, fact, time.Now())
		return err
	})
	if err == nil {
		err = s.index(ctx)
	}
	if err == nil {
		u.Fact, err = s.One(ctx, fact)
	}
	return u, err
}
