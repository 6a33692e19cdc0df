package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A bench holds the clocks: wall is the one that is set.
type clockBench struct {
	*clock
	wall, true time.Duration
	slow       time.Duration
	moves      []time.Duration
	fault      error
}

func newClockBench() *clockBench {
	b := &clockBench{}
	b.clock = newClock(Config{Steady: func() time.Duration { return b.true }})
	b.read = func(context.Context) (time.Time, time.Duration, error) {
		b.pass(b.slow)
		return time.Unix(1_800_000_000, 0).Add(b.wall), 0, nil
	}
	total := time.Duration(0)
	read := b.read
	b.read = func(ctx context.Context) (time.Time, time.Duration, error) {
		now, _, err := read(ctx)
		return now, total, err
	}
	b.claim = func(_ context.Context, moved, by time.Duration, f func()) (bool, error) {
		f()
		total = moved + by
		return true, nil
	}
	b.movers, b.owed = []Mover{func(_ context.Context, by time.Duration) error {
		if b.fault == nil {
			b.moves = append(b.moves, by.Round(100*time.Millisecond))
		}
		return b.fault
	}}, []time.Duration{0}
	return b
}

// share has b be one process of several: what they know of moves is in total, and they see the same wall.
func (b *clockBench) share(with *clockBench, total *time.Duration) {
	b.read = func(context.Context) (time.Time, time.Duration, error) {
		return time.Unix(1_800_000_000, 0).Add(with.wall), *total, nil
	}
	b.clock.steady = func() time.Duration { return with.true }
	b.claim = func(_ context.Context, moved, by time.Duration, f func()) (bool, error) {
		if *total != moved {
			return false, nil
		}
		f()
		*total = moved + by
		return true, nil
	}
}

// pass has time go by, on both clocks.
func (b *clockBench) pass(d time.Duration) { b.wall, b.true = b.wall+d, b.true+d }

func (b *clockBench) told(t *testing.T) string {
	t.Helper()
	if _, err := b.look(t.Context()); err != nil && b.fault == nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(b.moves)
	b.moves = nil
	return all
}

func TestEachMoveOfTheClockIsToldOnce(t *testing.T) {
	b := newClockBench()
	expect := func(what, want string) {
		t.Helper()
		if got := b.told(t); got != want {
			t.Errorf("%s: told %s, not %s", what, got, want)
		}
	}
	expect("the first look", "[]")
	b.pass(time.Minute)
	b.wall += time.Hour
	expect("a clock that is set at the start", "[]")
	b.pass(20 * time.Minute)
	b.wall += time.Hour
	expect("an hour forward", "[1h0m0s]")
	expect("again", "[]")
	b.pass(5 * time.Second)
	b.wall -= time.Hour
	expect("an hour back", "[-1h0m0s]")
	for range 10000 { // two weeks in which the network slows the clock down
		b.pass(2 * time.Minute)
		b.wall -= 50 * time.Millisecond
		expect("a clock that is kept in step", "[]")
	}
	b.wall += 5 * time.Hour
	expect("a machine that was paused", "[]")
	b.wall -= 30 * time.Hour
	expect("a wrong clock that was mended", "[-30h0m0s]")
	b.slow = time.Minute
	b.wall += time.Hour
	expect("a look that took too long", "[]")
	b.slow = 0
	expect("the next look", "[1h0m0s]")
	b.fault = errors.New("the disk refuses")
	b.wall += time.Hour
	expect("an owner that cannot write", "[]")
	b.wall += time.Minute
	expect("nor now", "[]")
	b.fault = nil
	expect("an owner that can", "[1h1m0s]")
	b.pass(24 * time.Hour)
	expect("a day later", "[]")
}

// A task that is cancelled while it moves what waits has moved all of it.
func TestAMoveIsNotCutShort(t *testing.T) {
	b := newClockBench()
	b.told(t)
	b.pass(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	b.movers = append([]Mover{func(ctx context.Context, _ time.Duration) error {
		cancel()
		return nil
	}}, func(ctx context.Context, by time.Duration) error {
		b.moves = append(b.moves, by.Round(time.Second))
		return ctx.Err()
	})
	b.owed = append(b.owed, 0)
	b.wall += time.Hour
	if _, err := b.look(ctx); err != nil || len(b.moves) != 1 || b.told(t) != "[1h0m0s]" {
		t.Errorf("%v, %v", b.moves, err)
	}
	if got := b.told(t); got != "[]" {
		t.Errorf("told again: %s", got)
	}
}

// A process that began a while ago takes a clock that goes forward for one that is set for the first time, and one that begins just then knows no
// other. Neither undoes what the others have moved.
func TestProcessesThatSeeAMoveOtherwiseAgree(t *testing.T) {
	var total time.Duration
	old, young, born := newClockBench(), newClockBench(), newClockBench()
	for _, b := range []*clockBench{old, young, born} {
		b.share(old, &total)
	}
	old.told(t)
	old.pass(time.Hour)
	young.clock.begun = old.true
	young.told(t)
	old.pass(time.Minute)
	old.wall += time.Hour
	born.clock.begun = old.true
	born.told(t)
	young.told(t)
	moved := ""
	for range 5 { // each looks again and again
		moved += old.told(t) + young.told(t) + born.told(t)
		old.pass(5 * time.Second)
	}
	if want := "[1h0m0s][][]" + strings.Repeat("[]", 12); moved != want {
		t.Errorf("told %s, not %s", moved, want)
	}
	old.pass(time.Hour)
	old.wall -= time.Hour
	if got := young.told(t) + old.told(t) + born.told(t); got != "[-1h0m0s][][]" {
		t.Errorf("afterwards, an hour back: told %s", got)
	}
}
