package extract

import (
	"errors"
	"strconv"
	"strings"
)

// A grid is a table in the making: rows of cells. Tables within tables become text of their cell.
type grid struct {
	rows [][]string
	deep int // tables within it that are open
}

// write writes the table as Markdown; the first row is its head.
func (t *grid) write(w *writing) {
	columns := 0
	for _, r := range t.rows {
		columns = max(columns, len(r))
	}
	if columns == 0 {
		return
	}
	if columns == 1 { // a frame around text
		for _, r := range t.rows {
			if len(r) == 1 {
				w.block(r[0])
			}
		}
		return
	}
	for i, r := range t.rows {
		var b strings.Builder
		for c := range columns {
			cell := ""
			if c < len(r) {
				cell = strings.ReplaceAll(strings.Join(strings.Fields(r[c]), " "), "|", `\|`)
			}
			b.WriteString("| " + cell + " ")
		}
		b.WriteString("|")
		if i == 0 {
			w.block(b.String())
			w.line(strings.Repeat("| --- ", columns) + "|")
			continue
		}
		w.line(b.String())
	}
}

// A page is a document's body in the making, as Word and OpenDocument both have it: paragraphs, headings, items of lists, tables.
type page struct {
	out      writing
	para     strings.Builder
	level    int // of the heading that the paragraph is; 0 none
	item     int // depth of the list that it is an item of; 0 none
	wasItem  bool
	table    *grid
	cell     strings.Builder
	inCell   bool
	unlisted bool // the paragraph goes on an item
}

func (p *page) end() {
	text := strings.TrimSpace(tidy(p.para.String()))
	p.para.Reset()
	level, item := p.level, p.item
	p.level = 0
	if text == "" {
		return
	}
	if p.table != nil && p.inCell {
		p.cell.WriteString(text + "\n")
		if p.cell.Len() > MaxText {
			panic(errText)
		}
		return
	}
	switch {
	case level > 0:
		p.out.block(strings.Repeat("#", min(level, 6)) + " " + strings.Join(strings.Fields(text), " "))
	case item > 0:
		indent := strings.Repeat("  ", min(item, 8)-1)
		mark := "- "
		if p.unlisted {
			mark = "  "
		}
		text = indent + mark + strings.ReplaceAll(text, "\n", "\n"+indent+"  ")
		if p.wasItem {
			p.out.line(text)
		} else {
			p.out.block(text)
		}
	default:
		p.out.block(text)
	}
	p.wasItem = item > 0
}

func (p *page) openTable() {
	if p.table == nil {
		p.table = &grid{}
	}
	p.table.deep++
}

func (p *page) openRow() {
	if p.table != nil && p.table.deep == 1 {
		p.table.rows = append(p.table.rows, nil)
	}
}

func (p *page) openCell() {
	if p.table != nil && p.table.deep == 1 {
		p.inCell = true
		p.cell.Reset()
	}
}

func (p *page) closeCell() {
	if p.table == nil || p.table.deep != 1 || len(p.table.rows) == 0 {
		return
	}
	p.end()
	last := len(p.table.rows) - 1
	p.table.rows[last] = append(p.table.rows[last], p.cell.String())
	p.inCell = false
}

func (p *page) closeTable() {
	if p.table == nil {
		return
	}
	if p.table.deep--; p.table.deep == 0 {
		p.table.write(&p.out)
		p.table, p.inCell, p.wasItem = nil, false, false
	}
}

// readWord reads a Word document (ECMA-376, part 1, section 17).
func readWord(data []byte) (t Text, err error) {
	defer bounded(&err)
	a, err := openArchive(data)
	if err != nil {
		return t, err
	}
	main, err := a.read("word/document.xml")
	if errors.Is(err, errMissing) {
		return t, Unreadable("is no Word document: it has no word/document.xml")
	}
	if err != nil {
		return t, err
	}
	styles := stylesOf(a)
	var p page
	if err := p.word(main, styles); err != nil {
		return t, err
	}
	for _, name := range []string{"word/footnotes.xml", "word/endnotes.xml"} {
		notes, err := a.read(name)
		if errors.Is(err, errMissing) {
			continue
		}
		if err != nil {
			return t, err
		}
		if err := p.word(notes, styles); err != nil {
			return t, err
		}
	}
	t.Body = p.out.String()
	if properties, err := a.read("docProps/core.xml"); err == nil {
		t.Title, t.Day = titleOf(properties)
	}
	return t, nil
}

// Styles of Word: which are headings, and of which level, and which are lists.
type wordStyles struct {
	levels map[string]int
	lists  map[string]bool
}

// stylesOf reads the styles: headings by name ("heading 1" in every language) or outline level, lists by their numbering.
func stylesOf(a *archive) wordStyles {
	s := wordStyles{map[string]int{}, map[string]bool{}}
	styles, err := a.read("word/styles.xml")
	if err != nil {
		return s
	}
	id := ""
	walkXML(styles, func(e element) bool { //nolint:errcheck // without them headings are paragraphs
		switch e.name {
		case "style":
			id = e.attr("styleId")
		case "name":
			name := strings.ToLower(e.attr("val"))
			if n, err := strconv.Atoi(strings.TrimPrefix(name, "heading ")); err == nil && n >= 1 && n <= 9 {
				s.levels[id] = n
			}
			if name == "title" {
				s.levels[id] = 1
			}
		case "outlineLvl":
			if n, err := strconv.Atoi(e.attr("val")); err == nil && n >= 0 && n <= 8 && s.levels[id] == 0 {
				s.levels[id] = n + 1
			}
		case "numPr":
			s.lists[id] = true
		}
		return true
	}, func(string) {}, func(string) {})
	return s
}

func (p *page) word(data []byte, styles wordStyles) error {
	inText := false
	return walkXML(data, func(e element) bool {
		switch e.name {
		case "p":
			p.level, p.item = 0, 0
		case "pStyle":
			p.level = styles.levels[e.attr("val")]
			if styles.lists[e.attr("val")] && p.level == 0 {
				p.item = 1
			}
		case "outlineLvl":
			if n, err := strconv.Atoi(e.attr("val")); err == nil && n >= 0 && n <= 8 {
				p.level = n + 1
			}
		case "numPr":
			p.item = 1
		case "ilvl":
			if n, err := strconv.Atoi(e.attr("val")); err == nil && p.item > 0 && n >= 0 {
				p.item = n + 1
			}
		case "numId":
			if e.attr("val") == "0" { // the style's list is taken off
				p.item = 0
			}
		case "t":
			inText = true
		case "tab", "ptab":
			if p.para.Len() > 0 { // not the stops of the paragraph's properties, which come before its text
				p.para.WriteByte('\t')
			}
		case "br", "cr":
			p.para.WriteByte('\n')
		case "noBreakHyphen":
			p.para.WriteByte('-')
		case "tbl":
			p.openTable()
		case "tr":
			p.openRow()
		case "tc":
			p.openCell()
		case "del", "moveFrom", "Fallback", "instrText", "pPrChange", "rPrChange", "comment": // what is crossed out, said twice, or no text
			return false
		case "footnote", "endnote":
			return e.attr("type") == "" // the others are lines between
		}
		return true
	}, func(name string) {
		switch name {
		case "p":
			p.end()
		case "t":
			inText = false
		case "tc":
			p.closeCell()
		case "tbl":
			p.closeTable()
		}
	}, func(s string) {
		if inText {
			p.para.WriteString(s)
		}
	})
}

// readODT reads an OpenDocument text (OASIS OpenDocument 1.3, part 3).
func readODT(data []byte) (t Text, err error) {
	defer bounded(&err)
	a, err := openArchive(data)
	if err != nil {
		return t, err
	}
	if manifest, err := a.read("META-INF/manifest.xml"); err == nil && strings.Contains(string(manifest), "encryption-data") {
		return t, Unreadable("is protected by a password")
	}
	content, err := a.read("content.xml")
	if errors.Is(err, errMissing) {
		return t, Unreadable("is no OpenDocument text: it has no content.xml")
	}
	if err != nil {
		return t, err
	}
	var p page
	if err := p.odt(content); err != nil {
		return t, err
	}
	t.Body = p.out.String()
	if properties, err := a.read("meta.xml"); err == nil {
		t.Title, t.Day = titleOf(properties)
	}
	return t, nil
}

func (p *page) odt(data []byte) error {
	inPara, lists := 0, 0
	first := true // of an item's paragraphs
	return walkXML(data, func(e element) bool {
		switch e.name {
		case "p", "h":
			if inPara++; inPara > 1 { // a frame within a paragraph
				p.para.WriteByte('\n')
				return true
			}
			p.level, p.item, p.unlisted = 0, lists, lists > 0 && !first
			first = false
			if e.name == "h" {
				n, err := strconv.Atoi(e.attr("outline-level"))
				if err != nil || n < 1 {
					n = 1
				}
				p.level = n
			}
		case "list":
			lists++
		case "list-item":
			first = true
		case "s":
			n, err := strconv.Atoi(e.attr("c"))
			if err != nil || n < 1 {
				n = 1
			}
			p.para.WriteString(strings.Repeat(" ", min(n, 100)))
		case "tab":
			p.para.WriteByte('\t')
		case "line-break":
			p.para.WriteByte('\n')
		case "table":
			p.openTable()
		case "table-row":
			p.openRow()
		case "table-cell":
			p.openCell()
		case "tracked-changes", "annotation", "note-citation", "sequence-decls", "automatic-styles", "font-face-decls", "scripts", "forms":
			return false
		case "note-body":
			p.para.WriteString(" (")
		}
		return true
	}, func(name string) {
		switch name {
		case "p", "h":
			if inPara--; inPara == 0 {
				p.end()
			}
		case "list":
			lists--
		case "note-body":
			p.para.WriteString(")")
		case "table-cell":
			p.closeCell()
		case "table":
			p.closeTable()
		}
	}, func(s string) {
		if inPara > 0 {
			p.para.WriteString(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " "))
			if p.para.Len() > MaxText {
				panic(errText)
			}
		}
	})
}
