// Package trace tells an OpenTelemetry receiver (Langfuse, Grafana Tempo, Jaeger) what happened from a question to its answer:
// spans over OTLP/HTTP with the GenAI conventions (github.com/open-telemetry/semantic-conventions-genai). What is asked and answered is
// left out unless somebody wants it, secrets always.
//
// Spans hang below the one in the context, so a place that is worth a span is one line (Start), and costs nothing where nobody traces. Only
// who begins work holds a Tracer. A receiver that is away costs nothing either: spans wait in a queue that is bounded, and those that it
// does not hold are counted.
package trace

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
)

// Config is what a Tracer may be told. The zero value traces nothing.
type Config struct {
	// Endpoint is where spans go: the URL of an OTLP/HTTP receiver. Without a path, or with one that does not end in /v1/traces, that is
	// added (opentelemetry.io/docs/specs/otel/protocol/exporter: an endpoint for all signals). "": nothing is traced.
	Endpoint string
	Headers  map[string]string // of each request: what the receiver wants to know us by. Secrets
	// Content says that questions and answers are told too: without what no cloud provider may see, and without secrets.
	Content bool
	// Sample is the part of traces that is told, 0 to 1. A caller's own choice counts more.
	Sample  float64
	Version string   // of this program
	Hide    []string // secrets that no span may hold
	// Fault is told when spans begin to be lost, with why, and with nil once the receiver takes them again; nil: nobody is. It must
	// not block.
	Fault func(error)
	Log   *slog.Logger // nil: slog.Default()

	// Queue is how many spans wait at most; 0 means 2048. Every is how long they wait for company; 0 means 2 s. Patience is how long the
	// receiver may take for one request; 0 means 10 s.
	Queue           int
	Every, Patience time.Duration
}

// Validate names all faults, each with its key.
func (c Config) Validate() error {
	var faults []error
	if u, err := url.Parse(c.Endpoint); c.Endpoint != "" {
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			faults = append(faults, fmt.Errorf("endpoint: %q is not an http or https URL: write for example http://127.0.0.1:4318", c.Endpoint))
		case u.User != nil || u.RawQuery != "" || u.Fragment != "":
			faults = append(faults, errors.New("endpoint: holds a user name or a query: put what the receiver wants into traces.headers"))
		}
	}
	if c.Sample < 0 || c.Sample > 1 {
		faults = append(faults, fmt.Errorf("sample: %g is not between 0 (nothing) and 1 (everything)", c.Sample))
	}
	return errors.Join(faults...)
}

// A Tracer begins spans and sends them. It is safe for concurrent use. A nil Tracer takes everything and does nothing.
type Tracer struct {
	config Config
	sdk    otel.Tracer
	queue  *queue
	hidden *strings.Replacer
}

// Open returns the Tracer of a configuration; nil where it names no receiver. Nothing is sent before Run.
func Open(c Config) (*Tracer, error) {
	if err := c.Validate(); err != nil || c.Endpoint == "" {
		return nil, err
	}
	if c.Queue == 0 {
		c.Queue = 2048
	}
	if c.Every == 0 {
		c.Every = 2 * time.Second
	}
	if c.Patience == 0 {
		c.Patience = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	u, _ := url.Parse(c.Endpoint) // it has been checked
	if !strings.HasSuffix(u.Path, "/v1/traces") {
		u.Path = path.Join("/", u.Path, "v1/traces")
	}
	t := &Tracer{config: c, queue: newQueue(c, u.String()), hidden: replacer(c.Hide, c.Headers)}
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sampler{sdk.ParentBased(sdk.TraceIDRatioBased(c.Sample))}),
		sdk.WithIDGenerator(ids{}),
		sdk.WithRawSpanLimits(sdk.SpanLimits{AttributeValueLengthLimit: mostValue, AttributeCountLimit: 64, EventCountLimit: 16, LinkCountLimit: 8, AttributePerEventCountLimit: 8, AttributePerLinkCountLimit: 8}),
		sdk.WithSpanProcessor(t.queue),
		sdk.WithResource(resource.Empty()),
	)
	t.sdk = provider.Tracer("home.arpa/lab/llm-runner", otel.WithInstrumentationVersion(c.Version))
	return t, nil
}

// mostValue bounds one value of a span, in bytes of UTF-8 or a little more: what is asked may be a book.
const mostValue = 64 << 10

// replacer takes secrets out of what a span says.
func replacer(hide []string, headers map[string]string) *strings.Replacer {
	var pairs []string
	add := func(secret string) {
		if len(secret) >= 4 {
			pairs = append(pairs, secret, "(hidden)")
		}
	}
	for _, secret := range hide {
		add(secret)
	}
	for _, value := range headers {
		add(value)
		if _, token, ok := strings.Cut(value, " "); ok { // "Bearer TOKEN"
			add(token)
		}
	}
	return strings.NewReplacer(pairs...)
}

// Probe asks the receiver of a configuration to take nothing, which it does where address and headers are right.
func Probe(ctx context.Context, c Config) error {
	t, err := Open(c)
	if err != nil || t == nil {
		return err
	}
	return t.queue.UploadTraces(ctx, nil)
}

// Run sends spans until ctx ends, then what is left, for a moment at most.
func (t *Tracer) Run(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.queue.run(ctx)
}

// Stats is how sending goes.
type Stats struct {
	Sent    int64 // spans that the receiver has taken
	Dropped int64 // that were lost: the queue was full, or the receiver refused them
	Waiting int   // in the queue
	Fault   error // why the last request failed; nil: it did not
	Since   time.Time
}

// Stats of a Tracer; ok is false where nothing is traced.
func (t *Tracer) Stats() (s Stats, ok bool) {
	if t == nil {
		return Stats{}, false
	}
	return t.queue.stats(), true
}

// Content says that questions and answers are told.
func (t *Tracer) Content() bool { return t != nil && t.config.Content }

// An origin is in the context of a span whose identity is given: that of work which outlives a process.
type origin struct {
	trace   otel.TraceID
	span    otel.SpanID
	sampled bool
}

type originKey struct{}

// ids makes identities: those of an origin in the context, else by chance.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (otel.TraceID, otel.SpanID) {
	if o, ok := ctx.Value(originKey{}).(origin); ok {
		return o.trace, o.span
	}
	return newTrace(), newSpan()
}

func (ids) NewSpanID(ctx context.Context, _ otel.TraceID) otel.SpanID {
	if o, ok := ctx.Value(originKey{}).(origin); ok {
		return o.span
	}
	return newSpan()
}

func newTrace() (id otel.TraceID) {
	for !id.IsValid() {
		rand.Read(id[:]) //nolint:errcheck // it never fails
	}
	return id
}

func newSpan() (id otel.SpanID) {
	for !id.IsValid() {
		rand.Read(id[:]) //nolint:errcheck // it never fails
	}
	return id
}

// sampler keeps what an origin's first life decided; others follow their parent, or chance.
type sampler struct{ sdk.Sampler }

func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	o, ok := p.ParentContext.Value(originKey{}).(origin)
	if !ok {
		return s.Sampler.ShouldSample(p)
	}
	r := sdk.SamplingResult{Decision: sdk.Drop, Tracestate: otel.SpanContextFromContext(p.ParentContext).TraceState()}
	if o.sampled {
		r.Decision = sdk.RecordAndSample
	}
	return r
}

// chosen says whether a trace without a parent is told, by the same rule as the sampler of Open.
func (t *Tracer) chosen(id otel.TraceID) bool {
	switch {
	case t.config.Sample >= 1:
		return true
	case t.config.Sample <= 0:
		return false
	}
	// As in the SDK: of the last eight bytes the upper 63 bits (go.opentelemetry.io/otel/sdk/trace, traceIDRatioSampler).
	return binary.BigEndian.Uint64(id[8:16])>>1 < uint64(t.config.Sample*(1<<63))
}

// Incoming returns ctx below the span of a caller who says which it is (traceparent, www.w3.org/TR/trace-context). Where the header is
// missing or wrong, ctx is returned as it is.
func (t *Tracer) Incoming(ctx context.Context, h http.Header) context.Context {
	if t == nil {
		return ctx
	}
	return t.Within(ctx, h.Get("Traceparent"))
}

// Within returns ctx below the span that a traceparent names, of this process or another one. Where it names none, ctx is returned as it is.
func (t *Tracer) Within(ctx context.Context, traceparent string) context.Context {
	if t == nil {
		return ctx
	}
	sc, ok := parse(traceparent)
	if !ok {
		return ctx
	}
	ctx = otel.ContextWithRemoteSpanContext(ctx, sc)
	return context.WithValue(ctx, spanKey{}, &Span{tracer: t, span: otel.SpanFromContext(ctx)})
}

// Origin makes the identity of work that outlives this process, as a traceparent to be kept with it: Within has spans hang below it, and
// Tell tells it once it has ended. It is part of the trace of ctx where there is one; from is then the span in ctx. "" where nothing is traced.
func (t *Tracer) Origin(ctx context.Context) (self, from string) {
	if t == nil {
		return "", ""
	}
	parent := otel.SpanContextFromContext(ctx)
	c := otel.SpanContextConfig{TraceID: parent.TraceID(), SpanID: newSpan(), TraceFlags: parent.TraceFlags()}
	if !parent.IsValid() {
		c.TraceID, c.TraceFlags = newTrace(), 0
		if t.chosen(c.TraceID) {
			c.TraceFlags = otel.FlagsSampled
		}
		return format(otel.NewSpanContext(c)), ""
	}
	return format(otel.NewSpanContext(c)), format(parent)
}

// Anew makes the identity of the same work done once more, in a trace of its own that is linked to the one before.
func (t *Tracer) Anew(before string) (self, from string) {
	self, _ = t.Origin(context.Background())
	if self == "" {
		return "", ""
	}
	return self, before
}

// A Telling is a span that is told when it is over, with its times: an origin, or a part of one that was nobody's call, as a hold is.
type Telling struct {
	Op       Op
	Of       string
	Self     string // as Origin made it; "": it has no identity that others know
	From     string // a traceparent: the span above it, or of another trace what led to it
	Began    time.Time
	Ended    time.Time // zero: now
	Fault    string    // the kind of what went wrong; "": nothing did
	Describe func(s *Span)
}

// Tell tells a span that is over.
func (t *Tracer) Tell(x Telling) {
	if t == nil {
		return
	}
	ctx := context.Background()
	var opts []otel.SpanStartOption
	self, own := parse(x.Self)
	from, below := parse(x.From)
	switch {
	case below && (!own || from.TraceID() == self.TraceID()):
		ctx = otel.ContextWithRemoteSpanContext(ctx, from)
	case below:
		opts = append(opts, otel.WithLinks(otel.Link{SpanContext: from, Attributes: []attribute.KeyValue{attribute.String("llm_runner.link", "led to this")}}))
	case !own:
		return // it belongs to nothing
	}
	if own {
		ctx = context.WithValue(ctx, originKey{}, origin{self.TraceID(), self.SpanID(), self.IsSampled()})
	}
	_, s := t.begin(ctx, x.Op, x.Of, append(opts, otel.WithTimestamp(x.Began))...)
	if s.On() {
		if x.Describe != nil {
			x.Describe(s)
		}
		if x.Fault != "" {
			s.fail(x.Fault)
		}
	}
	if x.Ended.IsZero() {
		x.Ended = time.Now()
	}
	s.span.End(otel.WithTimestamp(x.Ended))
}

// parse reads a traceparent: version, trace, parent, flags (www.w3.org/TR/trace-context, 3.2). Versions to come may be longer.
func parse(s string) (sc otel.SpanContext, ok bool) {
	s = strings.TrimSpace(s)
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" || s[:2] == "00" && len(s) != 55 || len(s) > 55 && s[55] != '-' || s != strings.ToLower(s) {
		return sc, false
	}
	id, err1 := otel.TraceIDFromHex(s[3:35])
	span, err2 := otel.SpanIDFromHex(s[36:52])
	flag, err3 := otel.TraceIDFromHex(strings.Repeat("0", 28) + s[53:55] + "01") // any two digits of hex
	if _, err4 := otel.TraceIDFromHex(s[:2] + strings.Repeat("1", 30)); err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return sc, false
	}
	return otel.NewSpanContext(otel.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: otel.TraceFlags(flag[14]) & otel.FlagsSampled, Remote: true}), true
}

func format(sc otel.SpanContext) string {
	return "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-" + (sc.TraceFlags() & otel.FlagsSampled).String()
}
