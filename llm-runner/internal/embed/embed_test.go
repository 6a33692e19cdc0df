package embed_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/gemini"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/vector"
)

// database opens an empty database until the test ends; a variable, because the tests run on PostgreSQL too.
var database = func(t *testing.T) *db.DB {
	t.Helper()
	d, err := db.Open(context.Background(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// up is an llm.Embedder that answers with f and remembers what it was asked.
type up struct {
	f    func(n int, req llm.EmbedRequest) (llm.Embeddings, error) // n counts from 1
	mu   sync.Mutex
	seen []llm.EmbedRequest
}

func (u *up) Embed(ctx context.Context, req llm.EmbedRequest) (llm.Embeddings, error) {
	u.mu.Lock()
	u.seen = append(u.seen, req)
	n := len(u.seen)
	u.mu.Unlock()
	if u.f != nil {
		if out, err := u.f(n, req); err != nil || out.Vectors != nil {
			return out, err
		}
	}
	out := llm.Embeddings{}
	for _, t := range req.Texts {
		out.Vectors = append(out.Vectors, script.Vector(t, 768))
	}
	return out, nil
}

func (u *up) texts() []string {
	var all []string
	for _, r := range u.seen {
		all = append(all, r.Texts...)
	}
	return all
}

func TestCardsAreFoundByTheNamesThatServersUse(t *testing.T) {
	for name, want := range map[string]string{
		"nomic-embed-text": "nomic-embed-text", "nomic-embed-text:latest": "nomic-embed-text", "nomic-ai/nomic-embed-text-v1.5": "nomic-embed-text",
		"nomic-embed-text-v2-moe": "nomic-embed-text-v2", "models/gemini-embedding-001": "gemini-embedding-001",
		"sentence-transformers/all-MiniLM-L6-v2": "all-minilm", "all-minilm:22m": "all-minilm", "bge-m3:567m": "bge-m3",
		"BAAI/bge-large-en-v1.5": "bge-large", "snowflake-arctic-embed2": "snowflake-arctic-embed2", "intfloat/e5-large-v2": "e5",
		"qwen3-embedding:0.6b": "qwen3-embedding", "text-embedding-3-small": "text-embedding-3-small", "somebody/Else:7b": "else:7b",
	} {
		if got := embed.CardOf(name); got.Family != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if c := embed.CardOf("nomic-embed-text"); c.Document != "search_document: " || c.Query != "search_query: " || c.Dimensions != 768 {
		t.Error(c)
	}
	if c := embed.CardOf("unheard-of"); c.Document != "" || c.Query != "" || c.Dimensions != 0 {
		t.Error(c)
	}
}

func TestEveryModelGetsThePrefixesItWants(t *testing.T) {
	u := &up{}
	e := embed.New(database(t), u, embed.Config{Model: "nomic-embed-text"})
	v, err := e.Documents(t.Context(), []string{"a note"})
	if err != nil || len(v) != 1 || v[0].Covers != len("a note") {
		t.Fatal(v, err)
	}
	if _, err := e.Query(t.Context(), "a question"); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%q", u.texts()); got != `["search_document: a note" "search_query: a question"]` {
		t.Error(got)
	}
	s, err := e.Stamp(t.Context())
	if want := (vector.Stamp{Model: "nomic-embed-text", Dimensions: 768, Prefix: "search_document: "}); err != nil || s != want {
		t.Error(s, err)
	}
	if len(u.seen) != 2 {
		t.Error("asked for a dimension that is known")
	}
}

func TestTheDimensionOfAnUnknownModelIsLearned(t *testing.T) {
	u := &up{f: func(_ int, req llm.EmbedRequest) (llm.Embeddings, error) {
		return llm.Embeddings{Vectors: [][]float32{{1, 2, 3}}}, nil
	}}
	e := embed.New(database(t), u, embed.Config{Model: "unheard-of"})
	if s, err := e.Stamp(t.Context()); err != nil || s.Dimensions != 3 || s.Prefix != "" {
		t.Error(s, err)
	}
}

func TestNothingIsEmbeddedTwice(t *testing.T) {
	d, u := database(t), &up{}
	e := embed.New(d, u, embed.Config{Model: "nomic-embed-text", Batch: 3})
	texts := []string{"one", "two", "one", "three", "four", "two"}
	first, err := e.Documents(t.Context(), texts)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(u.texts()); got != 4 {
		t.Errorf("%d texts were sent: %q", got, u.texts())
	}
	again, err := embed.New(d, u, embed.Config{Model: "nomic-embed-text"}).Documents(t.Context(), texts) // another process
	if err != nil || len(u.texts()) != 4 {
		t.Fatal(err, u.texts())
	}
	for i := range texts {
		if fmt.Sprint(first[i]) != fmt.Sprint(again[i]) {
			t.Errorf("%s: what comes from the cache is not what was made", texts[i])
		}
	}
	if s := e.Status(); s.Made != 4 || s.Cached != 2 && s.Cached != 1 {
		t.Errorf("%+v", s)
	}
	for _, other := range []embed.Config{{Model: "bge-base-en"}, {Model: "nomic-embed-text:v1"}, {Model: "nomic-embed-text", Dimensions: 256}} {
		before := len(u.texts())
		_, _ = embed.New(d, u, other).Documents(t.Context(), []string{"one"})
		if len(u.texts()) == before {
			t.Errorf("%+v was answered with another model's vector", other)
		}
	}
}

func TestWhatIsNotUsedIsRemovedFromTheCache(t *testing.T) {
	u := &up{}
	e := embed.New(database(t), u, embed.Config{Model: "nomic-embed-text"})
	if _, err := e.Documents(t.Context(), []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if n, err := e.Prune(t.Context(), 24*time.Hour); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := e.Prune(t.Context(), -48*time.Hour); n != 2 || err != nil {
		t.Error(n, err)
	}
}

func TestTextsGoInBatchesOfSoManyAndSoLong(t *testing.T) {
	u := &up{}
	e := embed.New(database(t), u, embed.Config{Model: "unheard-of", Batch: 4})
	var texts []string
	for i := range 10 {
		texts = append(texts, fmt.Sprint(i))
	}
	texts = append(texts, strings.Repeat("x", 100<<10), strings.Repeat("y", 100<<10))
	if _, err := e.Documents(t.Context(), texts); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for _, r := range u.seen {
		sizes = append(sizes, len(r.Texts))
	}
	if fmt.Sprint(sizes) != "[4 4 2 1 1]" {
		t.Error(sizes)
	}
}

// A machine that does one thing at a time keeps people waiting for as long as a request takes.
func TestRequestsTakeAboutASecond(t *testing.T) {
	d := database(t)
	synctest.Test(t, func(t *testing.T) {
		u := &up{f: func(_ int, r llm.EmbedRequest) (llm.Embeddings, error) {
			size := 0
			for _, text := range r.Texts {
				size += len(text)
			}
			time.Sleep(time.Duration(size) * time.Second / 4000) // 4000 bytes a second
			return llm.Embeddings{}, nil
		}}
		e := embed.New(d, u, embed.Config{Model: "unheard-of"})
		var texts []string
		for i := range 60 {
			texts = append(texts, fmt.Sprintf("%3d%s", i, strings.Repeat(" word", 200)))
		}
		if _, err := e.Documents(t.Context(), texts); err != nil {
			t.Fatal(err)
		}
		for i, r := range u.seen[1:] {
			if n := len(r.Texts); n > 4 || n < 3 && i < len(u.seen)-2 {
				t.Errorf("request %d has %d texts of 1 kB", i+1, n)
			}
		}
	})
}

// While the model is away the work waits, says why, and goes on where it was, with what was made kept.
func TestItWaitsForAModelThatIsAway(t *testing.T) {
	d := database(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		u := &up{f: func(n int, _ llm.EmbedRequest) (llm.Embeddings, error) {
			switch {
			case n == 1:
				return llm.Embeddings{}, nil
			case n == 2:
				return llm.Embeddings{}, &llm.BusyError{Reason: "davas is down", Kind: llm.Unavailable}
			case n == 3:
				return llm.Embeddings{}, &llm.BusyError{Reason: "the limit is used up", Kind: llm.Quota, Until: time.Now().Add(90 * time.Second)}
			case n < 9:
				return llm.Embeddings{}, &llm.Error{Kind: llm.Unavailable, Message: "connection refused"}
			}
			return llm.Embeddings{}, nil
		}}
		e := embed.New(d, u, embed.Config{Model: "nomic-embed-text", Batch: 1})
		done := make(chan error)
		go func() { _, err := e.Documents(context.Background(), []string{"first", "second"}); done <- err }()
		synctest.Wait()
		if s := e.Status(); s.Waiting != "davas is down" || s.Until.Sub(began) != time.Second || s.Made != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if s := e.Status(); s.Waiting != "the limit is used up" || s.Until.Sub(began) != 91*time.Second {
			t.Errorf("%+v", s)
		}
		e.Wake() // the router says that somebody is back
		synctest.Wait()
		if s := e.Status(); s.Waiting != "connection refused" {
			t.Errorf("%+v", s)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if s := e.Status(); s.Waiting != "" || s.Made != 2 || len(u.seen) != 10 { // the last but one asked whether it is back
			t.Errorf("%+v after %d requests", s, len(u.seen))
		}
		if took := time.Since(began); took > 3*time.Minute {
			t.Error("it took", took)
		}
	})
}

// One text that a model cannot do, whatever it says of it, keeps no other from its vector: it is found out, and told.
func TestATextThatTheModelCannotDoIsLeftOut(t *testing.T) {
	d := database(t)
	zero := func(r llm.EmbedRequest) (out llm.Embeddings, err error) {
		for _, text := range r.Texts {
			v := script.Vector(text, 768)
			if strings.Contains(text, "bad") {
				clear(v)
			}
			out.Vectors = append(out.Vectors, v)
		}
		return out, nil
	}
	fail := func(err error) func(llm.EmbedRequest) (llm.Embeddings, error) {
		return func(r llm.EmbedRequest) (out llm.Embeddings, _ error) {
			if strings.Contains(strings.Join(r.Texts, " "), "bad") {
				return out, err
			}
			return out, nil
		}
	}
	for name, f := range map[string]func(llm.EmbedRequest) (llm.Embeddings, error){
		"a zero vector": zero,
		"a refusal":     fail(&llm.Error{Kind: llm.BadRequest, Status: 400, Message: "unknown token"}),
		// Ollama's 500 "failed to encode response: json: unsupported value: NaN", as the router tells it.
		"a failure": fail(&llm.BusyError{Kind: llm.Unavailable, Reason: "unsupported value: NaN"}),
		"an error":  fail(&llm.Error{Kind: llm.Unavailable, Status: 500, Message: "unsupported value: NaN"}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &up{f: func(_ int, r llm.EmbedRequest) (llm.Embeddings, error) { return f(r) }}
				e := embed.New(d, u, embed.Config{Model: "nomic-embed-text:" + strings.ReplaceAll(name, " ", "-")})
				var texts []string
				for i := range 20 {
					texts = append(texts, fmt.Sprintf("text %d", i))
				}
				texts[3], texts[19] = "bad once", "bad again"
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
				defer cancel()
				for _, make := range []func(context.Context, []string) ([]embed.Vector, error){e.Documents, e.Uncached} {
					vectors, err := make(ctx, texts)
					if err != nil || len(vectors) != len(texts) {
						t.Fatal(len(vectors), err)
					}
					for i, v := range vectors {
						if bad := strings.Contains(texts[i], "bad"); bad != (v.Values == nil) || bad != (v.Why != "") || bad != (v.Covers == 0) {
							t.Errorf("%s: %d values, %q", texts[i], len(v.Values), v.Why)
						}
					}
				}
				if n := len(u.seen); n > 150 {
					t.Errorf("%d requests", n)
				}
				if s := e.Status(); s.Waiting != "" {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// A limit that small requests pass and large ones do not is no text's fault.
func TestALimitIsNoTextsFault(t *testing.T) {
	d := database(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		u := &up{f: func(_ int, r llm.EmbedRequest) (out llm.Embeddings, err error) {
			if len(r.Texts[0]) > 500 && time.Since(began) < time.Hour {
				return out, &llm.BusyError{Kind: llm.Quota, Reason: "tokens a minute"}
			}
			return out, nil
		}}
		v, err := embed.New(d, u, embed.Config{Model: "nomic-embed-text"}).Documents(context.Background(), []string{words(300), "short"})
		if err != nil || v[0].Values == nil || v[1].Values == nil || time.Since(began) < time.Hour {
			t.Error(len(v), err, time.Since(began))
		}
	})
}

func TestWhatWaitingDoesNotCureIsAnErrorAtOnce(t *testing.T) {
	for _, kind := range []llm.Kind{llm.Auth, llm.NotFound, llm.Spend, llm.BadRequest} {
		u := &up{f: func(int, llm.EmbedRequest) (llm.Embeddings, error) {
			return llm.Embeddings{}, &llm.Error{Kind: kind, Message: "no"}
		}}
		e := embed.New(database(t), u, embed.Config{Model: "m"})
		if _, err := e.Documents(t.Context(), []string{"a"}); err == nil || len(u.seen) > 2 { // the second, whether it refuses everything
			t.Error(kind, err, len(u.seen))
		}
	}
}

func TestAQuestionDoesNotWait(t *testing.T) {
	u := &up{f: func(int, llm.EmbedRequest) (llm.Embeddings, error) {
		return llm.Embeddings{}, &llm.BusyError{Reason: "busy", Until: time.Now().Add(time.Hour)}
	}}
	var busy *llm.BusyError
	if _, err := embed.New(database(t), u, embed.Config{Model: "m"}).Query(t.Context(), "q"); !errors.As(err, &busy) {
		t.Error(err)
	}
}

func TestStoppingEndsTheWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u := &up{f: func(int, llm.EmbedRequest) (llm.Embeddings, error) {
		cancel()
		return llm.Embeddings{}, &llm.BusyError{Reason: "busy", Until: time.Now().Add(time.Hour)}
	}}
	_, err := embed.New(database(t), u, embed.Config{Model: "m"}).Documents(ctx, []string{"a"})
	if err == nil {
		t.Error("no error")
	}
}

func TestVectorsThatCannotBeRightAreRefused(t *testing.T) {
	nan := float32(math.NaN())
	for name, bad := range map[string][][]float32{"none": {}, "two": {{1}, {1}}, "empty": {{}}, "short": {{1, 2}}, "zero": {make([]float32, 768)},
		"nan": {append(make([]float32, 767), nan)}} {
		u := &up{f: func(int, llm.EmbedRequest) (llm.Embeddings, error) { return llm.Embeddings{Vectors: bad}, nil }}
		e := embed.New(database(t), u, embed.Config{Model: "nomic-embed-text"})
		_, err := e.Documents(t.Context(), []string{"a"})
		if err == nil || !strings.Contains(err.Error(), "nomic-embed-text") || len(u.seen) > 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// words is a text of n different words.
func words(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "word%d ", i)
	}
	return b.String()
}

// A text that is longer than the model reads is never cut without being told, whatever the server does with it.
func TestATextThatIsTooLongIsCutAndSaysSo(t *testing.T) {
	serve := func(kind string, context int64) string {
		f, err := fake.New(kind, script.Script{Context: context, Dimensions: 768})
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(f)
		t.Cleanup(srv.Close)
		return srv.URL
	}
	silent := &up{f: func(_ int, req llm.EmbedRequest) (llm.Embeddings, error) { // an OpenAI-compatible server that cuts at 256
		out, tokens := llm.Embeddings{}, int64(0)
		for _, text := range req.Texts {
			all := strings.Fields(text)
			all = all[:min(256, len(all))]
			tokens += int64(len(all))
			out.Vectors = append(out.Vectors, script.Vector(strings.Join(all, " "), 384))
		}
		out.Usage.Input = llm.Known(tokens)
		return out, nil
	}}
	for _, test := range []struct {
		name, model string
		up          llm.Embedder
		words, most int // of the text, and as many as the model can have read
	}{
		{"Ollama refuses", "nomic-embed-text", ollama.New(ollama.Config{URL: serve("ollama", 300)}), 1000, 300},
		{"OpenAI refuses", "text-embedding-3-small", openai.New(openai.Config{URL: serve("openai", 300) + "/v1"}), 1000, 300},
		{"Gemini cuts silently", "gemini-embedding-001", gemini.New(gemini.Config{URL: serve("gemini", 2048)}), 9000, 2048},
		{"a server that nobody knows cuts silently", "all-minilm", silent, 1000, 256},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := embed.New(database(t), test.up, embed.Config{Model: test.model, Dimensions: map[bool]int{true: 768}[test.model != "all-minilm"]})
			long := words(test.words)
			v, err := e.Documents(t.Context(), []string{"short", long, "short too"})
			if err != nil {
				t.Fatal(err)
			}
			if v[0].Covers != 5 || v[2].Covers != 9 {
				t.Error(v[0].Covers, v[2].Covers)
			}
			read := len(strings.Fields(long[:v[1].Covers]))
			if read > test.most || read < test.most/4 {
				t.Errorf("it covers %d words of %d; the model reads %d", read, test.words, test.most)
			}
			if s := e.Status(); s.Cut != 1 || s.Made != 3 {
				t.Errorf("%+v", s)
			}
			same, err := e.Documents(t.Context(), []string{long})
			if err != nil || same[0].Covers != v[1].Covers || e.Status().Cached != 1 {
				t.Error("the cache forgot how far it reads", err)
			}
		})
	}
}

// Servers that no provider is for say it in their own words; other refusals are not taken for it.
func TestATextThatIsRefusedForItsLengthIsKnownByTheWords(t *testing.T) {
	for said, cut := range map[string]bool{
		"input is too large to process. increase the physical batch size": true,
		"Input validation error: `inputs` must have less than 512 tokens": true,
		"The input is too long": true,
		"the model is broken":   false,
	} {
		u := &up{f: func(_ int, req llm.EmbedRequest) (llm.Embeddings, error) {
			if len(req.Texts[0]) > 1000 {
				return llm.Embeddings{}, &llm.Error{Kind: llm.BadRequest, Status: 413, Message: said}
			}
			return llm.Embeddings{}, nil
		}}
		v, err := embed.New(database(t), u, embed.Config{Model: "bge-base-en"}).Documents(t.Context(), []string{words(400)})
		if err != nil || (v[0].Values != nil) != cut || cut && (v[0].Covers > 1000 || v[0].Covers < 500) {
			t.Errorf("%s: %v, %v", said, v, err)
		}
	}
}

func TestGeminiIsToldWhatATextIsFor(t *testing.T) {
	u := &up{f: func(int, llm.EmbedRequest) (llm.Embeddings, error) {
		return llm.Embeddings{Vectors: [][]float32{script.Vector("x", 3072)}}, nil
	}}
	e := embed.New(database(t), u, embed.Config{Model: "gemini-embedding-001"})
	_, err1 := e.Documents(t.Context(), []string{"a"})
	_, err2 := e.Query(t.Context(), "b")
	if err1 != nil || err2 != nil || u.seen[0].Task != "document" || u.seen[1].Task != "query" {
		t.Error(err1, err2, u.seen)
	}
}
