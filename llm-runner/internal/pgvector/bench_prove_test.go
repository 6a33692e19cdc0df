//go:build prove

package pgvector_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/pgvector"
	"home.arpa/lab/llm-runner/internal/vector"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// BenchmarkSearch is one search for the best ten of 10,000 points with 768 dimensions, and their storing as 1,000 documents.
func BenchmarkSearch(b *testing.B) {
	const points, dimensions = 10_000, 768
	d, err := db.OpenPostgres(b.Context(), postgrestest.StartWithVector(b).New())
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	s, stamp := pgvector.New(d, "here"), vector.Stamp{Model: "m", Dimensions: dimensions}
	c, err := s.Build(b.Context(), "vault", stamp)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	random := func() []float32 {
		v := make([]float32, dimensions)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	for at := 0; at < points; at += 10 {
		e := vector.Entry{Document: vector.Document{Name: fmt.Sprintf("folder %d/note %d.md", at%7, at)}}
		for i := range 10 {
			e.Points = append(e.Points, vector.Point{ID: uint64(at + i), Vector: random()})
		}
		if err := c.Replace(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
	for _, f := range []vector.Filter{{}, {Folders: []string{"folder 3"}}} {
		b.Run(fmt.Sprintf("folder=%q", f.Folders), func(b *testing.B) {
			for b.Loop() {
				if hits, err := c.Query(b.Context(), vector.Query{Vector: random(), Limit: 10, Filter: f}); err != nil || len(hits) != 10 {
					b.Fatal(len(hits), err)
				}
			}
		})
	}
}
