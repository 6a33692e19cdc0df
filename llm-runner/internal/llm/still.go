package llm

import (
	"regexp"
	"strings"
)

// Still is a Markdown text that a model wrote, as it may stand in a note: an editor that shows it loads nothing from elsewhere, for the address of
// a picture can carry away what the model knew, and runs nothing (see Inert). Pictures become links, and tags are shown as they are written; links stay,
// since a person follows those. Blocks of code stay byte for byte, but for what would run.
func Still(text string) string {
	lines := strings.SplitAfter(Inert(text, ""), "\n")
	w := walkOf(text)
	for i, line := range lines {
		if !w.code(line) {
			lines[i] = calm(line)
		}
	}
	return strings.Join(lines, "")
}

// A walk goes through the lines of a Markdown text and knows which of them are blocks of code.
type walk struct {
	fence    string // that the block began with; "" none is open
	believed bool   // what looks like a fence is one
}

// walkOf begins a walk. Between the marks of a formula or a comment (of Obsidian) a fence is none: where there are such, no block of code is believed.
func walkOf(text string) walk {
	return walk{believed: !strings.Contains(text, "$$") && !strings.Contains(text, "%%")}
}

// code says that the next line is a part of a block of code, its fences included.
func (w *walk) code(line string) bool {
	bare := strings.TrimRight(line, " \t\r\n")
	if w.fence == "" {
		if m := fenced.FindStringSubmatch(bare); m != nil && w.believed {
			w.fence = m[1]
			return true
		}
		return false
	}
	if mark := strings.TrimLeft(bare, " \t"); strings.HasPrefix(mark, w.fence) && strings.Trim(mark, w.fence[:1]) == "" {
		w.fence = ""
		if indent := bare[:len(bare)-len(mark)]; len(indent) > 3 || strings.Contains(indent, "\t") { // that far in it ends nothing (CommonMark 0.31, 4.5): who knows
			w.believed = false
		}
	}
	return true
}

var (
	// fenced is a line that begins a block of code (CommonMark 0.31, 4.5) that is part of nothing else: what is indented may end earlier.
	fenced = regexp.MustCompile("^(```+|~~~+)[^`]*$")
	shown  = regexp.MustCompile(`!+\[`)
	// plain are addresses in angle brackets, and tags without attributes: the T of List<T>. Those that begin a line begin HTML.
	plain = regexp.MustCompile(`^<(https?://[^\s<>]*|/?[A-Za-z][A-Za-z0-9]*\s?/?)>`)
	loads = regexp.MustCompile(`(?i)^</?(style|script|svg|math|title|textarea|xmp|noembed|noframes|plaintext)\b`)
)

func calm(line string) string {
	line = shown.ReplaceAllString(line, "[")
	if !strings.Contains(line, "<") {
		return line
	}
	var b strings.Builder
	first := true // nothing but blanks and marks of lists and quotations has come
	for i := 0; i < len(line); i++ {
		c := line[i]
		if c == '<' && i+1 < len(line) && strings.IndexByte(" \t\r\n=<-0123456789", line[i+1]) < 0 && (first || !plain.MatchString(line[i:]) || loads.MatchString(line[i:])) {
			b.WriteString("&lt;")
		} else {
			b.WriteByte(c)
		}
		first = first && strings.IndexByte(" \t>*+-.)0123456789", c) >= 0
	}
	return b.String()
}
