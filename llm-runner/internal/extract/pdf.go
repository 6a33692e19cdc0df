package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ledongthuc/pdf"
	"golang.org/x/text/unicode/norm"
)

// readPDF reads a PDF page by page (ISO 32000-1). Ligatures become letters (NFKC), words that were cut at the end of a line are whole again.
// Pages without text are told as scans; pages that cannot be read are told and left out.
func readPDF(ctx context.Context, data []byte) (t Text, err error) {
	defer bounded(&err)
	r, err := openPDF(data)
	if err != nil {
		return t, err
	}
	leaves, err := pagesOf(r)
	if err != nil {
		return t, err
	}
	n := len(leaves)
	t.Title, t.Day = properties(r)
	var out writing
	var scans, faulty, garbled []int
	for i := 1; i <= n; i++ {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		text, err := leaves[i-1].text()
		t.Pages = append(t.Pages, out.Len())
		switch {
		case isUnreadable(err):
			return t, err
		case err != nil:
			faulty = append(faulty, i)
			continue
		case text == "":
			scans = append(scans, i)
			continue
		case isGarbled(text):
			garbled = append(garbled, i)
		}
		if out.Len() > 0 {
			out.WriteString("\n")
			t.Pages[i-1] = out.Len()
		}
		out.line(text)
	}
	if n == 0 {
		return t, Unreadable("is a PDF without pages")
	}
	if out.Len() == 0 {
		switch {
		case len(faulty) == 0:
			return t, Unreadable(fmt.Sprintf("is a scan: none of its %s has text; ocrmypdf, for one, adds it", pages(n)))
		case len(scans) == 0:
			return t, Unreadable(fmt.Sprintf("is damaged: none of its %s can be read", pages(n)))
		}
		return t, Unreadable(fmt.Sprintf("has no text on any of its %s: some are scans, some are damaged", pages(n)))
	}
	t.Pages[0] = 0
	for _, x := range []struct {
		pages     []int
		one, many string
	}{
		{scans, "has no text and is a scan or empty", "have no text and are scans or empty"},
		{faulty, "is damaged and left out", "are damaged and left out"},
		{garbled, "reads badly: its font does not say which letters it shows", "read badly: their fonts do not say which letters they show"},
	} {
		switch len(x.pages) {
		case 0:
		case 1:
			t.Remarks = append(t.Remarks, fmt.Sprintf("page %d %s", x.pages[0], x.one))
		default:
			t.Remarks = append(t.Remarks, fmt.Sprintf("pages %s %s", list(x.pages), x.many))
		}
	}
	t.Body = out.String()
	return t, nil
}

func pages(n int) string {
	if n == 1 {
		return "page"
	}
	return fmt.Sprintf("%d pages", n)
}

// list writes page numbers, runs of them as from-to, and not endlessly.
func list(pages []int) string {
	var parts []string
	for i := 0; i < len(pages); {
		j := i
		for j+1 < len(pages) && pages[j+1] == pages[j]+1 {
			j++
		}
		if len(parts) == 10 {
			return strings.Join(parts, ", ") + " and others"
		}
		if j > i {
			parts = append(parts, fmt.Sprintf("%d-%d", pages[i], pages[j]))
		} else {
			parts = append(parts, fmt.Sprint(pages[i]))
		}
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

// openPDF opens what readers open: the library wants the header of version 1 at the very beginning and the mark of the end within the last
// hundred bytes, while many files have something before and after.
func openPDF(data []byte) (r *pdf.Reader, err error) {
	start := bytes.Index(data[:min(len(data), 1024)], []byte("%PDF-"))
	if start < 0 {
		return nil, Unreadable("is no PDF: it does not begin like one")
	}
	data = slices.Clone(data[start:])
	if len(data) > 10 {
		copy(data, "%PDF-1.7\n")
	}
	if end := bytes.LastIndex(data, []byte("%%EOF")); end >= 0 {
		data = data[:end+len("%%EOF")]
	} else {
		return nil, Unreadable("is damaged: its end is missing")
	}
	if len(data) < 100 { // the library reads the last hundred bytes
		return nil, Unreadable("is damaged: it is too short for a PDF")
	}
	r, err = pdf.NewReader(bytes.NewReader(data), int64(len(data)))
	switch {
	case errors.Is(err, pdf.ErrInvalidPassword):
		return nil, Unreadable("is protected by a password")
	case err != nil:
		return nil, Unreadable(fmt.Sprintf("is damaged: %.100v", err))
	}
	return r, nil
}

func properties(r *pdf.Reader) (title, day string) {
	defer func() { recover() }() //nolint:errcheck // a title is no reason to lose a document
	info := r.Trailer().Key("Info")
	title = info.Key("Title").Text()
	if d := strings.TrimPrefix(info.Key("CreationDate").Text(), "D:"); len(d) >= 8 && strings.Trim(d[:8], "0123456789") == "" {
		day = d[:4] + "-" + d[4:6] + "-" + d[6:8]
	}
	return title, day
}

// A leaf is a page, and the resources that it has or inherits.
type leaf struct{ page, resources pdf.Value }

// maxTree is how deep trees of pages may be. Those of writers are two to five deep.
const maxTree = 64

// pagesOf lists the pages. The library's own way takes each from the top of the tree, and for ever where that leads in a circle.
func pagesOf(r *pdf.Reader) (all []leaf, err error) {
	var visit func(v, resources pdf.Value, deep int) error
	visit = func(v, resources pdf.Value, deep int) error {
		if own := v.Key("Resources"); !own.IsNull() {
			resources = own
		}
		kids := v.Key("Kids")
		switch {
		case deep > maxTree:
			return Unreadable("is damaged: its pages lead in a circle")
		case kids.Kind() != pdf.Array:
			if all = append(all, leaf{v, resources}); len(all) > maxPages {
				return Unreadable(fmt.Sprintf("has more than %d pages", maxPages))
			}
			return nil
		}
		for i := range kids.Len() {
			if err := visit(kids.Index(i), resources, deep+1); err != nil {
				return err
			}
		}
		return nil
	}
	top := r.Trailer().Key("Root").Key("Pages")
	if top.IsNull() {
		return nil, Unreadable("is a PDF without pages")
	}
	return all, visit(top, pdf.Value{}, 0)
}

func (x leaf) text() (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			if u, ok := p.(Unreadable); ok {
				err = u
				return
			}
			err = fmt.Errorf("read page: %.100v", p)
		}
	}()
	if x.page.IsNull() {
		return "", errors.New("read page: it is missing")
	}
	l := layout{fonts: map[string]*font{}}
	l.run(x.page.Key("Contents"), x.resources, 0)
	return strings.TrimSpace(paragraphs(tidy(norm.NFKC.String(l.out.String())))), nil
}

// paragraphs joins words that were cut at the end of a line: "exam-", "ple" is "example". A capital or a digit after the dash keeps it.
func paragraphs(text string) string {
	lines := strings.Split(text, "\n")
	var b strings.Builder
	for i, line := range lines {
		line = strings.Join(strings.Fields(line), " ") // justified text has spaces of its own and gaps besides
		before, _ := utf8.DecodeLastRuneInString(strings.TrimSuffix(line, "-"))
		if i+1 < len(lines) && strings.HasSuffix(line, "-") && unicode.IsLetter(before) {
			next := strings.TrimLeft(lines[i+1], " \t")
			if first, _ := utf8.DecodeRuneInString(next); unicode.IsLower(first) {
				word, rest, _ := strings.Cut(next, " ")
				b.WriteString(strings.TrimSuffix(line, "-") + word + "\n")
				lines[i+1] = rest
				continue
			}
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// isGarbled says that a page's letters are hardly letters: its font does not tell which they are.
func isGarbled(text string) bool {
	good, all := 0, 0
	for _, r := range text {
		if unicode.IsSpace(r) {
			continue
		}
		all++
		if unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsPunct(r) && r != utf8.RuneError || unicode.IsSymbol(r) && r != utf8.RuneError {
			good++
		}
	}
	return all > 20 && good*10 < all*7
}

// A font is what the layout needs of one: which letters its codes are, and how far each moves the pen.
type font struct {
	enc    pdf.TextEncoding
	wide   bool // codes are of two bytes
	widths map[int]float64
	other  float64 // the width of all others, thousandths of the size
}

func newFont(v pdf.Value) *font {
	f := &font{widths: map[int]float64{}, other: 500}
	x := pdf.Font{V: v}
	f.enc = x.Encoder()
	if v.Key("Subtype").Name() == "Type0" {
		f.wide, f.other = true, 1000
		cid := v.Key("DescendantFonts").Index(0)
		if w := cid.Key("DW"); w.Kind() == pdf.Integer {
			f.other = w.Float64()
		}
		f.composite(cid.Key("W"))
		return f
	}
	first := x.FirstChar()
	for i, w := range x.Widths() {
		if i > 256 {
			break
		}
		f.widths[first+i] = w
	}
	return f
}

// composite reads the widths of a composite font: "c [w1 w2 ...]" or "first last w" (ISO 32000-1, 9.7.4.3).
func (f *font) composite(w pdf.Value) {
	for i := 0; i+1 < w.Len() && len(f.widths) < 1<<16; {
		first := int(w.Index(i).Int64())
		if list := w.Index(i + 1); list.Kind() == pdf.Array {
			for j := range min(list.Len(), 1<<16) {
				f.widths[first+j] = list.Index(j).Float64()
			}
			i += 2
			continue
		}
		last, width := int(w.Index(i+1).Int64()), w.Index(i+2).Float64()
		for c := first; c <= last && c-first < 1<<16; c++ {
			f.widths[c] = width
		}
		i += 3
	}
}

// A matrix is the six numbers a b c d e f of one (ISO 32000-1, 8.3.3).
type matrix [6]float64

func (m matrix) mul(n matrix) matrix {
	return matrix{m[0]*n[0] + m[1]*n[2], m[0]*n[1] + m[1]*n[3], m[2]*n[0] + m[3]*n[2], m[2]*n[1] + m[3]*n[3],
		m[4]*n[0] + m[5]*n[2] + n[4], m[4]*n[1] + m[5]*n[3] + n[5]}
}

// A pen is the state of text.
type pen struct {
	ctm, tm, line                             matrix
	font                                      *font
	size, leading, rise, chars, words, scales float64
}

// A layout puts text together as the page shows it: a gap becomes a space, another height a new line, a large step down an empty line.
type layout struct {
	fonts map[string]*font
	pen   pen
	stack []pen
	out   strings.Builder
	forms int
	any   bool
	x, y  float64 // where the last text ended
	last  float64 // its size
}

// Steps are parts of the size of letters.
const (
	gapSpace = 0.15 // a space is some quarter of the size, and kerning at most a tenth
	sameLine = 0.35 // how far up or down still is the same line: indices and powers
	emptyGap = 1.9  // lines follow each other at 1.2
)

const (
	maxForms = 200 // pictures with text of their own, within each other and beside each other
	maxDeep  = 8
)

var identity = matrix{1, 0, 0, 1, 0, 0}

// run goes through a stream of operators.
func (l *layout) run(stream, resources pdf.Value, deep int) {
	if stream.Kind() != pdf.Stream && stream.Kind() != pdf.Array {
		return
	}
	if deep == 0 {
		l.pen = pen{ctm: identity, tm: identity, line: identity, scales: 1}
	}
	floor := len(l.stack)
	pdf.Interpret(stream, func(stk *pdf.Stack, op string) {
		args := make([]pdf.Value, stk.Len())
		for i := len(args) - 1; i >= 0; i-- {
			args[i] = stk.Pop()
		}
		l.operator(op, args, resources, deep, floor)
	})
	l.stack = l.stack[:min(len(l.stack), floor)]
}

// operator carries out one operator; one that lacks operands is left out.
func (l *layout) operator(op string, args []pdf.Value, resources pdf.Value, deep, floor int) {
	p := &l.pen
	num := func(i int) float64 { return args[i].Float64() }
	if len(args) < operands[op] {
		return
	}
	switch op {
	case "q":
		if len(l.stack) < 1000 {
			l.stack = append(l.stack, *p)
		}
	case "Q":
		if n := len(l.stack); n > floor {
			*p, l.stack = l.stack[n-1], l.stack[:n-1]
		}
	case "cm":
		p.ctm = matrix{num(0), num(1), num(2), num(3), num(4), num(5)}.mul(p.ctm)
	case "BT":
		p.tm, p.line = identity, identity
	case "Tc":
		p.chars = num(0)
	case "Tw":
		p.words = num(0)
	case "Tz":
		p.scales = num(0) / 100
	case "TL":
		p.leading = num(0)
	case "Ts":
		p.rise = num(0)
	case "Tf":
		p.size = num(1)
		p.font = l.font(args[0].Name(), resources, deep)
	case "Td":
		p.next(num(0), num(1))
	case "TD":
		p.leading = -num(1)
		p.next(num(0), num(1))
	case "Tm":
		p.line = matrix{num(0), num(1), num(2), num(3), num(4), num(5)}
		p.tm = p.line
	case "T*":
		p.next(0, -p.leading)
	case "Tj":
		l.show(args[0].RawString())
	case "'":
		p.next(0, -p.leading)
		l.show(args[0].RawString())
	case "\"":
		p.words, p.chars = num(0), num(1)
		p.next(0, -p.leading)
		l.show(args[2].RawString())
	case "TJ":
		for i := range args[0].Len() {
			if x := args[0].Index(i); x.Kind() == pdf.String {
				l.show(x.RawString())
			} else {
				p.move(-x.Float64() / 1000 * p.size * p.scales)
			}
		}
	case "Do":
		l.form(resources.Key("XObject").Key(args[0].Name()), resources, deep)
	}
}

// operands is how many each operator needs.
var operands = map[string]int{"cm": 6, "Tc": 1, "Tw": 1, "Tz": 1, "TL": 1, "Ts": 1, "Tf": 2, "Td": 2, "TD": 2, "Tm": 6, "Tj": 1, "'": 1, "\"": 3, "TJ": 1, "Do": 1}

// form runs a picture that is made of operators.
func (l *layout) form(x, resources pdf.Value, deep int) {
	if x.Key("Subtype").Name() != "Form" || deep >= maxDeep || l.forms >= maxForms {
		return
	}
	l.forms++
	own := x.Key("Resources")
	if own.IsNull() {
		own = resources
	}
	before := l.pen
	if m := x.Key("Matrix"); m.Len() == 6 {
		var f matrix
		for i := range f {
			f[i] = m.Index(i).Float64()
		}
		l.pen.ctm = f.mul(l.pen.ctm)
	}
	l.run(x, own, deep+1)
	l.pen = before
}

func (l *layout) font(name string, resources pdf.Value, deep int) *font {
	key := fmt.Sprint(deep, l.forms, " ", name)
	if deep == 0 {
		key = name
	}
	if f, ok := l.fonts[key]; ok {
		return f
	}
	f := newFont(resources.Key("Font").Key(name))
	l.fonts[key] = f
	return f
}

func (p *pen) next(x, y float64) {
	p.line = matrix{1, 0, 0, 1, x, y}.mul(p.line)
	p.tm = p.line
}

func (p *pen) move(x float64) { p.tm = matrix{1, 0, 0, 1, x, 0}.mul(p.tm) }

// show writes a string where the pen is.
func (l *layout) show(raw string) {
	p := &l.pen
	if p.font == nil || raw == "" {
		return
	}
	text := p.font.enc.Decode(raw)
	at := p.tm.mul(p.ctm)
	x, y := at[4]+p.rise*at[2], at[5]+p.rise*at[3]
	size := max(p.size*max(abs(at[3]), abs(at[1])), 0.1)
	l.place(x, y, size)
	l.out.WriteString(text)
	if l.out.Len() > MaxText {
		panic(errText)
	}
	step, wide := 0.0, 1
	if p.font.wide {
		wide = 2
	}
	for i := 0; i+wide <= len(raw); i += wide {
		code := int(raw[i])
		if wide == 2 {
			code = code<<8 | int(raw[i+1])
		}
		w, ok := p.font.widths[code]
		if !ok {
			w = p.font.other
		}
		step += w/1000*p.size + p.chars
		if code == ' ' && wide == 1 {
			step += p.words
		}
	}
	p.move(step * p.scales)
	at = p.tm.mul(p.ctm)
	l.x, l.y, l.last, l.any = at[4], y, size, true
}

// place writes what stands between the last text and one at x, y: nothing, a space, a new line or an empty one.
func (l *layout) place(x, y, size float64) {
	if !l.any {
		return
	}
	s := max(size, l.last)
	down := abs(l.y - y)
	switch {
	case down > emptyGap*s || y-l.y > 2*s:
		l.out.WriteString("\n\n")
	case down > sameLine*s:
		l.out.WriteString("\n")
	case (x-l.x > gapSpace*s || x < l.x-2*s) && !strings.HasSuffix(l.out.String(), " "):
		l.out.WriteString(" ")
	}
}

func abs(x float64) float64 { return max(x, -x) }
