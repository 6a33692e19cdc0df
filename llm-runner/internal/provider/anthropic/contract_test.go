package anthropic_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/anthropic"
	"home.arpa/lab/llm-runner/internal/provider/providertest"
)

func open(t *testing.T, sc providertest.Scenario) providertest.Subject {
	url, up := providertest.Serve(t, "anthropic", sc)
	return providertest.Subject{Provider: anthropic.New(anthropic.Config{URL: url, Key: providertest.Key, Timeout: sc.Silence}), Upstream: up}
}

func TestContract(t *testing.T) { providertest.Run(t, providertest.Suite{Open: open}) }

// serve returns a provider of a server that answers with h.
func serve(t *testing.T, h http.HandlerFunc) *anthropic.Provider {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return anthropic.New(anthropic.Config{Name: "claude", URL: srv.URL, Key: providertest.Key})
}

func ask(words string) llm.Request {
	return llm.Request{Model: "claude-sonnet-4-5", Messages: []llm.Message{llm.Says(llm.User, words)}}
}

func TestAStreamAndAMessageInOnePieceAgree(t *testing.T) {
	for _, r := range []script.Rule{
		{Text: "one two  three\n"},
		{Thinking: "hm hm", Text: "so", Signature: "EqX"},
		{Text: "look", Calls: []script.Call{{ID: "a", Name: "f", Arguments: `{"x":[1,2,{"y":"z"}]}`}, {ID: "b", Name: "g", Arguments: `{}`}}},
		{Text: "cut", Finish: llm.FinishLength}, {Text: "no", Finish: llm.FinishRefusal}, {Text: "free", NoUsage: true},
	} {
		var got [2]llm.Answer
		for i, faults := range [][]script.Fault{nil, {{Kind: script.JSON200}}} {
			sub := open(t, providertest.Scenario{Script: script.Script{Reply: []script.Rule{r}, Faults: faults}})
			var err error
			if got[i], err = llm.Collect(sub.Provider.Stream(t.Context(), ask("hello"))); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(got[0], got[1]) {
			t.Errorf("streamed %+v\nwhole    %+v", got[0], got[1])
		}
	}
}

func TestLimitsComeFirstAndNameTheModel(t *testing.T) {
	limits := []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 2}, {Dimension: llm.InputTokensPerMinute, Max: 50000}}
	sub := open(t, providertest.Scenario{Script: script.Script{Limits: limits}})
	for ev, err := range sub.Provider.Stream(t.Context(), ask("hello")) {
		if err != nil {
			t.Fatal(err)
		}
		if len(ev.Limits) != 3 || ev.Limits[0].Remaining != llm.Known(1) || ev.Limits[0].Model != "claude-sonnet-4-5" {
			t.Errorf("the first event has %+v", ev.Limits)
		}
		break
	}
	_, _ = llm.Collect(sub.Provider.Stream(t.Context(), ask("hello")))
	_, err := llm.Collect(sub.Provider.Stream(t.Context(), ask("hello")))
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Quota || e.Until.Before(time.Now().Add(20*time.Second)) || e.Until.After(time.Now().Add(32*time.Second)) {
		t.Fatalf("the third of two requests a minute: %+v, want to come back in half a minute", err)
	}
	if l := e.Limits[0]; !l.Exhausted || l.Dimension != llm.RequestsPerMinute || l.Model != "claude-sonnet-4-5" {
		t.Errorf("limits %+v", e.Limits)
	}
}

func TestModelsOfAllPages(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Anthropic-Version") != anthropic.Version || r.Header.Get("X-Api-Key") != providertest.Key {
			t.Errorf("headers %v", r.Header)
		}
		if r.URL.Query().Get("after_id") == "" {
			_, _ = io.WriteString(w, `{"data":[{"type":"model","id":"claude-opus-5","display_name":"Claude Opus 5","created_at":"2026-05-01T00:00:00Z","max_input_tokens":1000000}],"has_more":true,"first_id":"claude-opus-5","last_id":"claude-opus-5"}`)
			return
		}
		_, _ = io.WriteString(w, `{"data":[{"type":"model","id":"claude-haiku-4-5"}],"has_more":false,"last_id":"claude-haiku-4-5"}`)
	})
	got, err := p.Models(t.Context())
	want := []llm.ModelInfo{{Name: "claude-opus-5", Context: 1000000}, {Name: "claude-haiku-4-5"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	p = serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "<html>") })
	if _, err := p.Models(t.Context()); llm.KindOf(err) != llm.Unavailable {
		t.Errorf("a web page: %v", err)
	}
}

func TestForwardLeavesTheBytesAlone(t *testing.T) {
	const body = `{"model":"m",  "unknown":[1.0]}`
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		h := r.Header
		if string(got) != body || h.Get("X-Api-Key") != providertest.Key || h.Get("Authorization") != "" || h.Get("Cookie") != "" ||
			h.Get("Anthropic-Beta") != "b1" || h.Get("Anthropic-Version") != anthropic.Version {
			t.Errorf("sent %s with %v", got, h)
		}
		if r.URL.Path != "/v1/messages" {
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"type":"error","error":{"type":"rate_limit_error","message":"slow, `+providertest.Key+`"}}`)
			return
		}
		w.Header().Set("X-Own", "1")
		_, _ = io.WriteString(w, "data: raw \n\n")
	})
	caller := http.Header{"Anthropic-Beta": {"b1"}, "Authorization": {"Bearer callers"}, "X-Api-Key": {"callers"}, "Cookie": {"c"}, "Content-Type": {"application/json"}}
	resp, err := p.Forward(t.Context(), "/v1/messages", caller, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, _ := io.ReadAll(resp.Body); string(got) != "data: raw \n\n" || resp.Header.Get("X-Own") != "1" {
		t.Errorf("got %q, %v", got, resp.Header)
	}
	_, err = p.Forward(t.Context(), "/v1/messages/count_tokens", caller, []byte(body))
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Quota || e.Status != 429 || e.Header.Get("Retry-After") != "9" || e.Until.IsZero() || len(e.Limits) == 0 || len(e.Body) == 0 {
		t.Errorf("got %+v", err)
	}
	if e.Provider != "claude" || strings.Contains(e.Error()+string(e.Body), providertest.Key) {
		t.Errorf("got %v, body %s", e, e.Body)
	}
}

func TestConfigIsValidated(t *testing.T) {
	if err := (anthropic.Config{}).Validate(); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
	err := (anthropic.Config{URL: "api.anthropic.com", Timeout: -1}).Validate()
	if err == nil || !strings.Contains(err.Error(), "url:") || !strings.Contains(err.Error(), "timeout:") {
		t.Errorf("got %v, want both faults", err)
	}
}

func TestACancelledListIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := serve(t, func(http.ResponseWriter, *http.Request) {})
	if _, err := p.Models(ctx); llm.KindOf(err) != llm.Cancelled {
		t.Errorf("got %v", err)
	}
}
