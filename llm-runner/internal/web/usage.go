package web

import (
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/usage"
)

// usageDays is how far the usage page looks back, today included.
const usageDays = 14

type usagePage struct {
	Days   int
	Rows   []usageRow
	Recent []usage.Row
}

// usageRow is one provider.
type usageRow struct {
	Name     string
	Kind     string
	Sum      usage.Totals // over all days
	Today    usage.Totals
	P50, P95 llm.Count // milliseconds, of the newest day that has any
	Of       string    // that day, where it is not today
	Spark    template.HTML
	Bars     []bar
}

func (s *Site) usage(w http.ResponseWriter, r *http.Request) error {
	now := time.Now()
	days, err := usage.Days(r.Context(), s.DB, midnight(now).AddDate(0, 0, 1-usageDays))
	if err != nil {
		return err
	}
	p := usagePage{Days: usageDays}
	if p.Recent, err = usage.Recent(r.Context(), s.DB, 40); err != nil {
		return err
	}
	p.Rows = s.usageRows(days, now)
	return s.show(w, r, "usage", frame{Title: "Usage", Nav: "usage", Page: p})
}

// usageRows puts the configured providers first; one that is gone but was used still has its row.
func (s *Site) usageRows(days []usage.Day, now time.Time) []usageRow {
	today := midnight(now).Format(time.DateOnly)
	var rows []usageRow
	at := map[string]int{}
	row := func(name string) *usageRow {
		i, ok := at[name]
		if !ok {
			i = len(rows)
			at[name], rows = i, append(rows, usageRow{Name: name})
		}
		return &rows[i]
	}
	for _, r := range s.Router.Reports() {
		x := row(r.Name)
		x.Kind, x.Bars = r.Kind, bars(r.Quota)
	}
	counts := map[string][]int64{}
	for _, d := range days {
		x := row(d.Provider)
		add(&x.Sum, d.Totals)
		if _, known := d.P50.Get(); known {
			x.P50, x.P95, x.Of = d.P50, d.P95, d.Day
		}
		if d.Day == today {
			x.Today, x.Of = d.Totals, ""
		}
		when, err := time.ParseInLocation(time.DateOnly, d.Day, now.Location())
		if err != nil {
			continue
		}
		if counts[d.Provider] == nil {
			counts[d.Provider] = make([]int64, usageDays)
		}
		// Days differ in length where clocks change: round.
		if i := usageDays - 1 - int((midnight(now).Sub(when)+12*time.Hour)/(24*time.Hour)); i >= 0 && i < usageDays {
			counts[d.Provider][i] = d.Totals.Requests
		}
	}
	for i := range rows {
		rows[i].Spark = spark(counts[rows[i].Name], now)
	}
	return rows
}

func add(sum *usage.Totals, t usage.Totals) {
	sum.Requests += t.Requests
	sum.Errors += t.Errors
	sum.Busy += t.Busy
	sum.Cancelled += t.Cancelled
	sum.InputTokens += t.InputTokens
	sum.OutputTokens += t.OutputTokens
	sum.CostMicroUSD += t.CostMicroUSD
}

// spark draws requests per day, the newest on the right, as bars in SVG; each says its day and number.
func spark(counts []int64, now time.Time) template.HTML {
	if counts == nil {
		counts = make([]int64, usageDays)
	}
	const width, gap, height = 8, 2, 32
	most, total := int64(1), int64(0)
	for _, n := range counts {
		most, total = max(most, n), total+n
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="spark" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s in %d days, at most %s a day">`,
		len(counts)*(width+gap)-gap, height, len(counts)*(width+gap)-gap, height, plural(total, "request"), len(counts), num(most))
	for i, n := range counts {
		h := 1
		if n > 0 {
			h = max(2, int(n*height/most))
		}
		day := midnight(now).AddDate(0, 0, i-len(counts)+1).Format("2 Jan")
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d"><title>%s: %s</title></rect>`, i*(width+gap), height-h, width, h, day, plural(n, "request"))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // made of numbers and dates
}

func midnight(t time.Time) time.Time {
	y, m, d := t.Local().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, t.Local().Location())
}
