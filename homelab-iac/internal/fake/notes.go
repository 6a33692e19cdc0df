package fake

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

type mergeRequest struct{ notes []*Note }

// A Note is one comment in a merge request.
type Note struct {
	ID      int64  `json:"id"`
	Body    string `json:"body"`
	Author  Author `json:"author"`
	Created string `json:"created_at"`
	Updated string `json:"updated_at"`
	System  bool   `json:"system"`
}

// An Author wrote a note.
type Author struct {
	ID       int64  `json:"id"`
	Username string `json:"username"`
}

// OpenRequest makes a merge request with a note that GitLab writes itself.
func (g *GitLab) OpenRequest(iid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests[iid] = &mergeRequest{}
	g.write(g.requests[iid], "ghost", "added 1 commit").System = true
}

// Write has somebody write a note.
func (g *GitLab) Write(iid int, user, body string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.write(g.requests[iid], user, body)
}

// Notes are all notes of a merge request, oldest first.
func (g *GitLab) Notes(iid int) (all []Note) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.requests[iid]; m != nil {
		for _, n := range m.notes {
			all = append(all, *n)
		}
	}
	return all
}

func (g *GitLab) write(m *mergeRequest, user, body string) *Note {
	g.nextID++
	now := stamp(time.Now())
	n := &Note{ID: g.nextID, Body: body, Author: Author{g.number(user), user}, Created: now, Updated: now}
	m.notes = append(m.notes, n)
	return n
}

// of finds the merge request that a path names.
func (g *GitLab) of(w http.ResponseWriter, r *http.Request) *mergeRequest {
	iid, err := strconv.Atoi(r.PathValue("iid"))
	if m := g.requests[iid]; err == nil && m != nil {
		return m
	}
	refuse(w, http.StatusNotFound, "404 Not found")
	return nil
}

func (g *GitLab) listNotes(w http.ResponseWriter, r *http.Request, _ *Token) {
	m := g.of(w, r)
	if m == nil {
		return
	}
	list := slices.Clone(m.notes)
	if r.URL.Query().Get("sort") != "asc" {
		slices.Reverse(list) // they are made in the order of their times
	}
	answer(w, http.StatusOK, page(w, r, list))
}

// text reads the body of a note and refuses what GitLab refuses.
func (g *GitLab) text(w http.ResponseWriter, r *http.Request) (string, bool) {
	var sent struct {
		Body *string `json:"body"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 8<<20)).Decode(&sent)
	switch {
	case err != nil || sent.Body == nil:
		answer(w, http.StatusBadRequest, map[string]string{"error": "body is missing"})
	case *sent.Body == "":
		answer(w, http.StatusBadRequest, map[string]string{"error": "body is empty"})
	case utf8.RuneCountInString(*sent.Body) > g.MaxNote:
		refuse(w, http.StatusBadRequest, "400 Bad request - Note {:note=>[\"is too long (maximum is "+strconv.Itoa(g.MaxNote)+" characters)\"]}")
	default:
		return *sent.Body, true
	}
	return "", false
}

func (g *GitLab) makeNote(w http.ResponseWriter, r *http.Request, t *Token) {
	m := g.of(w, r)
	if m == nil || !may(w, t, Reporter) {
		return
	}
	if text, ok := g.text(w, r); ok {
		answer(w, http.StatusCreated, g.write(m, t.User, text))
	}
}

// oneNote reads, changes or deletes a note. Others' notes are a maintainer's to change.
func (g *GitLab) oneNote(w http.ResponseWriter, r *http.Request, t *Token) {
	m := g.of(w, r)
	if m == nil {
		return
	}
	id, _ := strconv.ParseInt(r.PathValue("note"), 10, 64)
	i := slices.IndexFunc(m.notes, func(n *Note) bool { return n.ID == id })
	if i < 0 {
		refuse(w, http.StatusNotFound, "404 Not found")
		return
	}
	n := m.notes[i]
	if r.Method != http.MethodGet && (n.System || n.Author.Username != t.User && !may(w, t, Maintainer)) {
		if n.System {
			refuse(w, http.StatusForbidden, "403 Forbidden")
		}
		return
	}
	switch r.Method {
	case http.MethodPut:
		text, ok := g.text(w, r)
		if !ok {
			return
		}
		n.Body, n.Updated = text, stamp(time.Now())
	case http.MethodDelete:
		m.notes = slices.Delete(m.notes, i, i+1)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, http.StatusOK, n)
}
