//go:build prove

package pgvector_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/pgvector"
	"home.arpa/lab/llm-runner/internal/vector"
	"home.arpa/lab/llm-runner/internal/vector/storetest"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

func database(t *testing.T, url string) *db.DB {
	t.Helper()
	d, err := db.OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestPgvectorKeepsTheContractOfStores(t *testing.T) {
	server := postgrestest.StartWithVector(t)
	t.Run("contract", func(t *testing.T) {
		url, places := server.New(), 0
		storetest.Run(t, func(t *testing.T) func() vector.Store {
			places++
			place := fmt.Sprint("place ", places)
			return func() vector.Store { return pgvector.New(database(t, url), place) }
		})
	})
	t.Run("processes", func(t *testing.T) { processes(t, server.New()) })
	t.Run("names", func(t *testing.T) { names(t, server.New()) })
	t.Run("rights", func(t *testing.T) { rights(t, server.New()) })
	t.Run("sizes", func(t *testing.T) { sizes(t, server.New()) })
}

func build(t *testing.T, s vector.Store, stamp vector.Stamp) vector.Collection {
	t.Helper()
	c, err := s.Build(t.Context(), "vault", stamp)
	if err == nil {
		err = s.Switch(t.Context(), "vault", stamp)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// processes has four processes of one place build, replace the same documents and look on, and one of another place beside them.
func processes(t *testing.T, url string) {
	stamp := vector.Stamp{Model: "m", Dimensions: 4}
	other := build(t, pgvector.New(database(t, url), "elsewhere"), stamp)
	var all sync.WaitGroup
	for n := range 4 {
		d := database(t, url)
		all.Go(func() {
			s := pgvector.New(d, "here")
			c, err := s.Build(t.Context(), "vault", stamp)
			if err == nil {
				err = s.Switch(t.Context(), "vault", stamp)
			}
			for i := range 20 {
				if err != nil {
					break
				}
				// Two points of one version each: whoever sees two versions at once sees half a change.
				var entries []vector.Entry
				for _, name := range [][]string{{"a.md", "b.md"}, {"b.md", "a.md"}}[n%2] {
					at := uint64(len(entries))*2 + uint64(1000*n+10*i)
					v := []float32{1, float32(n*20 + i), 0, 0}
					entries = append(entries, vector.Entry{Document: vector.Document{Name: name, Version: fmt.Sprint(n, i)},
						Points: []vector.Point{{ID: at, Vector: v}, {ID: at + 1, Vector: v}}})
				}
				if err = c.Replace(t.Context(), entries...); err != nil {
					break
				}
				var hits []vector.Hit
				hits, err = c.Query(t.Context(), vector.Query{Vector: []float32{1, 0, 0, 0}, Limit: 10})
				if err == nil && (len(hits) != 4 || hits[0].ID+3 != hits[3].ID) {
					err = fmt.Errorf("a change was seen in part: %v", hits)
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if docs, err := other.Documents(t.Context()); err != nil || len(docs) != 0 {
		t.Error(docs, err)
	}
}

// names has names, tags and texts in which PostgreSQL does not see text, and a name that no index takes.
func names(t *testing.T, url string) {
	c := build(t, pgvector.New(database(t, url), "here"), vector.Stamp{Model: "m", Dimensions: 4})
	var long strings.Builder
	for i := range 900 {
		fmt.Fprintf(&long, "%x/", i*i*7919)
	}
	all := []string{"bad\xff/a.md", "bad\xfe/a.md", "nul\x00.md", "100%_\\.md", long.String() + "x.md"}
	var entries []vector.Entry
	for i, name := range all {
		entries = append(entries, vector.Entry{Document: vector.Document{Name: name, Version: "1\x00", Tags: []string{"t\x00", `q"`}},
			Points: []vector.Point{{ID: uint64(i), Vector: []float32{1, float32(i), 0, 0}}}})
	}
	if err := c.Replace(t.Context(), entries...); err != nil {
		t.Fatal(err)
	}
	docs, err := c.Documents(t.Context())
	if err != nil || len(docs) != len(all) {
		t.Fatal(len(docs), err)
	}
	for _, f := range []vector.Filter{{}, {Names: all}, {Tags: [][]string{{"t\x00"}}}, {Tags: [][]string{{`q"`}}}} {
		hits, err := c.Query(t.Context(), vector.Query{Vector: []float32{1, 0, 0, 0}, Limit: 9, Filter: f})
		if err != nil || len(hits) != len(all) {
			t.Fatal(f, hits, err)
		}
		for i, h := range hits {
			if h.Document != all[i] {
				t.Errorf("%q, not %q", h.Document, all[i])
			}
		}
	}
	hits, err := c.Query(t.Context(), vector.Query{Vector: []float32{1, 0, 0, 0}, Limit: 9, Filter: vector.Filter{Folders: []string{"bad\xfe"}}})
	if err != nil || len(hits) != 1 || hits[0].ID != 1 {
		t.Error(hits, err)
	}
	if err := c.Delete(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	if docs, err := c.Documents(t.Context()); err != nil || len(docs) != 0 {
		t.Error(docs, err)
	}
	top := []vector.Point{{ID: math.MaxUint64, Vector: []float32{1, 0, 0, 0}}, {ID: 1 << 63, Vector: []float32{1, 0, 0, 0}}, {ID: 0, Vector: []float32{1, 0, 0, 0}}}
	if err := c.Replace(t.Context(), vector.Entry{Document: vector.Document{Name: "top.md"}, Points: top}); err != nil {
		t.Fatal(err)
	}
	hits, err = c.Query(t.Context(), vector.Query{Vector: []float32{1, 0, 0, 0}, Limit: 2})
	if err != nil || len(hits) != 2 || hits[0].ID != 0 || hits[1].ID != 1<<63 {
		t.Error(hits, err)
	}
}

// rights has a user who may not create the extension: it is told so, and goes on once somebody else has.
func rights(t *testing.T, url string) {
	all := database(t, url).Writer()
	run := func(statement string) {
		t.Helper()
		if _, err := all.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, statement := range []string{`CREATE ROLE plain LOGIN`, `GRANT ALL ON SCHEMA public TO plain`,
		`GRANT ALL ON ALL TABLES IN SCHEMA public TO plain`} {
		run(statement)
	}
	s := pgvector.New(database(t, strings.Replace(url, "//runner:secret@", "//plain@", 1)), "here")
	stamp := vector.Stamp{Model: "m", Dimensions: 4}
	if _, err := s.Build(t.Context(), "vault", stamp); err == nil || !strings.Contains(err.Error(), "run CREATE EXTENSION vector there as the superuser") {
		t.Error(err)
	}
	run(`CREATE SCHEMA aside`)
	run(`CREATE EXTENSION vector SCHEMA aside`)
	if _, err := s.Build(t.Context(), "vault", stamp); err == nil || !strings.Contains(err.Error(), "SET SCHEMA public") {
		t.Error(err)
	}
	run(`ALTER EXTENSION vector SET SCHEMA public`)
	if err := build(t, s, stamp).Replace(t.Context(), vector.Entry{Document: vector.Document{Name: "a.md"}}); err != nil {
		t.Error(err)
	}
}

// sizes has the dimensions of small models and large ones: where vectors are in their row, beside it, and too long.
func sizes(t *testing.T, url string) {
	s := pgvector.New(database(t, url), "here")
	for _, n := range []int{1, 384, 768, 2000, 2001, 16000} {
		old, err := s.Serving(t.Context(), "vault")
		if err != nil && !errors.Is(err, vector.ErrNone) {
			t.Fatal(err)
		}
		c := build(t, s, vector.Stamp{Model: "m", Dimensions: n})
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(math.Sin(float64(i + 1)))
		}
		entry := vector.Entry{Document: vector.Document{Name: "a.md", Modified: time.UnixMilli(0)}, Points: []vector.Point{{ID: 1, Vector: v}}}
		if err := c.Replace(t.Context(), entry); err != nil {
			t.Fatal(n, err)
		}
		hits, err := c.Query(t.Context(), vector.Query{Vector: v, Limit: 1, Filter: vector.Filter{Before: time.UnixMilli(1)}})
		if err != nil || len(hits) != 1 || math.Abs(float64(hits[0].Score)-1) > 1e-5 {
			t.Error(n, hits, err)
		}
		if old != nil {
			_, asked := old.Documents(t.Context())
			_, searched := old.Query(t.Context(), vector.Query{Vector: make([]float32, old.Stamp().Dimensions), Limit: 1})
			wrote := old.Delete(t.Context(), "a.md")
			if !errors.Is(asked, vector.ErrClosed) || searched == nil || !errors.Is(wrote, vector.ErrClosed) {
				t.Error("the old collection answers:", asked, searched, wrote)
			}
		}
	}
	if _, err := s.Build(t.Context(), "vault", vector.Stamp{Model: "m", Dimensions: 16001}); err == nil || !strings.Contains(err.Error(), "library.dimensions") {
		t.Error(err)
	}
}

// Debian's server without the package of the extension says what is to be done.
func TestAServerWithoutTheExtensionSaysHowToGetIt(t *testing.T) {
	if postgrestest.HasVector(t) {
		t.Skip("this server has it")
	}
	s := pgvector.New(database(t, postgrestest.Start(t).New()), "here")
	_, err := s.Serving(t.Context(), "vault")
	if err == nil || !strings.Contains(err.Error(), "CREATE EXTENSION vector") || !strings.Contains(err.Error(), "-pgvector,") {
		t.Fatal(err)
	}
}
