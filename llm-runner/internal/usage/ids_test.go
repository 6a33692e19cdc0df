package usage

import (
	"testing"
	"time"
)

func TestIdsOfSharedBooksFollowTime(t *testing.T) {
	var x ids
	x.share(4096*3 + 7)
	now := time.Date(2090, 1, 2, 3, 4, 5, 0, time.UTC)
	a := x.next(now)
	if b := x.next(now); b <= a || b>>nodeBits != a>>nodeBits+1 || b&(1<<nodeBits-1) != x.node {
		t.Errorf("%d after %d", b, a)
	}
	if b := x.next(now.Add(-time.Hour)); b <= a { // a clock that is set back
		t.Errorf("%d after %d", b, a)
	}
	if a < idAt(now) || a >= idAt(now.Add(time.Microsecond)) {
		t.Errorf("%d is not of its moment", a)
	}
	var plain ids
	if plain.next(now); plain.next(now) != 2 {
		t.Error("the zero value does not count")
	}
}

func TestIdsOfProcessesThatBeginOneAfterTheOtherAreNeverTheSame(t *testing.T) {
	now, seen := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), map[int64]bool{}
	for process := range int64(1 << nodeBits) {
		var x ids
		x.share(process + 1000)
		for range 3 {
			id := x.next(now)
			if seen[id] {
				t.Fatalf("process %d made %d, as another one did", process, id)
			}
			seen[id] = true
		}
	}
}

func TestDaysAreThoseOfTheLocalZone(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	defer func(was *time.Location) { time.Local = was }(time.Local)
	time.Local = zone
	since := time.Date(2026, 10, 24, 0, 0, 0, 0, zone) // the day after has 25 hours
	want := "CASE WHEN started_at >= 1792969200000 THEN '2026-10-26' WHEN started_at >= 1792879200000 THEN '2026-10-25' WHEN true THEN '2026-10-24' END"
	if got := dayOf(since, since.Add(60*time.Hour)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
