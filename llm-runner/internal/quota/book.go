// Package quota admits requests by what is known of the providers' rate limits. Limits are learned: from the headers of
// answers, from refusals, and by counting what was sent. It knows no dialect; llm.Limit says what kind of limit one is.
package quota

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A Book holds the limits of all providers. The zero value is ready, knows none, and keeps nothing on disk. It is safe for
// concurrent use.
type Book struct {
	mu       sync.Mutex
	clock    clock
	accounts map[string][]*bucket // by provider
	lanes    map[target]*lane
	refusals map[target]refusal
	seq      uint64
	db       *db.DB        // nil: nothing is kept
	common   *common       // nil: this process alone uses the limits
	news     []news        // to tell the other processes
	urgent   chan struct{} // capacity 1: a limit is known that is not on disk; nil: nothing is kept, or all of it at once
}

type target struct{ provider, model string }

// A lane is what requests for one model pass through.
type lane struct {
	buckets []*bucket // of the model and of the whole account
	output  float64   // tokens of an answer, as large as they get lately
	factor  float64   // input tokens by their estimate, as large as it gets lately; 0 unknown
}

// maxLanes bounds what is remembered of models: callers may make names up.
const maxLanes = 4096

// A refusal is a provider's "not now" that named no dimension.
type refusal struct {
	until int64     // steady
	told  time.Time // until by the wall clock of the time, so that everybody hears the same
	count int       // in a row, for the backoff where no time is told
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

// A Standing is a limit as it is now: how much of it is used, unknown where its size is, and when it is used up if use goes on as
// it did of late; nil where it is not, or where room comes back first.
type Standing struct {
	llm.Limit
	Used        llm.Count  `json:"used"`
	ExhaustedAt *time.Time `json:"exhausted_at"`
}

// steady returns the steady time of a reading.
func (b *Book) steady(now time.Time) int64 {
	t, moved := b.clock.at(now)
	if moved < 0 { // a clock that was far ahead: what was counted by it goes back with it
		for _, all := range b.accounts {
			for _, x := range all {
				x.move(moved)
			}
		}
		for k, r := range b.refusals {
			r.until += moved
			b.refusals[k] = r
		}
	}
	return t
}

// lane returns the lane of a model; it is not remembered for providers that have told of no limit.
func (b *Book) lane(provider, model string) *lane {
	k := target{provider, model}
	if l := b.lanes[k]; l != nil {
		return l
	}
	l := &lane{}
	if len(b.accounts[provider]) == 0 {
		return l
	}
	for _, x := range b.accounts[provider] {
		if x.model == model || x.model == "" {
			l.buckets = append(l.buckets, x)
		}
	}
	if b.lanes == nil || len(b.lanes) >= maxLanes {
		b.lanes = map[target]*lane{}
	}
	b.lanes[k] = l
	return l
}

// bucket returns the bucket of a limit, a new one where it is not known yet.
func (b *Book) bucket(provider, model, dimension string) *bucket {
	for _, x := range b.accounts[provider] {
		if x.model == model && x.dimension == dimension {
			return x
		}
	}
	x := newBucket(provider, model, dimension)
	b.add(x)
	b.hasten()
	return x
}

// hasten has what changed written without delay.
func (b *Book) hasten() {
	select {
	case b.urgent <- struct{}{}:
	default: // it is being seen to, or nothing is kept
	}
}

func (b *Book) add(x *bucket) {
	if b.accounts == nil {
		b.accounts = map[string][]*bucket{}
	}
	b.accounts[x.provider] = append(b.accounts[x.provider], x)
	for k, l := range b.lanes {
		if k.provider == x.provider && (x.model == "" || x.model == k.model) {
			l.buckets = append(l.buckets, x)
		}
	}
}

// Configure takes limits that the operator knows. They begin the count of a provider that has told nothing yet; what it tells
// corrects them, until the operator says something else.
func (b *Book) Configure(provider string, limits []llm.Limit, now time.Time) {
	b.with(provider, now, func(t int64) {
		for _, l := range limits {
			x, said := b.bucket(provider, l.Model, l.Dimension), l.Max
			if x.known {
				l.Refill, l.Counts = x.refill, x.counts
				if x.configured == said {
					l.Max = llm.Known(x.most)
				}
			}
			b.learn(provider, []llm.Limit{l}, t, now, nil)
			x.configured = said
		}
	})
}

// Learn takes limits that a provider told. One without a Model is of the provider's whole account.
func (b *Book) Learn(provider string, limits []llm.Limit, now time.Time) {
	if len(limits) == 0 {
		return
	}
	b.with(provider, now, func(t int64) { b.learn(provider, limits, t, now, nil) })
}

// learn takes what the answer to a request told; nil where nobody asked.
func (b *Book) learn(provider string, limits []llm.Limit, t int64, now time.Time, answered *Reservation) {
	for _, l := range limits {
		x := b.bucket(provider, l.Model, l.Dimension)
		x.refresh(t)
		wait := time.Duration(-1)
		if !l.Reset.IsZero() {
			wait = max(0, l.Reset.Sub(now.Round(0)))
		}
		var seq uint64
		beside, counted := int64(0), x.used
		if answered != nil {
			seq, beside = answered.seq, answered.beside(x)
		}
		x.learn(t, l, wait, seq, beside)
		if left, told := l.Remaining.Get(); told && x.known && float64(x.most-left) >= counted+1 {
			b.hasten() // more was used than was counted here: the ledger cannot tell the next process
		}
	}
}

// Succeeded forgets a provider's earlier refusals: it has just answered.
func (b *Book) Succeeded(provider, model string) {
	k := target{provider, model}
	b.mu.Lock()
	_, refused := b.refusals[k]
	b.mu.Unlock()
	if refused {
		b.with(provider, time.Now(), func(int64) {
			delete(b.refusals, k)
			b.tell(k)
		})
	}
}

// Refused takes a refusal of kind Quota or Overload and returns when to come back: when the limits that it names have room
// again, else the time it told. Where the provider told no time, the wait doubles with each refusal in a row, from 2
// seconds up to 2 minutes.
func (b *Book) Refused(provider, model string, e *llm.Error, now time.Time) (until time.Time) {
	b.with(provider, now, func(t int64) { until = b.refused(provider, model, e, t, now) })
	return until
}

func (b *Book) refused(provider, model string, e *llm.Error, t int64, now time.Time) time.Time {
	b.learn(provider, e.Limits, t, now, nil)
	wall := func(at int64) time.Time { return now.Add(time.Duration(at - t)).UTC() }
	if e.Kind == llm.Quota {
		var latest int64
		for _, l := range e.Limits {
			if l.Exhausted && l.Dimension != llm.Overall {
				latest = max(latest, b.bucket(provider, l.Model, l.Dimension).when(t, 1))
			}
		}
		if latest > t {
			return wall(latest)
		}
	}
	if b.refusals == nil {
		b.refusals = map[target]refusal{}
	}
	k := target{provider, model}
	r := b.refusals[k]
	r.kind, r.text, r.until = e.Kind, e.Message, 0
	if !e.Until.IsZero() {
		r.until = t + int64(e.Until.Sub(now.Round(0)))
	}
	if r.until <= t {
		r.until = t + int64(min(2*time.Second<<min(r.count, 6), 2*time.Minute))
	}
	r.count++
	r.told = wall(r.until)
	b.refusals[k] = r
	b.tell(k)
	return r.told
}

// Knows says whether the book knows how many requests for a model may be sent at once: it knows a limit on the requests of a
// minute, or the provider has refused. Of other limits many providers tell while they keep that one to themselves.
func (b *Book) Knows(provider, model string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, refused := b.refusals[target{provider, model}]
	return refused || slices.ContainsFunc(b.lane(provider, model).buckets, func(x *bucket) bool {
		return x.dimension == llm.RequestsPerMinute || x.dimension == llm.Overall
	})
}

// Room says whether there is room for any request at now. Of several exhausted dimensions the one that comes back last
// decides.
func (b *Book) Room(provider, model string, now time.Time) Room {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.time(now)
	at, last := t, (*bucket)(nil)
	for _, x := range b.lane(provider, model).buckets {
		x.refresh(t)
		if !x.fits(1) {
			if w := x.when(t, 1); last == nil || w > at {
				at, last = w, x
			}
		}
	}
	return b.room(target{provider, model}, last, at, t, now)
}

// room makes a Room of the bucket that comes back last, which may be nil, and what is known besides.
func (b *Book) room(k target, last *bucket, at, t int64, now time.Time) Room {
	if r, ok := b.refusals[k]; ok && r.until > t && (last == nil || r.until >= at) {
		room := Room{Kind: r.kind, Reason: r.text, Until: now.Add(time.Duration(r.until - t)).UTC()}
		if room.Until.Sub(r.told).Abs() < time.Second { // but for a clock that was set
			room.Until = r.told
		}
		return room
	}
	if last == nil {
		return Room{OK: true}
	}
	room := Room{Kind: llm.Quota, Dimension: last.dimension, Until: now.Add(time.Duration(at - t)).UTC(), Reason: last.dimension + " used up"}
	if last.dimension == llm.Overall {
		room.Reason = "its rate limit is used up"
	}
	if last.known {
		room.Reason = fmt.Sprintf("all %d %s used up", last.most, last.dimension)
		if left := last.most - int64(last.used); left > 0 && last.closed == 0 {
			room.Reason = fmt.Sprintf("%d of %d %s left, and this needs more", left, last.most, last.dimension)
		}
	}
	return room
}

// Standings returns the limits of a provider as they stand now, by model and dimension.
func (b *Book) Standings(provider string, now time.Time) []Standing {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.time(now)
	all := []Standing{}
	for _, x := range b.accounts[provider] {
		x.refresh(t)
		all = append(all, x.standing(t, now))
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Model != all[j].Model {
			return all[i].Model < all[j].Model
		}
		return all[i].Dimension < all[j].Dimension
	})
	return all
}
