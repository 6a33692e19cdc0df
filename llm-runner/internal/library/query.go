package library

import (
	"math"
	"strings"
)

// A query is a question taken apart. What people type is never FTS5 syntax: only letters and digits reach the index, each
// word inside double quotes.
type query struct {
	terms   []term   // the words that carry meaning, each stem once, in the order of the question
	phrases [][]term // what stood in quotation marks: all their words, in order
	names   []string // folded: what may be the name of a note
}

// A term is a word to be found. Its weight is how much finding it tells: ln(1 + (N-n+0.5)/(n+0.5)) for a word in n of N
// passages, as in BM25.
type term struct {
	word, stem string
	weight     float64
}

// maxTerms bounds a question: of a pasted page the first words must do.
const maxTerms = 32

// parse takes a question apart.
func parse(text string) query {
	var q query
	seen := map[string]bool{}
	for _, t := range content(bare(text)) {
		if !seen[t.stem] && len(q.terms) < maxTerms {
			seen[t.stem] = true
			q.terms = append(q.terms, term{word: t.word, stem: t.stem})
		}
	}
	for _, quoted := range quotations(text) {
		var phrase []term
		for _, t := range tokens(quoted) {
			if len(phrase) < maxTerms {
				phrase = append(phrase, term{word: t.word, stem: t.stem})
			}
		}
		if len(phrase) > 0 && len(q.phrases) < 4 {
			q.phrases = append(q.phrases, phrase)
		}
	}
	candidates := []string{text}
	for _, f := range strings.Fields(text) {
		if f = strings.Trim(f, "\"'`()[]<>,;:?!."); isMarkdown(f) && len(candidates) < 8 {
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

// bare takes the ending .md off the file names in text: it says nothing of what is sought.
func bare(text string) string {
	if !strings.Contains(strings.ToLower(text), ".m") {
		return text
	}
	fields := strings.Fields(text)
	for i, f := range fields {
		if f = strings.TrimRight(f, "\"'`)]>,;:?!."); isMarkdown(f) {
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

// weigh sets the weights of q's terms. of is how many passages hold a stem, n how many there are.
func (q *query) weigh(of map[string]int, n int) {
	for i := range q.terms {
		in := float64(min(of[q.terms[i].stem], n))
		q.terms[i].weight = math.Log(1 + (float64(n)-in+0.5)/(in+0.5))
	}
}

// anyOf returns the FTS5 query for passages that hold any of terms, allOf for those that hold all of them, exactly for
// those that hold them one after the other.
func anyOf(terms []term) string   { return join(terms, " OR ") }
func allOf(terms []term) string   { return join(terms, " AND ") }
func exactly(terms []term) string { return `"` + strings.ReplaceAll(join(terms, " "), `"`, "") + `"` }

func join(terms []term, by string) string {
	quoted := make([]string, len(terms))
	for i, t := range terms {
		quoted[i] = `"` + t.word + `"`
	}
	return strings.Join(quoted, by)
}
