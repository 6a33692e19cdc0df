package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/agent"
)

// agentRoutes are the pages of agents and their API.
func (s *Site) agentRoutes(page func(string, func(http.ResponseWriter, *http.Request) error)) {
	api := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		page(pattern, func(w http.ResponseWriter, r *http.Request) error { return agentProblem(h(w, r)) })
	}
	page("GET /agents", s.agentsPage)
	page("GET /agents/{name}", s.agentPage)
	page("GET /agents/runs/{id}", s.agentRunPage)
	page("POST /agents/{name}/{verb}", s.changeAgent)
	page("POST /agents/runs/{id}/cancel", func(w http.ResponseWriter, r *http.Request) error {
		x, err := s.cancelAgentRun(r)
		if err == nil {
			back(w, r, fmt.Sprintf("/agents/runs/%d", x.ID))
		}
		return err
	})
	api("POST /api/agents/runs/{id}/cancel", func(w http.ResponseWriter, r *http.Request) error {
		x, err := s.cancelAgentRun(r)
		if err == nil {
			err = writeJSON(w, x)
		}
		return err
	})
	api("GET /api/agents", s.apiAgents)
	api("GET /api/agents/runs", s.apiAgentRuns)
	api("GET /api/agents/runs/{id}", s.apiAgentRun)
	api("GET /api/agents/{name}", s.apiAgent)
	api("POST /api/agents/{name}/{verb}", s.apiChangeAgent)
}

// agentProblem says what an error of package agent means for whoever asked.
func agentProblem(err error) error {
	var wrong agent.FileFault
	switch {
	case errors.Is(err, agent.ErrNotFound):
		return problem{http.StatusNotFound, "There is no such agent", upper(err.Error()) + "."}
	case errors.Is(err, agent.ErrNoRun):
		return problem{http.StatusNotFound, "There is no such run", upper(err.Error()) + "; old ones are deleted."}
	case errors.Is(err, agent.ErrEnded):
		return problem{http.StatusConflict, "It has ended already", "Nothing more happens to this run."}
	case errors.As(err, &wrong):
		return problem{http.StatusUnprocessableEntity, "This agent's file is wrong", wrong.Error()}
	}
	return err
}

// agentView is an agent with what its last runs came to.
type agentView struct {
	agent.Listed
	Dot, Word string
}

type agentsPage struct {
	Agents []agentView
	Faults []agent.FileFault
	Runs   []agentRunView
}

// agentRunView is a run in a list.
type agentRunView struct {
	agent.Run
	Dot, Word string
}

func viewOf(r agent.Run) agentRunView {
	v := agentRunView{Run: r, Dot: "busy", Word: string(r.State)}
	switch r.State {
	case agent.Done:
		v.Dot = "up"
	case agent.Failed:
		v.Dot = "down"
	case agent.Cancelled:
		v.Dot = "off"
	case agent.Running, agent.Queued:
		v.Dot, v.Word = "busy pulse", "runs"
	case agent.Planned:
		v.Word = "waits for the run before it"
	case agent.Waiting:
		v.Word = "waits"
	case agent.Delivering:
		v.Word = "being delivered"
	}
	if r.State == agent.Done && r.Over != "" {
		v.Word = "done, ended by its budget"
	}
	return v
}

// Headline is the state as a sentence begins.
func (v agentRunView) Headline() string {
	if v.Dot == "busy pulse" {
		return "It runs"
	}
	return strings.ToUpper(v.Word[:1]) + v.Word[1:]
}

// Why says who had the run made.
func (v agentRunView) Why() string {
	switch v.Cause {
	case agent.BySchedule:
		if v.Covers > 1 {
			return fmt.Sprintf("schedule, for %d due times", v.Covers)
		}
		return "schedule"
	case agent.Dry:
		return "dry run"
	case agent.ByAgent:
		return "another agent"
	}
	return "a person"
}

func (s *Site) agentsPage(w http.ResponseWriter, r *http.Request) error {
	all, faults, err := s.Agents.List(r.Context())
	if err != nil {
		return err
	}
	p := agentsPage{Faults: faults}
	moves := false
	for _, a := range all {
		v := agentView{Listed: a, Dot: "off", Word: "never ran"}
		if a.Last != nil {
			last := viewOf(*a.Last)
			v.Dot, v.Word = last.Dot, last.Word
			moves = moves || !a.Last.State.Ended()
		}
		p.Agents = append(p.Agents, v)
	}
	runs, err := s.Agents.History(r.Context(), "", 20)
	if err != nil {
		return err
	}
	for _, x := range runs {
		p.Runs = append(p.Runs, viewOf(x))
	}
	return s.show(w, r, "agents", frame{Title: "Agents", Nav: "agents", Refresh: reload(moves), Page: p})
}

// agentPage is one agent: its file, and its runs.
func (s *Site) agentPage(w http.ResponseWriter, r *http.Request) error {
	l, err := s.Agents.Show(r.Context(), r.PathValue("name"))
	if err != nil {
		return agentProblem(err)
	}
	runs, err := s.Agents.History(r.Context(), l.Name, 50)
	if err != nil {
		return err
	}
	p := struct {
		agentView
		Runs []agentRunView
	}{agentView: agentView{Listed: l}}
	for _, x := range runs {
		p.Runs = append(p.Runs, viewOf(x))
	}
	return s.show(w, r, "agent", frame{Title: l.Title, Nav: "agents", Page: p})
}

// agentRun is the page of a run.
type agentRun struct {
	agentRunView
	Title      string
	Shown      []template.HTML
	Steps      []agent.Step
	Deliveries []agentDelivery
	Children   []agentRunView
	Took       time.Duration
	Waits      bool
}

type agentDelivery struct {
	agent.Delivery
	Dot  string
	Href string // of the note
}

func (s *Site) agentRunPage(w http.ResponseWriter, r *http.Request) error {
	d, err := s.agentDetail(r)
	if err != nil {
		return err
	}
	p := agentRun{agentRunView: viewOf(d.Run), Title: d.Output.Title, Steps: d.Steps, Took: time.Duration(d.Work) * time.Millisecond, Waits: d.State == agent.Waiting}
	if p.Title == "" {
		p.Title = fmt.Sprintf("%s, run %d", d.Agent, d.ID)
	}
	if d.Output.Text != "" {
		p.Shown = trusted(s.markdown.blocks(linkNotes(d.Output.Text), nil))
	}
	for _, x := range d.Deliveries {
		v := agentDelivery{Delivery: x, Dot: map[string]string{"done": "up", "failed": "down", "skipped": "off"}[x.State]}
		if v.Dot == "" {
			v.Dot = "busy"
		}
		if x.Place != "" && s.Note != nil {
			v.Href, _, _ = strings.Cut(notePath(x.Place, 0, 0, 0, ""), "?")
		}
		p.Deliveries = append(p.Deliveries, v)
	}
	for _, x := range d.Children {
		p.Children = append(p.Children, viewOf(x))
	}
	return s.show(w, r, "agentrun", frame{Title: p.Title, Nav: "agents", Refresh: reload(!d.State.Ended()), Page: p})
}

var wikiLink = regexp.MustCompile(`\[\[([^\[\]|#]+)(#[^\[\]|]*)?(?:\|([^\[\]]*))?\]\]`)

// linkNotes has the links of a note's text lead to the pages of notes.
func linkNotes(text string) string {
	return wikiLink.ReplaceAllStringFunc(text, func(m string) string {
		x := wikiLink.FindStringSubmatch(m)
		name, title := x[1], x[3]
		if title == "" {
			title = name
		}
		if !strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ".") {
			name += ".md"
		}
		href, _, _ := strings.Cut(notePath(name, 0, 0, 0, ""), "?")
		return "[" + title + "](<" + href + ">)"
	})
}

func (s *Site) agentDetail(r *http.Request) (agent.Detail, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return agent.Detail{}, problem{http.StatusNotFound, "There is no such run", "Its number is not one."}
	}
	d, err := s.Agents.Detail(r.Context(), id)
	if err != nil {
		return d, agentProblem(err)
	}
	return d, nil
}

// cancelAgentRun ends the run that a path names.
func (s *Site) cancelAgentRun(r *http.Request) (agent.Run, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return agent.Run{}, problem{http.StatusNotFound, "There is no such run", "Its number is not one."}
	}
	x, err := s.Agents.Cancel(r.Context(), id)
	if err != nil {
		return x, agentProblem(err)
	}
	return x, nil
}

// changeAgent answers the forms of an agent.
func (s *Site) changeAgent(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	switch verb := r.PathValue("verb"); verb {
	case "run", "preview":
		x, err := s.Agents.Start(r.Context(), name, verb == "preview", "")
		if err != nil {
			return agentProblem(err)
		}
		back(w, r, fmt.Sprintf("/agents/runs/%d", x.ID))
		return nil
	case "pause", "resume":
		if _, err := s.Agents.Pause(r.Context(), name, verb == "pause"); err != nil {
			return agentProblem(err)
		}
		to := r.FormValue("back")
		if to == "" {
			to = "/agents"
		}
		back(w, r, local(to))
		return nil
	}
	return problem{http.StatusNotFound, "There is no such page", "An agent can be run, previewed, paused and resumed."}
}

func (s *Site) apiAgents(w http.ResponseWriter, r *http.Request) error {
	all, faults, err := s.Agents.List(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"agents": all, "faults": faults})
}

func (s *Site) apiAgent(w http.ResponseWriter, r *http.Request) error {
	l, err := s.Agents.Show(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, l)
}

// apiAgentRuns lists runs, newest first: ?agent=, ?limit=.
func (s *Site) apiAgentRuns(w http.ResponseWriter, r *http.Request) error {
	limit := 50
	if text := r.FormValue("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return problem{http.StatusBadRequest, "That is no limit", fmt.Sprintf("limit: %q is not a number from 1 to 1000", text)}
		}
		limit = n
	}
	name := r.FormValue("agent")
	if name != "" {
		if _, err := s.Agents.Show(r.Context(), name); err != nil {
			return err
		}
	}
	all, err := s.Agents.History(r.Context(), name, limit)
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"runs": all})
}

// apiAgentRun is a run with its steps and deliveries: ?wait=20s answers once it has ended, or then.
func (s *Site) apiAgentRun(w http.ResponseWriter, r *http.Request) error {
	if text := r.FormValue("wait"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > 25*time.Second {
			return problem{http.StatusBadRequest, "That is no time to wait", fmt.Sprintf("wait: %q is not a duration up to 25s", text)}
		}
		id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), d)
			_, err = s.Agents.Await(ctx, id)
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) && r.Context().Err() == nil {
				return err
			}
		}
	}
	d, err := s.agentDetail(r)
	if err != nil {
		return err
	}
	return writeJSON(w, d)
}

func (s *Site) apiChangeAgent(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	switch verb := r.PathValue("verb"); verb {
	case "run":
		var in struct {
			DryRun bool `json:"dry_run"`
		}
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil && err.Error() != "EOF" {
			return problem{http.StatusBadRequest, "That is no request", "the body is not {\"dry_run\": true or false}: " + strings.TrimPrefix(err.Error(), "json: ")}
		}
		x, err := s.Agents.Start(r.Context(), name, in.DryRun, r.Header.Get("Idempotency-Key"))
		if err != nil {
			return err
		}
		return writeJSON(w, x)
	case "pause", "resume":
		l, err := s.Agents.Pause(r.Context(), name, verb == "pause")
		if err != nil {
			return err
		}
		return writeJSON(w, l)
	}
	return problem{http.StatusNotFound, "There is no such page", "an agent takes run, pause and resume"}
}
