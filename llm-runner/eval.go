package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/eval"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/vector"
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

Exit codes: 0 measured, 1 the collection cannot be read, 2 the command line is wrong.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		lane := fs.String("lane", "bm25", "of retrieval and spans: rank by `LANE`: bm25, vector or hybrid")
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
			case !slices.Contains([]string{library.Words, library.Vector, library.Hybrid}, *lane):
				return usageError{fmt.Sprintf("there is no lane %q: use bm25, vector or hybrid", *lane)}
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

// scratch returns a library of source in a temporary folder, with vectors where the lane needs them; done removes it.
func scratch(ctx context.Context, source library.Source, lane string) (l *library.Library, done func(), err error) {
	dir, err := os.MkdirTemp("", "llm-runner-eval-")
	if err != nil {
		return nil, nil, fmt.Errorf("make temporary folder: %w", err)
	}
	d, err := db.Open(ctx, filepath.Join(dir, db.Name))
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, err
	}
	done = func() {
		d.Close()
		os.RemoveAll(dir)
	}
	if l, err = library.Open(ctx, d, source); err == nil && lane != library.Words {
		err = understand(ctx, l, d, filepath.Join(dir, "vectors"))
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return l, done, nil
}

// understand gives a library for measuring the lane of meaning: by the server that EVAL_EMBED_URL names, or the Ollama of this machine.
func understand(ctx context.Context, l *library.Library, d *db.DB, dir string) error {
	e, err := evalEmbedder(ctx, d)
	if err == nil {
		_, err = e.Query(ctx, "Is anybody there?") // the library waits for who is away; who measures wants to know
	}
	if err != nil {
		return fmt.Errorf("%w; name a server with OpenAI's POST /embeddings in $EVAL_EMBED_URL, such as http://127.0.0.1:8081/v1 ($EVAL_EMBED_MODEL and $EVAL_EMBED_KEY "+
			"name its model and its key), or start Ollama with %s", err, defaultEmbedder)
	}
	l.Understand(library.Meaning{Store: vector.NewLocal(dir), Embedder: func(context.Context, string) (*embed.Embedder, error) { return e, nil }})
	return nil
}

func evalEmbedder(ctx context.Context, d *db.DB) (*embed.Embedder, error) {
	at, model := os.Getenv("EVAL_EMBED_URL"), os.Getenv("EVAL_EMBED_MODEL")
	if at == "" {
		p, _ := findOllama()
		return embed.New(d, ollama.New(ollama.Config{URL: p.URL}), embed.Config{Model: cmp.Or(model, defaultEmbedder)}), nil
	}
	up := openai.New(openai.Config{URL: at, Key: os.Getenv("EVAL_EMBED_KEY")})
	if model == "" {
		all, err := up.Models(ctx)
		if err != nil {
			return nil, err
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("%s lists no model", at)
		}
		model = all[0].Name
		for _, m := range all {
			if m.Embeds {
				model = m.Name
				break
			}
		}
	}
	return embed.New(d, up, embed.Config{Model: model}), nil
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
