package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func schedule(t testing.TB, text, where string) Schedule {
	t.Helper()
	s, err := ParseSchedule(text, zone(t, where))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	x, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// Times here are UTC. Berlin jumps from 2:00 to 3:00 at 01:00 on 29 March 2026, and back from 3:00 to 2:00 at 01:00 on 25 October.
func TestDue(t *testing.T) {
	for _, c := range []struct {
		name, spec, zone, last, now string
		missed                      Missed
		want                        string
	}{
		{"nothing yet", "0 7 * * *", "Europe/Berlin", "2026-01-10 06:00", "2026-01-11 05:59", Once, ""},
		{"on time", "0 7 * * *", "Europe/Berlin", "2026-01-10 06:00", "2026-01-11 06:00", Once, "01-11 06:00"},
		{"on time, whatever the policy", "0 7 * * *", "Europe/Berlin", "2026-01-10 06:00", "2026-01-11 06:05", Skip, "01-11 06:00"},
		{"the clock of summer", "0 7 * * *", "Europe/Berlin", "2026-07-10 05:00", "2026-07-11 05:00", Once, "07-11 05:00"},
		{"a week off, once", "0 7 * * *", "Europe/Berlin", "2026-01-10 06:00", "2026-01-17 12:00", Once, "01-17 06:00 for 7"},
		{"a week off, each", "0 7 * * *", "Europe/Berlin", "2026-01-10 06:00", "2026-01-13 12:00", Each, "01-11 06:00, 01-12 06:00, 01-13 06:00"},
		{"a week off, none", "0 7 * * *", "Europe/Berlin", "2026-01-10 06:00", "2026-01-17 12:00", Skip, ""},
		{"a week off, back in time for the last", "0 7 * * *", "Europe/Berlin", "2026-01-10 06:00", "2026-01-17 06:09", Skip, "01-17 06:00"},
		{"in the skipped hour: right after it", "30 2 * * *", "Europe/Berlin", "2026-03-28 01:30", "2026-03-29 12:00", Once, "03-29 01:00"},
		{"after it, the next is a day later", "30 2 * * *", "Europe/Berlin", "2026-03-29 01:00", "2026-03-30 12:00", Once, "03-30 00:30"},
		{"four in the skipped hour are one", "*/15 2 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 12:00", Each, "03-29 01:00"},
		{"the end of the skipped hour is the same moment", "0 2,3 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 12:00", Each, "03-29 01:00"},
		{"in the doubled hour: once, the first time", "30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", "2026-10-25 12:00", Each, "10-25 00:30"},
		{"and not again", "30 2 * * *", "Europe/Berlin", "2026-10-25 00:30", "2026-10-25 12:00", Each, ""},
		{"seen last in the second of the doubled hours", "30 2 * * *", "Europe/Berlin", "2026-10-25 01:10", "2026-10-26 12:00", Each, "10-26 01:30"},
		{"half an hour's jump", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", "2026-10-03 20:00", Each, "10-03 15:30"},
		{"midnight is skipped", "0 0 * * *", "America/Santiago", "2026-09-05 12:00", "2026-09-06 12:00", Each, "09-06 04:00"},
		{"a day that was skipped whole", "0 12 * * *", "Pacific/Apia", "2011-12-29 23:00", "2011-12-31 00:00", Each, "12-30 10:00, 12-30 22:00"},
		{"never seen before: nothing was missed", "* * * * *", "UTC", "", "2026-01-01 00:00", Each, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var last time.Time
			if c.last != "" {
				last = at(t, c.last)
			}
			var got []string
			for _, d := range Due(schedule(t, c.spec, c.zone), last, at(t, c.now), c.missed) {
				s := d.At.Format("01-02 15:04")
				if d.Covers != 1 {
					s += fmt.Sprintf(" for %d", d.Covers)
				}
				got = append(got, s)
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("due are %q, not %q", s, c.want)
			}
		})
	}
}

func TestWhatIsMadeUpForIsBounded(t *testing.T) {
	s := schedule(t, "* * * * *", "Europe/Berlin")
	now := at(t, "2026-06-01 00:00")
	all := Due(s, now.AddDate(-3, 0, 0), now, Each)
	if len(all) != mostMissed || !all[len(all)-1].At.Equal(now) {
		t.Errorf("%d runs, the last at %v", len(all), all[len(all)-1])
	}
	if n := all[0].Covers; n < 140_000 || all[1].Covers != 1 {
		t.Errorf("the first is for %d due times", n)
	}
	if one := Due(s, now.Add(-48*time.Hour), now, Once); len(one) != 1 || one[0].Covers != 48*60 {
		t.Errorf("%+v", one)
	}
}

// Whatever happens between, every due time comes exactly once, in order.
func TestDueTimesComeOnceHoweverOftenItIsLooked(t *testing.T) {
	for _, where := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"} {
		for _, spec := range []string{"30 2 * * *", "*/20 * * * *", "0 7 * * 1-5"} {
			s := schedule(t, spec, where)
			from, to := at(t, "2026-03-20 00:00"), at(t, "2026-04-10 00:00")
			whole := Due(s, from, to, Once)[0].Covers
			seen, last := 0, from
			for now := from; !now.After(to); now = now.Add(53 * time.Minute) {
				for _, d := range Due(s, last, now, Each) {
					if !d.At.After(last) {
						t.Fatalf("%s in %s: %v after %v", spec, where, d.At, last)
					}
					last = d.At
					seen++
				}
			}
			if tail := Due(s, last, to, Each); len(tail) > 0 {
				seen += len(tail)
			}
			if seen != whole {
				t.Errorf("%s in %s: %d of %d", spec, where, seen, whole)
			}
		}
	}
}

func TestSchedulesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"every day": "is no schedule", "0 7 * *": "is no schedule", "61 * * * *": "is no schedule", "@every 1h": "has no times of day",
		"CRON_TZ=UTC 0 7 * * *": "under timezone", "0 0 30 2 *": "never comes",
	} {
		if _, err := ParseSchedule(text, time.UTC); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestASchedulesWords(t *testing.T) {
	for text, want := range map[string]string{
		"0 7 * * *": "every day at 07:00, Europe/Berlin", "30 18 * * 1-5": "Monday to Friday at 18:30, Europe/Berlin", "5 9 * * sun": "every Sunday at 09:05, Europe/Berlin",
		"15 * * * *": "every hour at minute 15, Europe/Berlin", "@daily": "every day at 00:00, Europe/Berlin", "0 6 1 * *": "on the first of each month at 06:00, Europe/Berlin",
		"*/5 8-17 * * *": "*/5 8-17 * * *, Europe/Berlin",
	} {
		if got := schedule(t, text, "Europe/Berlin").Says(); got != want {
			t.Errorf("%s: %q, not %q", text, got, want)
		}
	}
}
