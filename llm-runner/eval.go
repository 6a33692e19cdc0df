package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"

	"home.arpa/lab/llm-runner/internal/eval"
	"home.arpa/lab/llm-runner/internal/library"
)

var evalCommand = command{
	name: "eval", args: "retrieval|spans --data DIR [flags] | vault [flags]", summary: "measure how well the library finds and quotes",
	help: `Indexes a collection of its own in a temporary folder, asks its questions and prints means over them. Neither the notes nor the
data directory are touched: here --data names the collection.

  retrieval   ranks documents. DIR holds corpus.jsonl, queries.jsonl and qrels/*.tsv (the layout of BEIR). Prints nDCG@10, recall@100
              and MRR by trec_eval's arithmetic, and the median and 95th percentile of a search's milliseconds
  spans       returns passages. DIR holds document.md and questions.jsonl, with the spans that answer in characters. Prints recall,
              precision and intersection over union in characters, and the part of quotes that are the document's bytes
  vault       makes up notes in German and English by --seed, and asks about what they say and what they do not. Prints how often it
              was said rightly, and wrongly, that the notes do not say

Examples:
  llm-runner eval vault --seed 7
  llm-runner eval retrieval --data cranfield --run cranfield.run
  llm-runner eval spans --data wikitexts --budget 4000 --json

Exit codes: 0 measured, however good the numbers are; 1 failed (the collection cannot be read, nobody makes vectors), 2 wrong usage.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		lane := fs.String("lane", "bm25", "of retrieval and spans: rank by `LANE`: bm25, vector, hybrid or sparse")
		run := fs.String("run", "", "of retrieval: write the ranking to `FILE`, as trec_eval reads it")
		budget := fs.Int("budget", 4000, "of spans: return at most `N` characters for a question")
		seed := fs.Uint64("seed", 1, "of vault: `N` that the notes are made from")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context) error {
			switch {
			case len(c.args) != 1 || !slices.Contains([]string{"retrieval", "spans", "vault"}, c.args[0]):
				return usageError{"say what to measure: retrieval, spans or vault"}
			case c.args[0] == "vault":
				return c.evalVault(ctx, *seed, *asJSON)
			case c.Data == "":
				return usageError{"name the collection's folder: --data DIR"}
			case !slices.Contains([]string{library.Words, library.Vector, library.Hybrid, library.Sparse}, *lane):
				return usageError{fmt.Sprintf("there is no lane %q: use bm25, vector, hybrid or sparse", *lane)}
			case *budget < 1:
				return usageError{"--budget must be at least 1"}
			}
			l, done, err := scratch(ctx, library.Embedded("nothing", eval.Files{}), *lane)
			if err != nil {
				return err
			}
			defer done()
			if c.args[0] == "spans" {
				return c.evalSpans(ctx, l, *lane, *budget, *asJSON)
			}
			return c.evalRetrieval(ctx, l, *lane, *run, *asJSON)
		}
	},
}

func (c *call) evalVault(ctx context.Context, seed uint64, asJSON bool) error {
	v := eval.Generate(seed, 200)
	l, done, err := scratch(ctx, library.Embedded("made up", v.Files), library.Words)
	if err != nil {
		return err
	}
	defer done()
	if _, err := l.Sync(ctx); err != nil {
		return err
	}
	h, err := eval.MeasureHonesty(ctx, l, v)
	if err != nil {
		return err
	}
	if asJSON {
		return c.printJSON(h)
	}
	fmt.Fprintf(c.stdout, "%d notes, %d questions they answer, %d they do not\nrefused rightly  %.4f\nrefused wrongly  %.4f\nanswer quoted    %.4f\nboth sides       %.4f\n",
		len(v.Files), h.Answerable, h.Unanswerable, h.Refused, h.FalseRefused, h.Quoted, h.BothSides)
	return nil
}

func (c *call) evalRetrieval(ctx context.Context, l *library.Library, lane, run string, asJSON bool) error {
	collection, err := eval.ReadCollection(c.Data)
	if err != nil {
		return err
	}
	r, err := eval.Measure(ctx, l, collection, lane)
	if err != nil {
		return err
	}
	if run != "" {
		f, err := os.Create(run)
		if err != nil {
			return fmt.Errorf("write run: %w", err)
		}
		defer f.Close()
		if err := r.WriteRun(f); err != nil {
			return fmt.Errorf("write run %s: %w", run, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("write run %s: %w", run, err)
		}
	}
	if asJSON {
		return c.printJSON(r)
	}
	fmt.Fprintf(c.stdout, "%d documents, %d queries, lane %s\nnDCG@10     %.4f\nrecall@100  %.4f\nMRR         %.4f\np50 ms      %.1f\np95 ms      %.1f\n",
		r.Documents, r.Queries, r.Lane, r.NDCG10, r.Recall100, r.MRR, r.P50, r.P95)
	return nil
}

func (c *call) evalSpans(ctx context.Context, l *library.Library, lane string, budget int, asJSON bool) error {
	text, err := eval.ReadText(c.Data)
	if err != nil {
		return err
	}
	m, err := eval.MeasureSpans(ctx, l, text, lane, budget)
	if err != nil {
		return err
	}
	if asJSON {
		return c.printJSON(m)
	}
	fmt.Fprintf(c.stdout, "%d questions, at most %d characters each\nrecall        %.4f\nprecision     %.4f\nIoU           %.4f\nexact quotes  %.4f\ncharacters    %.0f\n",
		len(text.Questions), budget, m.Recall, m.Precision, m.IOU, m.Exact, m.Chars)
	return nil
}
