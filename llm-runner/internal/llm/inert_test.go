package llm

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestANoteRunsNothing(t *testing.T) {
	for text, want := range map[string]string{
		"```dataviewjs\nfetch('https://evil.example')\n```\n":              "```text dataviewjs\nfetch('https://evil.example')\n```\n",
		"~~~ DataViewJS x\ny\n~~~":                                         "~~~text DataViewJS x\ny\n~~~",
		"- a\n  - ```dataviewjs\n    x\n":                                  "- a\n  - ```text dataviewjs\n    x\n",
		"> > ```js-engine\n> > x\n":                                        "> > ```text js-engine\n> > x\n",
		"1. ```meta-bind-js-view\nx":                                       "1. ```text meta-bind-js-view\nx",
		"[^1]: ```tasks\nfilter by function x()\n":                         "[^1]: ```text tasks\nfilter by function x()\n",
		"x\r```dataviewjs\ry":                                              "x\n```text dataviewjs\ny",
		"a\r\n```dataviewjs\r\nx\r\n```\r\n":                               "a\r\n```text dataviewjs\r\nx\r\n```\r\n",
		"````md\n```dataviewjs\nx\n```\n````\n":                            "````md\n```text dataviewjs\nx\n```\n````\n",
		"```data&#118;iewjs\nx\n```":                                       "```text data&#118;iewjs\nx\n```",
		"<div>\n```text\n</div>\n\n```dataviewjs\nx\n```\n":                "<div>\n```text\n</div>\n\n```text dataviewjs\nx\n```\n",
		"```go\nx := 1\n```\n\n```Python\n=1\n```":                         "```go\nx := 1\n```\n\n```Python\n=1\n```",
		"```\n=begin\n```":                                                 "```\n=begin\n```",
		"```ad-note\n![a](https://evil.example)\n```":                      "```text ad-note\n![a](https://evil.example)\n```",
		"```mermaid\ngraph TD\n  a-->b\n```":                               "```mermaid\ngraph TD\n  a-->b\n```",
		"```mermaid\ngraph TD\n  a[<img src=//evil.example>]\n```":         "```text mermaid\ngraph TD\n  a[<img src=//evil.example>]\n```",
		"so `$= dv.x()` and ``  = this.x`` and `=a`":                       "so `\\$= dv.x()` and ``  \\= this.x`` and `\\=a`",
		"so `\n> $= dv.x()`":                                               "so `\n> \\$= dv.x()`",
		"`a == b`, `== b`, `=>`, `!=`, `a = b`":                            "`a == b`, `== b`, `=>`, `!=`, `a = b`",
		"`BUTTON[x]` `VIEW[{a}][math]`":                                    "`\\BUTTON[x]` `\\VIEW[{a}][math]`",
		"<code>$= dv.x()</code>, <PRE><Code class=language-dataviewjs>x":   "&lt;code>$= dv.x()</code>, &lt;PRE>&lt;Code class=language-dataviewjs>x",
		"```html\n<code>x</code>\n```":                                     "```html\n<code>x</code>\n```",
		"```html\n   ```\n<code>$= x</code>\n```":                          "```html\n   ```\n&lt;code>$= x</code>\n```",
		"```html\n\t```\n<code>$= x</code>\n```":                           "```html\n\t```\n&lt;code>$= x</code>\n```",
		"---\ntitle: \"<% tp.x() %>\"\n---\n\n<%* y %>\n```js\n<%- z %>\n": "---\ntitle: \"< % tp.x() %>\"\n---\n\n< %* y %>\n```js\n< %- z %>\n",
		"1 <2 %, a < b":                                                    "1 <2 %, a < b",
	} {
		got := Inert(text, "")
		if got != want {
			t.Errorf("%q\nis  %q\nnot %q", text, got, want)
		}
		if again := Inert(got, ""); again != got {
			t.Errorf("%q is %q the second time", got, again)
		}
	}
}

// A model that writes a person's note anew leaves in it what the person has run there, and nothing else.
func TestWhatThePersonRunsStays(t *testing.T) {
	const mine = "# Tasks\n\n```dataviewjs\ndv.list()\n```\n\nDue: `= this.due`\n- a\n  ```tasks\n  not done\n  ```\n> ```dataview\n> list\n> ```\n<%* tR += 1 %>\n"
	if got := Inert("New.\n\n"+mine+"\nMore.\n", mine); got != "New.\n\n"+mine+"\nMore.\n" {
		t.Errorf("%q", got)
	}
	for _, other := range []string{
		strings.Replace(mine, "dv.list()", "evil()", 1),
		strings.Replace(mine, "not done", "filter by function evil()", 1),
		strings.Replace(mine, "> list", "> evil()", 1),
		strings.Replace(mine, "this.due", "evil()", 1),
		strings.Replace(mine, "tR += 1", "evil()", 1),
		strings.Replace(mine, "dv.list()\n", "dv.list()\nevil()\n", 1),
		mine + "`\n= evil()`\n",
	} {
		got := Inert(other, mine)
		if got == other || !strings.Contains(got, "evil()") {
			t.Errorf("%q stays", got)
		}
	}
}

// Texts of a megabyte that are made to take long take about as long as any, also where as long a note was there before.
func TestALongNoteIsReadOnce(t *testing.T) {
	for text, had := range map[string]string{
		strings.Repeat("```dataviewjs\n", 15_000):                      strings.Repeat("a line of a note\n", 60_000) + "```dataviewjs\n",
		strings.Repeat("<%", 50_000) + strings.Repeat("x", 1e5) + "%>": strings.Repeat("<%", 500_000) + "%>",
		"`\n" + strings.Repeat(">\n", 200_000):                         ">\n",
	} {
		began := time.Now()
		if got := Inert(text, had); len(got) < len(text) {
			t.Errorf("%.20q: %d bytes of %d", text, len(got), len(text))
		}
		if took := time.Since(began); took > 20*time.Second { // it takes less than one; looked for again and again, a minute
			t.Errorf("%.20q took %s", text, took)
		}
	}
	const block = "```dataviewjs\ndv.list()\n```\n<% tp.x() %>\n"
	if mine := strings.Repeat(strings.Repeat("a line of a note\n", 50)+block, 200); Inert(mine+"more\n", mine) != mine+"more\n" {
		t.Error("what the person runs in a long note does not stay")
	}
	for _, piece := range []string{"```x\n", "<%", "```mermaid\n", "`= ", "word\n", "`\n", "- > ", "<code>\n"} {
		text := strings.Repeat(piece, 1<<20/len(piece))
		if got := Inert(text, ""); len(got) < len(text) {
			t.Errorf("%q: %d bytes of %d", piece, len(got), len(text))
		}
	}
}

// runs is a line that begins a block of Dataview's code. With another backtick in it, or words before it, it is none (CommonMark 0.31, 4.5;
// the editor's own mode says the same).
var runs = regexp.MustCompile("(?m)^[ \t>*+\\-.)0-9]*`{3,}[ \t]*dataviewjs[^`\r\n]*$")

func FuzzInert(f *testing.F) {
	f.Add("```dataviewjs\nx\n```\n`$= x` <% y %>", "")
	f.Add("```dataviewjs`", "")
	f.Add("a ```dataviewjs\r> - ```dataviewjs", "")
	f.Fuzz(func(t *testing.T, text, had string) {
		got := Inert(text, "")
		if again := Inert(got, ""); again != got {
			t.Errorf("%q is %q the second time", got, again)
		}
		if strings.Contains(got, "<%") || runs.MatchString(got) {
			t.Errorf("%q", got)
		}
		_ = Inert(text, had)
	})
}
