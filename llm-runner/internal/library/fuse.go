package library

import (
	"cmp"
	"slices"
)

// The lanes of a search.
const (
	Words  = "bm25"
	Vector = "vector"
	Hybrid = "hybrid"
	Sparse = "sparse" // the words of a store that has such a lane; only who asks for it gets it
)

// A fused passage has its places in the lanes (1 is the first; 0 it is not in that lane) and the score that follows from both.
type fused struct {
	id            int64
	words, vector int
	score         float64
}

// place0 keeps the first places from counting for everything (Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet",
// 2009, have 60; on Cranfield 20 ranks a little better with a good model and loses less by a bad one, and the relative scores of the
// lanes rank as well as their places but depend on the model's scale).
const place0 = 20

func reciprocal(place int) float64 {
	if place == 0 {
		return 0
	}
	return 1 / float64(place0+place)
}

// fuse orders the passages of two lanes, each best first, by reciprocal rank; the lane of vectors counts as far as it is trusted. What is sure
// (it holds what is asked for literally) is held to be as near by its meaning as it is by its words.
func fuse(words []int64, sure map[int64]bool, vectors []near) []fused {
	at := map[int64]int{}
	var all []fused
	weight := 0.0
	for i, id := range words {
		at[id] = len(all)
		all = append(all, fused{id: id, words: i + 1})
	}
	for i, n := range vectors {
		weight = max(weight, n.trust)
		j, ok := at[n.id]
		if !ok {
			j = len(all)
			all = append(all, fused{id: n.id})
		}
		all[j].vector = i + 1
		all[j].score = n.trust * reciprocal(i+1)
	}
	for i := range all {
		f := &all[i]
		if sure[f.id] {
			f.score = max(f.score, weight*reciprocal(f.words))
		}
		f.score += reciprocal(f.words)
	}
	slices.SortStableFunc(all, func(a, b fused) int { return cmp.Compare(b.score, a.score) }) // equals: words first, then the nearest
	return all
}
