package route

import (
	"context"
	"slices"
	"sync"
)

// A line gives out the places of a machine that does one thing, or a few, at a time. Who waits for an answer now goes before
// work that may wait; among equals, requests for the model that the machine has loaded go first, since changing models costs
// a machine at home more than most answers do; then who came first. Nobody is overtaken more than patience times, so a
// request has its place after those that were before it when it came, and patience more, at the latest.
//
// Where several processes share the machine, places are had from them all together (see quota.Places), and who in line here has the
// next one that comes is picked when it has come.
type line struct {
	mu      sync.Mutex
	places  int
	loaded  string // the model that had a place last
	waiting []*waiter

	share   func(using, waiting int) (granted int) // nil: all places are this process's
	using   int                                    // places in use here, where they are shared
	minding bool                                   // mind runs
	news    chan struct{}                          // holds one: mind has something to do
}

// newLine returns a line of so many places.
func newLine(places int) *line { return &line{places: places, news: make(chan struct{}, 1)} }

// patience is how often a request is overtaken before it goes first.
const patience = 8

type waiter struct {
	model     string
	patient   bool // it is work that may wait
	overtaken int
	ready     chan struct{} // closed when it has its place
}

// enter waits for a place until ctx ends. Every enter without an error is followed by one leave.
func (l *line) enter(ctx context.Context, model string, patient bool) error {
	l.mu.Lock()
	if l.share == nil && l.places > 0 { // then nobody waits
		l.places--
		l.loaded = model
		l.mu.Unlock()
		return nil
	}
	w := &waiter{model: model, patient: patient, ready: make(chan struct{})}
	l.waiting = append(l.waiting, w)
	l.look()
	l.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiting, w); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		l.look()
	} else {
		l.pass() // it was given its place just now
	}
	return ctx.Err()
}

// leave gives a place back.
func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pass()
}

// length is how many wait.
func (l *line) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

// pass gives a free place to the next in line, or back to where it is from.
func (l *line) pass() {
	switch {
	case l.share != nil:
		l.using--
		l.look()
	case len(l.waiting) == 0:
		l.places++
	default:
		l.seat()
	}
}

// seat gives a place to the next of those who wait.
func (l *line) seat() {
	i := l.next()
	w := l.waiting[i]
	for _, earlier := range l.waiting[:i] {
		earlier.overtaken++
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	l.loaded = w.model
	close(w.ready)
}

// next picks who has the next place.
func (l *line) next() int {
	best := 0
	for i, w := range l.waiting {
		if w.overtaken >= patience { // the first of them: all before it have not waited so long
			return i
		}
		if b := l.waiting[best]; l.rank(w) < l.rank(b) {
			best = i
		}
	}
	return best
}

func (l *line) rank(w *waiter) int {
	rank := 0
	if w.patient {
		rank += 2
	}
	if w.model != l.loaded {
		rank++
	}
	return rank
}
