package library

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/vector"
)

// Meaning is what the lane of meaning is made of. Vectors are made in the background, and a search never waits for them.
type Meaning struct {
	Store vector.Store // a collection for each of the library's
	// Embedder returns what makes vectors as they are stamped; the zero Stamp means those that are wanted now. It waits until that can
	// be told, or ctx ends.
	Embedder func(ctx context.Context, s vector.Stamp) (*embed.Embedder, error)
	// Withheld says of a note that the maker of a model's vectors must not see its text: it is found by words alone. nil: none is.
	Withheld func(model, collection, path string) bool
	// Words are what a store with a lane of words of its own is given of a passage: its stems, those of the title and the headings above it
	// too, and how many passages have on average. nil: nothing.
	Words func(stems []string, average float64) vector.Words
	// Asked are the words of a question for that lane. nil: there is no such lane.
	Asked func(stems []string) vector.Words
	// Copy has a store that can do so keep a copy of a collection, each night. nil: there is none.
	Copy func(ctx context.Context, collection string) error
}

// MeaningStatus is how far the lane of meaning is, for people to see.
type MeaningStatus struct {
	State   string    `json:"state"`             // see below
	Model   string    `json:"model,omitempty"`   // whose vectors are made or kept
	Serving string    `json:"serving,omitempty"` // the model whose vectors answer until those of Model are all there
	Notes   int       `json:"notes"`             // whose vectors are there
	Of      int       `json:"of"`                // notes that should have some
	Left    float64   `json:"left_s,omitempty"`  // seconds until all are there, as fast as it went of late
	Says    string    `json:"says,omitempty"`    // what is waited for, or what is wrong
	Until   time.Time `json:"until,omitzero"`    // when it is tried again, UTC
	Made    int64     `json:"made"`              // vectors asked of the model since the start
	Cut     int64     `json:"cut"`               // texts of which the model read only the beginning, since the start; Status.Partly names the notes
	// Behind is how many notes have no vectors yet, or those of an older state, and Stale names the first of them: until they are made, words
	// alone find what is new in them.
	Behind   int      `json:"behind"`
	Stale    []string `json:"stale,omitempty"`
	Healed   string   `json:"healed,omitempty"` // what was found damaged, and is made again
	Night    string   `json:"night,omitempty"`  // what went wrong when the vectors were looked after last
	Withheld int      `json:"withheld"`         // notes that never get any, because the model is outside: see Meaning.Withheld
}

// namedStale is how many stale notes are named.
const namedStale = 20

// The states of the lane of meaning.
const (
	MeaningOff     = "off"     // nobody embeds: words alone
	MeaningSeeking = "seeking" // it is not known yet whether a model is there
	MeaningMaking  = "making"  // vectors are being made
	MeaningWaiting = "waiting" // the model or the store cannot be reached, or is busy; it goes on by itself
	MeaningReady   = "ready"   // all vectors are there
)

// A mind keeps the vectors up to date and asks them.
type mind struct {
	Meaning
	lib  *Library
	wake chan struct{} // capacity 1: dirty has grown

	mu      sync.Mutex
	dirty   map[string]map[string]bool // by collection: paths of notes that changed
	making  []string                   // notes that are seen to now, as people read them
	lacks   map[string]map[string]lack // by collection and path: notes that have not all vectors, and will not get them
	serving map[string]serving         // by collection
	model   *embed.Embedder            // whose vectors are made; nil: not known yet
	status  MeaningStatus
	tending bool      // the vectors are to be looked after
	began   time.Time // of the work under way
	done    int       // notes since then

	asked questions
}

// serving is a collection that answers, and what makes its questions' vectors.
type serving struct {
	vector.Collection
	embedder *embed.Embedder
	trust    float64 // see trust.go
}

// Understand adds the lane of meaning to the library. It is called before Run, which keeps the vectors up to date, and before the first
// search.
func (l *Library) Understand(m Meaning) {
	l.mind = &mind{Meaning: m, lib: l, wake: make(chan struct{}, 1), dirty: map[string]map[string]bool{}, serving: map[string]serving{},
		lacks: map[string]map[string]lack{}, status: MeaningStatus{State: MeaningSeeking}}
}

// changed notes down whose vectors are stale.
func (m *mind) changed(collection string, changes []*change) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		if !c.same {
			m.mark(collection, c.path)
		}
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mind) mark(collection, path string) {
	if m.dirty[collection] == nil {
		m.dirty[collection] = map[string]bool{}
	}
	m.dirty[collection][path] = true
}

func (m *mind) update(f func(*MeaningStatus)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.status)
}

// Status returns how far it is; a nil mind is off.
func (m *mind) Status() MeaningStatus {
	if m == nil {
		return MeaningStatus{State: MeaningOff}
	}
	m.mu.Lock()
	s, model := m.status, m.model
	left := 0
	s.Stale = slices.Clone(m.making)
	for collection, paths := range m.dirty {
		left += len(paths)
		for path := range paths {
			s.Stale = append(s.Stale, readably(collection, path))
		}
	}
	slices.Sort(s.Stale)
	s.Stale = slices.Compact(s.Stale)
	s.Behind, s.Stale = len(s.Stale), s.Stale[:min(len(s.Stale), namedStale)]
	for _, paths := range m.lacks {
		for _, l := range paths {
			if l == withheld {
				s.Withheld++
			}
		}
	}
	if s.State == MeaningMaking && m.done > 0 {
		s.Left = (time.Since(m.began) / time.Duration(m.done) * time.Duration(left)).Seconds()
	}
	m.mu.Unlock()
	if model != nil {
		e := model.Status()
		s.Model, s.Made, s.Cut = e.Model, e.Made, e.Cut
		if e.Waiting != "" {
			s.State, s.Says, s.Until, s.Left = MeaningWaiting, e.Waiting, e.Until, 0
		}
	}
	return s
}

// readably names a note for people: with its collection, where that is not the one of files.
func readably(collection, path string) string {
	if collection == Notes {
		return path
	}
	return collection + ": " + path
}

// Sentence says how far it is.
func (s MeaningStatus) Sentence() string {
	switch s.State {
	case MeaningOff:
		if s.Says == "" {
			return "Notes are found by words alone; library.embed turns the search by meaning on."
		}
		return "Notes are found by words alone: " + s.Says + "."
	case MeaningSeeking:
		return "A model that makes vectors is being looked for."
	case MeaningReady:
		kept := ""
		if s.Withheld > 0 {
			kept = fmt.Sprintf("; vault.never_send keeps %d more from it", s.Withheld)
		}
		if s.Healed != "" {
			kept += "; healed: " + s.Healed
		}
		if s.Night != "" {
			kept += "; looking after them failed: " + s.Night
		}
		return fmt.Sprintf("%d notes are found by meaning too, by %s%s.", s.Notes-s.Withheld, s.Model, kept)
	}
	text := fmt.Sprintf("%d of %d notes have vectors by %s", s.Notes, s.Of, cmp.Or(s.Model, "a model that is not known yet"))
	if s.Left > 1 {
		text += fmt.Sprintf(", about %s left", (time.Duration(s.Left) * time.Second).Round(time.Second))
	}
	if s.Serving != "" {
		text += "; those by " + s.Serving + " answer until then"
	}
	if s.State == MeaningWaiting {
		text += "; it waits: " + s.Says
	}
	return text + "."
}

// Missing names the notes that are behind, in one sentence; "" none is.
func (s MeaningStatus) Missing() string {
	if s.Behind == 0 || s.State == MeaningOff {
		return ""
	}
	text := "Not found by meaning yet: " + strings.Join(s.Stale, ", ")
	if more := s.Behind - len(s.Stale); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + "."
}

// Between two tries after an error: so long at first, then twice as long each time up to the last.
const (
	meaningPause   = time.Second
	longestMeaning = time.Minute
)

// run keeps the vectors up to date until ctx ends: now, and whenever notes change. Errors are told by Status and tried again.
func (m *mind) run(ctx context.Context) {
	works := map[string]*work{}
	defer func() {
		for _, w := range works {
			w.close(ctx)
		}
	}()
	for pause := meaningPause; ; {
		began := time.Now()
		err := m.pass(ctx, works)
		if ctx.Err() != nil {
			return
		}
		if err == nil || time.Since(began) > longestMeaning { // it went well for a while
			pause = meaningPause
		}
		if err == nil {
			select {
			case <-m.wake:
			case <-ctx.Done():
				return
			}
			continue
		}
		m.update(func(s *MeaningStatus) {
			s.State, s.Says, s.Until = MeaningWaiting, err.Error(), time.Now().Add(pause).UTC()
			if errors.Is(err, ErrNoModel) {
				s.State, s.Until = MeaningOff, time.Time{}
			}
		})
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, longestMeaning)
	}
}

// pass makes what is missing now. works are the collections that are open; nil is one that failed and is opened anew. One that fails holds
// no other up: the error tells of all that did.
func (m *mind) pass(ctx context.Context, works map[string]*work) error {
	e, err := m.Embedder(ctx, vector.Stamp{})
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.model = e
	m.mu.Unlock()
	stamp, err := e.Stamp(ctx)
	if err != nil {
		return err
	}
	m.update(func(s *MeaningStatus) { s.Says, s.Until = "", time.Time{} })
	names := m.marked()
	if len(works) == 0 {
		all, err := collections(ctx, m.lib.db)
		if err != nil {
			return err
		}
		names = append(names, all...)
	}
	for _, name := range names {
		if works[name] == nil {
			works[name] = nil
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(works)) {
		err := func() (err error) {
			if works[name] == nil {
				if works[name], err = m.open(ctx, name, stamp, e); err != nil {
					return err
				}
			}
			return works[name].catchUp(ctx)
		}()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			works[name].close(ctx)
			works[name] = nil
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if m.tends() {
		if err := m.lookAfter(ctx, works, e); ctx.Err() != nil {
			return err
		}
	}
	m.settled(works)
	return nil
}

// tend has the vectors looked after once they are up to date: everything was indexed again. m may be nil.
func (m *mind) tend() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tending = true
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mind) tends() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.tending = false }()
	return m.tending
}

// unused is for how long the cache keeps a vector that nobody asks for. Every night all texts of the library are asked for.
const unused = 60 * 24 * time.Hour

// lookAfter reads the vectors of all collections and makes damaged ones again, has the store keep copies, and takes out of the cache what is
// not used any more. It does as much as it can; what it cannot is told by Status.
func (m *mind) lookAfter(ctx context.Context, works map[string]*work, e *embed.Embedder) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(works)) {
		w := works[name]
		if files, ok := w.collection.(interface {
			Check(ctx context.Context) (damaged []string, err error)
		}); ok {
			damaged, err := files.Check(ctx)
			m.heals(name, damaged)
			if err == nil && len(damaged) > 0 {
				err = w.catchUp(ctx)
			}
			errs = append(errs, err)
		}
		if m.Copy != nil && name != Memory { // what is forgotten must not be in a copy
			errs = append(errs, m.Copy(ctx, name))
		}
	}
	_, err := e.Prune(ctx, unused)
	err = errors.Join(append(errs, err)...)
	m.update(func(s *MeaningStatus) {
		s.Night = ""
		if err != nil {
			s.Night = err.Error()
		}
	})
	return err
}

// heals has damaged vectors made again.
func (m *mind) heals(collection string, damaged []string) {
	if len(damaged) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, path := range damaged {
		m.mark(collection, path)
	}
	m.status.Healed = fmt.Sprintf("the vectors of %s and %d more were damaged on the disk", readably(collection, damaged[0]), len(damaged)-1)
}

// mended is err without what is healed by itself: damaged vectors, which are made again.
func (m *mind) mended(collection string, err error) error {
	if damaged := (*vector.DamagedError)(nil); errors.As(err, &damaged) {
		m.heals(collection, damaged.Names)
		return nil
	}
	return err
}

// Embed makes the vectors that are missing, and returns when all are there. It is for commands that do not stay; Run does so by itself.
func (l *Library) Embed(ctx context.Context) error {
	if l.mind == nil {
		return errNoMeaning
	}
	if err := l.mind.pass(ctx, map[string]*work{}); err != nil {
		return fmt.Errorf("make vectors: %w", err)
	}
	return nil
}

// marked returns the collections in which something is stale.
func (m *mind) marked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.dirty))
}

// settled tells that nothing is left to do.
func (m *mind) settled(works map[string]*work) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done >= manyNotes {
		debug.FreeOSMemory() // much was taken for it that is not needed again
	}
	m.done = 0
	for _, paths := range m.dirty {
		if len(paths) > 0 {
			return
		}
	}
	m.status.State, m.status.Serving, m.status.Says = MeaningReady, "", ""
	m.sum(works)
}

// sum sets the counts of Status. The caller holds mu.
func (m *mind) sum(works map[string]*work) {
	m.status.Notes, m.status.Of = 0, 0
	for _, w := range works { // none is nil: all went well
		m.status.Of += len(w.have)
	}
	left := 0
	for _, paths := range m.dirty {
		left += len(paths)
	}
	m.status.Notes = m.status.Of
	m.status.Of += left
}
