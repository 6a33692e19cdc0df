package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"home.arpa/lab/llm-runner/internal/route"
)

// A model is one row of the route table, as OpenAI's API lists models.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"` // seconds since 1970, UTC: when this process started, since nobody knows better
	OwnedBy string `json:"owned_by"`
}

func (g *Gateway) row(name string, e route.Entry) model {
	return model{name, "model", g.started.Unix(), e.Provider}
}

// models lists the rows of the table in force, by name.
func (g *Gateway) models(w http.ResponseWriter, r *http.Request) {
	if claude(r) {
		g.anthropicModels(w)
		return
	}
	rows := g.Router.Table().Models
	list := struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{"list", []model{}}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		list.Data = append(list.Data, g.row(name, rows[name]))
	}
	writeJSON(w, list)
}

func (g *Gateway) model(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("id")
	e, ok := g.Router.Table().Models[name]
	if !ok {
		p := &problem{status: http.StatusNotFound, Type: "invalid_request_error", Code: "model_not_found",
			Message: fmt.Sprintf("the route table has no model %q; GET /v1/models lists those it has", name)}
		if claude(r) {
			p.tongue = messages
		}
		p.write(w)
		return
	}
	if claude(r) {
		writeJSON(w, g.anthropicRow(name))
		return
	}
	writeJSON(w, g.row(name, e))
}

func writeJSON(w http.ResponseWriter, v any) {
	b, _ := json.Marshal(v) // strings and numbers
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // a client that has gone needs no answer
}
