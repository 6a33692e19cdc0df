package vector

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
)

// How many points a search for the best k looks at more closely. The numbers come from real embeddings (all-MiniLM-L6-v2 of
// 20,000 passages) and made ones; docs/decisions/0011-vectors.md has what they give.
//
//	all points  differing bits           -> the best weighed
//	those       signs times the query    -> the best rescored
//	those       floats from the disk     -> the best k, in exact order
const (
	leastWeighed  = 3200
	leastRescored = 200
	perHit        = 8
)

// weighed is how many of so many points are weighed. The share is what it is at 200,000.
func weighed(points, k int) int { return max(leastWeighed, perHit*k, points/64) }

// rescored is how many are rescored. The fewer dimensions, the less their signs tell, and the less their floats cost: as many
// floats as of 768 dimensions. Among ten times as many points, three times as many lie in the way.
func rescored(points, dimensions, k int) int {
	grown := math.Sqrt(max(1, float64(points)/100_000))
	return max(int(leastRescored*grown*768/float64(dimensions)), perHit*k)
}

// A candidate is a row on its way to becoming a Hit.
type candidate struct {
	row   int
	score float32
}

// scratch is what a search needs beside its answer: two bytes for each row, and a few pages.
type scratch struct {
	distance []uint16
	order    []uint32 // of filtered searches
	counts   []int
	best     []candidate
	raw      []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Query implements Collection.
func (x *Index) Query(ctx context.Context, q Query) ([]Hit, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed != nil {
		return nil, x.closed
	}
	if q.Filter.Empty() {
		return x.search(ctx, q, nil)
	}
	return x.search(ctx, q, x.keeper(q.Filter))
}

// keeper returns what says whether f lets a document's points through. Each document is looked at once, and those that f names
// are found by their names, so that a thousand names cost no more than one.
func (x *Index) keeper(f Filter) func(doc int32, id uint64) bool {
	said := make([]int8, len(x.docs)) // 0 not asked yet
	if len(f.Names) > 0 && len(f.Folders) == 0 {
		for i := range said {
			said[i] = -1
		}
		for _, name := range f.Names {
			if at, ok := x.byName[name]; ok {
				said[at] = 0
			}
		}
		f.Names = nil
	}
	return func(doc int32, _ uint64) bool {
		if said[doc] == 0 {
			said[doc] = -1
			if f.Match(x.docs[doc].Document) {
				said[doc] = 1
			}
		}
		return said[doc] > 0
	}
}

// QueryIDs is Query among the points whose ids keep lets through; the query's Filter is not looked at. keep is called for
// the nearest points first, and for no more of them than are needed.
func (x *Index) QueryIDs(ctx context.Context, q Query, keep func(id uint64) bool) ([]Hit, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed != nil {
		return nil, x.closed
	}
	return x.search(ctx, q, func(_ int32, id uint64) bool { return keep(id) })
}

// search is Query among the points that keep lets through; nil is all. The caller holds mu.
func (x *Index) search(ctx context.Context, q Query, keep func(doc int32, id uint64) bool) ([]Hit, error) {
	if err := x.head.CheckQuery(q); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	v := Unit(q.Vector)
	x.measure(s, v)
	if n := weighed(x.live, q.Limit); keep == nil {
		x.nearest(s, n)
	} else {
		x.nearestKept(s, n, keep)
	}
	if n := rescored(x.live, x.head.Dimensions, q.Limit); len(s.best) > n {
		x.weigh(s, v)
		s.best = s.best[:n]
	}
	if err := x.rescore(s, v); err != nil {
		return nil, err
	}
	hits := make([]Hit, min(q.Limit, len(s.best)))
	for i := range hits {
		row := s.best[i].row
		b := x.blocks[row/blockRows]
		hits[i] = Hit{b.ids[row%blockRows], x.docs[b.doc[row%blockRows]].Name, s.best[i].score}
	}
	return hits, nil
}

// gone is the distance of dead rows: more than any two rows can differ in.
const gone = maxDimensions + 1

// measure sets s.distance to how many bits each row differs in from v, and s.counts to how many rows are at each distance.
func (x *Index) measure(s *scratch, v []float32) {
	w := words(x.head.Dimensions)
	q := make([]uint64, w)
	sketch(q, v, x.centre)
	s.distance = slices.Grow(s.distance[:0], x.rows)[:x.rows]
	s.counts = slices.Grow(s.counts[:0], x.head.Dimensions+1)[:x.head.Dimensions+1]
	clear(s.counts)
	for at := 0; at < x.rows; at += blockRows {
		b, d := x.blocks[at/blockRows], s.distance[at:min(at+blockRows, x.rows)]
		differ(d, b.bits, q)
		for i, doc := range b.doc[:len(d)] {
			if doc == dead {
				d[i] = gone
				continue
			}
			s.counts[d[i]]++
		}
	}
}

// nearest sets s.best to the n rows at the least distance; of those at the last distance, the first rows.
func (x *Index) nearest(s *scratch, n int) {
	n = min(n, x.live)
	last, before := 0, 0 // of the rows before that distance, all are in
	for last < len(s.counts)-1 && before+s.counts[last] < n {
		before += s.counts[last]
		last++
	}
	s.best = s.best[:0]
	left := n - before
	for row, d := range s.distance {
		switch {
		case int(d) > last:
			continue
		case int(d) == last:
			if left == 0 {
				continue
			}
			left--
		}
		s.best = append(s.best, candidate{row: row})
	}
}

// nearestKept is nearest among the rows that keep lets through: rows are asked about in the order of their distance.
func (x *Index) nearestKept(s *scratch, n int, keep func(doc int32, id uint64) bool) {
	at := 0
	for d, c := range s.counts { // counting sort
		s.counts[d] = at
		at += c
	}
	s.order = slices.Grow(s.order[:0], at)[:at]
	for row, d := range s.distance {
		if d != gone {
			s.order[s.counts[d]] = uint32(row)
			s.counts[d]++
		}
	}
	s.best = s.best[:0]
	for _, row := range s.order {
		b, i := x.blocks[row/blockRows], row%blockRows
		if keep(b.doc[i], b.ids[i]) {
			if s.best = append(s.best, candidate{row: int(row)}); len(s.best) == n {
				return
			}
		}
	}
}

// weigh sorts s.best by what their signs say of their nearness to v.
func (x *Index) weigh(s *scratch, v []float32) {
	t, w := newTable(v), words(x.head.Dimensions)
	for i, c := range s.best {
		b, j := x.blocks[c.row/blockRows], c.row%blockRows
		s.best[i].score = b.scale[j] * t.signs(b.bits[j*w:(j+1)*w])
	}
	slices.SortFunc(s.best, func(a, b candidate) int { return cmp.Or(cmp.Compare(b.score, a.score), a.row-b.row) })
}

// rescore reads the floats of s.best and sorts by the exact cosine; equals by their ids.
func (x *Index) rescore(s *scratch, v []float32) error {
	slices.SortFunc(s.best, func(a, b candidate) int { return a.row - b.row }) // the order in which the disk has them
	s.raw = slices.Grow(s.raw[:0], x.stride())[:x.stride()]
	for i, c := range s.best {
		if _, err := x.vectors.ReadAt(s.raw, int64(c.row)*int64(x.stride())); err != nil {
			return fmt.Errorf("search vectors in %s: %w", x.dir, err)
		}
		s.best[i].score = dot(v, s.raw)
	}
	id := func(row int) uint64 { return x.blocks[row/blockRows].ids[row%blockRows] }
	slices.SortFunc(s.best, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(id(a.row), id(b.row)), a.row-b.row)
	})
	return nil
}
