package web

import (
	"fmt"
	"html"
	"html/template"
	"reflect"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

// functions are what templates may call.
var functions = template.FuncMap{
	"ago":      func(t time.Time) template.HTML { return moment(t, time.Now()) },
	"on":       llm.On,
	"num":      num,
	"count":    count,
	"took":     took,
	"usd":      usd,
	"millis":   millis,
	"micro":    func(n int64) string { return usd(llm.Known(n)) },
	"snippet":  snippet,
	"iso":      func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"clock":    func(t time.Time) string { return clock(t, time.Now()) },
	"lower":    strings.ToLower,
	"plural":   plural,
	"policies": func() []string { return []string{string(toolbox.Allow), string(toolbox.Ask), string(toolbox.Deny)} },
	"len64":    func(list any) int64 { return int64(reflect.ValueOf(list).Len()) },
	"kilobytes": func(n int) string {
		if n < 1000 {
			return fmt.Sprintf("%d bytes", n)
		}
		return fmt.Sprintf("%d kB", (n+500)/1000)
	},
}

// moment is a time as people say it, with the exact one on hover.
func moment(t, now time.Time) template.HTML {
	if t.IsZero() {
		return ""
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, //nolint:gosec // made of numbers and month names
		t.UTC().Format(time.RFC3339), t.Local().Format("2 January 2006, 15:04:05 MST"), ago(t, now)))
}

func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case d < -time.Second:
		return "in " + about(-d)
	case d < time.Minute:
		return "just now"
	case d < 7*24*time.Hour:
		return about(d) + " ago"
	case t.Local().Year() == now.Local().Year():
		return t.Local().Format("2 Jan")
	}
	return t.Local().Format("2 Jan 2006")
}

// about is a duration in its largest unit.
func about(d time.Duration) string {
	switch {
	case d < time.Minute:
		return plural(int64(d.Round(time.Second)/time.Second), "second")
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return plural(int64(d.Hours()/24), "day")
}

// clock is the time of day, with the day where it is not today.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04")
	}
	return t.Format("Mon 2 Jan 15:04")
}

// num groups digits by thousands: 12,345.
func num(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count is num, or a dash where the number is unknown.
func count(c llm.Count) string {
	n, known := c.Get()
	if !known {
		return "\u2013"
	}
	return num(n)
}

// took is a duration with the digits that matter; a dash for none.
func took(d time.Duration) string {
	switch {
	case d <= 0:
		return "\u2013"
	case d < time.Second:
		return strconv.Itoa(int(max(d.Milliseconds(), 1))) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// millis is a number of milliseconds as took shows it.
func millis(c llm.Count) string {
	if n, known := c.Get(); known && n < 1 {
		return "under 1 ms"
	}
	return took(time.Duration(c.Or(0)) * time.Millisecond)
}

// usd is an amount of micro-dollars; a dash where it is unknown.
func usd(c llm.Count) string {
	n, known := c.Get()
	switch {
	case !known:
		return "\u2013"
	case n == 0:
		return "$0"
	case n < 10_000:
		return "$" + strconv.FormatFloat(float64(n)/1e6, 'f', 4, 64)
	}
	return "$" + strconv.FormatFloat(float64(n)/1e6, 'f', 2, 64)
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return num(n) + " " + noun + "s"
}

// snippet marks the hits that the search set between \x02 and \x03.
func snippet(s string) template.HTML {
	s = html.EscapeString(s)
	return template.HTML(strings.NewReplacer("\x02", "<mark>", "\x03", "</mark>").Replace(s)) //nolint:gosec // escaped above
}
