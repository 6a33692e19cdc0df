package trace

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	mostBatch = 512
	firstWait = time.Second // until a receiver that is away is asked again; it doubles
	mostWait  = time.Minute
	lastWords = 3 * time.Second // for what is left when the program ends
	mostHeld  = 16 << 20        // bytes of all spans that wait: with their content few may be large
)

// A queue keeps ended spans until the receiver has them. It is the SDK's processor of spans.
type queue struct {
	url      string
	headers  map[string]string
	resource *resourcepb.Resource
	every    time.Duration
	fault    func(error)
	config   Config
	client   *http.Client
	exporter *otlptrace.Exporter
	spans    chan sdk.ReadOnlySpan
	full     chan struct{} // capacity 1: there is enough for a request, or something was lost
	held     atomic.Int64  // bytes of what waits, about

	mu      sync.Mutex
	pending int // out of the channel, and not sent yet
	sent    int64
	dropped int64
	failed  error
	since   time.Time
	told    bool // that spans are lost
}

func newQueue(c Config, url string) *queue {
	text := func(key, value string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
	}
	q := &queue{url: url, headers: c.Headers, every: c.Every, fault: c.Fault, config: c,
		resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("service.name", "llm-runner"), text("service.version", c.Version)}},
		// A redirect could carry the headers to another host.
		client: &http.Client{Timeout: c.Patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		spans:  make(chan sdk.ReadOnlySpan, c.Queue), full: make(chan struct{}, 1)}
	q.exporter = otlptrace.NewUnstarted(q)
	return q
}

// OnStart is of the SDK's processor.
func (q *queue) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd takes a span, or counts it as lost. It never waits.
func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	w := weight(s)
	taken := q.held.Add(w) <= mostHeld
	if taken {
		select {
		case q.spans <- s:
			if len(q.spans) < min(mostBatch, cap(q.spans)) {
				return
			}
		default:
			taken = false
		}
	}
	if !taken {
		q.held.Add(-w)
		q.lose(1, nil)
	}
	select {
	case q.full <- struct{}{}:
	default:
	}
}

// weight is about how many bytes a span has in memory.
func weight(s sdk.ReadOnlySpan) int64 {
	n := 1 << 10
	for _, a := range s.Attributes() {
		n += len(a.Value.AsString())
	}
	return int64(n)
}

// over says that a batch is sent, or lost.
func (q *queue) over(batch []sdk.ReadOnlySpan) {
	for _, s := range batch {
		q.held.Add(-weight(s))
	}
}

// Shutdown and ForceFlush are of the SDK's processor; run does both.
func (q *queue) Shutdown(context.Context) error   { return nil }
func (q *queue) ForceFlush(context.Context) error { return nil }

func (q *queue) run(ctx context.Context) error {
	tick := time.NewTicker(q.every)
	defer tick.Stop()
	var batch []sdk.ReadOnlySpan
	var wait time.Duration
	var notBefore time.Time
	for {
		select {
		case <-tick.C:
		case <-q.full:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
			defer cancel()
			for batch = q.take(batch); len(batch) > 0; batch = q.take(nil) {
				if again, err := q.send(last, batch); err != nil {
					q.lose(int64(len(batch)+len(q.spans)), err)
					if again || last.Err() != nil {
						return nil
					}
				}
			}
			return nil
		}
		for time.Now().After(notBefore) {
			if batch = q.take(batch); len(batch) == 0 {
				break
			}
			again, err := q.send(ctx, batch)
			if err == nil {
				q.over(batch)
				batch, wait, notBefore = batch[:0], 0, time.Time{}
				continue
			}
			if ctx.Err() != nil {
				break // the last words have it
			}
			if !again {
				q.lose(int64(len(batch)), err)
				q.over(batch)
				batch = batch[:0]
			}
			wait = min(max(2*wait, min(firstWait, q.every)), mostWait)
			var told *waitError
			if errors.As(err, &told) {
				wait = max(wait, min(told.wait, mostWait))
			}
			notBefore = time.Now().Add(wait)
		}
	}
}

// take adds what waits to a batch, as far as it holds more.
func (q *queue) take(batch []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	defer func() {
		q.mu.Lock()
		q.pending = len(batch)
		q.mu.Unlock()
	}()
	for len(batch) < mostBatch {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		default:
			return batch
		}
	}
	return batch
}

// send has the receiver take a batch; again says that it may be sent once more.
func (q *queue) send(ctx context.Context, batch []sdk.ReadOnlySpan) (again bool, err error) {
	err = q.exporter.ExportSpans(ctx, batch)
	q.mu.Lock()
	if err == nil {
		q.pending = 0
	}
	was, told := q.failed != nil, q.told || q.sent == 0 // what another life of this program told may be over
	if (err != nil) != was {
		q.since = time.Now()
	}
	q.failed = err
	if err == nil {
		q.sent += int64(len(batch))
		q.told = false
	}
	q.mu.Unlock()
	switch {
	case err == nil && told && q.fault != nil:
		q.fault(nil)
	case err != nil && !was:
		q.config.Log.Warn("send traces; spans wait while there is room", "error", err)
	}
	var refused *refusedError
	return !errors.As(err, &refused), err
}

// lose counts spans that nobody will see, and tells of it once. why is nil where the queue was full.
func (q *queue) lose(n int64, why error) {
	q.mu.Lock()
	if q.dropped += n; why != nil {
		q.pending = 0 // it was the batch
	}
	first := !q.told
	q.told = true
	if why == nil {
		if why = q.failed; why == nil {
			why = errors.New("more spans end than the receiver takes")
		}
	}
	q.mu.Unlock()
	if first && q.fault != nil {
		q.fault(why)
	}
}

func (q *queue) stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{Sent: q.sent, Dropped: q.dropped, Waiting: len(q.spans) + q.pending, Fault: q.failed, Since: q.since}
}

// A refusedError says that the receiver will never take what it was sent.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

// A waitError says that the receiver asks to wait.
type waitError struct {
	text string
	wait time.Duration
}

func (e *waitError) Error() string { return e.text }

// Start and Stop are of the exporter's client.
func (q *queue) Start(context.Context) error { return nil }
func (q *queue) Stop(context.Context) error  { return nil }

// UploadTraces posts spans as the protocol says (opentelemetry.io/docs/specs/otlp/#otlphttp). The message is written as TracesData, whose
// bytes are those of an ExportTraceServiceRequest: the package with that type brings all of gRPC. What OTEL_RESOURCE_ATTRIBUTES says does
// not count: what is told of this program is here.
func (q *queue) UploadTraces(ctx context.Context, all []*tracepb.ResourceSpans) error {
	for _, x := range all {
		x.Resource = q.resource
	}
	plain, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: all})
	if err != nil {
		return &refusedError{"write spans: " + err.Error()}
	}
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	if _, err := z.Write(plain); err != nil {
		return &refusedError{"write spans: " + err.Error()}
	}
	if err := z.Close(); err != nil {
		return &refusedError{"write spans: " + err.Error()}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, q.url, &body)
	if err != nil {
		return &refusedError{"post traces: " + err.Error()}
	}
	for name, value := range q.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	req.Header.Set("User-Agent", "llm-runner/"+q.config.Version)
	resp, err := q.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("post traces to %s: %w", q.url, err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) //nolint:errcheck // so that the connection is used again
	text := fmt.Sprintf("post traces to %s: %d %s", q.url, resp.StatusCode, http.StatusText(resp.StatusCode))
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout: // the protocol's list of what passes
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &waitError{text, time.Duration(seconds) * time.Second}
	case http.StatusUnauthorized, http.StatusForbidden:
		return &refusedError{text + ": look at traces.headers"}
	}
	if resp.StatusCode/100 != 2 {
		return &refusedError{text}
	}
	return nil
}
