// Package anthropic speaks the native Messages API of Anthropic, and of the servers that imitate it. It makes no
// embeddings, for the API has none.
//
// Facts come from platform.claude.com/docs (API reference, Errors, Rate limits, Streaming, Thinking, Structured outputs)
// and from the types of anthropic-sdk-go v1.84.0.
package anthropic

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/sse"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// DefaultURL is the API's address, without a path.
const DefaultURL = "https://api.anthropic.com"

// Version is sent as anthropic-version; it has been the only one since the Messages API exists.
const Version = "2023-06-01"

// Config says where the API is and who asks.
type Config struct {
	Name    string          // for errors; "" means "anthropic"
	URL     string          // without a path; "" means DefaultURL
	Key     string          // sent as x-api-key; "" sends none
	Timeout time.Duration   // the longest silence; see upstream.Client.Timeout
	Dial    upstream.Dialer // makes connections; nil: TCP, or through the proxy of the environment
}

// Validate returns all faults of c.
func (c Config) Validate() error { return upstream.Check(c.url(), DefaultURL, c.Timeout) }

func (c Config) url() string { return cmp.Or(c.URL, DefaultURL) }

// A Provider is one account at Anthropic. It implements llm.Provider, llm.Lister and llm.Forwarder.
type Provider struct {
	client *upstream.Client
}

var (
	_ llm.Provider  = (*Provider)(nil)
	_ llm.Lister    = (*Provider)(nil)
	_ llm.Forwarder = (*Provider)(nil)
)

// New returns the Provider of a valid Config. It does not connect.
func New(c Config) *Provider {
	h := http.Header{}
	if c.Key != "" {
		h.Set("X-Api-Key", c.Key)
	}
	return &Provider{client: upstream.New(cmp.Or(c.Name, "anthropic"), c.url(), h, c.Timeout).Over(c.Dial)}
}

// CloseIdle closes connections that nobody uses.
func (p *Provider) CloseIdle() { p.client.CloseIdle() }

// Stream asks for a message, always streamed. Its first Event has the Limits of the response's headers. The thinking of
// earlier turns goes back with its signatures, which must be this model's own.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		started := false
		fail := func(err error) { yield(llm.Event{}, p.failure(err, req.Model, started)) }
		resp, err := p.open(ctx, req)
		if err != nil {
			fail(err)
			return
		}
		defer resp.Body.Close()
		if limits := of(Limits(resp.Header), req.Model); limits != nil && !yield(llm.Event{Limits: limits}, nil) {
			return
		}
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

// open sends req and returns the response of an answer.
func (p *Provider) open(ctx context.Context, req llm.Request) (*http.Response, error) {
	body, err := encode(req)
	if err != nil {
		return nil, &llm.Error{Kind: llm.BadRequest, Message: "the request cannot be written: " + err.Error(), Err: err}
	}
	return p.client.Ask(ctx, "/v1/messages", http.Header{"Anthropic-Version": {Version}}, body, refusal)
}

// read turns the body of an answer into events. It is a stream of server-sent events, or, from servers that do not stream,
// a message in one piece.
func read(body io.Reader) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		src := bufio.NewReader(body)
		switch b, _ := upstream.Peek(src); b { // an error comes again
		case '{':
			readWhole(src, yield)
			return
		case '<':
			yield(llm.Event{}, upstream.ErrPage)
			return
		}
		var d decoder
		r := sse.NewReader(src)
		for !d.done {
			in, err := r.Next()
			if err != nil {
				if d.finish() == "" {
					yield(llm.Event{}, upstream.Broken(err))
					return
				}
				break // the answer itself is whole
			}
			if !in.Dispatched {
				continue
			}
			ev, said, err := d.add(string(in.Name), in.Data)
			if err != nil {
				yield(llm.Event{}, err)
				return
			}
			if said && !yield(ev, nil) {
				return
			}
		}
		if d.finish() == "" {
			yield(llm.Event{}, upstream.Broken(io.EOF))
			return
		}
		yield(llm.Event{Finish: d.finish()}, nil)
	}
}

func readWhole(src io.Reader, yield func(llm.Event, error) bool) {
	b, err := io.ReadAll(io.LimitReader(src, sse.MaxEvent))
	if err != nil {
		yield(llm.Event{}, upstream.Broken(err))
		return
	}
	events, err := unfold(b)
	if err != nil {
		yield(llm.Event{}, err)
		return
	}
	for _, ev := range events {
		if !yield(ev, nil) {
			return
		}
	}
}

// failure completes an error with what only the Provider knows. Anthropic's limits are each of one class of models.
func (p *Provider) failure(err error, model string, started bool) error {
	e := p.client.Failed(err, model, started)
	of(e.Limits, model)
	return e
}

func of(limits []llm.Limit, model string) []llm.Limit {
	for i := range limits {
		limits[i].Model = model
	}
	return limits
}

// Models lists the models that the key may use.
func (p *Provider) Models(ctx context.Context) ([]llm.ModelInfo, error) {
	var models []llm.ModelInfo
	for after := ""; ; {
		path := "/v1/models?limit=1000" // the most that a page may have
		if after != "" {
			path += "&after_id=" + url.QueryEscape(after)
		}
		page, err := p.page(ctx, path)
		if err != nil {
			return nil, p.failure(err, "", false)
		}
		for _, m := range page.Data {
			models = append(models, llm.ModelInfo{Name: m.ID, Context: m.MaxInputTokens})
		}
		if !page.HasMore || page.LastID == "" || page.LastID == after {
			return models, nil
		}
		after = page.LastID
	}
}

type modelPage struct {
	Data []struct {
		ID             string `json:"id"`
		MaxInputTokens int    `json:"max_input_tokens"`
	} `json:"data"`
	HasMore bool   `json:"has_more"`
	LastID  string `json:"last_id"`
}

func (p *Provider) page(ctx context.Context, path string) (modelPage, error) {
	var page modelPage
	resp, err := p.client.Ask(ctx, path, http.Header{"Anthropic-Version": {Version}}, nil, refusal)
	if err != nil {
		return page, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return page, fmt.Errorf("read list of models: %w", err)
	}
	return page, nil
}

// Dialect returns llm.Anthropic.
func (p *Provider) Dialect() llm.Dialect { return llm.Anthropic }

// forwarded are the headers of a caller that concern the API. All others stay here: among them may be the caller's own key.
var forwarded = []string{"Accept", "Anthropic-Beta", "Anthropic-Version", "Content-Type"}

// Forward passes body to path ("/v1/messages", "/v1/messages/count_tokens") unread. The caller's anthropic-version and
// anthropic-beta headers go with it, and no other of its headers but Accept and Content-Type.
func (p *Provider) Forward(ctx context.Context, path string, header http.Header, body []byte) (*http.Response, error) {
	h := http.Header{"Anthropic-Version": {Version}}
	for _, k := range forwarded {
		if v := header.Values(k); len(v) > 0 {
			h[k] = v
		}
	}
	resp, err := p.client.Ask(ctx, path, h, body, refusal)
	if err != nil {
		return nil, p.failure(err, "", false)
	}
	return resp, nil
}

// Limits reads the rate limits of a response's headers; see the function Limits.
func (p *Provider) Limits(h http.Header) []llm.Limit { return Limits(h) }
