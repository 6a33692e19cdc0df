package jobs

import (
	"context"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/trace"
)

// One is held and released, one is held and cancelled, one fails and is tried again; and all are counted meanwhile.
func TestEveryWayOfAJobIsInItsTrace(t *testing.T) {
	f, err := fake.NewOTLP(script.Script{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f)
	defer srv.Close()
	if traces, err = trace.Open(trace.Config{Endpoint: srv.URL, Sample: 1, Every: 10 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	defer func() { traces = nil }()
	ctx, stop := context.WithCancel(t.Context())
	sending := make(chan struct{})
	tracer := traces
	go func() { defer close(sending); tracer.Run(ctx) }() //nolint:errcheck // it returns nil
	defer func() { stop(); <-sending }()

	s, p := newService(t, hold)
	released, cancelled := submit(t, s, Spec{Prompt: "a"}), submit(t, s, Spec{Prompt: "b"})
	reach(t, s, released.ID, Held)
	reach(t, s, cancelled.ID, Held)
	depths, err := s.Depths(t.Context())
	if err != nil || len(depths) != 3 || !slices.ContainsFunc(depths, func(d Depth) bool {
		return d.State == Held && d.WaitsFor == "davas" && d.Jobs == 2 && time.Since(d.Oldest) < time.Minute
	}) || !slices.ContainsFunc(depths, func(d Depth) bool { return d.State == Queued && d.Jobs == 0 }) {
		t.Errorf("%+v, %v", depths, err)
	}
	p.mu.Lock()
	p.answer = echo
	p.mu.Unlock()
	if _, err := s.Release(t.Context(), released.ID); err != nil {
		t.Fatal(err)
	}
	reach(t, s, released.ID, Done)
	for range 2 { // the second has nothing to cancel
		if _, err := s.Cancel(t.Context(), cancelled.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Retry(t.Context(), cancelled.ID); err != nil {
		t.Fatal(err)
	}
	reach(t, s, cancelled.ID, Done)

	waiting, end := context.WithTimeout(t.Context(), 20*time.Second)
	defer end()
	roots := func(all []fake.Span) (some []fake.Span) {
		for _, x := range all {
			if x.Name == "job text" {
				some = append(some, x)
			}
		}
		return some
	}
	if !f.Await(waiting, func(all []fake.Span) bool { return len(roots(all)) >= 3 }) {
		t.Fatalf("%+v", f.Spans())
	}
	all := f.Spans()
	below := map[string][]string{}
	for _, x := range all {
		below[x.ParentID] = append(below[x.ParentID], x.Name)
	}
	for id, want := range map[int64][][]string{
		released.ID:  {{"held", "queued", "queued", "run", "run"}},
		cancelled.ID: {{"held", "queued", "run"}, {"queued", "run"}},
	} {
		var of []fake.Span
		for _, x := range roots(all) {
			if x.Attributes[trace.JobID] == id {
				of = append(of, x)
			}
		}
		if len(of) != len(want) {
			t.Fatalf("job %d has %d roots: %+v", id, len(of), of)
		}
		for i, root := range of {
			got := below[root.SpanID]
			slices.Sort(got)
			if !slices.Equal(got, want[i]) {
				t.Errorf("job %d, trace %d: %q, not %q", id, i, got, want[i])
			}
		}
		if len(of) == 2 && (of[0].TraceID == of[1].TraceID || !slices.Contains(of[1].Links, of[0].TraceID) || of[0].Status != "error: cancelled") {
			t.Errorf("%+v", of)
		}
	}
}
