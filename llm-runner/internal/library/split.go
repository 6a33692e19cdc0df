package library

import (
	"bytes"
	"path"
	"strings"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/extract"
)

// Sizes of passages in bytes. 800 to 1200 bytes of prose are one thought with its context; code and tables are kept whole
// as far as maxPassage.
const (
	minPassage    = 200
	targetPassage = 1200
	maxPassage    = 4096
)

// A Doc is a note taken apart.
type Doc struct {
	Title     string // of the frontmatter, else the first heading of level 1, else the file's name
	Aliases   []string
	Tags      []string
	Type      string // of the frontmatter, in lower case
	Day       string // of the frontmatter, YYYY-MM-DD
	Generated bool   // the frontmatter says that a program wrote it
	// Passages cover the text without gap or overlap, in order, but for what a program wrote into a person's note.
	Passages []Passage

	language language
}

// A Passage is the bytes [Start, End) of a note.
type Passage struct {
	Heading []string // the trail of headings above it, outermost first
	Start   int
	End     int
	Line    int  // of Start, 1-based
	EndLine int  // of the last byte
	Front   bool // it is the frontmatter
}

// Split takes the note called name apart along its Markdown structure. It never fails: any bytes are some Markdown, and the
// passages put together are text again, byte for byte.
func Split(name string, text []byte) Doc { return splitBlocks(name, text, scan(text)) }

// splitNote is Split for a person's own note: what a program wrote into it, between marks that say so, is in no passage.
func splitNote(name string, text []byte) Doc { return splitBlocks(name, text, scanNote(text)) }

func splitBlocks(name string, text []byte, blocks []block) Doc {
	var d Doc
	if len(blocks) > 0 && blocks[0].kind == front {
		d.readFront(text[blocks[0].start:blocks[0].end])
	}
	s := splitter{text: text}
	inline := extract.ByName(name) == extract.Markdown
	for _, b := range blocks {
		s.add(b)
		if inline {
			d.inlineTags(text, b)
		}
	}
	s.flush()
	d.Passages = s.done
	d.language = languageOf(string(text[:min(len(text), languageSample)]))
	number(text, d.Passages)
	if d.Title == "" {
		d.Title = s.title
	}
	if d.Title == "" {
		d.Title = strings.TrimSuffix(path.Base(name), path.Ext(name))
	}
	return d
}

// splitPages is Split for a text with pages, each of which is taken apart by itself: what is quoted stands on one page.
func splitPages(name string, text []byte, pages []int) Doc {
	if len(pages) < 2 {
		return Split(name, text)
	}
	var whole Doc
	from, line := 0, 1
	for i := range pages {
		to := len(text)
		if i+1 < len(pages) {
			to = min(max(pages[i+1], from), len(text))
		}
		if n := len(whole.Passages); len(bytes.TrimSpace(text[from:to])) == 0 && n > 0 { // an empty page
			whole.Passages[n-1].End = to
			line += bytes.Count(text[from:to], []byte{'\n'})
			from = to
			continue
		}
		d := Split(name, text[from:to])
		if len(whole.Passages) == 0 {
			whole.Title, whole.Aliases, whole.Tags, whole.Type, whole.Day = d.Title, d.Aliases, d.Tags, d.Type, d.Day
		}
		for _, p := range d.Passages {
			p.Start, p.End, p.Line, p.EndLine = p.Start+from, p.End+from, p.Line+line-1, p.EndLine+line-1
			whole.Passages = append(whole.Passages, p)
		}
		line += bytes.Count(text[from:to], []byte{'\n'})
		from = to
	}
	whole.language = languageOf(string(text[:min(len(text), languageSample)]))
	if whole.Title == "" {
		whole.Title = strings.TrimSuffix(path.Base(name), path.Ext(name))
	}
	return whole
}

// A splitter gathers blocks into passages.
type splitter struct {
	text  []byte
	done  []Passage
	title string

	trail   []heading // above what comes next
	section int       // counts headings: passages of one section may be joined

	start, end int  // of the passage in the making
	filled     bool // it holds more than headings
	colon      bool // it ends with a colon: what follows belongs to it
	last       int  // section of the last passage in done
}

type heading struct {
	level int
	text  string
}

func (s *splitter) add(b block) {
	switch b.kind {
	case made:
		s.flush()
		s.start, s.end, s.last = b.end, b.end, -1
		return
	case front:
		s.end = b.end
		s.filled = true
		s.flush()
		s.done[len(s.done)-1].Front = true
		s.last = -1
		return
	case head:
		if s.filled {
			s.flush()
		}
		s.enter(b)
		if b.end-b.start > targetPassage { // not a heading to anybody but a parser
			s.pieces(b)
			return
		}
		s.room(b)
		s.end = b.end
		return
	}
	limit := targetPassage
	if b.kind == code || b.kind == table {
		limit = maxPassage
	}
	if b.end-b.start > limit {
		s.pieces(b)
		return
	}
	if size := b.end - s.start; s.filled && size > targetPassage && (!s.colon || size > maxPassage) {
		s.flush()
	}
	s.room(b)
	s.end = b.end
	s.filled = true
	s.colon = bytes.HasSuffix(bytes.TrimSpace(s.text[b.start:b.end]), []byte(":"))
}

// room makes sure that b does not make the passage larger than maxPassage.
func (s *splitter) room(b block) {
	if b.end-s.start > maxPassage {
		s.flush()
	}
}

// pieces adds a block that is too large for one passage.
func (s *splitter) pieces(b block) {
	limit := targetPassage
	if b.kind == code || b.kind == table {
		limit = maxPassage
	}
	if s.filled {
		s.flush()
	}
	for at := b.start; at < b.end; {
		n := cut(s.text[at:b.end], limit, b.kind)
		if at+n-s.start > maxPassage {
			s.flush()
		}
		at += n
		s.end = at
		s.filled = true
		s.flush()
	}
}

// enter goes into the section that the heading b opens.
func (s *splitter) enter(b block) {
	for len(s.trail) > 0 && s.trail[len(s.trail)-1].level >= b.level {
		s.trail = s.trail[:len(s.trail)-1]
	}
	s.trail = append(s.trail[:len(s.trail):len(s.trail)], heading{b.level, b.text})
	s.section++
	if b.level == 1 && s.title == "" {
		s.title = b.text
	}
}

// flush ends the passage in the making. A short remainder is joined to the passage before it in the same section.
func (s *splitter) flush() {
	if s.end == s.start {
		return
	}
	if n := len(s.done) - 1; n >= 0 && s.last == s.section && s.end-s.start < minPassage &&
		s.end-s.done[n].Start <= targetPassage+minPassage {
		s.done[n].End = s.end
	} else {
		p := Passage{Start: s.start, End: s.end}
		for _, h := range s.trail {
			if h.text != "" {
				p.Heading = append(p.Heading, h.text)
			}
		}
		s.done = append(s.done, p)
	}
	s.start, s.last, s.filled, s.colon = s.end, s.section, false, false
}

// cut returns how many bytes of text, which is longer than limit, make its first piece: up to the end of a line (code,
// tables), of a list item (lists), of a sentence, of a line, of a word, of a character, whichever is found first in the
// second half of limit bytes.
func cut(text []byte, limit int, k kind) int {
	if len(text) <= limit {
		return len(text)
	}
	half := text[limit/2 : limit]
	at := func(i int) int { return limit/2 + i }
	if k == list {
		if i := lastItem(half); i >= 0 {
			return at(i)
		}
	}
	if k != code && k != table {
		if ends := sentenceEnds(string(half)); len(ends) > 0 {
			return at(ends[len(ends)-1])
		}
	}
	if i := bytes.LastIndexByte(half, '\n'); i >= 0 {
		return at(i + 1)
	}
	if i := bytes.LastIndexAny(half, " \t"); i >= 0 {
		return at(i + 1)
	}
	n := limit
	for n > limit-utf8.UTFMax && !utf8.RuneStart(text[n]) {
		n--
	}
	return n
}

// lastItem returns where the last list item that begins in text begins, or -1.
func lastItem(text []byte) int {
	for end := len(text); end > 0; {
		i := bytes.LastIndexByte(text[:end], '\n')
		if i < 0 {
			return -1
		}
		if isItem(text[i+1:]) {
			return i + 1
		}
		end = i
	}
	return -1
}

// number fills in the lines.
func number(text []byte, ps []Passage) {
	line, at := 1, 0
	for i := range ps {
		p := &ps[i]
		line += bytes.Count(text[at:p.Start], []byte{'\n'}) // what programs wrote is in no passage
		at = p.End
		p.Line = line
		body := text[p.Start:p.End]
		n := bytes.Count(body, []byte{'\n'})
		p.EndLine = line + n
		if len(body) > 0 && body[len(body)-1] == '\n' {
			p.EndLine--
		}
		line += n
	}
}
