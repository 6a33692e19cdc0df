package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/sse"
)

// libraryPage is the search over the notes and the state of their index.
type libraryPage struct {
	Query string
	Says  string // how many were found, in words
	Hits  []libraryHit
	How   []string // what was sought where, and what was left out
	libraryState
	Skipped  []library.Skip
	Partly   []library.Skip
	Excluded []string
	Never    []library.NeverSend

	Documents []libraryDocument
	More      int // documents that are not listed
}

// libraryState is how far the index is: what a page follows.
type libraryState struct {
	State    string // of the index, in one sentence
	Error    string
	Reading  string // the document that is read now
	Progress int    // percent of the notes, while they are read for the first time
	Meaning  string // how far the lane of meaning is, in one sentence
	Behind   string // which notes it lacks
	Known    int    // percent of the notes that have vectors, while they are made
}

func newLibraryState(st library.Status) libraryState {
	x := libraryState{State: st.Sentence() + ".", Error: st.Error, Reading: st.Reading, Meaning: st.Meaning.Sentence(), Behind: st.Meaning.Missing()}
	if st.Synced.IsZero() && st.Found > 0 {
		x.Progress = 100 * st.Notes / st.Found
	}
	if m := st.Meaning; m.Notes < m.Of {
		x.Known = max(1, 100*m.Notes/m.Of)
	}
	return x
}

// librarySeen is what a page of the library shows, as far as one has to know to see that it has changed.
type librarySeen struct {
	libraryState
	changes        int64
	partly, others string
}

func (s *Site) librarySeen() librarySeen {
	st := s.Library.Status()
	return librarySeen{newLibraryState(st), st.Changes, fmt.Sprint(st.Partly), fmt.Sprint(s.Library.Excluded(), st.NeverSend)}
}

// libraryEvents tells a page that what it shows has changed: "change", at most twice a second.
func (s *Site) libraryEvents(w http.ResponseWriter, r *http.Request) error {
	return s.stream(w, r, func(ctx context.Context, out *sse.Writer, sent func() error) error {
		still, look := time.NewTicker(15*time.Second), time.NewTicker(500*time.Millisecond)
		defer still.Stop()
		defer look.Stop()
		was := s.librarySeen()
		for {
			if err := sent(); err != nil {
				return err
			}
			select {
			case <-look.C:
				now := s.librarySeen()
				if now == was {
					continue
				}
				was = now
				if err := out.Event("change", -1, []byte("{}")); err != nil {
					return err
				}
			case <-still.C:
				if err := out.Comment("still here"); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
}

// libraryDocument is a document that is no file of the vault, in the page's list.
type libraryDocument struct {
	library.Stored
	Href string
}

// documentsMost is how many documents the page lists.
const documentsMost = 50

type libraryHit struct {
	Href, Path, Title string
	Trail             []string
	Line, Page        int
	Pieces            []libraryPiece
	Why               string
}

type libraryPiece struct {
	Text   string
	Marked bool
}

// searchMost is how many passages a search shows.
const searchMost = 20

func (s *Site) libraryPage(w http.ResponseWriter, r *http.Request) error {
	st := s.Library.Status()
	p := libraryPage{Query: strings.TrimSpace(r.FormValue("q")), libraryState: newLibraryState(st), Skipped: st.Skipped, Excluded: s.Library.Excluded(),
		Partly: st.Partly, Never: st.NeverSend}
	stored, err := s.Library.Documents(r.Context(), "")
	if err != nil {
		return err
	}
	stored = slices.DeleteFunc(stored, func(d library.Stored) bool { return d.Collection == library.Memory }) // it has a page of its own
	for _, d := range stored[:min(len(stored), documentsMost)] {
		p.Documents = append(p.Documents, libraryDocument{d, documentLink(d.Collection, d.Path, 0, 0, 1, "")})
	}
	p.More = len(stored) - len(p.Documents)
	if p.Query != "" {
		result, err := s.Library.Explain(r.Context(), library.Request{Query: p.Query, Limit: searchMost})
		if err != nil {
			return err
		}
		shown := library.Show(result)
		p.How = shown.Sentences()
		for _, h := range shown.Found {
			p.Hits = append(p.Hits, newLibraryHit(h))
		}
		switch p.Says = fmt.Sprintf("%d passages, the best first.", len(p.Hits)); len(p.Hits) {
		case 0:
			p.Says = "Nothing is found. Try other words, or fewer."
		case 1:
			p.Says = "One passage."
		case searchMost:
			p.Says = fmt.Sprintf("The best %d passages.", searchMost)
		}
	}
	return s.show(w, r, "library", frame{Title: "Library", Nav: "library", Page: p})
}

func newLibraryHit(h library.Found) libraryHit {
	x := libraryHit{Path: h.Path, Title: h.Title, Trail: h.Heading, Line: h.Line, Page: h.Page, Href: notePath(h.Path, h.Start, h.End, h.Line, h.Quote), Why: h.Why.Sentence()}
	if h.Collection != library.Notes {
		x.Path, x.Href = h.Collection+": "+h.Path, documentLink(h.Collection, h.Path, h.Start, h.End, h.Line, h.Quote)
	}
	at := 0
	for _, m := range h.Snippet.Matches {
		x.Pieces = append(x.Pieces, libraryPiece{h.Snippet.Text[at:m.Start], false}, libraryPiece{h.Snippet.Text[m.Start:m.End], true})
		at = m.End
	}
	x.Pieces = append(x.Pieces, libraryPiece{h.Snippet.Text[at:], false})
	return x
}

func (s *Site) reindexForm(w http.ResponseWriter, r *http.Request) error {
	s.Library.Anew()
	http.Redirect(w, r, "/library", http.StatusSeeOther)
	return nil
}

func (s *Site) excludeForm(do func(context.Context, string) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := do(r.Context(), r.FormValue("pattern")); err != nil {
			return problem{http.StatusUnprocessableEntity, "That pattern cannot be used", err.Error() + "."}
		}
		http.Redirect(w, r, "/library", http.StatusSeeOther)
		return nil
	}
}

// apiLibraryState is the answer of GET /api/library.
type apiLibraryState struct {
	library.Status
	Excluded []string `json:"excluded"`
}

func (s *Site) apiLibrary(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, apiLibraryState{s.Library.Status(), append([]string{}, s.Library.Excluded()...)})
}

func (s *Site) apiSearch(w http.ResponseWriter, r *http.Request) error {
	limit := 10
	if text := r.FormValue("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			return problem{http.StatusBadRequest, "That is no limit", fmt.Sprintf("limit: %q is not a number from 1 to 100", text)}
		}
		limit = n
	}
	result, err := s.Library.Explain(r.Context(), library.Request{Query: r.FormValue("q"), Limit: limit})
	if err != nil {
		return err
	}
	return writeJSON(w, library.Show(result))
}

func (s *Site) apiReindex(w http.ResponseWriter, r *http.Request) error {
	s.Library.Anew()
	return s.apiLibrary(w, r)
}

func (s *Site) apiExclude(do func(context.Context, string) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var asked struct {
			Pattern string `json:"pattern"`
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &asked)
		}
		if err == nil {
			err = do(r.Context(), asked.Pattern)
		}
		if err != nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			return json.NewEncoder(w).Encode(map[string]apiError{"error": {Message: err.Error()}})
		}
		return s.apiLibrary(w, r)
	}
}
