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
func (b *Book) Reserve(provider, model string, c Cost, now time.Time) (*Reservation, Room) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.steady(now)
	l := b.lane(provider, model)
	r := &Reservation{book: b, provider: provider, lane: l, at: t, input: c.Input}
	requests := max(c.Requests, 1)
	input := max(c.Input, 0)
	if l.factor > 0 {
		input = int64(float64(input)*l.factor + 1)
	}
	at, last := t, (*bucket)(nil)
	r.takes = r.space[:0]
	for _, x := range l.buckets {
		x.refresh(t)
		output := int64(l.output)
		if c.Output > 0 && (x.counts&llm.TakesMax != 0 || output == 0 || output > c.Output) {
			output = c.Output
		}
		all, out := x.of(requests, input, output)
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
	b.seq++
	r.seq = b.seq
	for i := range r.takes {
		k := &r.takes[i]
		k.bucket.take(t, k.all)
		k.bucket.pending += k.all
		k.pending, k.reset = true, k.bucket.reset
	}
	return r, Room{OK: true}
}

// Learn takes the limits that the answer's headers told, while the answer goes on.
func (r *Reservation) Learn(limits []llm.Limit, now time.Time) {
	if r == nil || len(limits) == 0 {
		return
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	r.learn(limits, r.book.steady(now), now)
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
		if !r.ended && k.output > 0 && k.bucket.counts&llm.TakesMax == 0 {
			k.bucket.owed, k.owed = k.bucket.owed+k.output, true
		}
	}
	r.book.learn(r.provider, limits, t, now, r.seq)
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
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	if r.ended {
		return
	}
	t := r.book.steady(now)
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
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	t := r.book.steady(now)
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
