package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/pgvector"
	"home.arpa/lab/llm-runner/internal/qdrant"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/vector"
	"home.arpa/lab/llm-runner/internal/web"
)

// LibraryConfig says how notes are found by meaning.
type LibraryConfig struct {
	Embed      string       `yaml:"embed"`      // provider/model that makes vectors; noEmbed: words alone; "": defaultEmbedder of an Ollama that has it
	Dimensions int          `yaml:"dimensions"` // of the vectors, for models that can be cut; 0: the model's own
	Store      string       `yaml:"store"`      // embedded, qdrant or pgvector
	Qdrant     QdrantConfig `yaml:"qdrant"`
	Rerank     string       `yaml:"rerank"` // a model of the route table that orders the best passages of an answer; "" none
}

// QdrantConfig says where Qdrant is.
type QdrantConfig struct {
	URL    string `yaml:"url"`    // default qdrant.DefaultURL
	Key    Secret `yaml:"key"`    // "" none
	Prefix string `yaml:"prefix"` // of the collections' names; default runner_
}

const noEmbed = "none"

// qdrantSnapshots is how many of each collection are kept.
const qdrantSnapshots = 2

// The stores of vectors.
const (
	storeEmbedded = "embedded"
	storeQdrant   = "qdrant"
	storePgvector = "pgvector" // in the database, where that is PostgreSQL
)

// openVectors opens what the library's vectors are kept in.
func (a *app) openVectors(ctx context.Context) (vector.Store, error) {
	c := a.config
	switch c.Library.Store {
	case storePgvector:
		// Several machines, each with an index of its own: the numbers of their passages differ.
		place, err := engine.Identity(ctx, a.local.Writer())
		if err != nil {
			return nil, err
		}
		return pgvector.New(a.db, place), nil
	case storeEmbedded:
		return vector.NewLocal(filepath.Join(c.Data, "vectors")), nil
	}
	q := c.Library.Qdrant
	if c.Database != "" { // several machines, each with an index of its own: the numbers of their passages differ
		host, _ := os.Hostname() //nolint:errcheck // then the folder tells them apart
		sum := sha256.Sum256([]byte(host + "\x00" + c.Data))
		q.Prefix = cmp.Or(q.Prefix, "runner_") + hex.EncodeToString(sum[:4]) + "_"
	}
	return qdrant.New(qdrant.Config{URL: q.URL, Key: string(q.Key), Prefix: q.Prefix}), nil
}

func (v *validator) library() {
	l := &v.c.Library
	l.Store = cmp.Or(l.Store, storeEmbedded)
	switch l.Store {
	case storeEmbedded, storeQdrant:
	case storePgvector:
		if v.c.Database == "" {
			v.fault("library.store", "pgvector keeps vectors in PostgreSQL, and database: names none: write its URL there, or embedded here")
		}
	default:
		v.fault("library.store", "%q is no store of vectors: write embedded, qdrant or pgvector", l.Store)
	}
	if provider, model, ok := strings.Cut(l.Embed, "/"); l.Embed != "" && l.Embed != noEmbed {
		if !ok || provider == "" || model == "" {
			v.fault("library.embed", "%q is not provider/model: write for example ollama/%s, or none", l.Embed, defaultEmbedder)
		} else {
			v.target("library.embed", provider)
			if provider == "vault" || v.c.Providers[provider].Kind == "anthropic" {
				v.fault("library.embed", "%s makes no vectors: name a provider of the kind ollama, openai or gemini", provider)
			}
		}
	}
	if l.Dimensions < 0 || l.Dimensions > 1<<15 {
		v.fault("library.dimensions", "%d is not from 0 to %d: leave it out for the model's own", l.Dimensions, 1<<15)
	}
	if _, ok := v.c.Routes.Models[l.Rerank]; l.Rerank != "" && !ok {
		v.fault("library.rerank", "%q is no row of routes.models: name one, or leave it out", l.Rerank)
	}
	if why, literal := resolve(&l.Qdrant.Key); literal {
		v.fault("library.qdrant.key", "%s", why)
	} else if why != "" {
		v.warn("library.qdrant.key", why+"; until then Qdrant is asked without a key")
	}
	for _, err := range leaves(qdrant.Config{URL: l.Qdrant.URL, Prefix: l.Qdrant.Prefix}.Validate()) {
		field, text, _ := strings.Cut(err.Error(), ": ")
		v.fault("library.qdrant."+field, "%s", text)
	}
}

// A maker makes vectors of so many dimensions; 0: the model's own.
type maker struct {
	route.Target
	dimensions int
}

// embedders are the models that make vectors: the one that is wanted, and one whose vectors still answer.
type embedders struct {
	app *app

	mu       sync.Mutex
	all      map[maker]*embed.Embedder
	surveyed bool
}

// understand gives the library its lane of meaning.
func (a *app) understand(ctx context.Context) (err error) {
	if model := a.config.Library.Rerank; model != "" {
		a.library.Rerank(a.router, model)
	}
	if a.config.Library.Embed == noEmbed {
		return nil
	}
	if a.vectors, err = a.openVectors(ctx); err != nil {
		return err
	}
	a.embedders = &embedders{app: a, all: map[maker]*embed.Embedder{}}
	m := library.Meaning{Store: a.vectors, Embedder: a.embedders.find, Withheld: func(model, collection, path string) bool {
		t, ok := a.embedders.target(model)
		return (!ok || a.router.Outside(t)) && a.library.NeverSent(collection, path)
	}}
	if q, ok := a.vectors.(*qdrant.Store); ok {
		m.Words, m.Asked, m.Copy = qdrant.Say, qdrant.Ask, func(ctx context.Context, collection string) error {
			_, err := q.Snapshot(ctx, collection, qdrantSnapshots)
			return err
		}
	}
	a.library.Understand(m)
	return nil
}

// find returns what makes vectors as they are stamped; the zero Stamp is of those that are wanted.
func (e *embedders) find(ctx context.Context, stamp vector.Stamp) (*embed.Embedder, error) {
	model := stamp.Model
	target, ok := e.target(model)
	if !ok && e.survey(ctx) {
		target, ok = e.target(model)
	}
	switch {
	case ok:
	case model == "":
		return nil, fmt.Errorf("%w: no Ollama has %s; run ollama pull %s, or name another model in library.embed", library.ErrNoModel, defaultEmbedder, defaultEmbedder)
	default:
		return nil, fmt.Errorf("%w: no provider has %s, whose vectors are kept; words answer until those of another model are there", library.ErrNoModel, model)
	}
	wanted := e.app.config.Library.Dimensions
	if model == "" || stamp.Dimensions == wanted {
		return e.of(target, wanted), nil
	}
	// Vectors that are kept have their length, whatever is wanted now. The model's own is not asked for: not every server takes a wish.
	own := e.of(target, 0)
	if s, err := own.Stamp(ctx); err != nil || s.Dimensions == stamp.Dimensions {
		return own, err
	}
	return e.of(target, stamp.Dimensions), nil
}

// of returns the one that makes vectors of so many dimensions.
func (e *embedders) of(t route.Target, dimensions int) *embed.Embedder {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.all[maker{t, dimensions}]
	if x == nil {
		// The vectors of a PostgreSQL installation are kept there, so that a machine that joins makes none twice.
		x = embed.New(e.app.db, on{e.app.router, t.Provider}, embed.Config{Model: t.Model, Dimensions: dimensions})
		e.all[maker{t, dimensions}] = x
	}
	return x
}

// target returns who makes vectors of a model.
func (e *embedders) target(model string) (route.Target, bool) {
	provider, wanted, named := strings.Cut(e.app.config.Library.Embed, "/")
	if named && (model == "" || model == bareModel(wanted)) {
		return route.Target{Provider: provider, Model: wanted}, true
	}
	for _, p := range e.app.router.Reports() {
		for _, m := range p.Models {
			name := bareModel(m.Name)
			if model == "" && p.Kind == "ollama" && name == defaultEmbedder || model != "" && name == model {
				return route.Target{Provider: p.Name, Model: m.Name}, true
			}
		}
	}
	return route.Target{}, false
}

// bareModel is the name of a model as vectors are stamped with it.
func bareModel(name string) string {
	return strings.TrimSuffix(strings.TrimPrefix(name, "models/"), ":latest")
}

// survey asks the providers for their models, once: commands that do not stay have nobody who does.
func (e *embedders) survey(ctx context.Context) bool {
	e.mu.Lock()
	before := e.surveyed
	e.surveyed = true
	e.mu.Unlock()
	if !before {
		e.app.survey(ctx)
	}
	return !before
}

// wake has what waits for a machine try again.
func (e *embedders) wake() {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		x.Wake()
	}
}

// on asks the router for vectors of one provider.
type on struct {
	router   *route.Router
	provider string
}

func (o on) Embed(ctx context.Context, req llm.EmbedRequest) (llm.Embeddings, error) {
	req.Model = o.provider + "/" + req.Model
	return o.router.Embed(ctx, req)
}

// meant says how the lane of meaning is.
func (a *app) meant() web.Dependency {
	s := a.library.Status().Meaning
	d := web.Dependency{Name: "meaning of notes", State: route.Up, Says: s.Sentence()}
	if s.State == library.MeaningWaiting {
		d.State, d.Cure = route.Down, "words are searched meanwhile; it goes on by itself"
	}
	return d
}
