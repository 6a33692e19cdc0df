// Package progress reads where projects stand from the owner's own notes: Markdown task lists whose headings are phases, with
// gates and dependencies written as links. Parse and Lay are pure; a Service reads the notes, remembers each day's numbers and ticks
// tasks in the notes themselves.
package progress

import (
	"bytes"
	"path"
	"regexp"
	"strings"
)

// A Project is one note of `type: project`.
type Project struct {
	Path   string  `json:"path"` // of the note, with slashes
	Title  string  `json:"title"`
	Phases []Phase `json:"phases"`
}

// A Phase is a heading of a project's note and the tasks below it.
type Phase struct {
	Name  string   `json:"name"`
	Line  int      `json:"line"` // 1-based, of the heading; 0 where the tasks stand before any
	Gate  string   `json:"gate"` // what is proved when all its tasks are done; "" it is no gate
	After []string `json:"-"`    // links as they are written: "note#Phase", "#Phase", "note"
	Tasks []Task   `json:"tasks"`
}

// A Task is a line of a task list.
type Task struct {
	Text     string   `json:"text"`
	Done     bool     `json:"done"`
	Dropped  bool     `json:"dropped,omitempty"` // "[-]": it is not to be done any more, and does not count
	Line     int      `json:"line"`              // 1-based
	Depth    int      `json:"depth"`             // 0 for the outermost
	Created  string   `json:"created,omitempty"` // YYYY-MM-DD, as it says itself; "" it does not
	Ended    string   `json:"ended,omitempty"`
	Evidence []string `json:"evidence,omitempty"`

	mark int // the byte of the note between the brackets
}

// Count is how many tasks count, and how many of them are done.
func (p *Phase) Count() (done, total int) {
	for _, t := range p.Tasks {
		if t.Dropped {
			continue
		}
		total++
		if t.Done {
			done++
		}
	}
	return done, total
}

// Count is how many tasks of all phases count, and how many of them are done.
func (p *Project) Count() (done, total int) {
	for i := range p.Phases {
		d, n := p.Phases[i].Count()
		done, total = done+d, total+n
	}
	return done, total
}

var (
	headingPattern = regexp.MustCompile(`^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$`)
	taskPattern    = regexp.MustCompile(`^([ \t]*)(?:[-*+]|\d{1,9}[.)])[ \t]+\[(.)\][ \t]+(.*)$`)
	fencePattern   = regexp.MustCompile("^ {0,3}(```+|~~~+)")
	wordPattern    = regexp.MustCompile(`(?i)^[ \t]*(?:[-*+][ \t]+)?(after|gate)::?[ \t]*(.*)$`)
	linkPattern    = regexp.MustCompile(`\[\[([^\[\]|]+)(?:\|[^\[\]]*)?\]\]`)
)

// A line of a note.
type line struct {
	text  string
	start int // byte of the note
	level int // of a heading; 0 it is none
	name  string
}

// Parse reads a project's note. Headings of level 2 are its phases; where there are none, those of level 1; where there are none either, the
// note is one phase of its title. Deeper headings group the tasks of a phase. Below a heading, a line "after: [[note#Phase]]" names
// what has to be done first, a line "gate: ..." says what the phase proves. Text that is indented below a task is its evidence. What stands in
// a block of code is no task.
func Parse(file string, text []byte) Project {
	p := Project{Path: file, Title: strings.TrimSuffix(path.Base(file), path.Ext(file))}
	front, body := split(text)
	if front.title != "" {
		p.Title = front.title
	}
	lines := scan(text, body)
	level := 2
	if !has(lines, 2) {
		level = 1
	} else if front.title == "" {
		for _, l := range lines {
			if l.level == 1 {
				p.Title = l.name
				break
			}
		}
	}
	now := Phase{Name: p.Title, After: front.after}
	task := -1 // the last one of now
	flush := func() {
		if len(now.Tasks) > 0 || now.Line > 0 {
			p.Phases = append(p.Phases, now)
		}
	}
	for n, l := range lines {
		switch {
		case l.level > 0 && l.level <= level:
			if l.level == level {
				flush()
				now, task = Phase{Name: l.name, Line: number(text, l.start), After: front.after}, -1
			}
			continue
		case l.level > 0:
			task = -1
			continue
		}
		if m := taskPattern.FindStringSubmatchIndex(l.text); m != nil {
			mark := l.text[m[4]:m[5]]
			words := strings.TrimSpace(l.text[m[6]:m[7]])
			now.Tasks = append(now.Tasks, Task{Text: words, Created: dated(createdPattern, words), Ended: dated(endedPattern, words), Done: mark == "x" || mark == "X", Dropped: mark == "-",
				Line: number(text, l.start), Depth: depth(l.text[m[2]:m[3]]), mark: l.start + m[4]})
			task = len(now.Tasks) - 1
			continue
		}
		words := strings.TrimSpace(l.text)
		indented := words != "" && (l.text[0] == ' ' || l.text[0] == '\t')
		switch m := wordPattern.FindStringSubmatch(l.text); {
		case task >= 0 && indented:
			now.Tasks[task].Evidence = append(now.Tasks[task].Evidence, strings.TrimLeft(words, "-*+> \t"))
		case m != nil && strings.EqualFold(m[1], "gate"):
			now.Gate = m[2]
		case m != nil:
			now.After = append(now.After[:len(now.After):len(now.After)], links(m[2])...)
		case words != "":
			task = -1
		case n+1 < len(lines) && !strings.HasPrefix(lines[n+1].text, " ") && !strings.HasPrefix(lines[n+1].text, "\t"):
			task = -1
		}
	}
	flush()
	return p
}

// front is what a project's note says on top.
type front struct {
	title string
	after []string
}

// split reads the frontmatter, as far as it is of use here, and returns where the rest begins.
func split(text []byte) (f front, body int) {
	text, skipped := bytes.TrimPrefix(text, []byte("\ufeff")), 0
	if bytes.HasPrefix(text, []byte("---\n")) || bytes.HasPrefix(text, []byte("---\r\n")) {
		at := bytes.IndexByte(text, '\n') + 1
		listing := false
		for at < len(text) {
			end := bytes.IndexByte(text[at:], '\n')
			if end < 0 {
				end = len(text) - at - 1
			}
			row := strings.TrimRight(string(text[at:at+end+1]), "\r\n\t ")
			at += end + 1
			if row == "---" || row == "..." {
				skipped = at
				break
			}
			key, value, ok := strings.Cut(row, ":")
			if listing = listing && strings.HasPrefix(strings.TrimSpace(row), "-"); listing {
				f.after = append(f.after, links(row)...)
			} else if ok && strings.EqualFold(key, "title") {
				f.title = strings.Trim(strings.TrimSpace(value), `"'`)
			} else if ok && strings.EqualFold(key, "after") {
				f.after, listing = append(f.after, links(value)...), true
			}
		}
		if skipped == 0 {
			f = front{} // it has no end: it is text
		}
	}
	return f, skipped
}

// scan takes the note apart into lines; those of code blocks are left out.
func scan(text []byte, at int) (all []line) {
	if at == 0 && bytes.HasPrefix(text, []byte("\ufeff")) {
		at = len("\ufeff")
	}
	fence := ""
	for at < len(text) {
		end := bytes.IndexByte(text[at:], '\n')
		if end < 0 {
			end = len(text) - at
		}
		l := line{text: strings.TrimSuffix(string(text[at:at+end]), "\r"), start: at}
		at += end + 1
		if m := fencePattern.FindStringSubmatch(l.text); m != nil {
			if fence == "" {
				fence = m[1]
			} else if strings.HasPrefix(m[1], fence) {
				fence = ""
			}
			continue
		}
		if fence != "" {
			continue
		}
		if m := headingPattern.FindStringSubmatch(l.text); m != nil {
			l.level, l.name = len(m[1]), m[2]
		}
		all = append(all, l)
	}
	return all
}

func has(lines []line, level int) bool {
	for _, l := range lines {
		if l.level == level {
			return true
		}
	}
	return false
}

// number is the 1-based line of a byte.
func number(text []byte, at int) int { return 1 + bytes.Count(text[:at], []byte("\n")) }

// depth counts a tab as four spaces and two spaces as a step.
func depth(indent string) int {
	n := 0
	for _, r := range indent {
		if n++; r == '\t' {
			n += 3
		}
	}
	return n / 2
}

// links returns the targets of the wikilinks in text.
func links(text string) (all []string) {
	for _, m := range linkPattern.FindAllStringSubmatch(text, -1) {
		all = append(all, strings.TrimSpace(m[1]))
	}
	return all
}
