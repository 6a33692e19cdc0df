package quota

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// The referee plays a provider by its documented rules, in virtual time that always runs evenly. It shares nothing with
// the buckets: rolling windows are exact lists, days are found by walking the hours.

type rule struct {
	dimension string
	max       int64
	shape     string // fill, fixed, rolling, pacific
	header    bool   // told in headers
	real      bool   // output counts when it was made; else max_tokens at once, the rest given back at the end
}

type gauge struct {
	began time.Time
	days  map[time.Duration]float64 // used on each day since
	rule
	per      time.Duration
	used     float64
	at       time.Time
	list     []stamp
	dawn     time.Time         // pacific: when the next day begins
	total    float64           // admitted in all
	refusals map[time.Time]int // by window
}

type stamp struct {
	at time.Time
	n  float64
}

func (g *gauge) refresh(now time.Time) {
	switch g.shape {
	case "fill":
		g.used = math.Max(0, g.used-float64(g.max)*now.Sub(g.at).Seconds()/g.per.Seconds())
	case "fixed":
		if !now.Truncate(g.per).Equal(g.at.Truncate(g.per)) {
			g.used = 0
		}
	case "pacific":
		if g.dawn.IsZero() {
			g.dawn = midnightAfter(now)
		}
		if !now.Before(g.dawn) {
			g.used, g.dawn = 0, midnightAfter(now)
		}
	case "rolling":
		for len(g.list) > 0 && !now.Before(g.list[0].at.Add(g.per)) {
			g.used -= g.list[0].n
			g.list = g.list[1:]
		}
	}
	g.at = now
}

var losAngeles = sync.OnceValue(func() *time.Location {
	loc, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		panic(err)
	}
	return loc
})

// midnightAfter walks to the next hour that is midnight in Los Angeles.
func midnightAfter(t time.Time) time.Time {
	for t = t.Truncate(time.Hour).Add(time.Hour); t.In(losAngeles()).Hour() != 0; {
		t = t.Add(time.Hour)
	}
	return t
}

func (g *gauge) add(now time.Time, n float64) {
	g.used = math.Max(0, g.used+n)
	g.total += n
	if g.days == nil {
		g.days = map[time.Duration]float64{}
	}
	g.days[now.Sub(g.began)/(24*time.Hour)] += n
	if g.shape == "rolling" {
		g.list = append(g.list, stamp{now, n})
	}
}

// refuse counts a refusal in its window.
func (g *gauge) refuse(now time.Time) {
	if g.refusals == nil {
		g.refusals = map[time.Time]int{}
	}
	g.refusals[g.window(now)]++
}

// window names the reset window that a moment is in: by the calendar where it has one, else counted from the start.
func (g *gauge) window(now time.Time) time.Time {
	switch g.shape {
	case "fixed":
		return now.Truncate(g.per)
	case "pacific":
		return midnightAfter(now)
	}
	return g.began.Add(now.Sub(g.began).Truncate(g.per))
}

// wait is how long until n fits.
func (g *gauge) wait(now time.Time, n float64) time.Duration {
	over := g.used + n - float64(g.max)
	switch g.shape {
	case "fill":
		return time.Duration(over / float64(g.max) * float64(g.per))
	case "fixed":
		return now.Truncate(g.per).Add(g.per).Sub(now)
	case "pacific":
		return midnightAfter(now).Sub(now)
	}
	for _, s := range g.list {
		if over -= s.n; over <= 0 {
			return s.at.Add(g.per).Sub(now)
		}
	}
	return g.per
}

func (g *gauge) full(now time.Time) time.Duration {
	if g.shape == "fill" {
		return time.Duration(g.used / float64(g.max) * float64(g.per))
	}
	return g.wait(now, 0)
}

func (g *gauge) cost(q *question, output float64) float64 {
	switch g.dimension {
	case llm.RequestsPerMinute, llm.RequestsPerDay:
		return 1
	case llm.InputTokensPerMinute:
		return q.input
	case llm.OutputTokensPerMinute:
		return output
	}
	return q.input + output
}

// A question is one request on its way.
type question struct {
	input, output float64
	cost          Cost
	room          *Reservation
}

type event struct {
	at time.Time
	do func(now time.Time)
}

type agenda []event

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)        { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

// A world is a Book, a referee and workers that always want to ask.
type world struct {
	t         *testing.T
	name      string
	rules     []rule
	refill    map[string]llm.Refill // as the provider's package would say
	counts    llm.Counting
	start     time.Time
	length    time.Duration
	workers   int
	maxTokens int64
	// wall is what the clock on the wall shows at a moment; nil: the truth.
	wall func(time.Time) time.Time
	// turns is how often each worker may be refused at the first turn of a day, which teaches how wrong the clock is.
	turns int

	agenda  agenda
	book    *Book
	rand    *rand.Rand
	gauges  []*gauge
	refused map[string]int
	sent    int
}

func (w *world) at(t time.Time, do func(time.Time)) { heap.Push(&w.agenda, event{t, do}) }

func (w *world) shown(t time.Time) time.Time {
	if w.wall != nil {
		return w.wall(t)
	}
	return t
}

func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rand.Int64N(int64(b-a)))
}

func (w *world) limit(now time.Time, g *gauge) llm.Limit {
	return llm.Limit{Model: "m", Dimension: g.dimension, Max: llm.Known(g.max), Refill: w.refill[g.dimension], Counts: w.counts,
		Remaining: llm.Known(max(0, g.max-int64(math.Ceil(g.used)))), Reset: w.shown(now).Add(g.full(now))}
}

func (w *world) run() (work float64) {
	w.book, w.refused = &Book{}, map[string]int{}
	w.rand = rand.New(rand.NewPCG(7, 11))
	end := w.start.Add(w.length)
	var truth, first time.Time // of the event under way, and when the clock was first read
	w.book.clock.since = func(time.Time, time.Time) time.Duration {
		if first.IsZero() {
			first = truth
		}
		return truth.Sub(first)
	}
	for _, r := range w.rules {
		g := &gauge{rule: r, per: time.Minute, at: w.start, began: w.start}
		if r.dimension == llm.RequestsPerDay || r.dimension == llm.TokensPerDay {
			g.per = 24 * time.Hour
		}
		w.gauges = append(w.gauges, g)
	}
	for range w.workers {
		w.at(w.start.Add(w.between(0, time.Second)), w.ask)
	}
	for len(w.agenda) > 0 && w.agenda[0].at.Before(end) {
		e := heap.Pop(&w.agenda).(event)
		truth = e.at
		e.do(e.at)
	}
	for _, g := range w.gauges {
		work = math.Max(work, g.total/w.capacity(g))
	}
	return work
}

// capacity is the most that a limit lets through in the whole time, however it is asked.
func (w *world) capacity(g *gauge) float64 {
	end := w.start.Add(w.length)
	windows := 0.0
	switch g.shape {
	case "fill":
		return float64(g.max) * (1 + w.length.Seconds()/g.per.Seconds())
	case "rolling":
		windows = math.Ceil(w.length.Seconds() / g.per.Seconds())
	case "fixed":
		for t := w.start.Truncate(g.per); t.Before(end); t = t.Add(g.per) {
			windows++
		}
	case "pacific":
		for t := w.start; t.Before(end); t = midnightAfter(t) {
			windows++
		}
	}
	return float64(g.max) * windows
}

func (w *world) ask(now time.Time) {
	q := &question{input: math.Floor(math.Exp(5.5 + w.rand.NormFloat64()*0.7)), output: 1 + float64(w.rand.Int64N(w.maxTokens))}
	w.try(q, now)
}

func (w *world) try(q *question, now time.Time) {
	q.cost = Cost{Input: int64(q.input * 0.95), Output: w.maxTokens}
	shown := w.shown(now)
	r, room := w.book.Reserve("p", "m", q.cost, shown)
	if !room.OK {
		wait := room.Until.Sub(shown)
		if wait <= 0 {
			w.t.Fatalf("%s: no room, but no wait either: %+v", w.name, room)
		}
		w.at(now.Add(wait), func(now time.Time) { w.try(q, now) })
		return
	}
	q.room = r
	w.at(now.Add(w.between(20*time.Millisecond, 300*time.Millisecond)), func(now time.Time) { w.arrive(q, now) })
}

// arrive is the provider's side.
func (w *world) arrive(q *question, now time.Time) {
	w.sent++
	var worst *gauge
	var longest time.Duration
	for _, g := range w.gauges {
		g.refresh(now)
		n := g.cost(q, w.upfront(g))
		if g.used+n > float64(g.max) {
			if d := g.wait(now, n); worst == nil || d > longest {
				worst, longest = g, d
			}
		}
	}
	answer := now.Add(w.between(20*time.Millisecond, 200*time.Millisecond))
	if worst != nil {
		w.refused[worst.dimension]++
		worst.refuse(now)
		l := w.limit(now, worst)
		l.Exhausted = true
		told := longest + time.Millisecond
		w.at(answer, func(now time.Time) {
			l.Reset = w.shown(now).Add(told)
			q.room.Release(w.shown(now))
			until := w.book.Refused("p", "m", &llm.Error{Kind: llm.Quota, Until: l.Reset, Limits: []llm.Limit{l}}, w.shown(now))
			w.at(now.Add(max(time.Millisecond, until.Sub(w.shown(now)))), func(now time.Time) { w.try(q, now) })
		})
		return
	}
	var told []llm.Limit
	for _, g := range w.gauges {
		g.add(now, g.cost(q, w.upfront(g)))
		if g.header {
			told = append(told, w.limit(now, g))
		}
	}
	w.at(answer, func(now time.Time) { q.room.Learn(told, w.shown(now)) })
	w.at(answer.Add(w.between(300*time.Millisecond, 4*time.Second)), func(now time.Time) {
		for _, g := range w.gauges {
			g.refresh(now)
			if n := g.cost(q, q.output) - g.cost(q, w.upfront(g)); n != 0 {
				g.add(now, n)
			}
		}
		q.room.Settle(llm.Usage{Input: llm.Known(int64(q.input)), Output: llm.Known(int64(q.output))}, nil, w.shown(now))
		w.book.Succeeded("p", "m")
		w.ask(now)
	})
}

// upfront is the output that a limit takes before there is any.
func (w *world) upfront(g *gauge) float64 {
	if g.real {
		return 0
	}
	return float64(w.maxTokens)
}

func jumps(start time.Time) func(time.Time) time.Time {
	return func(t time.Time) time.Time {
		switch h := int(t.Sub(start).Hours()); {
		case h >= 20 && h < 26:
			return t.Add(time.Hour)
		case h >= 40 && h < 52:
			return t.Add(-time.Hour)
		}
		return t
	}
}

func TestASaturatedStreamUsesWhatThereIsAndIsHardlyEverRefused(t *testing.T) {
	utc := func(s string) time.Time { at, _ := time.Parse(time.RFC3339, s); return at }
	// What no header tells is counted here, whatever its shape; what headers tell fills evenly, as Groq's own numbers do, or
	// comes back in one piece.
	groq := func(told, untold string) []rule {
		return []rule{{llm.RequestsPerMinute, 30, untold, false, false}, {llm.RequestsPerDay, 14400, told, true, false},
			{llm.TokensPerMinute, 12000, told, true, false}, {llm.TokensPerDay, 5_000_000, untold, false, false}}
	}
	gemini := []rule{{llm.RequestsPerMinute, 10, "rolling", false, true}, {llm.InputTokensPerMinute, 20_000, "rolling", false, true},
		{llm.RequestsPerDay, 250, "pacific", false, true}}
	busyGemini := func(requests, tokens int64) []rule {
		return []rule{{llm.RequestsPerMinute, requests, "rolling", false, true}, {llm.InputTokensPerMinute, tokens, "rolling", false, true},
			{llm.RequestsPerDay, 1_000_000, "pacific", false, true}}
	}
	anthropic := []rule{{llm.RequestsPerMinute, 50, "fill", true, true}, {llm.InputTokensPerMinute, 30_000, "fill", true, true},
		{llm.OutputTokensPerMinute, 8_000, "fill", true, true}}
	byShape := func(shape, dimension string, header bool) llm.Refill {
		switch {
		case shape == "fill":
			return llm.Continuous
		case shape == "pacific":
			return llm.PacificDay
		case header:
			return llm.Window
		}
		return llm.Rolling // of a shape that nobody told
	}
	ordinary, spring, autumn := utc("2026-11-20T13:00:00Z"), utc("2027-03-13T13:00:00Z"), utc("2026-10-31T13:00:00Z")
	for _, w := range []world{
		{name: "groq, filling evenly", rules: groq("fill", "fill"), counts: llm.TakesMax, maxTokens: 400, start: ordinary},
		// Nobody tells that the day's tokens come back in one piece, nor, in the world after it, that they do not.
		{name: "groq, in fixed windows", rules: groq("fixed", "fixed"), counts: llm.TakesMax, maxTokens: 400, start: ordinary},
		{name: "groq, untold limits rolling", rules: groq("fill", "rolling"), counts: llm.TakesMax, maxTokens: 400, start: ordinary},
		{name: "groq, clock set by an hour", rules: groq("fill", "fill"), counts: llm.TakesMax, maxTokens: 400, start: ordinary, wall: jumps(ordinary)},
		{name: "gemini", rules: gemini, maxTokens: 400, start: ordinary},
		{name: "gemini, into summer time", rules: gemini, maxTokens: 400, start: spring},
		{name: "gemini, out of summer time", rules: gemini, maxTokens: 400, start: autumn},
		{name: "gemini, clock set by an hour", rules: gemini, maxTokens: 400, start: ordinary, wall: jumps(ordinary)},
		{name: "gemini, clock wrong by 40 minutes", rules: gemini, maxTokens: 400, start: ordinary, turns: 7,
			wall: func(t time.Time) time.Time { return t.Add(40 * time.Minute) }},
		{name: "gemini, by requests of a minute", rules: busyGemini(15, 100_000), maxTokens: 400, start: ordinary},
		{name: "gemini, by tokens of a minute", rules: busyGemini(1000, 50_000), maxTokens: 400, start: ordinary, length: 24 * time.Hour},
		{name: "anthropic", rules: anthropic, counts: llm.SkipsCached, maxTokens: 1000, start: ordinary},
		{name: "anthropic, clock set by an hour", rules: anthropic, counts: llm.SkipsCached, maxTokens: 1000, start: ordinary, wall: jumps(ordinary)},
	} {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			w.t, w.workers = t, 8
			if w.length == 0 {
				w.length = 4 * 24 * time.Hour
			}
			w.refill = map[string]llm.Refill{}
			for _, r := range w.rules {
				w.refill[r.dimension] = byShape(r.shape, r.dimension, r.header)
			}
			work := w.run()
			all := 0
			for _, n := range w.refused {
				all += n
			}
			t.Logf("work %.4f of the optimum, %d requests, 429s by dimension %v", work, w.sent, w.refused)
			if work < 0.97 {
				t.Error("less than 0.97 of the optimum")
			}
			for day := time.Duration(1); day < w.length/(24*time.Hour); day++ { // the first teaches
				of := 0.0
				for _, g := range w.gauges {
					of = math.Max(of, g.days[day]/(float64(g.max)*float64(24*time.Hour)/float64(g.per)))
				}
				if of < 0.97 {
					t.Errorf("%.4f of the optimum on day %d", of, day+1)
				}
			}
			for _, g := range w.gauges {
				first := time.Time{} // the window in which the limit was found
				for at := range g.refusals {
					if first.IsZero() || at.Before(first) {
						first = at
					}
				}
				for at, n := range g.refusals {
					most := 1
					// That a limit is there is learned from those that are under way; how a day comes back, and how wrong the clock is, at its first turn.
					if age := at.Sub(first); age == 0 || g.per > time.Hour && age < g.per+2*time.Hour {
						most = w.workers * (1 + w.turns)
					}
					if n > most {
						t.Errorf("%s: %d refusals in the window of %s, %s after the first one that had any; %d are excused", g.dimension, n, at, at.Sub(first), most)
					}
				}
			}
			if allowed := len(w.rules)*w.workers + int(w.length.Minutes())/100 + w.workers*w.turns; all > allowed {
				t.Errorf("%d refusals; teaching the limits to %d workers and chance excuse %d", all, w.workers, allowed)
			}
		})
	}
}
