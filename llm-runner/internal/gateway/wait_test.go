package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/test/enginetest"
)

// opens is a member that refuses with a rate limit until a moment after its first request, and then answers.
func opens(after time.Duration) (m route.Member, asked *atomic.Int64) {
	asked = new(atomic.Int64)
	var at time.Time
	var once sync.Once
	m = route.Member{Name: "p", Kind: "scripted", Cloud: true, Provider: source(func(context.Context, llm.Request) iter.Seq2[llm.Event, error] {
		return func(yield func(llm.Event, error) bool) {
			once.Do(func() { at = time.Now().Add(after) })
			asked.Add(1)
			if time.Now().Before(at) {
				yield(llm.Event{}, &llm.Error{Kind: llm.Quota, Provider: "p", Message: "used up", Until: at})
				return
			}
			yield(llm.Event{Text: "at last", Finish: llm.FinishStop}, nil)
		}
	})}
	return m, asked
}

func TestAHeldRequestWaitsAsLongAsItsCallerDoes(t *testing.T) {
	for _, x := range []struct {
		name   string
		opens  time.Duration
		header []string
		status int
		asked  int64
	}{
		{"it says how long", 300 * time.Millisecond, []string{"Prefer", "wait=8"}, 200, 2},
		{"a library says how long it reads", 300 * time.Millisecond, []string{"X-Stainless-Read-Timeout", "16.0"}, 200, 2},
		{"it does not wait", 300 * time.Millisecond, []string{"Prefer", "wait=0"}, 429, 1},
		{"it does not say", 300 * time.Millisecond, nil, 200, 2},
		{"the limit takes longer", 90 * time.Second, []string{"Prefer", "wait=8"}, 429, 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			m, asked := opens(x.opens)
			l := openLab(t, []route.Member{m}, func(c *gateway.Config, _ *route.Config) { c.Wait = 5 * time.Second })
			r := l.post(chat, whole, x.header...)
			if r.err != nil || r.StatusCode != x.status || asked.Load() != x.asked {
				t.Errorf("%v, %d requests: %s", r, asked.Load(), r.body)
			}
			if s, _ := strconv.Atoi(r.Header.Get("Retry-After")); x.opens > time.Minute && (s < 80 || s > 90) {
				t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
			}
		})
	}
}

func TestAHeldStreamIsKeptAliveWhileItWaits(t *testing.T) {
	m, _ := opens(300 * time.Millisecond)
	l := openLab(t, []route.Member{m}, func(c *gateway.Config, _ *route.Config) { c.KeepAlive = 50 * time.Millisecond })
	r := l.post(chat, streamed, "Prefer", "wait=8")
	if r.err != nil || r.StatusCode != 200 || !strings.HasPrefix(r.body, ": waiting\n\n") || !strings.Contains(r.body, "at last") || !strings.HasSuffix(r.body, "data: [DONE]\n\n") {
		t.Errorf("%v: %s", r.err, r.body)
	}
}

func TestWhoIsHeldForAMachineIsAnsweredWhenItIsBack(t *testing.T) {
	var up atomic.Bool
	m := says("p", llm.Event{Text: "here", Finish: llm.FinishStop})
	m.Probe = func(context.Context) error {
		if up.Load() {
			return nil
		}
		return errors.New("no route to host")
	}
	l := openLab(t, []route.Member{m})
	l.router.Survey(t.Context())
	if r := l.post(chat, whole); r.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%d: %s", r.StatusCode, r.body)
	}
	came := make(chan got)
	go func() { came <- l.post(chat, whole, "Prefer", "wait=9") }()
	up.Store(true)
	l.router.Survey(t.Context())
	if r := wait(t, "the answer", came); r.err != nil || r.StatusCode != 200 {
		t.Errorf("%v: %s", r.err, r.body)
	}
}

func TestACallerWhoLeavesWhileItIsHeldAsksNobodyAnyMore(t *testing.T) {
	m, asked := opens(time.Second)
	l := openLab(t, []route.Member{m})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan got)
	go func() { gone <- l.do(ctx, chat, whole, "Prefer", "wait=9") }()
	eventually(t, "the first refusal", func() bool { return asked.Load() == 1 })
	cancel()
	<-gone
	if rows := l.rows(); len(rows) != 1 || asked.Load() != 1 { // rows waits for the handler
		t.Errorf("%d rows, %d requests", len(rows), asked.Load())
	}
}

// openAsync is a lab whose requests can become jobs.
func openAsync(t *testing.T, m route.Member) (*lab, *jobs.Service) {
	late := &gateway.Config{}
	l := openLab(t, []route.Member{m}, func(c *gateway.Config, _ *route.Config) { late = c })
	log := slog.New(slog.DiscardHandler)
	e := enginetest.On(t, l.db, engine.Config{Log: log})
	service, err := jobs.New(context.Background(), l.db, e, l.router, jobs.Config{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Launch(); err != nil {
		t.Fatal(err)
	}
	c := *late
	c.Router, c.Jobs = l.router, service
	l.server.Config.Handler = gateway.New(c)
	t.Cleanup(func() { _ = e.Close(5 * time.Second) })
	return l, service
}

func TestARequestThatPrefersItBecomesAJob(t *testing.T) {
	call := &llm.CallDelta{ID: "c1", Name: "look", Arguments: `{"at":"sky"}`}
	l, service := openAsync(t, says("p", llm.Event{Call: call}, llm.Event{Finish: llm.FinishTools, Usage: &llm.Usage{Input: llm.Known(3), Output: llm.Known(4)}}))
	body := `{"model":"p","stream":true,"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"what do you see?"}],
		"tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}]}`
	r := l.post(chat, body, "Prefer", "respond-async", "Idempotency-Key", "k1")
	var told struct {
		Job int64
		URL string
	}
	if r.err != nil || r.StatusCode != http.StatusAccepted || r.Header.Get("Preference-Applied") != "respond-async" ||
		json.Unmarshal([]byte(r.body), &told) != nil || r.Header.Get("Location") != told.URL || told.Job == 0 {
		t.Fatalf("%v: %s", r.err, r.body)
	}
	// Sent again with time to wait, it is the same job and the whole answer.
	r = l.post(chat, body, "Prefer", "respond-async, wait=9", "Idempotency-Key", "k1")
	var answer struct {
		Object  string
		Model   string
		Choices []struct {
			Message struct {
				ToolCalls []struct {
					Function struct{ Name, Arguments string }
				} `json:"tool_calls"`
			}
			Finish string `json:"finish_reason"`
		}
		Usage struct {
			Output int `json:"completion_tokens"`
		}
	}
	if r.err != nil || r.StatusCode != 200 || json.Unmarshal([]byte(r.body), &answer) != nil || answer.Object != "chat.completion" ||
		len(answer.Choices) != 1 || answer.Choices[0].Message.ToolCalls[0].Function.Name != "look" || answer.Choices[0].Finish != "tool_calls" ||
		answer.Usage.Output != 4 || r.Header.Get("X-Runner-Provider") != "p" || r.Header.Get("Location") != told.URL {
		t.Errorf("%v: %s", r.err, r.body)
	}
	j, err := service.Job(t.Context(), told.Job)
	if err != nil || j.State != jobs.Done || j.Title != "what do you see?" || len(j.Response) == 0 {
		t.Errorf("%v: %+v", err, j)
	}
}

func TestARequestThatCannotBeAJobIsRefusedWithTheCure(t *testing.T) {
	l, service := openAsync(t, says("p"))
	for body, want := range map[string]string{
		`{"messages":[{"role":"user","content":"x"}],"n":2}`: "n: a job cannot do this",
		`{"messages":[]}`: "messages: must hold at least one message",
		`{"messages":[{"role":"user","content":"x"}],"logprobs":true}`: "logprobs: a job cannot do this",
	} {
		if r := l.post(chat, body, "Prefer", "respond-async"); r.StatusCode != http.StatusBadRequest || !strings.Contains(r.body, want) {
			t.Errorf("%d: %s", r.StatusCode, r.body)
		}
	}
	if all, err := service.Jobs(t.Context(), jobs.Filter{}); err != nil || len(all) != 0 {
		t.Errorf("%d jobs, %v", len(all), err)
	}
}
