package fake

import (
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

func one(dimension string, max int64, w window) limits {
	return newLimits([]script.Limit{{Dimension: dimension, Max: max}}, func(script.Limit) window { return w })
}

func TestAContinuousLimitRefillsLittleByLittle(t *testing.T) {
	l := one(llm.RequestsPerMinute, 60, continuous)
	for range 60 {
		if _, refused := l.admit(noon, "m", cost{}); refused != nil {
			t.Fatal("refused too early")
		}
	}
	levels, refused := l.admit(noon, "m", cost{})
	if refused == nil || refused.wait < time.Second || refused.wait > 1010*time.Millisecond || refused.used != 60 {
		t.Fatalf("got %+v", refused)
	}
	if lv := levels[0]; lv.remaining() != 0 || lv.resetIn != time.Minute {
		t.Errorf("level %+v", lv)
	}
	if _, refused := l.admit(noon.Add(refused.wait), "m", cost{}); refused != nil {
		t.Error("refused after the wait that was told")
	}
}

func TestARollingLimitGivesBackWhatIsAWindowOld(t *testing.T) {
	l := one(llm.TokensPerMinute, 100, rolling)
	for i, n := range []int64{60, 40} {
		if _, refused := l.admit(noon.Add(time.Duration(i)*10*time.Second), "m", cost{input: n}); refused != nil {
			t.Fatal("refused too early")
		}
	}
	_, refused := l.admit(noon.Add(20*time.Second), "m", cost{input: 30, output: 20})
	if refused == nil || refused.wait != 40*time.Second {
		t.Fatalf("got %+v, want a wait until the first use is a minute old", refused)
	}
	if _, refused := l.admit(noon.Add(time.Minute), "m", cost{input: 50}); refused != nil {
		t.Errorf("refused after a minute: %+v", refused)
	}
	if _, refused := l.admit(noon.Add(time.Hour), "m", cost{input: 101}); refused == nil || refused.wait != time.Minute {
		t.Errorf("more than the whole limit: %+v", refused)
	}
}

func TestAPacificDayEndsAtMidnightInLosAngeles(t *testing.T) {
	l := one(llm.RequestsPerDay, 1, pacificDay)
	evening := time.Date(2026, 11, 1, 7, 30, 0, 0, time.UTC) // 00:30 PDT on the day on which clocks go back
	if _, refused := l.admit(evening, "m", cost{}); refused != nil {
		t.Fatal("refused too early")
	}
	_, refused := l.admit(evening.Add(time.Hour), "m", cost{})
	if want := time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC); refused == nil || !refused.reset.Equal(want) || refused.wait != 23*time.Hour+30*time.Minute {
		t.Fatalf("got %+v, want a reset at %s", refused, want)
	}
	if _, refused := l.admit(refused.reset, "m", cost{}); refused != nil {
		t.Error("refused on the next day")
	}
}

func TestARefusedRequestCostsNothingAndModelsAreApart(t *testing.T) {
	l := newLimits([]script.Limit{
		{Dimension: llm.RequestsPerMinute, Max: 5}, {Dimension: llm.TokensPerMinute, Max: 10, Model: "small"},
	}, func(script.Limit) window { return continuous })
	for range 3 {
		if _, refused := l.admit(noon, "small", cost{input: 11}); refused == nil || refused.Dimension != llm.TokensPerMinute {
			t.Fatalf("got %+v", refused)
		}
	}
	levels, refused := l.admit(noon, "large", cost{input: 11})
	if refused != nil || len(levels) != 1 || levels[0].remaining() != 4 {
		t.Errorf("got %+v, %+v", levels, refused)
	}
}
