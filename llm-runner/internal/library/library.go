// Package library knows the owner's notes: it keeps an index of a tree of Markdown files, searches it, and answers
// questions with passages that are quoted byte for byte, with no model at all.
//
//	files -> Split -> index (SQLite, FTS5) -> Search -> Vault, an llm.Provider
//
// The files are the truth and the index can be made again at any time. Before a passage is shown as a quote it is read
// again from its file; one that no longer stands there is not shown.
package library

import (
	"context"
	"fmt"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// version changes when Split or what is indexed does: an index made by another version is made again.
const version = "1"

// A Library is the index of one Source. It is safe for concurrent use.
type Library struct {
	db     *db.DB
	source Source
	wake   chan struct{} // capacity 1: look at the files now
	every  time.Duration // between two looks

	syncing sync.Mutex // held by the one Sync that runs
	index   map[string]known

	mu     sync.Mutex
	status Status
}

// Status is what is known of the index, for people to see.
type Status struct {
	Source   string    `json:"source"`   // the Source's name
	Notes    int       `json:"notes"`    // in the index
	Found    int       `json:"found"`    // Markdown files seen by the last look, those that are skipped included
	Passages int       `json:"passages"` // in the index
	Skipped  []Skip    `json:"skipped"`  // by path
	Syncing  bool      `json:"syncing"`
	Synced   time.Time `json:"synced"` // when the last Sync that went well ended; zero: none did yet
	Error    string    `json:"error,omitempty"`
}

// pollEvery is how often Run looks at the files. A look lists every folder and reads nothing that has not changed.
const pollEvery = 5 * time.Second

// Open returns the library of source, with what the index in d already holds of it. Where d holds the index of another
// tree, that is emptied. Nothing is read from source yet: that is for Run, or Sync.
func Open(ctx context.Context, d *db.DB, source Source) (*Library, error) {
	if err := stamp(ctx, d, "v"+version+" "+source.ID); err != nil {
		return nil, err
	}
	index, err := loadKnown(ctx, d)
	if err != nil {
		return nil, err
	}
	l := &Library{db: d, source: source, wake: make(chan struct{}, 1), every: pollEvery, index: index}
	l.status = Status{Source: source.Name, Skipped: []Skip{}, Found: len(index)}
	l.count(nil)
	return l, nil
}

// Run keeps the index up to date until ctx ends: at once, then every few seconds, and whenever an answer met a note that
// had changed. What goes wrong is told by Status and tried again.
func (l *Library) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-timer.C:
		}
		began := time.Now()
		if _, err := l.Sync(ctx); err != nil || !l.source.fixed {
			// Looking never takes more than a twentieth of the time, however slow the disk.
			timer.Reset(max(l.every, 20*time.Since(began)))
		}
	}
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
	defer l.mu.Unlock()
	return l.status
}

// A Note is a file of the library, for the page that shows it.
type Note struct {
	Path  string
	Title string
	Text  []byte // the file as it is now
}

// Note reads a note. A path that cannot be of a note (with "..", hidden, not Markdown) is fs.ErrNotExist; a link that leads
// out of the tree is an error too.
func (l *Library) Note(ctx context.Context, path string) (Note, error) {
	if err := ctx.Err(); err != nil {
		return Note{}, err
	}
	t, done, err := l.source.open()
	if err != nil {
		return Note{}, err
	}
	defer done() //nolint:errcheck // it was only read
	text, err := read(t, path)
	if err != nil {
		return Note{}, fmt.Errorf("read note: %w", err)
	}
	return Note{Path: path, Title: Split(path, text).Title, Text: text}, nil
}
