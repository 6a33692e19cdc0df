package library

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A resolver reads an answer as a model writes it, and turns its marks, [2: "words"], into numbers of citations whose bytes stand in
// their documents at that moment. Marks that do not hold are taken out and counted.
type resolver struct {
	ctx      context.Context
	lib      *Library
	sources  []Numbered
	withheld bool // the private ones were not shown to the model

	held     string // what has come and may be a mark
	sentence string // what was said since the last sentence's end, for marks without words
	code     bool   // within `code`
	began    bool   // it is known whether the model refused
	refused  bool

	places  []place // of cited
	cited   []llm.Citation
	fresh   []llm.Citation // since the last event
	dropped int
	err     error
}

func newResolver(ctx context.Context, l *Library, sources []Numbered) *resolver {
	return &resolver{ctx: ctx, lib: l, sources: sources}
}

// A place is where a citation stands.
type place struct {
	collection, path string
	start, end       int
}

func (r *resolver) withhold() { r.withheld = true }

// A mark: [2], [2, 5], [2: "words"], [Source 2]. Whatever kind of quotation marks stands around the words.
var markPattern = regexp.MustCompile(`(?is)^\[\s*(?:sources?|quellen?|note|notiz)?\s*#?(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)(?:\s*[:,]?\s*["“”„«»‚‘'](.*)["“”„«»‘’']\s*)?\]$`)

// longestMark bounds what is held back while it may be a mark, in bytes.
const longestMark = 1500

// feed takes what came and returns what can be shown.
func (r *resolver) feed(text string) (string, []llm.Citation) {
	r.held += text
	if !r.began {
		start := strings.TrimLeft(r.held, " \t\n*_`\"'>")
		if len(start) < len(unanswered) && strings.HasPrefix(unanswered, start) {
			return "", nil
		}
		r.began = true
		r.refused = strings.HasPrefix(start, unanswered)
	}
	if r.refused {
		return "", nil
	}
	var out strings.Builder
	for r.held != "" && r.err == nil {
		i := strings.IndexAny(r.held, "[`")
		said := len(strings.TrimRight(r.held[:max(i, 0)], " ")) // the space before a mark goes with the mark
		if i < 0 {
			said = len(strings.TrimRight(r.held, " "))
			r.say(&out, r.held[:said])
			r.held = r.held[said:]
			break
		}
		r.say(&out, r.held[:said])
		space, rest := r.held[said:i], r.held[i:]
		if rest[0] == '`' {
			r.code = !r.code
			r.say(&out, space+"`")
			r.held = rest[1:]
			continue
		}
		end, open := markEnd(rest)
		if r.code || !open && end < 0 {
			r.say(&out, space+"[")
			r.held = rest[1:]
			continue
		}
		if end < 0 {
			r.held = space + rest
			break // more must come
		}
		if m := markPattern.FindStringSubmatch(rest[:end]); m != nil {
			if shown := r.mark(m[1], m[2]); shown != "" {
				out.WriteString(space + shown)
			}
		} else {
			r.say(&out, space+rest[:end])
		}
		r.held = rest[end:]
	}
	fresh := r.fresh
	r.fresh = nil
	return out.String(), fresh
}

// end returns what was held back.
func (r *resolver) end() (string, []llm.Citation) {
	if !r.began { // shorter than the word of refusal
		r.began = true
		r.refused = strings.TrimSpace(r.held) == ""
	}
	text, fresh := r.feed("")
	if r.refused {
		return "", nil
	}
	text += r.held // half a mark is none
	r.held = ""
	return text, fresh
}

// markEnd returns where a mark at the beginning of text ends; -1 where it does not (yet), and open says that it may.
func markEnd(text string) (end int, open bool) {
	quoted := false
	for i, c := range text {
		switch {
		case i > longestMark || c == '\n' && !quoted:
			return -1, false
		case i == 1 && !unicode.IsDigit(c) && !strings.ContainsRune("sSqQnN# ", c):
			return -1, false
		case strings.ContainsRune(`"“”„«»`, c):
			quoted = !quoted || c == '„' || c == '“' && !strings.Contains(text[:i], "„")
		case c == ']' && !quoted:
			return i + 1, true
		}
	}
	if quoted { // a quote that did not close before its mark
		if i := strings.LastIndex(text, "]"); i > 0 && len(text) > longestMark/2 {
			return i + 1, true
		}
	}
	return -1, true
}

func (r *resolver) say(out *strings.Builder, text string) {
	out.WriteString(text)
	r.sentence += text
	if n := len(r.sentence) - 2000; n > 0 {
		r.sentence = strings.ToValidUTF8(r.sentence[n:], "")
	}
}

// mark resolves one mark of a model, and returns what stands in its place. What comes before it is already said.
func (r *resolver) mark(numbers, words string) (shown string) {
	for part := range strings.FieldsFuncSeq(numbers, func(c rune) bool { return !unicode.IsDigit(c) }) {
		n, _ := strconv.Atoi(part) // at most three digits
		c, ok := r.resolve(n, words)
		if r.err != nil {
			return ""
		}
		if !ok {
			r.dropped++
			continue
		}
		at := place{c.Collection, c.Path, c.Start, c.End}
		number := slices.Index(r.places, at) + 1
		if number == 0 {
			r.cited, r.fresh, r.places = append(r.cited, c), append(r.fresh, c), append(r.places, at)
			number = len(r.cited)
		}
		shown += "[" + strconv.Itoa(number) + "]"
	}
	return shown
}

// claim returns the sentence that a mark stands behind.
func (r *resolver) claim() string {
	text := strings.TrimRight(r.sentence, " \t\n")
	ends := sentenceEnds(text)
	from := 0
	for _, e := range ends {
		if e < len(strings.TrimRight(text, ".!?:;")) {
			from = e
		}
	}
	if i := strings.LastIndex(text[from:], "\n\n"); i >= 0 {
		from += i
	}
	return text[from:]
}

// resolve finds what a mark cites: the words, in source n or whichever has them; without words what in source n says most of the claim.
func (r *resolver) resolve(n int, words string) (llm.Citation, bool) {
	var from, to int
	s, ok := r.source(n)
	if words != "" {
		if from, to, ok = r.locate(s, ok, words, &s); !ok {
			return llm.Citation{}, false
		}
	} else {
		if !ok {
			return llm.Citation{}, false
		}
		if from, to, ok = supports(s, r.claim()); !ok {
			return llm.Citation{}, false
		}
	}
	c := narrow(s.Citation, from, to)
	if strings.TrimSpace(c.Quote) == "" {
		return c, false
	}
	look := r.lib.shelf() // the document is read again: an answer may take minutes to write
	defer look.close()
	c, ok, err := look.cite(r.ctx, s.In, c)
	if err != nil {
		r.err = err
	}
	return c, ok
}

// source returns source n, if the model was shown it.
func (r *resolver) source(n int) (Numbered, bool) {
	if n < 1 || n > len(r.sources) || r.withheld && r.sources[n-1].Private {
		return Numbered{}, false
	}
	return r.sources[n-1], true
}

// locate finds words in a source, or else in another one that the model was shown.
func (r *resolver) locate(s Numbered, has bool, words string, found *Numbered) (from, to int, ok bool) {
	if has {
		if from, to, ok = locate(s.Quote, words); ok {
			return from, to, true
		}
	}
	for i := range r.sources {
		if s, shown := r.source(i + 1); shown {
			if from, to, ok = locate(s.Quote, words); ok {
				*found = s
				return from, to, true
			}
		}
	}
	return 0, 0, false
}

// Locate returns the bytes of text that words quote: as they stand, or but for case, white space, emphasis and kinds of quotation marks.
func Locate(text, words string) (from, to int, ok bool) { return locate(text, words) }

// locate returns the bytes of text that words quote: as they stand, or but for case, white space, marks of emphasis and kinds of quotation
// marks. Of words with a gap ("one ... two") the longest piece counts. Fewer than three letters quote nothing.
func locate(text, words string) (from, to int, ok bool) {
	words = strings.TrimSpace(words)
	if pieces := strings.Split(strings.ReplaceAll(words, "...", "…"), "…"); len(pieces) > 1 {
		words = strings.TrimSpace(slices.MaxFunc(pieces, func(a, b string) int { return len(a) - len(b) }))
	}
	if i := strings.Index(text, words); i >= 0 && letters(words) >= 3 {
		return i, i + len(words), true
	}
	plainWords, _ := leveled(strings.Trim(words, " .,;:!?"))
	if letters(string(plainWords)) < 3 {
		return 0, 0, false
	}
	plainText, at := leveled(text)
	i := strings.Index(string(plainText), string(plainWords))
	if i < 0 {
		return 0, 0, false
	}
	last := i + len(plainWords) - 1
	_, size := utf8.DecodeRuneInString(text[at[last]:])
	return at[i], at[last] + size, true
}

func letters(s string) int {
	n := 0
	for _, c := range s {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			n++
		}
	}
	return n
}

// leveled returns text with what a copyist changes made alike, and for each of its bytes which byte of text it came from.
func leveled(text string) (out []byte, at []int) {
	space := true
	for i, c := range text {
		switch {
		case c == '*' || c == '_' || c == '`' || c == '=' || c == '>' || c == '|' || c == '\\' || c == '\u00ad':
			continue
		case unicode.IsSpace(c):
			if space {
				continue
			}
			space = true
			out, at = append(out, ' '), append(at, i)
			continue
		case strings.ContainsRune("“”„«»\"", c):
			c = '"'
		case strings.ContainsRune("‘’‚'", c):
			c = '\''
		case strings.ContainsRune("–—‐‑−", c):
			c = '-'
		}
		space = false
		before := len(out)
		out = utf8.AppendRune(out, unicode.ToLower(c))
		for range len(out) - before {
			at = append(at, i)
		}
	}
	for len(out) > 0 && out[len(out)-1] == ' ' {
		out, at = out[:len(out)-1], at[:len(at)-1]
	}
	return out, at
}

// supported is the part of a claim's words, stop words left out, that a passage must hold to be what it rests on.
const supported = 0.3

// supports returns the sentence, item or block of a source that holds most of a claim, unless that is too little.
func supports(s Numbered, claim string) (from, to int, ok bool) {
	want := map[string]bool{}
	for _, t := range tokens(claim, s.Language) {
		if !isStop(t.word) && t.stem != "" {
			want[t.stem] = true
		}
	}
	if len(want) == 0 {
		return 0, 0, false
	}
	best := 0
	for _, b := range parts(s.Quote, 1) {
		if b.kind == head {
			continue
		}
		has := map[string]bool{}
		for _, t := range tokens(s.Quote[b.start:b.end], s.Language) {
			if want[t.stem] {
				has[t.stem] = true
			}
		}
		if len(has) > best {
			best, from, to = len(has), b.start, b.end
		}
	}
	return from, to, float64(best) >= supported*float64(len(want)) && best > 0
}
