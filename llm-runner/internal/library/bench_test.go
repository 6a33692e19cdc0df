package library

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/vector"
)

// hashed makes vectors of 768 dimensions that follow from the words of a text, in no time.
type hashed []float32

func newHashed() hashed {
	r := rand.New(rand.NewPCG(1, 2))
	h := make(hashed, 1<<16+768)
	for i := range h {
		h[i] = float32(r.NormFloat64())
	}
	return h
}

func (t hashed) Embed(_ context.Context, r llm.EmbedRequest) (out llm.Embeddings, err error) {
	for _, text := range r.Texts {
		v := make([]float32, 768)
		for word := range strings.FieldsSeq(text) {
			h := fnv.New32a()
			h.Write([]byte(word)) //nolint:errcheck // a hash has no errors
			for j, x := range t[h.Sum32()&(1<<16-1):][:768] {
				v[j] += x
			}
		}
		out.Vectors = append(out.Vectors, v)
	}
	return out, nil
}

// madeUp is the n-th of many words that look like some.
func madeUp(n uint64) string {
	var b []byte
	for n = n*2654435761%(1<<20) + 1<<20; n > 1; n /= 90 {
		b = append(b, "bcdfghklmnprstvwzj"[n%18], "aeiou"[n/18%5])
	}
	return string(b)
}

// BenchmarkLanes asks questions of four words, common ones among them, of 10,000 passages and of LIBRARY_PASSAGES of 768 dimensions, and
// reports the 95th percentile of a search in milliseconds, and of the processor time it takes on all cores together. docs/bench.md has what came of it.
func BenchmarkLanes(b *testing.B) {
	sizes := []int{10_000}
	if n, err := strconv.Atoi(os.Getenv("LIBRARY_PASSAGES")); err == nil {
		sizes = append(sizes, n)
	}
	for _, size := range sizes {
		dir := b.TempDir()
		d, err := db.Open(b.Context(), filepath.Join(dir, db.Name))
		if err != nil {
			b.Fatal(err)
		}
		defer d.Close()
		l, err := Open(b.Context(), d, Embedded("nothing", os.DirFS(b.TempDir())))
		if err != nil {
			b.Fatal(err)
		}
		store := vector.NewLocal(filepath.Join(dir, "vectors"))
		defer store.Close()
		e := embed.New(d, newHashed(), embed.Config{Model: "nomic-embed-text", Batch: 100})
		l.Understand(Meaning{Store: store, Embedder: func(context.Context, vector.Stamp) (*embed.Embedder, error) { return e, nil }})
		r := rand.New(rand.NewPCG(7, 7))
		words := rand.NewZipf(r, 1.1, 20, 60_000)
		var documents []Document
		for n := range size / 10 {
			var text strings.Builder
			for p := range 10 {
				fmt.Fprintf(&text, "\n## Part %d\n\n", p)
				for range 160 {
					text.WriteString(madeUp(words.Uint64()) + " ")
				}
			}
			if documents = append(documents, Document{Path: fmt.Sprintf("note-%d", n), Text: []byte(text.String())}); len(documents) == 500 {
				if err := l.Put(b.Context(), Web, documents...); err != nil {
					b.Fatal(err)
				}
				documents = nil
			}
		}
		if err := l.Embed(b.Context()); err != nil {
			b.Fatal(err)
		}
		for _, lane := range []string{Words, Vector, Hybrid} {
			b.Run(fmt.Sprintf("%d/%s", size, lane), func(b *testing.B) {
				var times, work []time.Duration
				for b.Loop() {
					q := make([]string, 4)
					for i := range q {
						q[i] = madeUp(words.Uint64())
					}
					began, before := time.Now(), cpu()
					if _, err := l.Find(b.Context(), Request{Query: strings.Join(q, " "), Limit: 10, Lane: lane}); err != nil {
						b.Fatal(err)
					}
					times, work = append(times, time.Since(began)), append(work, cpu()-before)
				}
				slices.Sort(times)
				slices.Sort(work)
				b.ReportMetric(float64(times[len(times)*95/100].Microseconds())/1000, "p95-ms")
				b.ReportMetric(float64(work[len(work)/2].Microseconds())/1000, "p50-cpu-ms")
				b.ReportMetric(float64(work[len(work)*95/100].Microseconds())/1000, "p95-cpu-ms")
			})
		}
	}
}

// cpu returns the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
