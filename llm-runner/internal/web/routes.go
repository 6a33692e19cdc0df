package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"home.arpa/lab/llm-runner/internal/jobs"
)

// routes is every route of the site. Forms answer with a redirect to a page; whatever goes wrong below /api/ is JSON.
func (s *Site) routes() http.Handler {
	mux := http.NewServeMux()
	page := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			}
			switch err := h(w, r); {
			case err == nil:
			case strings.HasPrefix(r.URL.Path, "/api/"):
				s.apiFail(w, r, err)
			default:
				s.fail(w, r, err)
			}
		})
	}

	// Pages.
	page("GET /{$}", s.start)
	page("GET /chats/{id}", s.chat)
	page("GET /notes/{path...}", s.note)
	page("GET /usage", s.usage)
	page("GET /health", s.health) // JSON unless a browser asks

	// Forms.
	page("POST /chats", s.send)
	page("POST /chats/{id}/messages", s.send)
	page("POST /chats/{id}/title", s.rename)
	page("POST /chats/{id}/delete", s.remove)
	page("POST /messages/{id}/edit", s.edit)
	page("POST /messages/{id}/select", s.selectBranch)
	page("POST /turns/{id}/stop", s.stop)
	page("POST /turns/{id}/again", s.again)
	page("POST /turns/{id}/regenerate", s.regenerate)
	page("POST /theme", s.setTheme)

	// What the script asks for, and downloads.
	page("GET /turns/{id}/events", s.events)
	page("GET /messages/{id}/text", s.source)
	page("GET /chats/{id}/export.md", s.exportMarkdown)
	page("GET /chats/{id}/export.json", s.exportJSON)
	page("GET /where", s.whereFragment)

	// JSON, for the command line and other programs.
	page("GET /api/chats", s.apiChats)
	page("GET /api/find", s.apiFind)
	page("GET /api/route", s.apiRoute)
	page("GET /api/models", s.apiModels)
	page("GET /api/usage", s.apiUsage)

	if s.Jobs != nil {
		s.jobRoutes(page)
	}

	if s.Library != nil {
		s.documentRoutes(mux, page)
		page("GET /library", s.libraryPage)
		page("GET /library/events", s.libraryEvents)
		page("POST /library/reindex", s.reindexForm)
		page("POST /library/exclude", s.excludeForm(s.Library.Exclude))
		page("POST /library/include", s.excludeForm(s.Library.Include))
		page("GET /api/library", s.apiLibrary)
		page("GET /api/library/search", s.apiSearch)
		page("POST /api/library/reindex", s.apiReindex)
		page("POST /api/library/exclude", s.apiExclude(s.Library.Exclude))
		page("POST /api/library/include", s.apiExclude(s.Library.Include))
	}

	if s.Progress != nil {
		page("GET /progress", s.progressPage)
		page("POST /progress/tick", s.tick)
		page("GET /api/progress", s.apiProgress)
	}

	if s.Memory != nil {
		s.memoryRoutes(mux, page)
	}

	if s.Inquiries != nil {
		page("GET /runs", s.runsPage)
		page("GET /runs/of", s.runOf)
		page("GET /runs/{id}", s.runPage)
		page("POST /runs/{id}/plan", s.decidePlan)
		page("POST /runs/{id}/note", s.saveReport)
		page("GET /runs/{id}/note.md", s.reportFile)
		page("POST /runs/{id}/{verb}", s.changeRun)
		page("GET /api/runs", s.apiRuns)
		page("GET /api/runs/{id}", s.apiRun)
		page("POST /api/runs/{id}/plan", s.apiPlan)
	}

	if s.Tools != nil {
		s.toolRoutes(page)
	}

	if s.Agents != nil {
		s.agentRoutes(page)
	}

	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("GET /static/{name}", s.static)
	page("GET /", func(http.ResponseWriter, *http.Request) error {
		return problem{http.StatusNotFound, "There is no such page", "The navigation has all that there are."}
	})
	for _, method := range methods {
		page(method+unknown, func(w http.ResponseWriter, r *http.Request) error { return lost(mux, w, r) })
	}
	return mux
}

// unknown is the pattern of what the API does not have, behind each of the methods.
const unknown = " /api/"

var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// lost says that the API does not have the path of a request, or, with the header Allow, that it has it for other methods.
func lost(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) error {
	var allowed []string
	for _, method := range methods {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != method+unknown {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return problem{http.StatusMethodNotAllowed, "Another method is meant", fmt.Sprintf("%s takes %s, not %s", r.URL.Path, strings.Join(allowed, " and "), r.Method)}
	}
	return problem{http.StatusNotFound, "There is no such path", fmt.Sprintf("there is no %s %s: docs/api.md lists what there is", r.Method, r.URL.Path)}
}

// jobRoutes are the queue's pages and forms, and the API of jobs.
func (s *Site) jobRoutes(page func(string, func(http.ResponseWriter, *http.Request) error)) {
	page("GET /jobs", s.queue)
	page("GET /jobs/new", s.newJob)
	page("GET /jobs/{id}", s.job)
	page("GET /jobs/events", s.queueEvents)
	page("GET /jobs/{id}/events", s.jobEvents)
	page("POST /jobs", s.submitJob)
	page("POST /api/jobs", s.apiSubmit)
	page("GET /api/jobs", s.apiJobs)
	page("GET /api/jobs/{id}", s.apiOneJob)
	page("GET /api/jobs/{id}/events", s.apiJobEvents)
	for name, do := range map[string]func(context.Context, int64) (jobs.Job, error){
		"cancel": s.cancelJob, "release": s.Jobs.Release, "retry": s.Jobs.Retry,
	} {
		page("POST /jobs/{id}/"+name, s.jobForms(do))
		page("POST /api/jobs/{id}/"+name, func(w http.ResponseWriter, r *http.Request) error { return s.showJob(w, r, do) })
	}
}

// maxForm is the size in bytes of the largest form: a question may carry a long document.
const maxForm = 4 << 20
