package route

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// sent tells how many of n requests that come at once have been sent after each step.
func sent(t *testing.T, n int, known func() bool, steps func(s *scout, sent func() int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, out := &scout{}, make(chan error, n)
		ctx, cancel := context.WithCancel(t.Context())
		for range n {
			go func() { out <- s.enter(ctx, known) }()
		}
		steps(s, func() int {
			synctest.Wait()
			return len(out)
		})
		cancel()
		synctest.Wait()
		if len(out) != n {
			t.Errorf("%d of %d returned when their callers left", len(out), n)
		}
	})
}

func never() bool { return false }

func TestOneGoesAheadAndEachAnswerLetsOneMoreGo(t *testing.T) {
	sent(t, 40, never, func(s *scout, sent func() int) {
		for round, want := range []int{1, 3, 7, 15, 31} {
			if got := sent(); got != want {
				t.Errorf("round %d: %d sent, want %d", round, got, want)
			}
			for range 1 << round {
				s.heard(answered)
			}
		}
	})
}

func TestNobodyWaitsForNewsForLong(t *testing.T) {
	sent(t, 40, never, func(_ *scout, sent func() int) {
		time.Sleep(scoutWait - time.Millisecond)
		if got := sent(); got != 1 {
			t.Errorf("%d sent, want 1", got)
		}
		time.Sleep(time.Millisecond)
		if got := sent(); got != 40 {
			t.Errorf("%d sent, want 40", got)
		}
	})
}

func TestAFailureHoldsNobodyUp(t *testing.T) {
	sent(t, 40, never, func(s *scout, sent func() int) {
		sent()
		s.heard(failed)
		if got := sent(); got != 40 {
			t.Errorf("%d sent, want 40", got)
		}
	})
}

func TestWhoLeavesMakesRoomForAnother(t *testing.T) {
	sent(t, 3, never, func(s *scout, sent func() int) {
		sent()
		s.heard(nothing)
		if got := sent(); got != 2 {
			t.Errorf("%d sent, want 2", got)
		}
	})
}

func TestWhatIsKnownNeedsNoScout(t *testing.T) {
	sent(t, 40, func() bool { return true }, func(_ *scout, sent func() int) {
		if got := sent(); got != 40 {
			t.Errorf("%d sent, want 40", got)
		}
	})
	sent(t, 200, never, func(s *scout, sent func() int) {
		for range scoutsAtMost {
			s.heard(answered)
		}
		if got := sent(); got != 200 {
			t.Errorf("%d sent after %d answers, want all", got, scoutsAtMost)
		}
	})
}
