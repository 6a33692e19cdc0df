package library

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestSearchRanks(t *testing.T) {
	l := open(t, at(t, folder(t, map[string]string{
		"backup.md":          "# Backup\nrestic runs every night at three.\n",
		"sonstiges.md":       "# Sonstiges\nEin Wort zum Backup steht auch hier, zwischen vielen anderen Wörtern über den Garten.\n",
		"aliased.md":         "---\naliases: [Datensicherung]\ntags: [ops]\n---\nNightly copies.\n",
		"near.md":            "The red lamp is in the kitchen.\n",
		"far.md":             "The red carpet is old. " + strings.Repeat("Filler words stand between them here. ", 8) + "A lamp is elsewhere.\n",
		"phrase.md":          "We say to be or not to be here.\n",
		"Straße/Zürich.md":   "Die Größe und der Übermut, 3 Cafés.\n",
		"2026-11-22.md":      "Nothing of note.\n",
		"projects/Plan B.md": "Nothing either.\n",
		"sentences.md":       "Running jobs were stopped.\n",
	})))
	for _, tt := range []struct {
		query string
		want  []string // nil: nothing
	}{
		{"backup", []string{"backup.md", "sonstiges.md"}},
		{"Datensicherung", []string{"aliased.md"}},
		{"#ops", []string{"aliased.md"}},
		{"red lamp", []string{"near.md", "far.md"}},
		{`"to be or not"`, []string{"phrase.md"}},
		{`„to be or not“ lamp`, []string{"phrase.md", "near.md", "far.md"}},
		{`"red lamp"`, []string{"near.md", "far.md"}},
		{"zurich", []string{"Straße/Zürich.md"}},
		{"groesse", []string{"Straße/Zürich.md"}},
		{"GRÖSSE", []string{"Straße/Zürich.md"}},
		{"größe", []string{"Straße/Zürich.md"}},
		{"cafe", []string{"Straße/Zürich.md"}},
		{"run job stops", []string{"sentences.md", "backup.md"}},
		{"2026-11-22", []string{"2026-11-22.md"}},
		{"what did I write in 2026-11-22.md?", []string{"2026-11-22.md"}},
		{"plan b", []string{"projects/Plan B.md"}},
		{"projects/Plan B.md", []string{"projects/Plan B.md"}},
		{"", nil},
		{"   ", nil},
		{"?!\"'(){}*^:-", nil},
		{"nirgends", nil},
	} {
		t.Run(tt.query, func(t *testing.T) {
			finds(t, l, tt.query, tt.want...)
		})
	}
}

// However common their parts are, what is one word to its writer is found first.
func TestIdentifiersAreFoundWhole(t *testing.T) {
	files := map[string]string{
		"right.md": "In this file max_conns is 7, see compose.yaml. The rtx-4090 is in davas.\n",
		"url.md":   "The address is 10.0.0.7:8080 now.\n",
	}
	for i := range phraseLook + 50 {
		files[fmt.Sprintf("n%d.md", i)] = "The max of conns, and conns at max: max conns conns max. Compose a yaml, yaml compose. An rtx, and 4090 rtx 4090s.\n8080 10 7 0 0 is no address.\n"
	}
	l := open(t, at(t, folder(t, files)))
	for query, want := range map[string]string{
		"max_conns": "right.md", "Where is compose.yaml?": "right.md", "rtx-4090": "right.md", "\"10.0.0.7:8080\"": "url.md",
	} {
		hits, err := l.Search(t.Context(), query, 3)
		if err != nil || len(hits) == 0 || hits[0].Path != want {
			t.Errorf("%s: %d hits, the first is not in %s, %v", query, len(hits), want, err)
		}
	}
}

// However many passages hold the words of a phrase, those that hold the phrase come first.
func TestPhrasesOfCommonWordsAreFound(t *testing.T) {
	files := map[string]string{"right.md": "The lake is long. At some time between the two wars the ferry was sold over the bay, and nobody has seen it since.\n"}
	for i := range phraseLook + 50 {
		files[fmt.Sprintf("n%d.md", i)] = "Over the sold bay. The sold over, over the bay sold: bay sold over, the over was.\n"
	}
	l := open(t, at(t, folder(t, files)))
	result, err := l.Explain(t.Context(), Request{Query: `"sold over the bay"`, Limit: 3})
	if err != nil || len(result.Hits) == 0 || result.Hits[0].Path != "right.md" {
		t.Errorf("%d hits, the first is not in right.md, %v", len(result.Hits), err)
	}
	result, err = l.Explain(t.Context(), Request{Query: `"was sold over the"`, Limit: 3})
	if err != nil || len(result.Hits) == 0 || result.Hits[0].Path != "right.md" {
		t.Errorf("%d hits, the first is not in right.md, %v", len(result.Hits), err)
	}
}

// Whatever the letters are, and however a file system writes them down: composed or not.
func TestPathsAreFilteredInEveryScript(t *testing.T) {
	l := open(t, at(t, folder(t, map[string]string{"\u00dcbung/a.md": "apples", "U\u0308bung/b.md": "apples", "Other/c.md": "apples"})))
	for _, query := range []string{"apples path:\u00fcbung", "apples path:U\u0308BUNG/"} {
		hits, err := l.Search(t.Context(), query, 5)
		if got := paths(hits); err != nil || len(got) != 2 || slices.Contains(got, "Other/c.md") {
			t.Errorf("%q: %q, %v", query, got, err)
		}
	}
}

// Tags in the text count like those of the frontmatter, but not in code.
func TestTagsInTheTextAreFound(t *testing.T) {
	for text, want := range map[string][]string{
		"---\ntags: [one]\n---\n# A #two\n\nText #project/garden, (#Größe) and #one.\n- item #list-tag\n> [!note] A callout #call\n": {"one", "two", "project/garden", "Größe", "list-tag", "call"},
		"no#tag, # none, #123, `#code`, ## x, a#b, https://x.y/#z\n":                                                                 nil,
		"```c\n#include <x>\n```\n\n    #define X\n\n- list\n  ```\n  #inner\n  ```\n  #after\n":                                     {"after"},
	} {
		if got := splitNote("n.md", []byte(text)).Tags; !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := splitNote("n.txt", []byte("a #tag")).Tags; got != nil {
		t.Errorf("plain text has tags: %q", got)
	}
	l := open(t, at(t, folder(t, map[string]string{"a.md": "apples #project/garden", "b.md": "apples"})))
	hits, err := l.Search(t.Context(), "apples tag:project", 5)
	if got := paths(hits); err != nil || !slices.Equal(got, []string{"a.md"}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFiltersLeaveNotesOut(t *testing.T) {
	dir := folder(t, map[string]string{
		"projects/garden.md":      "---\ntags: [project/garden, Done]\ntype: Plan\ndate: 2026-03-04\n---\nThe tomato.\n",
		"projects/2025-12-31.md":  "A tomato, on the last day.\n",
		"Diary entries/plants.md": "---\ntags: garden\n---\nOne more tomato.\n",
	})
	for name, day := range map[string]string{"projects/garden.md": "2020-01-01", "projects/2025-12-31.md": "2020-01-01", "Diary entries/plants.md": "2026-06-01"} {
		at, err := time.Parse(time.DateOnly, day)
		if err != nil {
			t.Fatal(err)
		}
		touch(t, dir, name, at)
	}
	l := open(t, at(t, dir))
	if err := l.Put(t.Context(), Web, Document{Path: "https://example.org/tomato", Title: "Tomatoes", Text: []byte("A tomato of the web.")}); err != nil {
		t.Fatal(err)
	}
	const garden, last, plants, web = "projects/garden.md", "projects/2025-12-31.md", "Diary entries/plants.md", "https://example.org/tomato"
	for _, tt := range []struct {
		query string
		want  []string // in the order of the alphabet
	}{
		{"tomato", []string{plants, web, last, garden}},
		{"tomato tag:project", []string{garden}},
		{"tag:#project/garden tomato", []string{garden}},
		{"tomato tag:done", []string{garden}},
		{"tomato tag:done tag:garden", nil},
		{"tomato tag:garden", []string{plants}},
		{"tomato path:projects/", []string{last, garden}},
		{`tomato path:"diary entries"`, []string{plants}},
		{"tomato type:plan", []string{garden}},
		{"tomato collection:web", []string{web}},
		{"tomato collection:vault before:2026", []string{last}},
		{"tomato after:2026-03 before:2026-04-01", []string{garden}},
		{"tomato AFTER:2026-05", []string{plants}},
		{"tomato after:yesterday collection:vault", []string{plants, last, garden}}, // no date, so words
		{"tag:garden", nil},
	} {
		hits, err := l.Search(t.Context(), tt.query, 10)
		var got []string
		for _, h := range hits {
			got = append(got, h.Path)
		}
		slices.Sort(got)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q, %v", tt.query, got, tt.want, err)
		}
	}
}

func TestPassagesFillABudgetWithWhatAnswers(t *testing.T) {
	filler := strings.Repeat("Nothing of it is said here at all. ", 12)
	l := open(t, at(t, folder(t, map[string]string{
		"a.md": "# Lamps\n\n" + filler + "The red lamp hangs in the Küche. It needs an E14 bulb, bought in Oslo. " + filler + "\n\n" + filler,
		"b.md": "The red lamp hangs in the Küche. Copied from elsewhere.\n",
		"c.md": filler,
	})))
	for _, budget := range []int{40, 120, 1000, 100_000} {
		hits, err := l.Passages(t.Context(), Request{Query: "Where does the red lamp hang?"}, budget)
		if err != nil {
			t.Fatal(err)
		}
		characters, lamps := 0, 0
		for _, h := range hits {
			n, err := l.Note(t.Context(), h.Path)
			if err != nil || string(n.Text[h.Start:h.End]) != h.Quote || h.Line != 1+strings.Count(string(n.Text[:h.Start]), "\n") {
				t.Errorf("%+v is not what stands there, %v", h.Citation, err)
			}
			characters += utf8.RuneCountInString(h.Quote)
			lamps += strings.Count(h.Quote, "The red lamp hangs in the Küche.")
		}
		if characters > budget || lamps == 0 || lamps > 1 && budget < 1000 {
			t.Errorf("budget %d: %d characters, the answer %d times: %+v", budget, characters, lamps, hits)
		}
		if budget == 1000 && !strings.Contains(hits[0].Quote+hits[1].Quote, "E14") {
			t.Errorf("what stands beside the answer is not there: %+v", hits)
		}
	}
}

func TestHitsCarryWhatAPageShows(t *testing.T) {
	text := "# Home\n\n## Kitchen\r\n\r\n" + strings.Repeat("Überall stehen Dinge. ", 20) + "The lámp in the kitchen is broken.\r\nMore.\n"
	l := open(t, at(t, folder(t, map[string]string{"home.md": text})))
	hits, err := l.Search(t.Context(), "lamps KITCHEN", 10)
	if err != nil || len(hits) != 1 {
		t.Fatalf("%+v, %v", hits, err)
	}
	h := hits[0]
	if h.Path != "home.md" || h.Title != "Home" || strings.Join(h.Heading, "/") != "Home/Kitchen" || h.Coverage != 1 || h.Score <= 0 {
		t.Errorf("%+v", h)
	}
	if h.Quote != text[h.Start:h.End] || h.Line != 1 || h.EndLine != 6 {
		t.Errorf("lines %d to %d, bytes %d to %d", h.Line, h.EndLine, h.Start, h.End)
	}
	var marked []string
	for _, m := range h.Snippet.Matches {
		marked = append(marked, h.Snippet.Text[m.Start:m.End])
	}
	if got := strings.Join(marked, " "); got != "lámp kitchen" || len(h.Snippet.Text) > snippetSize || !utf8.ValidString(h.Snippet.Text) {
		t.Errorf("snippet %q marks %q", h.Snippet.Text, got)
	}
}

func TestLimits(t *testing.T) {
	l := open(t, at(t, folder(t, generate(2, 50))))
	for _, limit := range []int{-1, 0, 1, 7, 100} {
		hits, err := l.Search(t.Context(), "backup server garden", limit)
		if err != nil || len(hits) > max(limit, 0) || limit > 0 && len(hits) == 0 {
			t.Errorf("limit %d: %d hits, %v", limit, len(hits), err)
		}
	}
	if _, err := l.Search(t.Context(), strings.Repeat("backup word ", 100_000)+strings.Repeat("\"a b c\" ", 1000), 5); err != nil {
		t.Error(err)
	}
}

// Whatever people type, the index is never asked with a syntax error, and never asked for anything but their words.
func FuzzSearch(f *testing.F) {
	for _, s := range []string{
		`backup`, `"unbalanced`, `a AND OR NOT b`, `title:backup`, `NEAR(a b, 3)`, `back*`, `^a`, `{a b}:c`, `-a`, `+a`, `'; DROP TABLE x`, "\x00", "\xff\xfe",
		`""`, `" "`, `"a" "b"`, `a""b`, `(((`, `“a b”`, `٣ 日本語`, "e\u0301\u0301", `a.md b.md`, `ſ K`, "₽x \u20c0y",
	} {
		f.Add(s)
	}
	l := open(f, at(f, folder(f, generate(3, 5))))
	f.Fuzz(func(t *testing.T, query string) {
		hits, err := l.Search(t.Context(), query, 5)
		if err != nil {
			t.Fatalf("%q: %v", query, err)
		}
		for _, h := range hits {
			for _, m := range h.Snippet.Matches {
				if m.Start < 0 || m.Start >= m.End || m.End > len(h.Snippet.Text) {
					t.Fatalf("%q: match %+v in %q", query, m, h.Snippet.Text)
				}
			}
			if h.Coverage < 0 || h.Coverage > 1.000001 {
				t.Fatalf("%q: coverage %v", query, h.Coverage)
			}
			c := trim(h)
			if c.Start < h.Start || c.End > h.End || c.Quote != h.Quote[c.Start-h.Start:c.End-h.Start] {
				t.Fatalf("%q: %+v is no part of %+v", query, c, h.Citation)
			}
		}
	})
}

// An orientation, not a gate with a margin: how many of the questions of a public collection find a passage that overlaps a
// span which answers them. The data are not part of this repository.
func TestRecallOnPublicQuestions(t *testing.T) {
	const data = "../../../../shared/data/retrieval/spans"
	for name, floor := range map[string]float64{"state_of_the_union": 0.6, "wikitexts": 0.6} {
		t.Run(name, func(t *testing.T) {
			document, err := os.ReadFile(filepath.Join(data, name, "document.md"))
			if err != nil {
				t.Skipf("no data beside the repository: %v", err)
			}
			l := open(t, at(t, folder(t, map[string]string{"document.md": string(document)})))
			f, err := os.Open(filepath.Join(data, name, "questions.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			asked, spans, first := 0, 0.0, 0.0
			for lines := bufio.NewScanner(f); lines.Scan(); {
				var q struct {
					Question string
					Spans    []struct{ Text string }
				}
				if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
					t.Fatal(err)
				}
				hits, err := l.Search(t.Context(), q.Question, 5)
				if err != nil {
					t.Fatal(err)
				}
				asked++
				found, one := 0, false
				for _, s := range q.Spans {
					start := strings.Index(string(document), s.Text)
					for i, h := range hits {
						if h.Start < start+len(s.Text) && start < h.End {
							found++
							one = one || i == 0
							break
						}
					}
				}
				spans += float64(found) / float64(len(q.Spans))
				if one {
					first++
				}
			}
			recall := spans / float64(asked)
			t.Logf("%d questions: %.3f of the spans are met by the first five passages; the first passage meets one in %.3f", asked, recall, first/float64(asked))
			if recall < floor {
				t.Errorf("recall %.3f is below %.2f", recall, floor)
			}
		})
	}
}

func BenchmarkSearch(b *testing.B) {
	for _, notes := range []int{1_000, 10_000} {
		l := open(b, at(b, folder(b, generate(4, notes))))
		for name, query := range map[string]string{
			"rare": "w4711", "common": "backup server", "question": "Wo finde ich das Rezept aus Zürich für den Garten, und wie war das mit w17?",
		} {
			b.Run(fmt.Sprintf("notes=%d/%s", notes, name), func(b *testing.B) {
				for b.Loop() {
					if _, err := l.Search(b.Context(), query, 10); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSync(b *testing.B) {
	for _, notes := range []int{1_000, 10_000} {
		dir := folder(b, generate(5, notes))
		b.Run(fmt.Sprintf("notes=%d/first", notes), func(b *testing.B) {
			for b.Loop() {
				open(b, at(b, dir))
			}
		})
		b.Run(fmt.Sprintf("notes=%d/unchanged", notes), func(b *testing.B) {
			l := unread(b, at(b, dir))
			for range 2 {
				if _, err := l.Sync(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			for b.Loop() {
				if r, err := l.Sync(b.Context()); err != nil || r.Unchanged != notes {
					b.Fatal(r, err)
				}
			}
		})
	}
}

// BenchmarkTinyFiles is a tree of 100,000 notes of one line in 1,000 folders: the first look, and one at which nothing has changed.
func BenchmarkTinyFiles(b *testing.B) {
	const notes = 100_000
	files := make(map[string]string, notes)
	for i := range notes {
		files[fmt.Sprintf("f%d/n%d.md", i%1000, i)] = fmt.Sprintf("w%d of w%d\n", i%5000, i/7)
	}
	dir := folder(b, files)
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			open(b, at(b, dir))
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		l := open(b, at(b, dir))
		for b.Loop() {
			if r, err := l.Sync(b.Context()); err != nil || r.Unchanged != notes {
				b.Fatal(r, err)
			}
		}
	})
}
