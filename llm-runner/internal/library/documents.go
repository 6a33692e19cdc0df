package library

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/library/documents"
	"home.arpa/lab/llm-runner/internal/vector"
)

// A Document is a text that is not a file of the Source: an upload, a fetched page, a fact, a document of a collection to measure with.
type Document = documents.Document

// Stored is a document as it is kept.
type Stored = documents.Stored

// maxName bounds a document's name in bytes: a URL may be long.
const maxName = 1000

// checkDocument says what is wrong with a document.
func checkDocument(collection string, d Document) error {
	switch {
	case collection == Notes:
		return fmt.Errorf("put documents into %s: that collection is made of files; write the file", collection)
	case vector.CheckName(collection) != nil: // its vectors are kept under that name
		return fmt.Errorf("put documents into %w", vector.CheckName(collection))
	case strings.TrimSpace(d.Path) == "" || len(d.Path) > maxName || !utf8.ValidString(d.Path) || strings.ContainsFunc(d.Path, unicode.IsControl):
		return fmt.Errorf("put document %.80q: a name has 1 to %d bytes of text on one line", d.Path, maxName)
	case !utf8.Valid(d.Text):
		return fmt.Errorf("put document %s: it is not UTF-8 text", d.Path)
	case len(d.Text) > extract.MaxText:
		return fmt.Errorf("put document %s: it holds more than %d MB of text", d.Path, extract.MaxText>>20)
	case slices.Contains(d.Text, 0):
		return fmt.Errorf("put document %s: it is not text: it has bytes that are zero", d.Path)
	}
	return nil
}

// Put keeps documents in a collection, each in the place of the one with its path, all or none. They are found when it returns; while a look
// at the files is under way, soon after.
func (l *Library) Put(ctx context.Context, collection string, all ...Document) error {
	for _, d := range all {
		if err := checkDocument(collection, d); err != nil {
			return err
		}
	}
	if err := l.documents.Write(ctx, collection, all...); err != nil {
		return err
	}
	return l.soon(ctx)
}

// Added is when a document was put; the zero time where there is none.
func (l *Library) Added(ctx context.Context, collection, path string) (time.Time, error) {
	return l.documents.Added(ctx, collection, path)
}

// Forget removes a document; one that is not there is fs.ErrNotExist.
func (l *Library) Forget(ctx context.Context, collection, path string) error {
	if collection == Notes {
		return fmt.Errorf("forget %s: it is a file of the vault; delete the file", path)
	}
	had, err := l.documents.Forget(ctx, collection, path)
	if err != nil {
		return err
	}
	if !had {
		return fmt.Errorf("forget %s in %s: %w", path, collection, fs.ErrNotExist)
	}
	return l.soon(ctx)
}

// soon brings the index up to date with the documents: now, or when the look that is under way has ended.
func (l *Library) soon(ctx context.Context) error {
	if !l.syncing.TryLock() {
		l.nudge()
		return nil
	}
	defer l.syncing.Unlock()
	return l.settle(ctx)
}

// Settle returns once everything that was put is found: it waits for a look at the files that is under way, as long as ctx lets it.
func (l *Library) Settle(ctx context.Context) error {
	if err := l.syncing.Lock(ctx); err != nil {
		return err
	}
	defer l.syncing.Unlock()
	return l.settle(ctx)
}

func (l *Library) settle(ctx context.Context) error {
	if err := l.syncDocuments(ctx, false); err != nil {
		return err
	}
	l.mu.Lock()
	unread := l.unread
	l.mu.Unlock()
	l.count(unread)
	return nil
}

// Documents lists what is kept in a collection, the newest first; "" in all.
func (l *Library) Documents(ctx context.Context, collection string) ([]Stored, error) {
	all, err := l.documents.List(ctx, collection)
	for i, d := range all {
		all[i].NeverSent = l.NeverSent(d.Collection, d.Path)
	}
	return all, err
}

// An Upload is a document as it came.
type Upload struct {
	Name  string // with an ending that tells its format, unless Media does or Data shows it
	Media string // its media type; "" not known
	Data  []byte
	URL   string
	Title string // "" that of the document
	Time  time.Time
}

// Add reads an upload (see extract) and puts what it says into a collection, under its name. What cannot be read is an error that says why:
// "boiler.pdf is a scan: ...". It returns how the document is kept.
func (l *Library) Add(ctx context.Context, collection string, u Upload) (Stored, error) {
	format := extract.Sniff(u.Data) // what it is counts more than what it is called
	if format == "" {
		format = extract.ByType(u.Media)
	}
	if format == "" || format == extract.Plain {
		if f := extract.ByName(u.Name); f == extract.Markdown || f == extract.Plain || format == "" && f != "" {
			format = f
		}
	}
	if format == "" {
		if kind := extract.Kind(u.Data); kind != "" || !utf8.Valid(u.Data) {
			if kind == "" {
				kind = "no text"
			}
			return Stored{}, fmt.Errorf("%s is %s: what is read are Markdown, plain text, HTML, PDF, DOCX, ODT and EPUB", u.Name, kind)
		}
		format = extract.Plain
	}
	var text extract.Text
	var err error
	if format == extract.Markdown || format == extract.Plain {
		text, err = extract.Text{Body: string(u.Data)}, faultOf(u.Data)
	} else {
		text, err = l.read(ctx, format, u.Data)
	}
	if err != nil {
		return Stored{}, fmt.Errorf("%s %w", u.Name, err)
	}
	d := Document{Path: u.Name, Title: u.Title, Text: []byte(text.Body), Time: u.Time, URL: u.URL, Format: format, Pages: text.Pages, Remarks: text.Remarks}
	if d.Title == "" {
		d.Title = text.Title
	}
	if d.Title == "" {
		d.Title = splitPages(u.Name, d.Text, d.Pages).Title
	}
	if d.Time.IsZero() {
		d.Time, _ = time.Parse(time.DateOnly, text.Day) // the zero time, where it has none
	}
	if err := l.Put(ctx, collection, d); err != nil {
		return Stored{}, err
	}
	all, err := l.documents.List(ctx, collection)
	if err != nil {
		return Stored{}, err
	}
	i := slices.IndexFunc(all, func(s Stored) bool { return s.Path == u.Name })
	if i < 0 { // it was forgotten meanwhile
		return Stored{}, fmt.Errorf("add %s: %w", u.Name, fs.ErrNotExist)
	}
	all[i].NeverSent = l.NeverSent(collection, u.Name)
	return all[i], nil
}

// faultOf says why bytes are no text; nil where they are.
func faultOf(text []byte) error {
	switch {
	case strings.HasPrefix(string(text[:min(len(text), 2)]), "\xff\xfe"), strings.HasPrefix(string(text[:min(len(text), 2)]), "\xfe\xff"):
		return extract.Unreadable("is UTF-16 text; save it as UTF-8")
	case extract.Kind(text) != "" && (!utf8.Valid(text) || slices.Contains(text, 0) || extract.Sniff(text) == extract.PDF):
		return extract.Unreadable("is no text but " + extract.Kind(text) + " with another ending")
	case !utf8.Valid(text):
		return extract.Unreadable("is not UTF-8 text")
	case slices.Contains(text, 0):
		return extract.Unreadable("is not text: it has bytes that are zero")
	}
	return nil
}

// syncDocuments brings the index up to date with the documents. The caller holds syncing.
func (l *Library) syncDocuments(ctx context.Context, all bool) error {
	now, err := l.documents.Marks(ctx)
	if err != nil {
		return err
	}
	if !all && now == l.puts && now.Count > 0 {
		return nil
	}
	if l.kept == nil { // an earlier look ended halfway
		if l.kept, err = knownDocuments(ctx, l.db); err != nil {
			return err
		}
	}
	had := l.kept
	if now.Count == 0 && len(had) == 0 {
		l.puts = now
		return nil
	}
	there, err := l.documents.Revs(ctx)
	if err != nil {
		return err
	}
	l.kept = nil
	erased := false
	for _, collection := range sortedCollections(had, there) {
		b := batch{lib: l, ctx: ctx, collection: collection}
		for path, rev := range there[collection] {
			old := had[collection][path]
			if old.id != 0 && old.mtime == rev && !all {
				continue
			}
			d, err := l.documents.One(ctx, collection, path)
			if isGone(err) {
				continue
			}
			if err != nil {
				return err
			}
			c := changeOf(d, old.id, rev)
			c.collection = collection
			if old.mtime == rev && collection == Memory && l.stands(ctx, c) {
				continue // their vectors are in no cache, so they would all be made again
			}
			if err := b.add(c); err != nil {
				return err
			}
		}
		for path, old := range had[collection] {
			if _, is := there[collection][path]; !is {
				erased = erased || collection == Memory
				if err := b.add(&change{entry: entry{path: path}, old: old.id, gone: true}); err != nil {
					return err
				}
			}
		}
		if err := b.flush(); err != nil {
			return err
		}
	}
	if l.kept, err = knownDocuments(ctx, l.db); err != nil {
		return err
	}
	if erased {
		if err := l.purge(ctx); err != nil {
			return err
		}
	}
	l.puts = now
	return nil
}

// stands says that the index holds a document as it is.
func (l *Library) stands(ctx context.Context, c *change) bool {
	n := Note{Collection: c.collection, Path: c.path}
	hash, err := readExtracted(ctx, l.db, &n)
	return err == nil && bytes.Equal(hash, c.hash) && bytes.Equal(n.Text, c.text) && n.Title == c.doc.Title
}

// changeOf is what a document becomes in the index. Its revision stands for a file's time.
func changeOf(d Document, old, rev int64) *change {
	sum := sha256.Sum256(d.Text)
	c := &change{entry: entry{path: d.Path, size: int64(len(d.Text)), mtime: rev, modified: d.Time}, old: old, hash: sum[:], text: d.Text,
		pages: d.Pages, remarks: d.Remarks}
	c.doc = splitPages(d.Path, d.Text, d.Pages)
	if d.Title != "" {
		c.doc.Title = d.Title
	}
	if d.Type != "" {
		c.doc.Type = strings.ToLower(d.Type)
	}
	c.doc.Tags = append(c.doc.Tags, d.Tags...)
	if len(c.doc.Passages) == 0 {
		c.doc.Passages = []Passage{{Line: 1, EndLine: 1}}
	}
	return c
}

func sortedCollections[A, B any](a map[string]A, b map[string]B) []string {
	var all []string
	for c := range a {
		all = append(all, c)
	}
	for c := range b {
		all = append(all, c)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
