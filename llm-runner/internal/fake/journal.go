package fake

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

// MaxSeen is how many requests a Server remembers, and MaxSeenBody how many bytes of each body.
const (
	MaxSeen     = 1000
	MaxSeenBody = 64 << 10
)

// Seen is one request as the server saw it.
type Seen struct {
	Number    int         `json:"number"` // from 1, of all requests
	Time      time.Time   `json:"time"`
	Method    string      `json:"method"`
	Path      string      `json:"path"`
	Header    http.Header `json:"header"` // without keys
	Body      string      `json:"body,omitempty"`
	Model     string      `json:"model,omitempty"`
	Stream    bool        `json:"stream,omitempty"`
	Status    int         `json:"status,omitempty"`   // 0: nothing was answered (yet)
	Cancelled time.Time   `json:"cancelled,omitzero"` // the caller went away before the end
	Done      time.Time   `json:"done,omitzero"`      // the handler returned
}

// A journal remembers the last requests.
type journal struct {
	mu      sync.Mutex
	seen    []*Seen
	total   int
	changed chan struct{} // closed and replaced at every change
}

func newJournal() journal { return journal{changed: make(chan struct{})} }

var secretHeaders = []string{"Authorization", "Api-Key", "X-Api-Key", "X-Goog-Api-Key", "Cookie", "Proxy-Authorization"}

func (j *journal) open(now time.Time, r *http.Request, body []byte) *Seen {
	h := r.Header.Clone()
	for _, k := range secretHeaders {
		if h.Get(k) != "" {
			h.Set(k, "(hidden)")
		}
	}
	e := &Seen{Time: now, Method: r.Method, Path: r.URL.Path, Header: h, Body: string(body[:min(len(body), MaxSeenBody)])}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.total++
	e.Number = j.total
	if len(j.seen) >= MaxSeen {
		j.seen = slices.Delete(j.seen, 0, MaxSeen/2)
	}
	j.seen = append(j.seen, e)
	j.wake()
	return e
}

func (j *journal) update(e *Seen, change func(*Seen)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(e)
	j.wake()
}

func (j *journal) wake() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// Requests returns the last requests, oldest first.
func (s *Server) Requests() []Seen {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.copy()
}

func (j *journal) copy() []Seen {
	out := make([]Seen, len(j.seen))
	for i, e := range j.seen {
		out[i] = *e
	}
	return out
}

// Await returns the first remembered request for which is answers true, as soon as there is one; false when ctx ends first.
func (s *Server) Await(ctx context.Context, is func(Seen) bool) (Seen, bool) {
	for {
		s.log.mu.Lock()
		seen, changed := s.log.copy(), s.log.changed
		s.log.mu.Unlock()
		if i := slices.IndexFunc(seen, is); i >= 0 {
			return seen[i], true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Seen{}, false
		}
	}
}
