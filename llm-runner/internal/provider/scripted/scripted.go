// Package scripted answers from a file instead of a model, word by word, the same every time. It is for trying things out
// without a machine or a key, for demonstrations, and for tests of everything that stands on an llm.Provider.
//
// The file is a script (package script), the same that `llm-runner fake --script` reads:
//
//	models: [storyteller]              # left out: every model answers
//	reply:
//	  - match: weather                 # a part of the last user message, or /a regular expression/
//	    thinking: Somebody wants to know the weather.
//	    calls:
//	      - {name: weather, arguments: '{"city": "Oslo"}'}
//	  - after: 12 degrees              # a part of the result of a tool with which the request ends
//	    text: It is cold.
//	  - match: slow
//	    delay: 2s                      # before the first word
//	    tokens_per_second: 20
//	    text: All in good time.
//	  - match: busy
//	    fault: {kind: "429", wait: 90s, message: the script is out of words}
//	  - match: break
//	    text: This sentence will never come to its
//	    fault: {kind: reset_mid_stream}
//	  - text: "You said: {{input}}"    # no match: anything else
//
// Faults that are about bytes on a wire (gzip, crlf, ...), keys and limits belong to the fakes and are refused here.
package scripted

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// Config says where the script is.
type Config struct {
	Name string // for errors; "" means "scripted"
	Path string // of the script; "" echoes everything
	// Timeout is how long a stall lasts before it is an error. Zero means five minutes, as for upstreams.
	Timeout time.Duration
}

// Validate returns all faults of c, those in the script included.
func (c Config) Validate() error {
	var errs []error
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout: %s is negative", c.Timeout))
	}
	if _, err := c.load(); err != nil {
		errs = append(errs, fmt.Errorf("url: %w", err))
	}
	return errors.Join(errs...)
}

func (c Config) load() (script.Script, error) {
	if c.Path == "" {
		return script.Script{}, nil
	}
	s, err := script.Load(c.Path)
	if errors.Is(err, os.ErrNotExist) {
		return s, fmt.Errorf("%w; the comment of package scripted shows how to write one", err)
	}
	if err != nil {
		return s, err
	}
	return s, spoken(s)
}

// spoken refuses what a script says about wires, which this provider does not have.
func spoken(s script.Script) error {
	switch {
	case s.Key != "":
		return errors.New("key: the scripted provider has no keys; use llm-runner fake")
	case len(s.Limits) > 0:
		return errors.New("limits: the scripted provider does not count; use llm-runner fake, or a fault of kind \"429\"")
	}
	faults := slices.Clone(s.Faults)
	for _, r := range s.Reply {
		if r.Fault != nil {
			faults = append(faults, *r.Fault)
		}
	}
	for _, f := range faults {
		if f.Kind.Disguises() || f.Kind == script.Verbatim || f.Kind == script.SlowFirstToken {
			return fmt.Errorf("fault %s: is about bytes on a wire; use llm-runner fake", f.Kind)
		}
	}
	return nil
}

// A Provider answers from one script. It is safe for concurrent use.
type Provider struct {
	name    string
	script  script.Script
	timeout time.Duration
	count   atomic.Int64 // of requests
}

var (
	_ llm.Provider = (*Provider)(nil)
	_ llm.Embedder = (*Provider)(nil)
	_ llm.Lister   = (*Provider)(nil)
)

// New reads the script of c.
func New(c Config) (*Provider, error) {
	s, err := c.load()
	if err != nil {
		return nil, err
	}
	return From(c, s)
}

// From returns the Provider of a script that is already in memory; c.Path does not matter.
func From(c Config, s script.Script) (*Provider, error) {
	if err := errors.Join(s.Check(), spoken(s)); err != nil {
		return nil, err
	}
	if c.Name == "" {
		c.Name = "scripted"
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Minute
	}
	return &Provider{name: c.Name, script: s, timeout: c.Timeout}, nil
}

// Models lists the script's models.
func (p *Provider) Models(context.Context) ([]llm.ModelInfo, error) {
	names := p.script.Models
	if len(names) == 0 {
		names = []string{"scripted"}
	}
	out := make([]llm.ModelInfo, len(names))
	for i, n := range names {
		out[i] = llm.ModelInfo{Name: n}
	}
	return out, nil
}

// Embed returns unit vectors that depend on the words of the texts alone: texts that share words are near each other.
func (p *Provider) Embed(ctx context.Context, req llm.EmbedRequest) (llm.Embeddings, error) {
	if e := p.refuses(req.Model, script.Rule{}); e != nil {
		return llm.Embeddings{}, e
	}
	dims := req.Dimensions
	if dims <= 0 {
		dims = p.script.Dimensions
	}
	if dims <= 0 {
		dims = 64
	}
	out := llm.Embeddings{Vectors: make([][]float32, len(req.Texts))}
	var tokens int64
	for i, t := range req.Texts {
		if err := ctx.Err(); err != nil {
			return llm.Embeddings{}, p.ended(ctx, req.Model, false)
		}
		out.Vectors[i] = script.Vector(t, dims)
		tokens += script.Tokens(t)
	}
	out.Usage.Input = llm.Known(tokens)
	return out, nil
}

// Stream answers the last user message.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		input, prompt := "", ""
		for _, m := range req.Messages {
			text := m.Text()
			prompt += text + "\n"
			if m.Role == llm.User {
				input = text
			}
		}
		_, r := p.script.AnswerAfter(req.Model, input, lastResult(req))
		fault, e := p.next(req.Model, r)
		if e != nil {
			yield(llm.Event{}, e)
			return
		}
		events := eventsOf(r, r.Told(prompt))
		half := (len(events) + 1) / 2
		for i, ev := range events {
			wait := r.ChunkDelay
			if i == 0 {
				wait = r.Delay
			}
			if i == half && fault != "" && fault != script.ResetAfterFinish {
				if fault == script.StallMidStream && !pause(ctx, p.timeout) {
					yield(llm.Event{}, p.ended(ctx, req.Model, true))
					return
				}
				yield(llm.Event{}, p.broke(req.Model, fault, i > 0))
				return
			}
			if !pause(ctx, wait) {
				yield(llm.Event{}, p.ended(ctx, req.Model, i > 0))
				return
			}
			if !yield(ev, nil) {
				return
			}
		}
	}
}

// next counts a request for model that r answers and says what goes wrong with it: an error at once, or the kind of the fault
// in its middle.
func (p *Provider) next(model string, r script.Rule) (script.FaultKind, *llm.Error) {
	if len(p.script.Models) > 0 && !slices.Contains(p.script.Models, model) {
		return "", p.refusal(model, script.Fault{Kind: script.NoModel})
	}
	f, _ := p.script.FaultsOf(int(p.count.Add(1)), r)
	switch {
	case f == nil:
		return "", nil
	case f.Kind.Refuses():
		return "", p.refusal(model, *f)
	case f.Kind == script.ResetBeforeHeaders || f.Kind == script.StallBeforeHeaders || f.Kind == script.HTML200 || f.Kind == script.Error200:
		return "", p.broke(model, f.Kind, false)
	}
	return f.Kind, nil
}

// refuses is next for what has no middle.
func (p *Provider) refuses(model string, r script.Rule) *llm.Error {
	fault, e := p.next(model, r)
	if e == nil && fault != "" {
		e = p.broke(model, fault, false)
	}
	return e
}

// eventsOf cuts an answer into events, one a word.
func eventsOf(r script.Rule, usage llm.Usage) []llm.Event {
	var events []llm.Event
	for _, s := range script.Pieces(r.Thinking, r.ChunkSize) {
		events = append(events, llm.Event{Thinking: s})
	}
	if r.Signature != "" {
		events = append(events, llm.Event{Signature: r.Signature})
	}
	for _, s := range script.Pieces(r.Text, r.ChunkSize) {
		events = append(events, llm.Event{Text: s})
	}
	for i, c := range r.Calls {
		events = append(events, llm.Event{Call: &llm.CallDelta{Index: i, ID: c.ID, Name: c.Name}})
		for _, s := range script.Chars(c.Arguments, 7) {
			events = append(events, llm.Event{Call: &llm.CallDelta{Index: i, Arguments: s}})
		}
	}
	last := llm.Event{Finish: r.Finish}
	if usage != (llm.Usage{}) {
		last.Usage = &usage
	}
	return append(events, last)
}

// pause waits; false when ctx ended before or meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lastResult is what the tools said with which a request ends; "" it ends otherwise.
func lastResult(req llm.Request) (all string) {
	if n := len(req.Messages); n > 0 {
		for _, part := range req.Messages[n-1].Parts {
			if part.Result != nil {
				all += part.Result.Text + "\n"
			}
		}
	}
	return all
}
