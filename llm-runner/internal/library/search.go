package library

import (
	"context"
	"slices"
	"sort"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Hit is a passage that a search found.
type Hit struct {
	llm.Citation         // the passage; Quote is all of it, as it was when it was indexed
	Title        string  // of the note
	Score        float64 // comparable within one search only
	// Coverage is how much of the question the passage, its headings and its note's names hold: 0 to 1, each word weighing
	// as much as it is rare.
	Coverage float64
	Snippet  Snippet

	weights map[string]float64 // of the question's terms, by stem
	front   bool
	exact   bool
}

// A Snippet is a piece of a passage, and where in it the words of the question stand.
type Snippet struct {
	Text    string `json:"text"`
	Matches []Span `json:"matches"`
}

// A Span is the bytes [Start, End) of a text.
type Span struct {
	Start int `json:"start"`
	End   int `json:"end"`
}

const (
	// Of the passages that hold any word, these many are looked at more closely; of those that hold all words or a phrase,
	// half as many.
	candidates = 60
	// What closeness adds to a score: all words in one passage, words side by side as in the question, all within a few
	// words of one another.
	allBonus, sideBonus, nearBonus = 0.4, 0.4, 0.2
	nearWindow                     = 12 // words
	frontFactor                    = 0.4
	manyRows                       = 5000 // matches that a search goes through without a second thought
)

// Search returns the passages that answer query best, best first, at most limit. Passages of a note that is called what
// the query says, and those that hold a phrase in quotation marks, come before all others. Any text is a valid query; one
// without words finds nothing.
func (l *Library) Search(ctx context.Context, query string, limit int) ([]Hit, error) {
	if limit <= 0 {
		return nil, nil
	}
	q := parse(query)
	if len(q.terms) == 0 && len(q.phrases) == 0 {
		return nil, nil
	}
	stems := make([]string, len(q.terms))
	for i, t := range q.terms {
		stems[i] = t.stem
	}
	of, err := frequencies(ctx, l.db, stems)
	if err != nil {
		return nil, err
	}
	q.weigh(of, l.Status().Passages)
	scores, exact, err := l.gather(ctx, q, of, limit)
	if err != nil || len(scores) == 0 {
		return nil, err
	}
	rows := make([]int64, 0, len(scores))
	for id := range scores {
		rows = append(rows, id)
	}
	found, err := passages(ctx, l.db, rows)
	if err != nil {
		return nil, err
	}
	hits := make([]Hit, 0, len(found))
	for id, f := range found {
		h := q.rank(f, scores[id])
		h.exact = exact[id]
		hits = append(hits, h)
	}
	sort.Slice(hits, func(i, j int) bool {
		a, b := hits[i], hits[j]
		switch {
		case a.exact != b.exact:
			return a.exact
		case a.Score != b.Score:
			return a.Score > b.Score
		case a.Path != b.Path:
			return a.Path < b.Path
		}
		return a.Start < b.Start
	})
	hits = hits[:min(limit, len(hits))]
	for i := range hits {
		hits[i].Snippet = snippet(hits[i].Quote, hits[i].weights)
	}
	return hits, nil
}

// gather collects the candidates with their bm25 scores. exact are those that must be shown.
func (l *Library) gather(ctx context.Context, q query, of map[string]int, limit int) (scores map[int64]float64, exact map[int64]bool, err error) {
	scores, exact = map[int64]float64{}, map[int64]bool{}
	add := func(fts string, n int, must bool) error {
		found, err := match(ctx, l.db, fts, n)
		for _, s := range found {
			scores[s.id] = max(scores[s.id], s.score)
			exact[s.id] = exact[s.id] || must
		}
		return err
	}
	var present []term // a word that is nowhere need not be looked for
	for _, t := range q.terms {
		if of[t.stem] > 0 {
			present = append(present, t)
		}
	}
	if len(present) > 0 {
		if err := add(anyOf(telling(present, of)), max(candidates, limit), false); err != nil {
			return nil, nil, err
		}
	}
	if len(present) > 1 {
		if err := add(allOf(present), candidates/2, false); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range q.phrases {
		if err := add(exactly(p), max(candidates/2, limit), true); err != nil {
			return nil, nil, err
		}
	}
	called, err := named(ctx, l.db, q.names, limit)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range called {
		scores[id] = max(scores[id], 0)
		exact[id] = true
	}
	return scores, exact, nil
}

// telling leaves out the words that are in so many passages that they tell little, where going through all of these would
// take long and rarer words are there: the others find the candidates, and in ranking these count again.
func telling(terms []term, of map[string]int) []term {
	rows, heaviest := 0, 0.0
	for _, t := range terms {
		rows += of[t.stem]
		heaviest = max(heaviest, t.weight)
	}
	if rows <= manyRows {
		return terms
	}
	return slices.DeleteFunc(slices.Clone(terms), func(t term) bool { return t.weight < heaviest/4 })
}

// rank scores one passage.
func (q query) rank(f found, bm25 float64) Hit {
	h := Hit{Citation: f.Citation, Title: f.title, Score: bm25, front: f.front, weights: make(map[string]float64, len(q.terms))}
	for _, t := range q.terms {
		h.weights[t.stem] = t.weight
	}
	body := tokensLike(f.Quote, h.weights)
	has := map[string]bool{}
	for _, t := range body {
		has[t.stem] = true
	}
	around := f.title + "\n" + withoutExt(f.Path) + "\n" + f.aliases
	for _, heading := range f.Heading {
		around += "\n" + heading
	}
	for _, t := range tokensLike(around, h.weights) {
		has[t.stem] = true
	}
	var total, covered float64
	all := true
	for _, t := range q.terms {
		total += t.weight
		if has[t.stem] {
			covered += t.weight
		} else {
			all = false
		}
	}
	if total > 0 {
		h.Coverage = covered / total
	}
	bonus := 1.0
	if len(q.terms) > 1 {
		if all {
			bonus += allBonus
		}
		side, near := q.closeness(body)
		bonus += sideBonus * side
		if near {
			bonus += nearBonus
		}
	}
	if f.front {
		bonus *= frontFactor // it repeats the title and the tags, and rarely answers anything
	}
	h.Score *= bonus
	return h
}

// closeness says which part of the question's neighbouring words are neighbours in body too, and whether all the words
// stand within nearWindow words.
func (q query) closeness(body []token) (side float64, near bool) {
	at := map[string]int{} // the last place of each term
	var places []int       // of all terms, in order
	order := map[string]int{}
	for i, t := range q.terms {
		order[t.stem] = i
	}
	together := map[int]bool{}
	for i, t := range body {
		n, ok := order[t.stem]
		if !ok {
			continue
		}
		if n > 0 {
			if before, ok := at[q.terms[n-1].stem]; ok && i-before <= 2 { // one small word may stand between
				together[n] = true
			}
		}
		at[t.stem] = i
		if !near && len(at) == len(q.terms) {
			places = places[:0]
			for _, p := range at {
				places = append(places, p)
			}
			near = i-slices.Min(places) < nearWindow
		}
	}
	return float64(len(together)) / float64(len(q.terms)-1), near
}

// snippetSize is about how many bytes of a passage are shown in a list.
const snippetSize = 240

// snippet returns the part of body with the most weight of the question's words, on boundaries of words.
func snippet(body string, weights map[string]float64) Snippet {
	words := tokensLike(body, weights)
	from, to := 0, len(body)
	if len(body) > snippetSize {
		from, to = densest(body, words, weights)
	}
	s := Snippet{Text: body[from:to], Matches: []Span{}}
	for _, t := range words {
		if _, ok := weights[t.stem]; ok && t.start >= from && t.end <= to {
			s.Matches = append(s.Matches, Span{t.start - from, t.end - from})
		}
	}
	return s
}

// densest returns the window of about snippetSize bytes with the most weight, each word counted once.
func densest(body string, words []token, weights map[string]float64) (from, to int) {
	best := -1.0
	for i, first := range words {
		if _, ok := weights[first.stem]; !ok {
			continue
		}
		sum, counted := 0.0, map[string]bool{}
		for _, t := range words[i:] {
			if t.end-first.start > snippetSize*3/4 {
				break
			}
			if w, ok := weights[t.stem]; ok && !counted[t.stem] {
				sum += w
				counted[t.stem] = true
			}
		}
		if sum > best {
			best, from = sum, first.start
		}
	}
	// Some context before, up to the beginning of a word or a line.
	start := from
	for _, t := range words {
		if t.start <= from && from-t.start <= snippetSize/4 {
			start = t.start
			break
		}
	}
	if from <= snippetSize/4 {
		start = 0
	}
	to = min(len(body), start+snippetSize)
	for to > start && to < len(body) && body[to] != ' ' && body[to] != '\n' {
		to--
	}
	if to == start { // one very long word
		to = min(len(body), start+snippetSize)
		for to < len(body) && body[to]&0xC0 == 0x80 {
			to++
		}
	}
	return start, to
}
