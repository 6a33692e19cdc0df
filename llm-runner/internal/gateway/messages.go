package gateway

import (
	"crypto/rand"
	"maps"
	"net/http"
	"slices"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/anthropic/wire"
	"home.arpa/lab/llm-runner/internal/route"
)

// messages is the tongue of /v1/messages: Anthropic's.
var messages = &tongue{
	request: func(body []byte, _ *route.Attempt) (llm.Request, bool, error) {
		req, err := wire.ParseRequest(body)
		return req, true, err
	},
	stream: func(a *route.Attempt, _ bool) scribe { return wire.NewEventWriter(messageMeta(a)) },
	whole: func(answer llm.Answer, a *route.Attempt) []byte {
		return wire.AppendResponse(nil, answer, messageMeta(a))
	},
	refuse:     func(p *problem) []byte { return wire.AppendError(nil, p.anthropic()) },
	last:       func(p *problem) []byte { return wire.AppendErrorEvent(nil, p.anthropic()) },
	kind:       eventStream,
	alive:      wire.Alive,
	overloaded: wire.Overloaded,
}

func messageMeta(a *route.Attempt) wire.Meta {
	return wire.Meta{ID: "msg_" + rand.Text(), Model: a.Target.Model}
}

func (p *problem) anthropic() wire.Error {
	status := p.status
	if p.Code == "overloaded" {
		status = wire.Overloaded
	}
	return wire.Error{Type: wire.TypeOf(status), Message: p.Message}
}

func (g *Gateway) messages(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r, messages, func(*call) bool { return true })
}

// countTokens estimates: only the model's own provider could count, and the answer may come from another.
func (g *Gateway) countTokens(w http.ResponseWriter, r *http.Request) {
	c := &call{gateway: g, r: r, tongue: messages}
	if !c.open(w) {
		return
	}
	req, err := wire.ParseRequest(c.body)
	if err != nil {
		c.refuse(badRequest(err.Error()))
		return
	}
	c.plain(object(map[string]int64{"input_tokens": route.CostOf(&req).Input}))
}

// claude says that a client of Anthropic's API asks on a path that OpenAI's has too.
func claude(r *http.Request) bool { return r.Header.Get("Anthropic-Version") != "" }

// An anthropicModel is a row of the route table as Anthropic's API tells it.
type anthropicModel struct {
	Type    string `json:"type"`
	ID      string `json:"id"`
	Display string `json:"display_name"`
	Created string `json:"created_at"` // when this process started, since nobody knows better
}

func (g *Gateway) anthropicRow(name string) anthropicModel {
	return anthropicModel{"model", name, name, g.started.UTC().Format(time.RFC3339)}
}

// anthropicModels lists the rows as Anthropic's API does.
func (g *Gateway) anthropicModels(w http.ResponseWriter) {
	list := struct {
		Data  []anthropicModel `json:"data"`
		More  bool             `json:"has_more"`
		First *string          `json:"first_id"`
		Last  *string          `json:"last_id"`
	}{Data: []anthropicModel{}}
	for _, name := range slices.Sorted(maps.Keys(g.Router.Table().Models)) {
		list.Data = append(list.Data, g.anthropicRow(name))
	}
	if n := len(list.Data); n > 0 {
		list.First, list.Last = &list.Data[0].ID, &list.Data[n-1].ID
	}
	writeJSON(w, list)
}
