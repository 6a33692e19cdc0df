package library

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/llm"
)

// copied puts the documents of package extract into a folder.
func copied(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join("..", "extract", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// only returns the one passage that an answer quotes first.
func only(t *testing.T, l *Library, question string) llm.Citation {
	t.Helper()
	a, err := llm.Collect(NewVault(l, nil).Stream(t.Context(), asks(question)))
	if err != nil || len(a.Citations) == 0 {
		t.Fatalf("%s: %q, %v", question, a.Message.Text(), err)
	}
	return a.Citations[0]
}

func TestDocumentsOfTheVaultAreFoundAndQuotedWithTheirPages(t *testing.T) {
	dir := folder(t, map[string]string{"plain.txt": "The spare key hangs behind the clock.\n"})
	copied(t, dir, "boiler.docx", "garden.odt", "lamp.epub", "page.html", "report.pdf", "locked.pdf")
	l := open(t, at(t, dir))
	for question, want := range map[string]llm.Citation{
		"where does the spare key hang":              {Path: "plain.txt"},
		"who installed the boiler":                   {Path: "boiler.docx"},
		"when are roses pruned":                      {Path: "garden.odt"},
		"where lay the brass key under the mat":      {Path: "lamp.epub"},
		"wie viele Liter fördert die Pumpe":          {Path: "page.html"},
		"what is the hardness of the well":           {Path: "report.pdf", Page: 1},
		"what is the laboratory of the annex called": {Path: "report.pdf", Page: 3},
	} {
		c := only(t, l, question)
		if c.Path != want.Path || c.Page != want.Page {
			t.Errorf("%s: %s page %d, want %s page %d", question, c.Path, c.Page, want.Path, want.Page)
		}
		n, err := l.Document(t.Context(), "", c.Path)
		if err != nil || !stands(n.Text, c) || n.Extracted != (want.Path != "plain.txt") {
			t.Errorf("%s: the quote %q does not stand in what is kept: %v", question, c.Quote, err)
		}
	}
	if c := only(t, l, "who installed the boiler"); len(c.Heading) == 0 || c.Heading[0] != "Boiler manual" {
		t.Errorf("the trail is %q", c.Heading)
	}
	s := l.Status()
	if len(s.Skipped) != 1 || s.Skipped[0] != (Skip{"locked.pdf", "is protected by a password"}) {
		t.Errorf("skipped %+v", s.Skipped)
	}
	if len(s.Partly) != 1 || s.Partly[0].Path != "report.pdf" || !strings.Contains(s.Partly[0].Reason, "page 2 has no text") {
		t.Errorf("partly %+v", s.Partly)
	}
	if hits, err := l.Search(t.Context(), "laboratory Aquatest", 1); err != nil || len(hits) != 1 || Show(Result{Hits: hits}).Found[0].Page != 3 {
		t.Errorf("a search shows %+v, %v", Show(Result{Hits: hits}), err)
	}

	// Another file under that name: what was read out of the old one is quoted no more, until it is read.
	copied(t, dir, "garden.odt")
	data, err := os.ReadFile(filepath.Join(dir, "garden.odt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "boiler.docx"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Document(t.Context(), Notes, "boiler.docx"); !errors.Is(err, ErrChanged) {
		t.Errorf("a changed file: %v", err)
	}
	a, err := llm.Collect(NewVault(l, nil).Stream(t.Context(), asks("who installed the boiler")))
	if err != nil || !strings.Contains(a.Message.Text(), "changed since") {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
}

func TestUnchangedDocumentsAreNotReadAgain(t *testing.T) {
	dir := t.TempDir()
	copied(t, dir, "boiler.docx", "report.pdf")
	for _, name := range []string{"boiler.docx", "report.pdf"} {
		touch(t, dir, name, time.Now().Add(-time.Hour))
	}
	var reads atomic.Int32
	d := database(t)
	read := func(ctx context.Context, f extract.Format, data []byte) (extract.Text, error) {
		reads.Add(1)
		return extract.Read(ctx, f, data)
	}
	for range 2 { // the second one is another program on the same index
		l, err := New(t.Context(), Config{DB: d, Source: at(t, dir), Read: read})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := l.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := reads.Load(); n != 2 {
			t.Fatalf("two documents were read %d times", n)
		}
	}
}

func TestWhatIsPutIsKeptFoundAndForgotten(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "The pond is deep.\n"})
	d := database(t)
	l, err := Open(t.Context(), d, at(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	page := Document{Path: "https://example.org/pond?x=1", Title: "Ponds", URL: "https://example.org/pond?x=1", Text: []byte("# Ponds\n\nA pond needs shade at noon.\n"),
		Time: time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC), Tags: []string{"garden"}, Type: "page"}
	if err := l.Put(t.Context(), Web, page); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(t.Context(), Memory, Document{Path: "fact-1", Text: []byte("The owner is afraid of geese.")}); err != nil {
		t.Fatal(err)
	}
	pdf, err := os.ReadFile("../extract/testdata/report.pdf")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := l.Add(t.Context(), Uploads, Upload{Name: "Water.bin", Data: pdf}); err != nil || s.Title != "Water report" || s.Pages != 3 || s.Format != "pdf" || len(s.Remarks) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	for query, want := range map[string]string{
		"pond collection:web": page.Path, "pond collection:vault": "a.md", "geese": "fact-1", "tag:garden shade": page.Path, "type:page shade": page.Path,
		"shade after:2026-03 before:2026-04": page.Path, "hardness collection:uploads": "Water.bin",
	} {
		hits, err := l.Search(t.Context(), query, 5)
		if err != nil || len(hits) == 0 || hits[0].Path != want {
			t.Errorf("%s: %+v, %v", query, Show(Result{Hits: hits}), err)
		}
	}
	c := only(t, l, "when does a pond need shade")
	if c.Collection != Web || c.URL != page.URL {
		t.Errorf("cited %+v", c)
	}
	if c := only(t, l, "hardness of the well in degrees"); c.Page != 1 || c.Collection != Uploads {
		t.Errorf("cited %+v", c)
	}
	if s := l.Status(); s.Collections[Web] != 1 || s.Collections[Memory] != 1 || s.Notes != 1 || len(s.Partly) != 1 {
		t.Errorf("status %+v", s)
	}

	// The index can be lost; documents cannot.
	if _, err := d.Writer().ExecContext(t.Context(), "UPDATE library_stamp SET source = 'another'"); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(t.Context(), d, at(t, dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	page.Text = []byte("# Ponds\n\nA pond needs no sun in the evening.\n")
	if err := l.Put(t.Context(), Web, page); err != nil {
		t.Fatal(err)
	}
	if hits, err := l.Search(t.Context(), `"no sun in the evening"`, 5); err != nil || len(hits) != 1 {
		t.Errorf("%+v, %v", Show(Result{Hits: hits}), err)
	}
	if hits, err := l.Search(t.Context(), `"shade at noon"`, 5); err != nil || len(hits) != 0 && strings.Contains(hits[0].Quote, "noon") {
		t.Errorf("the old text is found: %+v, %v", Show(Result{Hits: hits}), err)
	}
	if err := l.Forget(t.Context(), Web, page.Path); err != nil {
		t.Fatal(err)
	}
	if err := l.Forget(t.Context(), Web, page.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := l.Document(t.Context(), Web, page.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if hits, err := l.Search(t.Context(), "pond collection:web", 5); err != nil || len(hits) != 0 {
		t.Errorf("%+v, %v", Show(Result{Hits: hits}), err)
	}
	if all, err := l.Documents(t.Context(), ""); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestDocumentsThatCannotBeKeptAreRefused(t *testing.T) {
	l := open(t, at(t, t.TempDir()))
	for says, err := range map[string]error{
		"write the file":            l.Put(t.Context(), Notes, Document{Path: "a", Text: []byte("a")}),
		"small letters":             l.Put(t.Context(), "Big Words", Document{Path: "a", Text: []byte("a")}),
		"a name has":                l.Put(t.Context(), Web, Document{Path: "a\nb", Text: []byte("a")}),
		"not UTF-8":                 l.Put(t.Context(), Web, Document{Path: "a", Text: []byte("\xff")}),
		"more than 8 MB":            l.Put(t.Context(), Web, Document{Path: "a", Text: []byte(strings.Repeat("a", extract.MaxText+1))}),
		"x.md is no text but a PNG": added(t, l, "x.md", "\x89PNG\r\n\x1a\n\x00"),
		"y.zip is a ZIP archive":    added(t, l, "y.zip", "PK\x03\x04zzzz"),
		"w.pdf is damaged":          added(t, l, "w.pdf", "%PDF-1.4\nhello"),
		"v is UTF-16":               added(t, l, "v.txt", "\xff\xfeh\x00"),
		"delete the file":           l.Forget(t.Context(), Notes, "a.md"),
	} {
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(says, "v ")) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if all, err := l.Documents(t.Context(), ""); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

func added(t *testing.T, l *Library, name, data string) error {
	t.Helper()
	_, err := l.Add(t.Context(), Uploads, Upload{Name: name, Data: []byte(data)})
	return err
}

func TestWhatIsNeverSentIsRecognisedHoweverItIsSpelled(t *testing.T) {
	p, faults := NewPrivacy([]string{"private/", "*.secret.md", "People/Doktor Müller", "uploads:tax*", "memory:", "/abs", "[", "../x"})
	if len(faults) != 3 || len(p) != 5 {
		t.Errorf("%q, %v", p, faults)
	}
	for name, hidden := range map[string]bool{
		"private/a.md": true, "a/Private/b.md": true, "privates/a.md": false, "x/y.SECRET.md": true, "y.secrets.md": false,
		"people/doktor müller/x.md": true, "People/Doktor Mu\u0308ller/x.md": true, "people/else.md": false,
	} {
		if p.Hides(Notes, name) != hidden {
			t.Errorf("%s: hidden is not %v", name, hidden)
		}
	}
	if !p.Hides(Uploads, "Tax 2025.pdf") || p.Hides(Uploads, "private") || !p.Hides(Memory, "anything") || p.Hides(Web, "tax") {
		t.Error("collections are mixed up")
	}
	dir := folder(t, map[string]string{"private/a.md": "a", "b.md": "b"})
	if err := os.Symlink("private/a.md", filepath.Join(dir, "public.md")); err != nil {
		t.Fatal(err)
	}
	l, err := New(t.Context(), Config{DB: database(t), Source: at(t, dir), NeverSend: p})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !l.NeverSent(Notes, "public.md") || l.NeverSent(Notes, "b.md") {
		t.Error("a link to a private note is public")
	}
	for _, n := range l.Status().NeverSend {
		if want := map[string]int{"private": 1}[n.Pattern]; n.Documents != want {
			t.Errorf("%s hides %d", n.Pattern, n.Documents)
		}
	}
}

// A failing is a tree in which some files cannot be read.
type failing struct {
	fstest.MapFS
	fails map[string]error
}

func (f failing) ReadFile(name string) ([]byte, error) {
	if err := f.fails[name]; err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return f.MapFS.ReadFile(name)
}

func TestFilesThatFailWhileTheyAreReadAreNamedAndTriedAgain(t *testing.T) {
	tree := failing{fstest.MapFS{}, map[string]error{"gone.md": fs.ErrNotExist, "locked.md": fs.ErrPermission, "broken.pdf": syscall.EIO}}
	for _, name := range []string{"gone.md", "locked.md", "broken.pdf", "good.md", "slow.pdf"} {
		tree.MapFS[name] = &fstest.MapFile{Data: []byte("text of " + name), ModTime: time.Now().Add(-time.Hour)}
	}
	source := Embedded("failing", tree)
	source.fixed = false
	stuck := errors.New("no process can be started")
	l, err := New(t.Context(), Config{DB: database(t), Source: source, Read: func(context.Context, extract.Format, []byte) (extract.Text, error) {
		return extract.Text{Body: "text of a document\n"}, stuck
	}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Sync(t.Context())
	if err != nil || r.Added != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	want := []Skip{{"broken.pdf", "cannot be read: input/output error"}, {"locked.md", "cannot be read: permission denied"}, {"slow.pdf", "cannot be read: no process can be started"}}
	if s := l.Status(); !reflect.DeepEqual(s.Skipped, want) || s.Notes != 1 || s.Found != 5 || s.Reading != "" {
		t.Errorf("%+v", s)
	}
	clear(tree.fails)
	stuck = nil
	if r, err = l.Sync(t.Context()); err != nil || r.Added != 4 || len(r.Skipped) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if s := l.Status(); s.Notes != 5 {
		t.Errorf("%+v", s)
	}
}

func TestATextAboutPDFIsNoPDF(t *testing.T) {
	l := open(t, at(t, t.TempDir()))
	if _, err := l.Add(t.Context(), Uploads, Upload{Name: "forms.md", Data: []byte("# Formats\n\nA file that begins with `%PDF-1.7` is a PDF.\n")}); err != nil {
		t.Error(err)
	}
}

func TestALookThatEndsHalfwayIsTakenUpAgain(t *testing.T) {
	l := open(t, at(t, t.TempDir()))
	var all []Document
	for i := range 5 * batchNotes {
		all = append(all, Document{Path: fmt.Sprint(i), Text: []byte("text of a document")})
	}
	if err := l.documents.Write(t.Context(), Web, all...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // cancelled when some are in the index
		for l.words.Load().passages == 0 {
			runtime.Gosched()
		}
		cancel()
	}()
	if _, err := l.Sync(ctx); err == nil {
		t.Log("it was not stopped in time")
	}
	for range 2 {
		if _, err := l.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s := l.Status(); s.Collections[Web] != len(all) || l.words.Load().passages != len(all) {
		t.Errorf("%d of %d documents, %d passages", s.Collections[Web], len(all), l.words.Load().passages)
	}
}

// What is put while the files are looked at is found once that look has ended, and Settle waits for it.
func TestWhatWasPutIsFoundOnceItHasSettled(t *testing.T) {
	l := open(t, at(t, folder(t, map[string]string{"a.md": "The pond is deep.\n"})))
	find := func() int {
		t.Helper()
		hits, err := l.Find(t.Context(), Request{Query: "geese", Limit: 3})
		if err != nil {
			t.Fatal(err)
		}
		return len(hits)
	}
	if err := l.syncing.Lock(t.Context()); err != nil { // a look at the files is under way
		t.Fatal(err)
	}
	if err := l.Put(t.Context(), Web, Document{Path: "https://example.org/geese", Text: []byte("Geese want water.")}); err != nil {
		t.Fatal(err)
	}
	settled := make(chan error, 1)
	go func() { settled <- l.Settle(t.Context()) }()
	before := find()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Settle(ctx); !errors.Is(err, context.Canceled) { // who no longer waits is not held up
		t.Error("settled without a lock:", err)
	}
	if err := l.Erase(ctx, Web, "https://example.org/none"); !errors.Is(err, context.Canceled) {
		t.Error("erased without a lock:", err)
	}
	l.syncing.Unlock()
	if err := <-settled; err != nil || before != 0 || find() != 1 {
		t.Errorf("%d before, %d after, %v", before, find(), err)
	}
}
