package quota

import (
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestOfSeveralExhaustedLimitsTheLatestResetDecides(t *testing.T) {
	var b Book
	b.Learn("groq", []llm.Limit{
		{Model: "llama", Dimension: llm.TokensPerMinute, Max: llm.Known(6000), Remaining: llm.Known(0), Reset: now.Add(7 * time.Second)},
		{Model: "llama", Dimension: llm.RequestsPerDay, Max: llm.Known(14400), Remaining: llm.Known(0), Reset: now.Add(3 * time.Hour)},
		{Model: "llama", Dimension: llm.RequestsPerMinute, Max: llm.Known(30), Remaining: llm.Known(2), Reset: now.Add(30 * time.Second)},
	})
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
	b.Learn("groq", []llm.Limit{{Dimension: llm.Overall, Exhausted: true, Reset: now.Add(time.Minute)}})
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
	b.Learn("groq", []llm.Limit{{Model: "llama", Dimension: llm.TokensPerMinute, Max: llm.Known(6000), Remaining: llm.Known(10)}})
	b.Learn("groq", []llm.Limit{{Model: "llama", Dimension: llm.TokensPerMinute, Exhausted: true, Reset: now.Add(time.Second)}})
	s := b.Standings("groq", now)
	if len(s) != 1 || s[0].Max != llm.Known(6000) || !s[0].Exhausted {
		t.Errorf("%+v", s)
	}
	s = b.Standings("groq", now.Add(time.Second))
	if s[0].Exhausted || s[0].Remaining != llm.Known(6000) {
		t.Errorf("after the reset: %+v", s)
	}
}
