package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/memory"
)

// memoryRoutes are the page of what is remembered, its forms, and their JSON.
func (s *Site) memoryRoutes(mux *http.ServeMux, page func(string, func(http.ResponseWriter, *http.Request) error)) {
	page("GET /memory", s.memoryPage)
	page("POST /memory/learn", s.learnForm)
	page("POST /memory/undo", s.memoryForm(func(r *http.Request) error {
		_, err := s.Memory.Undo(r.Context(), formNumber(r, "fact"))
		return err
	}))
	page("POST /memory/add", s.memoryForm(func(r *http.Request) error {
		_, err := s.Memory.Add(r.Context(), r.FormValue("text"))
		return err
	}))
	page("POST /memory/facts/{id}/edit", s.memoryForm(func(r *http.Request) error {
		_, err := s.Memory.Edit(r.Context(), pathNumber(r), r.FormValue("text"))
		return err
	}))
	page("POST /memory/facts/{id}/forget", s.memoryForm(func(r *http.Request) error { return s.Memory.Forget(r.Context(), pathNumber(r)) }))
	page("POST /memory/conflicts/{id}", s.memoryForm(func(r *http.Request) error {
		return s.Memory.Resolve(r.Context(), pathNumber(r), r.FormValue("holds"))
	}))

	api := func(pattern string, h func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			out, err := h(r)
			if err == nil {
				err = writeJSON(w, out)
			}
			if err != nil {
				s.memoryFail(w, r, err)
			}
		})
	}
	type told struct {
		Text  string `json:"text"`
		Fact  int64  `json:"fact"`
		Holds string `json:"holds"`
		Run   string `json:"run"`
	}
	asked := func(r *http.Request) (t told, err error) {
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&t); err != nil {
			return t, problem{http.StatusBadRequest, "Not what is expected", "the body is not the JSON that is expected here: " + strings.TrimPrefix(err.Error(), "json: ")}
		}
		return t, nil
	}
	api("GET /api/memory", s.apiMemory)
	api("GET /api/memory/facts/{id}", func(r *http.Request) (any, error) { return s.Memory.One(r.Context(), pathNumber(r)) })
	api("POST /api/memory/facts", func(r *http.Request) (any, error) {
		t, err := asked(r)
		if err != nil {
			return nil, err
		}
		return s.Memory.Add(r.Context(), t.Text)
	})
	api("POST /api/memory/facts/{id}", func(r *http.Request) (any, error) {
		t, err := asked(r)
		if err != nil {
			return nil, err
		}
		return s.Memory.Edit(r.Context(), pathNumber(r), t.Text)
	})
	api("DELETE /api/memory/facts/{id}", func(r *http.Request) (any, error) {
		return map[string]bool{"forgotten": true}, s.Memory.Forget(r.Context(), pathNumber(r))
	})
	api("POST /api/memory/undo", func(r *http.Request) (any, error) {
		t, err := asked(r)
		if err != nil {
			return nil, err
		}
		return s.Memory.Undo(r.Context(), t.Fact)
	})
	api("POST /api/memory/conflicts/{id}", func(r *http.Request) (any, error) {
		t, err := asked(r)
		if err != nil {
			return nil, err
		}
		return map[string]string{"holds": t.Holds}, s.Memory.Resolve(r.Context(), pathNumber(r), t.Holds)
	})
	api("POST /api/memory/learn", func(r *http.Request) (any, error) {
		t, err := asked(r)
		if err != nil {
			return nil, err
		}
		return s.Memory.Learn(r.Context(), t.Run)
	})
}

func pathNumber(r *http.Request) int64 {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64) //nolint:errcheck // there is no fact 0
	return id
}

func formNumber(r *http.Request, name string) int64 {
	id, _ := strconv.ParseInt(r.FormValue(name), 10, 64) //nolint:errcheck // 0 names none
	return id
}

// A lesson is a reading of conversations that somebody began on the page.
type lesson struct {
	mu   sync.Mutex
	busy bool
	says string // of the last one
	bad  bool
	at   time.Time
}

// learnForm begins to read, and does not wait for it.
func (s *Site) learnForm(w http.ResponseWriter, r *http.Request) error {
	l := &s.lesson
	l.mu.Lock()
	began := !l.busy
	l.busy = true
	l.mu.Unlock()
	if began {
		go func() {
			report, err := s.Memory.Learn(s.drain, "page")
			l.mu.Lock()
			defer l.mu.Unlock()
			l.busy, l.at, l.says, l.bad = false, time.Now(), report.Sentence(), err != nil
			if err != nil {
				l.says = upper(err.Error()) + ". What was read before is kept."
			}
		}()
	}
	back(w, r, "/memory")
	return nil
}

type memoryPage struct {
	Off       bool
	Busy      bool
	Says      string
	Bad       bool
	At        time.Time
	Query     string
	Conflicts []memory.Conflict
	Facts     []memory.Fact
	All       int // current ones
	History   []memory.Fact
	Undoable  bool
}

func (s *Site) memoryPage(w http.ResponseWriter, r *http.Request) error {
	p := memoryPage{Off: s.Memory.Off, Query: strings.TrimSpace(r.FormValue("q"))}
	all, err := s.Memory.List(r.Context(), "")
	if err != nil {
		return err
	}
	if p.Conflicts, err = s.Memory.Conflicts(r.Context()); err != nil {
		return err
	}
	for _, f := range all {
		if f.State == memory.Current {
			p.All++
		}
		switch hit := strings.Contains(strings.ToLower(f.Text), strings.ToLower(p.Query)); {
		case !hit:
		case f.State == memory.Current:
			p.Facts = append(p.Facts, f)
		default:
			p.History = append(p.History, f)
		}
	}
	p.Undoable = len(all) > 0
	s.lesson.mu.Lock()
	p.Busy, p.Says, p.Bad, p.At = s.lesson.busy, s.lesson.says, s.lesson.bad, s.lesson.at
	s.lesson.mu.Unlock()
	return s.show(w, r, "memory", frame{Title: "Memory", Nav: "memory", Refresh: reload(p.Busy), Page: p})
}

// memoryForm answers a form of the page.
func (s *Site) memoryForm(do func(*http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := do(r); err != nil {
			if status, says := memoryProblem(err); status != 0 {
				return problem{status, "That is not possible", upper(says) + "."}
			}
			return err
		}
		to := "/memory"
		if id := pathNumber(r); id != 0 && strings.HasSuffix(r.URL.Path, "/edit") {
			to += fmt.Sprintf("#f%d", id)
		}
		back(w, r, to)
		return nil
	}
}

// memoryProblem says what an error of package memory means; 0: something is broken.
func memoryProblem(err error) (status int, says string) {
	var refused *memory.RefusedError
	var busy *llm.BusyError
	switch {
	case errors.As(err, &refused):
		return http.StatusUnprocessableEntity, refused.Error()
	case errors.Is(err, memory.ErrNotFound):
		return http.StatusNotFound, err.Error()
	case errors.Is(err, memory.ErrNothing):
		return http.StatusConflict, err.Error()
	case errors.As(err, &busy):
		return http.StatusServiceUnavailable, err.Error()
	}
	return unwritten(err)
}

func (s *Site) memoryFail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errGone) || r.Context().Err() != nil {
		return
	}
	status, says := memoryProblem(err)
	var told problem
	switch {
	case errors.As(err, &told):
		status, says = told.Status, told.Says
	case status == 0:
		s.log.Error("serve memory", "path", r.URL.Path, "error", err)
		status, says = http.StatusInternalServerError, err.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]apiError{"error": {Message: says}}) //nolint:errcheck // the reader has left
}

// apiMemory lists facts and open contradictions: ?state= current, superseded or undone; all without.
func (s *Site) apiMemory(r *http.Request) (any, error) {
	state := memory.State(r.FormValue("state"))
	switch state {
	case "", memory.Current, memory.Superseded, memory.Undone:
	default:
		return nil, problem{http.StatusBadRequest, "No such state", fmt.Sprintf("state: %q is none: write current, superseded or undone, or leave it out", state)}
	}
	facts, err := s.Memory.List(r.Context(), state)
	if err != nil {
		return nil, err
	}
	open, err := s.Memory.Conflicts(r.Context())
	return map[string]any{"facts": facts, "conflicts": open, "on": !s.Memory.Off}, err
}

// recalled is a fact that an answer was told, as the line under it shows it.
type recalled struct {
	Text string // "": it was forgotten since
	Href string
}

// remembered are the facts that an answer was told.
func (s *Site) remembered(t *chat.Turn) []recalled {
	if s.Memory == nil || len(t.Remembered) == 0 {
		return nil
	}
	ids := make([]int64, len(t.Remembered))
	for i, r := range t.Remembered {
		ids[i] = r.Fact
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	facts, err := s.Memory.Some(ctx, ids)
	if err != nil {
		s.log.Warn("read what an answer was told", "turn", t.ID, "error", err)
		return nil
	}
	out := make([]recalled, len(ids))
	for i, id := range ids {
		if f, ok := facts[id]; ok {
			out[i] = recalled{f.Text, fmt.Sprintf("/memory#f%d", id)}
		}
	}
	return out
}
