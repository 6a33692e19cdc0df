package vector

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// benchSizes are 10k and 100k points, and what VECTOR_BENCH names (a million takes 4 GB of memory and 3 GB of disk).
func benchSizes() []int {
	sizes := []int{10_000, 100_000}
	if n, err := strconv.Atoi(os.Getenv("VECTOR_BENCH")); err == nil {
		sizes = append(sizes, n)
	}
	return sizes
}

// BenchmarkSearch is one search for the best ten of n points with 768 dimensions, on one core: mean, 95th percentile, and
// how many of the true best ten are found.
func BenchmarkSearch(b *testing.B) {
	for _, n := range benchSizes() {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			vectors := made(n+200, 768, 0.85, 0.3, 1)
			queries, points := vectors[:200], vectors[200:]
			x := filled(b, b.TempDir(), Stamp{Model: "made", Dimensions: 768}, points)
			found := recall(b, x, queries[:min(200, 20_000_000/n)], points) // trying all is what takes the time
			runtime.GC()
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			began := busy()
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				began := time.Now()
				if _, err := x.Query(b.Context(), Query{Vector: queries[i%len(queries)], Limit: 10}); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(found, "recall@10")
			b.ReportMetric(float64((busy()-began).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
		})
	}
}

// busy returns the processor time that this process has used: a fair measure on a machine that others use too.
func busy() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // its arguments are good
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkOpen opens a saved index of 100,000 points and tells how much memory it holds.
func BenchmarkOpen(b *testing.B) {
	s := Stamp{Model: "made", Dimensions: 768}
	dir := b.TempDir()
	if err := filled(b, dir, s, made(100_000, 768, 0.85, 0.3, 1)).Close(); err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		x, err := Open(dir, s)
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if live, _ := x.Rows(); live != 100_000 || x.Healed != "" {
			b.Fatal(live, x.Healed)
		}
		x.release()
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
}

// filled returns an index in dir with ten points to each document.
func filled(tb testing.TB, dir string, s Stamp, points [][]float32) *Index {
	tb.Helper()
	x, err := Open(dir, s)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { x.Close() })
	for at := 0; at < len(points); at += 10 {
		e := Entry{Document: Document{Name: fmt.Sprintf("folder %d/a note with a usual name %d.md", at%7, at),
			Version: fmt.Sprintf("%016x", at), Tags: []string{"one", fmt.Sprint("tag", at%50)}, Modified: time.UnixMilli(int64(at))}}
		for i := at; i < min(at+10, len(points)); i++ {
			e.Points = append(e.Points, Point{ID: uint64(i), Vector: points[i]})
		}
		if err := x.Replace(tb.Context(), e); err != nil {
			tb.Fatal(err)
		}
	}
	return x
}

// recall returns the share of the true best ten that x finds.
func recall(tb testing.TB, x *Index, queries, points [][]float32) float64 {
	tb.Helper()
	found := 0
	for _, q := range queries {
		hits, err := x.Query(tb.Context(), Query{Vector: q, Limit: 10})
		if err != nil {
			tb.Fatal(err)
		}
		for _, id := range exact(q, points, 10) {
			if slices.ContainsFunc(hits, func(h Hit) bool { return h.ID == id }) {
				found++
			}
		}
	}
	return float64(found) / float64(10*len(queries))
}

// exact returns the numbers of the k points nearest to q, best first, by trying them all.
func exact(q []float32, points [][]float32, k int) []uint64 {
	best := make([]Hit, 0, k+1)
	for i, p := range points {
		var s float32
		for j := range q {
			s += q[j] * p[j]
		}
		if len(best) == k && s <= best[k-1].Score {
			continue
		}
		best = append(best, Hit{ID: uint64(i), Score: s})
		slices.SortStableFunc(best, func(a, b Hit) int { return cmp.Compare(b.Score, a.Score) })
		best = best[:min(k, len(best))]
	}
	ids := make([]uint64, len(best))
	for i, h := range best {
		ids[i] = h.ID
	}
	return ids
}
