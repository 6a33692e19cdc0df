package eval

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/library"
)

// A Collection is a judged collection in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/*.tsv.
type Collection struct {
	Documents []library.Document // Path is the identifier
	Queries   []Query            // those with judgments, in the order of the file
	Grades    map[string]map[string]int
}

// A Query is one line of queries.jsonl.
type Query struct {
	ID   string `json:"_id"`
	Text string `json:"text"`
}

// ReadCollection reads the collection in dir. Of several files of judgments test.tsv counts, else all of them.
func ReadCollection(dir string) (*Collection, error) {
	c := &Collection{Grades: map[string]map[string]int{}}
	err := eachLine(filepath.Join(dir, "corpus.jsonl"), func(line []byte) error {
		var d struct {
			ID    string `json:"_id"`
			Title string `json:"title"`
			Text  string `json:"text"`
		}
		err := json.Unmarshal(line, &d)
		c.Documents = append(c.Documents, library.Document{Path: d.ID, Title: d.Title, Text: []byte(d.Text)})
		return err
	})
	if err != nil {
		return nil, err
	}
	qrels := []string{filepath.Join(dir, "qrels", "test.tsv")}
	if _, err := os.Stat(qrels[0]); errors.Is(err, fs.ErrNotExist) {
		if qrels, err = filepath.Glob(filepath.Join(dir, "qrels", "*.tsv")); err != nil || len(qrels) == 0 {
			return nil, fmt.Errorf("read judgments %s: there is no .tsv file in it", filepath.Join(dir, "qrels"))
		}
	}
	for _, name := range qrels {
		if err := eachLine(name, c.judge); err != nil {
			return nil, err
		}
	}
	return c, eachLine(filepath.Join(dir, "queries.jsonl"), func(line []byte) error {
		var q Query
		err := json.Unmarshal(line, &q)
		if c.Grades[q.ID] != nil {
			c.Queries = append(c.Queries, q)
		}
		return err
	})
}

// judge takes a line of judgments: query, document and grade between tabs, below a line that names them.
func (c *Collection) judge(line []byte) error {
	f := strings.Fields(string(line))
	if len(f) != 3 {
		return errors.New("a line of judgments has three fields: query-id, corpus-id, score")
	}
	grade, err := strconv.Atoi(f[2])
	if err != nil {
		if f[0] == "query-id" {
			return nil
		}
		return fmt.Errorf("the score %q is not a whole number", f[2])
	}
	if c.Grades[f[0]] == nil {
		c.Grades[f[0]] = map[string]int{}
	}
	c.Grades[f[0]][f[1]] = grade
	return nil
}

func eachLine(name string, f func(line []byte) error) error {
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read collection: %w", err)
	}
	defer file.Close()
	r := bufio.NewReader(file)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if len(strings.TrimSpace(string(line))) > 0 {
			if err := f(line); err != nil {
				return fmt.Errorf("read collection %s: line %d: %w", name, n, err)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read collection %s: %w", name, err)
		}
	}
}

// depth is how many documents a query's run holds: as many as Recall looks at.
const depth = 100

// A Retrieval is how well documents were ranked: means over the queries, and times of one search.
type Retrieval struct {
	Lane      string  `json:"lane"`
	Documents int     `json:"documents"`
	Queries   int     `json:"queries"`
	NDCG10    float64 `json:"ndcg@10"`
	Recall100 float64 `json:"recall@100"`
	MRR       float64 `json:"mrr"`
	P50       float64 `json:"p50_ms"`
	P95       float64 `json:"p95_ms"`
	IndexMS   float64 `json:"index_ms"`

	Runs map[string][]Scored `json:"-"` // by query
}

// corpus is the collection of the library into which a judged collection goes.
const corpus = "corpus"

// Measure indexes c's documents in l, where they are not there yet, with vectors where the lane is one that needs them, and asks all its queries. Lanes that
// are measured one after the other in one library so have the same index: documents that were put again are in other places of it, and rank a little otherwise.
func Measure(ctx context.Context, l *library.Library, c *Collection, lane string) (*Retrieval, error) {
	r := &Retrieval{Lane: lane, Documents: len(c.Documents), Queries: len(c.Queries), Runs: map[string][]Scored{}}
	began := time.Now()
	for _, d := range c.Documents {
		at, err := l.Added(ctx, corpus, d.Path)
		if err != nil {
			return nil, err
		}
		if !at.IsZero() {
			continue
		}
		if err := l.Put(ctx, corpus, c.Documents...); err != nil {
			return nil, err
		}
		break
	}
	if lane != library.Words {
		if err := l.Embed(ctx); err != nil {
			return nil, err
		}
	}
	r.IndexMS = millis(time.Since(began))
	var times []time.Duration
	for _, q := range c.Queries {
		began := time.Now()
		hits, err := l.Find(ctx, library.Request{Query: q.Text, Limit: depth, Notes: true, Lane: lane, Filter: library.Filter{Collection: corpus}})
		if err != nil {
			return nil, fmt.Errorf("ask %q: %w", q.Text, err)
		}
		times = append(times, time.Since(began))
		run := make([]Scored, len(hits))
		for i, h := range hits {
			run[i] = Scored{h.Path, float64(len(hits) - i)} // what must come first comes first, whatever its score
		}
		r.Runs[q.ID] = run
		r.NDCG10 += NDCG(run, c.Grades[q.ID], 10)
		r.Recall100 += Recall(run, c.Grades[q.ID], 100)
		r.MRR += ReciprocalRank(run, c.Grades[q.ID])
	}
	if n := float64(len(c.Queries)); n > 0 {
		r.NDCG10, r.Recall100, r.MRR = r.NDCG10/n, r.Recall100/n, r.MRR/n
	}
	slices.Sort(times)
	r.P50, r.P95 = millis(quantile(times, 0.50)), millis(quantile(times, 0.95))
	return r, nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile returns the smallest of times that at least the part p of them does not exceed; 0 for none.
func quantile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(len(times)-1, int(p*float64(len(times))))]
}

// WriteRun writes the runs in the form that trec_eval reads: query, Q0, document, rank, score, name.
func (r *Retrieval) WriteRun(w io.Writer) error {
	b := bufio.NewWriter(w)
	queries := make([]string, 0, len(r.Runs))
	for id := range r.Runs {
		queries = append(queries, id)
	}
	slices.Sort(queries)
	for _, id := range queries {
		for i, d := range sorted(r.Runs[id]) {
			fmt.Fprintf(b, "%s Q0 %s %d %g llm-runner-%s\n", id, d.ID, i+1, d.Score, r.Lane)
		}
	}
	return b.Flush()
}
