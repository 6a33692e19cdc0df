package web

import (
	"errors"
	"fmt"
	"html"
	"html/template"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/progress"
)

// progressPage is where projects stand.
type progressPage struct {
	Projects []projectView
	Gantt    template.HTML
	Faults   []progress.Fault
	Editable bool
}

type projectView struct {
	Title, Path string
	Href        string // of the note; "" it cannot be shown
	Done, Total int
	Rows        []phaseView
	Up          template.HTML // the way up, day by day; "" nothing to see yet
	From        string        // where what is drawn comes from
}

type phaseView struct {
	progress.Row
	Anchor string
	Says   string // what it waits for, or what it is
}

// Draft is what a person who has no project may ask a model.
func (progressPage) Draft() string {
	return "Write a note for my vault that plans a project in phases: type: project in its frontmatter, a heading for each phase, a task list (- [ ]) below each. Ask me first what the project is."
}

func (s *Site) progressPage(w http.ResponseWriter, r *http.Request) error {
	board, err := s.Progress.Board(r.Context())
	if err != nil {
		return err
	}
	ups, err := s.Progress.Ups(r.Context(), board, false)
	if err != nil {
		return err
	}
	p := progressPage{Faults: board.Faults, Editable: s.Progress.Editable(), Gantt: gantt(board)}
	for i, row := range board.Rows {
		if n := len(p.Projects); n == 0 || p.Projects[n-1].Path != row.Path {
			x := projectView{Title: row.Project, Path: row.Path}
			if s.Note != nil {
				x.Href = notePath(row.Path, 0, 0, 0, "")
			}
			x.Done, x.Total = board.Count(row.Path)
			x.Up, x.From = wayUp(ups[n].Days), comesFrom(ups[n])
			p.Projects = append(p.Projects, x)
		}
		x := &p.Projects[len(p.Projects)-1]
		x.Rows = append(x.Rows, phaseView{row, fmt.Sprintf("phase-%d", i), standing(row)})
	}
	return s.show(w, r, "progress", frame{Title: "Progress", Nav: "progress", Page: p})
}

// standing says a phase's state in words.
func standing(r progress.Row) string {
	if r.State != progress.Waiting {
		return string(r.State)
	}
	var names []string
	for _, h := range r.After {
		if h.Done {
			continue
		}
		name := h.Phase
		if h.Crosses {
			name += " of " + h.Project
		}
		names = append(names, name)
	}
	return "waits for " + strings.Join(names, ", ")
}

func (s *Site) apiProgress(w http.ResponseWriter, r *http.Request) error {
	board, err := s.Progress.Board(r.Context())
	if err != nil {
		return err
	}
	if board.Ups, err = s.Progress.Ups(r.Context(), board, false); err != nil {
		return err
	}
	return writeJSON(w, board)
}

// tick marks a task, and shows its phase again.
func (s *Site) tick(w http.ResponseWriter, r *http.Request) error {
	line, err := strconv.Atoi(r.FormValue("line"))
	if err != nil {
		return problem{http.StatusBadRequest, "That is no line of a note", "Load the page again."}
	}
	err = s.Progress.Tick(r.Context(), r.FormValue("path"), line, r.FormValue("text"), r.FormValue("done") == "true")
	var conflict *progress.ConflictError
	switch {
	case errors.As(err, &conflict):
		return problem{http.StatusConflict, "The note has changed", "Somebody changed " + conflict.Path + " since this page was made. Nothing was written; load the page again."}
	case errors.Is(err, fs.ErrNotExist):
		return problem{http.StatusNotFound, "There is no such project", "Its note may have been renamed. Load the page again."}
	case err != nil:
		return problem{http.StatusUnprocessableEntity, "That task cannot be ticked", err.Error() + "."}
	}
	back := "/progress"
	if at := r.FormValue("at"); strings.HasPrefix(at, "phase-") {
		back += "#" + at
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
	return nil
}

// Lengths of the drawing, in pixels.
const (
	ganttLabel, ganttTick, ganttRow, ganttTop = 200, 104, 28, 28
	ganttBar                                  = 14
)

// gantt draws the phases of all projects over the ticks that they take.
func gantt(b progress.Board) template.HTML {
	if len(b.Rows) == 0 || b.Ticks == 0 {
		return ""
	}
	var s strings.Builder
	width, height := ganttLabel+b.Ticks*ganttTick+24, ganttTop+ganttRow*len(b.Rows)+8
	fmt.Fprintf(&s, `<svg class="gantt" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="Phases in their order: %d in %d steps">`,
		width, height, width, height, len(b.Rows), b.Ticks)
	for t := range b.Ticks {
		x := ganttLabel + t*ganttTick
		fmt.Fprintf(&s, `<path class="rule" d="M%d %dV%d"/><text class="tick" x="%d" y="16">%d</text>`, x, ganttTop-4, height, x+4, t+1)
	}
	y := func(row int) int { return ganttTop + row*ganttRow + (ganttRow-ganttBar)/2 }
	for i, r := range b.Rows {
		for _, h := range r.After {
			from, to := ganttLabel+(b.Rows[h.Row].Tick+1)*ganttTick-8, ganttLabel+r.Tick*ganttTick
			a, z := y(h.Row)+ganttBar/2, y(i)+ganttBar/2
			class := "way"
			if h.Critical {
				class = "way critical"
			}
			fmt.Fprintf(&s, `<path class="%s" d="M%d %dH%dV%dH%d"/>`, class, from, a, to-4, z, to)
		}
	}
	project := ""
	for i, r := range b.Rows {
		x, top, long := ganttLabel+r.Tick*ganttTick, y(i), ganttTick-8
		if r.Project != project {
			if project = r.Project; i > 0 {
				fmt.Fprintf(&s, `<path class="rule" d="M0 %dH%d"/>`, top-(ganttRow-ganttBar)/2, width)
			}
		}
		full := 0
		if r.Total > 0 {
			full = long * r.Done / r.Total
		}
		fmt.Fprintf(&s, `<g class="%s"><title>%s › %s: %d of %d, %s</title><text x="0" y="%d">%s</text><rect class="all" x="%d" y="%d" width="%d" height="%d" rx="3"/>`,
			r.State, html.EscapeString(r.Project), html.EscapeString(r.Phase.Name), r.Done, r.Total, html.EscapeString(standing(r)),
			top+ganttBar-2, html.EscapeString(short(r.Phase.Name, 27)), x, top, long, ganttBar)
		if full > 0 {
			fmt.Fprintf(&s, `<rect class="full" x="%d" y="%d" width="%d" height="%d" rx="3"/>`, x, top, full, ganttBar)
		}
		if r.Phase.Gate != "" {
			cx, cy := x+long, top+ganttBar/2
			fmt.Fprintf(&s, `<path class="gate" d="M%d %dl7 7l-7 7l-7-7z"/>`, cx, cy-7)
		}
		for _, h := range r.After {
			if h.Critical && h.Strands {
				fmt.Fprintf(&s, `<text class="star" x="%d" y="%d">★</text>`, x-14, top+ganttBar-14)
				break
			}
		}
		s.WriteString(`</g>`)
	}
	s.WriteString(`</svg>`)
	return template.HTML(s.String()) //nolint:gosec // texts are escaped above
}

// short cuts a name to n characters.
func short(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return strings.TrimSpace(string(r[:n-1])) + "…"
	}
	return s
}

// wayUp draws what was done and what there was to do, day by day.
func wayUp(days []progress.Day) template.HTML {
	if len(days) < 2 {
		return ""
	}
	first, err1 := time.Parse(time.DateOnly, days[0].Day)
	last, err2 := time.Parse(time.DateOnly, days[len(days)-1].Day)
	most := 1
	for _, d := range days {
		most = max(most, d.Total)
	}
	span := last.Sub(first).Hours() / 24
	if err1 != nil || err2 != nil || span <= 0 {
		return ""
	}
	const width, height = 240.0, 48.0
	var done, total, guess strings.Builder // guess: of done, as far as nobody saw it
	x0, y0, from := 0.0, 0.0, progress.Source("")
	for i, d := range days {
		day, err := time.Parse(time.DateOnly, d.Day)
		if err != nil {
			continue
		}
		x, y, step := 2+(width-4)*day.Sub(first).Hours()/24/span, height-2-(height-4)*float64(d.Done)/float64(most), "H%.1fV%.1f"
		if i == 0 {
			step, x0, y0 = "M%.1f %.1f", x, y
		}
		fmt.Fprintf(&total, step, x, height-2-(height-4)*float64(d.Total)/float64(most))
		// A day's line leads to it from the day before, and is the day's own.
		line := &guess
		if d.From == progress.FromSeen {
			line = &done
		}
		if i == 0 || (d.From == progress.FromSeen) != (from == progress.FromSeen) {
			fmt.Fprintf(line, "M%.1f %.1f", x0, y0)
		}
		if i > 0 {
			fmt.Fprintf(line, "H%.1fV%.1f", x, y)
		}
		x0, y0, from = x, y, d.From
	}
	second := ""
	if guess.Len() > 0 {
		second = `<path class="done guess" d="` + guess.String() + `"/>`
	}
	return template.HTML(fmt.Sprintf(`<svg class="burnup" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img" aria-label="From %s to %s: %d, then %d of %d done"><path class="total" d="%s"/>%s<path class="done" d="%s"/></svg>`, //nolint:gosec // made of numbers
		width, height, width, height, days[0].Day, days[len(days)-1].Day, days[0].Done, days[len(days)-1].Done, days[len(days)-1].Total, total.String(), second, done.String()))
}

// comesFrom says where the days of a way up come from, oldest first.
func comesFrom(up progress.Up) string {
	words := map[progress.Source]string{progress.FromDates: "the dates in tasks", progress.FromCommits: "the commits of the vault", progress.FromSeen: "what was seen each day"}
	var parts []string
	last := progress.Source("")
	for _, d := range up.Days {
		if d.From != last && len(parts) < mostParts {
			parts = append(parts, "from "+d.Day+" "+words[d.From])
		}
		last = d.From
	}
	if len(parts) < 2 && (up.Says == "" || up.Says == progress.NoRepository) && last == progress.FromSeen {
		return "" // what anybody takes it for
	}
	text := strings.Join(parts, ", ")
	if text != "" {
		text = strings.ToUpper(text[:1]) + text[1:] + "."
	}
	if up.Says != "" && up.Says != progress.NoRepository && len(up.Days) > 0 && up.Days[0].From != progress.FromCommits {
		text = strings.TrimSpace(text + " " + strings.ToUpper(up.Says[:1]) + up.Says[1:] + ".")
	}
	return text
}

// mostParts is how often it is told that the source changes.
const mostParts = 4
