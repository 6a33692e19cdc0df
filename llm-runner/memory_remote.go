package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"home.arpa/lab/llm-runner/internal/memory"
)

// learnPatience is how long a server may take: it asks a model for every message that it has not read.
const learnPatience = 2 * time.Hour

// remote is the memory of a running server.
type remote struct{ bell doorbell }

func (r remote) do(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	return r.bell.sendWithin(ctx, learnPatience, method, "/api/memory"+path, body, out)
}

func (r remote) all(ctx context.Context, state memory.State) (out struct {
	Facts     []memory.Fact
	Conflicts []memory.Conflict
}, err error) {
	return out, r.do(ctx, http.MethodGet, "?state="+string(state), nil, &out)
}

func (r remote) List(ctx context.Context, state memory.State) ([]memory.Fact, error) {
	out, err := r.all(ctx, state)
	return out.Facts, err
}

func (r remote) Conflicts(ctx context.Context) ([]memory.Conflict, error) {
	out, err := r.all(ctx, memory.Current)
	return out.Conflicts, err
}

func (r remote) One(ctx context.Context, id int64) (f memory.Fact, err error) {
	return f, r.do(ctx, http.MethodGet, fmt.Sprintf("/facts/%d", id), nil, &f)
}

func (r remote) Learn(ctx context.Context, run string) (out memory.Report, err error) {
	return out, r.do(ctx, http.MethodPost, "/learn", map[string]string{"run": run}, &out)
}

func (r remote) Add(ctx context.Context, text string) (f memory.Fact, err error) {
	return f, r.do(ctx, http.MethodPost, "/facts", map[string]string{"text": text}, &f)
}

func (r remote) Edit(ctx context.Context, id int64, text string) (f memory.Fact, err error) {
	return f, r.do(ctx, http.MethodPost, fmt.Sprintf("/facts/%d", id), map[string]string{"text": text}, &f)
}

func (r remote) Undo(ctx context.Context, fact int64) (u memory.Undoing, err error) {
	return u, r.do(ctx, http.MethodPost, "/undo", map[string]int64{"fact": fact}, &u)
}

func (r remote) Resolve(ctx context.Context, conflict int64, holds string) error {
	return r.do(ctx, http.MethodPost, fmt.Sprintf("/conflicts/%d", conflict), map[string]string{"holds": holds}, &struct{}{})
}

func (r remote) Forget(ctx context.Context, id int64) error {
	return r.do(ctx, http.MethodDelete, fmt.Sprintf("/facts/%d", id), nil, &struct{}{})
}
