// Package gemini speaks the native interface of Google's Gemini API: generateContent, streamed, and batchEmbedContents.
//
// Facts come from ai.google.dev/gemini-api/docs (API reference, Rate limits, Troubleshooting, Thinking, Thought signatures,
// Structured outputs, Function calling) and from the types of google.golang.org/genai v1.77.0.
package gemini

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/sse"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// DefaultURL is the API's address, without a path.
const DefaultURL = "https://generativelanguage.googleapis.com"

// Config says where the API is and who asks.
type Config struct {
	Name    string          // for errors; "" means "gemini"
	URL     string          // without a path; "" means DefaultURL
	Key     string          // sent as x-goog-api-key, never in a URL; "" sends none
	Timeout time.Duration   // the longest silence; see upstream.Client.Timeout
	Dial    upstream.Dialer // makes connections; nil: TCP, or through the proxy of the environment
}

// Validate returns all faults of c.
func (c Config) Validate() error { return upstream.Check(c.url(), DefaultURL, c.Timeout) }

func (c Config) url() string { return cmp.Or(c.URL, DefaultURL) }

// A Provider is one project at Google: its quotas are the project's, whichever of its keys is used. It implements
// llm.Provider, llm.Embedder and llm.Lister.
type Provider struct {
	client *upstream.Client
}

var (
	_ llm.Provider = (*Provider)(nil)
	_ llm.Embedder = (*Provider)(nil)
	_ llm.Lister   = (*Provider)(nil)
)

// New returns the Provider of a valid Config. It does not connect.
func New(c Config) *Provider {
	h := http.Header{}
	if c.Key != "" {
		h.Set("X-Goog-Api-Key", c.Key)
	}
	return &Provider{client: upstream.New(cmp.Or(c.Name, "gemini"), c.url(), h, c.Timeout).Over(c.Dial)}
}

// CloseIdle closes connections that nobody uses.
func (p *Provider) CloseIdle() { p.client.CloseIdle() }

// Stream asks for content, always streamed. Gemini tells its rate limits only when it refuses, so no Event has Limits.
//
// Signatures of earlier turns go back. Where the API refuses them, because they are another model's, the request is sent
// once more without: a refused request costs nothing, though it counts as a request.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		started := false
		fail := func(err error) { yield(llm.Event{}, p.failed(err, req.Model, started)) }
		resp, err := p.open(ctx, req, false)
		if err != nil && foreign(err, req) {
			resp, err = p.open(ctx, req, true)
		}
		if err != nil {
			fail(err)
			return
		}
		defer resp.Body.Close()
		for ev, err := range read(resp.Body) {
			if err != nil {
				fail(err)
				return
			}
			started = started || ev.Says()
			if !yield(ev, nil) {
				return
			}
		}
	}
}

// failed is the error of a request for model. A refusal names the model that a quota is of, which is another name where model is
// an alias (gemini-flash-latest): the quota is that name's too.
func (p *Provider) failed(err error, model string, started bool) *llm.Error {
	e := p.client.Failed(err, model, started)
	for _, l := range e.Limits {
		if l.Model != "" && l.Model != model {
			l.Model = model
			e.Limits = append(e.Limits, l)
		}
	}
	return e
}

// open sends req and returns the response of an answer.
func (p *Provider) open(ctx context.Context, req llm.Request, unsigned bool) (*http.Response, error) {
	body, err := encode(req, unsigned)
	if err != nil {
		return nil, &llm.Error{Kind: llm.BadRequest, Message: "the request cannot be written: " + err.Error(), Err: err}
	}
	return p.ask(ctx, modelPath(req.Model)+":streamGenerateContent?alt=sse", body)
}

func (p *Provider) ask(ctx context.Context, path string, body []byte) (*http.Response, error) {
	return p.client.Ask(ctx, "/v1beta/"+path, nil, body, refusal)
}

// modelName returns a model's resource name: models/gemini-3.8-flash, or tunedModels/x where it says so itself.
func modelName(model string) string {
	if strings.Contains(model, "/") {
		return model
	}
	return "models/" + model
}

// modelPath is modelName, fit for a URL.
func modelPath(model string) string {
	kind, name, _ := strings.Cut(modelName(model), "/")
	return url.PathEscape(kind) + "/" + url.PathEscape(name)
}

// foreign says that a request was refused for a signature that it carries: "Invalid thought signature.", "Corrupted thought
// signature.", "Function call is missing a thought_signature in functionCall parts."
func foreign(err error, req llm.Request) bool {
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.BadRequest || !signature(e.Message) {
		return false
	}
	for _, m := range req.Messages {
		for _, part := range m.Parts {
			if part.Thinking != nil && part.Thinking.Signature != "" || part.Call != nil && part.Call.Signature != "" {
				return true
			}
		}
	}
	return false
}

func signature(message string) bool {
	s := strings.ToLower(message)
	return strings.Contains(s, "thought signature") || strings.Contains(s, "thought_signature")
}

// read turns the body of an answer into events. It is a stream of server-sent events or, from a server that ignores
// alt=sse, a JSON array of the same chunks, or one chunk alone.
func read(body io.Reader) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		src := bufio.NewReader(body)
		next := eventChunks(src)
		switch b, _ := upstream.Peek(src); b { // an error comes again
		case '{', '[':
			next = jsonChunks(src, b == '[')
		case '<':
			yield(llm.Event{}, upstream.ErrPage)
			return
		}
		var d decoder
		for {
			chunk, err := next()
			if err != nil {
				last, whole := d.end()
				if !whole {
					yield(llm.Event{}, upstream.Broken(err))
					return
				}
				yield(last, nil)
				return
			}
			events, err := d.add(chunk)
			for _, ev := range events {
				if !yield(ev, nil) {
					return
				}
			}
			if err != nil {
				yield(llm.Event{}, err)
				return
			}
		}
	}
}

// eventChunks returns a function that returns the data of the next event, or an error at the end.
func eventChunks(src io.Reader) func() ([]byte, error) {
	r := sse.NewReader(src)
	return func() ([]byte, error) {
		for {
			ev, err := r.Next()
			if err != nil || ev.Dispatched && len(ev.Data) > 0 {
				return ev.Data, err
			}
		}
	}
}

// jsonChunks returns a function that returns the next element of a JSON array, or the one value there is.
func jsonChunks(src io.Reader, array bool) func() ([]byte, error) {
	dec := json.NewDecoder(io.LimitReader(src, sse.MaxEvent))
	if array {
		_, _ = dec.Token() // the bracket that was seen
	}
	return func() ([]byte, error) {
		if array && !dec.More() {
			return nil, io.EOF
		}
		var chunk json.RawMessage
		err := dec.Decode(&chunk)
		return chunk, err
	}
}

type modelPage struct {
	Models []struct {
		Name            string   `json:"name"`
		InputTokenLimit int      `json:"inputTokenLimit"`
		Methods         []string `json:"supportedGenerationMethods"`
	} `json:"models"`
	Next string `json:"nextPageToken"`
}

// Models lists the models that chat or embed; those that draw, speak or film are left out.
func (p *Provider) Models(ctx context.Context) ([]llm.ModelInfo, error) {
	var models []llm.ModelInfo
	for token := ""; ; {
		path := "models?pageSize=1000" // the most that a page may have
		if token != "" {
			path += "&pageToken=" + url.QueryEscape(token)
		}
		page, err := p.page(ctx, path)
		if err != nil {
			return nil, p.client.Failed(err, "", false)
		}
		for _, m := range page.Models {
			chats := slices.Contains(m.Methods, "generateContent")
			embeds := slices.Contains(m.Methods, "embedContent") || slices.Contains(m.Methods, "batchEmbedContents")
			if chats || embeds {
				models = append(models, llm.ModelInfo{Name: strings.TrimPrefix(m.Name, "models/"), Context: m.InputTokenLimit, Embeds: embeds && !chats})
			}
		}
		if page.Next == "" || page.Next == token {
			return models, nil
		}
		token = page.Next
	}
}

func (p *Provider) page(ctx context.Context, path string) (modelPage, error) {
	var page modelPage
	resp, err := p.ask(ctx, path, nil)
	if err != nil {
		return page, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return page, fmt.Errorf("read list of models: %w", err)
	}
	return page, nil
}
