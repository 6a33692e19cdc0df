package web

import (
	"fmt"
	"time"

	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/route"
)

// limitRow is one limit of a provider on the health page: what is used of it, when it resets, and when it is used up if use
// goes on as it did of late.
type limitRow struct {
	Provider  string // "" as in the row above
	Dimension string
	Model     string // "" all models together
	Used      string // "218 of 1,000"
	Bar       *bar   // nil: one of the numbers is unknown, or there is no limit
	Resets    time.Time
	Exhausted time.Time // zero: not at this pace
	Out       bool      // used up now
}

// limits are those of all providers: how many requests at once first, then what was learned of rates.
func limits(all []route.Report) []limitRow {
	var rows []limitRow
	for _, r := range all {
		x := concurrency(r)
		x.Provider = r.Name
		rows = append(rows, x)
		for _, q := range r.Quota {
			rows = append(rows, limitOf(q))
		}
	}
	return rows
}

// concurrency is how many requests a provider has at once, as a limit like the others.
func concurrency(r route.Report) limitRow {
	x := limitRow{Dimension: "concurrency", Used: num(int64(r.Active)) + " under way, no limit"}
	if r.Places > 0 {
		x.Used = fmt.Sprintf("%d of %d", r.Active, r.Places)
		x.Bar, x.Out = usedBar(x.Dimension, x.Used, int64(r.Active), int64(r.Places)), r.Waiting > 0 // a machine at work is no cause for concern
		x.Bar.Low = x.Out
	}
	if r.Waiting > 0 {
		x.Used += fmt.Sprintf(", %d in line", r.Waiting)
	}
	return x
}

func limitOf(q quota.Standing) limitRow {
	x := limitRow{Dimension: q.Dimension, Model: q.Model, Resets: q.Reset, Out: q.Exhausted}
	if q.ExhaustedAt != nil {
		x.Exhausted = *q.ExhaustedAt
	}
	most, known := q.Max.Get()
	left, told := q.Remaining.Get()
	if q.Exhausted {
		left, told = 0, true
	}
	switch {
	case known && told && most > 0:
		used := max(most-max(left, 0), 0)
		x.Used = num(used) + " of " + num(most)
		x.Bar = usedBar(q.Dimension, x.Used, used, most)
		x.Out = x.Out || left <= 0
		if used == 0 {
			x.Resets = time.Time{} // there is nothing to reset
		}
	case known:
		x.Used = "of " + num(most)
	case told:
		x.Used = num(left) + " left"
	default:
		x.Used = "unknown"
	}
	return x
}

func usedBar(label, amount string, used, most int64) *bar {
	return &bar{Label: label, Left: int(min(used*100/most, 100)), Amount: amount + " used", Low: used*10 > most*9}
}
