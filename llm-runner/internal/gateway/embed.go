package gateway

import (
	"context"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/route"
)

func (c *call) tryEmbed(ctx context.Context, a *route.Attempt) error {
	c.out.decideFor(a)
	if f, ok := forwarder(a); ok {
		resp, err := c.forward(ctx, a, f, false)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return c.passWhole(a, resp)
	}
	c.dialect = llm.None
	req, inBase64, err := wire.ParseEmbedRequest(c.head.rewrite(c.body, a.Target.Model, false))
	if err != nil {
		return invalid(a, err.Error())
	}
	out, err := embed(ctx, a, req)
	if err != nil {
		return err
	}
	return c.answer(a, wire.AppendEmbeddings(nil, out, a.Target.Model, inBase64))
}

// embed has a's provider make the vectors of req.
func embed(ctx context.Context, a *route.Attempt, req llm.EmbedRequest) (llm.Embeddings, error) {
	e, ok := a.Provider.(llm.Embedder)
	if !ok {
		return llm.Embeddings{}, invalid(a, "model: "+a.Target.Provider+" makes no embeddings; name a model of a provider that does")
	}
	req.Model, req.Purpose = a.Target.Model, "api"
	out, err := e.Embed(ctx, req)
	if err == nil {
		a.Used(out.Usage)
		a.Learn(out.Limits)
	}
	return out, err
}
