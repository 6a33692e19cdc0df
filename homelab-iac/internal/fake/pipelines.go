package fake

import (
	"encoding/json"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Variable is a CI variable of the project (docs.gitlab.com/ci/variables).
type Variable struct {
	Key         string `json:"key"`
	Value       string `json:"value"`
	Type        string `json:"variable_type"` // env_var or file
	Protected   bool   `json:"protected"`     // for pipelines of protected branches only
	Masked      bool   `json:"masked"`
	Hidden      bool   `json:"hidden"`            // never shown again
	Environment string `json:"environment_scope"` // *, or a pattern
}

// A Pipeline ran, or runs.
type Pipeline struct {
	ID      int64  `json:"id"`
	SHA     string `json:"sha"`
	Ref     string `json:"ref"`
	Source  string `json:"source"` // push, merge_request_event, schedule, web
	Status  string `json:"status"`
	Request int    `json:"-"` // of which merge request; 0 none
	jobs    []*pipelineJob
}

type pipelineJob struct {
	ID        int64  `json:"id"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	artifacts map[string][]byte
}

// Set sets a variable of the project.
func (g *GitLab) Set(v Variable) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.set(v)
}

func (g *GitLab) set(v Variable) {
	if v.Type == "" {
		v.Type = "env_var"
	}
	if v.Environment == "" {
		v.Environment = "*"
	}
	g.variables = slices.DeleteFunc(g.variables, func(x Variable) bool { return x.Key == v.Key && x.Environment == v.Environment })
	g.variables = append(g.variables, v)
}

// Start starts a pipeline as GitLab would: the predefined variables that tell pipelines apart, a job's token with the role of whoever
// started it, and those of the project's variables that a pipeline of that kind is given: protected ones only on protected branches, and
// never in a merge request's pipeline. A runner, gitlab-ci-local say, does the rest.
func (g *GitLab) Start(source, branch, sha string, request int, starter Token) (p *Pipeline, predefined map[string]string, project []Variable) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nextID++
	p = &Pipeline{ID: g.nextID, SHA: sha, Ref: branch, Source: source, Status: "running", Request: request}
	if source == "merge_request_event" {
		p.Ref = "refs/merge-requests/" + strconv.Itoa(request) + "/head"
	}
	g.pipelines = append(g.pipelines, p)
	starter.Job, starter.Scopes, starter.Value = true, nil, "glcbt-fake-"+strconv.FormatInt(p.ID, 10)+"-"+sha[:min(8, len(sha))]
	g.tokens = append(g.tokens, starter)
	g.number(starter.User)
	protected := source != "merge_request_event" && slices.Contains(g.protected, branch)
	predefined = map[string]string{
		"CI_PIPELINE_SOURCE": source, "CI_JOB_TOKEN": starter.Value, "CI_PROJECT_ID": strconv.FormatInt(g.id, 10), "CI_PROJECT_PATH": g.path,
		"CI_DEFAULT_BRANCH": "main", "CI_COMMIT_REF_NAME": branch, "CI_COMMIT_REF_PROTECTED": strconv.FormatBool(protected), "CI_SERVER": "yes",
	}
	if source == "merge_request_event" {
		maps.Copy(predefined, map[string]string{"CI_MERGE_REQUEST_IID": strconv.Itoa(request), "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": branch,
			"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "CI_MERGE_REQUEST_EVENT_TYPE": "detached", "CI_MERGE_REQUEST_REF_PATH": p.Ref})
	} else {
		predefined["CI_COMMIT_BRANCH"] = branch // merge requests' pipelines have none
		if g.requests[request] != nil {
			predefined["CI_OPEN_MERGE_REQUESTS"] = g.path + "!" + strconv.Itoa(request)
		}
	}
	for _, v := range g.variables {
		if !v.Protected || protected {
			project = append(project, v)
		}
	}
	return p, predefined, project
}

// Finish says how a pipeline ended, and ends its jobs' tokens.
func (g *GitLab) Finish(p *Pipeline, token string, ok bool) {
	g.mu.Lock()
	p.Status = map[bool]string{true: "success", false: "failed"}[ok]
	g.mu.Unlock()
	g.End(token)
}

// Leave is what a runner does once a job has ended: its state, and its artifacts by their paths.
func (g *GitLab) Leave(p *Pipeline, job string, ok bool, artifacts map[string][]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nextID++
	p.jobs = append(p.jobs, &pipelineJob{ID: g.nextID, Name: job, Status: map[bool]string{true: "success", false: "failed"}[ok], artifacts: artifacts})
}

// Expire has all artifacts end.
func (g *GitLab) Expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.pipelines {
		for _, j := range p.jobs {
			j.artifacts = nil
		}
	}
}

func (g *GitLab) listPipelines(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Reporter) {
		return
	}
	q := r.URL.Query()
	var list []*Pipeline
	for _, p := range slices.Backward(g.pipelines) {
		if (q.Get("sha") == "" || q.Get("sha") == p.SHA) && (q.Get("source") == "" || q.Get("source") == p.Source) &&
			(q.Get("status") == "" || q.Get("status") == p.Status) && (q.Get("ref") == "" || q.Get("ref") == p.Ref) {
			list = append(list, p)
		}
	}
	answer(w, http.StatusOK, page(w, r, list))
}

func (g *GitLab) listJobs(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Reporter) {
		return
	}
	id, _ := strconv.ParseInt(r.PathValue("pipeline"), 10, 64)
	i := slices.IndexFunc(g.pipelines, func(p *Pipeline) bool { return p.ID == id })
	if i < 0 {
		refuse(w, http.StatusNotFound, "404 Not found")
		return
	}
	var list []*pipelineJob
	for _, j := range slices.Backward(g.pipelines[i].jobs) {
		if scope := r.URL.Query()["scope[]"]; len(scope) == 0 || slices.Contains(scope, j.Status) {
			list = append(list, j)
		}
	}
	answer(w, http.StatusOK, page(w, r, list))
}

// artifact sends one file. All of ours are for developers only (artifacts:access).
func (g *GitLab) artifact(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Developer) {
		return
	}
	id, _ := strconv.ParseInt(r.PathValue("job"), 10, 64)
	name := path.Clean(r.PathValue("path"))
	if strings.HasPrefix(name, "..") {
		refuse(w, http.StatusBadRequest, "400 Bad request")
		return
	}
	for _, p := range g.pipelines {
		for _, j := range p.jobs {
			if file, ok := j.artifacts[name]; ok && j.ID == id {
				w.Header().Set("Content-Type", "application/octet-stream")
				_, _ = w.Write(file)
				return
			}
		}
	}
	refuse(w, http.StatusNotFound, "404 Not found")
}

// shown is a variable as the API shows it.
func (v Variable) shown() map[string]any {
	value := any(v.Value)
	if v.Hidden {
		value = nil
	}
	return map[string]any{"key": v.Key, "value": value, "variable_type": v.Type, "protected": v.Protected, "masked": v.Masked, "hidden": v.Hidden,
		"environment_scope": v.Environment, "raw": false}
}

func (g *GitLab) listVariables(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Maintainer) {
		return
	}
	list := []map[string]any{}
	for _, v := range g.variables {
		list = append(list, v.shown())
	}
	answer(w, http.StatusOK, page(w, r, list))
}

func (g *GitLab) makeVariable(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Maintainer) {
		return
	}
	var v Variable
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&v); err != nil || v.Key == "" {
		answer(w, http.StatusBadRequest, map[string]string{"error": "key is missing, value is missing"})
		return
	}
	if v.Masked && !maskable(v.Value) {
		answer(w, http.StatusBadRequest, map[string]any{"message": map[string]any{"value": []string{"is invalid"}}})
		return
	}
	g.set(v)
	answer(w, http.StatusCreated, g.variables[len(g.variables)-1].shown())
}

func (g *GitLab) oneVariable(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Maintainer) {
		return
	}
	i := slices.IndexFunc(g.variables, func(v Variable) bool { return v.Key == r.PathValue("key") })
	if i < 0 {
		refuse(w, http.StatusNotFound, "404 Variable Not Found")
		return
	}
	switch r.Method {
	case http.MethodPut:
		v := g.variables[i]
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&v); err != nil || v.Masked && !maskable(v.Value) {
			answer(w, http.StatusBadRequest, map[string]any{"message": map[string]any{"value": []string{"is invalid"}}})
			return
		}
		g.variables[i] = v
	case http.MethodDelete:
		g.variables = slices.Delete(g.variables, i, i+1)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, http.StatusOK, g.variables[i].shown())
}

// maskable says whether GitLab can mask a value: one line, no spaces, eight characters or more.
func maskable(value string) bool {
	return len(value) >= 8 && !strings.ContainsAny(value, " \t\r\n")
}
