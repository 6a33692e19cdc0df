package progress

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// People write down in a task when it was made and when it was done, as the plugins Tasks (✅ 2026-01-31, ➕ 2026-01-02) and Dataview
// ([completion:: 2026-01-31], [created:: 2026-01-02], also in round brackets) do.
var (
	endedPattern   = regexp.MustCompile(`✅\x{FE0F}?\s*(\d{4}-\d\d-\d\d)|[\[(]completion::\s*(\d{4}-\d\d-\d\d)[^\])]*[\])]`)
	createdPattern = regexp.MustCompile(`➕\x{FE0F}?\s*(\d{4}-\d\d-\d\d)|[\[(]created::\s*(\d{4}-\d\d-\d\d)[^\])]*[\])]`)
)

// dated returns the last day of a pattern that a text has; "" none, or none of the calendar.
func dated(p *regexp.Regexp, text string) (day string) {
	for _, m := range p.FindAllStringSubmatch(text, -1) {
		d := m[1] + m[2]
		if _, err := time.Parse(time.DateOnly, d); err == nil {
			day = d
		}
	}
	return day
}

// Dates is the way up that the dates in a project's tasks tell: the days on which any was made or done, before a day, oldest first. A task
// without the day on which it was made counts from the first of them on; one that is done, nobody says when, as not done yet. None, where no
// task has a date.
func Dates(p Project, before string) []Day {
	change := map[string]*Day{} // what happened on a day
	at := func(day string) *Day {
		if change[day] == nil {
			change[day] = &Day{Day: day, From: FromDates}
		}
		return change[day]
	}
	always := 0
	for _, phase := range p.Phases {
		for _, t := range phase.Tasks {
			if t.Dropped {
				continue
			}
			if t.Created == "" {
				always++
			} else {
				at(t.Created).Total++
			}
			if t.Done && t.Ended != "" {
				at(t.Ended).Done++
			}
		}
	}
	var all []Day
	now := Day{Total: always}
	for _, d := range sorted(change) {
		now.Done, now.Total = now.Done+d.Done, now.Total+d.Total
		if d.Day >= before && before != "" {
			break
		}
		all = append(all, Day{d.Day, now.Done, max(now.Total, now.Done), FromDates})
	}
	return all
}

// Merge joins what was seen, what the commits of a repository say, and what the dates in tasks say: what was seen counts most, for days of which nobody
// saw anything a commit, and before the first day of both the dates.
func Merge(seen, commits []Day, p Project) []Day {
	days := map[string]*Day{}
	for _, part := range [][]Day{commits, seen} {
		for _, d := range part {
			days[d.Day] = &d
		}
	}
	known := sorted(days)
	before := ""
	if len(known) > 0 {
		before = known[0].Day
	}
	return append(Dates(p, before), known...)
}

func sorted(days map[string]*Day) []Day {
	all := make([]Day, 0, len(days))
	for _, day := range slices.Sorted(maps.Keys(days)) {
		all = append(all, *days[day])
	}
	return all
}

// Says is the text without the days at which the task was created and ended, which Created and Ended have.
func (t Task) Says() string {
	text := endedPattern.ReplaceAllString(createdPattern.ReplaceAllString(t.Text, ""), "")
	if text = strings.Join(strings.Fields(text), " "); text == "" {
		return t.Text
	}
	return text
}
