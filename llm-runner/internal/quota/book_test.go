package quota

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestOfSeveralExhaustedLimitsTheLatestResetDecides(t *testing.T) {
	var b Book
	b.Learn("groq", []llm.Limit{
		{Model: "llama", Dimension: llm.TokensPerMinute, Max: llm.Known(6000), Remaining: llm.Known(0), Reset: now.Add(7 * time.Second)},
		{Model: "llama", Dimension: llm.RequestsPerDay, Max: llm.Known(14400), Remaining: llm.Known(0), Reset: now.Add(3 * time.Hour)},
		{Model: "llama", Dimension: llm.RequestsPerMinute, Max: llm.Known(30), Remaining: llm.Known(2), Reset: now.Add(30 * time.Second)},
	}, now)
	r := b.Room("groq", "llama", now)
	if r.OK || r.Dimension != llm.RequestsPerDay || !r.Until.Equal(now.Add(3*time.Hour)) || r.Reason != "all 14400 requests/day used up" {
		t.Errorf("%+v", r)
	}
	if r := b.Room("groq", "llama", now.Add(3*time.Hour)); !r.OK {
		t.Errorf("after the reset: %+v", r)
	}
	if r := b.Room("groq", "other", now); !r.OK {
		t.Errorf("another model: %+v", r)
	}
	b.Learn("groq", []llm.Limit{{Dimension: llm.Overall, Exhausted: true, Reset: now.Add(time.Minute)}}, now)
	if r := b.Room("groq", "other", now); r.OK {
		t.Error("a limit of the whole account must count for every model")
	}
}

func TestARefusalWithATimeIsWaitedForExactly(t *testing.T) {
	var b Book
	until := now.Add(38 * time.Second)
	got := b.Refused("gemini", "flash", &llm.Error{Kind: llm.Quota, Message: "quota exceeded", Until: until}, now)
	if !got.Equal(until) {
		t.Errorf("come back at %v", got)
	}
	if r := b.Room("gemini", "flash", until.Add(-time.Millisecond)); r.OK || r.Kind != llm.Quota {
		t.Errorf("just before: %+v", r)
	}
	if r := b.Room("gemini", "flash", until); !r.OK {
		t.Errorf("at the time: %+v", r)
	}
}

func TestRefusalsWithoutATimeBackOff(t *testing.T) {
	var b Book
	e := &llm.Error{Kind: llm.Overload, Message: "overloaded"}
	var waits []time.Duration
	for range 8 {
		waits = append(waits, b.Refused("anthropic", "haiku", e, now).Sub(now))
	}
	want := []time.Duration{2, 4, 8, 16, 32, 64, 120, 120}
	for i, w := range want {
		if waits[i] != w*time.Second {
			t.Fatalf("waits %v", waits)
		}
	}
	b.Succeeded("anthropic", "haiku")
	if got := b.Refused("anthropic", "haiku", e, now).Sub(now); got != 2*time.Second {
		t.Errorf("after a success: %v", got)
	}
}

func TestALimitThatNamesOnlyOneNumberKeepsTheOther(t *testing.T) {
	var b Book
	b.Learn("groq", []llm.Limit{{Model: "llama", Dimension: llm.TokensPerMinute, Max: llm.Known(6000), Remaining: llm.Known(10)}}, now)
	b.Learn("groq", []llm.Limit{{Model: "llama", Dimension: llm.TokensPerMinute, Exhausted: true, Reset: now.Add(time.Second)}}, now)
	s := b.Standings("groq", now)
	if len(s) != 1 || s[0].Max != llm.Known(6000) || !s[0].Exhausted {
		t.Errorf("%+v", s)
	}
	s = b.Standings("groq", now.Add(time.Second))
	if s[0].Exhausted || s[0].Remaining != llm.Known(6000) {
		t.Errorf("after the reset: %+v", s)
	}
}

func limit(dimension string, most, left int64, refill llm.Refill, wait time.Duration) llm.Limit {
	return llm.Limit{Model: "m", Dimension: dimension, Max: llm.Known(most), Remaining: llm.Known(left), Refill: refill, Reset: now.Add(wait)}
}

func TestReserveSaysUntilWhenThereIsNoRoom(t *testing.T) {
	after := func(d time.Duration) time.Time { return now.Add(d) }
	for _, c := range []struct {
		name      string
		limits    []llm.Limit
		cost      Cost
		dimension string // "" there is room
		until     time.Time
	}{
		{"nothing known", nil, Cost{Input: 1 << 40}, "", time.Time{}},
		{"a limit of unknown size", []llm.Limit{{Model: "m", Dimension: llm.TokensPerMinute, Remaining: llm.Known(1)}}, Cost{Input: 1 << 40}, "", time.Time{}},
		{"the last request", []llm.Limit{limit(llm.RequestsPerMinute, 30, 1, llm.Window, 9*time.Second)}, Cost{}, "", time.Time{}},
		{"a window", []llm.Limit{limit(llm.RequestsPerMinute, 30, 0, llm.Window, 9*time.Second)}, Cost{}, llm.RequestsPerMinute, after(9 * time.Second)},
		{"filling: one of 30 takes two seconds", []llm.Limit{limit(llm.RequestsPerMinute, 30, 0, llm.Continuous, time.Minute)}, Cost{},
			llm.RequestsPerMinute, after(2*time.Second + time.Millisecond)},
		{"filling: what is missing of a large one", []llm.Limit{limit(llm.TokensPerMinute, 6000, 1000, llm.Continuous, 50*time.Second)},
			Cost{Input: 1000, Output: 500}, llm.TokensPerMinute, after(5*time.Second + time.Millisecond)},
		{"larger than the whole: when all is back", []llm.Limit{limit(llm.InputTokensPerMinute, 6000, 3000, llm.Continuous, 30*time.Second)},
			Cost{Input: 1e9}, llm.InputTokensPerMinute, after(30*time.Second + time.Millisecond)},
		{"the latest of several", []llm.Limit{limit(llm.RequestsPerDay, 10, 0, llm.Window, 3*time.Hour), limit(llm.RequestsPerMinute, 10, 0, llm.Window, time.Minute),
			limit(llm.TokensPerDay, 10, 5, llm.Window, 9*time.Hour)}, Cost{Input: 5}, llm.RequestsPerDay, after(3 * time.Hour)},
		{"a reset out of its mind", []llm.Limit{limit(llm.RequestsPerMinute, 10, 0, llm.Window, 1000*time.Hour)}, Cost{}, llm.RequestsPerMinute, after(15 * time.Minute)},
		{"midnight in California, two seconds for crooked clocks", []llm.Limit{{Model: "m", Dimension: llm.RequestsPerDay, Max: llm.Known(20), Exhausted: true,
			Refill: llm.PacificDay}}, Cost{}, llm.RequestsPerDay, time.Date(2026, 11, 23, 8, 0, 2, 0, time.UTC)},
	} {
		var b Book
		b.Learn("p", c.limits, now)
		r, room := b.Reserve("p", "m", c.cost, now)
		if room.OK != (c.dimension == "") || room.OK != (r != nil) || room.Dimension != c.dimension || !room.Until.Round(time.Microsecond).Equal(c.until) {
			t.Errorf("%s: %+v", c.name, room)
		}
		if !room.OK {
			if r, room := b.Reserve("p", "m", c.cost, room.Until); r == nil {
				t.Errorf("%s: at the time it named: %+v", c.name, room)
			}
		}
	}
}

func left(b *Book, at time.Time) map[string]int64 {
	all := map[string]int64{}
	for _, s := range b.Standings("p", at) {
		all[s.Dimension] = s.Remaining.Or(-1)
	}
	return all
}

func TestSettlingReplacesTheEstimateByWhatEachProviderCounts(t *testing.T) {
	used := llm.Usage{Input: llm.Known(300), CachedInput: llm.Known(100), Output: llm.Known(50)}
	for _, c := range []struct {
		name                    string
		counts                  llm.Counting
		reserved, told, settled int64 // left of 10000 tokens/minute
	}{
		// Input 200 and max_tokens 1000 are taken; what the header tells is the truth until the next one.
		{"openai", llm.TakesMax, 8800, 8700, 8700},
		// The header knows the input only; the 1000 stay reserved until the real output is known.
		{"anthropic", llm.SkipsCached, 8800, 7700, 8650},
	} {
		var b Book
		l := limit(llm.TokensPerMinute, 10_000, 10_000, llm.Window, time.Minute)
		l.Counts = c.counts
		b.Learn("p", []llm.Limit{l}, now)
		r, _ := b.Reserve("p", "m", Cost{Input: 200, Output: 1000}, now)
		if got := left(&b, now)[llm.TokensPerMinute]; got != c.reserved {
			t.Errorf("%s: reserved: %d left", c.name, got)
		}
		l.Remaining = llm.Known(8700)
		r.Learn([]llm.Limit{l}, now)
		if got := left(&b, now)[llm.TokensPerMinute]; got != c.told {
			t.Errorf("%s: told: %d left", c.name, got)
		}
		r.Settle(used, nil, now)
		r.Settle(used, nil, now)
		r.Release(now)
		if got := left(&b, now)[llm.TokensPerMinute]; got != c.settled {
			t.Errorf("%s: settled: %d left", c.name, got)
		}
	}
	var b Book // no header tells: Gemini's input, Groq's day
	l := limit(llm.InputTokensPerMinute, 1000, 1000, llm.Rolling, time.Minute)
	b.Learn("p", []llm.Limit{l}, now)
	r, _ := b.Reserve("p", "m", Cost{Input: 900}, now)
	r.Settle(used, nil, now)
	if got := left(&b, now)[llm.InputTokensPerMinute]; got != 700 {
		t.Errorf("counted here: %d left", got)
	}
	r, _ = b.Reserve("p", "m", Cost{Input: 300}, now)
	r.Release(now)
	if got := left(&b, now)[llm.InputTokensPerMinute]; got != 700 {
		t.Errorf("released: %d left", got)
	}
}

func TestAnAnswerThatWasOvertakenGivesNothingBack(t *testing.T) {
	var b Book
	l := limit(llm.RequestsPerDay, 100, 100, llm.Window, time.Hour)
	b.Learn("p", []llm.Limit{l}, now)
	first, _ := b.Reserve("p", "m", Cost{}, now)
	second, _ := b.Reserve("p", "m", Cost{}, now)
	l.Remaining = llm.Known(90)
	second.Settle(llm.Usage{}, []llm.Limit{l}, now)
	l.Remaining = llm.Known(91)
	first.Settle(llm.Usage{}, []llm.Limit{l}, now)
	if got := left(&b, now)[llm.RequestsPerDay]; got > 90 {
		t.Errorf("%d left", got)
	}
}

func TestOverloadTakesNoQuotaAndNamedLimitsNeedNoBackoff(t *testing.T) {
	var b Book
	b.Learn("p", []llm.Limit{limit(llm.RequestsPerMinute, 2, 2, llm.Window, time.Minute)}, now)
	r, _ := b.Reserve("p", "m", Cost{}, now)
	r.Release(now)
	b.Refused("p", "m", &llm.Error{Kind: llm.Overload, Message: "overloaded"}, now)
	if got := left(&b, now)[llm.RequestsPerMinute]; got != 2 {
		t.Errorf("%d left", got)
	}
	if _, room := b.Reserve("p", "m", Cost{}, now.Add(time.Second)); room.OK || room.Kind != llm.Overload {
		t.Errorf("%+v", room)
	}
	l := limit(llm.RequestsPerMinute, 2, 0, llm.Window, 5*time.Second)
	l.Exhausted = true
	for range 3 {
		if got := b.Refused("p", "x", &llm.Error{Kind: llm.Quota, Until: l.Reset, Limits: []llm.Limit{l}}, now); !got.Equal(l.Reset) {
			t.Errorf("come back at %v", got)
		}
	}
}

func TestTheForecastFollowsThePace(t *testing.T) {
	var b Book
	b.Learn("p", []llm.Limit{limit(llm.RequestsPerDay, 1000, 1000, llm.Window, 20*time.Hour)}, now)
	at := now
	for range 300 { // one a minute for five hours
		at = at.Add(time.Minute)
		b.Reserve("p", "m", Cost{}, at)
	}
	s := b.Standings("p", at)[0]
	if s.ExhaustedAt == nil || s.ExhaustedAt.Sub(at) < 11*time.Hour || s.ExhaustedAt.Sub(at) > 12*time.Hour {
		t.Errorf("700 left at one a minute: %v", s.ExhaustedAt)
	}
	if s := b.Standings("p", at.Add(10*time.Hour))[0]; s.ExhaustedAt != nil {
		t.Errorf("after ten quiet hours: %v", s.ExhaustedAt)
	}
}

func TestTheLastRequestIsTakenOnce(t *testing.T) {
	var b Book
	b.Learn("p", []llm.Limit{limit(llm.RequestsPerDay, 1000, 500, llm.Window, time.Hour), limit(llm.TokensPerDay, 1e6, 1e6, llm.Rolling, time.Hour)}, now)
	var got atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				r, room := b.Reserve("p", "m", Cost{Input: 10, Output: 10}, now)
				if !room.OK {
					continue
				}
				if (n+i)%5 == 0 {
					r.Release(now)
					continue
				}
				got.Add(1)
				r.Settle(llm.Usage{Input: llm.Known(12), Output: llm.Known(3)}, nil, now)
				b.Standings("p", now)
			}
		})
	}
	wg.Wait()
	if got.Load() != 500 {
		t.Errorf("500 requests were left, %d were let through", got.Load())
	}
}

func TestClocksThatAreSetMoveNothing(t *testing.T) {
	var passed time.Duration
	b := Book{clock: clock{since: func(time.Time, time.Time) time.Duration { return passed }}}
	b.Learn("p", []llm.Limit{limit(llm.RequestsPerDay, 10, 0, llm.Window, 3*time.Hour)}, now)
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		passed = 30 * time.Minute
		at := now.Add(passed + off)
		if room := b.Room("p", "m", at); room.OK || room.Until.Sub(at) != 150*time.Minute {
			t.Errorf("set by %v: %+v", off, room)
		}
	}
	if room := b.Room("p", "m", now.Add(4*time.Hour)); !room.OK { // the machine slept
		t.Errorf("after sleep: %+v", room)
	}
}

func TestAClockThatWasFarAheadTakesItsTimesBackWithIt(t *testing.T) {
	b := Book{clock: clock{since: func(time.Time, time.Time) time.Duration { return 0 }}}
	ahead := now.Add(1000 * time.Hour)
	b.Learn("p", []llm.Limit{{Model: "m", Dimension: llm.RequestsPerMinute, Max: llm.Known(10), Remaining: llm.Known(0), Reset: ahead.Add(time.Minute)}}, ahead)
	if room := b.Room("p", "m", now); room.OK || room.Until.Sub(now) > time.Minute {
		t.Errorf("%+v", room)
	}
}

func TestWhatWasCountedSurvivesARestart(t *testing.T) {
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	at := time.Now()
	open := func() *Book {
		b, err := Open(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open()
	b.Learn("p", []llm.Limit{
		{Model: "m", Dimension: llm.RequestsPerDay, Max: llm.Known(100), Remaining: llm.Known(40), Reset: at.Add(5 * time.Hour)},
		{Model: "m", Dimension: llm.TokensPerDay, Max: llm.Known(1000), Remaining: llm.Known(900), Refill: llm.Rolling, Counts: llm.TakesMax},
		{Dimension: llm.Overall, Exhausted: true, Reset: at.Add(time.Hour)},
	}, at)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	b = open()
	if got := left(b, at); got[llm.RequestsPerDay] != 40 || got[llm.TokensPerDay] != 900 {
		t.Errorf("left %v", got)
	}
	if room := b.Room("p", "x", at); room.OK || room.Until.Sub(at).Round(time.Minute) != time.Hour {
		t.Errorf("%+v", room)
	}
	if got := left(b, at.Add(25*time.Hour)); got[llm.RequestsPerDay] != 100 || got[llm.TokensPerDay] != 1000 {
		t.Errorf("a day later: left %v", got)
	}
	// The clock was set back by a month meanwhile: nothing is held for longer than its window.
	all, err := load(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	back := at.Add(-30 * 24 * time.Hour)
	var c Book
	c.restore(all, back)
	if got := left(&c, back.Add(25*time.Hour)); got[llm.RequestsPerDay] != 100 || got[llm.TokensPerDay] != 1000 {
		t.Errorf("after the clock was set back: left %v", got)
	}
}

func FuzzBook(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20})
	f.Add([]byte{4, 0, 0, 4, 1, 1, 0, 9, 9, 0, 9, 9, 1, 0, 0, 3, 200, 0, 2, 1, 0, 5, 0, 7, 0, 1, 1})
	dimensions := []string{llm.RequestsPerMinute, llm.RequestsPerDay, llm.TokensPerMinute, llm.TokensPerDay, llm.InputTokensPerMinute, llm.OutputTokensPerMinute, llm.Overall}
	f.Fuzz(func(t *testing.T, ops []byte) {
		var b Book
		var open []*Reservation
		at := now
		for ; len(ops) >= 3; ops = ops[3:] {
			x, y := int64(ops[1]), int64(ops[2])
			l := llm.Limit{Model: []string{"", "m"}[x&1], Dimension: dimensions[y%7], Max: llm.Known(x * 9), Remaining: llm.Known(y * 5), Refill: llm.Refill(x / 2 % 4),
				Counts: llm.Counting(y % 4), Reset: at.Add(time.Duration(x-100) * time.Second)}
			switch ops[0] % 6 {
			case 0:
				if r, room := b.Reserve("p", "m", Cost{Input: x, Output: y}, at); room.OK {
					open = append(open, r)
				} else if !room.Until.After(at) {
					t.Fatalf("no room, but no wait either: %+v", room)
				}
			case 1, 2:
				if len(open) > 0 {
					i := int(x) % len(open)
					if ops[0]%6 == 1 {
						open[i].Settle(llm.Usage{Input: llm.Known(x), Output: llm.Known(y)}, []llm.Limit{l}[:y%2], at)
					} else {
						open[i].Release(at)
					}
					open = append(open[:i], open[i+1:]...)
				}
			case 3:
				at = at.Add(time.Duration(x*x*y) * time.Millisecond)
			case 4:
				b.Learn("p", []llm.Limit{l}, at)
			case 5:
				l.Exhausted = true
				b.Refused("p", "m", &llm.Error{Kind: llm.Quota, Limits: []llm.Limit{l}}, at)
			}
			for _, s := range b.Standings("p", at) {
				if n := s.Remaining.Or(0); n < 0 || n > s.Max.Or(n) {
					t.Fatalf("%+v", s)
				}
			}
		}
		for _, r := range open {
			r.Settle(llm.Usage{}, nil, at)
		}
		// Two steps: what fills evenly may owe more than a day's worth, if much went out before its size was known.
		b.Standings("p", at.Add(26*time.Hour))
		for _, x := range b.accounts["p"] {
			if x.pending != 0 || x.owed != 0 || x.used < 0 || x.known && x.most > 0 && x.refill != llm.Continuous && !x.fits(1) {
				t.Fatalf("26 hours after all has ended: %+v", x)
			}
		}
		b.Standings("p", at.Add(10_000*time.Hour))
		for _, x := range b.accounts["p"] {
			if x.pending != 0 || x.owed != 0 || x.used < 0 || x.known && x.most > 0 && !x.fits(1) {
				t.Fatalf("long after all has ended: %+v", x)
			}
		}
	})
}

func BenchmarkReserveAndSettle(b *testing.B) {
	var book Book
	var told []llm.Limit
	for _, model := range []string{"", "m"} {
		for i, d := range []string{llm.RequestsPerMinute, llm.RequestsPerDay, llm.TokensPerMinute, llm.TokensPerDay, llm.InputTokensPerMinute} {
			told = append(told, llm.Limit{Model: model, Dimension: d, Max: llm.Known(1e12), Remaining: llm.Known(1e12), Refill: llm.Refill(i % 4), Reset: now.Add(time.Minute)})
		}
	}
	book.Learn("p", told, time.Now())
	u := llm.Usage{Input: llm.Known(900), Output: llm.Known(100)}
	b.ReportAllocs()
	for b.Loop() {
		at := time.Now()
		r, _ := book.Reserve("p", "m", Cost{Input: 1000, Output: 200}, at)
		r.Settle(u, told[5:7], at)
	}
}

func TestALineComesBackAsFastAsTheLimitLetsItThroughAndNoFaster(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	for _, x := range []struct {
		name   string
		refill llm.Refill
		turns  map[int]time.Duration // of those with so many ahead, after now
	}{
		{"a window, ten seconds before its end", llm.Window, map[int]time.Duration{0: 10 * time.Second, 29: 10 * time.Second,
			30: 70 * time.Second, 59: 70 * time.Second, 60: 130 * time.Second}},
		{"a bucket that fills", llm.Continuous, map[int]time.Duration{0: 2 * time.Second, 1: 4 * time.Second, 30: 62 * time.Second}},
	} {
		b := &Book{}
		b.Learn("p", []llm.Limit{{Dimension: "requests/minute", Model: "m", Refill: x.refill, Max: llm.Known(30), Remaining: llm.Known(0),
			Reset: now.Add(10 * time.Second)}}, now)
		for ahead, want := range x.turns {
			if got := b.Turn("p", "m", Cost{}, ahead, now).Sub(now); (got - want).Abs() > 10*time.Millisecond {
				t.Errorf("%s: with %d ahead after %s, not %s", x.name, ahead, got, want)
			}
		}
	}
	if got := new(Book).Turn("p", "m", Cost{}, 7, now); !got.Equal(now) {
		t.Errorf("without a limit at %s", got)
	}
}

func TestALineAtARollingLimitComesBackAsItWasUsed(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	b := &Book{}
	b.Learn("p", []llm.Limit{{Dimension: "requests/minute", Model: "m", Refill: llm.Rolling, Max: llm.Known(3), Remaining: llm.Known(3)}}, now)
	for i := range 3 {
		if _, room := b.Reserve("p", "m", Cost{}, now.Add(time.Duration(i)*10*time.Second)); !room.OK {
			t.Fatal(room)
		}
	}
	now = now.Add(30 * time.Second)
	for ahead, want := range []time.Duration{30 * time.Second, 40 * time.Second, 50 * time.Second, 110 * time.Second} {
		if got := b.Turn("p", "m", Cost{}, ahead, now).Sub(now); got < want || got > want+2*time.Second {
			t.Errorf("with %d ahead after %s, not %s", ahead, got, want)
		}
	}
}

// A minute's requests that were all sent within its first second come back together, and the refusal that teaches the limit
// tells when the first of them does.
func TestARefusalTellsWhenABurstComesBack(t *testing.T) {
	var b Book
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	refusal := &llm.Error{Kind: llm.Quota, Limits: []llm.Limit{{Dimension: llm.RequestsPerMinute, Max: llm.Known(30), Remaining: llm.Known(0),
		Exhausted: true, Refill: llm.Rolling, Reset: now.Add(59 * time.Second)}}}
	b.Refused("gemini", "m", refusal, now)
	if room := b.Room("gemini", "m", now.Add(58*time.Second)); room.OK {
		t.Error("room before its time")
	}
	count := func(at time.Time) (n int) {
		for {
			if _, room := b.Reserve("gemini", "m", Cost{}, at); !room.OK {
				return n
			}
			n++
		}
	}
	if n := count(now.Add(59500 * time.Millisecond)); n > 15 {
		t.Errorf("%d were let through when the first had come back", n)
	}
	if n := count(now.Add(62 * time.Second)); n < 15 {
		t.Errorf("%d more after a minute", n)
	}
}

// Requests overtake each other on their way: the youngest may come to the provider first, and its answer, which counts none of
// the others, be read last.
func TestTheYoungestMayHaveComeFirst(t *testing.T) {
	var b Book
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	told := func(left int64) []llm.Limit {
		return []llm.Limit{{Model: "m", Dimension: llm.RequestsPerMinute, Max: llm.Known(30), Remaining: llm.Known(left), Refill: llm.Continuous, Reset: now.Add(time.Minute)}}
	}
	b.Learn("p", told(30), now)
	var sent []*Reservation
	for range 3 {
		r, room := b.Reserve("p", "m", Cost{}, now)
		if !room.OK {
			t.Fatal(room)
		}
		sent = append(sent, r)
	}
	sent[0].Learn(told(28), now) // the youngest had come first
	sent[1].Learn(told(27), now)
	sent[2].Learn(told(29), now)
	if s := b.Standings("p", now); s[0].Remaining != llm.Known(27) {
		t.Errorf("%+v", s)
	}
	// What is told of a request that was alone is believed, in both directions.
	r, _ := b.Reserve("p", "m", Cost{}, now)
	r.Learn(told(29), now)
	if s := b.Standings("p", now); s[0].Remaining != llm.Known(29) {
		t.Errorf("%+v", s)
	}
}

func TestARefusedRequestIsGivenBackTogetherWithWhatTheRefusalTells(t *testing.T) {
	var b Book
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	limit := llm.Limit{Model: "m", Dimension: llm.RequestsPerMinute, Max: llm.Known(30), Remaining: llm.Known(1), Refill: llm.Continuous, Reset: now.Add(time.Minute)}
	b.Learn("p", []llm.Limit{limit}, now)
	r, _ := b.Reserve("p", "m", Cost{}, now)
	limit.Remaining, limit.Exhausted, limit.Reset = llm.Known(0), true, now.Add(2*time.Second)
	if until := r.Refused(&llm.Error{Kind: llm.Quota, Limits: []llm.Limit{limit}}, now); until.Sub(now) < 2*time.Second || until.Sub(now) > 2100*time.Millisecond {
		t.Errorf("come back in %s", until.Sub(now))
	}
	if room := b.Room("p", "m", now); room.OK {
		t.Error("there is room for the next to be refused")
	}
	r.Release(now) // does nothing any more
	if room := b.Room("p", "m", now); room.OK {
		t.Error("it is given back twice")
	}
}
