// Package embed turns texts into vectors, with what each model wants (see Card), each text once (a cache in the database),
// and with patience: while nobody can answer, the work that may wait is held, says what it waits for, and goes on by itself.
package embed

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/vector"
)

// Config says which model embeds.
type Config struct {
	// Model is the model's own name, because vectors are stamped with it: not that of a row of the route table, which may
	// come to mean another model.
	Model string
	// Dimensions is a wish for shorter vectors than the model's own, for models that can be cut (Matryoshka); 0: its own.
	Dimensions int
	// Batch is how many texts go into one request; 0 means 32.
	Batch int
}

// Validate returns all faults of c.
func (c Config) Validate() error {
	var errs []error
	if c.Model == "" {
		errs = append(errs, errors.New("model: is missing; write one that makes vectors, like nomic-embed-text"))
	}
	if c.Dimensions < 0 {
		errs = append(errs, fmt.Errorf("dimensions: %d is negative", c.Dimensions))
	}
	if c.Batch < 0 || c.Batch > 100 {
		errs = append(errs, fmt.Errorf("batch: %d is not between 1 and 100", c.Batch))
	}
	return errors.Join(errs...)
}

// An Embedder makes the vectors of one model. It is safe for concurrent use.
type Embedder struct {
	db     *db.DB
	up     llm.Embedder
	config Config
	name   string // of the model, as stamps and the cache have it
	card   Card
	wake   chan struct{} // capacity 1

	mu         sync.Mutex
	dimensions int // 0 until a vector has come
	pace       int // bytes that the model has read in a second, of late; 0 not known
	status     Status
}

// Status is what an Embedder is doing, for people to see.
type Status struct {
	Model string `json:"model"`
	// Waiting says what is waited for; "" nothing is.
	Waiting string    `json:"waiting,omitempty"`
	Until   time.Time `json:"until,omitzero"` // when it is tried again, UTC
	Made    int64     `json:"made"`           // vectors asked of the model
	Cached  int64     `json:"cached"`         // vectors found in the cache
	Cut     int64     `json:"cut"`            // texts of which the model read only a part
}

// New returns the Embedder of a valid Config. up is a provider that embeds, or the router; it must not fall back to another
// model, because nobody could tell the vectors of two models of one dimension apart.
func New(d *db.DB, up llm.Embedder, c Config) *Embedder {
	if c.Batch == 0 {
		c.Batch = 32
	}
	name := strings.TrimSuffix(strings.TrimPrefix(c.Model, "models/"), ":latest") // Gemini's and Ollama's ways to say the same
	return &Embedder{db: d, up: up, config: c, name: name, card: CardOf(name), wake: make(chan struct{}, 1), status: Status{Model: name}}
}

// Card returns what is known of the model.
func (e *Embedder) Card() Card { return e.card }

// Status returns what the Embedder is doing.
func (e *Embedder) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

// Wake has work that waits try again now: a machine is back.
func (e *Embedder) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Stamp returns what an index of this model's vectors must be stamped with. For a model whose dimension nobody knows, it
// asks for a vector, and waits like Documents.
func (e *Embedder) Stamp(ctx context.Context) (vector.Stamp, error) {
	n := e.known()
	if n == 0 {
		v, err := e.Documents(ctx, []string{plain})
		if err != nil {
			return vector.Stamp{}, err
		}
		n = len(v[0].Values)
	}
	return vector.Stamp{Model: e.name, Dimensions: n, Prefix: e.card.Document}, nil
}

// known returns the dimension of the vectors, 0 where nobody knows yet.
func (e *Embedder) known() int {
	switch {
	case e.config.Dimensions > 0:
		return e.config.Dimensions
	case e.card.Dimensions > 0:
		return e.card.Dimensions
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dimensions
}

// A Vector is a text's direction. Values has length one. Covers is how many bytes of the text the model has read: less than
// len(text) where it was too long, and then the rest of it cannot be found by meaning. Without Values the model cannot do the text at
// all, though it does others, and Why says what it answers.
type Vector struct {
	Values []float32
	Covers int
	Why    string
}

// Documents returns the vectors of texts that are to be stored: len(out) == len(texts). While the model is away or busy it
// waits, as Status tells, until ctx ends. What was made is kept in the cache at once, so that being stopped costs one batch at
// most. An error is one that waiting does not cure.
func (e *Embedder) Documents(ctx context.Context, texts []string) ([]Vector, error) {
	out := make([]Vector, len(texts))
	for at := 0; at < len(texts); {
		n := e.fits(texts[at:])
		if err := e.batch(ctx, texts[at:at+n], out[at:at+n]); err != nil {
			return nil, err
		}
		at += n
	}
	return out, nil
}

// Uncached is Documents for texts of which nothing may be left behind when they are forgotten: the cache does not get their vectors.
func (e *Embedder) Uncached(ctx context.Context, texts []string) ([]Vector, error) {
	out := make([]Vector, 0, len(texts))
	for len(out) < len(texts) {
		at := len(out)
		made, err := e.patiently(ctx, texts[at:at+e.fits(texts[at:])], false)
		if err != nil {
			return nil, err
		}
		out = append(out, made...)
	}
	return out, nil
}

// Query returns the vector of a question. It does not wait: who asks goes on with words alone.
func (e *Embedder) Query(ctx context.Context, question string) (Vector, error) {
	return e.make(ctx, question, e.card.Query, "query")
}

// The text in one request is bounded: by batchBytes, and by what the model has read in a second of late, because a machine that does
// one thing at a time keeps people waiting for as long as a request takes. firstBytes is what is asked while nothing is known.
const (
	batchBytes = 128 << 10
	firstBytes = 8 << 10
)

// fits returns how many of the next texts go into one request. A text that may be longer than the model reads goes alone,
// because then the tokens that the server counts tell whether it was cut.
func (e *Embedder) fits(texts []string) int {
	e.mu.Lock()
	most := min(cmp.Or(e.pace, firstBytes), batchBytes)
	e.mu.Unlock()
	n, size := 0, 0
	for n < len(texts) && n < e.config.Batch {
		if size += len(texts[n]); n > 0 && (size > most || e.long(texts[n])) {
			break
		}
		n++
		if e.long(texts[n-1]) {
			break
		}
	}
	return n
}

// long says that a text may have more tokens than the model reads: a token has at least one byte.
func (e *Embedder) long(text string) bool { return e.card.Context > 0 && len(text) > e.card.Context }

// key names a vector in the cache.
func (e *Embedder) key(prefix, text string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%d\x00%s\x00%s", e.name, e.config.Dimensions, prefix, text)
	return hex.EncodeToString(h.Sum(nil))
}

// batch sets out to the vectors of texts, from the cache or from the model.
func (e *Embedder) batch(ctx context.Context, texts []string, out []Vector) error {
	keys := make([]string, len(texts))
	for i, t := range texts {
		keys[i] = e.key(e.card.Document, t)
	}
	found, err := lookUp(ctx, e.db, keys, day(time.Now()))
	if err != nil {
		return err
	}
	var missing []string
	at := map[string][]int{} // by text: equal texts are made once
	for i, key := range keys {
		if c, ok := found[key]; ok && (e.known() == 0 || len(c.vector) == e.known()) {
			out[i] = Vector{Values: c.vector, Covers: c.covers}
			e.count(func(s *Status) { s.Cached++ })
			continue
		}
		if at[texts[i]] == nil {
			missing = append(missing, texts[i])
		}
		at[texts[i]] = append(at[texts[i]], i)
	}
	if len(missing) == 0 {
		return nil
	}
	made, err := e.patiently(ctx, missing, false)
	if err != nil {
		return err
	}
	fresh := map[string]cached{}
	for i, text := range missing {
		for _, j := range at[text] {
			out[j] = made[i]
		}
		if made[i].Values != nil { // what cannot be done is tried again when it is asked for again
			fresh[e.key(e.card.Document, text)] = cached{made[i].Values, made[i].Covers}
		}
	}
	return keep(ctx, e.db, fresh, day(time.Now()))
}

// Between two tries, where nobody says when to come back: so long at first, twice as long each time, and no longer than the
// last. A time that a provider told is believed up to farthest, and then asked again.
const (
	firstPause   = time.Second
	longestPause = time.Minute
	farthest     = 15 * time.Minute
)

// After so many failures in a row the model is asked for the vector of plain first, which every model can do: where it does, it is not away,
// and what it fails on is one of the texts.
const (
	suspicious = 3
	plain      = "dimension"
)

// patiently is ask, again and again until it succeeds, fails for good, or ctx ends. Texts that the model cannot do are found out by halves;
// suspect says that one of them is.
func (e *Embedder) patiently(ctx context.Context, texts []string, suspect bool) ([]Vector, error) {
	defer e.count(func(s *Status) { s.Waiting, s.Until = "", time.Time{} })
	refused := 0 // this text alone, right after plain went well
	for failures, pause := 0, firstPause; ; pause = min(2*pause, longestPause) {
		suspect = suspect || failures >= suspicious
		well := false
		var made []Vector
		var err error
		if suspect && !(len(texts) == 1 && texts[0] == plain) {
			_, _, err = e.request(ctx, []string{plain}, e.card.Document, "document")
			well = err == nil
		}
		if err == nil {
			made, err = e.ask(ctx, texts, e.card.Document, "document")
		}
		if err == nil || ctx.Err() != nil {
			return made, err
		}
		until, reason, ok := passing(err)
		kind := llm.KindOf(err)
		if well && (kind == llm.Unavailable || kind == llm.BadRequest) {
			if len(texts) > 1 {
				return e.halves(ctx, texts)
			}
			if refused++; refused > 1 || !ok {
				return []Vector{{Why: err.Error()}}, nil
			}
		}
		switch {
		case kind == llm.BadRequest && !suspect: // of these texts, or of any?
			suspect = true
			continue
		case !ok:
			return nil, err
		case kind == llm.Unavailable:
			failures++
		}
		wait := pause
		if !until.IsZero() {
			wait = min(max(time.Until(until), firstPause), farthest)
		}
		e.count(func(s *Status) { s.Waiting, s.Until = reason, time.Now().Add(wait).UTC() })
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-e.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("embed %d texts: %w while waiting: %s", len(texts), ctx.Err(), reason)
		}
	}
}

// halves is patiently for texts among which is one that the model cannot do.
func (e *Embedder) halves(ctx context.Context, texts []string) ([]Vector, error) {
	first, err := e.patiently(ctx, texts[:len(texts)/2], true)
	if err != nil {
		return nil, err
	}
	second, err := e.patiently(ctx, texts[len(texts)/2:], true)
	return append(first, second...), err
}

// passing says whether an error passes by itself, and what it tells of when.
func passing(err error) (until time.Time, reason string, ok bool) {
	if busy := (*llm.BusyError)(nil); errors.As(err, &busy) {
		return busy.Until, busy.Reason, true
	}
	if e := (*llm.Error)(nil); errors.As(err, &e) && !e.Kind.Permanent() && e.Kind != llm.Cancelled {
		return e.Until, e.Error(), true
	}
	return time.Time{}, "", false
}

// ask asks the model once. A text that is refused for its length is asked again shorter, alone.
func (e *Embedder) ask(ctx context.Context, texts []string, prefix, task string) ([]Vector, error) {
	if len(texts) == 1 {
		v, err := e.make(ctx, texts[0], prefix, task)
		return []Vector{v}, err
	}
	vectors, _, err := e.request(ctx, texts, prefix, task)
	out := make([]Vector, len(texts))
	switch {
	case err == nil:
		for i, v := range vectors {
			out[i] = Vector{Values: v, Covers: len(texts[i])}
		}
		e.count(func(s *Status) { s.Made += int64(len(texts)) })
		return out, nil
	case tooLong(err): // one of them, and nobody says which
		for i, t := range texts {
			if out[i], err = e.make(ctx, t, prefix, task); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, err
}

// bytesPerToken is what cut reckons with where a server drops words silently: prose has three to five bytes a token, tables
// and numbers about two.
const bytesPerToken = 2

// make returns the vector of one text, or of as much of its beginning as the model takes.
func (e *Embedder) make(ctx context.Context, text, prefix, task string) (Vector, error) {
	part := text
	if e.card.Silent {
		part = cut(text, bytesPerToken*e.card.Context-len(prefix))
	}
	for {
		vectors, tokens, err := e.request(ctx, []string{part}, prefix, task)
		if err == nil && e.long(part) && tokens == int64(e.card.Context) {
			err = errCut // as many tokens as the model can read, from a text that may have more: cut here, and know where
		}
		switch {
		case err == nil:
			e.count(func(s *Status) {
				s.Made++
				if len(part) < len(text) {
					s.Cut++
				}
			})
			return Vector{Values: vectors[0], Covers: len(part)}, nil
		case !tooLong(err) || len(part) < shortest:
			return Vector{}, err
		}
		part = cut(part, len(part)*3/4)
	}
}

// shortest is the length in bytes of a text that cannot be too long.
const shortest = 64

var errCut = errors.New("embed: the text exceeds the context length and the server cut it")

// tooLong says whether a text was refused for its length: the provider knows, or it is in the words of a server that no provider
// is for: llama.cpp ("input is too large to process", under 500), text-embeddings-inference ("must have less than 512 tokens")
// and others ("input is too long").
func tooLong(err error) bool {
	if errors.Is(err, errCut) {
		return true
	}
	var e *llm.Error
	if !errors.As(err, &e) || e.TooLong {
		return e != nil
	}
	said := strings.ToLower(e.Message)
	return e.Status != 0 && (strings.Contains(said, "too long") || strings.Contains(said, "too large to process") || strings.Contains(said, "must have less than"))
}

// cut returns the first n bytes of text at most, ending between two words where one ends in the last quarter, and else between
// two characters.
func cut(text string, n int) string {
	if n = max(n, 1); len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	if space := strings.LastIndexAny(text[:n], " \t\n"); space > n*3/4 {
		n = space
	}
	if n == 0 {
		_, n = utf8.DecodeRuneInString(text)
	}
	return text[:n]
}

// request sends one request and checks what comes: a vector of the right dimension for each text, of length one, rounded as
// the cache does. tokens is what the server counted, 0 where it did not tell.
func (e *Embedder) request(ctx context.Context, texts []string, prefix, task string) (out [][]float32, tokens int64, err error) {
	req := llm.EmbedRequest{Model: e.config.Model, Texts: make([]string, len(texts)), Dimensions: e.config.Dimensions, Purpose: "embed"}
	if task == "query" {
		req.Purpose = "search" // somebody waits for it
	}
	for i, t := range texts {
		req.Texts[i] = prefix + t
	}
	if e.card.Task {
		req.Task = task
	}
	began := time.Now()
	answer, err := e.up.Embed(ctx, req)
	if err != nil {
		return nil, 0, err
	}
	e.took(texts, time.Since(began))
	if len(answer.Vectors) != len(texts) {
		return nil, 0, e.wrong("sent %d vectors for %d texts", len(answer.Vectors), len(texts))
	}
	for _, v := range answer.Vectors {
		if err := e.check(v); err != nil {
			return nil, 0, err
		}
		out = append(out, unpacked(packed(vector.Unit(v))))
	}
	return out, answer.Usage.Input.Or(0), nil
}

// took learns the pace from a request that went well. Waiting in a line counts as work: then smaller requests are right too.
func (e *Embedder) took(texts []string, took time.Duration) {
	size := 0
	for _, t := range texts {
		size += len(t)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := int(min(float64(size)/max(took.Seconds(), 1e-6), batchBytes))
	e.pace = max((cmp.Or(e.pace, now)+now)/2, 1)
}

// check learns the dimension, and returns what is wrong with a vector.
func (e *Embedder) check(v []float32) error {
	want := e.known()
	if want == 0 && len(v) > 0 {
		e.mu.Lock()
		e.dimensions = len(v)
		e.mu.Unlock()
		want = len(v)
	}
	if len(v) != want || want == 0 {
		return e.wrong("made a vector of %d dimensions, not of %d: it is another model than its name says, or it cannot be cut", len(v), want)
	}
	if !vector.HasDirection(v) {
		return e.wrong("made a vector that is zero or no number; another version of the server or the model may help")
	}
	return nil
}

func (e *Embedder) wrong(format string, a ...any) error {
	return &llm.Error{Kind: llm.BadRequest, Model: e.config.Model, Message: "embed with " + e.config.Model + ": it " + fmt.Sprintf(format, a...)}
}

func (e *Embedder) count(f func(*Status)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.status)
}

// Prune removes from the cache what was not used for so long, and returns how many vectors that were.
func (e *Embedder) Prune(ctx context.Context, unused time.Duration) (int64, error) {
	return prune(ctx, e.db, day(time.Now().Add(-unused)))
}
