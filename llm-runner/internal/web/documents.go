package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"

	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
)

// documentLink is notePath for a document that is no file of the vault.
func documentLink(collection, name string, from, to, line int, quote string) string {
	q := url.Values{"path": {name}, "from": {fmt.Sprint(from)}, "to": {fmt.Sprint(to)}}
	if quote != "" {
		q.Set("is", seal([]byte(quote)))
	}
	return fmt.Sprintf("/documents/%s?%s#L%d", url.PathEscape(collection), q.Encode(), line)
}

// noteLink returns the address of a citation's passage.
func noteLink(c llm.Citation) string {
	if c.Collection != "" && c.Collection != library.Notes {
		return documentLink(c.Collection, c.Path, c.Start, c.End, c.Line, c.Quote)
	}
	return notePath(c.Path, c.Start, c.End, c.Line, c.Quote)
}

// documentRoutes are those of documents that are handed in. Their bodies are larger than forms are.
func (s *Site) documentRoutes(mux *http.ServeMux, page func(string, func(http.ResponseWriter, *http.Request) error)) {
	large := func(pattern string, fail func(http.ResponseWriter, *http.Request, error), h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, extract.MaxFile+1<<20)
			if err := h(w, r); err != nil {
				fail(w, r, err)
			}
		})
	}
	page("GET /documents/{collection}", s.document)
	page("POST /library/forget", s.forgetForm)
	large("POST /library/documents", s.fail, s.uploadForm)
	large("POST /api/library/documents", s.documentFail, s.apiUpload)
	large("GET /api/library/documents", s.documentFail, s.apiDocuments)
	large("DELETE /api/library/documents", s.documentFail, s.apiForget)
}

// A refused document: why, for whoever handed it in.
type refused struct{ error }

// remembersItself is why documents of memory are not changed one by one.
const remembersItself = "what is remembered is changed on the Memory page, and under /api/memory"

// upload reads what was handed in: a form with files, or one document as the body with its name in the query.
func (s *Site) upload(r *http.Request) (all []library.Stored, err error) {
	collection := r.URL.Query().Get("collection")
	if collection == "" {
		collection = library.Uploads
	}
	if collection == library.Memory {
		return nil, refused{errors.New(remembersItself)}
	}
	add := func(u library.Upload, body io.Reader) error {
		data, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		u.Data = data
		if u.Name = strings.TrimSpace(u.Name); u.Name == "" {
			return refused{errors.New("the document has no name: give one that its kind can be seen by, such as ?name=boiler.pdf")}
		}
		stored, err := s.Library.Add(r.Context(), collection, u)
		if err != nil {
			if unwrittenStatus, _ := unwritten(err); unwrittenStatus != 0 || r.Context().Err() != nil {
				return err
			}
			return refused{err}
		}
		all = append(all, stored)
		return nil
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) //nolint:errcheck // it is a hint
	if media != "multipart/form-data" {
		q := r.URL.Query()
		return all, add(library.Upload{Name: q.Get("name"), Title: q.Get("title"), URL: q.Get("url"), Media: media}, r.Body)
	}
	form, err := r.MultipartReader()
	if err != nil {
		return nil, refused{fmt.Errorf("the form cannot be read: %w", err)}
	}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return all, err
		}
		name := path.Base(strings.ReplaceAll(part.FileName(), `\`, "/"))
		if part.FileName() == "" {
			continue
		}
		if err := add(library.Upload{Name: name, Media: part.Header.Get("Content-Type")}, part); err != nil {
			return all, err
		}
	}
	if len(all) == 0 {
		return nil, refused{errors.New("no file was chosen")}
	}
	return all, nil
}

func (s *Site) uploadForm(w http.ResponseWriter, r *http.Request) error {
	_, err := s.upload(r)
	var why refused
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return problem{http.StatusRequestEntityTooLarge, "That document is too large", fmt.Sprintf("It may have %d MB. Nothing of it was kept.", extract.MaxFile>>20)}
	case errors.As(err, &why):
		return problem{http.StatusUnprocessableEntity, "That document cannot be read", upper(why.Error()) + ". Nothing of it was kept."}
	case err != nil:
		return err
	}
	http.Redirect(w, r, "/library#documents", http.StatusSeeOther)
	return nil
}

func (s *Site) forgetForm(w http.ResponseWriter, r *http.Request) error {
	if r.FormValue("collection") == library.Memory {
		return problem{http.StatusUnprocessableEntity, "That is not removed here", upper(remembersItself) + "."}
	}
	if err := s.Library.Forget(r.Context(), r.FormValue("collection"), r.FormValue("path")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	http.Redirect(w, r, "/library#documents", http.StatusSeeOther)
	return nil
}

func (s *Site) apiUpload(w http.ResponseWriter, r *http.Request) error {
	all, err := s.upload(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	return json.NewEncoder(w).Encode(map[string]any{"documents": all})
}

func (s *Site) apiDocuments(w http.ResponseWriter, r *http.Request) error {
	all, err := s.Library.Documents(r.Context(), r.URL.Query().Get("collection"))
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"documents": all})
}

func (s *Site) apiForget(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	collection := q.Get("collection")
	if collection == "" {
		collection = library.Uploads
	}
	if collection == library.Memory {
		return refused{errors.New(remembersItself)}
	}
	if err := s.Library.Forget(r.Context(), collection, q.Get("path")); err != nil {
		return err
	}
	return s.apiDocuments(w, r)
}

// documentFail tells programs what is wrong.
func (s *Site) documentFail(w http.ResponseWriter, r *http.Request, err error) {
	var why refused
	var large *http.MaxBytesError
	status, says := http.StatusInternalServerError, "something went wrong in here; the log has the details"
	switch {
	case errors.Is(err, errGone), r.Context().Err() != nil:
		return
	case errors.As(err, &large):
		status, says = http.StatusRequestEntityTooLarge, fmt.Sprintf("the document is larger than %d MB", extract.MaxFile>>20)
	case errors.As(err, &why):
		status, says = http.StatusUnprocessableEntity, why.Error()
	case errors.Is(err, fs.ErrNotExist):
		status, says = http.StatusNotFound, err.Error()
	default:
		if known, text := unwritten(err); known != 0 {
			status, says = known, text
		} else {
			s.log.Error("serve documents", "path", r.URL.Path, "error", err)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]apiError{"error": {Message: says}}) //nolint:errcheck // the reader has left
}

// document shows a document that is no file of the vault, a passage marked.
func (s *Site) document(w http.ResponseWriter, r *http.Request) error {
	return s.showNote(w, r, r.PathValue("collection"), r.FormValue("path"))
}
