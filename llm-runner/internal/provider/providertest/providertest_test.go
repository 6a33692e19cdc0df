package providertest_test

import (
	"context"
	"iter"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/provider/providertest"
)

// A spoiled provider passes the events of a good one through change, which breaks the contract.
type spoiled struct {
	llm.Provider
	change func(ctx context.Context, stream iter.Seq2[llm.Event, error], yield func(llm.Event, error) bool)
}

func (s spoiled) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) { s.change(ctx, s.Provider.Stream(ctx, req), yield) }
}

// spoilers are the ways to break the contract, and the test of the suite that must notice.
var spoilers = map[string]struct {
	change  func(context.Context, iter.Seq2[llm.Event, error], func(llm.Event, error) bool)
	noticed string
}{
	"a broken answer looks whole": {noticed: "breaks/truncate", change: func(_ context.Context, s iter.Seq2[llm.Event, error], yield func(llm.Event, error) bool) {
		for ev, err := range s {
			if err != nil {
				ev, err = llm.Event{Finish: llm.FinishStop}, nil
			}
			if !yield(ev, err) {
				return
			}
		}
	}},
	"two finishes": {noticed: "answers/text_comes_in_pieces_that_add_up", change: func(_ context.Context, s iter.Seq2[llm.Event, error], yield func(llm.Event, error) bool) {
		for ev, err := range s {
			if !yield(ev, err) || ev.Finish != "" && !yield(ev, err) {
				return
			}
		}
	}},
	"unknown usage becomes zero": {noticed: "answers/usage_that_is_not_told_is_unknown", change: func(_ context.Context, s iter.Seq2[llm.Event, error], yield func(llm.Event, error) bool) {
		for ev, err := range s {
			if ev.Finish != "" && ev.Usage == nil {
				ev.Usage = &llm.Usage{Input: llm.Known(0), Output: llm.Known(0)}
			}
			if !yield(ev, err) {
				return
			}
		}
	}},
	"the upstream goes on after the caller has left": {noticed: "stops/breaking_the_loop_cancels_the_upstream", change: func(_ context.Context, s iter.Seq2[llm.Event, error], yield func(llm.Event, error) bool) {
		gone := false
		left := time.NewTimer(time.Hour)
		for ev, err := range s {
			if gone {
				select {
				case <-left.C:
					return
				default:
					continue
				}
			}
			if !yield(ev, err) {
				gone = true
				left.Reset(7 * time.Second)
			}
		}
	}},
	"errors forget that something was said": {noticed: "breaks/reset_mid_stream", change: func(_ context.Context, s iter.Seq2[llm.Event, error], yield func(llm.Event, error) bool) {
		for ev, err := range s {
			if e, ok := err.(*llm.Error); ok {
				e.Started = false
			}
			if !yield(ev, err) {
				return
			}
		}
	}},
}

// TestSpoiled runs the suite on a provider that breaks the contract; only TestTheSuiteNotices calls it, in a process of its
// own, and wants it to fail.
func TestSpoiled(t *testing.T) {
	spoiler, ok := spoilers[os.Getenv("PROVIDERTEST_SPOILER")]
	if !ok {
		t.Skip("runs only for TestTheSuiteNotices")
	}
	providertest.Run(t, providertest.Suite{Open: func(t *testing.T, sc providertest.Scenario) providertest.Subject {
		url, up := providertest.Serve(t, "openai", sc)
		p := openai.New(openai.Config{URL: url + "/v1", Key: providertest.Key, Timeout: sc.Silence})
		t.Cleanup(p.CloseIdle)
		return providertest.Subject{Provider: spoiled{p, spoiler.change}, Upstream: up}
	}})
}

func TestTheSuiteNotices(t *testing.T) {
	for name, s := range spoilers {
		t.Run(name, func(t *testing.T) {
			group, test, _ := strings.Cut(s.noticed, "/")
			cmd := exec.Command(os.Args[0], "-test.run=^TestSpoiled$/^"+group+"$/^"+test+"$", "-test.timeout=5m")
			cmd.Env = append(os.Environ(), "PROVIDERTEST_SPOILER="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "FAIL: TestSpoiled/"+s.noticed) {
				t.Errorf("not noticed: %v\n%s", err, out)
			}
		})
	}
}
