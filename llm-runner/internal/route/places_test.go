package route

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/quota"
)

// A commune has the places of a machine in memory, for lines that are processes of their own.
type commune struct {
	mu    sync.Mutex
	free  int
	using map[int]int
	lines []*line
	calls int
}

// called is how often the lines have told what they use.
func (c *commune) called() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

// join adds a line.
func (c *commune) join() *line {
	l, n := newLine(0), len(c.lines)
	c.lines = append(c.lines, l)
	l.share = func(using, waiting int) int {
		c.mu.Lock()
		c.calls++
		back := c.using[n] - using
		c.free += back
		granted := min(waiting, c.free)
		c.free -= granted
		c.using[n] = using + granted
		c.mu.Unlock()
		if back > 0 {
			for _, other := range c.lines {
				other.hear()
			}
		}
		return granted
	}
	return l
}

func TestASharedLineKeepsItsOrderAndPicksWhenAPlaceHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &commune{free: 1, using: map[int]int{}}
		other, l := c.join(), c.join()
		if err := other.enter(t.Context(), "x", false); err != nil {
			t.Fatal(err)
		}
		var order []int
		for i, w := range []waiter{{model: "a", patient: true}, {model: "b"}, {model: "a"}, {model: "b"}} {
			go func() {
				if l.enter(t.Context(), w.model, w.patient) == nil {
					order = append(order, i)
					l.leave()
				}
			}()
			synctest.Wait()
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.enter(gone, "b", false); err == nil {
			t.Error("who has gone was given a place")
		}
		time.Sleep(time.Minute)
		if len(order) != 0 {
			t.Errorf("%v were served while the other process has the place", order)
		}
		other.leave()
		synctest.Wait()
		if want := []int{1, 3, 2, 0}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
		if c.free != 1 || l.minding || other.minding || l.length() != 0 {
			t.Errorf("%d places are free, minding %t and %t", c.free, l.minding, other.minding)
		}
		began := c.calls
		time.Sleep(time.Hour)
		if c.calls != began {
			t.Errorf("%d calls in an hour in which nothing happens", c.calls-began)
		}
	})
}

// While a place is in use the others are told of it again and again: a row that nobody writes counts no more.
func TestASharedPlaceIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &commune{free: 1, using: map[int]int{}}
		l := c.join()
		if err := l.enter(t.Context(), "x", false); err != nil {
			t.Fatal(err)
		}
		began := c.called()
		time.Sleep(10*quota.PlacesRenewed + time.Second)
		if n := c.called() - began; n < 10 || n > 12 {
			t.Errorf("renewed %d times", n)
		}
		l.leave()
		synctest.Wait()
		if c.free != 1 || l.minding {
			t.Errorf("%d places are free", c.free)
		}
	})
}

// However requests come and go, no place is lost, and never are too many in use.
func TestASharedLineLosesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 2
		c := &commune{free: places, using: map[int]int{}}
		lines := []*line{c.join(), c.join(), c.join()}
		var mu sync.Mutex
		busy, most, served := 0, 0, 0
		var all sync.WaitGroup
		for i := range 300 {
			all.Go(func() {
				time.Sleep(time.Duration(i*37%1000) * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*91%4000)*time.Millisecond)
				defer cancel()
				l := lines[i%len(lines)]
				if l.enter(ctx, "m", i%2 == 0) != nil {
					return
				}
				mu.Lock()
				busy, served = busy+1, served+1
				most = max(most, busy)
				mu.Unlock()
				time.Sleep(time.Duration(i*53%100) * time.Millisecond)
				mu.Lock()
				busy--
				mu.Unlock()
				l.leave()
			})
		}
		all.Wait()
		synctest.Wait()
		if most != places || served == 0 || c.free != places {
			t.Errorf("%d at once, %d served, %d free", most, served, c.free)
		}
	})
}
