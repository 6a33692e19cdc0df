package embed

import (
	"math"
	"testing"
)

// Every 16-bit number comes back as itself, and every number between two of them goes to the nearer one.
func TestHalvesComeBackAndAreTheNearest(t *testing.T) {
	for h := range uint16(0x7c00) { // the finite ones; negative ones are their mirror
		x := whole(h)
		if half(x) != h || half(-x) != h|0x8000 {
			t.Fatalf("%#x is %v and becomes %#x", h, x, half(x))
		}
		if h == 0x7bff {
			break
		}
		next := whole(h + 1)
		middle := x + (next-x)/2
		if got := half(math.Nextafter32(middle, x)); got != h {
			t.Fatalf("below the middle of %v and %v: %#x", x, next, got)
		}
		if got := half(math.Nextafter32(middle, next)); got != h+1 {
			t.Fatalf("above the middle of %v and %v: %#x", x, next, got)
		}
		if got := half(middle); got != h+h&1 {
			t.Fatalf("in the middle of %v and %v: %#x", x, next, got)
		}
	}
}

func TestCutsEndBetweenWordsAndNeverInACharacter(t *testing.T) {
	for _, test := range []struct {
		text string
		n    int
		want string
	}{
		{"short", 10, "short"}, {"some words here", 13, "some words"}, {"donaudampfschiff", 5, "donau"}, {"äöü", 3, "ä"}, {"ä", 1, "ä"}, {"abc", 0, "a"},
	} {
		if got := cut(test.text, test.n); got != test.want {
			t.Errorf("cut(%q, %d) = %q", test.text, test.n, got)
		}
	}
}
