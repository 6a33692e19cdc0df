package library

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/qdrant"
	"home.arpa/lab/llm-runner/internal/vector"
)

// brokenStore is a store one collection of which cannot be opened.
type brokenStore struct {
	vector.Store
	name string
}

var errBroken = errors.New("which of them serve cannot be read")

func (b *brokenStore) Serving(ctx context.Context, name string) (vector.Collection, error) {
	if name == b.name {
		return nil, errBroken
	}
	return b.Store.Serving(ctx, name)
}

// A collection that fails holds no other up, whichever comes first, and is tried again.
func TestOneCollectionThatFailsHoldsNoOtherUp(t *testing.T) {
	l, c := open(t, at(t, folder(t, few))), &concepts{}
	minded(t, l, c, "concepts", t.TempDir())
	store := &brokenStore{l.mind.Store, "a-b"}
	l.mind.Store = store
	for _, name := range []string{"a-b", "x_y-z"} {
		if err := l.Put(t.Context(), name, Document{Path: "page in " + name, Text: []byte("The physician is in.\n")}); err != nil {
			t.Fatal(err)
		}
	}
	works := map[string]*work{}
	if err := l.mind.pass(t.Context(), works); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	for collection, want := range map[string]string{Notes: "health.md", "x_y-z": "page in x_y-z"} {
		hits, err := l.Find(t.Context(), Request{Query: "doctor", Limit: 1, Lane: Vector, Filter: Filter{Collection: collection}})
		if err != nil || len(hits) != 1 || hits[0].Path != want {
			t.Errorf("%s: %v, %v", collection, paths(hits), err)
		}
	}
	store.name = ""
	if err := l.mind.pass(t.Context(), works); err != nil {
		t.Fatal(err)
	}
	hits, err := l.Find(t.Context(), Request{Query: "doctor", Limit: 1, Lane: Vector, Filter: Filter{Collection: "a-b"}})
	if err != nil || len(hits) != 1 || l.Status().Meaning.State != MeaningReady {
		t.Errorf("%v, %v, %+v", paths(hits), err, l.Status().Meaning)
	}
}

// What the model cannot do, and what it read only the beginning of, keeps nothing else up and is named, after a new start too.
func TestNotesThatLackVectorsAreNamed(t *testing.T) {
	dir, vectors := folder(t, few), t.TempDir()
	write(t, dir, "bad.md", "# Bad\n\nThe unspeakable.\n\n# Worse\n\nThe physician too.\n")
	write(t, dir, "sub/long.md", "# Long\n\n```\n"+strings.Repeat("kitten and many other words\n", 200)+"```\n")
	l, c := open(t, at(t, dir)), &concepts{}
	minded(t, l, c, "concepts", vectors)
	c.set(func() { c.away, c.again = true, make(chan struct{}) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.mind.run(ctx)
	}()
	defer func() { cancel(); <-ended }()
	<-c.again
	c.set(func() { c.away = false })
	until(t, "all vectors are there", func() bool { return l.Status().Meaning.State == MeaningReady })
	check := func(l *Library) {
		t.Helper()
		s := l.Status()
		if len(s.Partly) != 2 || s.Partly[0].Path != "bad.md" || s.Partly[1].Path != "sub/long.md" {
			t.Fatalf("%+v", s.Partly)
		}
		if r := s.Partly[0].Reason; r != "concepts makes no vector of one passage, which words alone find: a token that nobody knows" {
			t.Error(r)
		}
		if r := s.Partly[1].Reason; !strings.HasPrefix(r, "concepts reads only the beginning of ") {
			t.Error(r)
		}
		if m := s.Meaning; m.Behind != 0 || len(m.Stale) != 0 || m.Missing() != "" {
			t.Errorf("%+v", m)
		}
	}
	check(l)
	hits, err := l.Find(t.Context(), Request{Query: "cat", Limit: 1, Lane: Vector})
	if err != nil || len(hits) != 1 || hits[0].Path != "sub/long.md" {
		t.Error(paths(hits), err)
	}
	cancel()
	<-ended
	l.mind.Store.Close()
	again, err := Open(t.Context(), l.db, at(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	minded(t, again, c, "concepts", vectors)
	c.asked()
	embedNow(t, again)
	check(again)
	if n := c.asked(); n > 1 { // the one that tells the dimension
		t.Errorf("%d texts were embedded", n)
	}
	for path := range few {
		write(t, dir, path, "# New\n\nSomething else.\n")
	}
	syncNow(t, again)
	if m := again.Status().Meaning; m.Behind != len(few) || len(m.Stale) != len(few) || !strings.Contains(m.Missing(), "food.md") {
		t.Errorf("%+v, %s", m, m.Missing())
	}
	write(t, dir, "bad.md", "# Good\n\nIt can be said.\n")
	syncNow(t, again)
	embedNow(t, again)
	if s := again.Status(); len(s.Partly) != 1 || s.Meaning.Behind != 0 {
		t.Errorf("%+v", s)
	}
}

// A pattern of vault.never_send that comes or goes counts at the next start.
func TestNotesThatAreNoLongerWithheldGetVectors(t *testing.T) {
	l, c := open(t, at(t, folder(t, few))), &concepts{}
	minded(t, l, c, "concepts", t.TempDir())
	hide := true
	l.mind.Withheld = func(_, _, path string) bool { return hide && path == "health.md" }
	for range 2 {
		embedNow(t, l)
		hits, err := l.Find(t.Context(), Request{Query: "doctor", Limit: 1, Lane: Vector})
		if err != nil || (len(hits) == 1 && hits[0].Path == "health.md") == hide {
			t.Errorf("withheld: %v, found %v, %v", hide, paths(hits), err)
		}
		if s := l.Status().Meaning; (s.Withheld == 1) != hide || strings.Contains(s.Sentence(), "never_send") != hide {
			t.Errorf("%+v: %s", s, s.Sentence())
		}
		hide = !hide
	}
	hide = true
	embedNow(t, l)
	if hits, err := l.Find(t.Context(), Request{Query: "doctor", Limit: 9, Lane: Vector}); err != nil || slices.Contains(paths(hits), "health.md") {
		t.Errorf("%v, %v", paths(hits), err)
	}
}

// damage writes over the first vector in a store's files.
func damage(t *testing.T, dir, collection string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, collection, "*", "vectors-*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("rotten"), 0)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Damaged vectors are made again from the cache: at the next saving that meets them, and each night.
func TestDamagedVectorsAreMadeAgain(t *testing.T) {
	dir, vectors := folder(t, few), t.TempDir()
	l, c := open(t, at(t, dir)), &concepts{}
	minded(t, l, c, "concepts", vectors)
	works := map[string]*work{}
	pass := func() {
		t.Helper()
		if err := l.mind.pass(t.Context(), works); err != nil {
			t.Fatal(err)
		}
	}
	pass()
	whole := func(how string) {
		t.Helper()
		x := works[Notes].collection.(*vector.Index)
		damaged, err := x.Check(t.Context())
		docs, err2 := x.Documents(t.Context())
		if len(damaged) > 0 || err != nil || err2 != nil || len(docs) != len(few)+1 {
			t.Errorf("%s: %v damaged, %d there, %v, %v", how, damaged, len(docs), err, err2)
		}
		if s := l.Status().Meaning; s.State != MeaningReady || !strings.Contains(s.Sentence(), "damaged on the disk") {
			t.Errorf("%s: %+v", how, s)
		}
		if n := c.asked(); n > 0 {
			t.Errorf("%s: %d texts were embedded", how, n)
		}
	}
	// So many changes that the next saving compacts.
	write(t, dir, "much.md", "# Much\n\n"+strings.Repeat(strings.Repeat("Many a word and sentence. ", 40)+"\n\n# More\n\n", 30))
	syncNow(t, l)
	pass()
	c.asked()
	damage(t, vectors, Notes)
	x := works[Notes].collection.(*vector.Index)
	for i := range 2000 {
		err := x.Replace(t.Context(), vector.Entry{Document: vector.Document{Name: "x", Version: "x"}, Points: []vector.Point{{ID: uint64(1e6 + i), Vector: []float32{1, 1, 1, 1, 1, 1, 1, 1, 1}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	l.mind.mu.Lock()
	l.mind.mark(Notes, "x") // which is gone
	l.mind.mu.Unlock()
	pass()
	if live, dead := x.Rows(); dead > live {
		t.Fatalf("%d of %d rows are dead: nothing was compacted", dead, live+dead)
	}
	whole("saving")
	l.mind.update(func(s *MeaningStatus) { s.Healed = "" })
	damage(t, vectors, Notes)
	l.mind.tend()
	pass()
	whole("the night")
}

// Each night the store keeps copies, though not of facts, which may be forgotten, and what nobody uses goes from the cache.
func TestVectorsAreLookedAfterAtNight(t *testing.T) {
	l, c := open(t, at(t, folder(t, few))), &concepts{}
	minded(t, l, c, "concepts", t.TempDir())
	var copied []string
	l.mind.Copy = func(_ context.Context, collection string) error {
		copied = append(copied, collection)
		return errors.New("the disk is full")
	}
	put := func(collection, path, text string) {
		t.Helper()
		if err := l.Put(t.Context(), collection, Document{Path: path, Text: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	put(Web, "page", "The vehicle of the future.\n")
	put(Memory, "1", "The user plays the guitar.")
	put(Memory, "2", "The user has a cat.")
	embedNow(t, l)
	if len(copied) > 0 {
		t.Errorf("%v were copied", copied)
	}
	count := func() (n int) {
		t.Helper()
		if err := l.db.Read().QueryRow(`SELECT count(*) FROM embeddings`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	used := count()
	err := l.db.Tx(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), `UPDATE embeddings SET used_day = used_day - 90`) // of what is there still: it is used tonight
		if err == nil {
			_, err = tx.ExecContext(t.Context(), `INSERT INTO embeddings (hash, vector, covers, used_day) SELECT 'old', vector, covers, used_day FROM embeddings LIMIT 1`)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.asked()
	night := func() int {
		t.Helper()
		if _, err := l.Reindex(t.Context()); err != nil {
			t.Fatal(err)
		}
		embedNow(t, l)
		return c.asked()
	}
	if n := night(); n > 1 { // the one that tells the dimension
		t.Errorf("%d texts were embedded again, facts among them", n)
	}
	if n := count(); n != used && n != used-1 { // the one that tells the dimension is known, and may go
		t.Errorf("%d vectors are in the cache, %d are used", n, used)
	}
	if !slices.Equal(copied, []string{Notes, Web}) {
		t.Errorf("%v were copied", copied)
	}
	if s := l.Status().Meaning; s.State != MeaningReady || !strings.Contains(s.Sentence(), "the disk is full") {
		t.Errorf("%+v", s)
	}
	// A fact that the index does not hold as it is, is indexed again.
	err = l.db.Tx(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), `UPDATE library_passages SET body = 'x' WHERE body LIKE '%guitar%'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := night(); n != 1 {
		t.Errorf("%d texts were embedded", n)
	}
	if hits, err := l.Find(t.Context(), Request{Query: "guitar", Limit: 9, Lane: Words}); err != nil || len(hits) != 1 || hits[0].Path != "1" {
		t.Errorf("%v, %v", paths(hits), err)
	}
}

// A filter that many notes pass, all of them farther than a thousand that do not, finds them in a store that cannot be asked for each note.
func TestAFilterThatManyNotesPassFindsThemInQdrant(t *testing.T) {
	if testing.Short() {
		t.Skip("indexes 2,200 notes")
	}
	f, err := fake.NewQdrant(script.Script{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f)
	defer server.Close()
	dir := t.TempDir()
	for i := range 1600 {
		write(t, dir, fmt.Sprintf("near/%d.md", i), fmt.Sprintf("---\ndate: 2020-01-01\n---\nThe car %d.\n", i))
	}
	for i := range 600 {
		write(t, dir, fmt.Sprintf("far/%d-away.md", i), fmt.Sprintf("---\ntype: plan\ntags: [Deep/Water, work/home, deep work]\ndate: 2026-03-%02d\n---\nThe vehicle %d and the garden.\n", i%28+1, i))
	}
	l, c := open(t, at(t, dir)), &concepts{}
	e := embed.New(l.db, c, embed.Config{Model: "concepts"})
	l.Understand(Meaning{Store: qdrant.New(qdrant.Config{URL: server.URL}), Embedder: func(context.Context, vector.Stamp) (*embed.Embedder, error) { return e, nil }})
	embedNow(t, l)
	for _, query := range []string{"car path:far/", "car path:FAR", "car path:away", "car tag:deep", "car tag:work", `car tag:"deep work"`, "car tag:deep path:a", "car type:plan", "car after:2026",
		"car after:2026-02 before:2026-05", "car path:far/ after:2026-03-10"} {
		r, err := l.Explain(t.Context(), Request{Query: query, Limit: 30, Lane: Vector})
		if err != nil || len(r.Hits) != 30 || slices.ContainsFunc(r.Hits, func(h Hit) bool { return !strings.HasPrefix(h.Path, "far/") }) {
			t.Errorf("%s: %d hits, %v", query, len(r.Hits), err)
		}
		if slices.ContainsFunc(r.Cut, func(c Cut) bool { return c.Why == byFilter }) { // the store was told, and gave no others
			t.Errorf("%s: %+v", query, r.Cut)
		}
	}
}

// slow is a model that answers when it is told to.
type slow struct {
	mu      sync.Mutex
	running map[string]bool
	most    int
	answer  chan struct{}
}

func (s *slow) Embed(ctx context.Context, r llm.EmbedRequest) (out llm.Embeddings, err error) {
	s.mu.Lock()
	s.running[r.Texts[0]] = true
	s.most = max(s.most, len(s.running))
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.running, r.Texts[0])
	}()
	select {
	case <-s.answer:
		return llm.Embeddings{Vectors: [][]float32{{1, 0}}}, nil
	case <-ctx.Done():
		return out, ctx.Err()
	}
}

// Who types leaves a question behind with each letter: the last one goes on, the others end.
func TestOfQuestionsThatNobodyWaitsForOneGoesOn(t *testing.T) {
	l := open(t, at(t, folder(t, few)))
	synctest.Test(t, func(t *testing.T) {
		s := &slow{running: map[string]bool{}, answer: make(chan struct{})}
		e := embed.New(l.db, s, embed.Config{Model: "slow"})
		var q questions
		const typed = "gardening in autumn"
		for i := range typed {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				_, err := q.vector(ctx, e, typed[:i+1])
				ended <- err
			}()
			synctest.Wait()
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			synctest.Wait()
		}
		if s.most > 2 || len(s.running) != 1 || !s.running[typed] {
			t.Errorf("%d at once, in the end %v", s.most, s.running)
		}
		// Two who ask it, one of whom goes: the other has it, and so has the next.
		first, cancel := context.WithCancel(t.Context())
		answers := make(chan error, 2)
		for _, ctx := range []context.Context{first, t.Context()} {
			go func() {
				v, err := q.vector(ctx, e, typed)
				if err == nil && len(v) != 2 {
					err = fmt.Errorf("a vector of %d", len(v))
				}
				answers <- err
			}()
		}
		synctest.Wait()
		cancel()
		if err := <-answers; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(s.answer)
		if err := <-answers; err != nil {
			t.Error(err)
		}
		if v, err := q.vector(t.Context(), e, typed); len(v) != 2 || err != nil {
			t.Error(v, err)
		}
		if len(q.all) != len(q.order) || len(q.all) != 1 || q.left != nil {
			t.Errorf("%v are remembered, in the order %v", q.all, q.order)
		}
	})
}
