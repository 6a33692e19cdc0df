package qdrant

import (
	"hash/fnv"
	"slices"

	"home.arpa/lab/llm-runner/internal/vector"
)

// The usual numbers of BM25 (Robertson and Zaragoza, 2009): how fast the second and third mention of a word lose weight, and
// how much a long text is held against it.
const (
	k1 = 1.2
	b  = 0.75
)

// Say returns the words of a text for Qdrant's lane of words: terms are stems, one for each mention; average is how many the
// texts of the collection have on average. The server multiplies by how rare a term is (modifier "idf"), so that the products
// of Say and Ask are BM25.
func Say(terms []string, average float64) vector.Words {
	counts := map[uint32]float64{}
	for _, t := range terms {
		counts[number(t)]++
	}
	long := k1 * (1 - b + b*float64(len(terms))/max(average, 1))
	return weighted(counts, func(n float64) float64 { return n * (k1 + 1) / (n + long) })
}

// Ask returns the words of a question: each term counts once.
func Ask(terms []string) vector.Words {
	counts := map[uint32]float64{}
	for _, t := range terms {
		counts[number(t)] = 1
	}
	return weighted(counts, func(n float64) float64 { return n })
}

// number is what stands for a term: 32 bits of its hash. Of 100,000 different terms about one shares its number with another.
func number(term string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(term)) //nolint:errcheck // a hash has no errors
	return h.Sum32()
}

func weighted(counts map[uint32]float64, weigh func(float64) float64) vector.Words {
	var w vector.Words
	for n := range counts {
		w.Terms = append(w.Terms, n)
	}
	slices.Sort(w.Terms)
	for _, n := range w.Terms {
		w.Weights = append(w.Weights, float32(weigh(counts[n])))
	}
	return w
}
