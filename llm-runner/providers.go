package main

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/anthropic"
	"home.arpa/lab/llm-runner/internal/provider/gemini"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/provider/scripted"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// members makes the router's providers: those configured, or else those found, and always the vault.
func members(c *Config, notes *graph.Inquiries) ([]route.Member, error) {
	var all []route.Member
	for _, name := range slices.Sorted(maps.Keys(c.Providers)) {
		m, err := newMember(name, c.Providers[name])
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	if c.found {
		for _, f := range findable {
			p, ok := f.look()
			if !ok {
				continue
			}
			m, err := newMember(f.name, p)
			if err != nil {
				return nil, err
			}
			m.Found, m.Prefer = true, f.prefer
			all = append(all, m)
		}
	}
	return append(all, route.Member{Name: "vault", Kind: "vault", Provider: notes.Vault()}, route.Member{Name: graph.Name, Kind: "vault", Provider: notes}), nil
}

func newMember(name string, p ProviderConfig) (route.Member, error) {
	m := route.Member{Name: name, Kind: p.Kind, Cloud: p.cloud(), Concurrency: p.Concurrency}
	key := string(p.Key)
	switch p.Kind {
	case "ollama":
		x := ollama.New(ollama.Config{Name: name, URL: p.URL, Key: key, Timeout: p.Timeout})
		m.Provider, m.Probe = x, func(ctx context.Context) error { _, err := x.Version(ctx); return err }
		m.Outside = func(model string) bool { return elsewhere(p.URL, model) }
		if m.Concurrency == 0 {
			m.Concurrency = 1 // OLLAMA_NUM_PARALLEL's own default; more would wait inside Ollama, where nobody sees it
		}
	case "openai":
		c := openai.Config{Name: name, URL: p.URL, Key: key, Timeout: p.Timeout}
		if name == "groq" { // also behind a proxy, or imitated by a fake, its headers count requests by the day
			c.Flavor = openai.Groq
		}
		m.Provider = openai.New(c)
	case "gemini":
		m.Provider = gemini.New(gemini.Config{Name: name, URL: p.URL, Key: key, Timeout: p.Timeout})
	case "anthropic":
		m.Provider = anthropic.New(anthropic.Config{Name: name, URL: p.URL, Key: key, Timeout: p.Timeout})
	case "scripted":
		x, err := scripted.New(scripted.Config{Name: name, Path: p.URL, Timeout: p.Timeout})
		if err != nil {
			return m, err
		}
		m.Provider = x
	}
	if p.missing != "" {
		m.Provider, m.Probe = keyless{name, p.missing}, nil
	} else if p.Health != "" {
		m.Probe = healthCheck(name, p)
	}
	return m, nil
}

// elsewhere says that an Ollama passes a model's requests on to ollama.com: that host itself, and the models that are named so
// (docs.ollama.com/cloud: "gpt-oss:120b-cloud").
func elsewhere(address, model string) bool {
	u, err := url.Parse(address)
	host := ""
	if err == nil {
		host = strings.ToLower(u.Hostname())
	}
	return host == "ollama.com" || strings.HasSuffix(host, ".ollama.com") || strings.HasSuffix(model, "-cloud") || strings.HasSuffix(model, ":cloud")
}

// limits are the configured rate limits, with the ways in which the room of each kind's limits comes back: of a kind that is
// not known, the strictest.
func (p ProviderConfig) limits() []llm.Limit {
	all := make([]llm.Limit, len(p.Limits))
	for i, c := range p.Limits {
		l := llm.Limit{Dimension: c.Dimension, Model: c.Model, Max: llm.Known(c.Max), Refill: llm.Rolling}
		switch {
		case p.Kind == "anthropic":
			l.Refill, l.Counts = llm.Continuous, llm.SkipsCached
		case p.Kind == "gemini" && strings.HasSuffix(c.Dimension, "/day"):
			l.Refill = llm.PacificDay
		}
		all[i] = l
	}
	return all
}

// faults is what the provider itself finds wrong with its settings: "field: what is wrong, and the cure".
func (p ProviderConfig) faults() []error {
	var err error
	switch p.Kind {
	case "ollama":
		err = ollama.Config{URL: p.URL, Timeout: p.Timeout}.Validate()
	case "openai":
		err = openai.Config{URL: p.URL, Timeout: p.Timeout}.Validate()
	case "gemini":
		err = gemini.Config{URL: p.URL, Timeout: p.Timeout}.Validate()
	case "anthropic":
		err = anthropic.Config{URL: p.URL, Timeout: p.Timeout}.Validate()
	case "scripted":
		err = scripted.Config{Path: p.URL, Timeout: p.Timeout}.Validate()
	}
	return leaves(err)
}

// leaves takes joined errors apart.
func leaves(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, leaves(e)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// healthCheck asks the configured path or URL; any answer below 400 means up.
func healthCheck(name string, p ProviderConfig) func(context.Context) error {
	base, path := p.Health, ""
	if strings.HasPrefix(p.Health, "/") {
		base, path = p.URL, p.Health
	}
	client := upstream.New(name, base, nil, 5*time.Second)
	return func(ctx context.Context) error {
		resp, err := client.Do(ctx, path, nil, nil) //nolint:bodyclose // ErrorBody does
		if err != nil {
			return err
		}
		upstream.ErrorBody(resp)
		if resp.StatusCode >= 400 {
			return &llm.Error{Kind: llm.Unavailable, Provider: name, Status: resp.StatusCode, Message: "health check answered " + http.StatusText(resp.StatusCode)}
		}
		return nil
	}
}

// keyless stands in for a provider whose key is missing: it says so, and the rest of the house works.
type keyless struct{ name, why string }

func (k keyless) err() error {
	return &llm.Error{Kind: llm.Auth, Provider: k.name, Message: k.why}
}

func (k keyless) Stream(context.Context, llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) { yield(llm.Event{}, k.err()) }
}

func (k keyless) Models(context.Context) ([]llm.ModelInfo, error) { return nil, k.err() }

// A finding is a provider that may be there without anybody having configured it.
type finding struct {
	name   string
	look   func() (ProviderConfig, bool)
	prefer []string // models that make a good default, best first
}

// findable are looked for in this order; the first that answers makes the default. What costs nothing comes first. The
// preferred models were current in November 2026; where none is offered, the first of the provider's own list is it.
// The variables are those of the vendors' own SDKs.
var findable = []finding{
	{"ollama", findOllama, []string{"qwen2.5:14b", "qwen3:14b", "llama3.1:8b", "gemma3:12b"}},
	{"groq", findKey("GROQ_API_KEY", "GROQ_BASE_URL", "openai", "https://api.groq.com/openai/v1"), []string{"llama-3.3-70b-versatile", "openai/gpt-oss-120b"}},
	{"gemini", findKey("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "gemini", kinds["gemini"]), []string{"gemini-2.5-flash"}},
	{"anthropic", findKey("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "anthropic", kinds["anthropic"]), []string{"claude-haiku-4-5"}},
	{"openai", findKey("OPENAI_API_KEY", "OPENAI_BASE_URL", "openai", kinds["openai"]), []string{"gpt-5-mini", "gpt-4.1-mini"}},
}

func findKey(key, base, kind, url string) func() (ProviderConfig, bool) {
	return func() (ProviderConfig, bool) {
		value := strings.TrimSpace(os.Getenv(key))
		return ProviderConfig{Kind: kind, URL: cmp.Or(os.Getenv(base), url), Key: Secret(value)}, value != ""
	}
}

// defaultEmbedder is the model that makes vectors where an Ollama has it and the configuration names none.
const defaultEmbedder = "nomic-embed-text"

func findOllama() (ProviderConfig, bool) {
	return ProviderConfig{Kind: "ollama", URL: ollamaURL(os.Getenv("OLLAMA_HOST"))}, true
}

// ollamaURL understands OLLAMA_HOST as Ollama itself does: a scheme, a host and a port are each optional. An address to
// listen on everywhere means this machine to one who calls.
func ollamaURL(host string) string {
	host = strings.Trim(strings.TrimSpace(host), `"'`)
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		scheme, rest = "http", host
	}
	rest, path, _ := strings.Cut(rest, "/")
	name, port, err := net.SplitHostPort(rest)
	if err != nil {
		name, port = strings.Trim(rest, "[]"), map[string]string{"http": "11434", "https": "443"}[scheme]
		if ok && scheme == "http" {
			port = "80"
		}
	}
	switch name {
	case "", "0.0.0.0", "::":
		name = "127.0.0.1"
	}
	address := scheme + "://" + net.JoinHostPort(name, port)
	if path != "" {
		address += "/" + path
	}
	return strings.TrimRight(address, "/")
}
