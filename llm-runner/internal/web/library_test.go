package web

import (
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/library"
)

func TestTheLibraryIsSearchedAndKept(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"house.md": "# House\n\n## <b>Heat</b>\n\nThe <script>filter</script> of the heat pump & more.\n", "drafts.md": "A filter, drafted.\n", "bad.md": "\xff\xfe\x00",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t)
	source, err := library.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := library.Open(t.Context(), r.db, source)
	if err != nil {
		t.Fatal(err)
	}
	sync := func() {
		t.Helper()
		if _, err := l.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	c := r.Config
	c.Library = l
	site, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		if strings.HasPrefix(path, "/library") {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		w := httptest.NewRecorder()
		site.ServeHTTP(w, req)
		return w.Code, w.Body.String()
	}
	_, body := ask("GET", "/library", "")
	contains(t, body, "2 of 3 notes of "+dir+" are indexed", "1 skipped", "bad.md", "UTF-16", `aria-current="page"`)
	contains(t, body, `<div id="live" data-live="/library/events" data-part>`)
	_, body = ask("GET", "/library?q="+url.QueryEscape("heat pump's filter"), "")
	contains(t, body, "2 passages, the best first.", `href="/notes/house.md?from=0&amp;to=`, "&lt;script&gt;<mark>filter</mark>&lt;/script&gt;", "&lt;b&gt;Heat&lt;/b&gt;",
		"<summary>Why</summary>number 1 by its words", "How it was sought", "By words: 2 passages", "found by words alone")
	if strings.Contains(body, "<script>filter") || strings.Contains(body, "<b>Heat") {
		t.Error("a note's markup is in the page")
	}
	_, body = ask("GET", "/health", "")
	contains(t, body, `"library": {`, `"state": "off"`)
	_, body = ask("GET", "/library?q=nowhere", "")
	contains(t, body, "Nothing is found.")
	_, body = ask("GET", "/api/library/search?q=filter&limit=1", "")
	contains(t, body, `"found"`, `"lane": "words"`, `"answers": true`, `"lanes": [`, `"name": "bm25"`, `"why": "beyond the number asked for"`, `"count": 1`)

	for _, limit := range []string{"x", "0", "101"} {
		if status, body := ask("GET", "/api/library/search?q=filter&limit="+limit, ""); status != 400 || !strings.Contains(body, `limit: \"`+limit+`\" is not a number from 1 to 100`) {
			t.Errorf("%d %s", status, body)
		}
	}
	if status, body := ask("POST", "/library/exclude", "pattern=%5B"); status != 422 || !strings.Contains(body, "it is no pattern") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := ask("POST", "/library/exclude", "pattern=drafts*"); status != 303 {
		t.Errorf("status %d", status)
	}
	sync()
	_, body = ask("GET", "/api/library", "")
	contains(t, body, `"drafts*"`, `"notes": 1`)
	if status, body := ask("POST", "/api/library/include", `{"pattern": "x"}`); status != 422 || !strings.Contains(body, "it is not excluded") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := ask("POST", "/api/library/include", `{"pattern": "drafts*"}`); status != 200 {
		t.Errorf("status %d", status)
	}
	if status, _ := ask("POST", "/library/reindex", ""); status != 303 {
		t.Errorf("status %d", status)
	}
}
