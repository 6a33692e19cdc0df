package fake

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// posts are the messages that a fake has kept, for fakes of who passes messages on.
type posts struct {
	script  script.Script
	mu      sync.Mutex
	tries   int
	kept    []Message
	changed chan struct{} // closed and replaced at every message
}

// Messages returns what was kept, oldest first; the last MaxSeen of it.
func (p *posts) Messages() []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.kept)
}

// Await waits until is answers true of all messages so far; false when ctx ends first.
func (p *posts) Await(ctx context.Context, is func([]Message) bool) bool {
	return await(ctx, func() ([]Message, <-chan struct{}) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Clone(p.kept), p.changed
	}, is)
}

// fault is what is to go wrong with the present try; nil: nothing.
func (p *posts) fault() *script.Fault {
	p.mu.Lock()
	p.tries++
	n := p.tries
	p.mu.Unlock()
	f, _ := p.script.FaultsOf(n, script.Rule{})
	return f
}

func (p *posts) keep(m Message) Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.kept) >= MaxSeen {
		p.kept = slices.Delete(p.kept, 0, MaxSeen/2)
	}
	m.ID, m.Time = strconv.Itoa(p.tries), time.Now().UTC()
	p.kept = append(p.kept, m)
	close(p.changed)
	p.changed = make(chan struct{})
	return m
}

// breaks does the faults that keep a message from being taken, with refuse for those that have a status, and says whether it did.
func (p *posts) breaks(w http.ResponseWriter, r *http.Request, f *script.Fault, refuse func(status int)) bool {
	switch {
	case f == nil:
		return false
	case f.Kind == script.ResetBeforeHeaders:
		hangUp(w)
	case f.Kind == script.StallBeforeHeaders:
		<-r.Context().Done()
	case f.Kind.Refuses():
		if f.Wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((f.Wait+time.Second-1)/time.Second)))
		}
		refuse(f.Kind.Status())
	default:
		return false
	}
	return true
}

func (p *posts) show(w http.ResponseWriter) {
	writeJSON(w, http.StatusOK, append([]Message{}, p.Messages()...))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, _ := json.Marshal(v) // maps, strings and times always have a JSON form
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// await waits until is answers true of all that now returns, which it asks again whenever the channel beside it is closed; false when ctx ends first.
func await[T any](ctx context.Context, now func() ([]T, <-chan struct{}), is func([]T) bool) bool {
	for {
		all, changed := now()
		if is(all) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
