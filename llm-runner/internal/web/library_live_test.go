package web

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/library"
)

// A page that shows the library is told when its state has changed.
func TestTheLibraryPageFollowsTheIndex(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t)
	source, err := library.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := library.Open(t.Context(), r.db, source)
	if err != nil {
		t.Fatal(err)
	}
	c := r.Config
	c.Library = l
	site, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(site)
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/library/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	defer time.AfterFunc(30*time.Second, func() { res.Body.Close() }).Stop()
	if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatal(res.Status, got)
	}
	lines := bufio.NewScanner(res.Body)
	for _, text := range []string{"apples", "pears", "\xff", "\xff\xfe"} { // a new note, another text in it, a file that is skipped, and for another reason
		if err := os.WriteFile(filepath.Join(dir, "a.md"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		told := false
		for !told && lines.Scan() {
			told = strings.HasPrefix(lines.Text(), "event: change")
		}
		if !told {
			t.Fatalf("the page is not told of %q", text)
		}
	}
}
