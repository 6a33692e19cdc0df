package web

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// healthReport is the JSON of /health. It is answered from memory, at once: nothing is asked of anybody.
type healthReport struct {
	Status       string                    `json:"status"` // ok, or degraded: a dependency is down, or an incident lasts
	Version      string                    `json:"version"`
	Dependencies []Dependency              `json:"dependencies"` // those of the page, in its order; providers among them
	Providers    map[string]providerHealth `json:"providers"`
	Incidents    []incident                `json:"incidents"` // that last, oldest first
	Library      *libraryHealth            `json:"library,omitempty"`
}

// libraryHealth is how far the index of the notes is.
type libraryHealth struct {
	Notes   int                   `json:"notes"`
	Found   int                   `json:"found"`
	Skipped int                   `json:"skipped"`
	Error   string                `json:"error,omitempty"`
	Meaning library.MeaningStatus `json:"meaning"`
}

type incident struct {
	Key   string    `json:"key"`
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
	Jobs  int       `json:"jobs_held"`
}

type providerHealth struct {
	Kind   string       `json:"kind"`
	Status route.Status `json:"status"`
	Error  string       `json:"error"`
	Usage  struct {
		Today usage.Totals `json:"today"`
	} `json:"usage"`
	Quota       []quota.Standing `json:"quota"`
	Concurrency atOnce           `json:"concurrency"`
}

// atOnce is how many requests a provider has at once.
type atOnce struct {
	InFlight int  `json:"in_flight"`
	Waiting  int  `json:"waiting"` // in line for a place
	Limit    *int `json:"limit"`   // null: any number
}

func concurrent(r route.Report) atOnce {
	a := atOnce{InFlight: r.Active, Waiting: r.Waiting}
	if r.Places > 0 {
		a.Limit = &r.Places
	}
	return a
}

func (s *Site) health(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Vary", "Accept")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		return s.show(w, r, "health", frame{Title: "Health", Nav: "health", Page: s.healthPage(r.Host)})
	}
	return s.healthJSON(w)
}

// Vitals is /health and /metrics alone, for a process without pages. Router, Ledger, DB and Version are required.
func Vitals(c Config) http.Handler {
	if c.Incidents == nil {
		c.Incidents = func() []alert.Alert { return nil }
	}
	s := &Site{Config: c}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.healthJSON(w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.Handle("GET /metrics", newMetrics(c))
	return mux
}

func (s *Site) healthJSON(w http.ResponseWriter) error {
	today := s.Ledger.Today()
	h := healthReport{Status: "ok", Version: s.Version, Providers: map[string]providerHealth{}, Incidents: []incident{}}
	reports := s.Router.Reports()
	h.Dependencies = s.dependencies(reports)
	if slices.ContainsFunc(h.Dependencies, func(d Dependency) bool { return d.State == route.Down }) {
		h.Status = "degraded"
	}
	for _, p := range reports {
		x := providerHealth{Kind: p.Kind, Status: p.Health.Status, Error: p.Health.Error, Quota: p.Quota, Concurrency: concurrent(p)}
		x.Usage.Today = today[p.Name]
		h.Providers[p.Name] = x
	}
	for _, i := range s.Incidents() {
		h.Status = "degraded"
		h.Incidents = append(h.Incidents, incident{i.Key, i.Text, i.Began, i.Jobs})
	}
	if s.Library != nil {
		l := s.Library.Status()
		h.Library = &libraryHealth{l.Notes, l.Found, len(l.Skipped), l.Error, l.Meaning}
	}
	return writeJSON(w, h)
}

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n')) //nolint:errcheck // the reader has left
	return nil
}

// healthPage says in one sentence how everything is, then goes through what the program needs.
type healthPage struct {
	Sentence     string
	Well         bool
	Incidents    []alert.Alert
	Dependencies []Dependency
	Limits       []limitRow
	Version      string
	Host         string
}

func (s *Site) healthPage(host string) healthPage {
	reports := s.Router.Reports()
	p := healthPage{Version: s.Version, Host: host, Incidents: s.Incidents(), Limits: limits(reports), Dependencies: s.dependencies(reports)}
	p.Sentence, p.Well = sentence(p.Dependencies, s.NoModel(), time.Now())
	if n := len(p.Incidents); p.Well && n > 0 {
		p.Sentence, p.Well = plural(int64(n), "incident")+" last"+map[bool]string{true: "s"}[n == 1]+".", false
	}
	return p
}

// dependencies are all that this program needs, each with its state; what the page and the JSON say of it is one.
func (s *Site) dependencies(reports []route.Report) (all []Dependency) {
	for _, r := range reports {
		d := Dependency{Name: r.Name, State: r.Health.Status, Since: r.Health.Since}
		switch d.State {
		case route.Down:
			d.Says, d.Cure = r.Health.Error, cure(r)
		case route.Up:
			d.Says = "Answers"
			if n := len(r.Models); n > 0 {
				d.Says += ", with " + plural(int64(n), "model")
			}
			d.Says += "."
		default:
			d.Says = "Has not been asked yet."
		}
		all = append(all, d)
	}
	books := Dependency{Name: "the books", State: route.Up, Says: "Every attempt is written down before it is made."}
	if err := s.Ledger.Broken(); err != nil {
		books.State, books.Says = route.Down, err.Error()
		books.Cure = "Make room on the disk that holds " + s.DB.Path() + ", and see that it is writable. Answering goes on; what is not written yet waits in memory."
		if s.DB.Shared() {
			books.Cure = "Start PostgreSQL at " + s.DB.Path() + ", and see that it is reachable from here. Answering goes on; what is not written yet waits in memory."
		}
	}
	all = append(all, books)
	if t := cmp.Or(s.DB.Trouble(), s.DB.Away()); t != nil {
		all = append(all, Dependency{Name: "the database", State: route.Down, Since: t.Since, Says: t.Says() + ".", Cure: t.Cure()})
	}
	if s.Dependencies != nil {
		all = append(all, s.Config.Dependencies()...)
	}
	return all
}

// sentence is the top of the health page.
func sentence(all []Dependency, noModel bool, now time.Time) (string, bool) {
	var down []string
	var first Dependency
	for _, d := range all {
		if d.State == route.Down {
			if down == nil {
				first = d
			}
			down = append(down, d.Name)
		}
	}
	switch {
	case len(down) == 1 && !first.Since.IsZero():
		return upper(first.Name) + " is down since " + clock(first.Since, now) + ".", false
	case len(down) == 1:
		return upper(first.Name) + " is down.", false
	case len(down) > 1:
		return plural(int64(len(down)), "thing") + " need you: " + strings.Join(down, ", ") + ".", false
	case noModel:
		return "All is well, but no model is connected.", false
	}
	return "All is well.", true
}

// upper makes "the books" begin a sentence; names of machines stay as they are written.
func upper(s string) string {
	if rest, ok := strings.CutPrefix(s, "the "); ok {
		return "The " + rest
	}
	return s
}

// cure is what a person can do about a provider that is down.
func cure(r route.Report) string {
	text := strings.ToLower(r.Health.Error)
	switch {
	case strings.Contains(text, "401") || strings.Contains(text, "403") || strings.Contains(text, "key"):
		return "Its key is missing or refused: put a valid one where the configuration points, and restart."
	case r.Cloud:
		return "Check this machine's connection and the provider's status page. Questions for it are held meanwhile."
	case r.Kind == "ollama":
		return "Start the machine, or Ollama on it (systemctl start ollama), and see that its address is reachable from here. It is asked every 2 seconds; questions that insist on it are held meanwhile."
	}
	return "Start it, and see that its address is reachable from here. It is asked every 2 seconds."
}
