// Package ollama speaks Ollama's native interface, one JSON object a line
// (https://github.com/ollama/ollama/blob/main/docs/api.md). Its imitation of OpenAI's is not used: there an error in the middle
// of an answer becomes an empty delta, and the answer looks whole.
package ollama

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// DefaultURL is where Ollama listens by itself.
const DefaultURL = "http://127.0.0.1:11434"

// MaxAnswer bounds the bytes of an answer that is not streamed.
const MaxAnswer = 64 << 20

// Config says where the machine is.
type Config struct {
	Name    string          // for errors; "" means "ollama"
	URL     string          // without a path; "" means DefaultURL
	Key     string          // for Ollama's cloud, or a proxy before the machine; "" none
	Timeout time.Duration   // the longest silence; see upstream.Client.Timeout
	Dial    upstream.Dialer // makes connections; nil: TCP, or through the proxy of the environment
	// Context is how many tokens of a conversation the model sees. Zero leaves it to the server, which silently drops the
	// beginning of what is longer than its default of a few thousand.
	Context int
}

// Validate returns all faults of c.
func (c Config) Validate() error {
	var errs []error
	if err := upstream.Check(c.url(), DefaultURL, c.Timeout); err != nil {
		errs = append(errs, err)
	}
	if strings.HasSuffix(strings.TrimRight(c.URL, "/"), "/v1") {
		errs = append(errs, fmt.Errorf("url: %q ends in /v1; leave that out, the native interface is used", c.URL))
	}
	if c.Context < 0 {
		errs = append(errs, fmt.Errorf("context: %d is negative", c.Context))
	}
	return errors.Join(errs...)
}

func (c Config) url() string { return cmp.Or(c.URL, DefaultURL) }

// A Provider speaks to one machine. It is safe for concurrent use.
type Provider struct {
	client  *upstream.Client
	context int
}

var (
	_ llm.Provider = (*Provider)(nil)
	_ llm.Embedder = (*Provider)(nil)
	_ llm.Lister   = (*Provider)(nil)
)

// New returns the Provider of a valid Config.
func New(c Config) *Provider {
	h := http.Header{}
	if c.Key != "" {
		h.Set("Authorization", "Bearer "+c.Key)
	}
	return &Provider{client: upstream.New(cmp.Or(c.Name, "ollama"), c.url(), h, c.Timeout).Over(c.Dial), context: c.Context}
}

// CloseIdle closes connections that nobody uses.
func (p *Provider) CloseIdle() { p.client.CloseIdle() }

// Stream asks for a chat answer. Where the model cannot think and the request says how hard it should, it is asked
// again without.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		in, err := newRequest(req, p.context)
		if err != nil {
			yield(llm.Event{}, &llm.Error{Kind: llm.BadRequest, Provider: p.client.Name, Model: req.Model, Message: err.Error(), Err: err})
			return
		}
		resp, err := p.client.Ask(ctx, "/api/chat", nil, in.marshal(), refusal)
		var e *llm.Error
		if errors.As(err, &e) && e.Status == http.StatusBadRequest && in.Think != nil && strings.Contains(e.Message, "does not support thinking") {
			in.Think = nil
			resp, err = p.client.Ask(ctx, "/api/chat", nil, in.marshal(), refusal)
		}
		if err != nil {
			yield(llm.Event{}, p.of(req.Model, err, false))
			return
		}
		defer resp.Body.Close()
		started := false
		for ev, err := range read(resp.Body, calls(req)) {
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

// of completes an error: whom it came from, which model it is about, and whether the answer had begun.
func (p *Provider) of(model string, err error, started bool) error {
	e := p.client.Failed(err, model, started)
	if e.Kind == llm.NotFound && model != "" {
		e.Message = fmt.Sprintf("model %q is not on this machine; run: ollama pull %s", model, model)
	}
	for i := range e.Limits {
		e.Limits[i].Model = model // the cloud's: what runs on the machine itself has none
	}
	return e
}

// whole asks for path and decodes the answer into out.
func (p *Provider) whole(ctx context.Context, path string, body []byte, out any) error {
	resp, err := p.client.Ask(ctx, path, nil, body, refusal)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer))
	if err != nil {
		return err
	}
	var failed struct{ Error string }
	if json.Unmarshal(b, &failed) == nil && failed.Error != "" {
		return inBand(failed.Error)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the answer to %s is not Ollama's: %w; is the address right?", path, err)
	}
	return nil
}

// Embed asks for embeddings. Left alone, the server cuts texts that are longer than the model's context and does not say so;
// it is told to refuse them ("the input length exceeds the context length").
func (p *Provider) Embed(ctx context.Context, req llm.EmbedRequest) (llm.Embeddings, error) {
	if len(req.Texts) == 0 {
		return llm.Embeddings{}, nil
	}
	in := llm.AppendJSON(nil, struct {
		Model      string   `json:"model"`
		Input      []string `json:"input"`
		Dimensions int      `json:"dimensions,omitempty"`
		Truncate   bool     `json:"truncate"`
	}{req.Model, req.Texts, req.Dimensions, false})
	var out struct {
		Embeddings [][]float32 `json:"embeddings"`
		Prompt     *int64      `json:"prompt_eval_count"`
	}
	err := p.whole(ctx, "/api/embed", in, &out)
	if err == nil && len(out.Embeddings) != len(req.Texts) {
		err = fmt.Errorf("%d vectors came for %d texts", len(out.Embeddings), len(req.Texts))
	}
	if err != nil {
		return llm.Embeddings{}, p.of(req.Model, err, false)
	}
	return llm.Embeddings{Vectors: out.Embeddings, Usage: llm.Usage{Input: count(out.Prompt)}}, nil
}

// Models lists what is on the machine.
func (p *Provider) Models(ctx context.Context) ([]llm.ModelInfo, error) {
	var in struct {
		Models []struct {
			Name    string `json:"name"`
			Size    int64  `json:"size"`
			Details struct {
				Family   string   `json:"family"`
				Families []string `json:"families"`
				Context  int      `json:"context_length"`
			} `json:"details"`
			Capabilities []string `json:"capabilities"` // newer servers
		} `json:"models"`
	}
	if err := p.whole(ctx, "/api/tags", nil, &in); err != nil {
		return nil, p.of("", err, false)
	}
	out := make([]llm.ModelInfo, 0, len(in.Models))
	for _, m := range in.Models {
		out = append(out, llm.ModelInfo{
			// "x:latest" and "x" are one model to Ollama; people write the short name.
			Name: strings.TrimSuffix(m.Name, ":latest"), Bytes: m.Size, Context: m.Details.Context,
			Embeds: embeds(m.Name, append(m.Details.Families, m.Details.Family), m.Capabilities),
		})
	}
	return out, nil
}

// embeds says whether a model makes vectors. Servers that tell capabilities know; of others, the family (bert,
// nomic-bert, xlm-roberta is "bert" too) or the name gives it away.
func embeds(name string, families, capabilities []string) bool {
	if len(capabilities) > 0 {
		can := strings.Join(capabilities, " ")
		return strings.Contains(can, "embedding") && !strings.Contains(can, "completion")
	}
	return strings.Contains(strings.Join(families, " "), "bert") || strings.Contains(strings.ToLower(name), "embed")
}

// Version returns the server's version: the cheapest sign of life.
func (p *Provider) Version(ctx context.Context) (string, error) {
	var out struct {
		Version string `json:"version"`
	}
	if err := p.whole(ctx, "/api/version", nil, &out); err != nil {
		return "", p.of("", err, false)
	}
	return out.Version, nil
}

func count(n *int64) llm.Count {
	if n == nil {
		return llm.Count{}
	}
	return llm.Known(*n)
}
