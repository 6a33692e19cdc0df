package library

import (
	"cmp"
	"container/heap"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// An index holds the words of all passages. It never changes: a new one replaces it, while whoever searches keeps the old.
type index struct {
	segments []*segment // in the order of their passages' ids
	passages int        // that are not gone
	notes    int
	words    int // of all bodies
	number   int64
}

// indexes counts the indexes of this process, so that a later one has a higher number.
var indexes atomic.Int64

func newIndex(segments []*segment) *index {
	x := &index{segments: segments, number: indexes.Add(1)}
	for _, s := range segments {
		x.passages += len(s.passages) - s.lost
		x.words += s.words
		last := -1
		for i, n := range s.noteOf {
			if int(n) != last && !s.gone(uint32(i)) {
				last = int(n)
				x.notes++
			}
		}
	}
	return x
}

// Okapi BM25's usual constants (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009, section 3.4), and how
// often a word in a field counts as one in a body of average length (BM25F, the same, section 3.6): a heading outweighs a
// few mentions in the text.
const (
	k1 = 1.2
	bb = 0.75
)

var fieldWeights = [...]float32{4, 4, 3, 2, 2} // title, aliases, headings, path, tags

// around is what the fields of a posting add to its term frequency.
var around = func() (sums [1 << len(fieldWeights)]float32) {
	for mask := range sums {
		for i, w := range fieldWeights {
			if mask>>i&1 == 1 {
				sums[mask] += w
			}
		}
	}
	return sums
}()

// count returns in how many passages each stem stands. Passages that are gone count until their segment is merged.
func (x *index) count(stem string) int {
	n := 0
	for _, s := range x.segments {
		if i, ok := s.find(stem); ok {
			n += int(s.counts[i])
		}
	}
	return min(n, x.passages)
}

// idf is how much finding a word tells that is in n passages: ln(1 + (N-n+0.5)/(n+0.5)), as in BM25.
func (x *index) idf(n int) float64 {
	return math.Log(1 + (float64(x.passages-n)+0.5)/(float64(n)+0.5))
}

// A wanted stem, and what finding it is worth.
type wanted struct {
	stem   string
	weight float64
	extra  bool // it counts only in notes that hold one that is not extra
}

// A scored passage.
type scored struct {
	id    int64
	note  int64
	score float64
}

// noteShare is how much of a passage's score is that of its whole note: a passage out of a note about the question is better than the
// same words in one about something else (Callan, "Passage-Level Evidence in Document Retrieval", 1994).
const noteShare = 0.5

// A scoring adds up what passages are worth, term by term.
type scoring struct {
	index *index
	parts []part
}

// A part is the sums of one segment: of passages and of notes, and which notes hold a term that is not extra.
type part struct {
	passages, notes []float32
	own             []bool
}

func (x *index) scoring() *scoring {
	s := &scoring{index: x, parts: make([]part, len(x.segments))}
	for i, seg := range x.segments {
		s.parts[i] = part{make([]float32, len(seg.passages)), make([]float32, len(seg.notes)), make([]bool, len(seg.notes))}
	}
	return s
}

// add counts terms in: the BM25F score of the passage, and that of the note as if it were one passage.
func (s *scoring) add(terms []wanted) {
	meanPassage := float32(max(s.index.words, 1)) / float32(max(s.index.passages, 1))
	meanNote := float32(max(s.index.words, 1)) / float32(max(s.index.notes, 1))
	atOnce(len(s.parts), func(i int) {
		seg := s.index.segments[i]
		for _, t := range terms {
			if n, ok := seg.find(t.stem); ok && t.weight > 0 {
				s.parts[i].add(seg, seg.list(n), float32(t.weight)*(k1+1), t.extra, meanPassage, meanNote)
			}
		}
	})
}

// atOnce calls f with 0 to n-1, on all cores.
func atOnce(n int, f func(int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	all.Wait()
}

func (p part) add(s *segment, list []byte, weight float32, extra bool, meanPassage, meanNote float32) {
	var note uint32
	var tf, fields float32
	flush := func() {
		if tf+fields > 0 {
			x := tf/(1-bb+bb*float32(s.noteWords[note])/meanNote) + fields
			p.notes[note] += weight * x / (k1 + x)
			p.own[note] = p.own[note] || !extra
		}
	}
	each(list, func(found posting) {
		if now := s.noteOf[found.ordinal]; now != note {
			flush()
			note, tf, fields = now, 0, 0
		}
		x := float32(found.tf)
		tf += x
		x /= 1 - bb + bb*float32(s.lengths[found.ordinal])/meanPassage
		if found.fields != 0 {
			a := around[found.fields&(1<<len(fieldWeights)-1)]
			fields = max(fields, a)
			x += a
		}
		p.passages[found.ordinal] += weight * x / (k1 + x)
	})
	flush()
	runtime.KeepAlive(s)
}

// best returns the n passages with the highest sums, best first; only of notes for which keep is true (nil: all), and, where words are
// given, only passages that hold all of them, in their body or the fields around it.
func (s *scoring) best(n int, keep func(note uint32) bool, words []term) []scored {
	if n <= 0 {
		return nil
	}
	top := &lowest{}
	least := float32(0)
	for i, seg := range s.index.segments {
		has, p := seg.holding(words), s.parts[i]
		for j, sum := range p.passages {
			if sum == 0 {
				continue
			}
			note := seg.noteOf[j]
			score := sum*(1-noteShare) + p.notes[note]*noteShare
			if score <= least || !p.own[note] || seg.gone(uint32(j)) || has != nil && int(has[j]) < len(words) ||
				keep != nil && !keep(seg.notes[note]) {
				continue
			}
			heap.Push(top, scored{int64(seg.passages[j]), int64(seg.notes[note]), float64(score)})
			if top.Len() > n {
				heap.Pop(top)
				least = float32((*top)[0].score)
			}
		}
	}
	all := []scored(*top)
	slices.SortFunc(all, func(a, b scored) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id)) })
	return all
}

// best is a scoring's best for terms.
func (x *index) best(terms []wanted, n int, keep func(note uint32) bool) []scored {
	s := x.scoring()
	s.add(terms)
	return s.best(n, keep, nil)
}

// holding returns for each passage how many of words it holds, counted up to the first that it lacks; nil for no words.
func (s *segment) holding(words []term) []uint8 {
	if len(words) == 0 {
		return nil
	}
	has := make([]uint8, len(s.passages))
	for i, w := range words {
		for _, stem := range w.stems {
			if n, ok := s.find(stem); ok {
				each(s.list(n), func(p posting) {
					if int(has[p.ordinal]) == i {
						has[p.ordinal]++
					}
				})
			}
		}
	}
	runtime.KeepAlive(s)
	return has
}

// lowest is a heap of the best passages so far, the worst of them first.
type lowest []scored

func (l lowest) Len() int { return len(l) }
func (l lowest) Less(i, j int) bool {
	return l[i].score < l[j].score || l[i].score == l[j].score && l[i].id > l[j].id
}
func (l lowest) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l *lowest) Push(x any)   { *l = append(*l, x.(scored)) }
func (l *lowest) Pop() any {
	x := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return x
}
