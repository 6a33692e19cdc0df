package quota

import (
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Cost is what a request is expected to use.
type Cost struct {
	Requests int64 // 0 means 1
	Input    int64 // tokens, estimated; 0 unknown
	Output   int64 // tokens that the answer may have (max_tokens); 0 not said
}

// Tokens estimates the tokens of a text by its bytes: four make one in English, and experience corrects the rest.
func Tokens(bytes int) int64 { return int64(bytes+3) / 4 }

// A Reservation is room that was taken for a request. Exactly one of Settle and Release ends it; further calls do nothing.
// All methods of a nil Reservation do nothing.
type Reservation struct {
	book     *Book
	provider string
	model    string
	lane     *lane
	seq      uint64
	at       int64
	input    int64 // as it was estimated, before experience
	takes    []take
	space    [12]take
	ended    bool
}

// A take is what was taken from one bucket.
type take struct {
	bucket  *bucket
	all     int64
	output  int64 // of all
	reset   int64 // the bucket's, at the time
	heard   int64 // the bucket's, at the time
	pending bool  // no answer has told of the bucket yet
	owed    bool  // output is in the bucket's owed
}

// of returns what a bucket counts of input and output.
func (b *bucket) of(requests, input, output int64) (all, out int64) {
	switch {
	case b.counts&llm.Repeats != 0:
	case b.unit == "requests":
		return requests, 0
	case b.unit == "input_tokens":
		return input, 0
	case b.unit == "output_tokens":
		return output, output
	case b.unit == "tokens":
		return input + output, output
	}
	return 0, 0
}

// Reserve takes room for one request from all limits of the model and of its account, or from none; then the Room says
// which of them has room last, and when. A limit whose size nobody told yet refuses nothing.
//
// Experience makes the estimate: input by the factor that estimates were wrong of late, output by the longest of late where
// max_tokens was not said. Limits that take max_tokens when the request is sent (OpenAI) have them taken as they were said;
// for those that count real output (Anthropic) they are only an upper bound.
func (b *Book) Reserve(provider, model string, c Cost, now time.Time) (r *Reservation, room Room) {
	b.with(provider, now, func(t int64) { r, room = b.reserve(provider, model, c, t, now) })
	return r, room
}

func (b *Book) reserve(provider, model string, c Cost, t int64, now time.Time) (*Reservation, Room) {
	l := b.lane(provider, model)
	r := &Reservation{book: b, provider: provider, model: model, lane: l, at: t, input: c.Input}
	at, last := t, (*bucket)(nil)
	r.takes = r.space[:0]
	for _, x := range l.buckets {
		x.refresh(t)
		all, out := l.expect(x, c)
		if !x.fits(max(all, 1)) {
			if w := x.when(t, max(all, 1)); last == nil || w > at {
				at, last = w, x
			}
			continue
		}
		r.takes = append(r.takes, take{bucket: x, all: all, output: out})
	}
	if room := b.room(target{provider, model}, last, at, t, now); !room.OK {
		return nil, room
	}
	b.seq = max(b.seq+1, uint64(t)) //nolint:gosec // a time after 1970; processes order their requests by it
	r.seq = b.seq
	for i := range r.takes {
		k := &r.takes[i]
		k.bucket.take(t, k.all)
		k.bucket.pending += k.all
		k.pending, k.reset, k.heard = true, k.bucket.reset, k.bucket.heard
	}
	return r, Room{OK: true}
}

// expect is what a request will use of a bucket, by its estimate and by experience.
func (l *lane) expect(x *bucket, c Cost) (all, output int64) {
	input := max(c.Input, 0)
	if l.factor > 0 {
		input = int64(float64(input)*l.factor + 1)
	}
	output = int64(l.output)
	if c.Output > 0 && (x.counts&llm.TakesMax != 0 || output == 0 || output > c.Output) {
		output = c.Output
	}
	return x.of(max(c.Requests, 1), input, output)
}

// Turn is when a request can have its turn that has ahead others of its size before it in line, if nobody else uses the
// limits meanwhile: a line whose members come back at their turns uses all there is and is refused nothing.
func (b *Book) Turn(provider, model string, c Cost, ahead int, now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.time(now)
	at, l := t, b.lane(provider, model)
	for _, x := range l.buckets {
		x.refresh(t)
		all, _ := l.expect(x, c)
		at = max(at, x.turn(t, x.need(max(all, 1))*float64(ahead+1)))
	}
	if r, ok := b.refusals[target{provider, model}]; ok {
		at = max(at, r.until)
	}
	return now.Add(time.Duration(at - t)).UTC()
}

// Learn takes the limits that the answer's headers told, while the answer goes on.
func (r *Reservation) Learn(limits []llm.Limit, now time.Time) {
	if r == nil || len(limits) == 0 {
		return
	}
	r.book.with(r.provider, now, func(t int64) { r.learn(limits, t, now) })
}

// learn has the buckets that limits tell of count this request as the provider does from now on; what it has yet to answer
// is owed where real output counts.
func (r *Reservation) learn(limits []llm.Limit, t int64, now time.Time) {
	for i := range r.takes {
		k := &r.takes[i]
		if !k.pending || !tells(limits, k.bucket) {
			continue
		}
		k.bucket.pending, k.pending = k.bucket.pending-k.all, false
		k.bucket.heard, k.heard = k.bucket.heard+k.all, k.heard+k.all
		if !r.ended && k.output > 0 && k.bucket.counts&llm.TakesMax == 0 {
			k.bucket.owed, k.owed = k.bucket.owed+k.output, true
		}
	}
	r.book.learn(r.provider, limits, t, now, r)
}

// beside is what was reserved of a bucket by others whose answers told of it while r was under way.
func (r *Reservation) beside(b *bucket) int64 {
	for i := range r.takes {
		if r.takes[i].bucket == b {
			return b.heard - r.takes[i].heard
		}
	}
	return 0
}

func tells(limits []llm.Limit, b *bucket) bool {
	for i := range limits {
		if _, told := limits[i].Remaining.Get(); told && limits[i].Dimension == b.dimension && limits[i].Model == b.model {
			return true
		}
	}
	return false
}

// Settle ends a request that was sent: what it really used replaces what was reserved, where that is known. Counts that the
// provider has told of since are its own already, but for the output that followed.
func (r *Reservation) Settle(u llm.Usage, limits []llm.Limit, now time.Time) {
	if r == nil {
		return
	}
	r.book.with(r.provider, now, func(t int64) { r.settle(u, limits, t, now) })
}

func (r *Reservation) settle(u llm.Usage, limits []llm.Limit, t int64, now time.Time) {
	if r.ended {
		return
	}
	r.learn(limits, t, now)
	r.ended = true
	r.lane.experience(r.input, u)
	in, inKnown := u.Input.Get()
	out, outKnown := u.Output.Get()
	for i := range r.takes {
		k := &r.takes[i]
		x := k.bucket
		x.refresh(t)
		input := in
		if x.counts&llm.SkipsCached != 0 {
			input -= min(in, u.CachedInput.Or(0))
		}
		used, usedOut := x.of(0, max(input, 0), max(out, 0))
		_, tokens := x.of(0, 1, 1)
		change := int64(0)
		switch {
		case x.unit == "requests":
		case k.pending && inKnown && (outKnown || tokens == 0):
			change = used - k.all
		case k.owed && outKnown:
			change = usedOut - k.output
		}
		r.let(k)
		if change > 0 {
			x.take(t, change)
		} else if change < 0 {
			x.give(t, -change, k.all, r.at, k.reset)
		}
	}
}

// Release ends a request that was not sent, or that the provider refused without counting it.
func (r *Reservation) Release(now time.Time) {
	if r == nil {
		return
	}
	r.book.with(r.provider, now, r.release)
}

// Oversized returns the limit whose whole room is less than the request asks for, where the provider refused it for that: it says
// that next to nothing was used, or nothing was by what is counted here and the estimate is far above the limit. Such a
// request is refused at all times.
func (r *Reservation) Oversized(limits []llm.Limit) (llm.Limit, bool) {
	if r == nil {
		return llm.Limit{}, false
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	for _, l := range limits {
		for _, k := range r.takes {
			x := k.bucket
			if !l.Exhausted || x.dimension != l.Dimension || x.model != l.Model || !x.known || x.most <= 0 || x.unit == "requests" || x.counts&llm.Repeats != 0 {
				continue
			}
			asked, most := k.all, float64(x.most)
			if x.counts&llm.TakesMax == 0 {
				asked -= k.output // that is a guess, and counts when it is made
			}
			left := float64(l.Remaining.Or(0))
			if float64(asked) >= most/2 && left >= 0.95*most || float64(asked) >= 1.5*most && left == 0 && x.used-float64(k.all) < most/100 {
				return llm.Limit{Dimension: x.dimension, Model: x.model, Max: llm.Known(x.most)}, true
			}
		}
	}
	return llm.Limit{}, false
}

// Refused ends a request that the provider refused with e, of kind Quota or Overload, and returns when to come back; see
// Book.Refused. What it gives back is never seen without what the refusal tells: else, of many that wait, the next would be
// sent into the same refusal, and the next after it.
func (r *Reservation) Refused(e *llm.Error, now time.Time) (until time.Time) {
	r.book.with(r.provider, now, func(t int64) {
		r.release(t)
		until = r.book.refused(r.provider, r.model, e, t, now)
	})
	return until
}

func (r *Reservation) release(t int64) {
	if r.ended {
		return
	}
	r.ended = true
	for i := range r.takes {
		k := &r.takes[i]
		k.bucket.refresh(t)
		back := int64(0)
		if k.pending {
			back = k.all
		} else if k.owed {
			back = k.output
		}
		r.let(k)
		if back > 0 {
			k.bucket.give(t, back, k.all, r.at, k.reset)
		}
	}
}

// let forgets what of a take was under way.
func (r *Reservation) let(k *take) {
	if k.pending {
		k.bucket.pending -= k.all
	}
	if k.owed {
		k.bucket.owed -= k.output
	}
	k.pending, k.owed = false, false
}

// fade is how fast experience forgets: what was too little is believed at once, what was too much by a fiftieth each time.
const fade = 0.02

func (l *lane) experience(estimate int64, u llm.Usage) {
	if out, ok := u.Output.Get(); ok {
		l.output = follow(l.output, float64(max(out, 0)))
	}
	if in, ok := u.Input.Get(); ok && in > 0 && estimate > 0 {
		l.factor = follow(l.factor, min(max(float64(in)/float64(estimate), 0.25), 4))
	}
}

func follow(high, now float64) float64 {
	if now >= high || high == 0 {
		return now
	}
	return high + (now-high)*fade
}
