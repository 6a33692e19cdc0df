// Package providertest is the contract that every llm.Provider keeps, as one suite of tests. It speaks to the provider and,
// where there is one, looks at the fake upstream behind it; what the upstream does is a script.Script, the same language
// that `llm-runner fake --script` reads.
//
//	func TestContract(t *testing.T) {
//		providertest.Run(t, providertest.Suite{
//			Open: func(t *testing.T, sc providertest.Scenario) providertest.Subject {
//				url, up := providertest.Serve(t, "openai", sc)
//				p := openai.New(openai.Config{URL: url + "/v1", Key: providertest.Key, Timeout: sc.Silence})
//				return providertest.Subject{Provider: p, Upstream: up}
//			},
//		})
//	}
package providertest

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// Key is the key that scenarios which need one accept. It must never be seen in an error.
const Key = "sk-test-7f3a9c0d1e"

// Model is the model that the suite asks for.
const Model = "fake-small"

// A Suite says how to run the contract.
type Suite struct {
	// Open returns the provider for one scenario. It registers its own clean-up with t.
	Open func(t *testing.T, sc Scenario) Subject
	// Lacks are the features that this provider does not have by nature; their tests are skipped.
	Lacks []Feature
	// Model is what is asked for; "" means the package's Model.
	Model string
	// Statuses are the HTTP statuses by which this upstream refuses, where they are not the fault's own.
	Statuses map[script.FaultKind]int
}

// A Scenario is what the provider's surroundings do during one test.
type Scenario struct {
	Script script.Script
	// Silence is the longest silence the provider is to bear; 0 its default.
	Silence time.Duration
	// Dead: nobody listens at the upstream's address.
	Dead bool
}

// A Subject is a provider under test.
type Subject struct {
	Provider llm.Provider
	Upstream *fake.Server // nil where there is none, as for the scripted provider; what only it can tell is then not checked
}

// A Feature is something that not every provider has.
type Feature string

const (
	HTTP       Feature = "http"       // there is an upstream, and so a connection that can break in the middle of bytes
	Thinking   Feature = "thinking"   // reasoning is told apart from the answer
	Tools      Feature = "tools"      // calls
	Parallel   Feature = "parallel"   // several calls in one answer
	Images     Feature = "images"     //
	Structured Feature = "structured" // JSON by schema
	NoUsage    Feature = "no_usage"   // an answer may come without usage
	Spend      Feature = "spend"      // money can run out
	Limits     Feature = "limits"     // tells rate limits in refusals
	Keys       Feature = "keys"       // an upstream that wants a key
	ReadsHTML  Feature = "reads_html" // refuses a 200 that is not its protocol (as opposed to never seeing it)
)

// Serve starts a fake upstream of the given kind for sc and returns its URL without a path.
func Serve(t *testing.T, kind string, sc Scenario) (string, *fake.Server) {
	t.Helper()
	if sc.Dead {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return "http://" + l.Addr().String(), nil
	}
	up, err := fake.New(kind, sc.Script)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(up)
	t.Cleanup(srv.Close)
	return srv.URL, up
}

// Run runs the contract.
func Run(t *testing.T, s Suite) {
	if s.Model == "" {
		s.Model = Model
	}
	t.Run("answers", s.answers)
	t.Run("refusals", s.refusals)
	t.Run("breaks", s.breaks)
	t.Run("disguises", s.disguises)
	t.Run("stops", s.stops)
	t.Run("concurrent use", s.concurrent)
	t.Run("leaves no goroutine behind", s.leaks)
}

func (s Suite) needs(t *testing.T, fs ...Feature) {
	t.Helper()
	for _, f := range fs {
		for _, lacked := range s.Lacks {
			if f == lacked {
				t.Skipf("this provider has no %s", f)
			}
		}
	}
}

// request asks the provider under test, as the user, in words.
func (s Suite) request(words string) llm.Request {
	return llm.Request{Model: s.Model, Messages: []llm.Message{llm.Says(llm.User, words)}}
}

// ask asks and adds up, and checks what holds for every stream.
func (s Suite) ask(t *testing.T, sub Subject, req llm.Request) (llm.Answer, []llm.Event, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var acc llm.Accumulator
	var events []llm.Event
	finishes := 0
	var failed error
	for ev, err := range sub.Provider.Stream(ctx, req) {
		if failed != nil {
			t.Fatalf("something follows the error %v", failed)
		}
		if err != nil {
			failed = err
			continue
		}
		if ev.Finish != "" {
			finishes++
		}
		acc.Add(ev)
		events = append(events, ev)
	}
	switch {
	case failed == nil && finishes != 1:
		t.Errorf("a stream without error finished %d times, want once; answer %+v", finishes, acc.Answer())
	case failed != nil && finishes > 0:
		t.Errorf("finished and then failed with %v", failed)
	}
	return acc.Answer(), events, failed
}

// failure asks and returns the *llm.Error that must come.
func (s Suite) failure(t *testing.T, sub Subject, req llm.Request) *llm.Error {
	t.Helper()
	a, _, err := s.ask(t, sub, req)
	var e *llm.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v with answer %q, want an *llm.Error", err, a.Message.Text())
	}
	return e
}
