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
	e, ok := a.Provider.(llm.Embedder)
	if !ok {
		return invalid(a, "model: "+a.Target.Provider+" makes no embeddings; name a model of a provider that does")
	}
	req, inBase64, err := wire.ParseEmbedRequest(c.head.rewrite(c.body, a.Target.Model, false))
	if err != nil {
		return invalid(a, err.Error())
	}
	req.Purpose = "api"
	out, err := e.Embed(ctx, req)
	if err != nil {
		return err
	}
	a.First()
	a.Used(out.Usage)
	a.Learn(out.Limits)
	body := wire.AppendEmbeddings(nil, out, a.Target.Model, inBase64)
	c.out.hurry()
	c.out.begin(nil, int64(len(body)))
	if err := c.out.write(body); err != nil {
		return err
	}
	a.Finished()
	return nil
}
