package trace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// receiver serves a fake receiver, and runs a Tracer that sends to it until stop.
func receiver(t *testing.T, s script.Script, c Config) (f *fake.OTLP, tracer *Tracer, stop func()) {
	t.Helper()
	f, err := fake.NewOTLP(s)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	if c.Endpoint = srv.URL; c.Every == 0 {
		c.Every = 10 * time.Millisecond
	}
	if tracer, err = Open(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { tracer.Run(ctx) }) //nolint:errcheck // it returns nil
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(stop)
	return f, tracer, stop
}

func spans(t *testing.T, f *fake.OTLP, n int) []fake.Span {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []fake.Span
	if !f.Await(ctx, func(all []fake.Span) bool { got = all; return len(all) >= n }) {
		t.Fatalf("%d spans came, not %d: %+v", len(got), n, got)
	}
	return got
}

func named(t *testing.T, all []fake.Span, name string) fake.Span {
	t.Helper()
	i := slices.IndexFunc(all, func(s fake.Span) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("there is no span %q in %+v", name, all)
	}
	return all[i]
}

func TestSpansHangTogetherAndSayWhatTheConventionSays(t *testing.T) {
	f, tr, stop := receiver(t, script.Script{Key: "tok-planted"}, Config{Sample: 1, Version: "1", Headers: map[string]string{"Authorization": "Bearer tok-planted"}})
	ctx, turn := tr.Begin(t.Context(), Turn, "")
	inner, s := Start(ctx, Chat, "llama with tok-planted")
	if s.Set(Provider, "groq"); inner == ctx {
		t.Error("the span is not in the context")
	}
	s.SetUsage(llm.Usage{Input: llm.Known(7), Output: llm.Known(0)})
	s.SetCost(llm.Known(1500))
	s.SetFinish(llm.FinishStop)
	s.Record([]llm.Message{llm.Says(llm.User, "the question")}).Add(llm.Event{Text: "the answer"})
	s.Done(&llm.Error{Kind: llm.Quota, Message: "you said: the question"})
	turn.Done(nil)
	stop()
	all := spans(t, f, 2)
	parent, child := named(t, all, "turn"), named(t, all, "chat llama with (hidden)")
	if child.ParentID != parent.SpanID || child.TraceID != parent.TraceID || parent.ParentID != "" || child.Kind != "client" || parent.Kind != "internal" || child.Service != "llm-runner" {
		t.Errorf("parent %+v, child %+v", parent, child)
	}
	for key, want := range map[string]any{"gen_ai.operation.name": "chat", Provider: "groq", "gen_ai.usage.input_tokens": int64(7), "gen_ai.usage.output_tokens": int64(0),
		Cost: 0.0015, ErrorType: "quota"} {
		if child.Attributes[key] != want {
			t.Errorf("%s is %v, not %v", key, child.Attributes[key], want)
		}
	}
	if _, told := child.Attributes["gen_ai.usage.reasoning.output_tokens"]; told || child.Status != "error: quota" {
		t.Errorf("%+v", child)
	}
	if b := string(f.Bytes()); strings.Contains(b, "planted") || strings.Contains(b, "question") || strings.Contains(b, "the answer") {
		t.Error("a secret or content was sent")
	}
	if st, ok := tr.Stats(); !ok || st.Sent != 2 || st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
}

func TestContentIsToldWithoutWhatIsPrivateOrSecret(t *testing.T) {
	f, tr, stop := receiver(t, script.Script{}, Config{Sample: 1, Content: true, Hide: []string{`sk-"<planted>`}})
	_, s := tr.Begin(t.Context(), Chat, "m")
	r := s.Record([]llm.Message{llm.Says(llm.User, `what is the key sk-"<planted>?`)})
	r.Add(llm.Event{Text: `It is sk-"<planted>.`})
	r.Done(llm.FinishStop)
	s.Done(nil)
	_, s = tr.Begin(t.Context(), Chat, "private")
	r = s.Record([]llm.Message{{Role: llm.User, Parts: []llm.Part{{Text: "note: buried at dawn", Private: true}, {Text: "so where?"}}}})
	r.Add(llm.Event{Text: "buried, you say"})
	r.Done(llm.FinishStop)
	s.Done(nil)
	_, s = tr.Begin(t.Context(), Chat, "tools")
	r = s.Record([]llm.Message{{Role: llm.Tool, Parts: []llm.Part{{Result: &llm.ToolResult{ID: "1", Text: "buried too"}}}}})
	r.Add(llm.Event{Text: "buried as well"})
	r.Done(llm.FinishStop)
	s.Done(nil)
	stop()
	all := spans(t, f, 3)
	a := named(t, all, "chat m").Attributes
	if in := a["gen_ai.input.messages"]; in != `[{"role":"user","parts":[{"type":"text","content":"what is the key (hidden)?"}]}]` {
		t.Errorf("asked: %v", in)
	}
	if out := a["gen_ai.output.messages"]; out != `[{"role":"assistant","parts":[{"type":"text","content":"It is (hidden)."}],"finish_reason":"stop"}]` {
		t.Errorf("answered: %v", out)
	}
	if b := string(f.Bytes()); strings.Contains(b, "buried") || strings.Contains(b, "planted") || !strings.Contains(b, "so where?") {
		t.Errorf("sent: %q", b)
	}
}

func TestWorkThatOutlivesAProcessIsOneTrace(t *testing.T) {
	f, tr, stop := receiver(t, script.Script{}, Config{Sample: 1})
	self, from := tr.Origin(t.Context())
	if from != "" {
		t.Errorf("it came from %q", from)
	}
	for range 2 { // lives
		ctx := tr.Within(context.Background(), self)
		_, s := Start(ctx, Run, "")
		s.Done(nil)
	}
	began := time.Now().Add(-time.Hour)
	tr.Tell(Telling{Op: Hold, From: self, Began: began, Ended: began.Add(time.Minute)})
	tr.Tell(Telling{Op: Job, Of: "text", Self: self, Began: began, Fault: "quota"})
	again, _ := tr.Origin(t.Context())
	tr.Tell(Telling{Op: Job, Of: "again", Self: again, From: self, Began: began})
	stop()
	all := spans(t, f, 5)
	root := named(t, all, "job text")
	for _, s := range all[:3] {
		if s.TraceID != root.TraceID || s.ParentID != root.SpanID {
			t.Errorf("%+v does not hang below %+v", s, root)
		}
	}
	if root.ParentID != "" || root.End.Sub(root.Start) < time.Hour || root.Status != "error: quota" || !strings.Contains(self, root.SpanID) {
		t.Errorf("%+v", root)
	}
	if next := named(t, all, "job again"); next.TraceID == root.TraceID || next.ParentID != "" || !slices.Contains(next.Links, root.TraceID) {
		t.Errorf("%+v", next)
	}
}

func TestACallersTraceIsGoneOnWithAndItsChoiceCounts(t *testing.T) {
	f, tr, stop := receiver(t, script.Script{}, Config{Sample: 0})
	const caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ctx := tr.Incoming(t.Context(), http.Header{"Traceparent": {caller}})
	self, from := tr.Origin(ctx)
	ctx, s := tr.Begin(ctx, Request, "POST /v1/chat/completions")
	_, below := Start(ctx, Chat, "m")
	below.Done(nil)
	s.Done(nil)
	tr.Tell(Telling{Op: Job, Self: self, From: from, Began: time.Now()})
	_, other := tr.Begin(t.Context(), Turn, "nobody asked for") // of which nothing is told
	other.Done(nil)
	silent := tr.Incoming(t.Context(), http.Header{"Traceparent": {caller[:53] + "00"}})
	_, s = Start(silent, Chat, "silent")
	s.Done(nil)
	stop()
	all := spans(t, f, 3)
	if len(all) != 3 || from != caller {
		t.Errorf("%d spans from %q: %+v", len(all), from, all)
	}
	for _, s := range all {
		if s.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" {
			t.Errorf("%+v", s)
		}
	}
	if s := named(t, all, "POST /v1/chat/completions"); s.ParentID != "00f067aa0ba902b7" || s.Kind != "server" {
		t.Errorf("%+v", s)
	}
	if s := named(t, all, "job"); s.ParentID != "00f067aa0ba902b7" {
		t.Errorf("%+v", s)
	}
}

func TestTraceparents(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for s, want := range map[string]bool{
		good: true, " " + good + " ": true, good[:53] + "00": true, "01" + good[2:] + "-more": true,
		"": false, good[:54]: false, good + "-more": false, "ff" + good[2:]: false, "0x" + good[2:]: false,
		strings.ToUpper(good): false, strings.Replace(good, "4bf92f3577b34da6a3ce929d0e0e4736", strings.Repeat("0", 32), 1): false,
		strings.Replace(good, "00f067aa0ba902b7", strings.Repeat("0", 16), 1): false, good[:53] + "0g": false, good[:52] + "_01": false,
	} {
		if sc, ok := parse(s); ok != want || ok && !strings.HasPrefix(format(sc)[2:], strings.TrimSpace(s)[2:52]) {
			t.Errorf("%q: %v", s, ok)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Fuzz(func(t *testing.T, s string) {
		if sc, ok := parse(s); ok {
			if again, ok := parse(format(sc)); !ok || !again.Equal(sc) {
				t.Errorf("%q is not the same when it is written", s)
			}
		}
	})
}

func TestAReceiverThatIsAwayLosesWhatTheQueueDoesNotHoldAndTellsOnce(t *testing.T) {
	told := make(chan error, 10)
	down := script.Script{Faults: []script.Fault{{Kind: "503", On: []int{1, 2, 3, 4}}}}
	f, tr, stop := receiver(t, down, Config{Sample: 1, Queue: 4, Fault: func(err error) { told <- err }})
	for tr.queue.stats().Fault == nil {
		_, s := tr.Begin(t.Context(), Turn, "")
		s.Done(nil)
	}
	before, _ := tr.Stats()
	if before.Waiting == 0 {
		t.Errorf("nothing waits: %+v", before)
	}
	for range 600 { // more than a batch and the queue hold
		_, s := tr.Begin(t.Context(), Turn, "")
		s.Done(nil)
	}
	spans(t, f, 4)
	after, _ := tr.Stats()
	if after.Dropped <= before.Dropped {
		t.Errorf("%+v, then %+v", before, after)
	}
	if err := <-told; err == nil || !strings.Contains(err.Error(), "503") && !strings.Contains(err.Error(), "more spans") {
		t.Errorf("told: %v", err)
	}
	if err := <-told; err != nil {
		t.Errorf("told a second time: %v", err)
	}
	stop()
	if st, _ := tr.Stats(); st.Fault != nil || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
}

func TestAReceiverThatRefusesIsNotAskedAgainWithTheSame(t *testing.T) {
	told := make(chan error, 10)
	f, tr, _ := receiver(t, script.Script{Faults: []script.Fault{{Kind: "400", On: []int{1}}}}, Config{Sample: 1, Fault: func(err error) { told <- err }})
	_, s := tr.Begin(t.Context(), Turn, "first")
	s.Done(nil)
	if err := <-told; err == nil {
		t.Error("nothing was told")
	}
	_, s = tr.Begin(t.Context(), Turn, "second")
	s.Done(nil)
	if all := spans(t, f, 1); len(all) != 1 || all[0].Name != "turn second" {
		t.Errorf("%+v", all)
	}
	if err := <-told; err != nil {
		t.Errorf("told: %v", err)
	}
}

func TestTheEndDoesNotWaitForAReceiverThatStalls(t *testing.T) {
	_, tr, stop := receiver(t, script.Script{Faults: []script.Fault{{Kind: script.StallBeforeHeaders}}}, Config{Sample: 1, Patience: 50 * time.Millisecond, Every: time.Hour})
	_, s := tr.Begin(t.Context(), Turn, "")
	s.Done(nil)
	began := time.Now()
	stop()
	if took := time.Since(began); took > lastWords {
		t.Errorf("it took %s", took)
	}
	if st, _ := tr.Stats(); st.Dropped != 1 {
		t.Errorf("%+v", st)
	}
}

func TestTheEnvironmentSaysNothing(t *testing.T) {
	for name, value := range map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "room=planted", "OTEL_SERVICE_NAME": "planted", "OTEL_TRACES_SAMPLER": "always_off",
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1", "OTEL_EXPORTER_OTLP_HEADERS": "x=planted", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} {
		t.Setenv(name, value)
	}
	f, tr, stop := receiver(t, script.Script{}, Config{Sample: 1})
	_, s := tr.Begin(t.Context(), Turn, "")
	s.Set(Asked, "m")
	s.Set(Rule, "default")
	s.Done(nil)
	stop()
	if all := spans(t, f, 1); len(all[0].Attributes) != 2 || all[0].Service != "llm-runner" || strings.Contains(string(f.Bytes()), "planted") {
		t.Errorf("%+v", all)
	}
}

func TestAProbeSaysWhetherTheReceiverTakesSpans(t *testing.T) {
	f, err := fake.NewOTLP(script.Script{Key: "tok-planted"})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f)
	defer srv.Close()
	if err := Probe(t.Context(), Config{Endpoint: srv.URL, Headers: map[string]string{"Authorization": "Bearer tok-planted"}}); err != nil {
		t.Error(err)
	}
	if err := Probe(t.Context(), Config{Endpoint: srv.URL}); err == nil || !strings.Contains(err.Error(), "401 Unauthorized: look at traces.headers") {
		t.Error(err)
	}
}

func TestFaultsOfAConfiguration(t *testing.T) {
	for endpoint, want := range map[string]string{"localhost:4318": "endpoint", "ftp://x": "endpoint", "http://a:b@x": "endpoint", "http://x?key=1": "endpoint"} {
		if err := (Config{Endpoint: endpoint, Sample: 2}).Validate(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "sample") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	for endpoint, want := range map[string]string{"http://x:1": "http://x:1/v1/traces", "http://x/api/public/otel/": "http://x/api/public/otel/v1/traces", "http://x/v1/traces": "http://x/v1/traces"} {
		if tr, err := Open(Config{Endpoint: endpoint}); err != nil || tr.queue.url != want {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	if tr, err := Open(Config{}); tr != nil || err != nil {
		t.Error(tr, err)
	}
}

func TestKinds(t *testing.T) {
	for want, err := range map[string]error{"": nil, "quota": &llm.BusyError{Kind: llm.Quota}, "auth": &llm.Error{Kind: llm.Auth}, "cancelled": context.Canceled,
		"timeout": context.DeadlineExceeded, "_OTHER": errors.New("words that say what was asked")} {
		if got := KindOf(err); got != want {
			t.Errorf("%v: %q, not %q", err, got, want)
		}
	}
}

// nowhere is what a place costs where nobody traces.
func nowhere(ctx context.Context, u llm.Usage, err error) {
	_, s := Start(ctx, Chat, "model")
	s.Set(Provider, "groq")
	s.SetInt(JobID, 7)
	s.SetUsage(u)
	s.SetTotal(u)
	s.SetCost(llm.Known(7))
	s.SetSeconds(Line, time.Second)
	s.SetFinish(llm.FinishStop)
	s.Record(nil).Done("")
	s.Done(err)
}

func TestNobodyTracesForNothing(t *testing.T) {
	ctx, u := context.WithValue(t.Context(), originKey{}, 1), llm.Usage{Input: llm.Known(1)}
	if n := testing.AllocsPerRun(100, func() { nowhere(ctx, u, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkOff(b *testing.B) {
	ctx, u := context.WithValue(b.Context(), originKey{}, 1), llm.Usage{Input: llm.Known(1)}
	b.ReportAllocs()
	for b.Loop() {
		nowhere(ctx, u, nil)
	}
}

func BenchmarkOn(b *testing.B) {
	tr, err := Open(Config{Endpoint: "http://127.0.0.1:1", Sample: 1}) // nobody sends: the queue is full
	if err != nil {
		b.Fatal(err)
	}
	ctx, s := tr.Begin(b.Context(), Turn, "")
	defer s.Done(nil)
	u := llm.Usage{Input: llm.Known(1)}
	b.ReportAllocs()
	for b.Loop() {
		nowhere(ctx, u, nil)
	}
}

// What a model was asked may be a book: a span has JSON all the same, with the first message and the newest ones.
func TestContentThatIsTooLongIsStillJSON(t *testing.T) {
	var long []message
	for i := range 40 {
		long = append(long, message{Role: "user", Parts: []part{{Type: "text", Content: fmt.Sprintf("number %d ", i) + strings.Repeat("\u00fc\"", 10_000)}}})
	}
	for name, all := range map[string][]message{"many": long, "one": long[:1], "short": {{Role: "user", Parts: []part{{Type: "text", Content: "Hello"}}}}} {
		var back []message
		text := fitting(all)
		if err := json.Unmarshal([]byte(text), &back); err != nil || len(text) > mostValue {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
		if name == "many" && (!strings.HasPrefix(back[0].Parts[0].Content, "number 0 ") || !strings.Contains(back[1].Parts[0].Content, "messages left out") ||
			!strings.HasPrefix(back[len(back)-1].Parts[0].Content, "number 39 ") || !strings.HasSuffix(back[0].Parts[0].Content, "bytes left out)")) {
			t.Errorf("%d messages: %.80s ... %.80s", len(back), back[0].Parts[0].Content, back[1].Parts[0].Content)
		}
	}
}

// Spans with content wait by their bytes, not by their number alone, and what was sent makes room again.
func TestWhatWaitsIsBoundedInBytes(t *testing.T) {
	f, tr, _ := receiver(t, script.Script{Faults: []script.Fault{{Kind: "503", On: []int{1}}}}, Config{Sample: 1, Content: true, Every: 2 * time.Second})
	for range 600 {
		_, s := tr.Begin(t.Context(), Turn, "")
		s.Set("gen_ai.input.messages", strings.Repeat("x", mostValue))
		s.Done(nil)
	}
	st, _ := tr.Stats()
	if st.Waiting > mostHeld/mostValue || st.Dropped < 50 || tr.queue.held.Load() > mostHeld {
		t.Errorf("%+v, %d bytes", st, tr.queue.held.Load())
	}
	spans(t, f, 600-int(st.Dropped))
	for deadline := time.Now().Add(30 * time.Second); tr.queue.held.Load() != 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := tr.queue.held.Load(); n != 0 {
		t.Errorf("%d bytes are held of nothing", n)
	}
}
