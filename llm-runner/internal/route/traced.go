package route

import (
	"context"

	"home.arpa/lab/llm-runner/internal/trace"
	"home.arpa/lab/llm-runner/internal/usage"
)

// traced begins the span of an attempt.
func (r *Router) traced(ctx context.Context, m *member, a *Attempt, ask Ask, purpose string) (context.Context, *trace.Span) {
	op := trace.Chat
	switch {
	case ask.Embeds:
		op = trace.Embeddings
	case m.Kind == vaultKind, m.Kind == "scripted":
		op = trace.ChatInside
	}
	ctx, s := r.traces.Begin(ctx, op, a.Target.Model)
	if s.On() {
		s.Set(trace.Provider, conventional(m.Kind, m.Name))
		s.Set(trace.Model, a.Target.Model)
		s.Set(trace.Name, m.Name)
		s.Set(trace.Asked, ask.Model)
		s.Set(trace.Purpose, purpose)
		if s.Set(trace.Rule, a.Decision.Rule); a.Decision.Rule != RuleFallback { // that one repeats what a provider said
			s.Set(trace.Why, a.Decision.Why)
		}
	}
	return ctx, s
}

// told says in the span what the ledger has of the attempt.
func (a *Attempt) told(end usage.End) {
	if !a.span.On() {
		return
	}
	a.span.Set(trace.Outcome, string(end.Outcome))
	a.span.SetUsage(end.Usage)
	a.span.SetCost(a.row.Cost(end.Usage))
	a.span.SetSeconds(trace.FirstChunk, end.FirstByte)
	if a.withheld > 0 {
		a.span.SetInt(trace.Withheld, int64(a.withheld))
	}
}

// known are the names of the convention for those who speak OpenAI's API (gen_ai.provider.name).
var known = map[string]bool{"groq": true, "deepseek": true, "mistral_ai": true, "perplexity": true, "x_ai": true, "cohere": true}

// conventional is what the convention calls a provider: who answers, as far as that can be told, not where.
func conventional(kind, name string) string {
	switch {
	case kind == "gemini":
		return "gcp.gemini"
	case kind == "openai" && known[name]:
		return name
	}
	return kind
}
