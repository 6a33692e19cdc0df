package main

import "testing"

func TestMemoryGoesBackWhenTheProgramRests(t *testing.T) {
	var r rest
	for i, x := range []struct {
		taken uint64
		free  bool
	}{
		{1 << 20, false},                     // nothing happens
		{50 << 20, false}, {90 << 20, false}, // at work
		{91 << 20, true},                     // at rest
		{92 << 20, false}, {93 << 20, false}, // nothing happens
		{104 << 20, false}, {105 << 20, true}, // work, rest
		{205 << 20, false}, {211 << 20, true}, // much work, and then a look through the notes
	} {
		if got := r.look(x.taken); got != x.free {
			t.Errorf("look %d: %v", i, got)
		}
	}
}
