package llm

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrImpatient is why the context of work ends that has waited for as long as it may.
var ErrImpatient = errors.New("it waited in line for as long as it may")

// A Patience counts how long a piece of work stands in lines while nobody works on it, and ends its context once that is as long as it may
// be. Whoever has lines tells it; work that asks several at once waits only while none of them works. A nil Patience counts nothing.
type Patience struct {
	mu      sync.Mutex
	end     context.CancelCauseFunc
	most    time.Duration // 0: as long as it takes
	waited  time.Duration
	waiting int
	working int
	where   string
	since   time.Time // of waiting without working; zero: not now
	timer   *time.Timer
}

type patienceKey struct{}

// WithPatience returns a context of work that may stand in lines for so long; 0 is as long as it takes. The caller calls stop.
func WithPatience(ctx context.Context, most time.Duration) (_ context.Context, p *Patience, stop func()) {
	ctx, end := context.WithCancelCause(ctx)
	p = &Patience{end: end, most: most}
	return context.WithValue(ctx, patienceKey{}, p), p, func() {
		p.mu.Lock()
		p.halt()
		p.mu.Unlock()
		end(nil)
	}
}

// PatienceOf returns the patience of the work that a context belongs to; nil where there is none.
func PatienceOf(ctx context.Context) *Patience {
	p, _ := ctx.Value(patienceKey{}).(*Patience)
	return p
}

// Wait says that the work stands in a line, until done is called.
func (p *Patience) Wait(where string) (done func()) {
	if p == nil {
		return func() {}
	}
	return p.count(&p.waiting, where)
}

// Work says that somebody works, until done is called.
func (p *Patience) Work() (done func()) {
	if p == nil {
		return func() {}
	}
	return p.count(&p.working, "")
}

func (p *Patience) count(what *int, where string) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	*what++
	if where != "" {
		p.where = where
	}
	p.turn()
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		*what--
		p.turn()
	})
}

// turn begins to count, or stops.
func (p *Patience) turn() {
	idle := p.waiting > 0 && p.working == 0
	switch {
	case idle && p.since.IsZero():
		p.since = time.Now()
		if p.most > 0 {
			p.timer = time.AfterFunc(max(p.most-p.waited, 0), func() { p.end(ErrImpatient) })
		}
	case !idle && !p.since.IsZero():
		p.halt()
	}
}

func (p *Patience) halt() {
	if p.since.IsZero() {
		return
	}
	p.waited, p.since = p.waited+time.Since(p.since), time.Time{}
	if p.timer != nil {
		p.timer.Stop()
	}
}

// Waited returns how long the work has stood in lines, and where it stood last.
func (p *Patience) Waited() (d time.Duration, where string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d = p.waited; !p.since.IsZero() {
		d += time.Since(p.since)
	}
	return d, p.where
}
