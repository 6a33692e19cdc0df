package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/usage"
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
	Jobs  []queued
}

// queued is a job in the list.
type queued struct {
	jobs.Job
	Who string // who answers or answered it, as far as that is known
}

// jobForm is the form for a new job, and what was wrong with it.
type jobForm struct {
	Spec      jobs.Spec
	Key       string
	Picker    picker
	Faults    []jobs.FieldError
	Providers []string        // of which one may have to answer
	Tools     []toolbox.Entry // that a model may call
	Notify    []jobs.Notify   // on which ends a person may be told
}

// More says that something of the folded part was filled in.
func (f jobForm) More() bool {
	c := f.Spec
	return c.Title+c.Requires+c.Deadline+c.Output+string(c.Notify) != "" || c.Priority != 0 && c.Priority != 5 || c.MaxAttempts != 0 && c.MaxAttempts != 5 || len(c.Tools) > 0
}

// Uses says that a tool was named.
func (f jobForm) Uses(name string) bool { return slices.Contains(f.Spec.Tools, name) }

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
		all, err := s.Jobs.Jobs(r.Context(), jobs.Filter{States: []jobs.State{x.State}, Limit: queueMost})
		if err != nil {
			return err
		}
		for _, j := range all {
			x.Jobs = append(x.Jobs, queued{j, s.whose(j)})
		}
		moving = moving || !x.State.Ended()
		p.Sections = append(p.Sections, x)
	}
	return s.show(w, r, "queue", frame{Title: "Queue", Nav: "queue", Refresh: reload(moving), Page: p})
}

// whose says which model answered a job, or would.
func (s *Site) whose(j jobs.Job) string {
	switch {
	case j.Route.Model != "":
		return llm.On(j.Route.Model, j.Route.Provider)
	case j.WaitsModel != "":
		return llm.On(j.WaitsModel, j.WaitsFor)
	case j.Type == jobs.Research:
		return "research"
	case j.Asked == "" && j.Requires == "" && !j.Project:
		return cmp.Or(s.Router.Table().Default.Model, "the default model")
	}
	if d := s.Router.Decide(route.Ask{Model: j.Asked, Project: j.Project, Requires: j.Requires}); len(d.Targets) > 0 && d.Targets[0].Model != "" {
		return llm.On(d.Targets[0].Model, d.Targets[0].Provider)
	}
	return cmp.Or(j.Asked, j.Requires)
}

func (s *Site) newJob(w http.ResponseWriter, r *http.Request) error {
	return s.showForm(w, r, http.StatusOK, jobForm{Spec: jobs.Spec{Type: jobs.Text}})
}

func (s *Site) showForm(w http.ResponseWriter, r *http.Request, status int, form jobForm) error {
	form.Key, form.Picker = newKey(), s.picker(form.Spec.Model, form.Spec.Project)
	form.Notify = []jobs.Notify{jobs.NotifyAlways, jobs.NotifySuccess, jobs.NotifyFailure}
	for _, x := range s.Router.Reports() {
		if x.Kind != "vault" {
			form.Providers = append(form.Providers, x.Name)
		}
	}
	if s.Tools != nil {
		var err error
		if form.Tools, err = s.Tools.Entries(r.Context(), 0); err != nil {
			return err
		}
	}
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
	Ledger   []usage.Row // its attempts to have somebody answer, oldest first
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
	until := time.Now()
	if j.State.Ended() {
		until = j.Ended
	}
	if p.Ledger, err = usage.Made(r.Context(), s.DB, jobs.WorkName(id), j.Created, until); err != nil {
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
	p.Run = s.Inquiries != nil && (j.Type == jobs.Research || j.Asked == graph.Plain)
	if j.Type == jobs.Research {
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
	number := func(field string) int {
		n, err := strconv.Atoi(r.FormValue(field))
		if err != nil && r.FormValue(field) != "" {
			n = -1 // refused with the other faults
		}
		return n
	}
	spec := jobs.Spec{Type: jobs.Type(r.FormValue("type")), Title: r.FormValue("title"), Prompt: r.FormValue("prompt"), Model: r.FormValue("model"),
		Project: yes(r.FormValue("project")), Priority: number("priority"), Deadline: strings.TrimSpace(r.FormValue("deadline")), MaxAttempts: number("max_attempts"),
		Requires: r.FormValue("requires"), Notify: jobs.Notify(r.FormValue("notify")), Output: strings.TrimSpace(r.FormValue("output")), Tools: r.Form["tool"]}
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
