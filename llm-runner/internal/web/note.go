package web

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/library"
)

// notePage is a note as it is written, with its lines numbered and a passage marked.
type notePage struct {
	Path   string
	Folder string
	Name   string
	Title  string   // of a document that is no file; "" its name
	URL    string   // where it came from, if that can be opened; ""
	Read   string   // what it was read out of: "pdf"; "" it is shown as it is
	Never  bool     // no cloud provider sees it
	Says   []string // what could not be read
	Lines  []noteLine
	From   int // first line of the passage, 1-based; 0: none is marked
	To     int
	Gone   bool // a passage was asked for that the note no longer has
	Moved  bool // it stands elsewhere than when it was cited
}

// noteLine is one line in three pieces, of which Marked belongs to the passage.
type noteLine struct {
	Number                int
	Before, Marked, After string
	Hit                   bool
	Heading               bool
	Page                  int // that begins here; 0 none does
}

// notePath returns the address of the bytes [from, to) of a note, which are quote; "" they are whatever stands there.
func notePath(name string, from, to, line int, quote string) string {
	escaped := strings.Split(name, "/")
	for i, part := range escaped {
		escaped[i] = url.PathEscape(part)
	}
	is := ""
	if quote != "" {
		is = "&is=" + seal([]byte(quote))
	}
	return fmt.Sprintf("/notes/%s?from=%d&to=%d%s#L%d", strings.Join(escaped, "/"), from, to, is, line)
}

// rolling is the base of the hash that seals a passage in its address: what is marked there later is what was cited, or nothing. A hash
// that rolls finds it again where text before it has changed. It guards against changes, not against those who mean harm.
const rolling = 0x100000001b3

func hash(text []byte) (h uint64) {
	for _, c := range text {
		h = h*rolling + uint64(c) + 1
	}
	return h
}

func seal(quote []byte) string { return strconv.FormatUint(hash(quote), 36) }

// sealed returns where n bytes begin that have a seal: the nearest to near; -1 nowhere.
func sealed(text []byte, n, near int, is string) int {
	want, err := strconv.ParseUint(is, 36, 64)
	if err != nil || n <= 0 || n > len(text) {
		return -1
	}
	best, first := -1, uint64(1) // what the first byte of n is multiplied by
	for range n - 1 {
		first *= rolling
	}
	h := hash(text[:n])
	for at := 0; ; at++ {
		if h == want && (best < 0 || max(at-near, near-at) < max(best-near, near-best)) {
			best = at
		}
		if at+n == len(text) {
			return best
		}
		h = (h-first*(uint64(text[at])+1))*rolling + uint64(text[at+n]) + 1
	}
}

func (s *Site) note(w http.ResponseWriter, r *http.Request) error {
	return s.showNote(w, r, library.Notes, r.PathValue("path"))
}

// read returns a document, with nothing but its text where there is no library.
func (s *Site) read(r *http.Request, collection, name string) (library.Note, error) {
	if s.Library != nil {
		return s.Library.Document(r.Context(), collection, name)
	}
	if s.Note == nil || collection != library.Notes {
		return library.Note{}, fs.ErrNotExist
	}
	text, err := s.Config.Note(r.Context(), name)
	return library.Note{Collection: collection, Path: name, Text: text}, err
}

// showNote shows a document as it is written, or what was read out of it.
func (s *Site) showNote(w http.ResponseWriter, r *http.Request, collection, name string) error {
	missing := problem{http.StatusNotFound, "There is no such note", "It may have been renamed or deleted since it was cited."}
	if collection == library.Notes && !fs.ValidPath(name) {
		return missing
	}
	n, err := s.read(r, collection, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing
	case errors.Is(err, library.ErrChanged):
		return problem{http.StatusConflict, "The file has changed", "It is being read again. Load this page once more in a moment."}
	case err != nil:
		return err
	}
	from, err1 := strconv.Atoi(r.FormValue("from"))
	to, err2 := strconv.Atoi(r.FormValue("to"))
	if err1 != nil || err2 != nil {
		from, to = 0, 0
	}
	p := notePage{Path: name, Folder: strings.TrimSuffix(path.Dir(name), "."), Name: strings.TrimSuffix(path.Base(name), path.Ext(name))}
	if n.Extracted {
		p.Read = string(extract.ByName(name))
		if p.Read == "" {
			p.Read = "document"
		}
	}
	p.Says = n.Remarks
	if s.Library != nil {
		p.Never = s.Library.NeverSent(collection, name)
	}
	if collection != library.Notes {
		p.Folder, p.Name, p.Title = collection, name, n.Title
		if strings.HasPrefix(n.URL, "https://") || strings.HasPrefix(n.URL, "http://") {
			p.URL = n.URL
		}
	}
	p.mark(n.Text, from, to, r.FormValue("is"))
	p.number(n.Text, n.Pages)
	return s.show(w, r, "note", frame{Title: p.Name, Nav: "note", Page: p})
}

// mark cuts a note into lines and marks the bytes [from, to) in them, or where those are now that have the seal is.
func (p *notePage) mark(text []byte, from, to int, is string) {
	if is != "" && to > from {
		at := sealed(text, to-from, from, is)
		p.Moved = at >= 0 && at != from
		if at < 0 {
			at = len(text) // nowhere
		}
		from, to = at, at+to-from
	}
	if from < 0 || to <= from || to > len(text) {
		p.Gone = to > from
		from, to = 0, 0
	}
	offset, fenced := 0, false
	for i, line := range bytes.SplitAfter(text, []byte("\n")) {
		if len(line) == 0 {
			break
		}
		end := offset + len(bytes.TrimRight(line, "\r\n"))
		a, b := min(max(from, offset), end), min(max(to, offset), end)
		x := noteLine{Number: i + 1, Before: clean(text[offset:a]), Marked: clean(text[a:b]), After: clean(text[b:end])}
		x.Hit = from < to && from < offset+len(line) && to > offset
		if bytes.HasPrefix(line, []byte("```")) {
			fenced = !fenced
		}
		x.Heading = !fenced && line[0] == '#' && bytes.HasPrefix(bytes.TrimLeft(line, "#"), []byte(" "))
		if x.Hit {
			if p.From == 0 {
				p.From = x.Number
			}
			p.To = x.Number
		}
		p.Lines = append(p.Lines, x)
		offset += len(line)
	}
}

// number tells the lines at which pages begin.
func (p *notePage) number(text []byte, pages []int) {
	offset, at := 0, 0
	for i, line := range bytes.SplitAfter(text, []byte("\n")) {
		if i >= len(p.Lines) {
			return
		}
		for at < len(pages) && pages[at] < offset+len(line) {
			at++
			p.Lines[i].Page = at
		}
		offset += len(line)
	}
}

func clean(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
