package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/ollama/wire"
	"home.arpa/lab/llm-runner/internal/route"
)

// lines is the tongue of Ollama's /api/chat and /api/generate.
func lines(generate bool) *tongue {
	parse := wire.ParseChat
	if generate {
		parse = wire.ParseGenerate
	}
	meta := func(a *route.Attempt) wire.Meta {
		return wire.Meta{Model: a.Target.Model, Began: time.Now(), Generate: generate}
	}
	told := func(p *problem) []byte { return wire.AppendError(nil, p.Message) }
	return &tongue{
		request: func(body []byte, _ *route.Attempt) (llm.Request, bool, error) {
			req, err := parse(body)
			return req, true, err
		},
		stream: func(a *route.Attempt, _ bool) scribe { return wire.NewLineWriter(meta(a)) },
		whole:  func(answer llm.Answer, a *route.Attempt) []byte { return wire.AppendResponse(nil, answer, meta(a)) },
		refuse: told,
		last:   told,
		kind:   "application/x-ndjson",
	}
}

var ollamaChat, ollamaGenerate = lines(false), lines(true)

func (g *Gateway) ollamaChat(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r, ollamaChat, func(c *call) bool { return c.asked(wire.ParseChat, false) })
}

func (g *Gateway) ollamaGenerate(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r, ollamaGenerate, func(c *call) bool { return c.asked(wire.ParseGenerate, true) })
}

// asked says that something is asked. A request of Ollama without a question wants the model loaded, which is not ours to do: it is told that
// all is well. Where nothing is said of streams, one is meant.
func (c *call) asked(parse func([]byte) (llm.Request, error), generate bool) bool {
	req, err := parse(c.body)
	if err != nil {
		c.refuse(badRequest(err.Error()))
		return false
	}
	if len(req.Messages) == 0 {
		c.plain(wire.AppendLoaded(nil, wire.Meta{Model: c.head.model, Generate: generate}))
		return false
	}
	c.head.stream = c.head.stream || !c.head.saysStream
	c.ask.Cost.Output = int64(req.MaxTokens)
	return true
}

func (g *Gateway) ollamaEmbed(w http.ResponseWriter, r *http.Request) {
	c := &call{gateway: g, r: r, tongue: ollamaChat}
	defer c.trace(r.Pattern)()
	if !c.open(w) {
		return
	}
	req, err := wire.ParseEmbed(c.body)
	if err != nil {
		c.refuse(badRequest(err.Error()))
		return
	}
	c.ask.Embeds = true
	c.wishes = readWishes(r.Header, g.Wait)
	c.run(func(ctx context.Context, a *route.Attempt) error {
		c.out.decideFor(a)
		out, err := embed(ctx, a, req)
		if err != nil {
			return err
		}
		return c.answer(a, wire.AppendEmbeddings(nil, a.Target.Model, out, r.URL.Path == "/api/embeddings"))
	})
}

// ollamaModel is one row of the route table, as Ollama lists its models. What only a file on a disk has is made up of the name, so that it
// stays the same.
type ollamaModel struct {
	Name     string    `json:"name"`
	Model    string    `json:"model"`
	Modified time.Time `json:"modified_at"`
	Size     int64     `json:"size"`
	Digest   string    `json:"digest"`
	Details  details   `json:"details"`
}

type details struct {
	Parent       string   `json:"parent_model"`
	Format       string   `json:"format"`
	Family       string   `json:"family"`
	Families     []string `json:"families"`
	Parameters   string   `json:"parameter_size"`
	Quantization string   `json:"quantization_level"`
}

func (g *Gateway) ollamaTags(w http.ResponseWriter, _ *http.Request) {
	all := []ollamaModel{}
	rows := g.Router.Table().Models
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		all = append(all, g.ollamaRow(name, rows[name]))
	}
	writeJSON(w, map[string]any{"models": all})
}

func (g *Gateway) ollamaRow(name string, e route.Entry) ollamaModel {
	sum := sha256.Sum256([]byte(name))
	return ollamaModel{Name: name, Model: name, Modified: g.started.UTC(), Digest: fmt.Sprintf("%x", sum), Details: details{Family: e.Provider, Families: []string{e.Provider}}}
}

// ollamaShow tells what is known of one row. That a model can call tools is true of all: who cannot is asked in words.
func (g *Gateway) ollamaShow(w http.ResponseWriter, r *http.Request) {
	c := &call{gateway: g, r: r, tongue: ollamaChat}
	if !c.open(w) {
		return
	}
	name := cmp.Or(c.head.model, wire.ParseName(c.body))
	e, ok := g.Router.Table().Models[name]
	if !ok {
		c.refuse(&problem{status: http.StatusNotFound, Message: fmt.Sprintf("model %q not found: GET /api/tags lists those that there are", name)})
		return
	}
	m := g.ollamaRow(name, e)
	c.plain(object(map[string]any{"modelfile": "", "parameters": "", "template": "", "details": m.Details, "modified_at": m.Modified,
		"model_info": map[string]any{"general.architecture": e.Provider}, "capabilities": []string{"completion", "tools"}}))
}

// ollamaPs tells that no model is loaded: whether one is, only its machine knows.
func (g *Gateway) ollamaPs(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{"models": []ollamaModel{}})
}

// ollamaVersion is a version of Ollama's API that clients which look know how to speak with.
func (g *Gateway) ollamaVersion(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{"version": "0.12.0"})
}
