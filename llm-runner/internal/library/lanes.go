package library

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"
)

// A Result is what a search found, and how.
type Result struct {
	Hits  []Hit
	Lanes []Lane
	Cut   []Cut
}

// A Lane is one way by which passages were sought.
type Lane struct {
	Name  string  `json:"name"`  // Words, Vector or Sparse
	Found int     `json:"found"` // passages
	MS    float64 `json:"ms"`
	Says  string  `json:"says,omitempty"` // why it found nothing
}

// A Cut is found passages that are not shown, and why.
type Cut struct {
	Why   string `json:"why"`
	Count int    `json:"count"`
}

// A Place is where a passage stands in a lane; Rank 1 is the first, and 0 says that it is not in it.
type Place struct {
	Rank  int     `json:"rank"`
	Score float64 `json:"score"` // the lane's own: BM25 with what is around it, or the cosine
}

func (s *search) cut(why string, n int) {
	if n > 0 {
		s.result.Cut = append(s.result.Cut, Cut{why, n})
	}
}

// patience is how long a search waits for the vector of its question, where it goes on without: a small model on a small machine takes some
// tens of milliseconds when it is loaded, and seconds when it is not.
const patience = time.Second

// An answer is what the lane of meaning found.
type answer struct {
	found []near
	cut   int // by the filter
	lane  Lane
	err   error
}

// ask begins to ask the lane of meaning, beside the words. The function that it returns waits for the answer.
func (s *search) ask(ctx context.Context, lane, text string) func() answer {
	if lane == Words || lane == "" && s.lib.mind == nil {
		return func() answer { return answer{} }
	}
	done := make(chan answer, 1)
	go func() {
		began := time.Now()
		cancel := func() {}
		if lane == "" {
			ctx, cancel = context.WithTimeout(ctx, s.lib.patience)
		}
		defer cancel()
		names, err := s.names(ctx)
		var found []near
		cut := 0
		switch {
		case err != nil:
		case lane == Sparse:
			found, cut, err = s.lib.mind.worded(ctx, stems(text, languageOf(text)), s.kept, s.keeps(), names, s.depth)
		default:
			found, cut, err = s.lib.mind.nearest(ctx, text, s.kept, s.keeps(), names, s.depth)
		}
		a := answer{found, cut, Lane{Name: Vector, Found: len(found), MS: millis(began)}, err}
		if lane == Sparse {
			a.lane.Name = Sparse
		}
		if err != nil {
			a.lane.Says = err.Error()
			if errors.Is(err, context.DeadlineExceeded) {
				a.lane.Says = fmt.Sprintf("the model did not answer within %s; asked again, it may", s.lib.patience)
			}
		}
		done <- a
	}()
	return func() answer { return <-done }
}

func millis(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }

// fewNames is up to how many notes are named to a store that is to look among them alone.
const fewNames = 500

// names returns the documents that count, where there are few; nil where there are many or no filter is set.
func (s *search) names(ctx context.Context) ([]string, error) {
	if s.kept == nil || len(s.kept.notes) > fewNames {
		return nil, nil
	}
	notes := make([]uint32, 0, len(s.kept.notes))
	for n := range s.kept.notes {
		notes = append(notes, n)
	}
	if len(notes) == 0 {
		return []string{""}, nil // nothing is called so
	}
	return pathsOf(ctx, s.lib.db, notes)
}

// keeps returns what says whether a passage counts; nil all do.
func (s *search) keeps() func(int64) bool {
	if s.keep == nil {
		return nil
	}
	return func(passage int64) bool {
		note, ok := s.index.noteOf(passage)
		return ok && s.keep(note)
	}
}

// noteOf returns the note of a passage.
func (x *index) noteOf(passage int64) (uint32, bool) {
	for _, s := range x.segments {
		n := len(s.passages)
		if n == 0 || passage < int64(s.passages[0]) || passage > int64(s.passages[n-1]) {
			continue
		}
		i := sort.Search(n, func(i int) bool { return int64(s.passages[i]) >= passage })
		if i < n && int64(s.passages[i]) == passage && !s.gone(uint32(i)) {
			return s.notes[s.noteOf[i]], true
		}
	}
	return 0, false
}

// join makes one order of what both lanes found.
func (s *search) join(ctx context.Context, r Request, ask func() answer) ([]Hit, error) {
	words := s.ordered()
	for i := range words {
		words[i].words = Place{i + 1, words[i].Score}
	}
	if r.Lane != Vector && r.Lane != Sparse {
		s.result.Lanes = append(s.result.Lanes, Lane{Name: Words, Found: len(words), MS: millis(s.began)})
	}
	a := ask()
	if a.err != nil && (r.Lane != "" || ctx.Err() != nil) {
		return nil, fmt.Errorf("search by meaning: %w", a.err)
	}
	if a.lane.Name != "" {
		s.result.Lanes = append(s.result.Lanes, a.lane)
	}
	s.cut(byFilter, a.cut)
	if len(a.found) == 0 {
		return words, nil
	}
	ids, sure := make([]int64, len(words)), map[int64]bool{}
	for i, h := range words {
		ids[i] = h.id
		*s.hits[h.id] = h
		sure[h.id] = h.sure || h.exact
	}
	all := fuse(ids, sure, a.found)
	if most := max(4*r.Limit, 40); len(all) > most {
		s.cut("behind the best of both lanes", len(all)-most)
		all = all[:most]
	}
	var unread []scored
	for _, f := range all {
		unread = append(unread, scored{id: f.id})
	}
	if err := s.read(ctx, unread); err != nil {
		return nil, err
	}
	var hits []Hit
	for _, f := range all {
		h := s.hits[f.id]
		if h == nil {
			continue // removed meanwhile
		}
		h.Score = f.score
		if f.vector > 0 {
			h.vector = Place{f.vector, a.found[f.vector-1].score}
		}
		hits = append(hits, *h)
	}
	slices.SortStableFunc(hits, func(a, b Hit) int {
		switch {
		case a.exact == b.exact:
			return 0
		case a.exact:
			return -1
		}
		return 1
	})
	return seated(hits, min(r.Limit, firstPage)), nil
}

// What words find best is shown, whatever the vectors say: a rare word that was meant literally. The first leaders of the words' lane have a
// place among the first firstPage.
const (
	leaders   = 3
	firstPage = 10
)

// seated moves the leaders of the lane of words up, where they are behind the first n: to the end of those, in their order.
func seated(hits []Hit, n int) []Hit {
	var front, late, rest []Hit
	for i, h := range hits {
		switch leads := h.words.Rank > 0 && h.words.Rank <= leaders; {
		case i < n:
			front = append(front, h)
		case leads:
			late = append(late, h)
		default:
			rest = append(rest, h)
		}
	}
	slices.SortFunc(late, func(a, b Hit) int { return a.words.Rank - b.words.Rank })
	late = late[:min(len(late), max(n-1, 0))]
	keep := len(front) - len(late)
	return slices.Concat(front[:keep], late, front[keep:], rest)
}
