package library

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A Note is a document of the library, for the page that shows it.
type Note struct {
	Collection string
	Path       string
	Title      string
	URL        string // where it came from; "" it is a file
	Text       []byte // what is quoted are bytes of it
	// Extracted says that the document itself is something else: Text was read out of it.
	Extracted bool
	Pages     []int // bytes of Text at which pages begin; nil: it has none
	Remarks   []string
}

// Note reads a note of the vault. A path that cannot be of a note (with "..", hidden, of no format that is read) is fs.ErrNotExist; a link
// that leads out of the tree is an error too.
func (l *Library) Note(ctx context.Context, path string) (Note, error) {
	return l.Document(ctx, Notes, path)
}

// Document reads a document of any collection. One that is not there is fs.ErrNotExist, and so is a file whose text was read out of
// other bytes than it has now: ErrChanged.
func (l *Library) Document(ctx context.Context, collection, path string) (n Note, err error) {
	if collection == "" {
		collection = Notes
	}
	if collection != Notes {
		n, err = l.stored(ctx, collection, path)
	} else {
		var t tree
		var done func() error
		if t, done, err = l.source.open(); err == nil {
			defer done() //nolint:errcheck // it was only read
			n, err = l.file(ctx, t, path)
		}
	}
	if err != nil {
		return Note{}, fmt.Errorf("read note: %w", err)
	}
	if n.Title == "" {
		n.Title = Split(path, n.Text).Title
	}
	return n, nil
}

// stored reads a document that was put.
func (l *Library) stored(ctx context.Context, collection, path string) (Note, error) {
	x, err := l.documents.One(ctx, collection, path)
	return Note{Collection: collection, Path: path, Title: x.Title, URL: x.URL, Text: x.Text, Pages: x.Pages, Remarks: x.Remarks,
		Extracted: x.Format != "" && x.Format != extract.Markdown && x.Format != extract.Plain}, err
}

// ErrChanged says that a file is not the one any more that its text was read out of.
var ErrChanged = errors.New("the file has changed since it was read, and is read again soon")

// file reads a note of the source: its bytes, or the text that was read out of these very bytes.
func (l *Library) file(ctx context.Context, t tree, path string) (Note, error) {
	bytes, err := l.source.read(t, path)
	if err != nil {
		return Note{}, err
	}
	n := Note{Collection: Notes, Path: path, Text: bytes}
	if !isDocument(path) {
		return n, nil
	}
	n.Extracted = true
	hash := sha256.Sum256(bytes)
	var was []byte
	if was, err = readExtracted(ctx, l.db, &n); err != nil {
		return Note{}, err
	}
	if string(was) != string(hash[:]) {
		l.nudge()
		return Note{}, fmt.Errorf("%s: %w", path, ErrChanged)
	}
	return n, nil
}

// A shelf reads documents for one answer, each once.
type shelf struct {
	lib  *Library
	tree tree
	done func() error
	read map[[2]string]Note
}

// Cite reads a passage of a document again: its citation as it stands there now, ok false where it does not any more.
func (l *Library) Cite(ctx context.Context, collection string, c llm.Citation) (_ llm.Citation, ok bool, err error) {
	s := l.shelf()
	defer s.close()
	return s.cite(ctx, collection, c)
}

func (l *Library) shelf() *shelf { return &shelf{lib: l, read: map[[2]string]Note{}} }

func (s *shelf) close() {
	if s.done != nil {
		s.done() //nolint:errcheck // it was only read
	}
}

// note returns a document as it is now; without Text it cannot be quoted.
func (s *shelf) note(ctx context.Context, collection, path string) (n Note, err error) {
	key := [2]string{collection, path}
	if n, had := s.read[key]; had {
		return n, nil
	}
	if collection == Notes {
		if s.tree == nil {
			if s.tree, s.done, err = s.lib.source.open(); err != nil {
				return n, err
			}
		}
		n, err = s.lib.file(ctx, s.tree, path)
	} else {
		n, err = s.lib.stored(ctx, collection, path)
	}
	if ctx.Err() != nil {
		return Note{}, ctx.Err()
	}
	if err != nil { // gone, changed, or not readable now: nothing in it can be quoted
		n = Note{}
	}
	s.read[key] = n
	return n, nil //nolint:nilerr // it is the document's state
}

// cite returns c as it is shown, if its bytes still stand in its document.
func (s *shelf) cite(ctx context.Context, collection string, c llm.Citation) (llm.Citation, bool, error) {
	n, err := s.note(ctx, collection, c.Path)
	if err != nil || n.Text == nil || !stands(n.Text, c) {
		return c, false, err
	}
	if collection != Notes {
		c.Collection = collection
	}
	c.URL = n.URL
	c.Page = pageAt(n.Pages, c.Start)
	return c, true, nil
}

// pageAt returns the page, 1-based, that a byte of a text is on; 0: it has no pages.
func pageAt(pages []int, at int) int {
	n, found := slices.BinarySearch(pages, at)
	if !found {
		return n
	}
	for n+1 < len(pages) && pages[n+1] == at { // those before are empty
		n++
	}
	return n + 1
}

// stands says that the bytes of c are what c says.
func stands(text []byte, c llm.Citation) bool {
	return c.Start >= 0 && c.Start <= c.End && c.End <= len(text) && bytes.Equal(text[c.Start:c.End], []byte(c.Quote))
}

// isGone says that a document is not there (any more).
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
