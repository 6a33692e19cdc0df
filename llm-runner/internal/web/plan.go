package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/guard"
	"home.arpa/lab/llm-runner/internal/jobs"
)

// shownPlan is the plan of a run that waits for a person, as a form.
type shownPlan struct {
	Run  int64
	Back string // where a decision leads back to
	graph.Plan
	Looks []planSource
}

type planSource struct {
	Name, Says string
	On         bool
}

// Lines is a list as a person edits it: one a line.
func (shownPlan) Lines(all []string) string { return strings.Join(all, "\n") }

// Rows is how high a field is for a list.
func (shownPlan) Rows(all []string) int { return max(len(all)+1, 2) }

// waitingPlan returns the plan of a run that waits for a person; nil where none does.
func (s *Site) waitingPlan(ctx context.Context, run graph.RunRow, back string) (*shownPlan, error) {
	if run.Status != graph.Paused {
		return nil, nil
	}
	steps, err := s.Inquiries.Store.Steps(ctx, run.ID)
	if err != nil {
		return nil, err
	}
	if len(steps) < 2 || steps[len(steps)-1].Node != "plan" {
		return nil, nil
	}
	var x graph.Inquiry
	if err := json.Unmarshal(steps[len(steps)-2].State, &x); err != nil {
		return nil, fmt.Errorf("read the plan of run %d: %w", run.ID, err)
	}
	p := &shownPlan{Run: run.ID, Back: back, Plan: x.Plan}
	says := map[string]string{"vault": "my notes and documents", "memory": "what is remembered of me", "web": "the web"}
	for _, name := range graph.PlanSources {
		if name == "web" && s.Inquiries.Web == nil {
			says[name] = "pages fetched before"
		}
		on := len(p.Sources) == 0
		for _, have := range p.Sources {
			on = on || have == name
		}
		p.Looks = append(p.Looks, planSource{name, says[name], on})
	}
	return p, nil
}

// planOf is the plan that an answer waits with for a person; nil none.
func (s *Site) planOf(t *chat.Turn) *shownPlan {
	if s.Inquiries == nil || t.Asked != graph.Name || t.State != chat.Held || !t.Due {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return s.planOfWork(ctx, t.RunName(), fmt.Sprintf("/chats/%d#m%d", t.Chat, t.ID))
}

func (s *Site) planOfWork(ctx context.Context, work, back string) *shownPlan {
	if s.Inquiries == nil {
		return nil
	}
	run, err := s.Inquiries.Store.Keyed(ctx, work)
	if errors.Is(err, graph.ErrNotFound) {
		return nil
	}
	var p *shownPlan
	if err == nil {
		p, err = s.waitingPlan(ctx, run, back)
	}
	if err != nil {
		s.log.Warn("read the plan that waits", "work", work, "error", err)
	}
	return p
}

// saves says that an answer has a report which can be saved as a note.
func (s *Site) saves(t *chat.Turn) bool {
	return s.Inquiries != nil && s.SaveReport != nil && t.Asked == graph.Name && t.State == chat.Finished
}

// withPlans adds the switch of the plans to the composer's picker.
func (s *Site) withPlans(ctx context.Context, p picker, chat int64) picker {
	if s.Inquiries == nil {
		return p
	}
	p.HasPlans, p.PlanFirst = true, s.Inquiries.PlanFirst
	if first, known, err := s.Inquiries.Store.PlanFirst(ctx, chat); err == nil && known {
		p.PlanFirst = first
	}
	return p
}

// withdraw has the run of some work wait for a person no longer.
func (s *Site) withdraw(ctx context.Context, work string) error {
	if s.Inquiries == nil {
		return nil
	}
	run, err := s.Inquiries.Store.Keyed(ctx, work)
	if errors.Is(err, graph.ErrNotFound) || err == nil && run.Status != graph.Paused {
		return nil
	}
	if err == nil {
		err = s.Inquiries.Store.Withdraw(ctx, work)
	}
	if err == nil && s.Planned != nil {
		s.Planned(run)
	}
	return err
}

// split are the lines of a field.
func split(text string) []string { return strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") }

// decidePlan starts a run as its plan was changed in the form, has the plan made anew, or cancels it.
func (s *Site) decidePlan(w http.ResponseWriter, r *http.Request) error {
	run, err := s.runToDecide(r)
	if err != nil {
		return err
	}
	if err := r.ParseForm(); err != nil {
		return tooLarge(err)
	}
	to := fmt.Sprintf("/runs/%d", run.ID)
	if r.FormValue("back") != "" {
		to = local(r.FormValue("back"))
	}
	if r.FormValue("do") == "cancel" {
		if err := s.cancelRun(r.Context(), run.RunRow); err != nil {
			return problem{http.StatusConflict, "That cannot be done", upper(err.Error()) + "."}
		}
		back(w, r, to)
		return nil
	}
	p := graph.Plan{Questions: split(r.FormValue("questions")), Sections: split(r.FormValue("sections")), Sources: r.Form["source"]}
	if wish := strings.TrimSpace(r.FormValue("wish")); wish != "" {
		p = graph.Plan{Wish: wish}
	} else if r.FormValue("do") == "change" {
		return problem{http.StatusBadRequest, "Nothing is to be different", "Say in a few words what the plan should do otherwise, or change its fields and start it."}
	}
	if err := s.takePlan(r.Context(), run.RunRow, p); err != nil {
		return problem{http.StatusConflict, "That plan cannot be taken", upper(err.Error()) + ". Nothing was started."}
	}
	back(w, r, to)
	return nil
}

// runToDecide reads the run that a path names, for who may decide about it.
func (s *Site) runToDecide(r *http.Request) (runPage, error) {
	if !guard.Decides(r) {
		return runPage{}, forPeople
	}
	return s.readRun(r)
}

// takePlan has a run go on by a plan.
func (s *Site) takePlan(ctx context.Context, run graph.RunRow, p graph.Plan) error {
	p, err := p.Check()
	if err != nil {
		return err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := s.Inquiries.Store.Answer(ctx, run.ID, string(b)); err != nil {
		return err
	}
	if s.Planned != nil {
		s.Planned(run)
	}
	return nil
}

// cancelRun cancels a run, and the work that waits with it for a person.
func (s *Site) cancelRun(ctx context.Context, run graph.RunRow) error {
	if run.Status != graph.Paused || run.Key == "" {
		return s.Inquiries.Store.Cancel(ctx, run.ID)
	}
	var err error
	if rest, ok := strings.CutPrefix(run.Key, "job-"); ok && s.Jobs != nil {
		number, _, _ := strings.Cut(rest, "-")
		id, perr := strconv.ParseInt(number, 10, 64)
		if perr != nil {
			return perr
		}
		_, err = s.cancelJob(ctx, id)
		return err
	}
	if id, perr := strconv.ParseInt(strings.TrimPrefix(run.Key, "turn-"), 10, 64); perr == nil {
		err = s.Chats.Stop(ctx, id)
	}
	return errors.Join(err, s.withdraw(ctx, run.Key))
}

// cancelJob cancels a job, whose research then waits for nobody.
func (s *Site) cancelJob(ctx context.Context, id int64) (jobs.Job, error) {
	j, err := s.Jobs.Cancel(ctx, id)
	if err == nil && j.Type == jobs.Research {
		err = s.withdraw(ctx, jobs.RunName(id, 0))
	}
	return j, err
}

// apiPlan takes a plan as JSON: questions, sources and sections, or a wish.
func (s *Site) apiPlan(w http.ResponseWriter, r *http.Request) error {
	run, err := s.runToDecide(r)
	if err != nil {
		return err
	}
	var p graph.Plan
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return problem{http.StatusBadRequest, "Not a plan", "the body is not a plan as JSON (" + strings.TrimPrefix(err.Error(), "json: ") + "): send questions, sources and sections, or a wish"}
	}
	if err := s.takePlan(r.Context(), run.RunRow, p); err != nil {
		return problem{http.StatusConflict, "That plan cannot be taken", err.Error()}
	}
	return writeJSON(w, map[string]any{"run": run.ID, "status": graph.Running})
}

// saveReport writes the report of a run into the vault.
func (s *Site) saveReport(w http.ResponseWriter, r *http.Request) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if r.PathValue("id") == "of" {
		var run graph.RunRow
		run, err = s.Inquiries.Store.Keyed(r.Context(), r.FormValue("work"))
		id = run.ID
	}
	if err != nil || s.SaveReport == nil {
		return problem{http.StatusNotFound, "There is no such run", "It may have been deleted: runs are kept as long as jobs."}
	}
	path, err := s.SaveReport(r.Context(), id)
	if err != nil {
		return problem{http.StatusConflict, "The report could not be saved", upper(err.Error()) + "."}
	}
	http.Redirect(w, r, fmt.Sprintf("/runs/%d?saved=%s", id, url.QueryEscape(path)), http.StatusSeeOther)
	return nil
}

// reportFile is the report of a run as a Markdown file.
func (s *Site) reportFile(w http.ResponseWriter, r *http.Request) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return problem{http.StatusNotFound, "There is no such run", "Its number is not one."}
	}
	report, err := s.Inquiries.Report(r.Context(), id)
	if err != nil {
		return problem{http.StatusNotFound, "There is no report", upper(err.Error()) + "."}
	}
	w.Header().Set("Content-Type", "text/markdown; charset=utf-8")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="research-%d.md"`, id))
	w.Write(report.Note()) //nolint:errcheck // the reader has left
	return nil
}
