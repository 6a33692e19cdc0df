package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/graph"
)

// runPage is one run of the retrieval graph.
type runPage struct {
	graph.RunRow
	Drawing  template.HTML
	Begin    string // the state before the first step, indented
	Steps    []runStep
	Took     time.Duration
	Moves    bool
	Question string
	Waits    *shownPlan // for a person; nil: none does
	Saved    string     // where its report has just been written
	Reports  bool       // it has one
	Saves    bool       // into a vault
	Dropped  []graph.Drop
}

type runStep struct {
	graph.StepRow
	Says  string
	Took  time.Duration
	State string // indented
	Calls []graph.CallRow
}

// runsList is the newest runs: of the thorough way, or of the straight one, of which there are many.
type runsList struct {
	Straight bool
	Runs     []graph.RunRow
}

// shownRuns is how many runs are listed.
const shownRuns = 100

func (s *Site) listRuns(r *http.Request) (l runsList, err error) {
	switch way := r.FormValue("way"); way {
	case "", graph.Thorough:
		l.Runs, err = s.Inquiries.Store.Runs(r.Context(), shownRuns)
	case graph.Straight:
		l.Straight = true
		l.Runs, err = s.Inquiries.Store.Straight(r.Context(), shownRuns)
	default:
		err = problem{http.StatusBadRequest, "There is no such way", fmt.Sprintf("way: %q is neither %s nor %s", way, graph.Straight, graph.Thorough)}
	}
	return l, err
}

func (s *Site) runsPage(w http.ResponseWriter, r *http.Request) error {
	list, err := s.listRuns(r)
	if err != nil {
		return err
	}
	return s.show(w, r, "runs", frame{Title: "How answers were found", Nav: "library", Page: list})
}

// runOf leads to the run that is part of some work: a turn of a chat, a job.
func (s *Site) runOf(w http.ResponseWriter, r *http.Request) error {
	run, err := s.Inquiries.Store.Keyed(r.Context(), r.FormValue("work"))
	if errors.Is(err, graph.ErrNotFound) {
		return problem{http.StatusNotFound, "There are no steps to see", "This answer was made without a model, or so long ago that its steps were deleted."}
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, fmt.Sprintf("/runs/%d", run.ID), http.StatusSeeOther)
	return nil
}

// run reads the run that a path names, with its steps.
func (s *Site) readRun(r *http.Request) (p runPage, err error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return p, problem{http.StatusNotFound, "There is no such run", "Its number is not one."}
	}
	st := s.Inquiries.Store
	if p.RunRow, err = st.Run(r.Context(), id); errors.Is(err, graph.ErrNotFound) {
		return p, problem{http.StatusNotFound, "There is no such run", "It may have been deleted: those of straight answers are kept for days, others as long as jobs."}
	}
	if err != nil {
		return p, err
	}
	steps, err := st.Steps(r.Context(), id)
	if err != nil {
		return p, err
	}
	calls, err := st.Calls(r.Context(), id)
	if err != nil {
		return p, err
	}
	var begin bytes.Buffer
	if json.Indent(&begin, p.Input, "", "  ") == nil {
		p.Begin = begin.String()
	}
	shape := s.Inquiries.Graph().Shape()
	for _, x := range steps {
		v := runStep{StepRow: x, Took: max(x.Ended.Sub(x.Began), time.Millisecond)}
		if x.Ended.IsZero() {
			v.Took = 0
		}
		for _, n := range shape.Nodes {
			if n.Name == x.Node {
				v.Says = n.Says
			}
		}
		var b bytes.Buffer
		if json.Indent(&b, x.State, "", "  ") == nil {
			v.State = b.String()
		}
		for _, c := range calls {
			if c.Step == x.N {
				v.Calls = append(v.Calls, c)
			}
		}
		p.Steps = append(p.Steps, v)
	}
	p.Took, p.Moves, p.Question = p.Spent.Time, p.Status == graph.Running, p.RunRow.Question
	if p.Way == graph.Straight {
		shape = shape.Along(steps)
	}
	p.Drawing = drawRun(shape, steps, p.Status == graph.Paused)
	p.Reports = p.Status == graph.Done && p.Way != graph.Straight
	p.Saves = p.Reports && s.SaveReport != nil
	for i := len(steps) - 1; i >= 0 && p.Dropped == nil; i-- {
		var x graph.Inquiry
		if steps[i].Ended.IsZero() || json.Unmarshal(steps[i].State, &x) != nil {
			continue
		}
		p.Dropped = x.Dropped
		break
	}
	p.Waits, err = s.waitingPlan(r.Context(), p.RunRow, fmt.Sprintf("/runs/%d", p.ID))
	return p, err
}

func (s *Site) runPage(w http.ResponseWriter, r *http.Request) error {
	p, err := s.readRun(r)
	if err != nil {
		return err
	}
	p.Saved = r.FormValue("saved")
	return s.show(w, r, "run", frame{Title: p.Title, Nav: "library", Refresh: reload(p.Moves), Page: p})
}

func (s *Site) apiRuns(w http.ResponseWriter, r *http.Request) error {
	list, err := s.listRuns(r)
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"runs": list.Runs, "graph": s.Inquiries.Graph().Shape()})
}

func (s *Site) apiRun(w http.ResponseWriter, r *http.Request) error {
	p, err := s.readRun(r)
	if err != nil {
		return err
	}
	steps, calls := []graph.StepRow{}, []graph.CallRow{}
	for _, x := range p.Steps {
		steps, calls = append(steps, x.StepRow), append(calls, x.Calls...)
	}
	return writeJSON(w, map[string]any{"run": p.RunRow, "steps": steps, "calls": calls})
}

// changeRun cancels a run, decides for one that is paused, or forks one.
func (s *Site) changeRun(w http.ResponseWriter, r *http.Request) error {
	p, err := s.runToDecide(r)
	if err != nil {
		return err
	}
	st, id := s.Inquiries.Store, p.ID
	switch r.PathValue("verb") {
	case "cancel":
		err = s.cancelRun(r.Context(), p.RunRow)
	case "decide":
		if err = st.Answer(r.Context(), id, strings.TrimSpace(r.FormValue("decision"))); err == nil {
			s.Proceed(id)
		}
	case "fork":
		step, aerr := strconv.Atoi(r.FormValue("step"))
		if aerr != nil {
			return problem{http.StatusBadRequest, "That is no step", "Load the page again."}
		}
		var state json.RawMessage
		if text := strings.TrimSpace(r.FormValue("state")); text != "" {
			state = json.RawMessage(text)
		}
		var fork graph.RunRow
		if fork, err = s.Inquiries.Graph().Fork(r.Context(), st, id, step, state); err == nil {
			id = fork.ID
			s.Proceed(id)
		}
	default:
		return problem{http.StatusNotFound, "There is no such page", "A run can be cancelled, decided for and forked."}
	}
	if err != nil {
		return problem{http.StatusConflict, "That cannot be done", err.Error() + "."}
	}
	http.Redirect(w, r, fmt.Sprintf("/runs/%d", id), http.StatusSeeOther)
	return nil
}

// Lengths of the drawing of a run, in pixels.
const (
	runRow, runBox, runLeft, runWide = 48, 30, 16, 150
	runTop                           = 2
	runArc                           = 22 // how far each further way around stands out
	runArcs                          = 5  // of them beside each other
)

// drawRun draws the nodes of a graph below each other, what a run did in them, and the ways it took.
func drawRun(shape graph.Shape, steps []graph.StepRow, paused bool) template.HTML {
	type seen struct {
		times   int
		took    time.Duration
		running bool
		note    string
	}
	at, did, taken := map[string]int{}, map[string]*seen{}, map[string]bool{}
	for i, n := range shape.Nodes {
		at[n.Name], did[n.Name] = i, &seen{}
	}
	for _, x := range steps {
		d := did[x.Node]
		if d == nil {
			continue // a node of an earlier version
		}
		if d.times++; x.Ended.IsZero() {
			d.running = true
		} else {
			d.took += x.Ended.Sub(x.Began)
			taken[x.Node+">"+x.Next] = true
		}
		d.note = x.Note
	}
	arcs := 0 // beside each other at most
	for i, n := range shape.Nodes {
		for _, to := range n.To {
			if to != graph.End && at[to] != i+1 {
				arcs = min(arcs+1, runArcs)
			}
		}
	}
	var ways, boxes strings.Builder
	out, text := 0, runLeft+runWide+16+runArc*arcs
	for i, n := range shape.Nodes {
		top := runTop + i*runRow
		for _, to := range n.To {
			class := "way"
			if taken[n.Name+">"+to] {
				class = "way taken"
			}
			k, ends := at[to], to == graph.End
			switch {
			case ends:
			case k == i+1:
				fmt.Fprintf(&ways, `<path class="%s" d="M%d %dV%d"/>`, class, runLeft+runWide/2, top+runBox, top+runRow)
			default:
				out++
				x := runLeft + runWide + 12 + runArc*((out-1)%runArcs)
				fmt.Fprintf(&ways, `<path class="%s" d="M%d %dH%dV%dH%d"/>`, class, runLeft+runWide, top+runBox/2+4, x, runTop+k*runRow+runBox/2-4, runLeft+runWide+2)
			}
		}
		d := did[n.Name]
		class, says := "idle", ""
		switch {
		case d.running:
			if class, says = "now", "runs"; paused {
				says = "waits for you"
			}
		case d.times > 0:
			class, says = "did", took(max(d.took, time.Millisecond))
		}
		if d.times > 1 {
			says = fmt.Sprintf("%s, %d times", says, d.times)
		}
		if d.note != "" {
			says += ": " + d.note
		}
		fmt.Fprintf(&boxes, `<g class="%s"><rect x="%d" y="%d" width="%d" height="%d" rx="4"/><text x="%d" y="%d" text-anchor="middle">%s</text><text class="says" x="%d" y="%d">%s</text></g>`,
			class, runLeft, top, runWide, runBox, runLeft+runWide/2, top+20, html.EscapeString(n.Name), text, top+20, html.EscapeString(short(says, 60)))
	}
	names := make([]string, 0, len(steps))
	for _, x := range steps {
		if len(names) == 0 || names[len(names)-1] != x.Node {
			names = append(names, x.Node)
		}
	}
	width, height := text+420, runTop+len(shape.Nodes)*runRow
	return template.HTML(fmt.Sprintf(`<svg class="run" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="The way of this run: %s">%s%s</svg>`, //nolint:gosec // texts are escaped above
		width, height, width, height, html.EscapeString(strings.Join(slices.Clip(names), ", ")), ways.String(), boxes.String()))
}
