package trace

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	otel "go.opentelemetry.io/otel/trace"

	"home.arpa/lab/llm-runner/internal/llm"
)

// An Op is a kind of span.
type Op int

// The kinds there are. Those with a name of the GenAI conventions are what receivers count tokens by.
const (
	Chat       Op = iota // one attempt to have a provider answer: chat MODEL
	ChatInside           // the same by a provider in this process, which may ask others itself
	Embeddings           // one attempt to have vectors made
	Tool                 // one call of a tool: execute_tool NAME
	Retrieval            // a search in the library: retrieval COLLECTION
	Agent                // one life of an agent's run: invoke_agent NAME
	Turn                 // an answer in a conversation
	Job                  // a job, from its submission to its end
	Run                  // one life of a job, in one process
	Step                 // a step of a job
	Queue                // a job waits for a worker
	Hold                 // a job is held
	Graph                // a run of a graph
	Node                 // a node of it
	Request              // a program asks: POST /v1/chat/completions
)

var ops = [...]struct {
	name  string
	genAI bool
	kind  otel.SpanKind
}{
	Chat:       {"chat", true, otel.SpanKindClient},
	ChatInside: {"chat", true, otel.SpanKindInternal},
	Embeddings: {"embeddings", true, otel.SpanKindClient},
	Tool:       {"execute_tool", true, otel.SpanKindInternal},
	Retrieval:  {"retrieval", true, otel.SpanKindInternal},
	Agent:      {"invoke_agent", true, otel.SpanKindInternal},
	Turn:       {"turn", false, otel.SpanKindInternal},
	Job:        {"job", false, otel.SpanKindInternal},
	Run:        {"run", false, otel.SpanKindInternal},
	Step:       {"step", false, otel.SpanKindInternal},
	Queue:      {"queued", false, otel.SpanKindInternal},
	Hold:       {"held", false, otel.SpanKindInternal},
	Graph:      {"graph", false, otel.SpanKindInternal},
	Node:       {"node", false, otel.SpanKindInternal},
	Request:    {"", false, otel.SpanKindServer},
}

// The keys of what spans say. Those of gen_ai are the convention's.
const (
	Provider     = "gen_ai.provider.name"
	Model        = "gen_ai.request.model"
	Answered     = "gen_ai.response.model"
	Finish       = "gen_ai.response.finish_reasons"
	FirstChunk   = "gen_ai.response.time_to_first_chunk" // seconds
	Conversation = "gen_ai.conversation.id"
	AgentName    = "gen_ai.agent.name"
	ToolName     = "gen_ai.tool.name"
	ToolCall     = "gen_ai.tool.call.id"
	Source       = "gen_ai.data_source.id"
	Query        = "gen_ai.retrieval.query.text" // content

	Name      = "llm_runner.provider" // as it is configured
	Asked     = "llm_runner.asked_model"
	Rule      = "llm_runner.route.rule"
	Why       = "llm_runner.route.why"
	Purpose   = "llm_runner.purpose"
	Outcome   = "llm_runner.outcome"
	Cost      = "llm_runner.cost_usd"
	Input     = "llm_runner.input_tokens"  // of all that is below
	Output    = "llm_runner.output_tokens" // of all that is below
	Line      = "llm_runner.line_seconds"  // waited in the provider's line
	Withheld  = "llm_runner.withheld_parts"
	JobID     = "llm_runner.job.id"
	JobType   = "llm_runner.job.type"
	Title     = "llm_runner.job.title" // content
	State     = "llm_runner.state"
	StepN     = "llm_runner.step"
	RunN      = "llm_runner.run"
	TurnID    = "llm_runner.turn.id"
	GraphRun  = "llm_runner.graph.run"
	AgentRun  = "llm_runner.agent.run"
	WaitsFor  = "llm_runner.hold.waits_for"
	HoldKind  = "llm_runner.hold.kind"
	Dimension = "llm_runner.hold.dimension"
	Until     = "llm_runner.hold.until"
	Hits      = "llm_runner.retrieval.hits"
	Policy    = "llm_runner.tool.policy"
	ErrorType = "error.type"
)

type spanKey struct{}

// A Span is something under way. A nil Span takes everything and does nothing.
type Span struct {
	tracer *Tracer
	span   otel.Span
}

// Start begins a span below the one in ctx: its name is the kind and what it is of. Where nobody traces, it returns ctx and nil, and
// costs nothing.
func Start(ctx context.Context, op Op, of string) (context.Context, *Span) {
	s, _ := ctx.Value(spanKey{}).(*Span)
	if s == nil {
		return ctx, nil
	}
	return s.tracer.begin(ctx, op, of)
}

// Begin begins a span below the one in ctx, or the first of a new trace.
func (t *Tracer) Begin(ctx context.Context, op Op, of string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	return t.begin(ctx, op, of)
}

func (t *Tracer) begin(ctx context.Context, op Op, of string, opts ...otel.SpanStartOption) (context.Context, *Span) {
	o := ops[op]
	name := o.name
	if of != "" {
		if name != "" {
			name += " "
		}
		name += t.hidden.Replace(of)
	}
	ctx, span := t.sdk.Start(ctx, name, append(opts, otel.WithSpanKind(o.kind))...)
	s := &Span{tracer: t, span: span}
	if o.genAI {
		s.Set("gen_ai.operation.name", o.name)
	}
	return context.WithValue(ctx, spanKey{}, s), s
}

// On says that what the span is told goes anywhere.
func (s *Span) On() bool { return s != nil && s.span.IsRecording() }

// Content says that the span may be told what was asked and answered.
func (s *Span) Content() bool { return s.On() && s.tracer.config.Content }

// Set says one thing; "" says nothing.
func (s *Span) Set(key, value string) {
	if s.On() && value != "" {
		s.span.SetAttributes(attribute.String(key, s.tracer.hidden.Replace(value)))
	}
}

// SetInt says a number.
func (s *Span) SetInt(key string, n int64) {
	if s.On() {
		s.span.SetAttributes(attribute.Int64(key, n))
	}
}

// SetSeconds says how long something took; 0 says nothing.
func (s *Span) SetSeconds(key string, d time.Duration) {
	if s.On() && d > 0 {
		s.span.SetAttributes(attribute.Float64(key, d.Seconds()))
	}
}

// SetCost says what it cost, where that is known.
func (s *Span) SetCost(microUSD llm.Count) {
	if n, known := microUSD.Get(); known && s.On() {
		s.span.SetAttributes(attribute.Float64(Cost, float64(n)/1e6))
	}
}

// SetUsage says the tokens of one attempt, as far as they are known.
func (s *Span) SetUsage(u llm.Usage) {
	if !s.On() {
		return
	}
	for _, x := range []struct {
		key string
		n   llm.Count
	}{
		{"gen_ai.usage.input_tokens", u.Input}, {"gen_ai.usage.output_tokens", u.Output}, {"gen_ai.usage.cache_read.input_tokens", u.CachedInput},
		{"gen_ai.usage.cache_creation.input_tokens", u.CacheWrite}, {"gen_ai.usage.reasoning.output_tokens", u.Thinking},
	} {
		if n, known := x.n.Get(); known {
			s.SetInt(x.key, n)
		}
	}
}

// SetTotal says the tokens of all that is below, under names that nobody adds up a second time.
func (s *Span) SetTotal(u llm.Usage) {
	for _, x := range []struct {
		key string
		n   llm.Count
	}{{Input, u.Input}, {Output, u.Output}} {
		if n, known := x.n.Get(); known {
			s.SetInt(x.key, n)
		}
	}
}

// SetFinish says why an answer ended.
func (s *Span) SetFinish(f llm.Finish) {
	if s.On() && f != "" {
		s.span.SetAttributes(attribute.StringSlice(Finish, []string{string(f)}))
	}
}

// Done ends the span. Of an error it says the kind, never the words: they may repeat what was asked.
func (s *Span) Done(err error) {
	if s == nil {
		return
	}
	if err != nil && s.On() {
		s.fail(KindOf(err))
	}
	s.span.End()
}

// fail marks the span as failed. Work that has to wait is no failure of it.
func (s *Span) fail(kind string) {
	s.span.SetAttributes(attribute.String(ErrorType, kind))
	s.span.SetStatus(codes.Error, kind)
}

// KindOf is an error in a word.
func KindOf(err error) string {
	var busy *llm.BusyError
	var e *llm.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &busy) && busy.Kind != "":
		return string(busy.Kind)
	case errors.As(err, &e) && e.Kind != "":
		return string(e.Kind)
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "_OTHER" // the convention's word for what has none
}
