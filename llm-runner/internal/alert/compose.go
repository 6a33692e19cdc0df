package alert

import (
	"fmt"
	"strings"
	"time"

	"home.arpa/lab/internal/discord"
)

const (
	late      = 2 * time.Minute // what is told so long after it happened says when that was
	mostLine  = 500             // of one alert, in UTF-16 units
	mostNews  = 200             // more than so many at once are counted, not listed
	listsNews = 20              // then only so many are listed
)

// compose makes one message, at most most units long, of the alerts that are to be told: incidents first, then news, each
// in the order in which it was written down. Equal lines are one line with a count. taken are the alerts that it tells of. What a kind of
// incident needs done is on a page below runbooks, "" the repository's own: its link ends the line.
func compose(now time.Time, all []Alert, most int, sink, runbooks string) (text string, taken []Alert) {
	news := 0
	for _, a := range all {
		if a.Key == "" {
			news++
		}
	}
	overflow := fmt.Sprintf("... and %d more; llm-runner alert list has them all.", news)
	var lines []line
	room := most - discord.Length(heading(sink)) - discord.Length(overflow) - 2
	listed, counted, full := 0, 0, false
	for _, a := range append(pick(all, false), pick(all, true)...) {
		if a.Key == "" && news > mostNews && (listed == listsNews || full) {
			counted++
			taken = append(taken, a)
			continue
		}
		page := ""
		if a.Told == Untold && a.Ended.IsZero() { // what is over needs no cure
			if page = runbook(runbooks, a.Key); page != "" {
				page = " Runbook: " + page
			}
		}
		l := line{text: discord.Cut(tell(a, now), mostLine-discord.Length(page)) + page, late: now.Sub(a.happened()) > late, at: a.happened()}
		if i := same(lines, l); i >= 0 {
			lines[i].times++
			taken = append(taken, a)
			continue
		}
		if room -= discord.Length(l.text) + len("\n- Mon 15:04 (99999 times)"); room < 0 && len(lines) > 0 {
			if full = true; a.Key != "" || news <= mostNews {
				break
			}
			counted, taken = counted+1, append(taken, a)
			continue
		}
		if a.Key == "" {
			listed++
		}
		lines, taken = append(lines, l), append(taken, a)
	}
	text = layout(lines, sink)
	if counted > 0 {
		text += fmt.Sprintf("\n... and %d more; llm-runner alert list has them all.", counted)
	}
	return text, taken
}

type line struct {
	text  string
	late  bool
	at    time.Time
	times int // beyond the first
}

func same(lines []line, l line) int {
	for i, x := range lines {
		if x.text == l.text && x.late == l.late {
			return i
		}
	}
	return -1
}

func pick(all []Alert, news bool) (some []Alert) {
	for _, a := range all {
		if (a.Key == "") == news {
			some = append(some, a)
		}
	}
	return some
}

func heading(sink string) string { return "While " + sink + " could not be reached:" }

// layout puts what is told late below a heading, each with its time.
func layout(lines []line, sink string) string {
	var late, now []string
	for _, l := range lines {
		if l.times > 0 {
			l.text += fmt.Sprintf(" (%d times)", l.times+1)
		}
		if l.late {
			late = append(late, "- "+l.at.Local().Format("Mon 15:04")+" "+l.text)
		} else {
			now = append(now, l.text)
		}
	}
	if len(late) > 0 {
		now = append(append([]string{heading(sink)}, late...), now...)
	}
	return strings.Join(now, "\n")
}

// happened is when the thing was that an alert is to tell of next: its end, once its beginning is told.
func (a Alert) happened() time.Time {
	if a.Told == Beginning || a.Key != "" && !a.Ended.IsZero() && a.Told == Untold {
		return a.Ended
	}
	if a.due.After(a.Began) {
		return a.due
	}
	return a.Began
}

// tell is what is to be said of an alert next.
func tell(a Alert, now time.Time) string {
	switch {
	case a.Key == "", a.Told == Untold && a.Ended.IsZero():
		return a.Text
	case a.Told == Untold:
		return a.Text + " It is over: " + over(a)
	}
	return over(a)
}

// over is the end of an incident: how long it was, and how many jobs were held for it.
func over(a Alert) string {
	text := fmt.Sprintf("%s after %s", a.Over, long(a.Ended.Sub(a.Began)))
	if a.Jobs > 0 {
		were := "s were"
		if a.Jobs == 1 {
			were = " was"
		}
		text += fmt.Sprintf("; %d job%s held for it, up to %s", a.Jobs, were, long(time.Duration(a.Longest)*time.Millisecond))
	}
	return text + "."
}

// long is a duration as people say it, to two places: 3d4h, 2h5m, 4m10s, 12s.
func long(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d.Round(time.Second)/time.Second)
}
