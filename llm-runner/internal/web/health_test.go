package web

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
)

// program asks for /health as a program does.
func (r *rig) program(into any) {
	r.t.Helper()
	req := r.request("GET", "/health", nil)
	req.Header.Set("Accept", "application/json")
	if _, body := r.do(req); json.Unmarshal([]byte(body), into) != nil {
		r.t.Fatal(body)
	}
}

// A monitor that reads the JSON and a person who reads the page are told the same.
func TestHealthIsTheSameForPeopleAndPrograms(t *testing.T) {
	r := newRig(t)
	r.answered("q", "a")
	notes := Dependency{Name: "notes", State: route.Up, Says: "12 notes are indexed."}
	r.Config.Dependencies = func() []Dependency { return []Dependency{notes} }
	names := func(h healthReport) string {
		all := make([]string, len(h.Dependencies))
		for i, d := range h.Dependencies {
			all[i] = d.Name + " " + string(d.State)
		}
		return strings.Join(all, ", ")
	}
	_, page := r.get("/health")
	var h healthReport
	r.program(&h)
	if h.Status != "ok" || !strings.HasSuffix(names(h), ", the books up, notes up") || !strings.Contains(names(h), "contabo up") {
		t.Errorf("%s: %s", h.Status, names(h))
	}
	contains(t, page, "All is well")
	for _, d := range h.Dependencies {
		contains(t, page, "</span>"+d.Name+" <small>", d.Says)
	}

	notes.State, notes.Says, notes.Since, notes.Cure = route.Down, "open ~/notes: no such file or directory", time.Now().Add(-time.Hour), "Mount the vault."
	_, page = r.get("/health")
	contains(t, page, "notes is down since", "Mount the vault.")
	r.program(&h)
	last := h.Dependencies[len(h.Dependencies)-1]
	if h.Status != "degraded" || last.State != route.Down || last.Says != notes.Says || last.Cure != notes.Cure || !last.Since.Equal(notes.Since) {
		t.Errorf("%s: %+v", h.Status, last)
	}
	w := httptest.NewRecorder()
	Vitals(Config{Router: r.Router, Ledger: r.ledger, DB: r.db, Dependencies: r.Config.Dependencies}).ServeHTTP(w, r.request("GET", "/health", nil))
	contains(t, w.Body.String(), `"status": "degraded"`, "Mount the vault.")
}

func TestHealthTellsLatencyAndWhatNobodyStarted(t *testing.T) {
	r := newRig(t)
	r.answered("q", "a")
	turn, x := r.ask("q")
	x.fail <- &llm.Error{Kind: llm.Overload, Message: "the queue is full"}
	r.end(turn.ID)
	var h struct {
		Providers map[string]struct {
			Usage struct{ Today map[string]any }
		}
	}
	r.program(&h)
	today := h.Providers["contabo"].Usage.Today
	if today["requests"] != 2.0 || today["busy"] != 1.0 || today["errors"] != 0.0 || today["mean_ms"] == nil {
		t.Errorf("%v", today)
	}
	if today = h.Providers["groq"].Usage.Today; today["requests"] != 0.0 || today["mean_ms"] != nil {
		t.Errorf("of nothing there is no mean: %v", today)
	}
}
