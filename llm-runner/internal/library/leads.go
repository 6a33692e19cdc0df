package library

import (
	"context"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Lead is a passage that a search found, by its place: what it says is read again when it is used. It can be kept as JSON.
type Lead struct {
	ID         int64    `json:"id"`
	Collection string   `json:"collection"`
	Path       string   `json:"path"`
	Title      string   `json:"title"`
	Heading    []string `json:"heading,omitempty"`
	Start      int      `json:"start"` // bytes, half-open
	End        int      `json:"end"`
	Line       int      `json:"line"` // 1-based
	Score      float64  `json:"score"`
	Exact      bool     `json:"exact,omitempty"`   // it is named, or holds the phrase, and so comes first
	Private    bool     `json:"private,omitempty"` // no cloud provider may see it
}

// Look returns what may answer q, best first, in the order of the lanes: no model has ordered it yet. written: for a model that writes, which is shown
// more than a person is.
func (v *Vault) Look(ctx context.Context, q Question, written bool) ([]Lead, error) {
	limit := 4 * shown
	if written {
		limit = forPrompt / 100
	}
	_, result, err := v.library.find(ctx, Request{Query: q.Asked, Limit: limit, Private: q.Private})
	if err != nil {
		return nil, err
	}
	all := make([]Lead, len(result.Hits))
	for i, h := range result.Hits {
		all[i] = Lead{h.id, h.Collection, h.Path, h.Title, h.Heading, h.Start, h.End, h.Line, h.Score, h.exact, v.library.NeverSent(h.Collection, h.Path)}
	}
	return all, nil
}

// follow returns the hits of leads, those that are still there, in their order, and how many are not.
func (v *Vault) follow(ctx context.Context, q Question, leads []Lead) (s *search, hits []Hit, gone int, err error) {
	text, _ := filters(q.Asked, Filter{})
	s = &search{lib: v.library, index: v.library.words.Load(), query: parse(text), hits: map[int64]*Hit{}, began: time.Now()}
	s.query.weigh(s.index)
	ids := make([]scored, len(leads))
	for i, l := range leads {
		ids[i].id = l.ID
	}
	if err := s.read(ctx, ids); err != nil {
		return nil, nil, 0, err
	}
	for _, l := range leads {
		h := s.hits[l.ID]
		if h == nil || h.Collection != l.Collection || h.Path != l.Path || h.Start != l.Start || h.End != l.End {
			gone++
			continue
		}
		h.Score, h.exact = l.Score, l.Exact
		s.query.examine(h)
		hits = append(hits, *h)
	}
	return s, hits, gone, nil
}

// Ranking asks the model for the order of the best leads, those of [from, to), that orders passages. ok is false where none does, where there is nothing
// to order, and where no model may be told of q.
func (v *Vault) Ranking(ctx context.Context, q Question, leads []Lead) (req llm.Request, from, to int, ok bool, err error) {
	model, orders := v.library.Orders()
	from, to, ok = rerankSpan(len(leads), func(i int) bool { return leads[i].Exact })
	if !ok || !orders || q.Private {
		return req, 0, 0, false, nil
	}
	_, hits, gone, err := v.follow(ctx, q, leads[from:to])
	if err != nil || gone > 0 { // what is gone is left out when it is used
		return req, 0, 0, false, err
	}
	text, _ := filters(q.Asked, Filter{})
	return OrderRequest(model, text, v.library.rankable(hits)), from, to, true, nil
}

// ranked has the model order leads that orders the best, where there is one. Without its answer they stay as they are.
func (v *Vault) ranked(ctx context.Context, q Question, leads []Lead) ([]Lead, error) {
	req, from, to, ok, err := v.Ranking(ctx, q, leads)
	if err != nil || !ok {
		return leads, err
	}
	asked, cancel := context.WithTimeout(ctx, RankPatience)
	defer cancel()
	order, err := v.library.reranker.order(asked, req, to-from)
	if err != nil {
		return leads, ctx.Err()
	}
	return Reordered(leads, from, to, order), nil
}

// Gather returns the passages of a prompt, from the leads and their neighbours, as they stand in their documents now; changed counts those that do not.
func (v *Vault) Gather(ctx context.Context, q Question, leads []Lead) (all []Numbered, changed int, err error) {
	search, hits, changed, err := v.follow(ctx, q, leads)
	if err != nil || len(hits) == 0 {
		return nil, changed, err
	}
	if hits, err = search.widened(ctx, hits); err != nil {
		return nil, 0, err
	}
	hits = search.pack(hits, forPrompt)
	s := v.library.shelf()
	defer s.close()
	for _, h := range hits[:min(len(hits), mostSources)] {
		c, ok, err := s.cite(ctx, h.Collection, h.Citation)
		if err != nil {
			return nil, 0, err
		}
		if !ok {
			changed++
			continue
		}
		all = append(all, Numbered{c, h.Collection, h.language, v.library.NeverSent(h.Collection, h.Path)})
	}
	return all, changed, nil
}
