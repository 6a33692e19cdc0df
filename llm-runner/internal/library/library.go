// Package library knows the owner's notes: it keeps an index of a tree of files, and of documents put beside them, searches it, and answers
// questions with passages that are quoted byte for byte, with no model at all.
//
//	files, documents -> Split -> index (SQLite) -> Search -> Vault, an llm.Provider
//
// Files and what was put are the truth, and the index can be made again at any time. Before a passage is shown as a quote it is read
// again from its source; one that no longer stands there is not shown.
package library

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/library/documents"
)

// version changes when Split or what is indexed does: an index made by another version is made again.
const version = "3"

// The collections.
const (
	Notes   = "vault"   // the files of the Source
	Uploads = "uploads" // documents that were handed in
	Web     = "web"     // fetched pages
	Memory  = "memory"  // facts about the owner
)

// A Library is the index of one Source. It is safe for concurrent use.
type Library struct {
	db     *db.DB
	source Source
	wake   chan struct{} // capacity 1: look at the files now
	every  time.Duration // between two looks

	watching bool        // be told of changes between them
	anew     atomic.Bool // index everything at the next look

	words    atomic.Pointer[index]
	mind     *mind            // nil: words alone
	patience time.Duration    // see the constant
	reranker *reranker        // nil: nobody orders the best again
	syncing  lock             // held by whoever writes the index
	files    map[string]known // of the Source

	documents documents.Store
	read      extract.Reader // of documents
	private   Privacy
	// Under syncing: of documents, as the index has them.
	puts documents.Marks
	kept map[string]map[string]known // by collection and path

	mu     sync.Mutex
	status Status
	unread []Skip // of the last look: what could not be read and is not in the index
	busy   int    // how many look or read
	// Documents among the files take long to read, so a look only notes them down: by path. Whoever reads them holds reading.
	books    map[string]book
	renewing bool      // everything is being read again
	renewed  time.Time // when everything was, last
	reading  lock
	shelved  chan struct{} // capacity 1: there are books
}

// A Config is what a Library is made of.
type Config struct {
	DB        *db.DB // of the index
	Documents *db.DB // of what is put; nil: DB. Several processes may share it
	Source    Source
	Read      extract.Reader // nil: extract.Read
	NeverSend Privacy
}

// Status is what is known of the index, for people to see.
type Status struct {
	Source   string `json:"source"`            // the Source's name
	Notes    int    `json:"notes"`             // in the index
	Found    int    `json:"found"`             // files seen by the last look, those that are skipped included
	Passages int    `json:"passages"`          // in the index
	Skipped  []Skip `json:"skipped"`           // by path
	Partly   []Skip `json:"partly"`            // by path: what of a document could not be read
	Reading  string `json:"reading,omitempty"` // the document that is read now
	// Collections counts the documents of each other collection.
	Collections map[string]int `json:"collections"`
	NeverSend   []NeverSend    `json:"never_send"`
	Changes     int64          `json:"-"` // counts up whenever the index changes, since the start of this process
	Syncing     bool           `json:"syncing"`
	Synced      time.Time      `json:"synced"` // when the last Sync that went well ended; zero: none did yet
	Error       string         `json:"error,omitempty"`
	Unwatched   string         `json:"unwatched,omitempty"` // whose changes the system does not tell of, and what helps

	Meaning MeaningStatus `json:"meaning"`
}

// Sentence says how much is indexed, for people.
func (s Status) Sentence() string {
	text := fmt.Sprintf("%d of %d notes of %s are indexed, in %d passages; %d skipped", s.Notes, max(s.Found, s.Notes), s.Source, s.Passages, len(s.Skipped))
	for _, c := range slices.Sorted(maps.Keys(s.Collections)) {
		text += fmt.Sprintf("; %d in %s", s.Collections[c], c)
	}
	if s.Unwatched != "" {
		text += "; changes are not told of at once in " + s.Unwatched
	}
	return text
}

// pollEvery is how often Run looks at the files. A look lists every folder and reads nothing that has not changed.
const pollEvery = 5 * time.Second

// Open returns the library of source, with what the index in d already holds of it. Where d holds the index of another
// tree, that is emptied. Nothing is read from source yet: that is for Run, or Sync.
func Open(ctx context.Context, d *db.DB, source Source) (*Library, error) {
	return New(ctx, Config{DB: d, Source: source})
}

// New is Open with all that can be said.
func New(ctx context.Context, c Config) (*Library, error) {
	d, source := c.DB, c.Source
	if c.Documents == nil {
		c.Documents = d
	}
	if c.Read == nil {
		c.Read = extract.Read
	}
	if err := stamp(ctx, d, "v"+version+" "+source.ID); err != nil {
		return nil, err
	}
	words, err := loadIndex(ctx, d)
	if errors.Is(err, errSegment) { // it is made again
		if err := stamp(ctx, d, "damaged"); err != nil {
			return nil, err
		}
		return New(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	files, err := loadKnown(ctx, d, Notes)
	if err != nil {
		return nil, err
	}
	patterns, err := readExcluded(ctx, d)
	if err != nil {
		return nil, err
	}
	source.excluded = &exclusions{}
	source.excluded.patterns.Store(&patterns)
	l := &Library{db: d, source: source, wake: make(chan struct{}, 1), syncing: newLock(), reading: newLock(), shelved: make(chan struct{}, 1), every: pollEvery, patience: patience, watching: true, files: files,
		documents: documents.Store{DB: c.Documents}, read: c.Read, private: c.NeverSend}
	l.words.Store(words)
	if l.renewed, err = readRenewed(ctx, d); err != nil {
		return nil, err
	}
	l.status = Status{Source: source.Name, Skipped: []Skip{}, Partly: []Skip{}, Found: len(files), Collections: map[string]int{}, NeverSend: []NeverSend{}}
	if l.kept, err = knownDocuments(ctx, d); err != nil {
		return nil, err
	}
	l.count(nil)
	return l, nil
}

// Run keeps the index up to date until ctx ends: at once, when files change, every few seconds all the same, and whenever an answer met
// a note that had changed. Each night it reads everything again (Reindex), and a night that was missed is made up for. Documents are read
// beside it, so that notes do not wait for them. What goes wrong is told by Status and tried again.
func (l *Library) Run(ctx context.Context) error {
	if l.source.dir != "" && l.watching {
		done := make(chan struct{})
		defer func() { <-done }()
		go func() {
			defer close(done)
			l.watch(ctx)
		}()
	}
	if l.mind != nil {
		done := make(chan struct{})
		defer func() { <-done }()
		go func() {
			defer close(done)
			l.mind.run(ctx)
		}()
	}
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-l.shelved:
				l.readBooks(ctx, &Report{}) //nolint:errcheck // Status tells, and the next look finds them again
			}
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var tried time.Time // to make up for a night
	night := time.NewTimer(untilNight(time.Now()))
	defer night.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			all = l.anew.Swap(false)
		case <-timer.C:
		case <-night.C:
			all = true
			night.Reset(untilNight(time.Now()))
		}
		report, err := l.pass(ctx, all)
		if err != nil || !l.source.fixed {
			timer.Reset(pause(l.every, report.walked))
		}
		if err != nil {
			continue
		}
		select {
		case l.shelved <- struct{}{}:
		default:
		}
		if now := time.Now(); l.missed(now) && now.Sub(tried) > time.Hour {
			tried = now
			l.Anew()
		}
	}
}

// pause is how long after a look the next one begins: listing the files takes no more than a twentieth of the time on a slow disk, and what
// nobody tells of is found within a minute all the same.
func pause(every, walked time.Duration) time.Duration {
	return max(every, min(20*walked, time.Minute))
}

// missed says that the last night went by without everything being read: nothing ran, or slept. The hour more than a day is for the clocks
// that are set back in autumn.
func (l *Library) missed(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.renewing && now.Round(0).Sub(l.renewed) > 25*time.Hour
}

// nightly is the hour, local time, at which everything is read again.
const nightly = 3

func untilNight(now time.Time) time.Duration {
	y, m, d := now.Date()
	next := time.Date(y, m, d, nightly, 0, 0, 0, now.Location())
	if !next.After(now) {
		next = time.Date(y, m, d+1, nightly, 0, 0, 0, now.Location())
	}
	return next.Sub(now)
}

// Anew has Run index every note again, soon; it does not wait for it.
func (l *Library) Anew() {
	l.anew.Store(true)
	l.nudge()
}

// nudge has Run look at the files now.
func (l *Library) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Status returns what is known of the index, without asking the disk.
func (l *Library) Status() Status {
	l.mu.Lock()
	s := l.status
	l.mu.Unlock()
	s.Changes = l.words.Load().number
	s.Meaning, s.Partly = l.mind.Status(), l.mind.partly(s.Partly)
	return s
}
