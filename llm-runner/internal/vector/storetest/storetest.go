// Package storetest is the contract of vector.Store as tests. Every store passes it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/vector"
)

// Run runs the contract. open returns a store over the same data at every call within one test, so that closing and opening
// shows what is kept; each test has a store of its own.
func Run(t *testing.T, begin func(t *testing.T) (open func() vector.Store)) {
	for _, test := range []struct {
		name string
		f    func(*testing.T, *store)
	}{
		{"what was put is found, nearest first", found},
		{"points as near as each other come in the order of their ids", ties},
		{"a document is replaced wholly", replaced},
		{"a deleted document is gone, and deleting it again is no error", deleted},
		{"documents come back with all that was said of them", documents},
		{"filters", filters},
		{"words are found, where a store keeps them, and are no harm where it does not", words},
		{"only the direction of a vector counts", direction},
		{"what does not fit is refused and nothing is stored", refused},
		{"a thousand documents at once", many},
		{"what was saved is there after opening again", reopened},
		{"nothing serves before the first switch", none},
		{"a new model is built beside the old one and then switched to", switched},
		{"a model that served before is built anew and switched back to", back},
		{"a collection that was begun goes on, and one of another stamp is another", begun},
		{"collections do not know each other", apart},
		{"an ended context ends a query", cancelled},
		{"readers and writers at once", together},
	} {
		t.Run(test.name, func(t *testing.T) {
			open := begin(t)
			s := &store{t: t, open: open}
			s.Store = open()
			test.f(t, s)
			check(t, s.Store.Close())
		})
	}
}

// store is what a test works with.
type store struct {
	vector.Store
	t    *testing.T
	open func() vector.Store
}

func (s *store) reopen() {
	s.t.Helper()
	if err := s.Store.Close(); err != nil {
		s.t.Fatal("close:", err)
	}
	s.Store = s.open()
}

// small is the stamp of most tests: four dimensions that one can think of.
var small = vector.Stamp{Model: "small", Dimensions: 4, Prefix: "search_document: "}

// vault builds and serves the collection "vault" of stamp small.
func (s *store) vault() vector.Collection {
	s.t.Helper()
	c := must(s.t)(s.Build(s.t.Context(), "vault", small))
	check(s.t, s.Switch(s.t.Context(), "vault", small))
	return c
}

func must(t *testing.T) func(vector.Collection, error) vector.Collection {
	return func(c vector.Collection, err error) vector.Collection {
		t.Helper()
		check(t, err)
		return c
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// doc returns a document whose points have the ids id, id+1, ...
func doc(name string, id uint64, vectors ...[]float32) vector.Entry {
	e := vector.Entry{Document: vector.Document{Name: name, Version: "1"}}
	for i, v := range vectors {
		e.Points = append(e.Points, vector.Point{ID: id + uint64(i), Vector: v})
	}
	return e
}

var (
	east  = []float32{1, 0, 0, 0}
	north = []float32{0, 1, 0, 0}
	up    = []float32{0, 0, 1, 0}
)

// query returns the ids of the hits.
func query(t *testing.T, c vector.Collection, q vector.Query) []uint64 {
	t.Helper()
	hits, err := c.Query(t.Context(), q)
	check(t, err)
	ids := []uint64{}
	for _, h := range hits {
		ids = append(ids, h.ID)
	}
	return ids
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func found(t *testing.T, s *store) {
	c := s.vault()
	check(t, c.Replace(t.Context(), doc("a.md", 1, east, north), doc("b.md", 7, []float32{1, 1, 0, 0})))
	hits, err := c.Query(t.Context(), vector.Query{Vector: []float32{1, 0.1, 0, 0}, Limit: 2})
	check(t, err)
	if len(hits) != 2 || hits[0].ID != 1 || hits[0].Document != "a.md" || hits[1].ID != 7 || hits[1].Document != "b.md" {
		t.Fatal(hits)
	}
	for i, want := range []float64{1 / math.Sqrt(1.01), 1.1 / math.Sqrt(2*1.01)} {
		if math.Abs(float64(hits[i].Score)-want) > 1e-6 {
			t.Errorf("score %d is %v, not the cosine %v", i, hits[i].Score, want)
		}
	}
}

func ties(t *testing.T, s *store) {
	c := s.vault()
	check(t, c.Replace(t.Context(), doc("late.md", 50, east, east), doc("early.md", 3, east), doc("mid.md", 20, east, east)))
	same(t, query(t, c, vector.Query{Vector: east, Limit: 10}), []uint64{3, 20, 21, 50, 51})
}

func replaced(t *testing.T, s *store) {
	c := s.vault()
	check(t, c.Replace(t.Context(), doc("a.md", 1, east, north, up), doc("b.md", 9, north)))
	check(t, c.Replace(t.Context(), doc("a.md", 4, north)))
	same(t, query(t, c, vector.Query{Vector: east, Limit: 10}), []uint64{4, 9})
	check(t, c.Replace(t.Context(), doc("a.md", 4, east))) // the same id, another vector
	same(t, query(t, c, vector.Query{Vector: east, Limit: 1}), []uint64{4})
	check(t, c.Replace(t.Context(), doc("a.md", 0))) // no points left
	same(t, query(t, c, vector.Query{Vector: east, Limit: 10}), []uint64{9})
}

func deleted(t *testing.T, s *store) {
	c := s.vault()
	check(t, c.Replace(t.Context(), doc("a.md", 1, east), doc("b.md", 2, east)))
	check(t, c.Delete(t.Context(), "a.md", "never was.md"))
	check(t, c.Delete(t.Context(), "a.md"))
	check(t, c.Delete(t.Context()))
	same(t, query(t, c, vector.Query{Vector: east, Limit: 10}), []uint64{2})
	docs, err := c.Documents(t.Context())
	check(t, err)
	if len(docs) != 1 || docs[0].Name != "b.md" {
		t.Fatal(docs)
	}
}

func documents(t *testing.T, s *store) {
	c := s.vault()
	at := time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.UTC)
	full := doc("ordner/Grüße & \"more\".md", math.MaxInt64, east, up)
	full.Version, full.Type, full.Tags, full.Modified = "sha256:0123", "note", []string{"b", "a/c"}, at
	empty := doc("empty.md", 0)
	check(t, c.Replace(t.Context(), full, empty))
	want := []vector.Document{empty.Document, full.Document}
	want[1].Points = 2
	got, err := c.Documents(t.Context())
	check(t, err)
	same(t, got, want)
	same(t, query(t, c, vector.Query{Vector: east, Limit: 1}), []uint64{math.MaxInt64})
}

func filters(t *testing.T, s *store) {
	c := s.vault()
	day := func(d int) time.Time { return time.Date(2026, 1, d, 0, 0, 0, 0, time.UTC) }
	put := func(id uint64, name, kind string, at time.Time, tags ...string) {
		e := doc(name, id, []float32{1, float32(id) / 10, 0, 0}) // farther with every id
		e.Type, e.Modified, e.Tags = kind, at, tags
		check(t, c.Replace(t.Context(), e))
	}
	put(1, "work/a.md", "note", day(1), "x")
	put(2, "work/deep/b.md", "note", day(2), "x", "y")
	put(3, "workshop/c.md", "note", day(3), "y")
	put(4, "d.pdf", "pdf", day(4))
	put(5, "e.md", "note", time.Time{}, "x/sub")
	for _, test := range []struct {
		name string
		f    vector.Filter
		want []uint64
	}{
		{"none", vector.Filter{}, []uint64{1, 2, 3, 4, 5}},
		{"names", vector.Filter{Names: []string{"d.pdf", "work/a.md", "not there"}}, []uint64{1, 4}},
		{"a folder", vector.Filter{Folders: []string{"work"}}, []uint64{1, 2}},
		{"a folder with a slash", vector.Filter{Folders: []string{"work/deep/"}}, []uint64{2}},
		{"types", vector.Filter{Types: []string{"pdf", "page"}}, []uint64{4}},
		{"a tag is not its parent", vector.Filter{Tags: [][]string{{"x"}}}, []uint64{1, 2}},
		{"two tags", vector.Filter{Tags: [][]string{{"y"}, {"x"}}}, []uint64{2}},
		{"a tag or another one", vector.Filter{Tags: [][]string{{"x", "x/sub", "not there"}}}, []uint64{1, 2, 5}},
		{"two tags or others", vector.Filter{Tags: [][]string{{"x/sub", "x"}, {"z", "y"}}}, []uint64{2}},
		{"folders", vector.Filter{Folders: []string{"workshop", "not there", "work/deep"}}, []uint64{2, 3}},
		{"a name or a folder", vector.Filter{Names: []string{"d.pdf", "not there"}, Folders: []string{"work/deep"}}, []uint64{2, 4}},
		{"a name or a folder, and a type", vector.Filter{Names: []string{"d.pdf"}, Folders: []string{"work"}, Types: []string{"note"}}, []uint64{1, 2}},
		{"after", vector.Filter{After: day(2)}, []uint64{2, 3, 4}},
		{"before", vector.Filter{Before: day(2)}, []uint64{1}},
		{"between", vector.Filter{After: day(2), Before: day(4)}, []uint64{2, 3}},
		{"all at once", vector.Filter{Folders: []string{"work"}, Types: []string{"note"}, Tags: [][]string{{"x"}}, After: day(2)}, []uint64{2}},
		{"nothing", vector.Filter{Folders: []string{"wor"}}, []uint64{}},
	} {
		if got := query(t, c, vector.Query{Vector: east, Limit: 10, Filter: test.f}); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
	same(t, query(t, c, vector.Query{Vector: east, Limit: 2, Filter: vector.Filter{Types: []string{"note"}}}), []uint64{1, 2})
}

func words(t *testing.T, s *store) {
	c := s.vault()
	say := func(terms ...uint32) vector.Words {
		w := vector.Words{Terms: terms}
		for range terms {
			w.Weights = append(w.Weights, 1)
		}
		return w
	}
	put := func(id uint64, name string, v []float32, terms ...uint32) {
		e := doc(name, id, v)
		e.Points[0].Words, e.Tags = say(terms...), []string{name[:1]}
		check(t, c.Replace(t.Context(), e))
	}
	put(1, "a.md", east, 7, 8, math.MaxUint32)
	put(2, "b.md", []float32{1, 0.1, 0, 0}, 7)
	put(3, "c.md", north, 7, 9)
	put(4, "d.md", up) // without words
	same(t, query(t, c, vector.Query{Vector: east, Limit: 2}), []uint64{1, 2})
	wordy, ok := c.(vector.Worded)
	if !ok {
		return
	}
	ask := func(q vector.Question) []uint64 {
		t.Helper()
		hits, err := wordy.Search(t.Context(), q)
		check(t, err)
		ids := []uint64{}
		for _, h := range hits {
			ids = append(ids, h.ID)
		}
		return ids
	}
	by := func(limit int, f vector.Filter, terms ...uint32) []uint64 {
		t.Helper()
		return ask(vector.Question{Query: vector.Query{Limit: limit, Filter: f}, Words: say(terms...)})
	}
	same(t, by(9, vector.Filter{}, 7), []uint64{1, 2, 3})
	same(t, by(9, vector.Filter{}, 7, 9), []uint64{3, 1, 2}) // what is rare counts for more
	same(t, by(1, vector.Filter{}, 7, 8, math.MaxUint32), []uint64{1})
	same(t, by(9, vector.Filter{Tags: [][]string{{"b", "c"}}}, 7), []uint64{2, 3})
	same(t, by(9, vector.Filter{}, 1000), []uint64{})
	both := vector.Question{Query: vector.Query{Vector: east, Limit: 9}, Words: say(8)}
	if got := ask(both); len(got) != 4 || got[0] != 1 { // first of both lanes; meaning finds them all
		t.Errorf("both lanes find %v", got)
	}
	both.Filter = vector.Filter{Names: []string{"b.md"}}
	same(t, ask(both), []uint64{2})
	same(t, ask(vector.Question{Query: vector.Query{Vector: east, Limit: 2}}), []uint64{1, 2})
	for _, q := range []vector.Question{{Words: say(7)}, {Query: vector.Query{Limit: 1}, Words: vector.Words{Terms: []uint32{7}}}, {Query: vector.Query{Limit: 1}}} {
		if _, err := wordy.Search(t.Context(), q); err == nil {
			t.Errorf("%+v was answered", q)
		}
	}
	put(3, "c.md", north, 8)
	same(t, by(9, vector.Filter{}, 9), []uint64{})
	check(t, c.Delete(t.Context(), "a.md"))
	same(t, by(9, vector.Filter{}, 8), []uint64{3})
}

func direction(t *testing.T, s *store) {
	c := s.vault()
	check(t, c.Replace(t.Context(), doc("long.md", 1, []float32{900, 100, 0, 0}), doc("short.md", 2, []float32{0.001, 0, 0, 0})))
	hits, err := c.Query(t.Context(), vector.Query{Vector: []float32{50, 0, 0, 0}, Limit: 1})
	check(t, err)
	if hits[0].ID != 2 || math.Abs(float64(hits[0].Score)-1) > 1e-6 {
		t.Fatal(hits)
	}
}

func refused(t *testing.T, s *store) {
	c := s.vault()
	nan := float32(math.NaN())
	for _, e := range []vector.Entry{
		doc("short.md", 1, []float32{1, 0}), doc("zero.md", 1, make([]float32, 4)), doc("nan.md", 1, []float32{nan, 0, 0, 1}), doc("", 1, east),
	} {
		if err := c.Replace(t.Context(), doc("good.md", 5, east), e); err == nil {
			t.Errorf("%q was stored", e.Name)
		}
	}
	for _, q := range []vector.Query{{Vector: east}, {Vector: east[:3], Limit: 1}, {Vector: make([]float32, 4), Limit: 1}} {
		if _, err := c.Query(t.Context(), q); err == nil {
			t.Errorf("%v was answered", q)
		}
	}
	if _, err := s.Build(t.Context(), "../vault", small); err == nil {
		t.Error("a name that is a path was taken")
	}
	if _, err := s.Build(t.Context(), "vault", vector.Stamp{Model: "m"}); err == nil {
		t.Error("a stamp without dimensions was taken")
	}
	docs, err := c.Documents(t.Context())
	check(t, err)
	same(t, len(docs), 0)
}

func many(t *testing.T, s *store) {
	c := s.vault()
	r := rand.New(rand.NewPCG(1, 1))
	var all []vector.Entry
	for i := range 1000 {
		e := doc(fmt.Sprintf("%03d.md", i), uint64(2*i))
		for j := range 2 {
			v := make([]float32, 4)
			for k := range v {
				v[k] = float32(r.NormFloat64())
			}
			e.Points = append(e.Points, vector.Point{ID: uint64(2*i + j), Vector: v})
		}
		all = append(all, e)
	}
	check(t, c.Replace(t.Context(), all...))
	docs, err := c.Documents(t.Context())
	check(t, err)
	same(t, len(docs), 1000)
	for _, e := range all[:20] {
		same(t, query(t, c, vector.Query{Vector: e.Points[1].Vector, Limit: 1}), []uint64{e.Points[1].ID})
	}
	same(t, len(query(t, c, vector.Query{Vector: east, Limit: 1500})), 1500)
	var gone []string
	for _, e := range all[:900] {
		gone = append(gone, e.Name)
	}
	check(t, c.Delete(t.Context(), gone...))
	same(t, len(query(t, c, vector.Query{Vector: east, Limit: 1500})), 200)
}

func reopened(t *testing.T, s *store) {
	c := s.vault()
	check(t, c.Replace(t.Context(), doc("a.md", 1, east), doc("b.md", 2, north)))
	check(t, c.Save(t.Context()))
	check(t, c.Replace(t.Context(), doc("b.md", 3, up)))
	s.reopen()
	c = must(t)(s.Serving(t.Context(), "vault"))
	same(t, c.Stamp(), small)
	same(t, query(t, c, vector.Query{Vector: up, Limit: 10}), []uint64{3, 1})
}

func none(t *testing.T, s *store) {
	if _, err := s.Serving(t.Context(), "vault"); !errors.Is(err, vector.ErrNone) {
		t.Fatal(err)
	}
	if err := s.Switch(t.Context(), "vault", small); !errors.Is(err, vector.ErrNone) {
		t.Fatal(err)
	}
	must(t)(s.Build(t.Context(), "vault", small))
	if _, err := s.Serving(t.Context(), "vault"); !errors.Is(err, vector.ErrNone) {
		t.Fatal(err)
	}
}

func switched(t *testing.T, s *store) {
	old := s.vault()
	check(t, old.Replace(t.Context(), doc("a.md", 1, east)))
	large := vector.Stamp{Model: "large", Dimensions: 6}
	next := must(t)(s.Build(t.Context(), "vault", large))
	same(t, next.Stamp(), large)
	check(t, next.Replace(t.Context(), doc("a.md", 8, []float32{0, 0, 0, 0, 0, 1})))
	same(t, query(t, must(t)(s.Serving(t.Context(), "vault")), vector.Query{Vector: east, Limit: 9}), []uint64{1})
	check(t, s.Switch(t.Context(), "vault", large))
	check(t, s.Switch(t.Context(), "vault", large)) // again changes nothing
	now := must(t)(s.Serving(t.Context(), "vault"))
	same(t, now.Stamp(), large)
	same(t, query(t, now, vector.Query{Vector: []float32{0, 0, 0, 0, 0, 2}, Limit: 9}), []uint64{8})
	if _, err := old.Query(t.Context(), vector.Query{Vector: east, Limit: 1}); err == nil {
		t.Error("the old collection still answers")
	}
	s.reopen()
	same(t, must(t)(s.Serving(t.Context(), "vault")).Stamp(), large)
	again := must(t)(s.Build(t.Context(), "vault", small)) // it was removed, so this one is new
	docs, err := again.Documents(t.Context())
	check(t, err)
	same(t, len(docs), 0)
}

// back goes from one stamp to another and back, the way that who tries a model goes: each building is begun in one process, goes on in the
// next, and another one looks at what serves meanwhile.
func back(t *testing.T, s *store) {
	large := vector.Stamp{Model: "large", Dimensions: 6}
	s.vault()
	for round, to := range []vector.Stamp{large, small, large, small} {
		first, second := make([]float32, to.Dimensions), make([]float32, to.Dimensions)
		first[0], second[1] = 1, 1
		next := must(t)(s.Build(t.Context(), "vault", to))
		check(t, next.Replace(t.Context(), doc("a.md", 1, first)))
		check(t, next.Save(t.Context()))
		must(t)(s.Serving(t.Context(), "vault"))
		same(t, query(t, next, vector.Query{Vector: first, Limit: 9}), []uint64{1})
		s.reopen()
		must(t)(s.Serving(t.Context(), "vault"))
		next = must(t)(s.Build(t.Context(), "vault", to))
		docs, err := next.Documents(t.Context())
		check(t, err)
		if len(docs) != 1 {
			t.Fatalf("round %d: what was begun of %s is gone", round, to)
		}
		check(t, next.Replace(t.Context(), doc("b.md", 2, second)))
		check(t, s.Switch(t.Context(), "vault", to))
		now := must(t)(s.Serving(t.Context(), "vault"))
		same(t, now.Stamp(), to)
		same(t, query(t, now, vector.Query{Vector: second, Limit: 9}), []uint64{2, 1})
		if round%2 == 0 {
			s.reopen()
		}
	}
}

func begun(t *testing.T, s *store) {
	s.vault()
	next := vector.Stamp{Model: "small", Dimensions: 4, Prefix: "passage: "}
	c := must(t)(s.Build(t.Context(), "vault", next))
	check(t, c.Replace(t.Context(), doc("a.md", 1, east)))
	check(t, c.Save(t.Context()))
	s.reopen()
	docs, err := must(t)(s.Build(t.Context(), "vault", next)).Documents(t.Context())
	check(t, err)
	same(t, len(docs), 1)
	docs, err = must(t)(s.Build(t.Context(), "vault", small)).Documents(t.Context()) // the serving one
	check(t, err)
	same(t, len(docs), 0)
}

func apart(t *testing.T, s *store) {
	a := s.vault()
	b := must(t)(s.Build(t.Context(), "vault-of_2026", small)) // the name of the one begins with that of the other
	check(t, s.Switch(t.Context(), "vault-of_2026", small))
	check(t, s.Switch(t.Context(), "vault", small))
	check(t, a.Replace(t.Context(), doc("a.md", 1, east)))
	check(t, b.Replace(t.Context(), doc("a.md", 2, east)))
	check(t, a.Delete(t.Context(), "a.md"))
	same(t, query(t, b, vector.Query{Vector: east, Limit: 9}), []uint64{2})
	same(t, query(t, a, vector.Query{Vector: east, Limit: 9}), []uint64{})
}

func cancelled(t *testing.T, s *store) {
	c := s.vault()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Query(ctx, vector.Query{Vector: east, Limit: 1}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// together has four readers look on while a document is replaced: they see it, old or new or in part, and no error.
func together(t *testing.T, s *store) {
	c := s.vault()
	check(t, c.Replace(t.Context(), doc("a.md", 0, east, east)))
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				hits, err := c.Query(t.Context(), vector.Query{Vector: east, Limit: 10})
				if err != nil {
					t.Error(err)
					return
				}
				if len(hits) == 0 || slices.ContainsFunc(hits, func(h vector.Hit) bool { return h.Document != "a.md" }) {
					t.Error(hits)
					return
				}
			}
		})
	}
	for i := range 30 {
		check(t, c.Replace(t.Context(), doc("a.md", uint64(2*i), east, east)))
	}
	close(done)
	readers.Wait()
	same(t, query(t, c, vector.Query{Vector: east, Limit: 10}), []uint64{58, 59})
}
