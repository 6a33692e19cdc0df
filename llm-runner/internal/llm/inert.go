package llm

import (
	"regexp"
	"strings"
)

// Inert is a Markdown text that a program writes into a person's notes, in which no plugin of Obsidian finds something to run: models and pages can be
// led to write code of dataviewjs, Templater and their like, which those run as soon as a note is opened or made. What stands in had, the text
// that was there before, stays as it was.
//
// A block of code whose language is not known to be only coloured is one of text, its language behind that word. Where a span of code begins like an
// expression of Dataview or a field of Meta Bind, a backslash comes first. <% of Templater, which reads blocks of code too, gets a space. HTML of code is
// shown as it is written.
//
// Sources: blacksmithgu.github.io/obsidian-dataview (dataviewjs, `= and `$=), silentvoid13.github.io/Templater (<% in new files), moritzjung.dev/obsidian-meta-bind-plugin-docs
// and .../obsidian-js-engine-plugin-docs, publish.obsidian.md/tasks (filter by function).
func Inert(text, had string) string {
	was := &before{text: "\n" + had, lines: map[string]bool{}, left: mostLooked}
	for line := range strings.Lines(had) {
		was.lines[strings.TrimSpace(line)] = true
	}
	return untemplated(uncoded(blocksAsText(lined(text), was), was), was)
}

// mostLooked bounds how much is looked through for what was there before, in bytes: enough for some hundred blocks in a note of a mebibyte. In a
// text that was made to take longer, what comes behind counts as new.
const mostLooked = 512 << 20

// before is the text that was there before.
type before struct {
	text  string          // behind an end of line, so that each line begins with one
	lines map[string]bool // without the blanks around them
	left  int             // of mostLooked
}

func (b *before) holds(part string) bool {
	b.left -= len(b.text) + len(part)
	return b.left > 0 && strings.Contains(b.text, part)
}

// lined ends each line with \n: one that ends with \r alone (CommonMark 0.31, 2.1) is overlooked by who looks for that.
func lined(text string) string {
	if !strings.Contains(text, "\r") {
		return text
	}
	b := []byte(text)
	for i, c := range b {
		if c == '\r' && (i+1 == len(b) || b[i+1] != '\n') {
			b[i] = '\n'
		}
	}
	return string(b)
}

// opener is a line that may begin a block of code, within whatever else: lists, quotations, footnotes. In doubt it does.
var opener = regexp.MustCompile("((?:^|[\r\n])(?:[ \t>*+\\-.)0-9]|\\[\\^[^\\]\r\n]*\\]:|\\[[ xX]\\])*)(`{3,}|~{3,})([^\r\n]*)")

// coloured are languages of code that editors colour and nobody runs.
var coloured = func() map[string]bool {
	all := map[string]bool{}
	for _, name := range strings.Fields(`text txt plain plaintext console sh bash zsh fish shell powershell ps1 bat cmd go golang python py js javascript mjs ts typescript java kotlin c h cpp c++ hpp cs csharp
		rust rs ruby rb php perl pl lua r sql json jsonc json5 jsonl yaml yml toml ini cfg conf properties env xml html css scss sass less markdown md diff patch dockerfile docker makefile make cmake nginx apache caddy
		caddyfile hcl terraform tf swift scala haskell hs elixir erlang clojure lisp scheme racket dart vim tex latex bibtex csv tsv log http graphql proto protobuf asm nix zig awk sed matlab julia jl objectivec groovy
		gradle regex systemd crontab fortran pascal ada cobol vb fsharp ocaml ml prolog solidity wasm svelte vue jinja jinja2 j2 ansible puppet bicep promql logql jq`) {
		all[name] = true
	}
	return all
}()

func blocksAsText(text string, was *before) string {
	var b strings.Builder
	at := 0
	for _, m := range opener.FindAllStringSubmatchIndex(text, -1) {
		fence, info := text[m[4]:m[5]], text[m[6]:m[7]]
		words := strings.Fields(info)
		if len(words) == 0 || coloured[strings.ToLower(words[0])] || fence[0] == '`' && strings.Contains(info, "`") {
			continue
		}
		if strings.EqualFold(words[0], "mermaid") {
			if block := blockFrom(text[m[4]:], fence, longestDrawing); len(block) < longestDrawing && !strings.Contains(block, "//") && !strings.Contains(strings.ToLower(block), "img") {
				continue // it loads nothing
			}
		}
		line := strings.TrimPrefix(text[m[2]:m[7]], "\n")
		if was.lines[strings.TrimSpace(line)] && was.left > 0 && was.holds("\n"+blockFrom(text[m[7]-len(line):], fence, len(was.text))) {
			continue
		}
		b.WriteString(text[at:m[5]] + "text ")
		at = m[6] + len(info) - len(strings.TrimLeft(info, " \t"))
	}
	return b.String() + text[at:]
}

// longestDrawing bounds a drawing that is looked through, in bytes.
const longestDrawing = 8_000

// blockFrom is the block of code that text begins with, to its closing fence or the end, at most about so many bytes of it.
func blockFrom(text, fence string, most int) string {
	text, at := text[:min(len(text), most)], 0
	for line := range strings.Lines(text) {
		at += len(line)
		if bare := strings.Trim(line, " \t\r\n>"); at > len(line) && strings.HasPrefix(bare, fence) && strings.Trim(bare, fence[:1]) == "" {
			break
		}
	}
	return text[:at]
}

var (
	// span is where code may begin that a plugin computes: `= x`, `$= x`, `BUTTON[x]`, also on the next line.
	span = regexp.MustCompile("(`+[ \t]*(?:\r?[\r\n][ \t>]*)?)(\\$=|=[^=>~`]|jsx[:-]|(?:BUTTON|INPUT|VIEW)\\[)")
	// codeTag begins code as HTML, in which a plugin looks as it does in that of Markdown.
	codeTag = regexp.MustCompile(`(?i)<(code|pre)\b`)
)

func uncoded(text string, was *before) string {
	var out strings.Builder
	w, from, at := walkOf(text), 0, 0 // what stands between from and at may hold a span over the end of a line
	begun := false                    // it ends with a backtick, but for blanks and marks of quotations
	flush := func() {
		out.WriteString(codeTag.ReplaceAllString(span.ReplaceAllString(text[from:at], `$1\$2`), "&lt;$1"))
	}
	for line := range strings.Lines(text) {
		if w.code(line) || was.lines[strings.TrimSpace(line)] && !begun {
			flush()
			out.WriteString(line)
			from, begun = at+len(line), false
		} else if said := strings.TrimRight(line, " \t\r\n>"); said != "" {
			begun = strings.HasSuffix(said, "`")
		}
		at += len(line)
		if w.fence == "" && strings.HasPrefix(strings.TrimLeft(line, " \t>"), "<") {
			w.believed = false // within HTML a fence is none either
		}
	}
	flush()
	return out.String()
}

// untemplated takes the beginning from Templater's commands, but for those that stood there before.
func untemplated(text string, was *before) string {
	var b strings.Builder
	end := 0 // where a command ends, at the earliest behind what b has
	for at := 0; ; {
		i := strings.Index(text[at:], "<%")
		if i < 0 {
			return b.String() + text[at:]
		}
		b.WriteString(text[at : at+i])
		if at += i; end < at+len("%>") {
			if end = strings.Index(text[at:], "%>"); end < 0 {
				return b.String() + strings.ReplaceAll(text[at:], "<%", "< %")
			}
			end += at + len("%>")
		}
		if command := text[at:end]; len(command) < len(was.text) && was.holds(command) {
			b.WriteString(command)
			at = end
			continue
		}
		b.WriteString("< %")
		at += len("<%")
	}
}
