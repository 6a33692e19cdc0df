package eval

import (
	"os"
	"path/filepath"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/library"
)

// The data lie beside the repository and are no part of it.
const shared = "../../../../shared/data/retrieval"

// bench returns an empty library.
func bench(t testing.TB) *library.Library {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	l, err := library.Open(t.Context(), d, library.Embedded("nothing", Files{}))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCranfieldIsRankedWellByWordsAlone(t *testing.T) {
	dir := data(t, "cranfield")
	c, err := ReadCollection(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Measure(t.Context(), bench(t), c, library.Words)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d documents, %d queries: nDCG@10 %.4f, recall@100 %.4f, MRR %.4f; p50 %.1f ms, p95 %.1f ms, indexed in %.0f ms", r.Documents, r.Queries,
		r.NDCG10, r.Recall100, r.MRR, r.P50, r.P95, r.IndexMS)
	if r.NDCG10 < 0.40 {
		t.Errorf("nDCG@10 is %.4f, below 0.40", r.NDCG10)
	}
}

func data(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(shared, name)
	if env := os.Getenv("EVAL_DATA"); env != "" {
		dir = filepath.Join(env, name)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no data beside the repository: %v", err)
	}
	return dir
}

// Floors for what the measures of docs/bench.md show.
func TestSpansThatAnswerAreReturned(t *testing.T) {
	for _, name := range []string{"state_of_the_union", "wikitexts"} {
		t.Run(name, func(t *testing.T) {
			text, err := ReadText(data(t, filepath.Join("spans", name)))
			if err != nil {
				t.Fatal(err)
			}
			c, err := MeasureSpans(t.Context(), bench(t), text, library.Words, 4000)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("recall %.4f, precision %.4f, IoU %.4f, exact %.4f, %.0f characters", c.Recall, c.Precision, c.IOU, c.Exact, c.Chars)
			if c.Recall < 0.94 || c.Exact != 1 || c.Chars > 4000 {
				t.Errorf("recall %.4f is below 0.94, or %.4f of the quotes are exact", c.Recall, c.Exact)
			}
		})
	}
}
