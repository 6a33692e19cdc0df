package web

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
)

// queuePage lists the jobs, by what is to be known of them first.
type queuePage struct {
	Sections []queueSection
	None     bool
}

type queueSection struct {
	State jobs.State
	Says  string
	Count int
	Jobs  []jobs.Job
}

// jobForm is the form for a new job, and what was wrong with it.
type jobForm struct {
	Spec   jobs.Spec
	Key    string
	Picker picker
	Faults []jobs.FieldError
}

// queueMost is how many jobs of one state the page lists.
const queueMost = 50

func (s *Site) queue(w http.ResponseWriter, r *http.Request) error {
	counts, err := s.Jobs.Counts(r.Context())
	if err != nil {
		return err
	}
	p := queuePage{None: len(counts) == 0}
	moving := false
	for _, x := range []queueSection{
		{State: jobs.Running, Says: "A worker has them."},
		{State: jobs.Held, Says: "Nobody can answer these yet; they go on by themselves."},
		{State: jobs.Queued, Says: "In line, by priority and age."},
		{State: jobs.Failed, Says: "These need you."},
		{State: jobs.Done},
		{State: jobs.Cancelled},
	} {
		if x.Count = counts[x.State]; x.Count == 0 {
			continue
		}
		if x.Jobs, err = s.Jobs.Jobs(r.Context(), jobs.Filter{States: []jobs.State{x.State}, Limit: queueMost}); err != nil {
			return err
		}
		moving = moving || !x.State.Ended()
		p.Sections = append(p.Sections, x)
	}
	return s.show(w, r, "queue", frame{Title: "Queue", Nav: "queue", Refresh: reload(moving), Page: p})
}

func (s *Site) newJob(w http.ResponseWriter, r *http.Request) error {
	return s.showForm(w, r, http.StatusOK, jobForm{Spec: jobs.Spec{Type: jobs.Text}})
}

func (s *Site) showForm(w http.ResponseWriter, r *http.Request, status int, form jobForm) error {
	form.Key, form.Picker = newKey(), s.picker(form.Spec.Model, form.Spec.Project)
	return s.showStatus(w, r, status, "newjob", frame{Title: "New job", Nav: "queue", Page: form})
}

// jobPage is one job with its timeline.
type jobPage struct {
	jobs.Job
	Arriving []template.HTML // what came of the answer so far
	Answer   []template.HTML
	Sources  []source
	Calls    []shownCall
	Waits    *shownPlan // that waits for a person; nil: none does
	Run      bool       // its steps can be seen
	Timeline []jobs.Event
}

// Waiting is how long the job has waited in all.
func (p jobPage) Waiting() time.Duration {
	if p.State.Waiting() {
		return p.Waited + time.Since(p.Since)
	}
	return p.Waited
}

func (s *Site) job(w http.ResponseWriter, r *http.Request) error {
	id, err := jobNumber(r)
	if err != nil {
		return err
	}
	j, err := s.Jobs.Job(r.Context(), id)
	if err != nil {
		return err
	}
	p := jobPage{Job: j}
	if p.Timeline, err = s.Jobs.Timeline(r.Context(), id, 0); err != nil {
		return err
	}
	if s.Tools != nil && len(j.Tools) > 0 {
		for n := range max(j.Steps, 1) {
			all, err := s.Tools.OfRun(r.Context(), fmt.Sprintf("job-%d-%d", j.ID, n))
			if err != nil {
				return err
			}
			for _, c := range all {
				p.Calls = append(p.Calls, shownCall{c, r.URL.Path})
			}
		}
	}
	if j.Type == jobs.Research {
		p.Run = s.Inquiries != nil
		p.Waits = s.planOfWork(r.Context(), jobs.RunName(j.ID, 0), r.URL.Path)
	}
	if j.Arrived != "" {
		p.Arriving = trusted(newStream(s.markdown).blocks(j.Arrived))
	}
	if j.Answer != "" {
		p.Answer = trusted(s.markdown.blocks(j.Answer, s.linked(j.Citations)))
	}
	for i, c := range j.Citations {
		x := source{Citation: c, Number: i + 1}
		if s.Note != nil {
			x.Href = noteLink(c)
		}
		p.Sources = append(p.Sources, x)
	}
	return s.show(w, r, "job", frame{Title: j.Title, Nav: "queue", Refresh: reload(!j.State.Ended()), Page: p})
}

// Whence says where the sources of the answer are from.
func (p jobPage) Whence() string { return whence(p.Citations) }

func (s *Site) submitJob(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return problem{http.StatusBadRequest, "The form cannot be read", "It may be larger than 4 MiB. Nothing was taken."}
	}
	priority, err := strconv.Atoi(r.FormValue("priority"))
	if err != nil && r.FormValue("priority") != "" {
		priority = -1 // refused with the other faults
	}
	spec := jobs.Spec{Type: jobs.Type(r.FormValue("type")), Title: r.FormValue("title"), Prompt: r.FormValue("prompt"), Model: r.FormValue("model"),
		Project: yes(r.FormValue("project")), Priority: priority, Deadline: r.FormValue("deadline")}
	if spec.Type == jobs.Research {
		if yes(r.FormValue("plan")) {
			spec.Plan = llm.PlanAsk
		}
		spec.Model, spec.Project = "", false // the picker shows a model, which this type does not have
	}
	j, _, err := s.Jobs.Submit(r.Context(), spec, r.FormValue("key"))
	var wrong jobs.SpecError
	if errors.As(err, &wrong) {
		return s.showForm(w, r, http.StatusUnprocessableEntity, jobForm{Spec: spec, Faults: wrong})
	}
	if err != nil {
		return err
	}
	back(w, r, fmt.Sprintf("/jobs/%d", j.ID))
	return nil
}

// jobForms answers the forms that change a job.
func (s *Site) jobForms(do func(context.Context, int64) (jobs.Job, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := jobNumber(r)
		if err != nil {
			return err
		}
		if _, err := do(r.Context(), id); err != nil {
			return err
		}
		to := r.FormValue("back")
		if to == "" {
			to = fmt.Sprintf("/jobs/%d", id)
		}
		back(w, r, local(to))
		return nil
	}
}
