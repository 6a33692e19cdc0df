package agent

import (
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// A Missed says what becomes of due times that passed while nobody was there to see them.
type Missed string

const (
	Once Missed = "once" // one run, at the latest of them, for all
	Each Missed = "run"  // a run for each of the newest mostMissed, the first of which is for those before them as well
	Skip Missed = "skip" // none
)

const (
	mostMissed = 31               // runs that are made up for at most with Each: a month of a daily agent
	late       = 10 * time.Minute // a due time seen later than this was missed: a restart, or a busy machine, is not
	mostBack   = 100 * 24 * time.Hour
)

// A Schedule is a cron expression in a time zone. Due times are times of the wall clock: one in the hour that a change to summer time skips
// comes right after it, one in the hour that a change back doubles comes once, the first time.
type Schedule struct {
	text string
	zone *time.Location
	spec cron.Schedule
}

// ParseSchedule reads a cron expression of five fields (minute, hour, day of month, month, day of week), or @daily and its like.
func ParseSchedule(text string, zone *time.Location) (Schedule, error) {
	s := Schedule{text: text, zone: zone}
	switch {
	case strings.Contains(text, "TZ="):
		return s, fmt.Errorf("%q names a time zone: write it under timezone", text)
	case strings.HasPrefix(text, "@every"):
		return s, fmt.Errorf("%q has no times of day: write for example \"0 * * * *\" for every hour", text)
	}
	var err error
	if s.spec, err = cron.ParseStandard(text); err != nil {
		return s, fmt.Errorf("%q is no schedule (%w): write minute, hour, day of month, month and day of week, such as \"0 7 * * *\" for 7 o'clock every day", text, err)
	}
	if x, ok := s.spec.(*cron.SpecSchedule); ok {
		x.Location = time.UTC // it counts on the wall clock; real makes a moment of that
	}
	if s.spec.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return s, fmt.Errorf("%q never comes: there is no such day", text)
	}
	return s, nil
}

// Zero says that nothing is due by itself.
func (s Schedule) Zero() bool { return s.spec == nil }

func (s Schedule) String() string { return s.text }

// wall is a moment as the clock on the wall shows it, written as if that were UTC.
func (s Schedule) wall(t time.Time) time.Time {
	t = t.In(s.zone)
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// real is the first moment at which the clock on the wall shows w, or the one at which it jumps over w.
func (s Schedule) real(w time.Time) time.Time {
	// With the offsets that hold a day before and after, w is two moments at most; the wall clock tells which of them are.
	var first, after time.Time
	for _, near := range []time.Time{w.Add(-26 * time.Hour), w.Add(26 * time.Hour)} {
		_, offset := near.In(s.zone).Zone()
		t := w.Add(-time.Duration(offset) * time.Second)
		if s.wall(t).Equal(w) {
			if first.IsZero() || t.Before(first) {
				first = t
			}
		}
		after = t
	}
	if !first.IsZero() {
		return first.UTC()
	}
	// It is skipped. Read with the offset that holds afterwards, w lies before the jump: the jump is the next change of the offset.
	low, high := after.Add(-2*time.Hour), after.Add(26*time.Hour)
	_, was := low.In(s.zone).Zone()
	for high.Sub(low) > time.Second {
		mid := low.Add(high.Sub(low) / 2)
		if _, is := mid.In(s.zone).Zone(); is == was {
			low = mid
		} else {
			high = mid
		}
	}
	return high.Truncate(time.Second).UTC()
}

// after yields the due times after t, in order, each moment once.
func (s Schedule) after(t time.Time) iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		// What is skipped or doubled may lie a day before: it is looked for from there.
		last := t
		for w := s.spec.Next(s.wall(t).Add(-25 * time.Hour)); !w.IsZero(); w = s.spec.Next(w) {
			if at := s.real(w); at.After(last) {
				if last = at; !yield(at) {
					return
				}
			}
		}
	}
}

// Next is the first due time after t; the zero time where there is none.
func (s Schedule) Next(t time.Time) time.Time {
	if !s.Zero() {
		for at := range s.after(t) {
			return at
		}
	}
	return time.Time{}
}

// A Time is a due time that is to be run now.
type Time struct {
	At     time.Time
	Covers int // how many due times the run is for, 1 or more
}

// Due returns what is to be run now of the due times in (last, now], in their order.
func Due(s Schedule, last, now time.Time, missed Missed) []Time {
	if s.Zero() || last.IsZero() {
		return nil
	}
	if from := now.Add(-mostBack); last.Before(from) {
		last = from
	}
	var all []Time
	total := 0
	for at := range s.after(last) {
		if at.After(now) {
			break
		}
		total++
		all = append(all, Time{at, 1})
		if len(all) > mostMissed {
			all = all[1:]
		}
	}
	switch {
	case len(all) == 0:
		return all
	case missed == Each:
		all[0].Covers += total - len(all) // those that are not made up for: the run says so
		return all
	case missed == Skip:
		for len(all) > 0 && now.Sub(all[0].At) > late {
			all = all[1:]
		}
		return all
	}
	return []Time{{all[len(all)-1].At, total}}
}

// Says is the schedule in words, as far as it is one of the common ones; else the expression itself.
func (s Schedule) Says() string {
	if s.Zero() {
		return "only when asked"
	}
	text := s.text
	if named, ok := map[string]string{"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}[text]; ok {
		text = named
	}
	f := strings.Fields(text)
	if len(f) != 5 {
		return text
	}
	var hour, minute int
	zone := ""
	if s.zone != time.Local {
		zone = ", " + s.zone.String()
	}
	if n, err := fmt.Sscanf(f[0]+" "+f[1], "%d %d", &minute, &hour); n != 2 || err != nil || strings.ContainsAny(f[0]+f[1], ",-/*") {
		if _, err := fmt.Sscanf(f[0], "%d", &minute); err == nil && f[1] == "*" && !strings.ContainsAny(f[0], ",-/*") && f[2]+f[3]+f[4] == "***" {
			return fmt.Sprintf("every hour at minute %d%s", minute, zone)
		}
		return s.text + zone
	}
	clock := fmt.Sprintf("at %02d:%02d%s", hour, minute, zone)
	days := map[string]string{"0": "Sunday", "1": "Monday", "2": "Tuesday", "3": "Wednesday", "4": "Thursday", "5": "Friday", "6": "Saturday", "7": "Sunday",
		"sun": "Sunday", "mon": "Monday", "tue": "Tuesday", "wed": "Wednesday", "thu": "Thursday", "fri": "Friday", "sat": "Saturday"}
	switch {
	case f[2]+f[3]+f[4] == "***":
		return "every day " + clock
	case f[2]+f[3] == "**" && (f[4] == "1-5" || strings.EqualFold(f[4], "mon-fri")):
		return "Monday to Friday " + clock
	case f[2]+f[3] == "**" && days[strings.ToLower(f[4])] != "":
		return "every " + days[strings.ToLower(f[4])] + " " + clock
	case f[3]+f[4] == "**" && f[2] == "1":
		return "on the first of each month " + clock
	}
	return s.text + zone
}
