package fake

import (
	"slices"
	"sync"
	"time"
	_ "time/tzdata" // Gemini's days begin at midnight in Los Angeles, on machines without time zones too

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// A window says how a limit is replenished.
type window int

const (
	continuous window = iota // little by little (OpenAI, Groq, Anthropic)
	rolling                  // each use returns after a whole window (Gemini's minutes)
	pacificDay               // at midnight in Los Angeles (Gemini's days)
)

// A level is the state of one limit at one moment.
type level struct {
	script.Limit
	used  int64
	wait  time.Duration // until the refused request would fit
	full  time.Time     // when all of it is replenished
	reset time.Time     // when some of it is replenished; the same as full except for rolling windows
	// resetIn is how long from now until full.
	resetIn time.Duration
}

func (l level) remaining() int64 { return max(0, l.Max-l.used) }

// limits enforces the limits of a script.
type limits struct {
	mu      *sync.Mutex
	buckets []*bucket
}

type bucket struct {
	script.Limit
	unit   string
	length time.Duration
	window window
	used   float64   // continuous, pacificDay
	at     time.Time // when used was last brought up to date
	uses   []use     // rolling, oldest first
}

type use struct {
	at time.Time
	n  int64
}

func newLimits(ls []script.Limit, kind func(script.Limit) window) limits {
	out := limits{mu: new(sync.Mutex)}
	for _, l := range ls {
		unit, length, _ := l.Window()
		out.buckets = append(out.buckets, &bucket{Limit: l, unit: unit, length: length, window: kind(l)})
	}
	return out
}

// cost is what one request takes of each unit.
type cost struct{ input, output int64 }

func (c cost) of(unit string) int64 {
	switch unit {
	case "requests":
		return 1
	case "input_tokens":
		return c.input
	case "output_tokens":
		return c.output
	}
	return c.input + c.output
}

// admit takes a request's cost from all limits of model, or from none: refused is then the limit with the longest wait. The
// levels are those after the request.
func (l *limits) admit(now time.Time, model string, c cost) (levels []level, refused *level) {
	if len(l.buckets) == 0 {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.buckets {
		if b.Model != "" && b.Model != model {
			continue
		}
		b.refresh(now)
		if need := c.of(b.unit); b.level(now).used+need > b.Max {
			lv := b.level(now)
			lv.wait = b.waitFor(now, need)
			if refused == nil || lv.wait > refused.wait {
				refused = &lv
			}
		}
	}
	for _, b := range l.buckets {
		if b.Model != "" && b.Model != model {
			continue
		}
		if refused == nil {
			b.take(now, c.of(b.unit))
		}
		levels = append(levels, b.level(now))
	}
	return levels, refused
}

var losAngeles = func() *time.Location {
	loc, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		panic(err) // time/tzdata is linked in
	}
	return loc
}()

// nextMidnight returns the next midnight in Los Angeles after t.
func nextMidnight(t time.Time) time.Time {
	y, m, d := t.In(losAngeles).Date()
	return time.Date(y, m, d+1, 0, 0, 0, 0, losAngeles)
}

func (b *bucket) refresh(now time.Time) {
	switch b.window {
	case continuous:
		if !b.at.IsZero() && now.After(b.at) {
			b.used = max(0, b.used-float64(b.Max)*float64(now.Sub(b.at))/float64(b.length))
		}
	case pacificDay:
		if !b.at.IsZero() && !now.Before(nextMidnight(b.at)) {
			b.used = 0
		}
	case rolling:
		gone := 0
		for gone < len(b.uses) && !now.Before(b.uses[gone].at.Add(b.length)) {
			gone++
		}
		b.uses = slices.Delete(b.uses, 0, gone)
	}
	b.at = now
}

func (b *bucket) take(now time.Time, n int64) {
	if b.window == rolling {
		b.uses = append(b.uses, use{now, n})
		return
	}
	b.used += float64(n)
}

func (b *bucket) level(now time.Time) level {
	lv := level{Limit: b.Limit, full: now, reset: now}
	switch b.window {
	case continuous:
		lv.used = int64(b.used + 0.999999) // a token that is not wholly back is not there yet
		lv.full = now.Add(b.refill(b.used))
		lv.reset = lv.full
	case pacificDay:
		lv.used = int64(b.used)
		lv.full = nextMidnight(now)
		lv.reset = lv.full
	case rolling:
		for _, u := range b.uses {
			lv.used += u.n
		}
		if n := len(b.uses); n > 0 {
			lv.full, lv.reset = b.uses[n-1].at.Add(b.length), b.uses[0].at.Add(b.length)
		}
	}
	lv.resetIn = lv.full.Sub(now)
	return lv
}

// refill is how long n takes to come back in a continuous window.
func (b *bucket) refill(n float64) time.Duration {
	return time.Duration(n / float64(b.Max) * float64(b.length))
}

// waitFor returns how long to wait until need fits; a whole window where it never does.
func (b *bucket) waitFor(now time.Time, need int64) time.Duration {
	if need > b.Max && b.window != pacificDay {
		return b.length
	}
	switch b.window {
	case continuous:
		return max(time.Millisecond, b.refill(b.used+float64(need)-float64(b.Max)).Round(time.Millisecond)+time.Millisecond)
	case pacificDay:
		return nextMidnight(now).Sub(now)
	}
	used := b.level(now).used
	for _, u := range b.uses {
		if used -= u.n; used+need <= b.Max {
			return u.at.Add(b.length).Sub(now)
		}
	}
	return b.length
}
