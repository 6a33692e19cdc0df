package library

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A kind of block, as far as splitting must tell them apart.
type kind int

const (
	para  kind = iota // paragraphs, quotes, HTML, rules
	front             // frontmatter
	head              // ATX and setext headings
	list
	code // fenced
	table
	made // by a program, into a person's note
)

// A block is the bytes [start, end) of a text; blank lines belong to the block before them, those at the top to the first.
type block struct {
	kind       kind
	start, end int
	level      int    // of a heading
	text       string // of a heading, without its marks
}

// scan takes text apart into blocks, line by line, after CommonMark 0.31 as far as passages need it: what is inside lists
// and quotes is not taken apart.
func scan(text []byte) []block { return (&scanner{text: text}).scan() }

// scanNote is scan for a person's note: what programs wrote into it is a block of its own.
func scanNote(text []byte) []block { return (&scanner{text: text, sections: true}).scan() }

func (s *scanner) scan() []block {
	text := s.text
	s.at = s.skipBlank(0)
	if len(bytes.TrimSpace(text)) == 0 {
		if len(text) == 0 {
			return nil
		}
		return []block{{end: len(text)}}
	}
	if end := frontEnd(text); end > 0 {
		s.at = end
		s.close(block{kind: front})
	}
	for s.at < len(text) {
		s.next()
	}
	return s.blocks
}

type scanner struct {
	text   []byte
	at     int // where the next line begins
	begun  int // where the next block begins
	blocks []block

	sections bool             // those that programs wrote are told apart
	ends     map[string][]int // of such, where the lines of their end marks end; nil: not looked for yet
}

// sectionEnd returns where a section ends that a program wrote, if the line at s.at begins one: 0 it does not. Its marks are lines of their own,
// <!-- generated: NAME --> and <!-- end of generated: NAME -->.
func (s *scanner) sectionEnd(line []byte, next int) int {
	name, begins := bytes.CutPrefix(line, []byte("<!-- generated: "))
	name, ends := bytes.CutSuffix(name, []byte(" -->"))
	if !begins || !ends || !s.sections {
		return 0
	}
	if s.ends == nil {
		s.ends = map[string][]int{}
		for at := 0; at < len(s.text); {
			line, after := s.line(at)
			if name, ok := bytes.CutPrefix(line, []byte("<!-- end of generated: ")); ok {
				if name, ok := bytes.CutSuffix(name, []byte(" -->")); ok {
					s.ends[string(name)] = append(s.ends[string(name)], after)
				}
			}
			at = after
		}
	}
	after := s.ends[string(name)]
	if i, _ := slices.BinarySearch(after, next+1); i < len(after) {
		return after[i]
	}
	return 0
}

// line returns the line at i without its ending, and where the next one begins.
func (s *scanner) line(i int) (line []byte, next int) {
	if n := bytes.IndexByte(s.text[i:], '\n'); n >= 0 {
		return bytes.TrimSuffix(s.text[i:i+n], []byte{'\r'}), i + n + 1
	}
	return s.text[i:], len(s.text)
}

func (s *scanner) skipBlank(i int) int {
	for i < len(s.text) {
		line, next := s.line(i)
		if !blank(line) {
			break
		}
		i = next
	}
	return i
}

// close ends the block that the lines before s.at make.
func (s *scanner) close(b block) {
	s.at = s.skipBlank(s.at)
	b.start, b.end = s.begun, s.at
	s.begun = s.at
	s.blocks = append(s.blocks, b)
}

func (s *scanner) next() {
	line, next := s.line(s.at)
	if s.at == 0 {
		line = bytes.TrimPrefix(line, bom)
	}
	if end := s.sectionEnd(line, next); end > 0 {
		s.at = end
		s.close(block{kind: made})
		return
	}
	switch {
	case fenceOf(line) != nil:
		s.fence(fenceOf(line), next)
		s.close(block{kind: code})
	case atx(line) > 0:
		s.at = next
		level := atx(line)
		title := bytes.TrimLeft(line, " ")[level:]
		s.close(block{kind: head, level: level, text: plain(trimHashes(title))})
	case wikiLevel(line) > 0:
		s.at = next
		title := string(bytes.Trim(bytes.TrimSpace(line), "= "))
		s.close(block{kind: head, level: wikiLevel(line), text: plain(title)})
	case isItem(line):
		s.list()
		s.close(block{kind: list})
	case s.tableAt(s.at):
		s.untilBlank()
		s.close(block{kind: table})
	case isQuote(line):
		s.untilBlank()
		s.close(block{kind: para})
	default:
		s.paragraph()
	}
}

// fence moves behind the fenced block that f opens on the line before next.
func (s *scanner) fence(f []byte, next int) {
	for s.at = next; s.at < len(s.text); {
		line, next := s.line(s.at)
		s.at = next
		if c := bytes.TrimSpace(line); len(c) >= len(f) && len(bytes.Trim(c, string(f[:1]))) == 0 {
			return
		}
	}
}

// list moves behind a list: up to a heading, or to a line after a blank one that is neither indented nor an item.
func (s *scanner) list() {
	wasBlank := false
	for first := true; s.at < len(s.text); first = false {
		line, next := s.line(s.at)
		indented := len(line) > 0 && (line[0] == ' ' || line[0] == '\t')
		switch f := fenceOf(bytes.TrimLeft(line, " \t")); {
		case blank(line):
			wasBlank = true
			s.at = next
			continue
		case !first && !indented && atx(line) > 0, wasBlank && !indented && !isItem(line):
			return
		case f != nil && indented:
			s.fence(f, next)
		case f != nil && !first:
			return
		default:
			s.at = next
		}
		wasBlank = false
	}
}

func (s *scanner) untilBlank() {
	for s.at < len(s.text) {
		line, next := s.line(s.at)
		if blank(line) {
			return
		}
		s.at = next
	}
}

// paragraph moves behind a paragraph, or a heading underlined with = or -.
func (s *scanner) paragraph() {
	start := s.at
	for first := true; s.at < len(s.text); first = false {
		line, next := s.line(s.at)
		if first {
			s.at = next
			if isRule(line) {
				break
			}
			continue
		}
		if level := setext(line); level > 0 {
			title := plain(string(bytes.TrimPrefix(s.text[start:s.at], bom)))
			s.at = next
			s.close(block{kind: head, level: level, text: title})
			return
		}
		if blank(line) || fenceOf(line) != nil || atx(line) > 0 || wikiLevel(line) > 0 || isQuote(line) || isItem(line) || s.tableAt(s.at) || s.sectionEnd(line, next) > 0 {
			break
		}
		s.at = next
	}
	s.close(block{kind: para})
}

var bom = []byte("\xef\xbb\xbf")

func blank(line []byte) bool { return len(bytes.TrimSpace(line)) == 0 }

// indent returns the line without its indentation; ok is false where that makes it code (four columns or more).
func indent(line []byte) (rest []byte, ok bool) {
	rest = bytes.TrimLeft(line, " ")
	return rest, len(line)-len(rest) < 4 && (len(rest) == 0 || rest[0] != '\t')
}

// fenceOf returns the fence that line opens, or nil.
func fenceOf(line []byte) []byte {
	rest, ok := indent(line)
	if !ok || len(rest) < 3 || rest[0] != '`' && rest[0] != '~' {
		return nil
	}
	n := len(rest) - len(bytes.TrimLeft(rest, string(rest[:1])))
	if n < 3 || rest[0] == '`' && bytes.IndexByte(rest[n:], '`') >= 0 {
		return nil
	}
	return rest[:n]
}

// atx returns the level of the heading that line is, or 0.
func atx(line []byte) int {
	rest, ok := indent(line)
	n := len(rest) - len(bytes.TrimLeft(rest, "#"))
	if !ok || n < 1 || n > 6 || n < len(rest) && rest[n] != ' ' && rest[n] != '\t' {
		return 0
	}
	return n
}

// wikiLevel returns the level of the MediaWiki heading that line is, or 0: == Title ==, or with the marks apart, = = Title = =. Without a
// space within the marks it is Obsidian's ==highlight==.
func wikiLevel(line []byte) int {
	rest, ok := indent(line)
	rest = bytes.TrimSpace(rest)
	if !ok || len(rest) < 5 || rest[0] != '=' || rest[len(rest)-1] != '=' {
		return 0
	}
	title := bytes.Trim(rest, "= ")
	if len(title) == 0 {
		return 0
	}
	at := bytes.Index(rest, title)
	before, after := rest[:at], rest[at+len(title):]
	left, right := bytes.Count(before, []byte("=")), bytes.Count(after, []byte("="))
	if left != right || left > 6 || before[len(before)-1] != ' ' || after[0] != ' ' {
		return 0
	}
	return left
}

// trimHashes takes the closing # off a heading.
func trimHashes(title []byte) string {
	t := strings.TrimSpace(string(title))
	if cut := strings.TrimRight(t, "#"); cut == "" || strings.HasSuffix(cut, " ") || strings.HasSuffix(cut, "\t") {
		return strings.TrimSpace(cut)
	}
	return t
}

// setext returns the level that line gives to the paragraph above it, or 0.
func setext(line []byte) int {
	rest, ok := indent(line)
	rest = bytes.TrimRight(rest, " \t")
	switch {
	case !ok || len(rest) == 0:
		return 0
	case len(bytes.Trim(rest, "=")) == 0:
		return 1
	case len(bytes.Trim(rest, "-")) == 0:
		return 2
	}
	return 0
}

// isRule says that line is made of dashes, stars or underscores: a rule, which is no heading's text.
func isRule(line []byte) bool { return len(bytes.Trim(line, "-*_= \t")) == 0 }

func isQuote(line []byte) bool {
	rest, ok := indent(line)
	return ok && len(rest) > 0 && rest[0] == '>'
}

// isItem says that line begins a list item: "- ", "* ", "+ ", "1. " or "1) ", at any depth.
func isItem(line []byte) bool {
	rest, ok := indent(line)
	if !ok || len(rest) < 2 {
		return false
	}
	n := 1
	switch c := rest[0]; {
	case c == '-' || c == '*' || c == '+':
	case c >= '0' && c <= '9':
		for n < len(rest) && n < 9 && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		if n == len(rest) || rest[n] != '.' && rest[n] != ')' {
			return false
		}
		n++
	default:
		return false
	}
	return n < len(rest) && (rest[n] == ' ' || rest[n] == '\t')
}

// tableAt says that a table begins at i: a line with a bar, and below it a row of dashes.
func (s *scanner) tableAt(i int) bool {
	line, next := s.line(i)
	if next >= len(s.text) || bytes.IndexByte(line, '|') < 0 {
		return false
	}
	below, _ := s.line(next)
	return bytes.IndexByte(below, '-') >= 0 && bytes.IndexByte(below, '|') >= 0 && len(bytes.Trim(below, "|-: \t")) == 0
}

// plain takes the marks of emphasis, code and links off a heading, and bounds its length.
func plain(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 200 {
		n := 200
		for !utf8.RuneStart(s[n]) && n > 196 {
			n--
		}
		s = s[:n]
	}
	s = unlink(s)
	return strings.NewReplacer("**", "", "__", "", "`", "", "==", "").Replace(s)
}

// unlink replaces [text](target) and [[target|text]] by what the reader sees.
func unlink(s string) string {
	for from := 0; ; {
		open := strings.IndexByte(s[from:], '[')
		if open < 0 {
			return s
		}
		open += from
		if inner, ok := strings.CutPrefix(s[open:], "[["); ok {
			if end := strings.Index(inner, "]]"); end >= 0 {
				text := inner[:end]
				if _, shown, ok := strings.Cut(text, "|"); ok {
					text = shown
				}
				s = s[:open] + text + inner[end+2:]
				from = open + len(text)
				continue
			}
		} else if mid := strings.Index(s[open:], "]("); mid > 0 {
			if end := strings.IndexByte(s[open+mid:], ')'); end > 0 {
				text := s[open+1 : open+mid]
				s = s[:open] + text + s[open+mid+end+1:]
				from = open + len(text)
				continue
			}
		}
		from = open + 1
	}
}

// sentenceEnds returns the offsets at which a sentence of text has ended and the next begins: after . ! or ? with white
// space behind, where what follows does not begin in lower case; and after blank lines.
func sentenceEnds(text string) []int {
	var ends []int
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '.', '!', '?':
			j := i + 1
			for j < len(text) && strings.IndexByte("\"')]*_`", text[j]) >= 0 {
				j++
			}
			k := j
			for k < len(text) && (text[k] == ' ' || text[k] == '\n' || text[k] == '\r' || text[k] == '\t') {
				k++
			}
			if k == j || k == len(text) {
				i = max(i, k-1)
				continue
			}
			if r, _ := utf8.DecodeRuneInString(text[k:]); !unicode.IsLower(r) {
				ends = append(ends, k)
			}
			i = k - 1
		case '\n':
			k := i + 1
			for k < len(text) && (text[k] == '\n' || text[k] == '\r') {
				k++
			}
			if strings.Count(text[i:k], "\n") > 1 && k < len(text) {
				ends = append(ends, k)
			}
			i = k - 1
		}
	}
	return ends
}
