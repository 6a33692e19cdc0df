package route

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// chain is a row with two fallbacks.
var chain = Table{
	Default: Target{"gemini", "flash"},
	Models: map[string]Entry{
		"big":    {Target: Target{"gemini", "flash"}, Fallback: "second"},
		"second": {Target: Target{"groq", "llama"}, Fallback: "third"},
		"third":  {Target: Target{"home", "small"}},
	},
}

// A hold names the limit that it ends with: a fallback's, where that has room first. Whoever waits then stands in that line, and is
// woken when that one has room.
func TestAHoldIsForWhoHasRoomFirst(t *testing.T) {
	off := says("x")
	h := newHouse(t, chain, Member{Name: "gemini", Cloud: true, Provider: says("x")}, Member{Name: "groq", Cloud: true, Provider: says("x")},
		Member{Name: "home", Provider: says("x"), Probe: off.probe})
	h.member["home"].set(errors.New("connection refused"))
	now := time.Now()
	midnight, soon := now.Add(20*time.Hour), now.Add(20*time.Second)
	h.book.Learn("gemini", []llm.Limit{{Model: "flash", Dimension: llm.RequestsPerDay, Max: llm.Known(20), Remaining: llm.Known(0), Reset: midnight, Exhausted: true}}, now)
	h.book.Learn("groq", []llm.Limit{{Model: "llama", Dimension: llm.TokensPerMinute, Max: llm.Known(6000), Remaining: llm.Known(0), Reset: soon, Exhausted: true}}, now)
	_, err := ask(h, "big")
	var busy *llm.BusyError
	if !errors.As(err, &busy) || busy.Provider != "groq" || busy.Model != "llama" || busy.Dimension != llm.TokensPerMinute ||
		busy.Until.Sub(soon).Abs() > time.Second || !strings.HasPrefix(busy.Reason, "groq: ") || busy.Broken {
		t.Errorf("%#v", err)
	}
	if lane := h.Lane(llm.Request{Model: "big"}); lane != "groq" {
		t.Errorf("it is in the line of %q", lane)
	}
}

func TestOfSeveralRefusalsTheOneThatEndsFirstIsTold(t *testing.T) {
	now := time.Now()
	refuses := func(after time.Duration) *answers {
		return &answers{err: &llm.Error{Kind: llm.Quota, Message: "rate limit reached", Until: now.Add(after)}}
	}
	h := newHouse(t, chain, Member{Name: "gemini", Cloud: true, Provider: refuses(30 * time.Second)}, Member{Name: "groq", Cloud: true, Provider: refuses(10 * time.Second)},
		Member{Name: "home", Provider: refuses(time.Hour)})
	_, err := ask(h, "big")
	var busy *llm.BusyError
	if !errors.As(err, &busy) || busy.Provider != "groq" || busy.Until.Sub(now.Add(10*time.Second)).Abs() > time.Second {
		t.Errorf("%#v", err)
	}
	if got := h.rows(t); got != "gemini/cloud/busy groq/fallback/busy home/fallback/busy" {
		t.Errorf("ledger: %s", got)
	}
}

// What a fallback fails at says nothing of the row's own target, which only has to be waited for.
func TestAFallbackThatFailsDoesNotFailWhatCanBeHeld(t *testing.T) {
	until := time.Now().Add(time.Hour)
	for _, x := range []struct {
		name   string
		err    *llm.Error
		broken bool
	}{
		{"500", &llm.Error{Kind: llm.Unavailable, Status: 500, Message: "internal"}, true},
		{"a wrong key", &llm.Error{Kind: llm.Auth, Status: 401, Message: "no such key"}, false},
		{"no money", &llm.Error{Kind: llm.Spend, Status: 402, Message: "no credit"}, false},
		{"no such model", &llm.Error{Kind: llm.NotFound, Status: 404, Message: "no such model"}, false},
		{"a request that it does not take", &llm.Error{Kind: llm.BadRequest, Status: 400, Message: "no pictures"}, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			gemini, home := &answers{err: &llm.Error{Kind: llm.Quota, Message: "used up", Until: until}}, says("home")
			h := newHouse(t, chain, Member{Name: "gemini", Cloud: true, Provider: gemini}, Member{Name: "groq", Cloud: true, Provider: &answers{err: x.err}},
				Member{Name: "home", Provider: home})
			for range 2 { // refused, then known to be
				if a, err := ask(h, "big"); err != nil || a.Message.Text() != "home" {
					t.Errorf("the next fallback: %+v, %v", a, err)
				}
			}
			home.events, home.err = nil, x.err
			for range 2 {
				_, err := ask(h, "big")
				var busy *llm.BusyError
				if !errors.As(err, &busy) || busy.Provider != "gemini" || busy.Kind != llm.Quota || !busy.Until.Equal(until) || busy.Broken != x.broken {
					t.Errorf("%#v", err)
				}
				if !strings.Contains(err.Error(), x.err.Message) {
					t.Errorf("it does not say what the fallback failed at: %v", err)
				}
			}
			if n := gemini.calls.Load(); n != 1 {
				t.Errorf("who named a time was asked %d times", n)
			}
		})
	}
}

func TestWhereNobodyCanBeWaitedForTheFaultThatMayPassIsTold(t *testing.T) {
	fault := &answers{err: &llm.Error{Kind: llm.Unavailable, Status: 500, Message: "internal"}}
	wrong := &answers{err: &llm.Error{Kind: llm.Auth, Status: 401, Message: "no such key"}}
	h := newHouse(t, chain, Member{Name: "gemini", Cloud: true, Provider: fault}, Member{Name: "groq", Cloud: true, Provider: wrong}, Member{Name: "home", Provider: wrong})
	_, err := ask(h, "big")
	var busy *llm.BusyError
	if !errors.As(err, &busy) || busy.Provider != "gemini" || busy.Err == nil {
		t.Errorf("%#v", err)
	}
	if _, err = ask(h, "second"); llm.KindOf(err) != llm.Auth { // the row's own target can never answer
		t.Errorf("%#v", err)
	}
}

func TestAFaultThatNamesATimeKeepsIt(t *testing.T) {
	until := time.Now().Add(90 * time.Second)
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: &answers{err: &llm.Error{Kind: llm.Unavailable, Status: 502, Until: until}}}, Member{Name: "home", Provider: says("home")})
	_, err := ask(h, "lone")
	var busy *llm.BusyError
	if !errors.As(err, &busy) || !busy.Until.Equal(until) {
		t.Errorf("%#v", err)
	}
}

// A fallback is for a limit that is used up, not for one that has room again in two seconds: whoever waits for an answer gets it from
// the model that it asked for, whether the refusal came to it or to another one before.
// turning answers in one way before a time, and in another one after it.
type turning struct {
	at            time.Time
	before, after llm.Provider
}

func (p turning) Stream(ctx context.Context, r llm.Request) iter.Seq2[llm.Event, error] {
	if time.Now().Before(p.at) {
		return p.before.Stream(ctx, r)
	}
	return p.after.Stream(ctx, r)
}

func TestAMomentIsWaitedForBeforeAFallbackAnswers(t *testing.T) {
	for _, x := range []struct {
		purpose string
		wait    time.Duration // until there is room
		silent  bool          // the provider does not say how long
		first   string        // who answers the first, and who the second that comes at once
		second  string
	}{
		{"chat", 2 * time.Second, false, "gemini", "gemini"},
		{"chat", 4 * time.Second, false, "home", "home"},
		{"chat", 0, true, "home", "gemini"}, // by a guess of two seconds
		{"job", 2 * time.Second, false, "home", "home"},
	} {
		synctest.Test(t, func(t *testing.T) {
			refusal := &llm.Error{Kind: llm.Quota, Message: "used up"}
			gemini := turning{time.Now().Add(time.Second), &answers{err: refusal}, says("gemini")}
			h := newHouse(t, Table{Models: map[string]Entry{"big": {Target: Target{"gemini", "flash"}, Fallback: "home"}, "home": {Target: Target{"home", "small"}}}},
				Member{Name: "gemini", Cloud: true, Provider: gemini}, Member{Name: "home", Provider: says("home")})
			began := time.Now()
			if !x.silent {
				refusal.Until = began.Add(x.wait)
			}
			for _, want := range []string{x.first, x.second} {
				a, err := llm.Collect(h.Stream(t.Context(), llm.Request{Model: "big", Purpose: x.purpose}))
				if err != nil || a.Message.Text() != want {
					t.Errorf("%+v: %+v, %v, want %s", x, a.Route, err, want)
				}
			}
			if took := time.Since(began); took > moment {
				t.Errorf("%+v: it took %s", x, took)
			}
		})
	}
}
