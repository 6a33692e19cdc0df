package route

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
)

// queue has requests enter a line with one place that is taken, and returns the order in which they have theirs.
func queue(t *testing.T, loaded string, all ...waiter) (order []int) {
	l := &line{places: 1}
	if err := l.enter(t.Context(), loaded, false); err != nil {
		t.Fatal(err)
	}
	for i, w := range all {
		go func() {
			if l.enter(t.Context(), w.model, w.patient) == nil {
				order = append(order, i)
				l.leave()
			}
		}()
		synctest.Wait() // it stands in line
	}
	l.leave()
	synctest.Wait()
	return order
}

func TestALineServesTheLoadedModelAndPeopleFirst(t *testing.T) {
	for _, x := range []struct {
		name string
		line []waiter
		want []int
	}{
		{"who came first", []waiter{{model: "a"}, {model: "a"}, {model: "a"}}, []int{0, 1, 2}},
		{"the loaded model", []waiter{{model: "b"}, {model: "a"}, {model: "b"}, {model: "a"}}, []int{1, 3, 0, 2}},
		{"people before work", []waiter{{model: "a", patient: true}, {model: "b"}, {model: "b", patient: true}}, []int{1, 2, 0}},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := queue(t, "a", x.line...); !slices.Equal(got, x.want) {
					t.Errorf("served %v, want %v", got, x.want)
				}
			})
		})
	}
}

func TestNobodyInLineIsOvertakenMoreThanTheBoundSays(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := &line{loaded: "0"}
		type stand struct {
			*waiter
			ahead, picks int
		}
		var standing []*stand
		for range 300 {
			if r.IntN(100) < 60 || len(standing) == 0 { // arrivals outrun the machine
				w := &waiter{model: fmt.Sprint(r.IntN(3)), patient: r.IntN(2) == 0, ready: make(chan struct{})}
				standing = append(standing, &stand{waiter: w, ahead: len(l.waiting)})
				l.waiting = append(l.waiting, w)
				continue
			}
			l.pass()
			for _, s := range standing {
				s.picks++
				if s.picks > s.ahead+patience+1 {
					t.Fatalf("seed %d: one with %d ahead still stands after %d places", seed, s.ahead, s.picks)
				}
			}
			standing = slices.DeleteFunc(standing, func(s *stand) bool { return !slices.Contains(l.waiting, s.waiter) })
		}
	}
}

func TestWhoGivesUpInLineLosesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{places: 2}
		for range 2 {
			if err := l.enter(t.Context(), "m", false); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var gaveUp error
		go func() { gaveUp = l.enter(ctx, "m", false) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if gaveUp == nil || l.length() != 0 {
			t.Errorf("%v, %d wait", gaveUp, l.length())
		}
		// One whose place comes in the moment it gives up passes it on.
		ctx, cancel = context.WithCancel(t.Context())
		go func() {
			if l.enter(ctx, "m", false) == nil {
				l.leave()
			}
		}()
		synctest.Wait()
		cancel()
		l.leave()
		l.leave()
		synctest.Wait()
		if l.places != 2 {
			t.Errorf("%d places are free", l.places)
		}
	})
}
