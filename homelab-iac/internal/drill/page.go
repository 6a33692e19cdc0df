package drill

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/restore"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"short":   func(id string) string { return id[:min(8, len(id))] },
	"size":    size,
	"seconds": func(s float64) string { return fmt.Sprintf("%.1f s", s) },
	"when":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") },
	"took":    Seconds,
	"rto":     func(s float64) string { return promised(time.Duration(s) * time.Second) },
}).Parse(pageText))

// A row of the timeline: pieces in percent of the whole.
type row struct {
	Name   string
	Pieces []piece
}

type piece struct {
	Phase, What, Line string
	Left, Width       float64
	Seconds           float64
	Error             string
}

// phases in the order of the legend.
var phases = []string{"stage", restore.Fetch, restore.Verify, restore.Database, restore.Stop, restore.Swap, restore.Compare, restore.Start, restore.Prove, restore.Clean}

// Page writes the report as one page that needs nothing else.
func (r *Report) Page(w io.Writer) error {
	begin, whole := r.Started, r.Ended.Sub(r.Started).Seconds()
	for _, s := range r.Stages {
		if s.Began.Before(begin) {
			begin = s.Began
			whole = r.Ended.Sub(begin).Seconds()
		}
	}
	whole = max(whole, 0.001)
	place := func(at time.Time, seconds float64) (left, width float64) {
		return at.Sub(begin).Seconds() / whole * 100, max(seconds/whole*100, 0.15)
	}
	var rows []row
	stages := row{Name: "drill"}
	for _, s := range r.Stages {
		left, width := place(s.Began, s.Seconds)
		stages.Pieces = append(stages.Pieces, piece{Phase: "stage", What: s.Name, Left: left, Width: width, Seconds: s.Seconds})
	}
	rows = append(rows, stages)
	sums := map[string]float64{}
	for _, s := range r.Services {
		line := row{Name: s.Service}
		for _, d := range s.Steps {
			left, width := place(d.Began, d.Seconds)
			sums[d.Phase] += d.Seconds
			line.Pieces = append(line.Pieces, piece{d.Phase, d.What, d.Line, left, width, d.Seconds, d.Error})
		}
		rows = append(rows, line)
	}
	var byStage, byPhase []bar
	for _, g := range r.Stages {
		byStage = append(byStage, bar{Name: g.Name, Seconds: g.Seconds})
	}
	for _, p := range phases {
		if s, ok := sums[p]; ok {
			byPhase = append(byPhase, bar{Name: p, Seconds: s})
		}
	}
	return page.Execute(w, map[string]any{"R": r, "Rows": rows, "Stages": scale(byStage), "Bars": scale(byPhase), "Phases": phases, "Whole": whole,
		"Summary": r.Summary(), "Proofs": r.proofs()})
}

// A bar is drawn as wide as its part of the longest.
type bar struct {
	Name    string
	Seconds float64
	Width   float64 // percent
}

func scale(bars []bar) []bar {
	most := 0.001
	for _, b := range bars {
		most = max(most, b.Seconds)
	}
	for i := range bars {
		bars[i].Width = bars[i].Seconds / most * 100
	}
	return bars
}

// A proof is a step that says whether something holds, with its service.
type proof struct {
	Service string
	restore.Done
}

// proofs are what had to hold: at the end of the restore, then what only a drill does. What was asked twice is shown once.
func (r *Report) proofs() (all []proof) {
	seen := map[[2]string]int{}
	for _, s := range slices.Concat(r.Services, r.Proofs) {
		for _, d := range s.Steps {
			if d.Phase != restore.Prove {
				continue
			}
			key := [2]string{s.Service, d.What}
			if at, ok := seen[key]; ok {
				all[at].Done = d
				continue
			}
			seen[key] = len(all)
			all = append(all, proof{s.Service, d})
		}
	}
	return all
}

// promised writes a round duration without its zeros: 4h, 30m, 1h30m.
func promised(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"0s", "0m"} {
		if rest, ok := strings.CutSuffix(text, zero); ok && rest != "" && (rest[len(rest)-1] < '0' || rest[len(rest)-1] > '9') {
			text = rest
		}
	}
	return text
}

func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f kB", float64(n)/1e3)
}
