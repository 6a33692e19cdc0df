package library

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/trace"
)

// A Hit is a passage that a search found.
type Hit struct {
	llm.Citation         // the passage; Quote is all of it, as it was when it was indexed
	Collection   string  // that the note is in
	Title        string  // of the note
	Score        float64 // comparable within one search only
	// Coverage is how much of the question one paragraph, list or table of the passage, its headings and its note's names hold
	// together: 0 to 1, each word weighing as much as it is rare.
	Coverage float64
	// Missed is the weight of the rarest word that is lacking there, as a part of that of the rarest word of the question: 0 to 1.
	// Words that are in no note do not count.
	Missed  float64
	Snippet Snippet

	id       int64
	note     int64
	language language
	weights  map[string]float64 // of the question's terms, by stem
	names    string             // of the note, folded
	front    bool
	pages    []int
	exact    bool
	sure     bool // it holds an identifier of the question
	examined bool
	close    float64 // what closeness adds
	words    Place   // in the lane of words
	vector   Place   // in the lane of meaning
	reranked int     // the place that a model gave it; 0 none
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
	// Of the passages that hold any word, these many are read and looked at more closely.
	candidates = 100
	// The passages that hold all words of a phrase are read to see whether they hold the phrase, so many at once, until enough do; phraseMost
	// bounds how long that takes for words that are everywhere, and what it leaves unread is told.
	phraseLook  = 300
	phraseMost  = 20_000
	frontFactor = 0.4 // frontmatter repeats the title and the tags, and rarely answers anything
)

// A Request is one search.
type Request struct {
	Query  string // any text; filters in it count (see Filter)
	Limit  int    // how many passages at most
	Filter Filter
	Notes  bool // of each note its best passage only
	// Lane is Words, Vector or Hybrid: the latter wait for the model's answer, and fail where there is none. "" is Hybrid as far as that
	// answers in time, and Words where it does not. Sparse asks the words of the store of vectors instead of the index, and no model.
	Lane string
	// Rerank has the model that Library.Rerank named, if any, order the best passages: that takes as long as a short answer of it.
	Rerank bool
	// Private says that the query rests on what no cloud provider may see: no model is told of it, so words alone find.
	Private bool
}

// A Name is what a note or a document is called, and where it is.
type Name struct{ Collection, Path, Title string }

// Called returns at most most notes and documents whose title or path has all words, parts of words too, the youngest first; no facts.
func (l *Library) Called(ctx context.Context, words []string, most int) ([]Name, error) {
	parts := make([]string, len(words))
	for i, word := range words {
		parts[i] = folded(word)
	}
	all, err := called(ctx, l.db, parts)
	return all[:min(len(all), most)], err
}

// Search returns the passages that answer query best, best first, at most limit. Passages of a note that is called what
// the query says, and those that hold a phrase in quotation marks, come before all others. Any text is a valid query; one
// without words finds nothing.
func (l *Library) Search(ctx context.Context, query string, limit int) ([]Hit, error) {
	return l.Find(ctx, Request{Query: query, Limit: limit})
}

// Find is Search with all that can be asked for.
func (l *Library) Find(ctx context.Context, r Request) ([]Hit, error) {
	result, err := l.Explain(ctx, r)
	return result.Hits, err
}

// Explain is Find, and how it went.
func (l *Library) Explain(ctx context.Context, r Request) (Result, error) {
	s, result, err := l.find(ctx, r)
	if err != nil {
		return Result{}, err
	}
	for i := range result.Hits {
		h := &result.Hits[i]
		h.Snippet = snippet(h.Quote, h.language, s.query.weights)
	}
	return result, nil
}

func (l *Library) find(ctx context.Context, r Request) (_ *search, result Result, err error) {
	ctx, span := trace.Start(ctx, trace.Retrieval, r.Filter.Collection)
	defer func() {
		span.SetInt(trace.Hits, int64(len(result.Hits)))
		span.Done(err)
	}()
	span.Set(trace.Source, r.Filter.Collection)
	if span.Content() {
		span.Set(trace.Query, r.Query)
	}
	if r.Private {
		r.Lane, r.Rerank = Words, false
	}
	text, filter := filters(r.Query, r.Filter)
	q := parse(text)
	if r.Limit <= 0 || len(q.terms) == 0 && len(q.phrases) == 0 {
		return nil, Result{}, nil
	}
	s := &search{lib: l, index: l.words.Load(), query: q, depth: max(candidates, 3*r.Limit), hits: map[int64]*Hit{}, began: time.Now()}
	s.query.weigh(s.index)
	if !filter.empty() {
		if s.kept, err = kept(ctx, l.db, filter); err != nil {
			return nil, Result{}, err
		}
		s.keep = func(note uint32) bool { return s.kept.notes[note] }
	}
	ask := s.ask(ctx, r.Lane, strings.TrimSpace(text))
	if r.Lane != Vector && r.Lane != Sparse {
		if err := s.run(ctx, r.Limit); err != nil {
			return nil, Result{}, err
		}
	}
	hits, err := s.join(ctx, r, ask)
	if err != nil {
		return nil, Result{}, err
	}
	if r.Notes {
		before := len(hits)
		hits = onePerNote(hits)
		s.cut("another passage of a note that is there already", before-len(hits))
	}
	if r.Rerank {
		hits = s.rerank(ctx, text, hits)
	}
	s.cut("beyond the number asked for", len(hits)-r.Limit)
	s.result.Hits = hits[:min(r.Limit, len(hits))]
	for i := range s.result.Hits {
		s.query.examine(&s.result.Hits[i])
	}
	return s, s.result, nil
}

func onePerNote(hits []Hit) []Hit {
	seen := map[int64]bool{}
	return slices.DeleteFunc(hits, func(h Hit) bool {
		had := seen[h.note]
		seen[h.note] = true
		return had
	})
}

// A search is one on its way.
type search struct {
	lib   *Library
	index *index
	query query
	keep  func(note uint32) bool // nil: every note
	kept  *keeping               // what keep looks into
	depth int
	hits  map[int64]*Hit // by passage

	began  time.Time
	result Result
}

func (s *search) run(ctx context.Context, limit int) error {
	sums := s.index.scoring()
	sums.add(s.query.wanted())
	first := sums.best(s.depth, s.keep, nil)
	if err := s.look(ctx, first, nil); err != nil {
		return err
	}
	if more := s.feedback(); len(more) > 0 {
		sums.add(more)
		second := sums.best(s.depth, s.keep, nil)
		if err := s.look(ctx, second, first); err != nil {
			return err
		}
	}
	for _, i := range s.query.idents {
		found, err := s.holding(ctx, i.parts, func(h *Hit) bool { return h.writes(i.text) })
		if err != nil {
			return err
		}
		for _, h := range found {
			h.Score += s.index.idf(len(found)) // as one more word of the question
			h.sure = true
		}
	}
	for _, p := range s.query.phrases {
		found, err := s.holding(ctx, p, func(h *Hit) bool { return h.repeats(p) })
		if err != nil {
			return err
		}
		for _, h := range found {
			h.exact = true
		}
	}
	called, err := named(ctx, s.lib.db, s.query.names, limit)
	if err != nil {
		return err
	}
	return s.must(ctx, called)
}

// look reads the passages found and scores them. What was found before and is not again keeps its place at the end.
func (s *search) look(ctx context.Context, found, before []scored) error {
	if err := s.read(ctx, found); err != nil {
		return err
	}
	for _, f := range before {
		if h := s.hits[f.id]; h != nil && len(found) > 0 {
			h.Score = min(h.Score, found[len(found)-1].score)
		}
	}
	atOnce(min(len(found), candidates), func(i int) {
		if h := s.hits[found[i].id]; h != nil {
			s.query.examine(h)
		}
	})
	for i, f := range found {
		h := s.hits[f.id]
		if h == nil { // removed meanwhile
			continue
		}
		h.Score = f.score
		if i < candidates {
			h.Score += h.close
		}
		if h.front {
			h.Score *= frontFactor
		}
	}
	return nil
}

// read has a Hit made of every passage found.
func (s *search) read(ctx context.Context, found []scored) error {
	var unread []int64
	for _, f := range found {
		if s.hits[f.id] == nil {
			unread = append(unread, f.id)
		}
	}
	read, err := passages(ctx, s.lib.db, unread)
	for id, f := range read {
		s.hits[id] = s.hit(id, f)
	}
	return err
}

func (s *search) hit(id int64, f found) *Hit {
	return &Hit{id: id, Citation: f.Citation, Collection: f.collection, Title: f.title, note: f.note, language: f.language, front: f.front, pages: f.pages,
		names: f.names, weights: s.query.weights}
}

// holding returns the passages that hold all of words and pass a closer look.
func (s *search) holding(ctx context.Context, words []term, pass func(*Hit) bool) (found []*Hit, err error) {
	var terms []wanted
	for _, t := range words {
		for _, stem := range t.stems {
			terms = append(terms, wanted{stem: stem, weight: s.index.idf(s.index.count(stem))})
		}
	}
	sums := s.index.scoring()
	sums.add(merged(terms))
	best := sums.best(s.index.passages, s.keep, words)
	if len(best) > phraseMost {
		s.cut("with the words of a phrase or name, of which too many have them to read whether they stand together", len(best)-phraseMost)
		best = best[:phraseMost]
	}
	for some := range slices.Chunk(best, phraseLook) {
		if len(found) >= s.depth {
			break
		}
		had := map[int64]bool{}
		for _, b := range some {
			had[b.id] = s.hits[b.id] != nil
		}
		if err := s.read(ctx, some); err != nil {
			return nil, err
		}
		passed := make([]bool, len(some))
		atOnce(len(some), func(i int) {
			h := s.hits[some[i].id]
			passed[i] = h != nil && pass(h) // nil: removed meanwhile
		})
		for i, b := range some {
			if passed[i] {
				found = append(found, s.hits[b.id])
			} else if !had[b.id] {
				delete(s.hits, b.id)
			}
		}
	}
	return found, nil
}

// must marks passages that have to be shown.
func (s *search) must(ctx context.Context, called []scored) error {
	if s.keep != nil {
		called = slices.DeleteFunc(called, func(c scored) bool { return !s.keep(uint32(c.note)) })
	}
	err := s.read(ctx, called)
	for _, c := range called {
		if h := s.hits[c.id]; h != nil {
			h.exact = true
		}
	}
	return err
}

func (s *search) ordered() []Hit {
	hits := make([]Hit, 0, len(s.hits))
	for _, h := range s.hits {
		hits = append(hits, *h)
	}
	slices.SortFunc(hits, func(a, b Hit) int {
		if a.exact != b.exact {
			if a.exact {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Start, b.Start))
	})
	return hits
}

// repeats says that the passage, its title or one of its headings holds the words of p one after the other.
func (h *Hit) repeats(p []term) bool {
	for _, text := range append([]string{h.Quote, h.Title, withoutExt(h.Path)}, h.Heading...) {
		words := tokens(text, h.language)
		for i := 0; i+len(p) <= len(words); i++ {
			all := true
			for j := range p {
				if all = slices.Contains(p[j].stems, words[i+j].stem); !all {
					break
				}
			}
			if all {
				return true
			}
		}
	}
	return false
}

// writes says that the passage, its title or its path holds text as it is written, in whatever case.
func (h *Hit) writes(text string) bool {
	return strings.Contains(strings.ToLower(h.Quote+"\n"+h.Title+"\n"+h.Path+"\n"+strings.Join(h.Heading, "\n")), text)
}

// examine sets what can only be told from the text: how much of the question is there, and how close together.
func (q query) examine(h *Hit) {
	if h.examined {
		return
	}
	h.examined = true
	body := outsideLinks(h.Quote, tokensLike(h.Quote, h.language, q.at))
	h.close = q.closeness(body)
	if n := len(h.Heading); n > 0 {
		h.close += q.heads(h.Heading[n-1], h.language)
	}
	around := tokensLike(h.Title+"\n"+withoutExt(h.Path)+"\n"+h.names+"\n"+strings.Join(h.Heading, "\n"), h.language, q.at)
	from := 0
	for _, b := range scan([]byte(h.Quote)) {
		to := from
		for to < len(body) && body[to].start < b.end {
			to++
		}
		covered, missed := q.covered(body, around, body[from:to])
		if covered > h.Coverage || covered == h.Coverage && missed < h.Missed {
			h.Coverage, h.Missed = covered, missed
		}
		from = to
	}
}

// outsideLinks leaves out the words of where links lead, which the reader does not see: [text](page.md#several-machines).
func outsideLinks(text string, words []token) []token {
	at := 0
	for _, link := range linkTarget.FindAllStringIndex(text, -1) {
		for at < len(words) && words[at].start < link[0] {
			at++
		}
		n := at
		for n < len(words) && words[n].start < link[1] {
			n++
		}
		words = slices.Delete(words, at, n)
	}
	return words
}

const nearMissed = 0.8

var linkTarget = regexp.MustCompile(`\]\([^()\s]*\)`)

// covered returns how much of the question's weight words hold, and how much the heaviest word weighs that they lack though the notes have
// it, as a part of the heaviest that the notes have. A word that no note has weighs as much as that one. One that stands elsewhere in the
// passage is not covered, and misses nearMissed of its weight.
func (q query) covered(passage []token, words ...[]token) (covered, missed float64) {
	has, near := make([]bool, len(q.terms)), make([]bool, len(q.terms))
	for _, some := range words {
		for _, t := range some {
			if i, ok := q.at[t.stem]; ok {
				has[i] = true
			}
		}
	}
	for _, t := range passage {
		if i, ok := q.at[t.stem]; ok {
			near[i] = true
		}
	}
	var total float64
	for i, t := range q.terms {
		switch {
		case has[i]:
			covered += t.weight
			total += t.weight
		case t.absent:
			total += q.most
		case near[i]:
			total += t.weight
			missed = max(missed, nearMissed*t.weight)
		default:
			total += t.weight
			missed = max(missed, t.weight)
		}
	}
	if covered == 0 {
		return 0, 1
	}
	return covered / total, missed / q.most
}

// closeness is what the nearness of the question's words in a passage adds to its BM25 score (BM25TP: Büttcher, Clarke and
// Lushman, "Term Proximity Scoring for Ad-Hoc Retrieval on Very Large Text Collections", 2006): each pair of different words
// that follow one another gives either the other's weight, divided by the square of their distance.
func (q query) closeness(body []token) float64 {
	if len(q.terms) < 2 {
		return 0
	}
	sums := make([]float64, len(q.terms))
	last, at := -1, 0
	for i, t := range body {
		n, ok := q.at[t.stem]
		if !ok {
			continue
		}
		if last >= 0 && last != n {
			d := float64(i - at)
			sums[n] += q.terms[last].weight / (d * d)
			sums[last] += q.terms[n].weight / (d * d)
		}
		last, at = n, i
	}
	total := 0.0
	norm := k1 * (1 - bb + bb*float64(len(body))/q.meanWords)
	for i, sum := range sums {
		total += min(1, q.terms[i].weight) * sum * (k1 + 1) / (sum + norm)
	}
	return closeShare * total
}

// heads is what a heading adds that says nothing but what is asked: the weights of its words, as far as they are all of it. BM25F
// would divide by the heading's length, which the index does not hold.
func (q query) heads(heading string, l language) float64 {
	words, sum, asked := 0.0, 0.0, 0.0
	for _, t := range tokens(heading, l) {
		if isStop(t.word) {
			continue
		}
		words++
		if i, ok := q.at[t.stem]; ok {
			asked++
			sum += q.terms[i].weight
		}
	}
	if asked == 0 {
		return 0
	}
	return sum * asked / words
}

// closeShare is how much of BM25TP's score counts: at 1 as in the paper, single documents that are sought by a part of their text come
// out lower.
const closeShare = 0.7

// snippetSize is about how many bytes of a passage are shown in a list.
const snippetSize = 240

// snippet returns the part of body with the most weight of the question's words, on boundaries of words.
func snippet(body string, l language, weights map[string]float64) Snippet {
	words := tokensLike(body, l, weights)
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
