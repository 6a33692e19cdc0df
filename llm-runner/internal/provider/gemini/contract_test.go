package gemini_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/gemini"
	"home.arpa/lab/llm-runner/internal/provider/providertest"
)

func open(t *testing.T, sc providertest.Scenario) providertest.Subject {
	url, up := providertest.Serve(t, "gemini", sc)
	return providertest.Subject{Provider: gemini.New(gemini.Config{URL: url, Key: providertest.Key, Timeout: sc.Silence}), Upstream: up}
}

func TestContract(t *testing.T) {
	providertest.Run(t, providertest.Suite{
		Open:     open,
		Statuses: map[script.FaultKind]int{script.BadKey: 400, script.Overloaded: 503}, // API_KEY_INVALID; there is no 529
	})
}

// Gemini 3 refuses what it did not sign, so its conversations must pass, too.
func TestContractOfGemini3(t *testing.T) {
	providertest.Run(t, providertest.Suite{
		Open: open, Model: "gemini-3.8-flash",
		Statuses: map[script.FaultKind]int{script.BadKey: 400, script.Overloaded: 503},
	})
}

// serve returns a provider of a server that answers with h.
func serve(t *testing.T, h http.HandlerFunc) *gemini.Provider {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return gemini.New(gemini.Config{Name: "google", URL: srv.URL, Key: providertest.Key})
}

func ask(words string) llm.Request {
	return llm.Request{Model: "gemini-3.8-flash", Messages: []llm.Message{llm.Says(llm.User, words)}}
}

func TestAStreamAndAnAnswerInOnePieceAgree(t *testing.T) {
	for _, r := range []script.Rule{
		{Text: "one two  three\n"},
		{Thinking: "hm hm", Text: "so", Signature: "Q2lR"},
		{Text: "look", Calls: []script.Call{{Name: "f", Arguments: `{"x":[1,2,{"y":"z"}]}`}, {Name: "g", Arguments: `{}`}}},
		{Text: "cut", Finish: llm.FinishLength}, {Text: "no", Finish: llm.FinishRefusal}, {Text: "free", NoUsage: true},
	} {
		var got [2]llm.Answer
		for i, faults := range [][]script.Fault{nil, {{Kind: script.JSON200}}} {
			sub := open(t, providertest.Scenario{Script: script.Script{Reply: []script.Rule{r}, Faults: faults}})
			var err error
			if got[i], err = llm.Collect(sub.Provider.Stream(t.Context(), ask("hello"))); err != nil {
				t.Fatal(err)
			}
			for _, p := range got[i].Message.Parts {
				if p.Call != nil {
					p.Call.ID = "" // made up each time
				}
			}
		}
		if !reflect.DeepEqual(got[0], got[1]) {
			t.Errorf("streamed %+v\nwhole    %+v", got[0], got[1])
		}
	}
}

func TestTheKeyIsInTheHeaderAndNotInTheURL(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Goog-Api-Key") != providertest.Key || r.URL.RequestURI() != "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse" {
			t.Errorf("asked %s with %v", r.URL.RequestURI(), r.Header)
		}
		_, _ = io.WriteString(w, "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n")
	})
	if _, err := llm.Collect(p.Stream(t.Context(), ask("hello"))); err != nil {
		t.Error(err)
	}
}

func TestForeignSignaturesAreLeftOutOnce(t *testing.T) {
	refused := 0
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "foreign") {
			refused++
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":{"code":400,"message":"Invalid thought signature.","status":"INVALID_ARGUMENT"}}`)
			return
		}
		_, _ = io.WriteString(w, `{"candidates":[{"content":{"parts":[{"text":"fine"}]},"finishReason":"STOP"}]}`)
	})
	for _, part := range []llm.Part{{Thinking: &llm.Thinking{Signature: "foreign"}}, {Call: &llm.ToolCall{ID: "1", Name: "f", Signature: "foreign"}}} {
		refused = 0
		req := ask("q")
		req.Messages = append(req.Messages, llm.Message{Role: llm.Assistant, Parts: []llm.Part{{Text: "x"}, part}}, llm.Says(llm.User, "and?"))
		if a, err := llm.Collect(p.Stream(t.Context(), req)); err != nil || a.Message.Text() != "fine" || refused != 1 {
			t.Errorf("got %q, %v after %d refusals", a.Message.Text(), err, refused)
		}
	}
	if _, err := llm.Collect(p.Stream(t.Context(), ask("foreign"))); llm.KindOf(err) != llm.BadRequest || refused != 2 {
		t.Errorf("got %v after %d refusals", err, refused)
	}
}

func TestTheFakeMakesVectorsOfTheNamedModelsLength(t *testing.T) {
	for model, want := range map[string]int{"gemini-embedding-001": 3072, "nobody-knows-it": 64} {
		sub := open(t, providertest.Scenario{})
		got, err := sub.Provider.(llm.Embedder).Embed(t.Context(), llm.EmbedRequest{Model: model, Texts: []string{"a"}})
		if err != nil || len(got.Vectors) != 1 || len(got.Vectors[0]) != want {
			t.Errorf("%s: %d vectors, %v, want one of %d dimensions", model, len(got.Vectors), err, want)
		}
	}
}

func TestEmbedInBatches(t *testing.T) {
	sub := open(t, providertest.Scenario{Script: script.Script{Dimensions: 8}})
	texts := make([]string, 230)
	for i := range texts {
		texts[i] = fmt.Sprintf("text number %d", i)
	}
	got, err := sub.Provider.(llm.Embedder).Embed(t.Context(), llm.EmbedRequest{Model: "gemini-embedding-001", Texts: texts})
	if err != nil || len(got.Vectors) != len(texts) {
		t.Fatalf("%d vectors, %v", len(got.Vectors), err)
	}
	for i, v := range got.Vectors {
		if !reflect.DeepEqual(v, script.Vector(texts[i], 8)) {
			t.Fatalf("vector %d is not that of its text", i)
		}
	}
	if n := len(sub.Upstream.Requests()); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
	got, err = sub.Provider.(llm.Embedder).Embed(t.Context(), llm.EmbedRequest{Model: "gemini-embedding-001", Texts: texts[:1], Dimensions: 4})
	if err != nil || len(got.Vectors[0]) != 4 {
		t.Errorf("got %+v, %v, want four dimensions", got, err)
	}
	if got, err = sub.Provider.(llm.Embedder).Embed(t.Context(), llm.EmbedRequest{Model: "gemini-embedding-001"}); err != nil || got.Vectors != nil || got.Usage != (llm.Usage{}) {
		t.Errorf("nothing became %+v, %v", got, err)
	}
}

func TestEmbedTellsUsageAndFaults(t *testing.T) {
	answer := `{"embeddings":[{"values":[1,2]}],"usageMetadata":{"promptTokenCount":3}}`
	p := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, answer) })
	got, err := p.Embed(t.Context(), llm.EmbedRequest{Model: "m", Texts: []string{"a"}})
	if err != nil || got.Usage.Input != llm.Known(3) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err = p.Embed(t.Context(), llm.EmbedRequest{Model: "m", Texts: []string{"a", "b"}}); llm.KindOf(err) != llm.Unavailable || !strings.Contains(err.Error(), "1 vectors for 2 texts") {
		t.Errorf("one vector for two texts: %v", err)
	}
	answer = "<html>"
	if _, err = p.Embed(t.Context(), llm.EmbedRequest{Model: "m", Texts: []string{"a"}}); llm.KindOf(err) != llm.Unavailable {
		t.Errorf("a web page: %v", err)
	}
}

func TestModelsOfAllPages(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("pageToken") == "" {
			_, _ = io.WriteString(w, `{"models":[{"name":"models/gemini-3.8-flash","inputTokenLimit":1048576,"supportedGenerationMethods":["generateContent","countTokens"]},
				{"name":"models/imagen-4.0","supportedGenerationMethods":["predict"]}],"nextPageToken":"a b"}`)
			return
		}
		if r.URL.Query().Get("pageToken") != "a b" {
			t.Errorf("asked %s", r.URL)
		}
		_, _ = io.WriteString(w, `{"models":[{"name":"models/gemini-embedding-001","inputTokenLimit":2048,"supportedGenerationMethods":["embedContent"]}]}`)
	})
	got, err := p.Models(t.Context())
	want := []llm.ModelInfo{{Name: "gemini-3.8-flash", Context: 1048576}, {Name: "gemini-embedding-001", Context: 2048, Embeds: true}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Models(ctx); llm.KindOf(err) != llm.Cancelled {
		t.Errorf("got %v", err)
	}
}

func TestErrorsAreNamedAndHideTheKey(t *testing.T) {
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": 400, "message": "API key not valid: " + providertest.Key}})
	})
	_, err := llm.Collect(p.Stream(t.Context(), ask("hello")))
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Auth || e.Provider != "google" || e.Model != "gemini-3.8-flash" || strings.Contains(e.Error()+string(e.Body), providertest.Key) {
		t.Errorf("got %+v", err)
	}
}

func TestConfigIsValidated(t *testing.T) {
	if err := (gemini.Config{}).Validate(); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
	err := (gemini.Config{URL: "generativelanguage.googleapis.com", Timeout: -1}).Validate()
	if err == nil || !strings.Contains(err.Error(), "url:") || !strings.Contains(err.Error(), "timeout:") {
		t.Errorf("got %v, want both faults", err)
	}
}

func TestADailyQuotaIsHeldUntilMidnightInCalifornia(t *testing.T) {
	sub := open(t, providertest.Scenario{Script: script.Script{Limits: []script.Limit{{Dimension: llm.RequestsPerDay, Max: 1}}}})
	if _, err := llm.Collect(sub.Provider.Stream(t.Context(), ask("one"))); err != nil {
		t.Fatal(err)
	}
	_, err := llm.Collect(sub.Provider.Stream(t.Context(), ask("two")))
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Quota {
		t.Fatalf("got %v", err)
	}
	zone, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		t.Fatal(err)
	}
	if clock := e.Until.In(zone).Format(time.TimeOnly); clock != "00:00:00" || e.Limits[0].Max != llm.Known(1) || e.Limits[0].Model != "gemini-3.8-flash" {
		t.Errorf("until %s in California, limits %+v", clock, e.Limits)
	}
}

// An alias has the quota of the model that it stands for, which is what the refusal names.
func TestAQuotaIsThatOfTheAliasToo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"quota","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[
			{"quotaMetric":"generate_content_free_tier_requests","quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaDimensions":{"model":"gemini-2.5-flash"},"quotaValue":"20"}]}]}}`)
	}))
	defer server.Close()
	p := gemini.New(gemini.Config{URL: server.URL, Key: "k"})
	for model, want := range map[string][]string{"gemini-flash-latest": {"gemini-2.5-flash", "gemini-flash-latest"}, "gemini-2.5-flash": {"gemini-2.5-flash"}} {
		_, err := llm.Collect(p.Stream(t.Context(), llm.Request{Model: model, Messages: ask("one").Messages}))
		var e *llm.Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		var of []string
		for _, l := range e.Limits {
			if of = append(of, l.Model); l.Dimension != llm.RequestsPerDay || !l.Exhausted {
				t.Errorf("%+v", l)
			}
		}
		if !slices.Equal(of, want) {
			t.Errorf("%s: the quota of %q", model, of)
		}
	}
}
