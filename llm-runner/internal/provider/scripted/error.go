package scripted

import (
	"context"
	"errors"
	"fmt"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// kinds are what the fakes' refusals mean.
var kinds = map[script.FaultKind]llm.Kind{
	script.RateLimited: llm.Quota, script.RateNoHint: llm.Quota, script.RateWrongHint: llm.Quota,
	script.Spend:      llm.Spend,
	script.BadRequest: llm.BadRequest, script.TooLarge: llm.BadRequest,
	script.BadKey: llm.Auth, script.Forbidden: llm.Auth,
	script.NoModel:          llm.NotFound,
	script.CapacityExceeded: llm.Overload, script.Busy: llm.Overload, script.Overloaded: llm.Overload,
	script.Internal: llm.Unavailable, script.BadGateway: llm.Unavailable, script.GatewayTimeout: llm.Unavailable,
}

// refusal is the error of a fault that comes instead of an answer.
func (p *Provider) refusal(model string, f script.Fault) *llm.Error {
	e := &llm.Error{Kind: kinds[f.Kind], Provider: p.name, Model: model, Message: f.Message}
	if e.Message == "" {
		e.Message = fmt.Sprintf("the script refuses with %s", f.Kind)
		if f.Kind == script.NoModel {
			e.Message = fmt.Sprintf("the script has no model %q", model)
		}
	}
	if f.Wait > 0 && f.Kind != script.RateNoHint {
		e.Until = time.Now().Add(f.Wait).UTC()
	}
	if e.Kind == llm.Quota {
		e.Limits = []llm.Limit{{Dimension: llm.Overall, Model: model, Exhausted: true, Reset: e.Until}}
	}
	return e
}

// broke is the error of a fault that comes in the way of an answer.
func (p *Provider) broke(model string, fault script.FaultKind, started bool) *llm.Error {
	return &llm.Error{Kind: llm.Unavailable, Provider: p.name, Model: model, Started: started, Message: fmt.Sprintf("stream broke off: the script says %s", fault)}
}

// ended is the error of a caller's context that ended.
func (p *Provider) ended(ctx context.Context, model string, started bool) *llm.Error {
	e := &llm.Error{Kind: llm.Cancelled, Provider: p.name, Model: model, Started: started, Message: "cancelled by the caller", Err: context.Cause(ctx)}
	if errors.Is(e.Err, context.DeadlineExceeded) {
		e.Kind, e.Message = llm.Unavailable, "the caller's deadline passed"
	}
	return e
}
