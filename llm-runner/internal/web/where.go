package web

import (
	"fmt"
	"net/http"
	"time"

	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/route"
)

// machine is a provider in the corner of every page: where answers come from, and how it is there.
type machine struct {
	Name  string
	Cloud bool
	Word  string // up, busy, down, unknown
	Says  string
	Bar   *bar // of a cloud provider: its tightest limit; nil: none is known
	Bars  []bar
}

// bar is one rate limit.
type bar struct {
	Label   string
	Left    int // percent, 0 to 100
	Amount  string
	Refills time.Time // zero: not told, or nothing to refill
	Low     bool
}

func (s *Site) where() []machine {
	var all []machine
	for _, r := range s.Router.Reports() {
		if r.Kind == "vault" { // the notes are here, whichever machine reads them
			continue
		}
		m := machine{Name: r.Name, Cloud: r.Cloud, Word: string(r.Health.Status), Bars: bars(r.Quota)}
		switch {
		case r.Health.Status == route.Down:
			m.Says = r.Health.Error
		case r.Active > 0:
			m.Word, m.Says = "busy", plural(int64(r.Active), "answer")+" under way"
			if r.Waiting > 0 {
				m.Says += fmt.Sprintf(", %d in line", r.Waiting)
			}
		case r.Health.Status == route.Unknown:
			m.Says = "not asked yet"
		default:
			m.Says = "ready"
		}
		for i := range m.Bars {
			if m.Bar == nil || m.Bars[i].Left < m.Bar.Left {
				m.Bar = &m.Bars[i]
			}
		}
		all = append(all, m)
	}
	return all
}

// bars are the limits of which both numbers are known.
func bars(standings []quota.Standing) []bar {
	var all []bar
	for _, q := range standings {
		most, known := q.Max.Get()
		left, told := q.Remaining.Get()
		if q.Exhausted {
			left, told = 0, true
		}
		if !known || !told || most <= 0 {
			continue
		}
		b := bar{Label: q.Dimension, Left: int(min(max(left, 0)*100/most, 100)), Amount: num(max(left, 0)) + " of " + num(most) + " left"}
		if q.Model != "" {
			b.Label += ", " + q.Model
		}
		if left < most {
			b.Refills = q.Reset
		}
		b.Low = b.Left < 10
		all = append(all, b)
	}
	return all
}

// whereFragment is the corner alone, for the script to refresh.
func (s *Site) whereFragment(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	return s.pages["parts"].ExecuteTemplate(w, "where", s.where())
}
