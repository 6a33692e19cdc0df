package library

import (
	"path"
	"slices"
	"strings"
	"unicode"

	"home.arpa/lab/llm-runner/internal/extract"
)

// A query is a question taken apart.
type query struct {
	terms   []term   // the words that carry meaning, each stem once, in the order of the question
	phrases [][]term // what stood in quotation marks: all their words, in order
	idents  []ident  // what is one word to its writer: max_conns, rtx-4090, compose.yaml
	names   []string // folded: what may be the name of a note

	// Set by weigh.
	at        map[string]int     // which of terms a stem belongs to
	weights   map[string]float64 // of the stems
	meanWords float64            // in a passage

	most float64 // the weight of the rarest term that is in the notes
}

// An ident is written as text and found by its parts.
type ident struct {
	text  string // in lower case
	parts []term
}

// A term is a word to be found: its stems in each language, and how much finding it tells (index.idf).
type term struct {
	word   string
	stems  []string
	weight float64
	absent bool // in no note
}

// maxTerms bounds a question: of a pasted page the first words must do.
const maxTerms = 32

// parse takes a question apart.
func parse(text string) query {
	var q query
	seen := map[string]bool{}
	for _, t := range content(bare(text)) {
		if x := newTerm(t.word); !seen[x.stems[0]] && len(q.terms) < maxTerms {
			seen[x.stems[0]] = true
			q.terms = append(q.terms, x)
		}
	}
	for _, quoted := range quotations(text) {
		if p := phrase(quoted); len(p) > 0 && len(q.phrases) < 4 {
			q.phrases = append(q.phrases, p)
		}
	}
	for _, f := range strings.Fields(text) {
		if f = strings.Trim(f, fringe); isIdentifier(f) && len(q.idents) < 4 {
			q.idents = append(q.idents, ident{strings.ToLower(f), phrase(f)})
		}
	}
	candidates := []string{text}
	for _, f := range strings.Fields(text) {
		if f = strings.Trim(f, fringe); isNote(f) && len(candidates) < 8 {
			candidates = append(candidates, f)
		}
	}
	for _, c := range candidates {
		if name := fold(c); name != "" && len(name) <= 300 {
			q.names = append(q.names, name)
		}
	}
	return q
}

// fringe is what may stand around a word without belonging to it.
const fringe = "\"'`()[]<>,;:?!.“”„«»"

// phrase returns the words of text, stop words included.
func phrase(text string) []term {
	var p []term
	for _, t := range wordsOf(text) {
		if len(p) < maxTerms && t.word != "" {
			p = append(p, newTerm(t.word))
		}
	}
	return p
}

// isIdentifier says that f is made of parts but is one word to its writer: parts with letters and digits, or joined by an underscore, or a
// file's name and ending. "up-to-date" and "3.14" are none.
func isIdentifier(f string) bool {
	if len(wordsOf(f)) < 2 || strings.HasPrefix(f, "http") {
		return false
	}
	letters := strings.ContainsFunc(f, unicode.IsLetter)
	digits := strings.ContainsFunc(f, unicode.IsDigit)
	ending := path.Ext(f)
	return letters && (digits || strings.Contains(f, "_") || len(ending) > 2 && len(ending) < 7 && len(f) > len(ending)+2)
}

// bare takes the ending .md off the file names in text: it says nothing of what is sought.
func bare(text string) string {
	if !strings.Contains(strings.ToLower(text), ".m") {
		return text
	}
	fields := strings.Fields(text)
	for i, f := range fields {
		if f = strings.TrimRight(f, "\"'`)]>,;:?!."); extract.ByName(f) == extract.Markdown {
			fields[i] = withoutExt(f)
		}
	}
	return strings.Join(fields, " ")
}

// quotations returns what stands between pairs of quotation marks: "so", “so”, „so“ or «so».
func quotations(text string) []string {
	var all []string
	open := -1
	for i, r := range text {
		switch {
		case !strings.ContainsRune("\"“”„«»", r):
		case open < 0:
			open = i + len(string(r))
		default:
			all = append(all, text[open:i])
			open = -1
		}
	}
	return all
}

// weigh sets the weights of q's terms from the index.
func (q *query) weigh(x *index) {
	q.meanWords = float64(max(x.words, 1)) / float64(max(x.passages, 1))
	q.at, q.weights = map[string]int{}, map[string]float64{}
	for i := range q.terms {
		t := &q.terms[i]
		n := 0
		for _, stem := range t.stems {
			n += x.count(stem)
		}
		t.weight, t.absent = x.idf(min(n, x.passages)), n == 0
		if !t.absent {
			q.most = max(q.most, t.weight)
		}
		for _, stem := range t.stems {
			if _, taken := q.at[stem]; !taken {
				q.at[stem] = i
				q.weights[stem] = t.weight
			}
		}
	}
}

// wanted returns the stems of q's terms with their weights.
func (q query) wanted() []wanted {
	var all []wanted
	for _, t := range q.terms {
		for _, stem := range t.stems {
			all = append(all, wanted{stem: stem, weight: t.weight})
		}
	}
	return merged(all)
}

// newTerm returns a term with its stem in each language.
func newTerm(word string) term {
	t := term{word: word}
	for l := range languages {
		if s := l.stem(word); !slices.Contains(t.stems, s) {
			t.stems = append(t.stems, s)
		}
	}
	return t
}

// merged adds up the weights of equal stems.
func merged(all []wanted) []wanted {
	at := map[string]int{}
	var out []wanted
	for _, w := range all {
		if i, ok := at[w.stem]; ok {
			out[i].weight += w.weight
			continue
		}
		at[w.stem] = len(out)
		out = append(out, w)
	}
	return out
}
