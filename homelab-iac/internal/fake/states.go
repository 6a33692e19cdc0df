package fake

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"
)

// A state is one of the project's Terraform states.
type state struct {
	versions [][]byte
	lock     string // its number, "" when it is free
	holder   string
	since    time.Time
	info     map[string]string
}

// State is a Terraform state as it was written last; nil where there is none.
func (g *GitLab) State(name string) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.states[name]; s != nil && len(s.versions) > 0 {
		return s.versions[len(s.versions)-1]
	}
	return nil
}

// Put writes a Terraform state past all locks, as somebody else would have.
func (g *GitLab) Put(name string, text []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.make(name)
	s.versions = append(s.versions, text)
}

// Locked says whose lock a state has, "" when it is free.
func (g *GitLab) Locked(name string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.states[name]; s != nil {
		return s.holder
	}
	return ""
}

func (g *GitLab) make(name string) *state {
	if g.states[name] == nil {
		g.states[name] = &state{}
	}
	return g.states[name]
}

// readState needs a developer, whatever is locked.
func (g *GitLab) readState(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Developer) {
		return
	}
	s := g.states[r.PathValue("name")]
	switch {
	case s == nil:
		refuse(w, http.StatusNotFound, "404 Not found")
	case len(s.versions) == 0: // it was locked and never written
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(s.versions[len(s.versions)-1])
	}
}

func (g *GitLab) stateVersion(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Developer) {
		return
	}
	n, err := strconv.Atoi(r.PathValue("n"))
	if s := g.states[r.PathValue("name")]; err == nil && s != nil {
		for _, text := range s.versions {
			var told struct {
				Serial int `json:"serial"`
			}
			if json.Unmarshal(text, &told) == nil && told.Serial == n {
				_, _ = w.Write(text)
				return
			}
		}
	}
	refuse(w, http.StatusNotFound, "404 Not found")
}

// holds says whether a request may change the state: the lock's number comes as ?ID=, and none where there is no lock.
func (s *state) holds(r *http.Request) bool { return r.URL.Query().Get("ID") == s.lock }

// writeState needs a maintainer and, while there is a lock, its number.
func (g *GitLab) writeState(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Maintainer) {
		return
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		return // the caller went away
	}
	var told struct {
		Serial  *int   `json:"serial"`
		Lineage string `json:"lineage"`
	}
	s := g.make(r.PathValue("name"))
	switch {
	case len(text) == 0:
		w.WriteHeader(http.StatusNoContent)
	case json.Unmarshal(text, &told) != nil || told.Serial == nil:
		answer(w, http.StatusBadRequest, map[string]string{"error": "serial is missing"})
	case !s.holds(r):
		refuse(w, http.StatusConflict, "409 Conflict")
	default:
		s.versions = append(s.versions, text)
		w.WriteHeader(http.StatusOK)
	}
}

func (g *GitLab) dropState(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Maintainer) {
		return
	}
	s := g.make(r.PathValue("name"))
	if !s.holds(r) {
		refuse(w, http.StatusConflict, "409 Conflict")
		return
	}
	delete(g.states, r.PathValue("name"))
	w.WriteHeader(http.StatusOK)
}

func (g *GitLab) lockState(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Maintainer) {
		return
	}
	var told map[string]string
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&told); err != nil || told["ID"] == "" {
		answer(w, http.StatusBadRequest, map[string]string{"error": "ID is missing"})
		return
	}
	s, status := g.make(r.PathValue("name")), http.StatusOK
	if s.lock != "" {
		status = http.StatusConflict
	} else {
		s.lock, s.holder, s.since, s.info = told["ID"], t.User, time.Now(), told
	}
	// Who asks for a lock that is taken is told whose it is, in the same form.
	answer(w, status, map[string]string{"ID": s.lock, "Operation": s.info["Operation"], "Info": s.info["Info"], "Who": s.holder,
		"Version": s.info["Version"], "Path": s.info["Path"], "Created": stamp(s.since)})
}

// unlockState frees a lock: with its number, or without any (that is terraform force-unlock).
func (g *GitLab) unlockState(w http.ResponseWriter, r *http.Request, t *Token) {
	if !may(w, t, Maintainer) {
		return
	}
	var told map[string]string
	_ = json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&told) // an empty body is allowed
	id := told["ID"]
	if v := r.URL.Query().Get("ID"); v != "" {
		id = v
	}
	s := g.make(r.PathValue("name"))
	if id != "" && id != s.lock {
		w.WriteHeader(http.StatusConflict)
		return
	}
	s.lock, s.holder = "", ""
	w.WriteHeader(http.StatusOK)
}
