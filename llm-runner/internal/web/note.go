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
)

// notePage is a note as it is written, with its lines numbered and a passage marked.
type notePage struct {
	Path   string
	Folder string
	Name   string
	Lines  []noteLine
	From   int // first line of the passage, 1-based; 0: none is marked
	To     int
	Gone   bool // a passage was asked for that the note no longer has room for
}

// noteLine is one line in three pieces, of which Marked belongs to the passage.
type noteLine struct {
	Number                int
	Before, Marked, After string
	Hit                   bool
	Heading               bool
}

// notePath returns the address of the bytes [from, to) of a note.
func notePath(name string, from, to, line int) string {
	escaped := strings.Split(name, "/")
	for i, part := range escaped {
		escaped[i] = url.PathEscape(part)
	}
	return fmt.Sprintf("/notes/%s?from=%d&to=%d#L%d", strings.Join(escaped, "/"), from, to, line)
}

func (s *Site) note(w http.ResponseWriter, r *http.Request) error {
	missing := problem{http.StatusNotFound, "There is no such note", "It may have been renamed or deleted since it was cited."}
	name := r.PathValue("path")
	if s.Note == nil || !fs.ValidPath(name) {
		return missing
	}
	text, err := s.Config.Note(r.Context(), name)
	if errors.Is(err, fs.ErrNotExist) {
		return missing
	}
	if err != nil {
		return err
	}
	from, err1 := strconv.Atoi(r.FormValue("from"))
	to, err2 := strconv.Atoi(r.FormValue("to"))
	if err1 != nil || err2 != nil {
		from, to = 0, 0
	}
	p := notePage{Path: name, Folder: strings.TrimSuffix(path.Dir(name), "."), Name: strings.TrimSuffix(path.Base(name), path.Ext(name))}
	p.mark(text, from, to)
	return s.show(w, r, "note", frame{Title: p.Name, Nav: "note", Page: p})
}

// mark cuts a note into lines and marks the bytes [from, to) in them.
func (p *notePage) mark(text []byte, from, to int) {
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

func clean(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
