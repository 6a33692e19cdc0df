// Package fake imitates what the pipelines need of the outside world: GitLab's API (notes, Terraform states, pipelines with artifacts,
// variables, and the rules of its tokens) and a container registry. Tests run whole pipelines against it, and `homelab fake gitlab`
// serves it to anyone who wants to see what a merge request would do. It follows GitLab's documentation and, where that is silent, its
// source (lib/api/notes.rb, lib/api/terraform/state.rb, remote_state_handler.rb).
//
// GET /_fake/requests shows the last requests, without their tokens.
package fake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Roles, by GitLab's numbers (docs.gitlab.com/api/access_requests).
const (
	Guest      = 10
	Reporter   = 20
	Developer  = 30
	Maintainer = 40
)

// A Token is one that GitLab would take.
type Token struct {
	Value  string   `json:"value"`
	User   string   `json:"user"`   // whose it is: a project access token has a user of its own
	Role   int      `json:"role"`   // in the project
	Scopes []string `json:"scopes"` // api, read_api
	Job    bool     `json:"job"`    // it is a job's CI_JOB_TOKEN: it has its starter's role and reaches little
	Ended  bool     `json:"ended"`  // it has expired, or its job is over
}

// A GitLab imitates one project of a GitLab. It is an http.Handler and safe for concurrent use. The zero value is not ready: NewGitLab.
type GitLab struct {
	// Paid says that job tokens may read artifacts, which GitLab allows in Premium and Ultimate only.
	Paid bool
	// MaxNote is how long a note may be; NewGitLab sets GitLab's million.
	MaxNote int

	id   int64
	path string
	mux  *http.ServeMux

	mu        sync.Mutex
	tokens    []Token
	users     []string // number n is users[n-1]
	protected []string // branches
	requests  map[int]*mergeRequest
	states    map[string]*state
	variables []Variable
	pipelines []*Pipeline
	nextID    int64
	seen      []Seen
	faults    []fault
}

// Seen is a request as it came, without its token.
type Seen struct {
	Verb   string `json:"verb"`
	Path   string `json:"path"` // with the query
	User   string `json:"user"` // "" nobody
	Status int    `json:"status"`
}

type fault struct {
	verb, part string
	status     int
	after      bool // the work is done, and the answer is lost
}

// NewGitLab returns a GitLab with one empty project, whose branch main is protected.
func NewGitLab(id int64, path string) *GitLab {
	g := &GitLab{MaxNote: 1_000_000, id: id, path: path, requests: map[int]*mergeRequest{}, states: map[string]*state{}, protected: []string{"main"}, nextID: 1000}
	g.mux = http.NewServeMux()
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request, *Token){
		"GET /api/v4/user":          g.user,
		"GET /api/v4/job":           g.job,
		"GET /api/v4/projects/{id}": g.project,
		"GET /api/v4/projects/{id}/merge_requests/{iid}/notes":           g.listNotes,
		"POST /api/v4/projects/{id}/merge_requests/{iid}/notes":          g.makeNote,
		"GET /api/v4/projects/{id}/merge_requests/{iid}/notes/{note}":    g.oneNote,
		"PUT /api/v4/projects/{id}/merge_requests/{iid}/notes/{note}":    g.oneNote,
		"DELETE /api/v4/projects/{id}/merge_requests/{iid}/notes/{note}": g.oneNote,
		"GET /api/v4/projects/{id}/pipelines":                            g.listPipelines,
		"GET /api/v4/projects/{id}/pipelines/{pipeline}/jobs":            g.listJobs,
		"GET /api/v4/projects/{id}/jobs/{job}/artifacts/{path...}":       g.artifact,
		"GET /api/v4/projects/{id}/variables":                            g.listVariables,
		"POST /api/v4/projects/{id}/variables":                           g.makeVariable,
		"GET /api/v4/projects/{id}/variables/{key}":                      g.oneVariable,
		"PUT /api/v4/projects/{id}/variables/{key}":                      g.oneVariable,
		"DELETE /api/v4/projects/{id}/variables/{key}":                   g.oneVariable,
		"GET /api/v4/projects/{id}/terraform/state/{name}":               g.readState,
		"POST /api/v4/projects/{id}/terraform/state/{name}":              g.writeState,
		"DELETE /api/v4/projects/{id}/terraform/state/{name}":            g.dropState,
		"POST /api/v4/projects/{id}/terraform/state/{name}/lock":         g.lockState,
		"DELETE /api/v4/projects/{id}/terraform/state/{name}/lock":       g.unlockState,
		"GET /api/v4/projects/{id}/terraform/state/{name}/versions/{n}":  g.stateVersion,
		"GET /_fake/requests":                                            func(w http.ResponseWriter, _ *http.Request, _ *Token) { answer(w, http.StatusOK, g.Requests()) },
	} {
		g.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { g.admit(w, r, serve) })
	}
	g.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusNotFound, "404 Not Found") })
	return g
}

// Add adds a token and its user.
func (g *GitLab) Add(t Token) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens = append(g.tokens, t)
	g.number(t.User)
}

// End has a token end: every job's does with its job.
func (g *GitLab) End(value string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.tokens {
		if g.tokens[i].Value == value {
			g.tokens[i].Ended = true
		}
	}
}

// Break has the next request of that verb whose path contains part fail with a status. With after the work is done, and only its answer
// is lost.
func (g *GitLab) Break(verb, part string, status int, after bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = append(g.faults, fault{verb, part, status, after})
}

// Requests are the last requests, oldest first.
func (g *GitLab) Requests() []Seen {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]Seen{}, g.seen...)
}

func (g *GitLab) number(user string) int64 {
	i := slices.Index(g.users, user)
	if i < 0 {
		g.users, i = append(g.users, user), len(g.users)
	}
	return int64(i + 1)
}

// ServeHTTP answers as GitLab would.
func (g *GitLab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	record := &recorder{ResponseWriter: w, status: http.StatusOK}
	g.mu.Lock()
	var hit *fault
	for i, f := range g.faults {
		if f.verb == r.Method && strings.Contains(r.URL.Path, f.part) {
			hit = &f
			g.faults = slices.Delete(g.faults, i, i+1)
			break
		}
	}
	g.mu.Unlock()
	switch {
	case hit != nil && !hit.after:
		refuse(record, hit.status, http.StatusText(hit.status))
	case hit != nil:
		g.mux.ServeHTTP(&recorder{ResponseWriter: nobody{}, status: http.StatusOK}, r)
		refuse(record, hit.status, http.StatusText(hit.status))
	default:
		g.mux.ServeHTTP(record, r)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Seen{Verb: r.Method, Path: r.URL.EscapedPath(), Status: record.status}
	if r.URL.RawQuery != "" {
		s.Path += "?" + r.URL.RawQuery
	}
	if t := g.token(r); t != nil {
		s.User = t.User
	}
	if g.seen = append(g.seen, s); len(g.seen) > 1000 {
		g.seen = g.seen[500:]
	}
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// nobody takes an answer that gets lost.
type nobody struct{}

func (nobody) Header() http.Header         { return http.Header{} }
func (nobody) Write(b []byte) (int, error) { return len(b), nil }
func (nobody) WriteHeader(int)             {}

// token finds whose request it is. The caller holds mu.
func (g *GitLab) token(r *http.Request) *Token {
	value, job := r.Header.Get("PRIVATE-TOKEN"), false
	if v := r.Header.Get("JOB-TOKEN"); v != "" {
		value, job = v, true
	}
	if v, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		value = v
	}
	if user, password, ok := r.BasicAuth(); ok && strings.Contains(r.URL.Path, "/terraform/state/") {
		value, job = password, user == "gitlab-ci-token"
	}
	for i, t := range g.tokens {
		if t.Value == value && value != "" && t.Job == job && !t.Ended {
			return &g.tokens[i]
		}
	}
	return nil
}

// jobsMay are the parts of the API that a job's token reaches (docs.gitlab.com/ci/jobs/ci_job_token).
func (g *GitLab) jobsMay(r *http.Request) bool {
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/api/v4/job"), strings.Contains(path, "/terraform/state/"):
		return true
	case strings.Contains(path, "/notes"):
		return r.Method == http.MethodGet
	case strings.Contains(path, "/artifacts"):
		return g.Paid
	}
	return false
}

// admit knows who asks and what the token reaches, before anything is done.
func (g *GitLab) admit(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *http.Request, *Token)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/_fake/") {
		g.mu.Unlock()
		serve(w, r, nil)
		g.mu.Lock()
		return
	}
	t := g.token(r)
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch id := r.PathValue("id"); {
	case t == nil || t.Job && !g.jobsMay(r):
		refuse(w, http.StatusUnauthorized, "401 Unauthorized")
	case !t.Job && !slices.Contains(t.Scopes, "api") && (!reads || !slices.Contains(t.Scopes, "read_api")):
		answer(w, http.StatusForbidden, map[string]string{"error": "insufficient_scope", "error_description": "The request requires higher privileges than provided by the access token.", "scope": "api"})
	case id != "" && id != strconv.FormatInt(g.id, 10) && id != g.path || t.Role < Guest:
		refuse(w, http.StatusNotFound, "404 Project Not Found")
	default:
		serve(w, r, t)
	}
}

// may refuses whoever has a smaller role.
func may(w http.ResponseWriter, t *Token, role int) bool {
	if t.Role < role {
		refuse(w, http.StatusForbidden, "403 Forbidden")
		return false
	}
	return true
}

func (g *GitLab) user(w http.ResponseWriter, _ *http.Request, t *Token) {
	answer(w, http.StatusOK, map[string]any{"id": g.number(t.User), "username": t.User, "name": t.User, "state": "active", "bot": true})
}

func (g *GitLab) job(w http.ResponseWriter, _ *http.Request, t *Token) {
	if !t.Job {
		refuse(w, http.StatusUnauthorized, "401 Unauthorized")
		return
	}
	answer(w, http.StatusOK, map[string]any{"status": "running", "user": map[string]any{"id": g.number(t.User), "username": t.User}})
}

func (g *GitLab) project(w http.ResponseWriter, _ *http.Request, _ *Token) {
	answer(w, http.StatusOK, map[string]any{"id": g.id, "path_with_namespace": g.path, "default_branch": "main", "visibility": "private"})
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"message": message})
}

func answer(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		status, text = http.StatusInternalServerError, fmt.Append(nil, `{"message":"500 Internal Server Error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // whoever asked may be gone
}

// page cuts a list as the query asks, and tells where it goes on (docs.gitlab.com/api/rest, offset-based pagination).
func page[T any](w http.ResponseWriter, r *http.Request, list []T) []T {
	size, n := 20, 1
	if v, err := strconv.Atoi(r.URL.Query().Get("per_page")); err == nil && v > 0 {
		size = min(v, 100)
	}
	if v, err := strconv.Atoi(r.URL.Query().Get("page")); err == nil && v > 0 {
		n = v
	}
	from, to := min((n-1)*size, len(list)), min(n*size, len(list))
	h := w.Header()
	h.Set("X-Page", strconv.Itoa(n))
	h.Set("X-Per-Page", strconv.Itoa(size))
	h.Set("X-Total", strconv.Itoa(len(list)))
	h.Set("X-Next-Page", "")
	if to < len(list) {
		h.Set("X-Next-Page", strconv.Itoa(n+1))
	}
	return append([]T{}, list[from:to]...)
}

// stamp is a time as GitLab writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
