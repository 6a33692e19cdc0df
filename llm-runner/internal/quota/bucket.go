package quota

import (
	"math"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A bucket is one limit: how much of it is used, and how room comes back. Times are steady (see clock), in unix nanoseconds.
// Uses count from the moment they are reserved: what never settles is forgotten like any other use, so nothing can leak.
type bucket struct {
	provider, model, dimension string
	unit                       string // what the dimension counts

	refill llm.Refill
	counts llm.Counting
	per    int64 // the length of the window; 0 where the dimension has none
	known  bool  // whether most is
	most   int64
	left   llm.Count // as it was told, where most is not known

	configured llm.Count // most, as the operator said last

	used   float64
	uses   []use // Rolling: what makes up used, oldest first
	at     int64 // when used was last brought up to date
	reset  int64 // Window and PacificDay: when used becomes nothing; 0 not known. Rolling: where it seems to be a window after all, see guess; rolls
	late   int64 // PacificDay: how much later than here the day begins where it counts, as refusals have shown; see early
	closed int64 // a refusal said: not before; 0 open

	pending int64  // reserved by requests whose answers have not told of this limit yet
	owed    int64  // output that requests under way are expected to make yet
	seen    uint64 // the youngest request whose answer told of this limit
	heard   int64  // reserved by all requests whose answers told of this limit, ever

	pace  float64 // recent use, fading; see rate
	paced int64
	dirty bool // not on disk as it is

	written int64 // of one that an earlier process wrote: when it was brought up to date last

	others int64 // pending and owed of other processes
	told   int64 // pending and owed, as the other processes know them
}

// A use is what was used within a slot of time, and when it comes back.
type use struct {
	Back int64 `json:"back"`
	N    int64 `json:"n"`
}

// slots is into how many a rolling window is cut: a use comes back one to two slots late, which also covers that requests
// arrive at the provider some time after they were counted here (half a second of a minute's window at least).
const slots = 120

func newBucket(provider, model, dimension string) *bucket {
	b := &bucket{provider: provider, model: model, dimension: dimension}
	var window string
	switch b.unit, window, _ = strings.Cut(dimension, "/"); window {
	case "minute":
		b.per = int64(time.Minute)
	case "day":
		b.per = int64(24 * time.Hour)
	}
	return b
}

// bound keeps a told wait sane: a reset further away than its window can be is a clock that is wrong, or a typing error.
// Windows of a minute get a quarter of an hour (OpenAI's page shows a reset of "6m0s"), days the 25 hours they can have.
func (b *bucket) bound(wait time.Duration) int64 {
	most := 25 * time.Hour
	if b.per == int64(time.Minute) {
		if most = 15 * time.Minute; b.refill == llm.Continuous {
			most = time.Minute + time.Second
		}
	}
	return int64(min(max(wait, 0), most))
}

// refresh brings the bucket up to t.
func (b *bucket) refresh(t int64) {
	if b.closed != 0 && b.closed <= t {
		b.closed = 0
	}
	switch b.refill {
	case llm.Continuous:
		if t > b.at && b.used > 0 {
			b.used = max(0, b.used-b.fill()*float64(t-b.at))
		}
	case llm.Rolling:
		if b.reset > 0 && b.reset <= t {
			b.used, b.uses, b.reset = 0, nil, b.reset+((t-b.reset)/b.per+1)*b.per
		}
		gone := 0
		for gone < len(b.uses) && b.uses[gone].Back <= t {
			b.used -= float64(b.uses[gone].N)
			gone++
		}
		b.uses = b.uses[gone:]
	case llm.Window:
		if b.reset != 0 && b.reset <= t {
			b.used, b.reset = 0, 0
		}
	case llm.PacificDay:
		if b.reset == 0 || b.reset <= t {
			if b.reset != 0 {
				b.used = 0
			}
			b.reset = llm.NextPacificDay(time.Unix(0, t-b.late)).UnixNano() + b.late + int64(afterMidnight)
		}
	}
	b.at = max(b.at, t)
}

// fill is how much comes back per nanosecond.
func (b *bucket) fill() float64 {
	if b.per == 0 {
		return 0
	}
	return float64(b.most) / float64(b.per)
}

// need is what a request can ask for at most: one that is larger than the whole limit is the provider's to refuse.
func (b *bucket) need(n int64) float64 { return float64(min(n, b.most)) }

// fits says whether there is room for n at the time of the last refresh.
func (b *bucket) fits(n int64) bool {
	return b.closed == 0 && (!b.known || b.used+b.need(n) <= float64(b.most)+1e-6)
}

// when returns the first time at which n fits, if nothing else is used until then.
func (b *bucket) when(t, n int64) int64 { return b.turn(t, b.need(n)) }

// turn returns the time at which n can have been used, if everything is used for it from now on. n may be more than the
// limit lets through at once: the requests of a line, say.
func (b *bucket) turn(t int64, n float64) int64 {
	most := float64(b.most)
	over := b.used + n - most
	if !b.known || over <= 1e-6 {
		return max(t, b.closed)
	}
	at, more := t, float64(0) // more: the windows that have to pass after at
	switch {
	case b.refill == llm.Continuous:
		at = t + int64(math.Ceil(min(over/max(b.fill(), 1e-12), 1e18))) + int64(time.Millisecond)
	case b.refill == llm.Rolling && b.reset <= 0:
		for _, u := range b.uses {
			at, over = u.Back, over-float64(u.N)
			if over <= 1e-6 {
				break
			}
		}
		more = math.Ceil(max(over-1e-6, 0) / max(most, 1))
	default:
		at = b.reset
		more = math.Ceil((over-1e-6)/max(most, 1)) - 1
	}
	return max(t, at, b.closed) + int64(min(more*float64(b.per), 1e18))
}

// take uses n, at the time of the last refresh.
func (b *bucket) take(t, n int64) {
	b.dirty = true
	b.hurry(t, n)
	b.used += float64(n)
	switch {
	case b.refill == llm.Rolling:
		b.use(b.back(t), n)
	case b.refill == llm.Window && b.reset == 0:
		b.reset = t + max(b.per, int64(time.Second)) // the strictest guess: the window began with this
	}
}

// back is when a use made at t comes back in a rolling window.
func (b *bucket) back(t int64) int64 {
	slot := max(b.per/slots, 1)
	return (t/slot+2)*slot + b.per
}

func (b *bucket) use(back, n int64) {
	for i := len(b.uses) - 1; i >= 0 && b.uses[i].Back >= back; i-- {
		if b.uses[i].Back == back || i == 0 {
			b.uses[i].N += n
			return
		}
	}
	b.uses = append(b.uses, use{back, n})
}

// give takes back n of what was used by a take of all at time since, as far as it has not come back by itself already.
func (b *bucket) give(t, n, all, since, reset int64) {
	b.dirty = true
	b.hurry(t, -n)
	switch b.refill {
	case llm.Continuous:
		b.used = max(0, b.used-min(float64(n), max(0, float64(all)-b.fill()*float64(t-since))))
	case llm.Rolling:
		if b.reset > 0 && since < b.reset-b.per {
			return // it went with its window
		}
		back := b.back(since)
		for i := range b.uses {
			if u := &b.uses[i]; u.Back >= back {
				n = min(n, u.N)
				u.N, b.used = u.N-n, b.used-float64(n)
				return
			}
		}
	default:
		if off := b.reset - reset; max(off, -off) < b.per/20 { // the same window still; what is told of its end jitters
			b.used = max(0, b.used-float64(n))
		}
	}
}

// learn takes what a provider told. wait is until the told reset, negative where none was told; seq is the number of the
// request that was answered, 0 for what nobody asked; beside is what was reserved by others that were answered while it was under way. The
// bucket has been refreshed.
func (b *bucket) learn(t int64, l llm.Limit, wait time.Duration, seq uint64, beside int64) {
	b.dirty = true
	b.shape(t, l)
	n, told := l.Remaining.Get()
	until := t + b.bound(wait)
	switch {
	case l.Exhausted && b.early(t):
		b.closed = t + max(int64(time.Minute), t-dawn(t))
		if later := b.closed - dawn(t); later > b.late {
			b.reset, b.late = b.reset+later-b.late, later
		}
	case l.Exhausted:
		use := float64(b.most)
		if told && b.refill != llm.PacificDay { // of days it is known that nothing comes back before midnight
			use -= float64(min(max(n, 0), b.most))
		}
		b.guess(t, until, wait)
		if b.known {
			from := t
			if b.unit == "requests" && wait > 0 { // what is told is when the oldest use comes back, so none does before
				from = min(until, t+b.per)
			}
			b.setFrom(t, max(use, b.used), from)
		}
		b.left = llm.Known(0)
		if b.refill == llm.PacificDay && b.known {
			break // the calendar says until when, by a clock that nobody sets
		}
		if wait >= 0 {
			b.closed = max(b.closed, until)
			if b.refill == llm.Window {
				b.reset = until
			}
		}
	case told && !b.known:
		b.left = l.Remaining
		if n <= 0 && wait >= 0 {
			b.closed = max(b.closed, until)
		}
	case told:
		b.correct(t, float64(max(b.most-n, 0)+b.pending+b.owed+b.others), n, seq, beside)
		if b.refill == llm.Window && wait >= 0 {
			b.reset = until
		}
	}
	if b.refill == llm.Window && b.reset == 0 && b.used > 0 {
		b.reset = t + max(b.per, int64(time.Second))
	}
	b.seen = max(b.seen, seq)
}

// afterMidnight is for clocks that are a little ahead of the provider's.
const afterMidnight = 2 * time.Second

// dawn returns when the day in California began that t is in; 0 where that is more than three hours ago.
func dawn(t int64) int64 {
	if began := llm.NextPacificDay(time.Unix(0, t).Add(-3 * time.Hour)).UnixNano(); began <= t {
		return began
	}
	return 0
}

// early says that a refusal at t for the day's limit may mean that this machine's clock is ahead and the new day has yet to
// begin where it counts: a day of waiting for nothing. It is then asked again after a minute, two, four, ... and the next days begin as much later.
func (b *bucket) early(t int64) bool {
	return b.refill == llm.PacificDay && b.known && b.used < 0.9*float64(b.most) && dawn(t) != 0
}

// shape takes what a told limit says of the limit itself.
func (b *bucket) shape(t int64, l llm.Limit) {
	b.counts = l.Counts
	if most, ok := l.Max.Get(); ok && most >= 0 && b.per > 0 { // nothing can be counted over no time
		b.most, b.known = most, true
	}
	if b.refill == l.Refill {
		return
	}
	used := b.used
	b.refill, b.used, b.uses, b.reset = l.Refill, 0, nil, 0
	b.refresh(t)
	b.set(t, used)
}

// correct replaces the local count by what the provider told. An answer to an older request than the last that told may
// only make it stricter: answers overtake each other. A round number of tokens may have been rounded (Anthropic tells the
// nearest thousand), so within half a thousand the local count is the better one.
// Whether those that were answered beside it had come to the provider before it nobody knows: so far the local count is the better one, too.
func (b *bucket) correct(t int64, used float64, left int64, seq uint64, beside int64) {
	switch {
	case seq != 0 && seq < b.seen:
		used = max(used, b.used)
	case b.refill == llm.Continuous && b.most >= 10_000 && left > 0 && left%1000 == 0:
		used = min(max(b.used, used-500), used+500+float64(beside))
	default:
		used = min(max(b.used, used), used+float64(beside))
	}
	b.set(t, used)
}

// set makes the count used. What a rolling window is short of is spread over the window that ends now, since nobody tells
// when it was used; what it has too much is taken from the oldest.
func (b *bucket) set(t int64, used float64) { b.setFrom(t, used, t) }

// setFrom is set where it is known that of what a rolling window is short of the first comes back at from; of the others nobody
// knows, so they come back as late as they can: a burst comes back in one piece.
func (b *bucket) setFrom(t int64, used float64, from int64) {
	if b.refill != llm.Rolling {
		b.used = max(0, used)
		return
	}
	if more := int64(used - b.used); more > 0 {
		if from <= t && float64(more) <= b.used/4 && len(b.uses) > 0 {
			b.scale(more)
			return
		}
		spread := make([]use, 0, slots)
		for i := range int64(slots) {
			if n := more*(i+1)/slots - more*i/slots; n > 0 {
				spread = append(spread, use{b.back(t - b.per + (i+1)*(b.per/slots)), n})
			}
		}
		if from > t {
			spread = append(spread[:0], use{from, 1}, use{max(b.back(t), from+1), more - 1})
		}
		old := b.uses
		b.uses = make([]use, 0, len(old)+len(spread))
		for len(old) > 0 || len(spread) > 0 {
			from := &spread
			if len(spread) == 0 || len(old) > 0 && old[0].Back <= spread[0].Back {
				from = &old
			}
			b.use((*from)[0].Back, (*from)[0].N)
			*from = (*from)[1:]
		}
		b.used += float64(more)
		return
	}
	for less := int64(b.used - used); less > 0 && len(b.uses) > 0; {
		n := min(less, b.uses[0].N)
		b.uses[0].N, less, b.used = b.uses[0].N-n, less-n, b.used-float64(n)
		if b.uses[0].N == 0 {
			b.uses = b.uses[1:]
		}
	}
}

// move shifts all times, with a clock that was set.
func (b *bucket) move(by int64) {
	for _, at := range []*int64{&b.at, &b.reset, &b.closed, &b.paced} {
		if *at > 0 {
			*at += by
		}
	}
	for i := range b.uses {
		b.uses[i].Back += by
	}
	if b.refill == llm.PacificDay {
		b.reset = 0
	}
}

// memory is over how long recent use fades: a minute for limits of a minute, an hour for those of a day.
func (b *bucket) memory() float64 {
	if b.per > int64(time.Hour) {
		return float64(time.Hour)
	}
	return float64(time.Minute)
}

func (b *bucket) hurry(t, n int64) {
	if t > b.paced {
		b.pace *= math.Exp(-float64(t-b.paced) / b.memory())
		b.paced = t
	}
	b.pace = max(0, b.pace+float64(n))
}

// exhaustedAt returns when the bucket is used up if use goes on as it did of late (what was used, fading over memory,
// divided by memory), or 0 where it is not, or where room comes back first.
func (b *bucket) exhaustedAt(t int64) int64 {
	if !b.known || b.pace <= 0 {
		return 0
	}
	left := float64(b.most) - b.used
	if left < 1 {
		return t
	}
	rate := b.pace * math.Exp(-float64(t-b.paced)/b.memory()) / b.memory()
	if b.refill == llm.Continuous || b.refill == llm.Rolling {
		rate -= b.fill()
	}
	if rate <= 0 || left/rate > float64(7*24*time.Hour) {
		return 0
	}
	at := t + int64(left/rate)
	if b.reset > 0 && at >= b.reset {
		return 0
	}
	return at
}

// standing is the bucket as it is told to people.
func (b *bucket) standing(t int64, now time.Time) Standing {
	s := Standing{Limit: llm.Limit{Dimension: b.dimension, Model: b.model, Refill: b.refill, Counts: b.counts, Remaining: b.left}}
	wall := func(at int64) time.Time { return now.Add(time.Duration(at - t)).UTC() }
	if b.known {
		s.Max = llm.Known(b.most)
		s.Used = llm.Known(min(max(int64(math.Ceil(b.used-1e-6)), 0), b.most))
		s.Remaining = llm.Known(b.most - s.Used.Or(0))
	} else if b.closed == 0 && b.left.Or(1) == 0 {
		s.Remaining = llm.Count{} // it has come back, nobody knows how much
	}
	full := b.reset
	switch {
	case !b.fits(1):
		s.Exhausted, full = true, b.when(t, 1)
	case b.refill == llm.Continuous && b.used > 0 && b.fill() > 0:
		full = t + int64(b.used/b.fill())
	case b.refill == llm.Rolling && b.reset <= 0 && len(b.uses) > 0:
		full = b.uses[len(b.uses)-1].Back
	}
	if full > 0 {
		s.Reset = wall(full)
	}
	if at := b.exhaustedAt(t); at != 0 {
		at := wall(at)
		s.ExhaustedAt = &at
	}
	return s
}
