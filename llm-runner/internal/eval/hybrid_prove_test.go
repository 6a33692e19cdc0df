//go:build prove

package eval

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/vector"
	"home.arpa/lab/llm-runner/test/ollama/ollamatest"
)

// part is a collection with some of c's queries, the documents that are relevant to them, and some others. EVAL_FULL=1 is all of c.
func part(c *Collection) *Collection {
	if os.Getenv("EVAL_FULL") != "" {
		return c
	}
	p := &Collection{Queries: c.Queries[:min(30, len(c.Queries))], Grades: c.Grades}
	relevant := map[string]bool{}
	for _, q := range p.Queries {
		for id, grade := range c.Grades[q.ID] {
			if grade > 0 {
				relevant[id] = true
			}
		}
	}
	for i, d := range c.Documents {
		if relevant[d.Path] || i%20 == 0 {
			p.Documents = append(p.Documents, d)
		}
	}
	return p
}

// lanes measures all lanes with one embedder, and fails where both together rank worse than the better of them.
func lanes(t *testing.T, up llm.Embedder, model string) (words, vectors, both *Retrieval) {
	t.Helper()
	c, err := ReadCollection(data(t, "cranfield"))
	if err != nil {
		t.Fatal(err)
	}
	c = part(c)
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	l, err := library.Open(t.Context(), d, library.Embedded("nothing", Files{}))
	if err != nil {
		t.Fatal(err)
	}
	store := vector.NewLocal(t.TempDir())
	t.Cleanup(func() { store.Close() })
	e := embed.New(d, up, embed.Config{Model: model})
	l.Understand(library.Meaning{Store: store, Embedder: func(context.Context, vector.Stamp) (*embed.Embedder, error) { return e, nil }})
	measure := func(lane string) *Retrieval {
		r, err := Measure(t.Context(), l, c, lane)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d documents, %d queries, %s: nDCG@10 %.4f, recall@100 %.4f, MRR %.4f; p50 %.1f ms, p95 %.1f ms", r.Documents, r.Queries, lane, r.NDCG10, r.Recall100, r.MRR, r.P50, r.P95)
		return r
	}
	words, vectors, both = measure(library.Words), measure(library.Vector), measure(library.Hybrid)
	if best := max(words.NDCG10, vectors.NDCG10); both.NDCG10 < best-0.005 {
		t.Errorf("both lanes together have an nDCG@10 of %.4f, and one alone %.4f", both.NDCG10, best)
	}
	return words, vectors, both
}

// A real small model makes the ranking better.
func TestBothLanesRankBetterWithARealModel(t *testing.T) {
	at, model := os.Getenv("EVAL_EMBED_URL"), os.Getenv("EVAL_EMBED_MODEL")
	if at == "" {
		data(t, "cranfield") // before a model is started for nothing
		at = minilm(t)
	}
	if model == "" {
		model = "all-minilm"
	}
	words, _, both := lanes(t, openai.New(openai.Config{URL: at}), model)
	if both.NDCG10 <= words.NDCG10 {
		t.Errorf("vectors of a real model gain nothing: nDCG@10 %.4f, by words alone %.4f", both.NDCG10, words.NDCG10)
	}
}

// A model that knows next to nothing spoils nothing.
func TestBothLanesAreAsGoodAsWordsWithABadModel(t *testing.T) {
	data(t, "cranfield")
	up := ollama.New(ollama.Config{URL: ollamatest.Start(t).URL})
	defer up.CloseIdle()
	lanes(t, up, "tiny-embed")
}

// minilm starts a real small model (llm-runner/test/minilm) and returns where it answers. It is ended by its process id when the test ends.
func minilm(t *testing.T) string {
	t.Helper()
	c := exec.Command("../../test/minilm/serve.sh", "--listen", "127.0.0.1:0")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	c.Stderr = &said
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } //nolint:errcheck // it may have ended
	limit := time.AfterFunc(10*time.Minute, end)                    // where it has to be installed first
	t.Cleanup(func() {
		limit.Stop()
		end()
		c.Wait() //nolint:errcheck // it was killed
	})
	for in := bufio.NewScanner(out); in.Scan(); {
		if _, rest, ok := strings.Cut(in.Text(), "minilm on "); ok {
			return strings.Fields(rest)[0]
		}
	}
	t.Fatalf("the model did not start: %s", said.String())
	return ""
}
