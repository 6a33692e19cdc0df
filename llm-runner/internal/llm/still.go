package llm

import (
	"regexp"
	"strings"
)

// Still is a Markdown text that a model wrote, as it may stand in a note: an editor that shows it loads nothing from elsewhere, for the address of
// a picture can carry away what the model knew. Pictures become links, and tags are shown as they are written; links stay, since a person
// follows those. Blocks of code stay byte for byte.
func Still(text string) string {
	lines := strings.SplitAfter(text, "\n")
	fence := ""
	// Between the marks of a formula or a comment (of Obsidian) a fence is none: where there are such, no block of code is believed.
	believed := !strings.Contains(text, "$$") && !strings.Contains(text, "%%")
	for i, line := range lines {
		bare := strings.TrimRight(line, " \t\r\n")
		switch {
		case fence != "":
			if strings.HasPrefix(bare, fence) && strings.Trim(bare, fence[:1]) == "" {
				fence = ""
			}
		case believed && fenced.MatchString(bare):
			fence = fenced.FindStringSubmatch(bare)[1]
		default:
			lines[i] = calm(line)
		}
	}
	return strings.Join(lines, "")
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
