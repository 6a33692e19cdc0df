package library

import (
	"cmp"
	"slices"
)

// Pseudo-relevance feedback (RM3: Abdul-Jaleel et al., "UMass at TREC 2004: Novelty and HARD"): the words that the best notes have
// in common join the question, with less weight. They change the order of what was found and find nothing by themselves. The
// numbers are the usual ones, but for the question's share, where 0.5 to 0.7 is usual: more feedback ranks collections with many
// relevant documents better, but loses the one note that is sought (docs/bench.md).
const (
	feedbackNotes  = 5
	feedbackTerms  = 20
	feedbackOrigin = 0.8    // the share of the question's own words
	feedbackRare   = 2      // in at most this part of all passages: the others tell little and take long to go through
	feedbackMost   = 10_000 // and in no more passages than this, which bounds the time
)

// feedback returns the words that the best notes add to the question, those left out that are nearly everywhere.
func (s *search) feedback() []wanted {
	hits := onePerNote(s.ordered())
	hits = hits[:min(feedbackNotes, len(hits))]
	total := 0.0
	for _, h := range hits {
		total += h.Score
	}
	shares, notes := map[string]float64{}, map[string]int{}
	for _, h := range hits {
		words, counted := tokens(h.Quote, h.language), map[string]bool{}
		for _, t := range words {
			if isStop(t.word) || len(t.word) < 2 {
				continue
			}
			shares[t.stem] += h.Score / total / float64(len(words))
			if !counted[t.stem] {
				counted[t.stem] = true
				notes[t.stem]++
			}
		}
	}
	var more []wanted
	for stem, share := range shares {
		if notes[stem] > 1 && s.index.count(stem) <= min(max(s.index.passages/feedbackRare, feedbackNotes), feedbackMost) { // what only one says is that note's own subject
			more = append(more, wanted{stem: stem, weight: share, extra: true})
		}
	}
	if len(more) == 0 || total <= 0 {
		return nil
	}
	slices.SortFunc(more, func(a, b wanted) int { return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.stem, b.stem)) })
	more = more[:min(feedbackTerms, len(more))]
	sum := 0.0
	for _, w := range more {
		sum += w.weight
	}
	for i := range more { // the question's words weigh one each, these (1-origin)/origin of that together
		part := more[i].weight / sum * (1 - feedbackOrigin) / feedbackOrigin * float64(len(s.query.terms))
		more[i].weight = part * s.index.idf(s.index.count(more[i].stem))
	}
	return more
}
