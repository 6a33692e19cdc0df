// Package openai speaks to every server of OpenAI's chat completions interface: OpenAI, Groq, and the many that imitate
// them. What travels is in package wire; here are the calls, and what refusals and rate-limit headers mean.
package openai

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// DefaultURL is where OpenAI itself answers. Groq answers at https://api.groq.com/openai/v1.
const DefaultURL = "https://api.openai.com/v1"

// MaxAnswer bounds the bytes of an answer that is not streamed.
const MaxAnswer = 64 << 20

// A Flavor is a variety of the dialect where it matters.
type Flavor string

const (
	Generic Flavor = "generic" // max_tokens, the name that every imitation knows
	OpenAI  Flavor = "openai"  // max_completion_tokens, the only name that newer models accept
	// Groq counts the x-ratelimit-*-requests headers per day, where others count them per minute; max_completion_tokens
	// (https://console.groq.com/docs/rate-limits).
	Groq Flavor = "groq"
)

// Config says where the server is and how to speak to it.
type Config struct {
	Name    string          // for errors; "" means "openai"
	URL     string          // base with the version, as in DefaultURL, which "" means
	Key     string          // sent as a bearer token; "" none
	Timeout time.Duration   // the longest silence; see upstream.Client.Timeout
	Dial    upstream.Dialer // makes connections; nil: TCP, or through the proxy of the environment
	Flavor  Flavor          // "" means by the URL's host: api.openai.com, api.groq.com, or else generic
	Header  http.Header     // sent with every request, as OpenAI-Organization
}

// Validate returns all faults of c.
func (c Config) Validate() error {
	var errs []error
	if err := upstream.Check(c.url(), DefaultURL, c.Timeout); err != nil {
		errs = append(errs, err)
	}
	switch c.Flavor {
	case "", Generic, OpenAI, Groq:
	default:
		errs = append(errs, fmt.Errorf("flavor: %q is not one of generic, openai, groq", c.Flavor))
	}
	return errors.Join(errs...)
}

func (c Config) url() string { return cmp.Or(c.URL, DefaultURL) }

func (c Config) flavor() Flavor {
	if c.Flavor != "" {
		return c.Flavor
	}
	u, err := url.Parse(c.url())
	if err != nil {
		return Generic
	}
	switch u.Hostname() {
	case "api.openai.com":
		return OpenAI
	case "api.groq.com":
		return Groq
	}
	return Generic
}

// A Provider speaks to one server. It is safe for concurrent use.
type Provider struct {
	client *upstream.Client
	flavor Flavor
}

var (
	_ llm.Provider  = (*Provider)(nil)
	_ llm.Embedder  = (*Provider)(nil)
	_ llm.Lister    = (*Provider)(nil)
	_ llm.Forwarder = (*Provider)(nil)
)

// New returns the Provider of a valid Config.
func New(c Config) *Provider {
	h := c.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if c.Key != "" {
		h.Set("Authorization", "Bearer "+c.Key)
	}
	return &Provider{client: upstream.New(cmp.Or(c.Name, "openai"), c.url(), h, c.Timeout).Over(c.Dial), flavor: c.flavor()}
}

// CloseIdle closes connections that nobody uses.
func (p *Provider) CloseIdle() { p.client.CloseIdle() }

// Stream asks for a chat completion.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		body, err := p.marshal(req)
		if err != nil {
			yield(llm.Event{}, &llm.Error{Kind: llm.BadRequest, Provider: p.client.Name, Model: req.Model, Message: err.Error(), Err: err})
			return
		}
		resp, err := p.post(ctx, "/chat/completions", http.Header{"Accept": {"text/event-stream"}}, body)
		if err != nil {
			yield(llm.Event{}, p.of(req.Model, err, false))
			return
		}
		defer resp.Body.Close()
		if limits := ofModel(p.Limits(resp.Header), req.Model); limits != nil && !yield(llm.Event{Limits: limits}, nil) {
			return
		}
		started := false
		for ev, err := range read(resp) {
			if err != nil {
				yield(llm.Event{}, p.of(req.Model, err, started))
				return
			}
			started = true
			if !yield(ev, nil) {
				return
			}
		}
	}
}

func (p *Provider) marshal(req llm.Request) ([]byte, error) {
	out, err := wire.NewRequest(req, true)
	if err != nil {
		return nil, err
	}
	if p.flavor == Generic {
		out.MaxTokens, out.MaxCompletionTokens = out.MaxCompletionTokens, 0
	}
	return out.Marshal(), nil
}

// post sends body and returns the response if it is below 300, and else its refusal as an *llm.Error.
func (p *Provider) post(ctx context.Context, path string, h http.Header, body []byte) (*http.Response, error) {
	return p.client.Ask(ctx, path, h, body, func(status int, h http.Header, body []byte, now time.Time) *llm.Error {
		return refusal(p.flavor, status, h, body, now)
	})
}

// of completes an error: whom it came from, which model it is about, and whether the answer had begun.
func (p *Provider) of(model string, err error, started bool) error {
	var said *wire.Error
	if errors.As(err, &said) {
		err = inBand(said, time.Now())
	}
	e := p.client.Failed(err, model, started)
	e.Limits = ofModel(e.Limits, model)
	return e
}

// ofModel says of limits that they are of model: both OpenAI and Groq limit each model apart.
func ofModel(limits []llm.Limit, model string) []llm.Limit {
	for i := range limits {
		limits[i].Model = model
	}
	return limits
}

// Embed asks for embeddings.
func (p *Provider) Embed(ctx context.Context, req llm.EmbedRequest) (llm.Embeddings, error) {
	if len(req.Texts) == 0 {
		return llm.Embeddings{}, nil
	}
	b, h, err := p.whole(ctx, "/embeddings", wire.MarshalEmbedRequest(req))
	if err != nil {
		return llm.Embeddings{}, p.of(req.Model, err, false)
	}
	out, err := wire.ParseEmbeddings(b, len(req.Texts))
	if err != nil {
		return llm.Embeddings{}, p.of(req.Model, err, false)
	}
	out.Limits = ofModel(p.Limits(h), req.Model)
	return out, nil
}

// Models lists what the server offers. Servers rarely say which of them embed: a name with "embed" in it does.
func (p *Provider) Models(ctx context.Context) ([]llm.ModelInfo, error) {
	b, _, err := p.whole(ctx, "/models", nil)
	if err != nil {
		return nil, p.of("", err, false)
	}
	var in struct {
		Data []struct {
			ID      string `json:"id"`
			Context int    `json:"context_window"` // Groq
			Length  int    `json:"context_length"` // OpenRouter, Together
			Max     int    `json:"max_model_len"`  // vLLM
		} `json:"data"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, p.of("", fmt.Errorf("list of models is not of the dialect: %w", err), false)
	}
	out := make([]llm.ModelInfo, 0, len(in.Data))
	for _, m := range in.Data {
		out = append(out, llm.ModelInfo{Name: m.ID, Context: max(m.Context, m.Length, m.Max), Embeds: strings.Contains(strings.ToLower(m.ID), "embed")})
	}
	return out, nil
}

// whole reads a response to its end.
func (p *Provider) whole(ctx context.Context, path string, body []byte) ([]byte, http.Header, error) {
	resp, err := p.post(ctx, path, nil, body)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer))
	return b, resp.Header, err
}

// Dialect says that bodies of the chat completions interface may be forwarded.
func (p *Provider) Dialect() llm.Dialect { return llm.OpenAI }

// Forward sends body as it is to path ("/chat/completions", "/embeddings"). Of header, what is between the caller and us stays
// behind: keys, cookies, connection headers, and encodings, which the transport chooses by itself.
func (p *Provider) Forward(ctx context.Context, path string, header http.Header, body []byte) (*http.Response, error) {
	return p.post(ctx, path, endToEnd(header), body)
}

// hopByHop are the headers that end here (RFC 9110, section 7.6.1), and those that are none of the upstream's business.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Authorization", "X-Api-Key", "Cookie", "Host", "Content-Length", "Accept-Encoding", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip",
}

func endToEnd(header http.Header) http.Header {
	h := header.Clone()
	for _, named := range header.Values("Connection") {
		for name := range strings.SplitSeq(named, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
	return h
}
