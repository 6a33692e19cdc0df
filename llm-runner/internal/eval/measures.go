// Package eval measures the library: how well it ranks documents of a judged collection, and how much of what answers a
// question it returns under a bound on characters. The arithmetic is that of trec_eval, so that anyone can check it.
package eval

import (
	"cmp"
	"math"
	"slices"
)

// A Scored document is one line of a run.
type Scored struct {
	ID    string
	Score float64
}

// sorted returns run in the order in which trec_eval reads it: by score, ties by identifier, both from the larger to the smaller
// (form_res_rels.c, comp_sim_docno). The order in which the run was written does not count.
func sorted(run []Scored) []Scored {
	run = slices.Clone(run)
	slices.SortFunc(run, func(a, b Scored) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(b.ID, a.ID))
	})
	return run
}

// NDCG is the discounted cumulative gain of the first k of run over that of the best possible order, 0 to 1 (m_ndcg_cut.c: the
// gain is the grade itself, grades below 1 gain nothing, rank r is discounted by log2(r+1)). 0 where nothing is relevant.
func NDCG(run []Scored, grades map[string]int, k int) float64 {
	var got, best float64
	for i, d := range sorted(run)[:min(k, len(run))] {
		got += float64(max(grades[d.ID], 0)) / math.Log2(float64(i+2))
	}
	var ideal []int
	for _, g := range grades {
		if g > 0 {
			ideal = append(ideal, g)
		}
	}
	slices.SortFunc(ideal, func(a, b int) int { return b - a })
	for i, g := range ideal[:min(k, len(ideal))] {
		best += float64(g) / math.Log2(float64(i+2))
	}
	if best == 0 {
		return 0
	}
	return got / best
}

// Recall is the part of the relevant documents (grade 1 and more) among the first k of run. 0 where nothing is relevant.
func Recall(run []Scored, grades map[string]int, k int) float64 {
	found, relevant := 0, 0
	for _, d := range sorted(run)[:min(k, len(run))] {
		if grades[d.ID] > 0 {
			found++
		}
	}
	for _, g := range grades {
		if g > 0 {
			relevant++
		}
	}
	if relevant == 0 {
		return 0
	}
	return float64(found) / float64(relevant)
}

// ReciprocalRank is one over the rank of the first relevant document of run, 0 where there is none.
func ReciprocalRank(run []Scored, grades map[string]int) float64 {
	for i, d := range sorted(run) {
		if grades[d.ID] > 0 {
			return 1 / float64(i+1)
		}
	}
	return 0
}
