package web

import (
	"net/http"
	"time"

	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// apiRoute says who would answer now, and why: a route.Decision.
func (s *Site) apiRoute(w http.ResponseWriter, r *http.Request) error {
	d := s.Router.Decide(route.Ask{Model: r.FormValue("model"), Project: yes(r.FormValue("project")), Requires: r.FormValue("requires")})
	return writeJSON(w, d)
}

// yes reads a flag of a query: "", "0", "false", "no" and "off" are no.
func yes(s string) bool {
	switch s {
	case "", "0", "false", "no", "off":
		return false
	}
	return true
}

// apiModels lists what can be asked for, the default first: a route.Listing.
func (s *Site) apiModels(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, s.Router.Listing())
}

// apiUsage is the books: today from memory, the last days from the ledger.
func (s *Site) apiUsage(w http.ResponseWriter, r *http.Request) error {
	days, err := usage.Days(r.Context(), s.DB, midnight(time.Now()).AddDate(0, 0, 1-usageDays))
	if err != nil {
		return err
	}
	return writeJSON(w, struct {
		Today map[string]usage.Totals `json:"today"`
		Days  []usage.Day             `json:"days"`
	}{s.Ledger.Today(), days})
}

// apiChats searches conversations, for other programs.
func (s *Site) apiChats(w http.ResponseWriter, r *http.Request) error {
	all, err := s.Chats.Chats(r.Context(), r.FormValue("q"), 20)
	if err != nil {
		return err
	}
	type found struct {
		ID    int64  `json:"id"`
		Title string `json:"title"`
	}
	out := []found{}
	for _, c := range all {
		out = append(out, found{c.ID, c.Title})
	}
	return writeJSON(w, out)
}
