// Package quota remembers what providers told of their rate limits, and says whether there is room for one more request.
package quota

import (
	"fmt"
	"sort"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Book holds the limits of all providers. The zero value is ready and knows none.
type Book struct {
	mu       sync.Mutex
	limits   map[key]llm.Limit
	refusals map[target]refusal
}

type key struct{ provider, model, dimension string }

type target struct{ provider, model string }

// A refusal is a provider's "not now" that named no dimension with a reset.
type refusal struct {
	until time.Time
	count int // in a row, for the backoff where no time is told
	kind  llm.Kind
	text  string
}

// A Room says whether a request may be sent now.
type Room struct {
	OK        bool
	Kind      llm.Kind  // Quota or Overload, when not OK
	Dimension string    // that is exhausted; "" where the provider did not say
	Reason    string    // one clause for people
	Until     time.Time // UTC, never zero when not OK
}

// Learn takes the limits that a response or a refusal told. One without a Model is of the provider's whole account.
func (b *Book) Learn(provider string, limits []llm.Limit) {
	if len(limits) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limits == nil {
		b.limits = map[key]llm.Limit{}
	}
	for _, l := range limits {
		k := key{provider, l.Model, l.Dimension}
		if old, ok := b.limits[k]; ok {
			// A refusal often names one number only; what is already known of the rest stays.
			if _, known := l.Max.Get(); !known {
				l.Max = old.Max
			}
		}
		b.limits[k] = l
	}
}

// Succeeded forgets a provider's earlier refusals: it has just answered.
func (b *Book) Succeeded(provider, model string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.refusals, target{provider, model})
}

// Refused takes a refusal of kind Quota or Overload and returns when to come back. Where the provider told no time, the
// wait doubles with each refusal in a row, from 2 seconds up to 2 minutes.
func (b *Book) Refused(provider, model string, e *llm.Error, now time.Time) time.Time {
	b.Learn(provider, e.Limits)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refusals == nil {
		b.refusals = map[target]refusal{}
	}
	k := target{provider, model}
	r := b.refusals[k]
	r.kind, r.text, r.until = e.Kind, e.Message, e.Until
	if !r.until.After(now) {
		r.until = now.Add(min(2*time.Second<<min(r.count, 6), 2*time.Minute))
	}
	r.count++
	b.refusals[k] = r
	return r.until
}

// Room says whether there is room at now. Of several exhausted dimensions the one that comes back last decides.
func (b *Book) Room(provider, model string, now time.Time) Room {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := Room{OK: true}
	if r, ok := b.refusals[target{provider, model}]; ok && r.until.After(now) {
		room = Room{Kind: r.kind, Reason: r.text, Until: r.until.UTC()}
	}
	for k, l := range b.limits {
		if k.provider != provider || (k.model != model && k.model != "") || !exhausted(l, now) || !l.Reset.After(room.Until) {
			continue
		}
		room = Room{Kind: llm.Quota, Dimension: l.Dimension, Until: l.Reset.UTC(), Reason: l.Dimension + " used up"}
		if n, ok := l.Max.Get(); ok {
			room.Reason = fmt.Sprintf("all %d %s used up", n, l.Dimension)
		}
	}
	return room
}

func exhausted(l llm.Limit, now time.Time) bool {
	left, known := l.Remaining.Get()
	return l.Reset.After(now) && (l.Exhausted || known && left <= 0)
}

// Standings returns the limits of a provider as they stand now, by model and dimension. A limit whose reset has passed has all its room
// back.
func (b *Book) Standings(provider string, now time.Time) []llm.Limit {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := []llm.Limit{}
	for k, l := range b.limits {
		if k.provider != provider {
			continue
		}
		if !l.Reset.IsZero() && !l.Reset.After(now) {
			l.Remaining, l.Exhausted = l.Max, false
		}
		all = append(all, l)
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Model != all[j].Model {
			return all[i].Model < all[j].Model
		}
		return all[i].Dimension < all[j].Dimension
	})
	return all
}
