package library

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/qdrant"
	"home.arpa/lab/llm-runner/internal/vector"
)

// concepts is a model that knows a few words and what is the same as what: each concept is a dimension.
type concepts struct {
	mu    sync.Mutex
	texts int  // that it was asked for
	away  bool // it refuses
	hang  chan struct{}
	again chan struct{} // told of each refusal, if somebody listens
}

var meansTheSame = []string{"car automobile vehicle wagen", "bread loaf bakery brot", "doctor physician clinic arzt", "rain weather storm regen",
	"money bank loan geld", "cat kitten pet katze", "music song guitar lied", "garden tomato plant garten"}

func (c *concepts) Embed(ctx context.Context, r llm.EmbedRequest) (out llm.Embeddings, err error) {
	c.mu.Lock()
	away, hang := c.away, c.hang
	if !away {
		c.texts += len(r.Texts)
	}
	c.mu.Unlock()
	if away {
		select {
		case c.again <- struct{}{}:
		default:
		}
		return out, &llm.Error{Kind: llm.Unavailable, Model: r.Model, Message: "the model is away"}
	}
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
	for _, text := range r.Texts {
		switch {
		case strings.Contains(text, "unspeakable"):
			return out, &llm.Error{Kind: llm.BadRequest, Model: r.Model, Message: "a token that\nnobody knows"}
		case len(text) > 3000:
			return out, &llm.Error{Kind: llm.BadRequest, Model: r.Model, Message: "the input is too long", TooLong: true}
		}
		v := make([]float32, len(meansTheSame)+1)
		v[len(meansTheSame)] = 0.1
		for word := range strings.FieldsFuncSeq(strings.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' }) {
			for i, same := range meansTheSame {
				if slices.Contains(strings.Fields(same), word) {
					v[i]++
				}
			}
		}
		out.Vectors = append(out.Vectors, v)
	}
	return out, nil
}

func (c *concepts) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.texts
	c.texts = 0
	return n
}

func (c *concepts) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// minded gives l a lane of meaning by c, which is called model, with vectors in dir.
func minded(t testing.TB, l *Library, c *concepts, model, dir string) {
	t.Helper()
	store := vector.NewLocal(dir)
	t.Cleanup(func() { store.Close() })
	all := map[string]*embed.Embedder{}
	var mu sync.Mutex
	l.Understand(Meaning{Store: store, Embedder: func(_ context.Context, s vector.Stamp) (*embed.Embedder, error) {
		mu.Lock()
		defer mu.Unlock()
		of := s.Model
		if of == "" {
			of = model
		}
		if all[of] == nil {
			all[of] = embed.New(l.db, c, embed.Config{Model: of})
		}
		return all[of], nil
	}})
}

func embedNow(t testing.TB, l *Library) {
	t.Helper()
	if err := l.Embed(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func syncNow(t testing.TB, l *Library) {
	t.Helper()
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func paths(hits []Hit) []string {
	var all []string
	for _, h := range hits {
		all = append(all, h.Path)
	}
	return all
}

var few = map[string]string{
	"travel.md": "# Travel\n\nThe automobile needs new tyres before winter.\n",
	"food.md":   "# Food\n\nThe bakery around the corner closes at noon.\n",
	"health.md": "---\ntags: [body]\n---\n# Health\n\nThe physician wants to see me in May, part number zx-81.\n",
	"sky.md":    "# Sky\n\nA storm is coming on Friday.\n",
}

func TestNotesAreFoundByWhatTheyMean(t *testing.T) {
	l, c := open(t, at(t, folder(t, few))), &concepts{}
	minded(t, l, c, "concepts", t.TempDir())
	embedNow(t, l)
	for query, want := range map[string]string{"my car": "travel.md", "where to buy a loaf": "food.md", "doctor": "health.md", "will it rain": "sky.md", "doctor tag:body": "health.md"} {
		r, err := l.Explain(t.Context(), Request{Query: query, Limit: 3, Lane: Hybrid})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Hits) == 0 || r.Hits[0].Path != want {
			t.Errorf("%q finds %v, not %s", query, paths(r.Hits), want)
		}
	}
	hits, err := l.Find(t.Context(), Request{Query: "car tag:body", Limit: 3, Lane: Hybrid})
	if err != nil || len(hits) != 1 || hits[0].Path != "health.md" {
		t.Errorf("a filter lets %v through, %v", paths(hits), err)
	}
	if hits, _ := l.Find(t.Context(), Request{Query: "car path:nowhere", Limit: 3, Lane: Hybrid}); len(hits) > 0 {
		t.Errorf("a filter lets %v through", paths(hits))
	}
	if hits, _ := l.Find(t.Context(), Request{Query: "car", Limit: 3, Lane: Words}); len(hits) > 0 {
		t.Errorf("words alone find %v", paths(hits))
	}
	s := l.Status().Meaning
	if s.State != MeaningReady || s.Notes != 4 || s.Of != 4 || s.Model != "concepts" {
		t.Errorf("%+v", s)
	}
}

func TestWhatIsNamedIsFoundWhateverItMeans(t *testing.T) {
	files := map[string]string{}
	for _, n := range strings.Fields("a b c d e f g h i j k l") { // near to every question about cars
		files[n+".md"] = "# " + n + "\n\nThe car of " + n + ", an automobile, a vehicle.\n"
	}
	files["part.md"] = "# Part\n\nThe hinge is called zx-81-b and squeaks.\n"
	files["quote.md"] = "# Quote\n\nHe said that all is well that ends.\n"
	files["odd.md"] = "# Odd\n\nSomething about a quokka.\n"
	l, c := open(t, at(t, folder(t, files))), &concepts{}
	minded(t, l, c, "concepts", t.TempDir())
	embedNow(t, l)
	for query, want := range map[string]string{"car zx-81-b": "part.md", `car "all is well"`: "quote.md", "car automobile vehicle quokka": "odd.md", "part": "part.md"} {
		hits, err := l.Find(t.Context(), Request{Query: query, Limit: 5, Lane: Hybrid})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(paths(hits), want) {
			t.Errorf("%q finds %v, not %s", query, paths(hits), want)
		}
	}
}

func TestNothingIsEmbeddedTwice(t *testing.T) {
	dir, vectors := folder(t, few), t.TempDir()
	l, c := open(t, at(t, dir)), &concepts{}
	minded(t, l, c, "concepts", vectors)
	embedNow(t, l)
	if n := c.asked(); n != 5 { // and one to learn the dimension
		t.Errorf("%d texts were embedded", n)
	}
	if err := os.Rename(filepath.Join(dir, "food.md"), filepath.Join(dir, "eating.md")); err != nil {
		t.Fatal(err)
	}
	syncNow(t, l)
	embedNow(t, l)
	if n := c.asked(); n != 0 {
		t.Errorf("a rename had %d texts embedded", n)
	}
	hits, err := l.Find(t.Context(), Request{Query: "loaf", Limit: 1, Lane: Vector})
	if err != nil || len(hits) != 1 || hits[0].Path != "eating.md" {
		t.Errorf("%v, %v", paths(hits), err)
	}
	c.asked()
	if _, err := l.Reindex(t.Context()); err != nil {
		t.Fatal(err)
	}
	embedNow(t, l)
	if n := c.asked(); n != 0 {
		t.Errorf("indexing everything again had %d texts embedded", n)
	}
	again, err := Open(t.Context(), l.db, at(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	l.mind.Store.Close()
	minded(t, again, c, "concepts", vectors)
	syncNow(t, again)
	embedNow(t, again)
	if n := c.asked(); n > 1 {
		t.Errorf("a new start had %d texts embedded", n)
	}
	write(t, dir, "food.md", "# Food\n\nNo bread today.\n")
	if err := os.Remove(filepath.Join(dir, "eating.md")); err != nil {
		t.Fatal(err)
	}
	syncNow(t, again)
	embedNow(t, again)
	if n := c.asked(); n != 1 {
		t.Errorf("one new note had %d texts embedded", n)
	}
	hits, err = again.Find(t.Context(), Request{Query: "loaf", Limit: 9, Lane: Vector})
	if err != nil || len(hits) != 4 || hits[0].Path != "food.md" {
		t.Errorf("%v, %v", paths(hits), err)
	}
}

func TestTheOldModelServesUntilTheNewOneIsReady(t *testing.T) {
	dir, vectors := folder(t, few), t.TempDir()
	l, c := open(t, at(t, dir)), &concepts{}
	minded(t, l, c, "old", vectors)
	embedNow(t, l)
	l.mind.Store.Close()
	minded(t, l, c, "new", vectors)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	find := func() {
		t.Helper()
		if hits, err := l.Find(t.Context(), Request{Query: "doctor", Limit: 1, Lane: Hybrid}); err != nil || len(hits) != 1 || hits[0].Path != "health.md" {
			t.Errorf("%v, %v", paths(hits), err)
		}
	}
	find() // the old vectors answer before anything of the new ones is there
	c.set(func() { c.away, c.again = true, make(chan struct{}) })
	done := make(chan error, 1)
	go func() { done <- l.Embed(ctx) }()
	<-c.again // it waits for the model
	c.set(func() { c.away = false })
	find()
	if s := l.Status().Meaning; s.State == MeaningReady {
		t.Errorf("%+v", s)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s, err := l.mind.Store.Serving(t.Context(), Notes)
	if err != nil || s.Stamp().Model != "new" {
		t.Errorf("%v serve, %v", s.Stamp(), err)
	}
	find()
}

func TestWithoutItsModelTheSearchGoesByWords(t *testing.T) {
	l, c := open(t, at(t, folder(t, few))), &concepts{}
	minded(t, l, c, "concepts", t.TempDir())
	embedNow(t, l)
	c.set(func() { c.away = true })
	r, err := l.Explain(t.Context(), Request{Query: "physician", Limit: 3})
	if err != nil || len(r.Hits) != 1 || r.Hits[0].Path != "health.md" {
		t.Fatalf("%v, %v", paths(r.Hits), err)
	}
	if len(r.Lanes) != 2 || !strings.Contains(r.Lanes[1].Says, "the model is away") {
		t.Errorf("lanes %+v", r.Lanes)
	}
	if _, err := l.Find(t.Context(), Request{Query: "physician", Limit: 3, Lane: Hybrid}); err == nil {
		t.Error("who asks for both lanes gets one and is not told")
	}
	c.set(func() { c.away, c.hang = false, make(chan struct{}) })
	l.patience = time.Millisecond // it would wait for ever otherwise
	r, err = l.Explain(t.Context(), Request{Query: "a physician", Limit: 3})
	if err != nil || len(r.Hits) != 1 || len(r.Lanes) != 2 || !strings.Contains(r.Lanes[1].Says, "did not answer within 1ms") {
		t.Errorf("%v, %+v, %v", paths(r.Hits), r.Lanes, err)
	}
	l.patience = time.Minute
	close(c.hang) // the question goes on meanwhile, and the next one has its vector
	c.set(func() { c.hang = nil })
	if r, err = l.Explain(t.Context(), Request{Query: "a physician", Limit: 3}); err != nil || len(r.Lanes) != 2 || r.Lanes[1].Found == 0 {
		t.Errorf("%+v, %v", r.Lanes, err)
	}
}

func TestEmbeddingPausesAndGoesOn(t *testing.T) {
	dir := folder(t, few)
	l, c := open(t, at(t, dir)), &concepts{away: true, again: make(chan struct{})}
	minded(t, l, c, "concepts", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.mind.run(ctx)
	}()
	defer func() { cancel(); <-done }()
	<-c.again
	finds(t, l, "physician", "health.md") // words do not wait
	until(t, "it is told what is waited for", func() bool {
		s := l.Status().Meaning
		return s.State == MeaningWaiting && strings.Contains(s.Says, "away")
	})
	c.set(func() { c.away = false })
	until(t, "all vectors are there", func() bool { return l.Status().Meaning.State == MeaningReady })
	write(t, dir, "new.md", "# New\n\nA kitten.\n")
	syncNow(t, l)
	until(t, "a new note has vectors", func() bool {
		hits, err := l.Find(t.Context(), Request{Query: "cat", Limit: 1, Lane: Vector})
		return err == nil && len(hits) == 1 && hits[0].Path == "new.md"
	})
}

func TestNobodyEmbeds(t *testing.T) {
	l := open(t, at(t, folder(t, few)))
	if s := l.Status().Meaning; s.State != MeaningOff {
		t.Errorf("%+v", s)
	}
	if err := l.Embed(t.Context()); !errors.Is(err, errNoMeaning) {
		t.Error(err)
	}
	if _, err := l.Find(t.Context(), Request{Query: "car", Limit: 1, Lane: Vector}); !errors.Is(err, errNoMeaning) {
		t.Error(err)
	}
	finds(t, l, "physician", "health.md")
}

func TestATitleThatIsTheFilesNameHasNoMeaning(t *testing.T) {
	n := meantNote{path: "a/plan.md", title: "plan"}
	if got := n.text(meantPassage{heading: "Top\nBelow", body: "## Below\n\nText.\n"}); got != "Top\n## Below\n\nText." {
		t.Errorf("%q", got)
	}
	n.title = "The great plan"
	if got := n.text(meantPassage{heading: "The great plan", body: "Text."}); got != "The great plan\nText." {
		t.Errorf("%q", got)
	}
}

// until waits for a state that comes by itself.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come that %s", what)
		}
	}
}

func TestWhatIsSaidTwiceIsSaidOnce(t *testing.T) {
	var s said
	words := func(text string) []string { return stems(text, 0) }
	for _, x := range []struct {
		text string
		had  bool
	}{
		{"The warranty of the washing machine runs until the third of May, and the receipt is in the blue folder.", false},
		{"the warranty of the **washing machine** runs until the third of May and the receipt is in the blue folder!", true},
		{"The warranty of the washing machine runs until the third of May.", false},
		{"The warranty of the washing machine runs until the fourth of June, and the receipt is in the blue folder.", false}, // another statement
		{"Blue folder in the receipt is the May of the third until runs machine washing the warranty.", false},
		{"Yes.", false},
		{"Yes.", false},
	} {
		if got := s.had(words(x.text)); got != x.had {
			t.Errorf("%q: %v", x.text, got)
		}
	}
}

func TestVectorsMayBeKeptInQdrant(t *testing.T) {
	f, err := fake.NewQdrant(script.Script{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f)
	defer server.Close()
	l, c := open(t, at(t, folder(t, few))), &concepts{}
	e := embed.New(l.db, c, embed.Config{Model: "concepts"})
	l.Understand(Meaning{Store: qdrant.New(qdrant.Config{URL: server.URL}), Words: qdrant.Say, Asked: qdrant.Ask,
		Embedder: func(context.Context, vector.Stamp) (*embed.Embedder, error) { return e, nil }})
	if err := l.Put(t.Context(), Web, Document{Path: "page", Title: "A page", Text: []byte("The vehicle of the future.\n")}); err != nil {
		t.Fatal(err)
	}
	embedNow(t, l)
	for query, want := range map[string]string{"loaf": "food.md", "doctor tag:body": "health.md", "car collection:web": "page", "car collection:vault": "travel.md"} {
		hits, err := l.Find(t.Context(), Request{Query: query, Limit: 3, Lane: Hybrid})
		if err != nil || len(hits) == 0 || hits[0].Path != want {
			t.Errorf("%q finds %v, not %s, %v", query, paths(hits), want, err)
		}
	}
	c.asked()
	for query, want := range map[string]string{"future": "page", "future collection:vault": "", "vehicle -page": "page", "nobodysaidthis": ""} {
		r, err := l.Explain(t.Context(), Request{Query: query, Limit: 3, Lane: Sparse})
		if got := strings.Join(paths(r.Hits), " "); err != nil || got != want || len(r.Lanes) != 1 || r.Lanes[0].Name != Sparse {
			t.Errorf("the words of the store: %q finds %q, not %q, %+v, %v", query, got, want, r.Lanes, err)
		}
	}
	if n := c.asked(); n != 0 {
		t.Errorf("%d texts were embedded for words", n)
	}
	server.CloseClientConnections()
	server.Close()
	if r, err := l.Explain(t.Context(), Request{Query: "physician", Limit: 3}); err != nil || len(r.Hits) != 1 || r.Lanes[1].Says == "" {
		t.Errorf("%v, %+v, %v", paths(r.Hits), r.Lanes, err)
	}
}

func TestAStoreWithoutWordsSaysSo(t *testing.T) {
	l, c := open(t, at(t, folder(t, few))), &concepts{}
	minded(t, l, c, "concepts", t.TempDir())
	embedNow(t, l)
	if _, err := l.Find(t.Context(), Request{Query: "car", Limit: 3, Lane: Sparse}); err == nil || !strings.Contains(err.Error(), "library.store: qdrant") {
		t.Error(err)
	}
}

func TestWhatIsWithheldIsFoundByWordsAlone(t *testing.T) {
	l, c := open(t, at(t, folder(t, few))), &concepts{}
	minded(t, l, c, "concepts", t.TempDir())
	l.mind.Withheld = func(model, collection, path string) bool {
		return model == "concepts" && collection == Notes && path == "health.md"
	}
	embedNow(t, l)
	if n := c.asked(); n != 4 { // three notes, and one text to learn the dimension
		t.Errorf("%d texts were embedded", n)
	}
	hits, err := l.Find(t.Context(), Request{Query: "physician", Limit: 1, Lane: Hybrid})
	if err != nil || len(hits) != 1 || hits[0].Path != "health.md" {
		t.Errorf("%v, %v", paths(hits), err)
	}
}

// judge answers what it is told to, whatever it is asked.
type judge struct {
	says  string
	err   error
	asked string
}

func (j *judge) Stream(_ context.Context, r llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		j.asked = r.Messages[len(r.Messages)-1].Text()
		if j.err != nil {
			yield(llm.Event{}, j.err)
			return
		}
		yield(llm.Event{Text: j.says, Finish: llm.FinishStop}, nil)
	}
}

func TestAModelMayOrderTheBest(t *testing.T) {
	l := open(t, at(t, folder(t, map[string]string{
		"a.md": "# A\n\nThe boiler, the boiler: it hums.\n", "b.md": "# B\n\nOur boiler was made in 1994.\n", "c.md": "# C\n\nThe boiler leaks now and then in autumn.\n",
	})))
	j := &judge{says: "Passages 3, 2 (and not 9)."}
	l.Rerank(j, "small")
	ask := func(rerank bool) (Result, []string) {
		t.Helper()
		r, err := l.Explain(t.Context(), Request{Query: "when was the boiler made", Limit: 3, Rerank: rerank})
		if err != nil {
			t.Fatal(err)
		}
		return r, paths(r.Hits)
	}
	_, before := ask(false)
	if j.asked != "" {
		t.Error("it was asked, though nobody wanted that")
	}
	r, after := ask(true)
	if want := []string{before[2], before[1], before[0]}; !slices.Equal(after, want) {
		t.Errorf("%v, not %v", after, want)
	}
	if !strings.Contains(j.asked, "[2] ") || !strings.Contains(j.asked, "when was the boiler made") || r.Lanes[1].Name != Reranked || Show(r).Found[0].Why.Reranked != 1 {
		t.Errorf("asked %q; %+v", j.asked, r.Lanes)
	}
	j.err = &llm.Error{Kind: llm.Unavailable, Message: "it is off"}
	if r, after = ask(true); !slices.Equal(after, before) || !strings.Contains(r.Lanes[1].Says, "it is off") {
		t.Errorf("%v, %+v", after, r.Lanes)
	}
}

func FuzzOrder(f *testing.F) {
	f.Add("3, 1, 2", 3)
	f.Add("[1] and 99999999999999999999", 2)
	f.Fuzz(func(t *testing.T, text string, n int) {
		seen := map[int]bool{}
		for _, i := range OrderIn(text, n) {
			if i < 0 || i >= n || seen[i] {
				t.Errorf("%d of %d", i, n)
			}
			seen[i] = true
		}
	})
}

// A note is read as it is at one moment, however often it is indexed meanwhile: with its version go its own passages.
func TestANoteIsReadAtOneMoment(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for n := range 40 {
		paths = append(paths, fmt.Sprintf("n%d.md", n))
		write(t, dir, paths[n], fmt.Sprintf("# Note %d\n\n## One\n\nThe car.\n\n## Two\n\nThe bread.\n", n))
	}
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	source, err := Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), d, source)
	if err != nil {
		t.Fatal(err)
	}
	syncNow(t, l)
	ended := make(chan error, 1)
	go func() {
		for range 30 {
			if _, err := l.Reindex(t.Context()); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	for looked := 0; ; looked++ {
		all, _, err := meant(t.Context(), d, Notes, paths, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range all {
			if len(n.passages) < 2 {
				t.Fatalf("look %d: %s has %d passages in version %s", looked, n.path, len(n.passages), n.version)
			}
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
