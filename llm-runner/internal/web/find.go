package web

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
)

// A target is what the palette leads to.
type target struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // page, action, chat, note, job, project, agent, model
	Href  string `json:"href,omitempty"`
	Post  string `json:"post,omitempty"`  // where a form without fields is sent instead
	Model string `json:"model,omitempty"` // as it is asked for: chosen in place where a question is being written
}

// How many targets of one kind are listed, and in how many of the newest jobs a title is looked for.
const (
	findMost = 6
	findJobs = 500
)

// apiFind lists what has all words of q in its name, actions and pages first, and then conversations and notes that have them in
// their text; without q what one may want anyway. No model is asked.
func (s *Site) apiFind(w http.ResponseWriter, r *http.Request) error {
	all, err := s.find(r.Context(), strings.TrimSpace(r.FormValue("q")))
	if err != nil {
		return err
	}
	return writeJSON(w, all)
}

func (s *Site) find(ctx context.Context, q string) ([]target, error) {
	words := strings.Fields(strings.ToLower(q))
	out := []target{}
	named := func(t target) bool {
		name := strings.ToLower(t.Name)
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(name, word) })
	}
	offer := func(kind string, all ...target) {
		n := 0
		for _, t := range all {
			if n == findMost && kind != "page" || !named(t) {
				continue
			}
			t.Kind = kind
			out, n = append(out, t), n+1
		}
	}
	var pages, more []target
	for _, p := range s.places() {
		pages = append(pages, target{Name: p.Name, Href: p.Href})
	}
	actions := []target{{Name: "New chat", Href: "/"}}
	if s.Jobs != nil {
		actions = append(actions, target{Name: "New job", Href: "/jobs/new"})
	}
	if s.Inquiries != nil {
		pages = append(pages, target{Name: "How answers were found", Href: "/runs"})
	}
	if s.LogOut {
		actions = append(actions, target{Name: "Log out", Post: "/logout"})
	}
	offer("action", actions...)
	offer("page", pages...)

	chats, err := s.Chats.Chats(ctx, q, findMost)
	if err != nil {
		return nil, err
	}
	for _, c := range chats { // found by what was said as well
		out = append(out, target{Name: c.Title, Kind: "chat", Href: fmt.Sprintf("/chats/%d", c.ID)})
	}
	if q == "" {
		return out, nil
	}
	if s.Jobs != nil {
		all, err := s.Jobs.Jobs(ctx, jobs.Filter{Limit: findJobs})
		if err != nil {
			return nil, err
		}
		more = nil
		for _, j := range all {
			more = append(more, target{Name: j.Title, Href: fmt.Sprintf("/jobs/%d", j.ID)})
		}
		offer("job", more...)
	}
	if s.Progress != nil {
		board, err := s.Progress.Board(ctx)
		if err != nil {
			return nil, err
		}
		more = nil
		for i, row := range board.Rows {
			if i == 0 || board.Rows[i-1].Path != row.Path {
				more = append(more, target{Name: row.Project, Href: fmt.Sprintf("/progress#project-%d", len(more))})
			}
		}
		offer("project", more...)
	}
	if s.Agents != nil {
		all, _ := s.Agents.Load()
		more = nil
		for _, a := range all {
			more = append(more, target{Name: a.Title, Href: "/agents/" + a.Name})
		}
		offer("agent", more...)
	}
	if s.Library != nil {
		hits, err := s.Library.Find(ctx, library.Request{Query: q, Limit: 3 * findMost, Lane: library.Words})
		if err != nil {
			return nil, err
		}
		called, err := s.Library.Called(ctx, words, findMost)
		if err != nil {
			return nil, err
		}
		for _, h := range hits { // found by what they say as well
			if h.Collection != library.Memory {
				called = append(called, library.Name{Collection: h.Collection, Path: h.Path, Title: h.Title})
			}
		}
		seen := map[library.Name]bool{}
		for _, n := range called {
			at := library.Name{Collection: n.Collection, Path: n.Path}
			if seen[at] || len(seen) == findMost {
				continue
			}
			seen[at] = true
			t := target{Name: cmp.Or(n.Title, n.Path), Kind: "note"}
			if t.Href, _, _ = strings.Cut(notePath(n.Path, 0, 0, 0, ""), "?"); n.Collection != library.Notes {
				t.Href = documentLink(n.Collection, n.Path, 0, 0, 1, "")
			}
			out = append(out, t)
		}
	}
	more = nil
	for _, g := range s.models() {
		for _, m := range g.Models {
			more = append(more, target{Name: m.Label, Model: m.Name, Href: "/?model=" + url.QueryEscape(m.Name)})
		}
	}
	offer("model", more...)
	slices.SortStableFunc(out, func(a, b target) int { // what is called so stands before what says so
		switch x, y := named(a), named(b); {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	return out, nil
}
