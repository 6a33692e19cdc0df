package library

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestSplit(t *testing.T) {
	type piece struct {
		trail string // joined with " > "
		text  string
	}
	prose := strings.Repeat("A sentence of some forty bytes or so. ", 40) // 1520 bytes
	for _, tt := range []struct {
		name, text string
		want       []piece
	}{
		{"empty", "", nil},
		{"only white space", " \n\t\n", []piece{{"", " \n\t\n"}}},
		{"no heading, no newline", "just text", []piece{{"", "just text"}}},
		{"headings make sections", "# A\none\n## B\ntwo\n### C #\nthree\n## D\nfour\n", []piece{
			{"A", "# A\none\n"}, {"A > B", "## B\ntwo\n"}, {"A > B > C", "### C #\nthree\n"}, {"A > D", "## D\nfour\n"}}},
		{"a heading without text of its own stays with what follows", "# A\n\n## B\n\ntwo\n", []piece{{"A > B", "# A\n\n## B\n\ntwo\n"}}},
		{"setext", "A\n=\none\n\nB b\n---\ntwo\n", []piece{{"A", "A\n=\none\n\n"}, {"A > B b", "B b\n---\ntwo\n"}}},
		{"CRLF and BOM", "\ufeff# A\r\n\r\none\r\n\r\n## B\r\ntwo", []piece{{"A", "\ufeff# A\r\n\r\none\r\n\r\n"}, {"A > B", "## B\r\ntwo"}}},
		{"no heading in code", "# A\n```sh\n# not a heading\n```\nx\n~~~\n# nor this\n```\n~~~\n", []piece{
			{"A", "# A\n```sh\n# not a heading\n```\nx\n~~~\n# nor this\n```\n~~~\n"}}},
		{"code that never ends", "# A\n```\n# x\n", []piece{{"A", "# A\n```\n# x\n"}}},
		{"no heading in lists, quotes, indented code, tags", "- a\n\n  # b\n\n> # c\n\n    # d\n\n#tag\n", []piece{{"", "- a\n\n  # b\n\n> # c\n\n    # d\n\n#tag\n"}}},
		{"a rule is no heading", "a\n\n---\n\nb\n", []piece{{"", "a\n\n---\n\nb\n"}}},
		{"marks are taken off headings", "# The `code` and **[link](x.md)** and [[Note|name]]\nx\n", []piece{
			{"The code and link and name", "# The `code` and **[link](x.md)** and [[Note|name]]\nx\n"}}},
		{"frontmatter", "---\ntitle: T\n---\n# A\nx\n", []piece{{"", "---\ntitle: T\n---\n"}, {"A", "# A\nx\n"}}},
		{"no frontmatter without an end", "---\ntitle: T\n", []piece{{"", "---\ntitle: T\n"}}},
		{"long text is cut between sentences", "# A\n" + prose, []piece{{"A", "# A\n" + prose[:1178]}, {"A", prose[1178:]}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []piece
			for _, p := range Split("n.md", []byte(tt.text)).Passages {
				got = append(got, piece{strings.Join(p.Heading, " > "), tt.text[p.Start:p.End]})
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			check(t, []byte(tt.text))
		})
	}
}

func TestFrontmatterIsReadTolerantly(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Doc
	}{
		{"lists", "---\ntitle: 'My: note'\naliases: [One, 2]\ntags:\n  - '#a'\n  - b/c\n---\n", Doc{Title: "My: note", Aliases: []string{"One", "2"}, Tags: []string{"a", "b/c"}}},
		{"texts", "---\r\nalias: One, Two words\r\ntags: a, b c\r\n---\r\n", Doc{Title: "n", Aliases: []string{"One", "Two words"}, Tags: []string{"a", "b", "c"}}},
		{"numbers and nothing", "---\ntitle: 2026\naliases:\ntags: [~]\n---\n", Doc{Title: "2026"}},
		{"generated", "---\ngenerated: true\n---\nx", Doc{Title: "n", Generated: true}},
		{"not YAML", "---\n{{template}}: [\n---\n# Real\n", Doc{Title: "Real"}},
		{"a heading", "# The *title* `x`\n", Doc{Title: "The *title* x"}},
		{"only deeper headings", "## Not this\n", Doc{Title: "n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Split("folder/n.md", []byte(tt.text))
			got.Passages = nil
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestCodeAndTablesStayWhole(t *testing.T) {
	code := "```go\n" + strings.Repeat("fmt.Println(\"x\")\n\n", 150) + "```\n"
	table := "| a | b |\n|---|---|\n" + strings.Repeat("| one | two |\n", 200)
	text := "# A\n\nRun this:\n\n" + code + "\nAnd a table.\n\n" + table + "\nend\n"
	for _, whole := range []string{"Run this:\n\n" + code, table} {
		n := 0
		for _, p := range Split("n.md", []byte(text)).Passages {
			if strings.Contains(text[p.Start:p.End], whole) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%.30q... is whole in %d passages", whole, n)
		}
	}
	check(t, []byte(text))
}

func TestHugeFilesAreSplitInLittleTime(t *testing.T) {
	for name, text := range map[string]string{
		"one line of 1 MB":     strings.Repeat("x", 1<<20),
		"one line of words":    strings.Repeat("word ", 1<<18),
		"one line of umlauts":  strings.Repeat("ü", 1<<19),
		"a heading of 1 MB":    "# " + strings.Repeat("ü", 1<<19),
		"rules":                strings.Repeat("---\n", 1<<18),
		"underlines":           "x\n" + strings.Repeat("x\n---\n", 1<<17),
		"fences":               strings.Repeat("```\n", 1<<18),
		"lists":                strings.Repeat("- a\n\n", 1<<18),
		"bars":                 strings.Repeat("|\n", 1<<19),
		"brackets":             strings.Repeat("# [[](", 1<<18),
		"carriage returns":     strings.Repeat("\r", 1<<20),
		"full stops":           strings.Repeat(". ", 1<<19),
		"newlines in one list": "- x" + strings.Repeat("\n y", 1<<18),
	} {
		t.Run(name, func(t *testing.T) { check(t, []byte(text)) })
	}
}

// check checks what holds for every text.
func check(t *testing.T, text []byte) {
	t.Helper()
	d := Split("n.md", text)
	at, line, valid := 0, 1, utf8.Valid(text)
	for i, p := range d.Passages {
		switch {
		case p.Start != at || p.End <= p.Start || p.End > len(text):
			t.Fatalf("passage %d is [%d,%d) after %d of %d bytes", i, p.Start, p.End, at, len(text))
		case p.Line != line:
			t.Fatalf("passage %d begins on line %d, want %d", i, p.Line, line)
		case !p.Front && p.End-p.Start > maxPassage:
			t.Fatalf("passage %d has %d bytes", i, p.End-p.Start)
		case p.Front && i > 0:
			t.Fatalf("passage %d is frontmatter", i)
		}
		body := string(text[p.Start:p.End])
		if valid && !utf8.ValidString(body) {
			t.Fatalf("passage %d cuts a character", i)
		}
		line += strings.Count(body, "\n")
		if want := p.Line + strings.Count(strings.TrimSuffix(body, "\n"), "\n"); p.EndLine != want {
			t.Fatalf("passage %d ends on line %d, want %d", i, p.EndLine, want)
		}
		at = p.End
	}
	if at != len(text) {
		t.Fatalf("the passages end at %d of %d bytes", at, len(text))
	}
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		"", "# A\r\n\r\ntext\r\n", "---\ntitle: x\naliases: [a, b]\n---\n# H\n- a\n  - b\n\n```\ncode\n```\n", "a\n===\n| a | b |\n|---|---|\n| 1 | 2 |\n",
		"\ufeff---\ntags: &a [*a]\n---", "> quote\nlazy\n\n1) one\n2) two\n", strings.Repeat("word. ", 900), "~~~~\n```\n~~~\n~~~~~\n# x ##\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) { check(t, text) })
}

// FuzzSplitNote: what a program wrote is in no passage, and every other byte is in one.
func FuzzSplitNote(f *testing.F) {
	for _, s := range []string{
		"", "mine\n<!-- generated: a -->\nits\n<!-- end of generated: a -->\nmine\n", "<!-- generated: a -->\n<!-- generated: b -->\n<!-- end of generated: b -->\n",
		"<!-- generated: a -->\n<!-- generated: b -->\n<!-- end of generated: a -->\n<!-- end of generated: b -->\n", "```\n<!-- generated: a -->\n```\n<!-- end of generated: a -->",
		"<!-- end of generated: a -->\n<!-- generated: a -->\n\n#tag\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		theirs := make([]bool, len(text))
		for _, b := range scanNote(text) {
			for i := b.start; i < b.end; i++ {
				theirs[i] = b.kind == made
			}
		}
		at := 0
		for _, p := range splitNote("n.md", text).Passages {
			if p.Start < at || p.End < p.Start || p.End > len(text) {
				t.Fatalf("passage %+v after byte %d of %q", p, at, text)
			}
			for i := at; i < p.End; i++ {
				if theirs[i] != (i < p.Start) {
					t.Fatalf("byte %d of %q: of a program %t, passage %+v", i, text, theirs[i], p)
				}
			}
			if want := 1 + bytes.Count(text[:p.Start], []byte("\n")); p.Line != want {
				t.Fatalf("passage %+v of %q is at line %d", p, text, want)
			}
			at = p.End
		}
		if slices.Contains(theirs[at:], false) {
			t.Fatalf("the passages of %q end at %d", text, at)
		}
	})
}

// A note of nothing but marks that begin takes no longer than any other.
func TestManyMarksAreSplitAtOnce(t *testing.T) {
	text := []byte(strings.Repeat("<!-- generated: x -->\n", maxNote/23))
	began := time.Now()
	splitNote("n.md", text)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
}

func FuzzSplitPages(f *testing.F) {
	f.Add([]byte("one\n\ntwo\n\n\nthree"), uint16(4), uint16(10))
	f.Add([]byte("\n\n# A\n\ntext\n"), uint16(1), uint16(2))
	f.Fuzz(func(t *testing.T, text []byte, a, b uint16) {
		pages := []int{0, min(int(min(a, b)), len(text)), min(int(max(a, b)), len(text))}
		at, line := 0, 1
		for _, p := range splitPages("x.pdf", text, pages).Passages {
			if p.Start != at || p.End < p.Start || p.Line != line+bytes.Count(text[:p.Start], []byte("\n"))-bytes.Count(text[:at], []byte("\n")) {
				t.Fatalf("passage %+v after byte %d, line %d, of %q with %v", p, at, line, text, pages)
			}
			line += bytes.Count(text[at:p.End], []byte("\n"))
			at = p.End
		}
		if at != len(text) {
			t.Fatalf("the passages of %q with %v end at %d", text, pages, at)
		}
	})
}

// generate makes up a tree of notes with everything that Markdown people write.
func generate(seed uint64, notes int) map[string]string {
	rng := rand.New(rand.NewPCG(seed, 0))
	nouns := strings.Fields(`backup restore server Zürich Straße Küche garden tomato database router invoice Größe naïve café travel Oslo
		printer lamp key ticket budget recipe Übung window battery museum letter project meeting`)
	word := func() string {
		if rng.IntN(3) == 0 {
			return fmt.Sprintf("w%d", rng.IntN(5000))
		}
		return nouns[rng.IntN(len(nouns))]
	}
	sentence := func() string {
		var s []string
		for range 5 + rng.IntN(15) {
			s = append(s, word())
		}
		return strings.Join(s, " ") + "."
	}
	files := map[string]string{}
	for i := range notes {
		nl := "\n"
		if rng.IntN(4) == 0 {
			nl = "\r\n"
		}
		var b strings.Builder
		if rng.IntN(8) == 0 {
			b.WriteString("\ufeff")
		}
		if rng.IntN(3) == 0 {
			b.WriteString("---" + nl + "aliases: [alias " + fmt.Sprint(i) + "]" + nl + "tags: [" + word() + "]" + nl + "---" + nl)
		}
		b.WriteString("# Note " + fmt.Sprint(i) + " about " + word() + nl + nl)
		for range 1 + rng.IntN(6) {
			switch rng.IntN(7) {
			case 0:
				b.WriteString("## " + word() + " " + word() + nl)
			case 1:
				b.WriteString("```" + nl + "# " + sentence() + nl + nl + word() + "()" + nl + "```" + nl)
			case 2:
				b.WriteString("| a | b |" + nl + "|---|---|" + nl)
				for range 1 + rng.IntN(10) {
					b.WriteString("| " + word() + " | " + sentence() + " |" + nl)
				}
			case 3:
				for range 1 + rng.IntN(10) {
					b.WriteString("- " + sentence() + nl)
				}
			default:
				for range 1 + rng.IntN(12) {
					b.WriteString(sentence() + " ")
				}
				b.WriteString(nl)
			}
			b.WriteString(nl)
		}
		text := b.String()
		if rng.IntN(3) == 0 {
			text = strings.TrimRight(text, "\r\n")
		}
		files[fmt.Sprintf("folder %d/note-%d.md", i%17, i)] = text
	}
	return files
}
