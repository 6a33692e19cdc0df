package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/qdrant"
	"home.arpa/lab/llm-runner/internal/vector"
)

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
	store, err := evalStore(lane, filepath.Join(dir, "vectors"))
	done = func() {
		if q, ok := store.(*qdrant.Store); ok {
			q.RemoveAll(context.WithoutCancel(ctx)) //nolint:errcheck // what is left is in the way of nobody
		}
		d.Close()
		os.RemoveAll(dir)
	}
	if err == nil {
		l, err = library.Open(ctx, d, source)
	}
	if err == nil && lane != library.Words {
		err = understand(ctx, l, d, store)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return l, done, nil
}

// evalStore is where vectors go to be measured: files, or the Qdrant that EVAL_QDRANT_URL names, in collections of their own.
func evalStore(lane, dir string) (vector.Store, error) {
	at := os.Getenv("EVAL_QDRANT_URL")
	if at == "" {
		if lane == library.Sparse {
			return nil, errors.New("the lane sparse is the words of a store that has such a lane: name a Qdrant in $EVAL_QDRANT_URL, such as " + qdrant.DefaultURL)
		}
		return vector.NewLocal(dir), nil
	}
	c := qdrant.Config{URL: at, Key: os.Getenv("EVAL_QDRANT_KEY"), Prefix: "eval_" + strings.ToLower(rand.Text()[:8]) + "_"}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("$EVAL_QDRANT_URL: %w", err)
	}
	return qdrant.New(c), nil
}

// understand gives a library for measuring the lane of meaning: by the server that EVAL_EMBED_URL names, or the Ollama of this machine.
func understand(ctx context.Context, l *library.Library, d *db.DB, store vector.Store) error {
	e, err := evalEmbedder(ctx, d)
	if err == nil {
		_, err = e.Query(ctx, "Is anybody there?") // the library waits for who is away; who measures wants to know
	}
	if err != nil {
		return fmt.Errorf("%w; name a server with OpenAI's POST /embeddings in $EVAL_EMBED_URL, such as http://127.0.0.1:8081/v1 ($EVAL_EMBED_MODEL and $EVAL_EMBED_KEY "+
			"name its model and its key), or start Ollama with %s", err, defaultEmbedder)
	}
	m := library.Meaning{Store: store, Embedder: func(context.Context, vector.Stamp) (*embed.Embedder, error) { return e, nil }}
	if _, ok := store.(*qdrant.Store); ok {
		m.Words, m.Asked = qdrant.Say, qdrant.Ask
	}
	l.Understand(m)
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
