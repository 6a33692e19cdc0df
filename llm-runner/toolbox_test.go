package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
)

// assembled is the program without its server.
func assembled(t *testing.T, change func(*Config)) *app {
	t.Helper()
	c, err := Load(Options{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(c)
	}
	a, err := assemble(t.Context(), c, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.close() })
	return a
}

// pagesOf serves bytes by path.
func pagesOf(t *testing.T, all map[string][]byte) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := all[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(body) //nolint:errcheck // the reader has left
	}))
	t.Cleanup(s.Close)
	return s
}

// hostilePDF is a PDF whose pages are so many that nobody ever comes to their end.
func hostilePDF(count int) []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n")
	var at []int
	for _, o := range []string{"<< /Type /Catalog /Pages 2 0 R >>", fmt.Sprintf("<< /Type /Pages /Kids [3 0 R] /Count %d >>", count), fmt.Sprintf("<< /Type /Pages /Parent 2 0 R /Kids [2 0 R] /Count %d >>", count)} {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", len(at), o)
	}
	xref := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, n := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", n)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, xref)
	return b.Bytes()
}

// What a page is made to do to its reader, it does to a process that ends: this one goes on, and the call ends with an error.
func TestAHostilePageHarmsNobody(t *testing.T) {
	report, err := os.ReadFile("internal/extract/testdata/report.pdf")
	if err != nil {
		t.Fatal(err)
	}
	site := pagesOf(t, map[string][]byte{"/endless.pdf": hostilePDF(2_000_000_000), "/deep": []byte("<html>" + strings.Repeat("<div>", 1_000_000) + "x"), "/report.pdf": report})
	a := assembled(t, func(c *Config) { c.Tools.Fetch.Allow = []string{"127.0.0.1"} })
	for _, path := range []string{"/endless.pdf", "/deep"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		c, err := a.box.Call(ctx, toolbox.Wish{Tool: "fetch_url", Arguments: fmt.Sprintf(`{"url":%q}`, site.URL+path)})
		cancel()
		if err != nil || c.State != toolbox.Done || path != "/deep" && (!c.IsError || strings.Contains(c.Result, "longer than")) {
			t.Errorf("%s: %+v, %v", path, c, err)
		}
	}
	c, err := a.box.Call(t.Context(), toolbox.Wish{Tool: "fetch_url", Arguments: fmt.Sprintf(`{"url":%q}`, site.URL+"/report.pdf")})
	if err != nil || c.IsError {
		t.Fatalf("%+v, %v", c, err)
	}
	kept, err := a.library.Document(t.Context(), library.Web, site.URL+"/report.pdf")
	if err != nil || len(kept.Pages) == 0 || !kept.Extracted {
		t.Errorf("kept %+v, %v", kept, err)
	}
}

func TestAPageComesBackAsItWasKept(t *testing.T) {
	a := assembled(t, nil)
	for _, p := range []browse.Page{
		{URL: "https://a.example/ferns", Canonical: "https://a.example/f", Title: "On \"ferns\"", Author: "Ada: Green", Site: "Garden", Published: time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC),
			Fetched: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC), Kind: "html", Text: "Ferns have no flowers.\n\n---\n\nThey like shade."},
		{URL: "https://a.example/x.pdf", Canonical: "https://a.example/x.pdf", Title: "X", Fetched: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC), Kind: "pdf", Text: "one\ntwo\n", Pages: []int{0, 4}, Remarks: []string{"page 3 is a scan"}},
		{URL: "https://a.example/odd", Canonical: "https://a.example/odd", Title: "Odd", Fetched: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC), Kind: "text", Text: "---\ngenerated: true\n---\n\nwords"},
	} {
		if err := a.keepPage(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		got, ok := a.keptPage(t.Context(), p.URL)
		p.Kind = ""
		if !ok || got.Text != p.Text || got.Title != p.Title || got.Author != p.Author || got.Site != p.Site || !got.Published.Equal(p.Published) || got.Fetched.IsZero() ||
			got.Canonical != p.Canonical || !slices.Equal(got.Pages, p.Pages) || !slices.Equal(got.Remarks, p.Remarks) {
			t.Errorf("kept %+v\ngot  %+v", p, got)
		}
	}
	if _, ok := a.keptPage(t.Context(), "https://a.example/never"); ok {
		t.Error("a page that was never read")
	}
	hits, err := a.library.Find(t.Context(), library.Request{Query: "ferns flowers", Limit: 3})
	if err != nil || len(hits) == 0 || hits[0].Path != "https://a.example/ferns" || strings.Contains(hits[0].Quote, "Ada: Green") {
		t.Errorf("found %+v, %v", hits, err)
	}
}

func TestWhatResearchAndAgentsCallIsInTheLog(t *testing.T) {
	var site *httptest.Server
	site = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/search":
			fmt.Fprintf(w, `{"results":[{"title":"On ferns","url":"%s/ferns","content":"x"},{"title":"Gone","url":"%s/gone","content":"x"}]}`, site.URL, site.URL)
		case "/ferns":
			fmt.Fprint(w, "<html><title>On ferns</title><body><p>Ferns have no flowers, and they are older than flowers by far.</p></body></html>")
		default:
			http.NotFound(w, r)
		}
	}))
	defer site.Close()
	a := assembled(t, func(c *Config) {
		c.Tools.Fetch.Allow, c.Tools.Search.SearXNG = []string{"127.0.0.1"}, site.URL
	})
	if _, _, err := a.inquiries.Web(t.Context(), "ferns flowers"); err != nil {
		t.Fatal(err)
	}
	if src := a.facts(nil); src.Search == nil {
		t.Error("agents cannot search")
	} else if all, err := src.Search(t.Context(), "ferns"); err != nil || len(all) != 2 {
		t.Errorf("agents find %+v, %v", all, err)
	}
	log, err := a.box.Log(t.Context(), "", 0, 10)
	var got []string
	for _, c := range log {
		got = append(got, fmt.Sprintf("%s %s %s %v", c.Source, c.Tool, c.State, c.IsError))
	}
	if want := []string{"agent web_search done false", "research fetch_url done true", "research fetch_url done false", "research web_search done false"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("the log has %q, %v", got, err)
	}
	if err := a.box.SetPolicy(t.Context(), "web_search", 0, toolbox.Ask); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.inquiries.Web(t.Context(), "roses"); err == nil || !strings.Contains(err.Error(), "allow it on the Tools page") {
		t.Errorf("though a person is to be asked: %v", err)
	}
}

func TestASearchEngineThatFailsIsTold(t *testing.T) {
	refuses := true
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if refuses {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"results":[{"title":"x","url":"https://a.example/"}]}`)
	}))
	defer site.Close()
	a := assembled(t, func(c *Config) { c.Tools.Search.SearXNG = site.URL })
	told := func() string {
		if all := a.searches(); len(all) == 1 {
			return fmt.Sprint(all[0].Name, " ", all[0].State, " ", all[0].Says)
		}
		return "nothing"
	}
	if got := told(); !strings.HasPrefix(got, "SearXNG unknown") {
		t.Error(got)
	}
	a.searcher.Search(t.Context(), "x", "", "", 3) //nolint:errcheck // it is refused
	if got := told(); !strings.HasPrefix(got, "SearXNG down") || !strings.Contains(got, "formats: [html, json]") {
		t.Error(got)
	}
	if f := examineSearch(t.Context(), a.config); f.Status != "wrong" || !strings.Contains(f.Text, "formats: [html, json]") {
		t.Errorf("the doctor finds %+v", f)
	}
	refuses = false
	if _, err := a.searcher.Search(t.Context(), "x", "", "", 3); err != nil || !strings.HasPrefix(told(), "SearXNG up") {
		t.Errorf("%s, %v", told(), err)
	}
	if f := examineSearch(t.Context(), a.config); f.Status != "ok" {
		t.Errorf("the doctor finds %+v", f)
	}
}

// A call waits for a person as long as somebody wants what comes of it.
func TestACallWaitsNoLongerThanItsWork(t *testing.T) {
	a := assembled(t, nil)
	work, queue, err := a.queue(t.Context(), engine.Config{Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer work.Close(time.Second) //nolint:errcheck // the test has ended
	chats, err := chat.New(t.Context(), a.db, a.asker, chat.Config{Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	agents, err := a.agents(t.Context(), work, queue)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the engine is not launched, so they stay queued
		if _, _, err := queue.Submit(t.Context(), jobs.Spec{Prompt: "x"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.box.Add(toolbox.Make(toolbox.Tool{Name: "write", Effects: true}, func(context.Context, toolbox.Call, struct{}) (toolbox.Result, error) { return toolbox.Result{}, nil })); err != nil {
		t.Fatal(err)
	}
	for _, run := range []string{"job-1-0", "job-2-0", "job-9-0", "turn-9", "agent-9", "once-x", ""} {
		if c, err := a.box.Submit(t.Context(), toolbox.Wish{Scope: toolbox.Scope{Run: run}, Tool: "write"}); err != nil || c.State != toolbox.Waiting {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	if _, err := queue.Cancel(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if err := a.unwanted(t.Context(), callers(queue, chats, agents)); err != nil {
		t.Fatal(err)
	}
	waits, err := a.box.Waits(t.Context())
	if err != nil || len(waits) != 2 || waits[0].Run != "job-1-0" || waits[1].Run != "" {
		t.Errorf("%+v, %v", waits, err)
	}
}
