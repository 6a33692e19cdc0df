// Package web serves the pages, their events and a small JSON API. Pages are whole without the script; the script adds
// streaming, the palette and shortcuts to the same forms and links. routes.go lists every route.
package web

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/agent"
	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/memory"
	"home.arpa/lab/llm-runner/internal/progress"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/trace"
	"home.arpa/lab/llm-runner/internal/usage"
)

// Config is what a Site shows. Chats, Router, Ledger and DB are required.
type Config struct {
	Chats *chat.Service
	Tools *toolbox.Box // nil: there are no tools
	// Servers are the MCP servers, from memory. nil: there are none.
	Servers func() []toolbox.Server
	// Login begins and ends that a person lets this program use an MCP server: it returns where to send them, "" when they are done.
	Login    func(ctx context.Context, server string, answer url.Values) (to string, err error)
	Jobs     *jobs.Service     // nil: there is no queue
	Library  *library.Library  // nil: there is no page of it
	Agents   *agent.Service    // nil: there are none
	Progress *progress.Service // nil: there is no page of it
	Memory   *memory.Service   // nil: there is no page of it
	// Inquiries answer from the owner's sources; nil: there is no page of how. Proceed goes on with one of their runs in the background.
	Inquiries *graph.Inquiries
	// Planned is told of a run of Inquiries that a person has decided about.
	Planned func(run graph.RunRow)
	// SaveReport writes the report of a run into the vault, and returns where.
	SaveReport func(ctx context.Context, run int64) (path string, err error)
	Proceed    func(run int64)
	Router     *route.Router
	Ledger     *usage.Ledger
	DB         *db.DB
	Traces     *trace.Tracer // nil: nothing is traced
	Version    string        // of this program, for /health and the foot of the health page
	// Note returns the text of one of the owner's notes by its path in the vault; fs.ErrNotExist where there is none.
	// nil: there is no vault, and citations are shown without links.
	Note func(ctx context.Context, path string) ([]byte, error)
	// Dependencies tells of what else this program needs and main knows of: the library, the vault's folder, a search
	// engine. It answers from memory; nil: nothing else.
	Dependencies func() []Dependency
	// Incidents are what lasts and a person is told of, oldest first; from memory. nil: nothing is told.
	Incidents func() []alert.Alert
	// Undelivered is how many alerts each of those who pass them on has not told, from memory; nil: nobody does.
	Undelivered func() map[string]int
	// NoModel says that nothing that could answer is connected; nil: asked of the router.
	NoModel func() bool
	// Example is a question to begin with, which the handbook answers; "" where the notes are the person's own.
	Example string
	LogOut  bool         // people have logged in: pages show the way out
	Log     *slog.Logger // nil: slog.Default()
}

// A Dependency is something this program needs, as /health shows it.
type Dependency struct {
	Name  string       `json:"name"`
	State route.Status `json:"status"`         // up, down or unknown
	Says  string       `json:"says"`           // one sentence: what it does now, or what is wrong
	Since time.Time    `json:"since,omitzero"` // of the state; zero: not known
	Cure  string       `json:"cure,omitempty"` // what to do where State is down
}

// A Site is the http.Handler of all pages.
type Site struct {
	Config
	log      *slog.Logger
	pages    map[string]*template.Template
	assets   map[string]asset
	markdown *markdown
	rendered *cache
	handler  http.Handler
	metrics  http.Handler
	lesson   lesson
	drain    context.Context // ends when the server is about to stop
	drainNow context.CancelCauseFunc
}

// errDrain is why event streams end when the server stops.
var errDrain = errors.New("the server is restarting")

// New returns the site.
func New(c Config) (*Site, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.NoModel == nil {
		c.NoModel = func() bool { return len(c.Router.Decide(route.Ask{}).Targets) == 0 }
	}
	if c.Incidents == nil {
		c.Incidents = func() []alert.Alert { return nil }
	}
	s := &Site{Config: c, log: c.Log, markdown: newMarkdown(), rendered: newCache(8 << 20)}
	s.drain, s.drainNow = context.WithCancelCause(context.Background())
	var err error
	if s.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	if s.pages, err = s.loadPages(); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(c)
	s.handler = s.routes()
	return s, nil
}

// Drain tells the readers of event streams that the server is restarting and ends their streams; their pages come back
// by themselves. Register it with http.Server.RegisterOnShutdown, or Shutdown waits for streams that do not end.
func (s *Site) Drain() { s.drainNow(errDrain) }

// The page may run and load what this server serves, and nothing else: an answer cannot make a browser call anywhere.
const policyHeader = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policyHeader)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	s.handler.ServeHTTP(w, r)
}

// frame is what every page has around its own content.
type frame struct {
	Title   string
	Nav     string // chat, queue, usage, health: the page's place in the navigation
	Theme   string // light, dark; "" as the system
	Next    string // the theme that the switch turns to
	Path    string // of this page, for forms that come back to it
	Where   []machine
	Refresh int         // seconds after which the page loads itself again without the script: there will be news; 0 never
	Trouble *db.Trouble // with the disk or with PostgreSQL; nil none
	Places  []place     // in the navigation
	LogOut  bool        // there is a way out
	Tools   bool        // there are some
	Memory  bool        // there is one
	Page    any
}

// How soon pages load themselves again without the script, in seconds: while something moves, and while something waits.
const (
	soon  = 3
	later = 15
)

func reload(moves bool) int {
	if moves {
		return soon
	}
	return 0
}

// show writes a page. The status is 200 unless it was set before by fail.
func (s *Site) show(w http.ResponseWriter, r *http.Request, name string, f frame) error {
	return s.showStatus(w, r, http.StatusOK, name, f)
}

func (s *Site) showStatus(w http.ResponseWriter, r *http.Request, status int, name string, f frame) error {
	f.Theme, f.Next = theme(r)
	f.Path = r.URL.Path
	f.Where = s.where()
	f.Tools, f.Memory = s.Tools != nil, s.Memory != nil
	f.Places, f.LogOut, f.Trouble = s.places(), s.LogOut, cmp.Or(s.DB.Trouble(), s.DB.Away())
	for i, p := range f.Places {
		f.Places[i].Here = p.Nav == f.Nav
	}
	var b bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&b, "layout", f); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	if err != nil {
		return errGone
	}
	return nil
}

// errGone says that the reader has left; nobody is to be told.
var errGone = errors.New("the reader has left")

// fail shows an error as a page: what happened, what was kept, what to do.
func (s *Site) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problem{Status: http.StatusInternalServerError, What: "Something went wrong in here",
		Says: "The log has the details. What was saved before is still there."}
	var state *jobs.StateError
	switch {
	case errors.Is(err, errGone), r.Context().Err() != nil:
		return
	case errors.Is(err, chat.ErrNotFound):
		p = problem{http.StatusNotFound, "There is nothing here", "The conversation or message may have been deleted."}
	case errors.Is(err, jobs.ErrNotFound):
		p = problem{http.StatusNotFound, "There is no such job", "The queue has all that there are."}
	case errors.Is(err, jobs.ErrKeyUsed):
		p = problem{http.StatusUnprocessableEntity, "This form was sent before with another job", "Open the form again for new work."}
	case errors.As(err, &state):
		p = problem{http.StatusConflict, "That does not fit any more", "In the meantime " + state.Error() + "."}
	case errors.Is(err, chat.ErrEmpty):
		p = problem{http.StatusUnprocessableEntity, "The question is empty", "Go back and write one."}
	case errors.Is(err, chat.ErrRunning):
		p = problem{http.StatusConflict, "The answer before is still arriving", "Go back and stop it, or wait until it has ended. Nothing was sent."}
	case errors.Is(err, chat.ErrUnsaved):
		p = problem{http.StatusServiceUnavailable, "Not now", upper(err.Error()) + "."}
	case errors.Is(err, chat.ErrClosed):
		w.Header().Set("Retry-After", "3")
		p = problem{http.StatusServiceUnavailable, "The server is restarting", "Go back and send again in a moment. Nothing was sent."}
	default:
		var told problem
		if errors.As(err, &told) {
			p = told
		} else if db.FaultOf(err) == db.Away && r.Method == http.MethodGet {
			p = problem{http.StatusServiceUnavailable, "The database does not answer", "What was saved is still there, and can be seen when it answers again."}
		} else if status, says := unwritten(err); status != 0 {
			p = problem{status, "It could not be saved", upper(says) + "."}
		} else {
			s.log.Error("serve page", "path", r.URL.Path, "error", err)
		}
	}
	if err := s.showStatus(w, r, p.Status, "error", frame{Title: p.What, Page: p}); err != nil && !errors.Is(err, errGone) {
		s.log.Error("serve error page", "path", r.URL.Path, "error", err)
		http.Error(w, p.What, p.Status)
	}
}

// home is where a reader goes on from an error.
type home struct{ Href, Words string }

// homes are the pages to go on from, by the beginning of the path that failed.
var homes = []struct {
	prefix string
	home
}{
	{"/library", home{"/library", "library"}}, {"/documents", home{"/library", "library"}}, {"/notes", home{"/library", "library"}},
	{"/runs", home{"/runs", "runs"}}, {"/jobs", home{"/jobs", "queue"}}, {"/tools", home{"/tools", "tools"}}, {"/progress", home{"/progress", "projects"}},
}

// Home is the page from which a reader goes on who meets an error under Path.
func (f frame) Home() home {
	for _, h := range homes {
		if strings.HasPrefix(f.Path, h.prefix) {
			return h.home
		}
	}
	return home{"/", "conversations"}
}

// A problem is an error for the reader of a page.
type problem struct {
	Status int
	What   string
	Says   string
}

func (p problem) Error() string { return p.What }

// theme reads which colours the reader chose, and which come next: as the system, dark, light.
func theme(r *http.Request) (now, next string) {
	if c, err := r.Cookie("theme"); err == nil {
		now = c.Value
	}
	switch now {
	case "dark":
		return now, "light"
	case "light":
		return now, "system"
	}
	return "", "dark"
}

// setTheme remembers the reader's colours in a cookie, so that the first paint has them.
func (s *Site) setTheme(w http.ResponseWriter, r *http.Request) error {
	value, age := r.FormValue("theme"), 365*24*3600
	if value != "dark" && value != "light" {
		value, age = "", -1
	}
	http.SetCookie(w, &http.Cookie{Name: "theme", Value: value, Path: "/", MaxAge: age, SameSite: http.SameSiteLaxMode, HttpOnly: false})
	back(w, r, local(r.FormValue("back")))
	return nil
}

// local returns path if it is a path of this site, else "/".
func local(path string) string {
	if len(path) == 0 || path[0] != '/' || len(path) > 1 && (path[1] == '/' || path[1] == '\\') {
		return "/"
	}
	return path
}

// back answers a form: the browser loads the page at path.
func back(w http.ResponseWriter, r *http.Request, path string) {
	http.Redirect(w, r, path, http.StatusSeeOther)
}
