package fake

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// OTLP imitates a receiver of traces over OTLP/HTTP (opentelemetry.io/docs/specs/otlp/#otlphttp): POST /v1/traces, or a path that ends
// so, takes protobuf, plain or with gzip. A script's key is the bearer token that must be shown; its faults apply to posts. It is an
// http.Handler and safe for concurrent use.
//
// GET /_fake/spans shows the last spans as JSON.
type OTLP struct {
	script  script.Script
	mu      sync.Mutex
	posts   int
	kept    []Span
	bytes   []byte        // of all posts, unpacked
	changed chan struct{} // closed and replaced at every post
}

// A Span is one that the fake receiver has kept.
type Span struct {
	TraceID    string         `json:"trace_id"`
	SpanID     string         `json:"span_id"`
	ParentID   string         `json:"parent_id,omitempty"`
	Name       string         `json:"name"`
	Kind       string         `json:"kind"` // internal, client, server
	Start      time.Time      `json:"start"`
	End        time.Time      `json:"end"`
	Attributes map[string]any `json:"attributes"`
	Links      []string       `json:"links,omitempty"`  // the traces
	Status     string         `json:"status,omitempty"` // error: what is said of it
	Service    string         `json:"service"`
}

// NewOTLP returns a receiver that keeps to the script's key and faults.
func NewOTLP(s script.Script) (*OTLP, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return &OTLP{script: s, changed: make(chan struct{})}, nil
}

// Spans returns what was kept, in the order in which it came; the last MaxSeen posts of it.
func (o *OTLP) Spans() []Span {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.kept)
}

// Bytes returns all that was posted, unpacked.
func (o *OTLP) Bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.bytes)
}

// Await waits until is answers true of all spans so far; false when ctx ends first.
func (o *OTLP) Await(ctx context.Context, is func([]Span) bool) bool {
	return await(ctx, func() ([]Span, <-chan struct{}) {
		o.mu.Lock()
		defer o.mu.Unlock()
		return slices.Clone(o.kept), o.changed
	}, is)
}

const (
	mostTraces = 16 << 20 // bytes of one post, unpacked
	mostSpans  = 10_000   // kept
)

func (o *OTLP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/_fake/"):
		b, _ := json.Marshal(append([]Span{}, o.Spans()...)) // strings, times and numbers always have a JSON form
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b)
		return
	case !strings.HasSuffix(r.URL.Path, "/v1/traces"):
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPost:
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	case o.script.Key != "" && r.Header.Get("Authorization") != "Bearer "+o.script.Key:
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	case r.Header.Get("Content-Type") != "application/x-protobuf":
		http.Error(w, "Unsupported Media Type", http.StatusUnsupportedMediaType)
		return
	}
	raw, err := unpack(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	o.posts++
	n := o.posts
	o.mu.Unlock()
	if fault, _ := o.script.FaultsOf(n, script.Rule{}); fault != nil {
		switch {
		case fault.Kind == script.ResetBeforeHeaders:
			hangUp(w)
			return
		case fault.Kind == script.StallBeforeHeaders:
			<-r.Context().Done()
			return
		case fault.Kind.Refuses():
			if fault.Wait > 0 {
				w.Header().Set("Retry-After", fmt.Sprint(int((fault.Wait+time.Second-1)/time.Second)))
			}
			http.Error(w, http.StatusText(fault.Kind.Status()), fault.Kind.Status())
			return
		}
	}
	var sent tracepb.TracesData // the bytes of an ExportTraceServiceRequest
	if err := proto.Unmarshal(raw, &sent); err != nil {
		http.Error(w, "it is no ExportTraceServiceRequest", http.StatusBadRequest)
		return
	}
	o.keep(raw, spansOf(&sent))
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.WriteHeader(http.StatusOK) // an empty ExportTraceServiceResponse has no bytes
}

func unpack(r *http.Request) ([]byte, error) {
	body := io.Reader(r.Body)
	switch e := r.Header.Get("Content-Encoding"); e {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		body = z
	default:
		return nil, fmt.Errorf("content encoding %q", e)
	}
	return io.ReadAll(io.LimitReader(body, mostTraces))
}

func (o *OTLP) keep(raw []byte, all []Span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.kept = append(o.kept, all...); len(o.kept) > mostSpans {
		o.kept = slices.Clone(o.kept[len(o.kept)-mostSpans:])
	}
	if len(o.bytes) < mostTraces {
		o.bytes = append(o.bytes, raw...)
	}
	close(o.changed)
	o.changed = make(chan struct{})
}

func spansOf(sent *tracepb.TracesData) (all []Span) {
	for _, rs := range sent.GetResourceSpans() {
		service, _ := attributes(rs.GetResource().GetAttributes())["service.name"].(string)
		for _, ss := range rs.GetScopeSpans() {
			for _, x := range ss.GetSpans() {
				s := Span{TraceID: hex.EncodeToString(x.GetTraceId()), SpanID: hex.EncodeToString(x.GetSpanId()), ParentID: hex.EncodeToString(x.GetParentSpanId()),
					Name: x.GetName(), Kind: strings.ToLower(strings.TrimPrefix(x.GetKind().String(), "SPAN_KIND_")), Attributes: attributes(x.GetAttributes()),
					Start: time.Unix(0, int64(x.GetStartTimeUnixNano())).UTC(), End: time.Unix(0, int64(x.GetEndTimeUnixNano())).UTC(), Service: service} //nolint:gosec // times of this century
				for _, l := range x.GetLinks() {
					s.Links = append(s.Links, hex.EncodeToString(l.GetTraceId()))
				}
				if x.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
					s.Status = "error: " + x.GetStatus().GetMessage()
				}
				all = append(all, s)
			}
		}
	}
	return all
}

func attributes(all []*commonpb.KeyValue) map[string]any {
	m := make(map[string]any, len(all))
	for _, kv := range all {
		m[kv.GetKey()] = value(kv.GetValue())
	}
	return m
}

func value(v *commonpb.AnyValue) any {
	switch x := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return x.StringValue
	case *commonpb.AnyValue_IntValue:
		return x.IntValue
	case *commonpb.AnyValue_DoubleValue:
		return x.DoubleValue
	case *commonpb.AnyValue_BoolValue:
		return x.BoolValue
	case *commonpb.AnyValue_ArrayValue:
		list := make([]any, len(x.ArrayValue.GetValues()))
		for i, y := range x.ArrayValue.GetValues() {
			list[i] = value(y)
		}
		return list
	}
	return nil
}
