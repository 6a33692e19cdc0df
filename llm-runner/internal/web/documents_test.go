package web

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
)

// withDocuments returns a rig with a library of dir, read to the end.
func withDocuments(t *testing.T, dir string, never ...string) (*Site, *library.Library) {
	t.Helper()
	private, faults := library.NewPrivacy(never)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	source, err := library.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	l, err := library.New(t.Context(), library.Config{DB: r.db, Source: source, NeverSend: private})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := r.Config
	c.Library = l
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s, l
}

func document(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "extract", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDocumentsAreHandedInShownAndRemoved(t *testing.T) {
	site, _ := withDocuments(t, t.TempDir(), "uploads:garden*", "nowhere")
	ask := func(method, path, kind string, body []byte) (int, string) {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
		req.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		site.ServeHTTP(w, req)
		return w.Code, w.Body.String()
	}
	form := func(files ...string) (string, []byte) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for _, name := range files {
			part, err := w.CreateFormFile("file", `C:\Documents\`+name)
			if err != nil {
				t.Fatal(err)
			}
			part.Write(document(t, name)) //nolint:errcheck // it is a buffer
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return w.FormDataContentType(), b.Bytes()
	}
	kind, body := form("report.pdf", "garden.odt")
	if status, text := ask("POST", "/library/documents", kind, body); status != 303 {
		t.Fatalf("%d %s", status, text)
	}
	status, text := ask("POST", "/api/library/documents?name=page&url="+url.QueryEscape("https://example.org/a?b=c")+"&collection=web", "text/html; charset=utf-8",
		[]byte("<title>Toads</title><p>Toads croak at dusk."))
	if status != 201 || !strings.Contains(text, `"title":"Toads"`) || !strings.Contains(text, `"collection":"web"`) {
		t.Errorf("%d %s", status, text)
	}
	_, text = ask("GET", "/library", "", nil)
	contains(t, text, "Water report", "report.pdf, in uploads, 3 pages", "2 in uploads", "1 in web", "Partly read", "page 2 has no text", "never sent to cloud providers",
		"<code>uploads:garden*</code> 1 document", "<code>nowhere</code> <strong class=\"warn\">matches nothing: is it spelled right?</strong>")
	_, text = ask("GET", "/library?q=laboratory+Aquatest", "", nil)
	contains(t, text, "uploads: report.pdf", "page 3", `href="/documents/uploads?from=`)
	_, text = ask("GET", "/documents/uploads?path=report.pdf&from=163&to=168", "", nil)
	contains(t, text, "</span>Water report</h1>", "read out of the pdf file", "Not all of it: page 2", `data-page="3"`, "<mark>Annex</mark>")
	_, text = ask("GET", "/documents/web?path=page", "", nil)
	contains(t, text, `href="https://example.org/a?b=c"`, "Toads croak")
	_, text = ask("GET", "/documents/uploads?path=garden.odt", "", nil)
	contains(t, text, "No cloud provider sees it.")
	if status, _ := ask("GET", "/documents/uploads?path=none", "", nil); status != 404 {
		t.Errorf("a document that is not there: %d", status)
	}
	if c := (llm.Citation{Path: "a b/ü?.pdf", Collection: "web", Start: 3, End: 9, Line: 2}); noteLink(c) != "/documents/web?from=3&path=a+b%2F%C3%BC%3F.pdf&to=9#L2" {
		t.Error(noteLink(c))
	}

	// What cannot be taken in says why, to people and to programs.
	kind, body = form("locked.pdf")
	status, text = ask("POST", "/library/documents", kind, body)
	if status != 422 || !strings.Contains(text, "locked.pdf is protected by a password. Nothing of it was kept.") ||
		!strings.Contains(text, `href="/library">To the library<`) {
		t.Errorf("%d %s", status, text)
	}
	for query, want := range map[string]string{
		"": "the document has no name", "name=a.png": "is a PNG picture",
	} {
		if status, text := ask("POST", "/api/library/documents?"+query, "application/octet-stream", []byte("\x89PNG\r\n\x1a\n")); status != 422 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", query, status, text)
		}
	}
	for collection, want := range map[string]string{"vault": "write the file", "..": "small letters"} {
		if status, text := ask("POST", "/api/library/documents?name=a.md&collection="+collection, "", []byte("a")); status != 422 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", collection, status, text)
		}
	}
	if status, text := ask("POST", "/api/library/documents?name=big.md", "text/markdown", bytes.Repeat([]byte("a"), 66<<20)); status != 413 || !strings.Contains(text, "larger than 64 MB") {
		t.Errorf("%d %s", status, text)
	}

	if status, text := ask("DELETE", "/api/library/documents?collection=web&path=page", "", nil); status != 200 || strings.Contains(text, "Toads") {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := ask("DELETE", "/api/library/documents?collection=web&path=page", "", nil); status != 404 {
		t.Errorf("it is removed twice: %d", status)
	}
	if status, _ := ask("POST", "/library/forget", "application/x-www-form-urlencoded", []byte("collection=uploads&path=report.pdf")); status != 303 {
		t.Error(status)
	}
	if _, text = ask("GET", "/api/library/documents", "", nil); strings.Contains(text, "report.pdf") || !strings.Contains(text, "garden.odt") {
		t.Error(text)
	}
}

func TestADocumentOfTheVaultOpensAtItsLines(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"report.pdf", "boiler.docx"} {
		if err := os.WriteFile(filepath.Join(dir, name), document(t, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	site, l := withDocuments(t, dir)
	hits, err := l.Search(t.Context(), "who installed the boiler", 1)
	if err != nil || len(hits) != 1 {
		t.Fatal(hits, err)
	}
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		return w.Code, w.Body.String()
	}
	link, _, _ := strings.Cut(noteLink(hits[0].Citation), "#")
	status, text := get(link)
	if status != 200 {
		t.Fatal(status)
	}
	contains(t, text, "read out of the docx file", "<mark>The boiler was installed by Mrs Lindqvist in May 2024.</mark>")
	if err := os.WriteFile(filepath.Join(dir, "boiler.docx"), document(t, "report.pdf"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, text := get("/notes/boiler.docx"); status != 409 || !strings.Contains(text, "It is being read again.") {
		t.Errorf("%d %s", status, fmt.Sprintf("%.200s", text))
	}
}
