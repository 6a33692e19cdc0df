package quota

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// A hall is what processes know of each other's places, as the database has it.
type hall struct {
	most int
	now  int64
	rows map[string]stand
}

func (h *hall) use(worker string, using, waiting int) (granted int, free bool) {
	h.now++
	mine, free := grant(slices.Collect(maps.Values(h.rows)), worker, h.most, using, waiting, h.now)
	if h.rows[worker] = mine; mine.taken+mine.waiting == 0 {
		delete(h.rows, worker)
	}
	return mine.taken - using, free
}

func TestPlacesGoRound(t *testing.T) {
	h := &hall{most: 1, rows: map[string]stand{}}
	for i, step := range []struct {
		worker         string
		using, waiting int
		granted        int
		free           bool // the others are told
	}{
		{"a", 0, 1, 1, false},
		{"b", 0, 2, 0, false},
		{"a", 1, 3, 0, false},
		{"c", 0, 1, 0, false},
		{"a", 0, 3, 0, true}, // it is b's turn
		{"c", 0, 1, 0, false},
		{"b", 0, 2, 1, true}, // and with its next request it waits behind the others
		{"b", 0, 1, 0, true},
		{"c", 0, 1, 0, false}, // a came before
		{"a", 0, 0, 0, true},  // but has gone
		{"c", 0, 1, 1, true},
		{"c", 0, 0, 0, true},
		{"b", 0, 1, 1, false},
		{"b", 0, 0, 0, false}, // there is nobody to tell
	} {
		granted, free := h.use(step.worker, step.using, step.waiting)
		if granted != step.granted || free != step.free {
			t.Errorf("step %d, %+v: granted %d, told others %t", i, step, granted, free)
		}
	}
	if len(h.rows) != 0 {
		t.Errorf("left are %v", h.rows)
	}
}

// Whatever processes do, together they never use more places than there are; when all who were told have looked, no place is free
// that somebody waits for; and who still waits then has waited for less long than who was given one.
func TestPlacesAreNeverTooManyNorLeftFree(t *testing.T) {
	type process struct{ using, waiting int }
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		h := &hall{most: 1 + r.IntN(4), rows: map[string]stand{}}
		all := map[string]*process{}
		for i := range 2 + r.IntN(3) {
			all[fmt.Sprint(i)] = &process{}
		}
		names := slices.Sorted(maps.Keys(all))
		for range 300 {
			before, given := maps.Clone(h.rows), map[string]bool{}
			ask := func(name string) bool {
				p := all[name]
				granted, free := h.use(name, p.using, p.waiting)
				p.using, p.waiting = p.using+granted, p.waiting-granted
				given[name] = given[name] || granted > 0
				return free
			}
			name := names[r.IntN(len(names))]
			switch p := all[name]; {
			case r.IntN(3) > 0:
				p.waiting++
			case p.using > 0:
				p.using--
			case p.waiting > 0:
				p.waiting-- // it has gone
			}
			for told := ask(name); told; { // the others hear of it, in any order
				told = false
				r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
				for _, other := range names {
					told = ask(other) || told
				}
			}
			used, wait := 0, 0
			for _, p := range all {
				used, wait = used+p.using, wait+p.waiting
			}
			if used > h.most || used < h.most && wait > 0 {
				t.Fatalf("seed %d: %d of %d places are in use, %d wait: %v", seed, used, h.most, wait, h.rows)
			}
			for x, s := range before {
				for y := range given {
					if was, waited := before[y]; given[y] && s.since > 0 && h.rows[x].since == s.since && (!waited || was.since == 0 || was.since > s.since) {
						t.Fatalf("seed %d: %s still waits since %d, and %s was given a place: %v", seed, x, s.since, y, before)
					}
				}
			}
		}
	}
}
